"""A real store and a real orchestrator around a small agent that does what its prompt says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from navi_jupyter.commands import Acceptance, Answer, Edit, Prompt, Stop, Unqueue
from navi_jupyter.errors import RunFailed
from navi_jupyter.events import (
    ActivityDelta,
    ActivitySnapshot,
    Custom,
    Event,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from navi_jupyter.model.runs import AskOption, InterruptKind
from navi_jupyter.model.sessions import Failure, Run, SessionCreate, Usage
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.orchestrator.session_directory import SessionView
from navi_jupyter.ports.agent import Ask, ToolContext, Turn, TurnResult
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.settings import Limits, Settings
from navi_jupyter.store.database import Database
from navi_jupyter.text import approval_words
from tests.support.database import open_store

OWNER = "local"
PATIENCE = 20.0
"""Seconds after which a test that waits for something fails."""

Envelope = dict[str, Any]


@dataclass
class Agent:
    """An agent loop. Its prompts: ``say N``, ``wait``, ``stubborn``, ``hang``, ``fail``, ``crash``, ``limit``, ..."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets ``wait`` and ``stubborn`` go on."""
    turns: list[Turn] = field(default_factory=list)
    asked: list[list[Any]] = field(default_factory=list)
    """What ``twice`` was answered, each time it was started."""
    running: int = 0
    most: int = 0
    """How many ran at once, at most."""
    contexts: dict[str, ToolContext] = field(default_factory=dict)
    cleaned: list[str] = field(default_factory=list)
    """Runs whose generator was closed."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        self.turns.append(turn)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.contexts[turn.run_id] = context
            word, *rest = turn.prompt.split()
            async for item in getattr(self, f"_{word}")(turn, *rest):
                yield item
        finally:
            self.running -= 1
            self.cleaned.append(turn.run_id)

    async def _say(self, turn: Turn, count: str = "3") -> AsyncIterator[Event | TurnResult]:
        async for event in self._open(turn, count):
            yield event
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}", usage=Usage(input_tokens=1, output_tokens=2, requests=1))

    async def _storm(self, turn: Turn, count: str) -> AsyncIterator[Event | TurnResult]:
        """Two messages alternate, so that their deltas cannot be merged."""
        ids = (f"m_{turn.run_id}", f"n_{turn.run_id}")
        for message_id in ids:
            yield TextMessageStart(message_id=message_id)
        for number in range(int(count)):
            yield TextMessageContent(message_id=ids[number % 2], delta=f"{number} ")
            if number % 10 == 0:
                await asyncio.sleep(0)
        for message_id in ids:
            yield TextMessageEnd(message_id=message_id)
        yield TurnResult(conversation=b"{}")

    async def _open(self, turn: Turn, count: str) -> AsyncIterator[Event]:
        yield TextMessageStart(message_id=f"m_{turn.run_id}")
        for number in range(int(count)):
            yield TextMessageContent(message_id=f"m_{turn.run_id}", delta=f"{number} ")
            await asyncio.sleep(0)

    async def _wait(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        async for event in self._open(turn, "2"):
            yield event
        await self.gate.wait()
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}")

    async def _stubborn(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        """Swallows every cancellation."""
        async for event in self._open(turn, "2"):
            yield event
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue
        yield TextMessageContent(message_id=f"m_{turn.run_id}", delta="too late")
        yield TurnResult(conversation=b"{}")

    async def _fail(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        async for event in self._open(turn, "2"):
            yield event
        raise RunFailed("There is no key for this model. Set OPENAI_API_KEY.", run_code="model_unavailable")

    async def _crash(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        async for event in self._open(turn, "2"):
            yield event
        raise ZeroDivisionError("secret")

    async def _limit(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        async for event in self._open(turn, "2"):
            yield event
        failure = Failure(code="max_iterations", message="enough")
        yield TurnResult(conversation=b"kept", failure=failure)

    async def _nothing(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        return
        yield

    async def _ask(
        self, turn: Turn, count: str = "1", seconds: str = "", own: str = ""
    ) -> AsyncIterator[Event | TurnResult]:
        """Calls a tool that needs approval, ``count`` times; once it is answered says what came of it.

        ``own``: what each call asks, in words of its own.
        """
        if turn.resumed is None:
            async for event in self._open(turn, "2"):
                yield event
            yield TextMessageEnd(message_id=f"m_{turn.run_id}")
            for number in range(int(count)):
                call = f"k{number}_{turn.run_id}"
                yield ToolCallStart(tool_call_id=call, tool_call_name="run_code")
                yield ToolCallArgs(tool_call_id=call, delta='{"code":"1"}')
                yield ToolCallEnd(tool_call_id=call)
            yield TurnResult(
                conversation=b"paused",
                asks=tuple(
                    Ask(
                        kind=InterruptKind.APPROVAL,
                        message=own or approval_words("run_code"),
                        tool_call_id=f"k{number}_{turn.run_id}",
                        tool="run_code",
                        args={"code": "1"},
                        expires_in=timedelta(seconds=float(seconds)) if seconds else None,
                    )
                    for number in range(int(count))
                ),
                usage=Usage(input_tokens=5, output_tokens=5, requests=1, cost=0.5),
            )
            return
        assert turn.resumed == b"paused"
        for answer in turn.answers:
            assert answer.tool_call_id is not None
            content = f"{answer.status} {json.dumps(answer.payload)}"
            yield ToolCallResult(
                message_id=f"z_{answer.tool_call_id}", tool_call_id=answer.tool_call_id, content=content
            )
        steered = await self._steered(turn)
        yield TextMessageStart(message_id=f"n_{turn.run_id}")
        yield TextMessageContent(message_id=f"n_{turn.run_id}", delta=f"done {steered}")
        yield TextMessageEnd(message_id=f"n_{turn.run_id}")
        usage = Usage(input_tokens=7, output_tokens=7, requests=2, cost=0.75)
        yield TurnResult(conversation=b"whole", usage=usage)

    async def _twice(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        """Asks a question, and then another one."""
        asked = int(turn.resumed or b"0")
        self.asked.append([answer.payload for answer in turn.answers])
        if asked == 2:
            yield TurnResult(conversation=b"whole")
            return
        ask = Ask(kind=InterruptKind.QUESTION, message=f"Which? {asked}", response_schema={"type": "string"})
        yield TurnResult(conversation=str(asked + 1).encode(), asks=(ask,))

    async def _inner(self, turn: Turn, seconds: str = "60") -> AsyncIterator[Event | TurnResult]:
        """Asks without leaving."""
        async for event in self._open(turn, "2"):
            yield event
        ask = self.contexts[turn.run_id].ask
        assert ask is not None
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        answer = await ask(
            Ask(
                kind=InterruptKind.QUESTION,
                message="How many?",
                response_schema=schema,
                expires_in=timedelta(seconds=float(seconds)),
            )
        )
        yield TextMessageContent(message_id=f"m_{turn.run_id}", delta=f"{answer.status} {json.dumps(answer.payload)}")
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}")

    async def _permission(self, turn: Turn, *kinds: str) -> AsyncIterator[Event | TurnResult]:
        """Asks, without leaving, what an agent program asks: with an option of each kind, named after it."""
        ask = self.contexts[turn.run_id].ask
        assert ask is not None
        options = tuple(AskOption.model_validate({"id": f"o-{kind}", "name": kind, "kind": kind}) for kind in kinds)
        answer = await ask(Ask(kind=InterruptKind.APPROVAL, message="Edit a.py?", tool="edit", options=options))
        yield TextMessageStart(message_id=f"m_{turn.run_id}")
        yield TextMessageContent(message_id=f"m_{turn.run_id}", delta=f"{answer.status} {json.dumps(answer.payload)}")
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}")

    async def _listen(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        """Says what it was steered to, once the gate opens."""
        async for event in self._open(turn, "2"):
            yield event
        await self.gate.wait()
        yield TextMessageContent(message_id=f"m_{turn.run_id}", delta=await self._steered(turn))
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}")

    async def _steered(self, turn: Turn) -> str:
        steering = self.contexts[turn.run_id].steering
        assert steering is not None
        return "; ".join(p.text for p in await steering.take()) if steering.waiting else "-"

    async def _busy(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        """Shows what it does, and how it was ended."""
        emit = self.contexts[turn.run_id].emit
        async for event in self._open(turn, "2"):
            yield event
        emit(ActivitySnapshot(message_id="a1", activity_type="navi.progress", content={"list": []}))
        for number in range(3):
            patch = {"op": "add", "path": "/list/-", "value": number}
            emit(ActivityDelta(message_id="a1", activity_type="navi.progress", patch=(patch,)))
        spent = {"input_tokens": 3, "output_tokens": 4, "requests": 1, "cost": 0.25}
        emit(Custom(name="navi.usage", value={"run_id": turn.run_id, "usage": spent}))
        try:
            await self.gate.wait()
        finally:
            emit(Custom(name="navi.stop", value={"action": "reached", "run_id": turn.run_id, "what": "kernel"}))
        yield TextMessageEnd(message_id=f"m_{turn.run_id}")
        yield TurnResult(conversation=b"{}")

    async def _orphan(self, turn: Turn) -> AsyncIterator[Event | TurnResult]:
        yield TextMessageContent(message_id="never started", delta="x")


class World:
    """What a test talks to."""

    def __init__(self, store: Database, orchestrator: Orchestrator, agent: Agent) -> None:
        self.store = store
        self.orchestrator = orchestrator
        self.agent = agent
        self.ended: list[Run] = []

    async def session(self, **fields: Any) -> str:
        return (await self.orchestrator.sessions.create(SessionCreate(**fields), owner=OWNER)).id

    async def prompt(self, session_id: str, text: str, **fields: Any) -> Acceptance:
        return await self.orchestrator.submit(session_id, Prompt(text=text, **fields), user_id=OWNER)

    async def stop(self, session_id: str, run_id: str | None = None) -> Acceptance:
        return await self.orchestrator.submit(session_id, Stop(run_id=run_id), user_id=OWNER)

    async def answer(self, session_id: str, interrupt_id: str, **fields: Any) -> Acceptance:
        answer = Answer(**{"interrupt_id": interrupt_id, "status": "resolved", **fields})
        return await self.orchestrator.submit(session_id, answer, user_id=OWNER)

    async def edit(self, session_id: str, target: str, text: str, **fields: Any) -> Acceptance:
        return await self.orchestrator.submit(session_id, Edit(target=target, text=text, **fields), user_id=OWNER)

    async def view(self, session_id: str) -> SessionView:
        return await self.orchestrator.sessions.view(session_id, owner=OWNER)

    async def asking(self, session_id: str, prompt: str = "ask", **fields: Any) -> tuple[str, list[str]]:
        """Prompt, and wait for its questions: the run, and their ids."""
        accepted = await self.prompt(session_id, prompt, **fields)
        assert accepted.run_id is not None
        return accepted.run_id, await self.questions(session_id, accepted.run_id)

    async def questions(self, session_id: str, run_id: str) -> list[str]:
        """Once the run has paused, the ids of what it asks."""
        log = await self.until(session_id, pauses(run_id))
        last = next(e for e in reversed(log) if pauses(run_id)(e))
        return [entry["id"] for entry in last["event"]["outcome"]["interrupts"]]

    async def unqueue(self, session_id: str, target: str) -> Acceptance:
        return await self.orchestrator.submit(session_id, Unqueue(target=target), user_id=OWNER)

    async def log(self, session_id: str) -> list[Envelope]:
        """Everything, from the store."""
        seen: list[Envelope] = []
        while page := await self.store.frames(session_id, after=seen[-1]["seq"] if seen else 0, limit=500):
            seen += [json.loads(frame) for _, frame in page]
        return seen

    async def until(self, session_id: str, wanted: Callable[[Envelope], bool], *, after: int = 0) -> list[Envelope]:
        """Follow until an envelope is ``wanted``; all that came."""
        seen: list[Envelope] = []
        async with asyncio.timeout(PATIENCE):
            async with aclosing(self.orchestrator.follow(session_id, after=after, owner=OWNER)) as pages:
                async for page in pages:
                    seen += [json.loads(frame) for _, frame in page.envelopes]
                    if any(map(wanted, seen)):
                        return seen
        raise AssertionError("the follower was ended")

    async def until_end(self, session_id: str, run_id: str | None) -> Envelope:
        """The last event of a run; its pauses are not."""
        return next(e for e in await self.until(session_id, ends(run_id)) if ends(run_id)(e))

    async def streaming(self, session_id: str, run_id: str | None) -> None:
        """Return once the run has said both of the words that ``wait`` and ``stubborn`` say."""
        await self.until(
            session_id,
            lambda e: (
                e["run_id"] == run_id
                and e["event"].get("messageId") == f"m_{run_id}"
                and "1 " in e["event"].get("delta", "")
            ),
        )

    async def status(self, session_id: str, run_id: str | None) -> str:
        assert run_id is not None
        return (await self.orchestrator.sessions.run(session_id, run_id, owner=OWNER)).status.value


async def eventually(condition: Callable[[], bool]) -> None:
    """Let others work until it is true. For what has no event to wait for."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def ends(run_id: str | None) -> Callable[[Envelope], bool]:
    return lambda e: (
        e["run_id"] == run_id
        and e["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")
        and e["event"].get("outcome", {}).get("type") != "interrupt"
    )


def pauses(run_id: str | None) -> Callable[[Envelope], bool]:
    return lambda e: e["run_id"] == run_id and e["event"].get("outcome", {}).get("type") == "interrupt"


def told(action: str, interrupt_id: str | None = None) -> Callable[[Envelope], bool]:
    """A ``navi.interrupt`` event."""
    return lambda e: (
        e["event"].get("name") == "navi.interrupt"
        and e["event"]["value"]["action"] == action
        and interrupt_id in (None, e["event"]["value"]["interrupt"]["id"])
    )


def kinds(envelopes: Iterable[Envelope]) -> list[str]:
    """Event types, ``CUSTOM`` ones by name and action, repeated deltas once (how many there are is up to merging)."""
    out: list[str] = []
    for envelope in envelopes:
        event = envelope["event"]
        kind = event["type"]
        if kind == "CUSTOM":
            kind = f"{event['name']}:{event['value'].get('action', '')}"
        if kind != "TEXT_MESSAGE_CONTENT" or not out or out[-1] != kind:
            out.append(kind)
    return out


def text_of(envelopes: Iterable[Envelope], message_id: str) -> str:
    """The deltas of a message, joined."""
    events = [e["event"] for e in envelopes if e["event"].get("messageId") == message_id]
    return "".join(event.get("delta", "") for event in events)


@asynccontextmanager
async def world(folder: Path, *, agent: Agent | None = None, **settings: Any) -> AsyncIterator[World]:
    """Started, and stopped at the end. ``settings`` are the server's, those of its limits, and the orchestrator's."""
    limits = {name: settings.pop(name) for name in Limits.__dataclass_fields__ if name in settings}
    outer = {name: settings.pop(name) for name in ("idle_after", "max_queued_prompts") if name in settings}
    store = await open_store(folder / "navi.db", serves=settings.get("serves", "*"))
    try:
        agent = agent or Agent()
        orchestrator = Orchestrator(store, agent, settings=Settings(limits=Limits(**limits), **settings), **outer)
        made = World(store, orchestrator, agent)

        async def run_ended(run: Run) -> None:
            made.ended.append(run)

        await orchestrator.start(RecallService(store), run_ended)
        try:
            yield made
        finally:
            await orchestrator.stop()
            agent.gate.set()
    finally:
        await store.close()
