"""``GET attention``: what waits for a user in all sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from navi_jupyter.events import Event, ToolCallEnd, ToolCallStart
from navi_jupyter.model.runs import CallDetail, InterruptKind
from navi_jupyter.model.sessions import Usage
from navi_jupyter.ports.agent import Ask, ToolContext, Turn, TurnResult
from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api


class AsksOnce:
    """Asks for approval of one call; the run of a recall just ends."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        if turn.prompt == "ask" and turn.resumed is None:
            call = f"k_{turn.run_id}"
            yield ToolCallStart(tool_call_id=call, tool_call_name="run_code")
            yield ToolCallEnd(tool_call_id=call)
            ask = Ask(
                kind=InterruptKind.APPROVAL,
                message="Run it?",
                tool_call_id=call,
                tool="run_code",
                args={"n": 1},
                source="builtin",
                details=(CallDetail(label="Source of the cell", text="x = 1", kind="code"),),
                fingerprint="f",
            )
            yield TurnResult(conversation=b"{}", asks=(ask,), usage=Usage())
        else:
            yield TurnResult(conversation=b"{}", usage=Usage())


@pytest.fixture
def asking(navi: NaviExtension) -> None:
    """The agent of this server asks."""
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    orchestrator = navi.lifecycle.services.sessions.orchestrator
    orchestrator._agent = AsksOnce()
    assert orchestrator._shared is not None
    object.__setattr__(orchestrator._shared, "agent", orchestrator._agent)


async def attention(api: Api, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The answer as soon as it is as expected."""
    for _ in range(200):
        found: dict[str, Any] = await api.ok("GET", "attention")
        if holds(found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(found)


async def test_nothing_waits_where_nothing_has_run(api: Api) -> None:
    await api.session()
    assert await api.ok("GET", "attention") == {"unread": 0, "questions": 0, "sessions": []}


@pytest.mark.usefixtures("asking")
async def test_questions_and_what_is_unread_are_counted_over_all_sessions(api: Api) -> None:
    first, second = await api.session(title="first", notebook_path="work/first.ipynb"), await api.session()
    await api.prompt(first, "ask")
    found = await attention(api, lambda found: found["questions"] == 1)
    (asked,) = found["sessions"]
    assert asked == {"id": first, "title": "first", "notebook_path": "work/first.ipynb", "unread": 0, "questions": 1}
    recall = {"session_id": second, "message": "stretch", "schedule": {"kind": "once", "in": "1s"}}
    await api.ok("POST", "recalls", recall)
    found = await attention(api, lambda found: found["unread"] == 1)
    assert {each["id"] for each in found["sessions"]} == {first, second}
    assert found["questions"] == 1
    head = (await api.ok("GET", f"sessions/{second}"))["head_seq"]
    await api.ok("POST", f"sessions/{second}/read", {"seq": head})
    (question,) = (await api.ok("GET", f"sessions/{first}"))["approvals"]
    await api.ok(
        "POST",
        f"sessions/{first}/commands",
        {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}},
    )
    # The rest of its run ended while no page followed the session.
    found = await attention(api, lambda found: found["questions"] == 0 and found["unread"] == 1)
    assert [each["id"] for each in found["sessions"]] == [first]
    head = (await api.ok("GET", f"sessions/{first}"))["head_seq"]
    await api.ok("POST", f"sessions/{first}/read", {"seq": head})
    assert await api.ok("GET", "attention") == {"unread": 0, "questions": 0, "sessions": []}


@pytest.mark.usefixtures("asking")
async def test_what_waits_for_others_is_not_counted(api: Api, navi: NaviExtension) -> None:
    sid = await api.session()
    await api.prompt(sid, "ask")
    await attention(api, lambda found: found["questions"] == 1)
    assert navi.lifecycle is not None
    marks = (await navi.lifecycle.ready()).sessions.read_marks
    assert await marks.waiting("somebody else") == []
