"""Text that no UTF-8 can hold, and unknown query parameters, from clients of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navi_jupyter.server.http import AFTER, Query
from navi_jupyter.server.rest import ROUTES
from tests.conftest import Api
from tests.server.test_bad_input import check_error

LONE, PAIR = "a\ud83db\x00c", "\ud83d\ude00"
KEPT = "a\ufffdb\ufffdc"
FILE = {"data": "aGVsbG8=", "name": "n\ud83d.txt", "media_type": "text/plain"}


@pytest.mark.parametrize("as_bytes", [False, True], ids=["escaped", "in UTF-8"])
async def test_bodies_with_lone_surrogates_and_nul_are_taken_with_the_replacement_character(
    api: Api, as_bytes: bool
) -> None:
    def raw(body: Any) -> bytes:
        text = json.dumps(body, ensure_ascii=not as_bytes)
        return text.encode("utf-8", "surrogatepass")

    created = await api("POST", "sessions", raw=raw({"title": f"{LONE} {PAIR}"}))
    assert created.status == 201, created.body
    sid = created.json["id"]
    assert created.json["title"] == f"{KEPT} \U0001f600"
    accepted = await api("POST", f"sessions/{sid}/commands", raw=raw({"type": "prompt", "text": f"count to 1 {LONE}"}))
    assert accepted.status == 202
    await api.until_run_ends(sid, accepted.json["run_id"])
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert messages[0]["content"] == f"count to 1 {KEPT}"
    recall = {"session_id": sid, "message": LONE, "title": LONE, "schedule": {"kind": "once", "in": "1h"}}
    made = await api("POST", "recalls", raw=raw(recall))
    assert (made.status, made.json["message"], made.json["title"]) == (201, KEPT, KEPT)
    fact = await api("POST", "memory", raw=raw({"text": LONE}))
    assert (fact.status, fact.json["text"]) == (201, KEPT)
    for kind in ("md", "ipynb", "json"):
        assert (await api("GET", f"sessions/{sid}/export", format=kind)).status == 200


async def test_such_commands_over_a_socket_are_taken(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid) as socket:
        answer = await socket.answer({"type": "prompt", "text": f"count to 1 {LONE}", "files": [FILE]})
        assert "accepted" in answer, answer
        await api.until_run_ends(sid, answer["accepted"]["run_id"])
    prompt = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"][0]
    assert (prompt["content"], prompt["attachments"][0]["name"]) == (f"count to 1 {KEPT}", "n\ufffd.txt")


# --- queries


ROUTES_WITH = [(operation.method, operation.path) for operation in ROUTES.operations]


@pytest.mark.parametrize(("method", "path"), ROUTES_WITH, ids=[f"{method} {path}" for method, path in ROUTES_WITH])
async def test_no_route_ignores_a_query_parameter(api: Api, method: str, path: str) -> None:
    answer = await api(method, path.replace("{", "").replace("}", ""), q="x")
    check_error(answer, 400, "invalid_request", "q")
    known = next(one.query for one in ROUTES.operations if (one.method, one.path) == (method, path))
    for query in known:
        assert query.name in answer.json["message"]


@pytest.mark.parametrize("name", ["q", "Limit", "limit ", "session-id", "a\x00", "a" * 300, "after[]"])
async def test_the_refusal_names_the_parameter_and_the_known_ones(api: Api, name: str) -> None:
    answer = await api("GET", "sessions", **{name: "x"})
    check_error(answer, 400, "invalid_request")
    assert "cursor, limit, notebook_path, query and show" in answer.json["message"]


@pytest.mark.parametrize("name", ["token", "_", "_xsrf", "1795000000123"])
async def test_what_jupyter_and_its_pages_add_to_a_query_is_no_mistake(api: Api, name: str) -> None:
    assert (await api("GET", "sessions", **{name: ""})).status == 200


async def test_sockets_refuse_unknown_query_parameters_too(api: Api) -> None:
    sid = await api.session()
    with pytest.raises(Exception, match="400"):
        async with api.socket(sid, since=3):
            pass


@pytest.mark.parametrize(
    ("query", "text", "says"),
    [
        (AFTER, "x", "after must be an integer."),
        (AFTER, "-1", "after must be from 0 to 9007199254740992."),
        (AFTER, "1e300", "after must be an integer."),
        (Query(name="wait", kind="number", maximum=30.0, help=""), "x", "wait must be a number."),
        (Query(name="wait", kind="number", maximum=30.0, help=""), "31", "wait must be from 0 to 30."),
        (Query(name="share", kind="number", maximum=0.25, help=""), "1", "share must be from 0 to 0.25."),
        (Query(name="n", kind="integer", minimum=1, maximum=1_000_000, help=""), "0", "n must be from 1 to 1000000."),
    ],
)
def test_limits_are_written_as_people_write_them(query: Query, text: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        query.read(text)
