"""Whatever is sent, the answer has the contract's shape, and nothing of it is a 500 or a traceback."""

from __future__ import annotations

import json
import logging
from http.client import responses
from typing import Any

import pytest

from navi_jupyter.server.bodies import parse
from navi_jupyter.server.rest import ROUTES
from tests.conftest import Answer, Api

SCHEDULE = {"kind": "once", "in": "1h"}


def check_error(answer: Answer, status: int, code: str, field: str | None = None) -> None:
    """The contract's shape of an error."""
    assert answer.status == status, answer.body
    body = answer.json
    assert body["code"] == code
    assert body["reason"] == responses[status]
    assert body["message"]
    assert len(body["message"]) < 1000
    assert set(body) <= {"message", "reason", "code", "field"}
    assert "Traceback" not in body["message"]
    if field is not None:
        assert body["field"] == field


@pytest.fixture(autouse=True)
def no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> Any:
    """Bad input is an answer, not an incident."""
    yield
    for record in caplog.get_records("call"):
        assert record.exc_info is None or record.levelno < logging.INFO, record
        assert "navi_internal_error" not in record.getMessage()


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "body"),
        (b"   ", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'"text"', "body"),
        (b"\xff\xfe{}", "body"),
        (b'{"title": "\xed\xa0"}', "body"),
        (b'{"\\ud800": 1}', None),
        (b"[" * 200_000, "body"),
        (b'{"title":' * 5_000 + b"1" + b"}" * 5_000, None),
        (b'{"title": NaN}', None),
        (b'{"title": 1e999}', "title"),
        (b'{"title": ' + b"9" * 10_000 + b"}", None),
        (b'{"title": 5}', "title"),
        (b'{"title": ""}', "title"),
        (b'{"title": true}', "title"),
        (b'{"title": ["a"]}', "title"),
        (b'{"titel": "a"}', "titel"),
        (b'{"profile": "../x"}', "profile"),
        (b'{"profile": "unknown-profile"}', "profile"),
        (b'{"model": "nonsense"}', "model"),
        (b'{"timezone": "Mars/Olympus"}', "timezone"),
        (b'{"timezone": "../../etc/passwd"}', "timezone"),
        (b'{"title": "' + b"x" * 201 + b'"}', "title"),
        (b'{"title": "' + b"x" * 10_000_000 + b'"}', "body"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_bad_body_is_refused_naming_the_field(api: Api, raw: bytes, field: str | None) -> None:
    check_error(await api("POST", "sessions", raw=raw), 400, "invalid_request", field)
    assert (await api.ok("GET", "sessions"))["sessions"] == []


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "image/png"])
async def test_a_body_that_says_it_is_something_else_is_refused(api: Api, kind: str) -> None:
    answer = await api("POST", "sessions", {}, headers={"Content-Type": kind})
    assert answer.status == 400
    assert answer.json["code"] == "invalid_request"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded"])
async def test_a_body_whose_sender_says_nothing_better_is_read_as_json(api: Api, kind: str) -> None:
    """curl and tornado claim a form when nobody says otherwise."""
    assert (await api("POST", "sessions", {"title": "a"}, headers={"Content-Type": kind})).status == 201


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({}, "type"),
        ({"type": "dance"}, "type"),
        ({"type": "x" * 100_000}, "type"),
        ({"type": 5}, "type"),
        ({"type": "prompt"}, "text"),
        ({"type": "prompt", "text": ""}, "text"),
        ({"type": "prompt", "text": None}, "text"),
        ({"type": "prompt", "text": "x", "mode": "shout"}, "mode"),
        ({"type": "prompt", "text": "x", "model": "nonsense"}, "model"),
        ({"type": "prompt", "text": "x", "user": "eve"}, "user"),
        ({"type": "prompt", "text": "x", "command_id": "with space"}, "command_id"),
        ({"type": "prompt", "text": "x", "command_id": "x" * 129}, "command_id"),
        ({"type": "prompt", "text": "x", "command_id": "null\x00"}, "command_id"),
        ({"type": "unqueue"}, "target"),
        ({"type": "answer", "interrupt_id": "i", "status": "maybe"}, "status"),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_a_bad_command_is_refused_and_leaves_no_trace_in_the_log(
    api: Api, command: dict[str, Any], field: str
) -> None:
    sid = await api.session()
    answer = await api("POST", f"sessions/{sid}/commands", command)
    check_error(answer, 400, "invalid_request")
    assert answer.json["field"] in (field, "body")
    assert (await api.ok("GET", f"sessions/{sid}/events")) == {"events": [], "head_seq": 0}


async def test_odd_characters_in_a_prompt_survive(api: Api) -> None:
    sid = await api.session()
    text = "ab\u2028\U0001f600\u202e</script>"
    await api.until_run_ends(sid, (await api.prompt(sid, text))["run_id"])
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert messages[0]["content"] == text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "abc"}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": "1_0"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": 10**9}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"after": -1}, "after"),
        ({"after": 2**70}, "after"),
        ({"after": "x"}, "after"),
        ({"wait": "nan"}, "wait"),
        ({"wait": "inf"}, "wait"),
        ({"wait": -1}, "wait"),
        ({"wait": 31}, "wait"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_bad_query_is_refused_naming_the_parameter(api: Api, query: dict[str, Any], field: str) -> None:
    sid = await api.session()
    check_error(await api("GET", f"sessions/{sid}/events", **query), 400, "invalid_request", field)


@pytest.mark.parametrize("path", ["sessions", "recalls", "sessions/{sid}/runs", "recalls/{rid}/firings"])
async def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, path: str) -> None:
    sid = await api.session()
    rid = (await api.ok("POST", "recalls", {"session_id": sid, "message": "m", "schedule": SCHEDULE}))["id"]
    for cursor in ("nonsense", "x" * 600, "-1", "1:2:3", "\x00"):
        answer = await api("GET", path.format(sid=sid, rid=rid), cursor=cursor)
        assert answer.status in (200, 400), cursor
        if answer.status == 400:
            check_error(answer, 400, "invalid_request", "cursor")


async def test_bad_values_of_other_parameters_are_refused(api: Api) -> None:
    sid = await api.session()
    check_error(await api("GET", f"sessions/{sid}/export", format="pdf"), 400, "invalid_request", "format")
    check_error(await api("GET", "recalls", status="asleep"), 400, "invalid_request", "status")
    stream = {"Accept": "text/event-stream", "Last-Event-ID": "x"}
    check_error(await api("GET", f"sessions/{sid}/events", headers=stream), 400, "invalid_request", "Last-Event-ID")


@pytest.mark.parametrize(
    ("schedule", "code"),
    [
        (None, "invalid_request"),
        ({}, "invalid_request"),
        ({"kind": "never"}, "invalid_request"),
        ({"kind": "once"}, "invalid_schedule"),
        ({"kind": "once", "in": "10m", "at": "2099-01-01T00:00:00Z"}, "invalid_schedule"),
        ({"kind": "once", "at": "2001-01-01T00:00:00Z"}, "invalid_schedule"),
        ({"kind": "once", "at": "2099-01-01T00:00:00"}, "invalid_request"),
        ({"kind": "once", "at": 4070908800}, "invalid_request"),
        ({"kind": "once", "in": "0s"}, "invalid_schedule"),
        ({"kind": "once", "in": "-5m"}, "invalid_schedule"),
        ({"kind": "once", "in": "soon"}, "invalid_schedule"),
        ({"kind": "once", "in": "1m", "extra": 1}, "invalid_request"),
        ({"kind": "every", "every": "0m"}, "invalid_schedule"),
        ({"kind": "every", "every": 60}, "invalid_schedule"),
        ({"kind": "cron", "expr": "61 * * * *"}, "invalid_schedule"),
        ({"kind": "cron", "expr": "0 0 30 2 *"}, "invalid_schedule"),
        ({"kind": "cron", "expr": "* * *"}, "invalid_schedule"),
        ({"kind": "cron", "expr": "x" * 300}, "invalid_request"),
        ({"kind": "cron", "expr": "0 9 * * *", "tz": "Mars/Olympus"}, "invalid_schedule"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_an_impossible_schedule_is_refused_with_the_reason(api: Api, schedule: Any, code: str) -> None:
    sid = await api.session()
    body = {"session_id": sid, "message": "look"} | ({} if schedule is None else {"schedule": schedule})
    answer = await api("POST", "recalls", body)
    check_error(answer, 400, code)
    assert answer.json["field"].startswith("schedule")
    if schedule:
        preview = await api("POST", "recalls/preview", {"schedule": schedule})
        if not (schedule["kind"] == "once" and "2001" in str(schedule)):  # the past can be looked at
            check_error(preview, 400, code)
    assert (await api.ok("GET", "recalls"))["recalls"] == []


async def test_unknown_ids_are_not_found_on_every_route(api: Api) -> None:
    bodies = {
        "Command": {"type": "prompt", "text": "x"},
        "SessionPatch": {"title": "x"},
        "RecallPatch": {"title": "x"},
        "FactPatch": {"text": "x"},
        "ReadRequest": {"seq": 1},
        "ShareRequest": {"user": "x"},
        "NotebookClaim": {"unsaved": True},
        "NotebookReport": {"refusal": "not_found"},
    }
    codes = {
        "sessions": "session_not_found",
        "recalls": "recall_not_found",
        "memory": "fact_not_found",
        "attachments": "attachment_not_found",
        "mcp": "not_found",
        "notify": "not_found",
        "profiles": "not_found",
    }
    for odd in ("unknown", "%00", "a%20b", "%F0%9F%98%80", "..%2F..", "x" * 3000):
        for op in ROUTES.operations:
            kind = op.path.partition("/")[0]
            if "{" not in op.path or kind not in codes or op.method == "PUT":  # which makes what there is not
                continue
            path = "/".join("{odd}" if part.startswith("{") else part for part in op.path.split("/"))
            answer = await api(op.method, path.format(odd="unknown"), bodies.get(op.body or ""))
            check_error(answer, 404, codes[kind])
        raw = await api("GET", f"sessions/{odd}")
        assert raw.status in (400, 404)


async def test_a_route_that_is_not_there_has_the_shape_of_an_error(api: Api) -> None:
    for path in ("", "nothing", "sessions/a/b/c/d", "sessions/", "sessions//events", "recalls/a/dance"):
        check_error(await api("GET", path), 404, "not_found")
    check_error(await api("PUT", "sessions", {}), 405, "method_not_allowed")
    check_error(await api("DELETE", "health"), 405, "method_not_allowed")
    check_error(await api("GET", "recalls/preview"), 405, "method_not_allowed")


class TestLimits:
    """Small limits."""

    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"max_sessions_per_user": 1, "max_recalls_per_user": 1, "max_message_bytes": 2000}

    async def test_what_is_over_a_limit_is_refused(self, api: Api) -> None:
        sid = await api.session()
        check_error(await api("POST", "sessions", {}), 429, "limit_reached")
        recall = {"session_id": sid, "message": "m", "schedule": SCHEDULE}
        await api.ok("POST", "recalls", recall)
        check_error(await api("POST", "recalls", recall), 429, "limit_reached")
        check_error(await api("POST", "sessions", {"title": "x" * 3000}), 400, "invalid_request", "body")
        async with api.socket(sid, after=0) as socket:
            rejected = await socket.answer({"type": "prompt", "text": "é" * 1500})
            assert rejected["rejected"]["code"] == "invalid_request"


def test_the_variant_of_a_union_is_not_named_as_a_field() -> None:
    with pytest.raises(Exception, match="schedule") as refused:
        parse("RecallCreate", json.dumps({"session_id": "s", "message": "m", "schedule": {"kind": "once", "at": 1}}))
    assert refused.value.field == "schedule.at"  # type: ignore[attr-defined]
