"""Agent programs as backends: a scripted agent by the official SDK, as a real process, in real sessions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
from tests.support.orchestrator_world import OWNER, PATIENCE, Agent, Envelope, World, told, world

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

    async def until_text(self, session_id: str, text: str, run_id: str | None = None) -> None:
        def has_text(each: Envelope) -> bool:
            return text in each["event"].get("delta", "") and run_id in (None, each["run_id"])

        await self.world.until(session_id, has_text)


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
    with suppress(psutil.NoSuchProcess):  # it may go at any time, between two questions too
        async with asyncio.timeout(PATIENCE):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
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


async def test_a_question_of_an_agent_has_its_options_and_gets_the_one_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        accepted = await made.world.prompt(session, "ask make test")
        await made.world.until(session, told("opened"))
        (question,) = (await made.world.view(session)).approvals
        assert [(each.id, each.name, each.kind) for each in question.options][:2] == [
            ("once", "Yes, once", "allow_once"),
            ("always", "Yes, always", "allow_always"),
        ]
        log = await made.world.log(session)
        (start,) = of_type(log, "TOOL_CALL_START")
        assert (question.tool_call_id, start["toolCallName"]) == (start["toolCallId"], "acp__execute")
        await made.world.answer(session, question.id, payload={"approved": True, "option": "always"})
        await made.world.until_end(session, accepted.run_id)
        assert said(await made.world.log(session)) == "chosen: always"
        # a stop while it asks: the question is withdrawn, and the agent reads that it was cancelled
        accepted = await made.world.prompt(session, "ask make install")
        await made.world.until(session, lambda e: told("opened")(e) and e["run_id"] == accepted.run_id)
        await made.world.stop(session)
        assert (await made.world.until_end(session, accepted.run_id))["event"]["outcome"]["type"] == "cancelled"
        assert (await made.world.view(session)).approvals == []
        assert json.loads(said(await made.ask(session, "history"))) == ["session-1", 3]
        assert len(made.starts) == 1


async def test_a_stop_is_a_cancellation_that_an_agent_gets_a_few_seconds_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        accepted = await made.world.prompt(session, "wait")
        await made.until_text(session, "waiting")
        await made.world.stop(session)
        end = await made.world.until_end(session, accepted.run_id)
        assert end["event"]["outcome"]["type"] == "cancelled"
        assert said(await made.world.log(session)) == "waiting cancelled"
        assert said(await made.ask(session, "say next")) == "next"
        assert len(made.starts) == 1, "it has obeyed, and goes on"
        monkeypatch.setattr("navi_jupyter.agent.acp.backend.CANCEL_SECONDS", 0.3)
        accepted = await made.world.prompt(session, "child\nhang")
        await made.until_text(session, "hanging")
        pids = [int(each) for each in said(await made.world.log(session)).partition("pids: ")[2].split("h")[0].split()]
        await made.world.stop(session)
        end = await made.world.until_end(session, accepted.run_id)
        assert end["event"]["outcome"]["type"] == "cancelled"
        reached = custom(await made.world.log(session), "navi.stop")
        assert any("program was ended" in each.get("message", "") for each in reached)
        # At once, while the other one is being ended.
        events = await made.ask(session, "history")
        assert json.loads(said(events))[0] == "session-1", "loaded by the new process"
        assert len(made.starts) == 2
        for pid in pids:
            await gone(pid)


async def test_an_agent_that_dies_or_lies_fails_its_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path, monkeypatch, garbage=True) as made:
        session = await made.session()
        assert said(await made.ask(session, "say one\nlie\nsay two")) == "onetwo"
        events = await made.ask(session, "say half\ndie")
        assert events[-1]["event"]["code"] == "agent_ended"
        assert "code 3" in events[-1]["event"]["message"]
        assert "the reason of its death" in events[-1]["event"]["message"]
        assert said(events) == "half"
        events = await made.ask(session, "history")
        assert json.loads(said(events))[0] == "session-1", "started again, and its session is loaded"
        assert "repeated" not in said(events)
        for text in ("stray 1500", f"huge {17 * 2**20}"):
            events = await made.ask(session, f"{text}\nwait")
            assert events[-1]["event"]["code"] == "agent_protocol", text
        assert said(await made.ask(session, "say alive")) == "alive"
        for pid in made.starts[:-1]:
            await gone(pid)


async def test_a_flood_is_read_no_faster_than_it_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, psutil.Process().memory_info().rss)
                await asyncio.sleep(0.01)

        before = psutil.Process().memory_info().rss
        watching = asyncio.create_task(watch())
        events = await made.ask(session, "flood 60000")
        watching.cancel()
        assert said(events).split() == [str(number) for number in range(60_000)], "all of it, in order"
        assert most - before < 250 * 2**20


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ({"protocol": 2}, "agent_protocol", "version 2"),
        ({"silent": True}, "agent_timeout", "initialize"),
        ({"login": True}, "agent_login_needed", "No user is logged in"),
    ],
)
async def test_an_agent_that_cannot_be_used_says_why_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], code: str, words: str
) -> None:
    monkeypatch.setattr("navi_jupyter.agent.acp.program.START_SECONDS", 5.0)
    async with desk(tmp_path, monkeypatch, **how) as made:
        session = await made.session()
        events = await made.ask(session, "say hello")
        assert events[-1]["event"]["code"] == code
        assert words in events[-1]["event"]["message"]
        if code == "agent_login_needed":
            assert words in (made.programs.catalog.all()["scripted"].why or "")
        else:
            for pid in made.starts:
                await gone(pid)


async def test_a_conversation_that_the_agent_does_not_have_is_given_to_it_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        await made.ask(session, "say the secret word is plum")
        await made.ask(session, "say second", model="offline")  # a turn of another model
        events = await made.ask(session, "blocks")
        blocks = json.loads(said(events))
        assert [each["text"] for each in blocks][-1] == "blocks"
        assert "say second" in blocks[-2]["text"]
        assert "plum" not in blocks[-2]["text"], "only what it does not have"
        assert activity(events, "navi.agent_notice") == []
        # a turn that is taken back
        last = events[0]["run_id"]
        events = await made.ask(session, "history\nblocks", replaces=last)
        assert said(events).startswith('["session-2", 1]'), "a new session of the agent"
        assert "plum" in said(events)
        assert activity(events, "navi.agent_notice")[0]["code"] == "conversation_as_text"
    async with desk(tmp_path, monkeypatch) as made:  # the next server
        events = await made.ask(session, "history")
        assert said(events) == '["session-2", 2]', "loaded, and what it repeats is left out"
        assert activity(events, "navi.agent_notice") == []
        fork = await made.world.orchestrator.sessions.readable(session, OWNER)
        assert fork.model == MODEL
    async with desk(tmp_path, monkeypatch, no_load=True) as made:  # a version that cannot load
        events = await made.ask(session, "history\nblocks")
        assert said(events).startswith('["session-3", 1]')
        assert "plum" in said(events)
        assert activity(events, "navi.agent_notice")[0]["code"] == "conversation_as_text"


async def test_all_modes_of_prompts_work_while_an_agent_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        first = await made.world.prompt(session, "wait")
        await made.until_text(session, "waiting")
        steer = await made.world.prompt(session, "say steered", mode="steer")
        end = await made.world.until_end(session, first.run_id)
        assert end["event"]["outcome"]["type"] == "success"
        events = [each for each in await made.world.log(session) if each["run_id"] == first.run_id]
        assert said(events) == "waiting cancelledsteered"
        assert activity(events, "navi.agent_notice")[0]["code"] == "steered_by_cancel"
        assert custom(events, "navi.queue")[-1] | {"text": ""} == {
            "action": "steered",
            "command_id": steer.command_id,
            "run_id": first.run_id,
            "text": "",
        }
        waiting = await made.world.prompt(session, "wait")
        await made.until_text(session, "waiting", waiting.run_id)
        queued = await made.world.prompt(session, "say queued", mode="enqueue")
        interrupt = await made.world.prompt(session, "say at once", mode="interrupt")
        await made.world.until_end(session, queued.run_id)
        assert await made.world.status(session, waiting.run_id) == "stopped"
        order = [each["run_id"] for each in await made.world.log(session) if each["event"]["type"] == "RUN_STARTED"]
        assert order[-2:] == [interrupt.run_id, queued.run_id]
        rolled = await made.world.prompt(session, "wait")
        await made.until_text(session, "waiting", rolled.run_id)
        after = await made.world.prompt(session, "history", mode="rollback")
        await made.world.until_end(session, after.run_id)
        log = [each for each in await made.world.log(session) if each["run_id"] == after.run_id]
        assert said(log) == '["session-2", 1]', "the turn that was taken back is not in its session"


async def test_a_program_ends_when_it_is_not_needed_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.agent.acp.programs.LOOK_EVERY", 0.05)
    async with desk(tmp_path, monkeypatch, idle=2.0) as made:
        session = await made.session()
        await made.ask(session, "say one")
        await gone(made.starts[0])
        assert said(await made.ask(session, "history")) == '["session-1", 2]'
        assert len(made.starts) == 2
    async with desk(tmp_path, monkeypatch) as made:
        made.programs._find_session = made.world.store.session  # type: ignore[attr-defined]
        one, two, three = [await made.session() for _ in range(3)]
        before = len(made.starts)
        for each in (one, two, three):
            await made.ask(each, "say hello")
        first, second, third = made.starts[before:]
        await made.world.orchestrator.sessions.change(one, SessionPatch(model="offline"), owner=OWNER)
        await gone(first)
        assert psutil.pid_exists(second)
        pids = said(await made.ask(two, "child")).partition("pids: ")[2].split()
        assert int(pids[0]) == second
    for pid in (second, third, int(pids[1])):
        await gone(pid)


async def test_a_command_that_an_agent_runs_through_navi_is_seen_while_it_prints_and_in_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        line = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; exit 3"
        accepted = await made.world.prompt(session, f"terminal {line}")
        log = await made.world.until(session, lambda e: e["event"].get("name") == "navi.interrupt")
        asked = log[-1]["event"]["value"]["interrupt"]
        assert (asked["tool"], asked["source"]) == ("run_code", "acp:scripted")
        assert any(line in detail["text"] for detail in asked["details"])
        await made.world.answer(session, asked["id"])

        def prints(each: Envelope) -> bool:
            return each["event"].get("activityType") == "navi.output" and "first" in json.dumps(each["event"])

        await made.world.until(session, prints)
        (tmp_path / "root" / "go").touch()
        await made.world.until_end(session, accepted.run_id)
        events = [each for each in await made.world.log(session) if each["run_id"] == accepted.run_id]
        assert activity(events, "navi.output")[-1]["outputs"][0]["text"] == "first\nsecond\n"
        (result,) = of_type(events, "TOOL_CALL_RESULT")
        assert "second" in result["content"], "the terminal was released before the call was completed"
        assert said(events) == "exit: 3"


async def test_a_session_in_which_an_agent_takes_no_prompt_any_more_is_begun_anew_with_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, monkeypatch) as made:
        session = await made.session()
        await made.ask(session, "say remember this\nbreak")
        events = await made.ask(session, "history\nblocks")
        assert events[-1]["event"]["type"] == "RUN_FINISHED"
        assert "session-2" in said(events)
        assert "remember this" in said(events)
        assert "conversation_as_text" in json.dumps(events)
        # one that refuses the new session, too, fails: it is not tried for ever
        await made.ask(session, "break")
        events = await made.ask(session, "history")
        assert "session-3" in said(events)
