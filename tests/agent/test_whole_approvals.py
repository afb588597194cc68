"""Questions, steering and subagents in the whole server without HTTP: real store, orchestrator and composition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Answer, Prompt
from navi_jupyter.model.sessions import RunStatus
from tests.support.providers import Call, Reply, ScriptedProvider

from .test_whole import OPENAI, ended, said, seen, services, session_of


def opened(event: dict[str, Any]) -> bool:
    return event.get("name") == "navi.interrupt" and event["value"]["action"] == "opened"


async def test_a_run_that_asked_goes_on_after_a_restart_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool needs no kernel: here it is `delegate`, made to ask by the administrator."""
    ceiling = {"delegate": "ask"}
    script = (Reply(calls=(Call("delegate", {"task": "TASK"}),)), Reply("subagent's answer"), Reply("It says so."))
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        async with services(tmp_path, tool_ceiling=ceiling) as built:
            session_id = await session_of(built, OPENAI)
            accepted = await built.sessions.orchestrator.submit(session_id, Prompt(text="go"), user_id="ada")
            assert accepted.run_id is not None
            envelope = await seen(built, session_id, opened)
            interrupt = envelope["event"]["value"]["interrupt"]
            assert interrupt["tool"] == "delegate"
            await seen(built, session_id, lambda event: event["type"] == "RUN_FINISHED")
        async with services(tmp_path, tool_ceiling=ceiling) as built:
            answer = Answer(interrupt_id=interrupt["id"], status="resolved", payload={"approved": True})
            await built.sessions.orchestrator.submit(session_id, answer, user_id="ada")
            await seen(built, session_id, lambda event: event["type"] == "SUBAGENT_FINISHED")
            await seen(built, session_id, lambda event: "It says so." in event.get("delta", ""))
            await seen(
                built,
                session_id,
                lambda event: event["type"] == "RUN_FINISHED" and event["outcome"]["type"] == "success",
            )
            run = await built.sessions.orchestrator.sessions.run(session_id, accepted.run_id, owner="ada")
            assert run.status is RunStatus.COMPLETED
            assert run.usage.requests == 3
    assert len(provider.requests) == 3


async def test_a_prompt_that_steers_reaches_the_running_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Reply("First.", hold_end=True)
    async with ScriptedProvider(first, Reply("Second.")) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, OPENAI)
        accepted = await built.sessions.orchestrator.submit(session_id, Prompt(text="go"), user_id="ada")
        assert accepted.run_id is not None
        await seen(built, session_id, lambda event: event.get("delta") == "First.")
        await built.sessions.orchestrator.submit(session_id, Prompt(text="in euros", mode="steer"), user_id="ada")
        first.release.set()
        run = await ended(built, session_id, accepted.run_id)
        assert run.status is RunStatus.COMPLETED
        text = await said(built, session_id, run.id)
        assert "First." in text
        assert "Second." in text
    assert "in euros" in str(provider.requests[1].body)
