"""Memory and attachments over HTTP."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.conftest import Api
from tests.store.test_attachments import png


@pytest.fixture
def navi_config() -> dict[str, Any]:
    return {"max_attachment_bytes": 2_000_000, "max_message_bytes": 100_000, "max_facts_per_user": 3}


async def test_facts_are_added_found_changed_and_forgotten(api: Api) -> None:
    fact = await api.ok("POST", "memory", {"text": "Prefers SI units"})
    assert fact["source"] == "user"
    assert (await api.ok("GET", "memory", query="units si"))["memory"] == [fact]
    changed = await api.ok("PATCH", f"memory/{fact['id']}", {"text": "Prefers CGS units"})
    assert changed["text"] == "Prefers CGS units"
    assert (await api.ok("GET", "memory", query="cgs"))["memory"] == [changed]
    assert (await api("DELETE", f"memory/{fact['id']}")).status == 204
    assert await api.ok("GET", "memory") == {"memory": [], "next": None}
    assert (await api("DELETE", f"memory/{fact['id']}")).json["code"] == "fact_not_found"
    for text in ("one", "two", "three"):
        await api.ok("POST", "memory", {"text": text})
    assert (await api("POST", "memory", {"text": "four"})).status == 429
    assert (await api("DELETE", "memory")).status == 204
    assert (await api.ok("GET", "memory"))["memory"] == []


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": "x", "owner": "eve"}, {"text": 7}, []])
async def test_a_bad_fact_is_refused_naming_the_field(api: Api, body: Any) -> None:
    answer = await api("POST", "memory", body)
    assert answer.status == 400
    assert answer.json["field"]


async def test_an_upload_may_be_larger_than_a_message_and_comes_back_as_it_was(api: Api) -> None:
    content = b"x,y\n" + b"1,2\n" * 100_000
    answer = await api("POST", "attachments", raw=content, headers={"Content-Type": "text/csv"}, name="big.csv")
    assert answer.status == 201
    about = answer.json
    assert (about["name"], about["media_type"], about["size"]) == ("big.csv", "text/csv", len(content))
    back = await api("GET", f"attachments/{about['id']}")
    assert back.body == content
    assert await api.ok("GET", f"attachments/{about['id']}/info") == about


async def test_what_was_uploaded_never_runs_as_a_page_of_this_server(api: Api) -> None:
    html = b"<html><script>alert(1)</script></html>"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for content, name, shown in ((html, "a.html", "attachment"), (svg, "a.svg", "inline"), (png(), "a.png", "inline")):
        about = (await api("POST", "attachments", raw=content, name=name)).json
        back = await api("GET", f"attachments/{about['id']}")
        assert back.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in back.headers["Content-Security-Policy"]
        assert back.headers["Content-Disposition"].startswith(shown)
        assert "html" not in back.headers["Content-Type"]


async def test_what_is_too_large_unknown_or_not_there_is_refused(api: Api) -> None:
    too_large = await api("POST", "attachments", raw=b"x" * 2_000_001)
    assert too_large.status == 400
    unknown = await api("POST", "attachments", raw=b"\x7fELF\x00\x01", headers={"Content-Type": "image/png"})
    assert (unknown.status, unknown.json["code"]) == (400, "attachment_refused")
    assert (await api("POST", "attachments", raw=b"")).status == 400
    assert (await api("GET", "attachments/a_none")).json["code"] == "attachment_not_found"


async def test_a_prompt_shows_what_it_brought_whether_by_id_or_inline(api: Api) -> None:
    session_id = await api.session()
    uploaded = (await api("POST", "attachments", raw=png(), name="plot.png")).json
    inline = {"data": base64.b64encode(b"a,b\n1,2\n").decode(), "name": "data.csv"}
    accepted = await api.prompt(session_id, "help", images=[{"id": uploaded["id"]}], files=[inline])
    log = await api.until_run_ends(session_id, accepted["run_id"])
    start = next(one["event"] for one in log if one["event"]["type"] == "TEXT_MESSAGE_START")
    shown = start["metadata"]["attachments"]
    assert [(one["name"], one["media_type"]) for one in shown] == [("plot.png", "image/png"), ("data.csv", "text/csv")]
    messages = (await api.ok("GET", f"sessions/{session_id}/messages"))["messages"]
    assert messages[0]["attachments"] == shown


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"images": [{"id": "a_none"}]}, "images.0"),
        ({"images": [{"data": base64.b64encode(b"text").decode()}]}, "images.0"),
        ({"files": [{"path": "../../etc/passwd"}]}, "files.0"),
        ({"files": [{"path": "/etc/passwd"}]}, "files.0"),
        ({"files": [{}]}, "files.0"),
        ({"files": [{"id": "a", "path": "b"}]}, "files.0"),
        ({"images": [{"data": "%%%"}]}, "images.0"),
    ],
)
async def test_a_bad_attachment_names_its_field_and_nothing_is_accepted(
    api: Api, fields: dict[str, Any], field: str
) -> None:
    session_id = await api.session()
    answer = await api("POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": "look", **fields})
    assert answer.status in (400, 403, 404), answer.body
    assert answer.json["field"] == field
    assert (await api.ok("GET", f"sessions/{session_id}/messages"))["messages"] == []
