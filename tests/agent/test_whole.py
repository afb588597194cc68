"""The agent in the whole server without HTTP: real store, orchestrator, recall service and scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Prompt, Stop
from navi_jupyter.model.sessions import Run, RunStatus, SessionCreate
from navi_jupyter.server.metrics import ProcessMeasures
from navi_jupyter.server.runtime import runtime
from navi_jupyter.server.services import Services
from navi_jupyter.settings import Limits, Settings
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

OPENAI = "openai-chat:gpt-6-luna"


@asynccontextmanager
async def services(tmp_path: Path, limits: Limits | None = None, **settings: Any) -> AsyncIterator[Services]:
    built_with = Settings(database_url=f"sqlite:///{tmp_path}/navi.db", limits=limits or Limits(), **settings)
    async with runtime(built_with, ProcessMeasures(), logging.getLogger("server")) as built:
        yield built


async def session_of(built: Services, model: str = "offline") -> str:
    session = await built.sessions.orchestrator.sessions.create(
        SessionCreate(model=model, timezone="Europe/Berlin"), owner="ada"
    )
    return session.id


async def ask(built: Services, session_id: str, text: str) -> Run:
    """Prompt and wait for the run's end."""
    accepted = await built.sessions.orchestrator.submit(session_id, Prompt(text=text), user_id="ada")
    assert accepted.run_id is not None
    return await ended(built, session_id, accepted.run_id)


async def ended(built: Services, session_id: str, run_id: str) -> Run:
    """The run once it is over: its end is an event of the log."""
    await seen(built, session_id, lambda event: event["type"] in ("RUN_FINISHED", "RUN_ERROR"), run_id)
    return await built.sessions.orchestrator.sessions.run(session_id, run_id, owner="ada")


async def seen(built: Services, session_id: str, wanted: Any, run_id: str | None = None) -> dict[str, Any]:
    """The first event from the beginning that is wanted (of that run)."""
    async with asyncio.timeout(20):
        async for page in built.sessions.orchestrator.follow(session_id, after=0, owner="ada"):
            for _, text in page.envelopes:
                envelope: dict[str, Any] = json.loads(text)
                if run_id in (None, envelope["run_id"]) and wanted(envelope["event"]):
                    return envelope
    raise AssertionError("the log ended")


async def said(built: Services, session_id: str, run_id: str) -> str:
    messages = await built.sessions.orchestrator.sessions.messages(session_id, owner="ada")
    return "".join(one.content for one in messages if one.run_id == run_id and one.role == "assistant")


async def test_a_reminder_made_offline_fires_and_is_said(tmp_path: Path) -> None:
    async with services(tmp_path) as built:
        session_id = await session_of(built)
        run = await ask(built, session_id, "remind me in 1 second to stretch")
        assert run.status is RunStatus.COMPLETED
        assert "I will remind you" in await said(built, session_id, run.id)
        woken = await seen(built, session_id, lambda event: "Reminder" in event.get("delta", ""))
        assert woken["origin"]["kind"] == "recall"
        fired = await ended(built, session_id, woken["run_id"])
        text = await said(built, session_id, fired.id)
        assert "Stretch" in text
        assert "Due Today" in text
        happened = await ask(built, session_id, "what happened in the last hour")
        assert "recall **" in await said(built, session_id, happened.id)


async def test_a_stop_ends_counting_and_keeps_what_was_counted(tmp_path: Path) -> None:
    async with services(tmp_path) as built:
        session_id = await session_of(built)
        accepted = await built.sessions.orchestrator.submit(session_id, Prompt(text="count to 5000"), user_id="ada")
        assert accepted.run_id is not None
        await seen(built, session_id, lambda event: event.get("delta", "").endswith("3 "))
        await built.sessions.orchestrator.submit(session_id, Stop(), user_id="ada")
        run = await ended(built, session_id, accepted.run_id)
        assert run.status is RunStatus.STOPPED
        assert (await said(built, session_id, run.id)).startswith("1 2 3 ")


async def test_a_model_makes_a_recall_is_stopped_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remind = Call("create_recall", {"message": "check the loss", "when": "in 10 minutes"})
    script = (Reply(calls=(remind,)), Reply("I will."), Reply("Half of it", hold_end=True), Reply("Going on."))
    async with ScriptedProvider(*script) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, OPENAI)
        first = await ask(built, session_id, "remind me")
        assert first.status is RunStatus.COMPLETED
        assert first.usage.requests == 2
        (recall,) = await built.recalls.service.in_session(session_id)
        assert recall.message == "check the loss"

        accepted = await built.sessions.orchestrator.submit(session_id, Prompt(text="tell me all"), user_id="ada")
        assert accepted.run_id is not None
        await seen(built, session_id, lambda event: "Half" in event.get("delta", ""))
        await built.sessions.orchestrator.submit(session_id, Stop(), user_id="ada")
        stopped = await ended(built, session_id, accepted.run_id)
        assert stopped.status is RunStatus.STOPPED
        await asyncio.wait_for((await provider.request(2)).closed.wait(), 5)

        assert (await ask(built, session_id, "go on")).status is RunStatus.COMPLETED
        sent = json.dumps(provider.requests[3].body)
        order = ["remind me", "check the loss", "I will.", "tell me all", "Half of it", "go on"]
        assert sorted(order, key=sent.rindex) == order


async def test_a_missing_key_ends_the_run_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    async with services(tmp_path) as built:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        session_id = await session_of(built, OPENAI)
        monkeypatch.delenv("OPENAI_API_KEY")
        run = await ask(built, session_id, "hello")
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.code == "model_unavailable"
        assert "OPENAI_API_KEY" in run.error.message


async def test_the_limit_of_requests_fails_the_run_and_keeps_its_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Reply("Again. ", calls=(Call("current_time", {}),))
    async with ScriptedProvider(loop) as provider, services(tmp_path, Limits(max_iterations=2)) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, OPENAI)
        run = await ask(built, session_id, "loop")
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.code == "max_iterations"
        assert run.usage.requests == 2
