"""Agent programs as backends: a scripted agent by the official SDK, as a real process, in real sessions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from navi_jupyter.agent.acp.agents import AgentCatalog
from navi_jupyter.agent.acp.backend import AgentProgramBackend
from navi_jupyter.agent.acp.programs import AgentPrograms
from navi_jupyter.agent.registry import default_parts
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.events import Event
from navi_jupyter.model.sessions import SessionPatch
from navi_jupyter.ports.agent import ToolContext, Turn, TurnResult
from tests.support.orchestrator_world import OWNER, PATIENCE, Agent, Envelope, World, world

SCRIPT = Path(__file__).parents[1] / "support" / "acp_agent.py"
MODEL = "acp:scripted"


class Loop(Agent):
    """The router of models, in the place of the world's own agent."""

    def __init__(self, router: AgentRouter) -> None:
        super().__init__()
        self._router = router

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        return self._router.run(turn, context)


class Desk:
    """A world whose sessions have the scripted agent, and the folder in which that keeps its sessions."""

    def __init__(self, world: World, programs: AgentPrograms, folder: Path) -> None:
        self.world, self.programs, self.folder = world, programs, folder

    @property
    def starts(self) -> list[int]:
        """The process ids of the agents that were started, in order."""
        file = self.folder / "starts"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    async def session(self, **fields: Any) -> str:
        return await self.world.session(model=MODEL, **fields)

    async def ask(self, session_id: str, text: str, **fields: Any) -> list[Envelope]:
        """Prompt, and all the events of the run, its end included."""
        accepted = await self.world.prompt(session_id, text, **fields)
        await self.world.until_end(session_id, accepted.run_id)
        return [each for each in await self.world.log(session_id) if each["run_id"] == accepted.run_id]

    async def until_text(self, session_id: str, text: str) -> None:
        await self.world.until(session_id, lambda each: text in each["event"].get("delta", ""))


@asynccontextmanager
async def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, idle: float = 600.0, **how: Any
) -> AsyncIterator[Desk]:
    """``how``: what the agent does wrong at its start."""
    config, folder = tmp_path / "config", tmp_path / "agent"
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(config))
    entry = {"command": sys.executable, "args": [str(SCRIPT), str(folder)], "env": {"ACP_AGENT": json.dumps(how)}}
    (config / "navi").mkdir(parents=True, exist_ok=True)
    (config / "navi" / "acp.json").write_text(json.dumps({"agents": {"scripted": entry}}))
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    programs = AgentPrograms(AgentCatalog(), root=root, idle_seconds=idle)
    parts = default_parts(packages=False)
    router = AgentRouter(parts, AgentProgramBackend(parts, programs))
    try:
        async with world(tmp_path, agent=Loop(router), stop_deadline=20.0) as made:
            yield Desk(made, programs, folder)
    finally:
        await programs.stop()


def said(events: list[Envelope]) -> str:
    """The text of the agent."""
    assistant = {e["event"]["messageId"] for e in events if e["event"].get("role") == "assistant"}
    return "".join(e["event"].get("delta", "") for e in events if e["event"].get("messageId") in assistant)


def of_type(events: list[Envelope], kind: str) -> list[dict[str, Any]]:
    return [e["event"] for e in events if e["event"]["type"] == kind]


def activity(events: list[Envelope], kind: str) -> list[dict[str, Any]]:
    return [each["content"] for each in of_type(events, "ACTIVITY_SNAPSHOT") if each["activityType"] == kind]


def custom(events: list[Envelope], name: str) -> list[dict[str, Any]]:
    return [e["value"] for e in of_type(events, "CUSTOM") if e["name"] == name]


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_what_an_agent_reports_is_in_the_log_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        events = await made.ask(session, "think let me see\nsay Hello|, you\nplan look|change\nedit notes.md\nsay Done")
        kinds = [e["event"]["type"] for e in events]
        assert said(events) == "Hello, youDone"
        assert [e["delta"] for e in of_type(events, "REASONING_MESSAGE_CONTENT")] == ["let me see"]
        assert kinds.index("REASONING_END") < kinds.index("TOOL_CALL_START") < kinds.index("TOOL_CALL_RESULT")
        (plan,) = activity(events, "navi.plan")
        assert [each["content"] for each in plan["entries"]] == ["look", "change"]
        (start,) = of_type(events, "TOOL_CALL_START")
        assert start["toolCallName"] == "acp__edit"
        args = json.loads("".join(e["delta"] for e in of_type(events, "TOOL_CALL_ARGS")))
        assert args["input"] == {"file": "notes.md"}
        assert args["locations"] == [{"path": "notes.md", "line": 2}], "relative to the server's folder"
        call = activity(events, "navi.agent_call")[-1]
        assert call["changes"] == [{"path": "notes.md", "before": "old\n", "after": "new\n"}]
        offer = custom(events, "navi.agent_options")[-1]
        assert (offer["agent"], offer["title"], offer["mode"]) == ("scripted", "Scripted 1.0", "ask")
        assert [each["id"] for each in offer["modes"]] == ["ask", "plan"]
        assert [each["name"] for each in offer["commands"]] == ["review"]
        assert custom(events, "navi.usage")[-1]["usage"]["input_tokens"] == 7
        assert events[-1]["event"]["outcome"]["type"] == "success"
        shown = await made.world.orchestrator.sessions.view(session, owner=OWNER)
        assert shown.agent_offer is not None
        assert shown.agent_offer.mode == "ask"
        # the next prompt goes to the same process and the same session
        events = await made.ask(session, "history\ncut")
        assert json.loads(said(events)) == ["session-1", 2]
        assert custom(events, "navi.notice")[0]["code"] == "answer_cut"
        events = await made.ask(session, "refuse")
        assert custom(events, "navi.notice")[0]["code"] == "answer_filtered"
        await made.world.orchestrator.sessions.change(
            session, SessionPatch.model_validate({"agent_options": {"mode": "plan", "model": "none"}}), owner=OWNER
        )
        events = await made.ask(session, "mode")
        assert said(events) == "mode: plan"
        assert "no model 'none'" in activity(events, "navi.agent_notice")[0]["message"]
        assert custom(events, "navi.agent_options")[-1]["mode"] == "plan"
        assert len(made.starts) == 1
