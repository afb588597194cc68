"""What a client sees over HTTP of queues, questions, switches and usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from navi_jupyter.events import Event, ToolCallEnd, ToolCallResult, ToolCallStart
from navi_jupyter.model.runs import CallDetail, InterruptKind
from navi_jupyter.model.sessions import Usage
from navi_jupyter.ports.agent import Ask, ToolContext, Turn, TurnResult
from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api


class Asking:
    """Asks for approval of one call; ``wait`` waits to be stopped."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        spent = Usage(input_tokens=10, output_tokens=5, requests=1, cost=0.25)
        call = f"k_{turn.run_id}"
        if turn.prompt == "wait":
            await asyncio.wait_for(context.stop.wait(), 20)
        elif turn.resumed is None:
            yield ToolCallStart(tool_call_id=call, tool_call_name="run_code")
            yield ToolCallEnd(tool_call_id=call)
            shown = CallDetail(label="Source of the cell", text="x = 1\nevil()\u202e", kind="code")
            ask = Ask(
                kind=InterruptKind.APPROVAL,
                message="Run it?",
                tool_call_id=call,
                tool="run_code",
                args={"n": 1},
                source="builtin",
                details=(shown,),
                fingerprint="f",
            )
            yield TurnResult(conversation=b"{}", asks=(ask,), usage=spent)
            return
        for answer in turn.answers:
            yield ToolCallResult(message_id=f"z_{call}", tool_call_id=call, content=str(answer.payload))
        yield TurnResult(conversation=b"{}", usage=spent)


@pytest.fixture
def asking(navi: NaviExtension) -> None:
    """The agent of this server asks."""
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    orchestrator = navi.lifecycle.services.sessions.orchestrator
    orchestrator._agent = Asking()
    assert orchestrator._shared is not None
    object.__setattr__(orchestrator._shared, "agent", orchestrator._agent)


async def waiting(api: Api, sid: str) -> dict[str, Any]:
    """Prompt; the session once it has paused for its question."""
    run_id = (await api.prompt(sid, "go"))["run_id"]
    await api.until_run_ends(sid, run_id)
    detail: dict[str, Any] = await api.ok("GET", f"sessions/{sid}")
    return detail


async def command(api: Api, sid: str, **fields: Any) -> Any:
    return await api("POST", f"sessions/{sid}/commands", fields)


@pytest.mark.usefixtures("asking")
async def test_an_open_question_is_in_the_session_and_is_answered_by_a_command(api: Api) -> None:
    sid = await api.session()
    detail = await waiting(api, sid)
    run_id = detail["run"]["id"]
    (question,) = detail["approvals"]
    assert (question["kind"], question["tool"], question["args"]) == ("approval", "run_code", {"n": 1})
    assert (question["run_id"], question["status"], question["durable"]) == (run_id, "open", True)
    assert (detail["run"]["id"], detail["run"]["status"]) == (run_id, "waiting")
    assert detail["usage"]["cost"] == 0.25
    wrong = await command(api, sid, type="answer", interrupt_id=question["id"], status="resolved", payload={"no": 1})
    assert (wrong.status, wrong.json["code"]) == (400, "invalid_request")
    assert wrong.json["field"].startswith("payload")
    given = await command(
        api, sid, type="answer", interrupt_id=question["id"], status="resolved", payload={"approved": True}
    )
    assert (given.status, given.json["run_id"]) == (202, run_id)
    late = await command(api, sid, type="answer", interrupt_id=question["id"], status="cancelled")
    assert (late.status, late.json["code"]) == (404, "interrupt_not_found")


@pytest.mark.usefixtures("asking")
async def test_what_was_shown_of_a_call_and_the_answer_are_in_the_api_and_in_exports(api: Api) -> None:
    sid = await api.session()
    (question,) = (await waiting(api, sid))["approvals"]
    assert question["details"][0]["text"] == "x = 1\nevil()\u202e"
    assert question["source"] == "builtin"
    fields = {"interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}}
    await api.until_run_ends(sid, (await command(api, sid, type="answer", **fields)).json["run_id"])
    (kept,) = (await api("GET", f"sessions/{sid}/export", format="json")).json["questions"]
    assert (kept["details"], kept["payload"]["approved"]) == (question["details"], True)
    for kind in ("md", "ipynb"):
        text = (await api("GET", f"sessions/{sid}/export", format=kind)).body.decode()
        assert "Allowed by" in text
        shown = text if kind == "md" else "".join(cell["source"] for cell in json.loads(text)["cells"])
        assert "evil()⟨U+202E⟩" in shown


@pytest.mark.usefixtures("asking")
async def test_what_waits_is_listed_with_its_texts_and_can_be_changed(api: Api) -> None:
    sid = await api.session()
    await api.prompt(sid, "wait")
    for number in (1, 2):
        await command(api, sid, type="prompt", text=f"then {number}", mode="collect", command_id=f"c{number}")
    await command(api, sid, type="edit", target="c2", text="then three", display="3")
    (queued,) = (await api.ok("GET", f"sessions/{sid}"))["queue"]
    assert (queued["status"], queued["mode"]) == ("queued", "collect")
    assert [(one["command_id"], one["text"], one["display"]) for one in queued["prompts"]] == [
        ("c1", "then 1", None),
        ("c2", "then three", "3"),
    ]
    assert (await command(api, sid, type="unqueue", target="c1")).status == 202
    (queued,) = (await api.ok("GET", f"sessions/{sid}"))["queue"]
    assert [one["command_id"] for one in queued["prompts"]] == ["c2"]
    unknown = await command(api, sid, type="edit", target="c1", text="x")
    assert (unknown.status, unknown.json["code"]) == (404, "command_not_found")


async def test_a_sessions_allowed_tools_and_context_can_be_set_and_changed(api: Api) -> None:
    created = await api("POST", "sessions", {"allowed_tools": ["run_code"], "context": {"memory": False}})
    assert (created.json["allowed_tools"], created.json["context"]) == (["run_code"], {"memory": False})
    sid = created.json["id"]
    changed = await api.ok("PATCH", f"sessions/{sid}", {"allowed_tools": [], "context": {"time": True}})
    assert (changed["allowed_tools"], changed["context"]) == ([], {"time": True})
    refused = await api("PATCH", f"sessions/{sid}", {"allowed_tools": None})
    assert (refused.status, refused.json["field"]) == (400, "allowed_tools")


@pytest.mark.usefixtures("asking")
async def test_usage_is_summed_over_a_users_runs(api: Api) -> None:
    nothing = await api.ok("GET", "usage")
    none = {"input_tokens": 0, "output_tokens": 0, "requests": 0, "cost": None}
    assert nothing == {"today": none, "last_30_days": none, "total": none}
    sid = await api.session()
    await waiting(api, sid)
    spent = {"input_tokens": 10, "output_tokens": 5, "requests": 1, "cost": 0.25}
    assert await api.ok("GET", "usage", tz="Europe/Berlin") == {"today": spent, "last_30_days": spent, "total": spent}
    refused = await api("GET", "usage", tz="Nowhere/Land")
    assert (refused.status, refused.json["field"]) == (400, "tz")


@pytest.mark.usefixtures("asking")
async def test_a_question_is_read_alone_and_knows_whether_a_page_shows_it(api: Api) -> None:
    sid = await api.session()
    (asked,) = (await waiting(api, sid))["approvals"]
    path = f"sessions/{sid}/interrupts/{asked['id']}"
    assert await api.ok("GET", path) == asked | {"drawn": False}
    drawn = await api("POST", f"{path}/drawn")
    assert drawn.status == 204
    assert (await api.ok("GET", path))["drawn"] is True
    await command(api, sid, type="answer", interrupt_id=asked["id"], status="resolved", payload={"approved": False})
    settled = await api.ok("GET", path)
    assert (settled["status"], settled["payload"]["approved"]) == ("resolved", False)
    other = await api.session()
    for method, foreign in (("GET", ""), ("POST", "/drawn")):
        answer = await api(method, f"sessions/{other}/interrupts/{asked['id']}{foreign}")
        assert (answer.status, answer.json["code"]) == (404, "interrupt_not_found")
