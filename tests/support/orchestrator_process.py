"""A server in a process of its own that tests may kill, stop and ask: store, orchestrator and an agent that drips text.

``Process`` is the test's side. The other side is this file, run as a script: JSON lines in, JSON lines out, each
written at once and whole, so that what the test has read is what a client had seen.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
URL = "PYTEST_NAVI_POSTGRES"  # as in ``database``, which is not imported before the path is known
PATIENCE = 30.0

Message = dict[str, Any]


class Process:
    """A server process. Use as a context manager: it is killed at the end if it still lives."""

    def __init__(
        self, folder: Path, *, lease: float = 30.0, host: str = "", database: str = "", recalls: bool = False
    ) -> None:
        """``host``: the machine that it takes itself to be on. ``database``: the URL of its PostgreSQL database.
        ``recalls``: whether it fires recalls."""
        self._popen = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("ab"),
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **({"PYTEST_NAVI_HOST": host} if host else {}),
                **({URL: database} if database else {}),
                **({"PYTEST_NAVI_RECALLS": "1"} if recalls else {}),
            },
        )
        self.pid = self._popen.pid
        self.said: list[Message] = []
        """Everything it has told, in order."""
        self._told: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if line.endswith(b"\n"):
                self._told.put(json.loads(line))
        self._told.put(None)

    def ask(self, **command: Any) -> None:
        """Send a command; what it answers comes among :attr:`said`. A dead process does not mind."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(command).encode() + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass

    def until(self, wanted: Callable[[Message], bool]) -> Message:
        """Take what it tells until something is ``wanted``. Looks at what was told before, too."""
        for message in self.said:
            if wanted(message):
                return message
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._take(deadline - time.monotonic())
            if wanted(message):
                return message

    def _take(self, seconds: float) -> Message:
        try:
            message = self._told.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            raise AssertionError(f"did not say it in time; last: {self.said[-3:]}") from None
        if message is None:
            self._told.put(None)  # for what asks next: ``kill`` waits for it
            raise AssertionError("the process ended")
        self.said.append(message)
        return message

    def ready(self) -> None:
        self.until(lambda m: "ready" in m)

    def session(self) -> str:
        self.ask(do="session")
        return str(self.until(lambda m: "session" in m)["session"])

    def prompt(self, sid: str, text: str, command_id: str, **fields: Any) -> Message:
        self.ask(do="prompt", sid=sid, text=text, command_id=command_id, **fields)
        return self.until(lambda m: command_id in (m.get("accepted"), m.get("refused")))

    def answer(self, sid: str, interrupt_id: str, command_id: str, **fields: Any) -> Message:
        self.ask(do="answer", sid=sid, interrupt_id=interrupt_id, command_id=command_id, **fields)
        return self.until(lambda m: command_id in (m.get("answered"), m.get("refused")))

    def question(self, sid: str, run_id: str) -> str:
        """Once the run has asked, the id of its question."""
        asked = self.until_seen(
            sid, lambda e: e["run_id"] == run_id and e["event"].get("value", {}).get("action") == "opened"
        )
        return str(json.loads(asked["frame"])["event"]["value"]["interrupt"]["id"])

    def seen(self, sid: str) -> list[str]:
        """The envelopes that it has shown of a session."""
        return [m["frame"] for m in self.said if m.get("seen") == sid]

    def until_seen(self, sid: str, wanted: Callable[[Message], bool]) -> Message:
        return self.until(lambda m: m.get("seen") == sid and wanted(json.loads(m["frame"])))

    def until_end(self, sid: str, run_id: str) -> Message:
        kinds = ("RUN_FINISHED", "RUN_ERROR")
        last = self.until_seen(
            sid,
            lambda e: (
                e["run_id"] == run_id
                and e["event"]["type"] in kinds
                and e["event"].get("outcome", {}).get("type") != "interrupt"
            ),
        )
        envelope: Message = json.loads(last["frame"])
        return envelope

    def kill(self) -> None:
        """-9, and take everything that it had told."""
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        while (message := self._told.get()) is not None:
            self.said.append(message)
        self._told.put(None)

    def leave(self) -> int:
        """Ask it to stop in good order."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        return self._popen.wait(PATIENCE)


def put_to_sleep(server: Process, folder: Path) -> None:
    """Stop it between two transactions. Within one it holds the lock of those that write until it wakes or ends."""
    from tests.support.database import is_being_written

    while True:
        os.kill(server.pid, signal.SIGSTOP)
        if not is_being_written(folder / "navi.db"):
            return
        os.kill(server.pid, signal.SIGCONT)


# --- the other side


def tell(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


class Drip:
    """``drip N``: N words, one every two milliseconds. ``silent``: nothing until it is stopped. ``listen``: takes what
    it is steered to. ``ask N`` drips, asks, and drips again once it was answered; ``inner N`` asks from within.
    ``effects N`` calls a tool that has an effect every ten milliseconds without end; ``threads N`` one in a thread."""

    def __init__(self, folder: Path) -> None:
        self.effects = folder / "effects.txt"
        """A line for each effect: the process, and the time on the clock that all processes share."""

    def _affect(self) -> None:
        from navi_jupyter.clock import boot_time

        with self.effects.open("a") as file:
            file.write(f"{os.getpid()} {boot_time()}\n")

    async def _work(self, context: Any) -> None:
        from navi_jupyter.agent.tools.base import call_recorded, tool
        from navi_jupyter.model.runs import Effect

        async def act() -> None:
            while True:
                self._affect()
                await asyncio.sleep(0.01)

        await call_recorded(tool(act, Effect.WRITE), {}, context)

    async def _work_in_thread(self, context: Any) -> None:
        from navi_jupyter.agent.tools.base import call_recorded
        from navi_jupyter.agent.tools.entry_points import tools_of

        def act() -> None:
            """Act without end."""
            while True:
                self._affect()
                time.sleep(0.01)

        await call_recorded(*tools_of("act", act, "package:test"), {}, context)

    async def run(self, turn: Any, context: Any) -> AsyncIterator[Any]:
        from navi_jupyter.events import (
            TextMessageContent,
            TextMessageEnd,
            TextMessageStart,
            ToolCallEnd,
            ToolCallResult,
            ToolCallStart,
        )
        from navi_jupyter.model.runs import InterruptKind
        from navi_jupyter.ports.agent import Ask, TurnResult

        word = turn.prompt.split()[0]
        message_id = f"{'n' if turn.resumed else 'm'}_{turn.run_id}"
        for answer in turn.answers:
            yield ToolCallResult(
                message_id=f"z_{turn.run_id}", tool_call_id=f"k_{turn.run_id}", content=json.dumps(answer.payload)
            )
        yield TextMessageStart(message_id=message_id)
        if turn.prompt == "silent":
            await context.stop.wait()
        for number in range(int(turn.prompt.split()[1])):
            yield TextMessageContent(message_id=message_id, delta=f"{number} ")
            await asyncio.sleep(0.002)
        ask = Ask(kind=InterruptKind.APPROVAL, message="May I?", tool="run", tool_call_id=f"k_{turn.run_id}", args={})
        if word == "inner":
            said = await context.ask(ask)
            yield TextMessageContent(message_id=message_id, delta=said.status)
        if word == "effects":
            await self._work(context)
        if word == "threads":
            await self._work_in_thread(context)
        while word == "listen" and not context.steering.waiting:  # noqa: ASYNC110  as a loop looks: before each request
            await asyncio.sleep(0.002)
        for prompt in await context.steering.take() if word == "listen" else ():
            yield TextMessageContent(message_id=message_id, delta=prompt.text)
        yield TextMessageEnd(message_id=message_id)
        asks = word == "ask" and turn.resumed is None
        if asks:
            yield ToolCallStart(tool_call_id=f"k_{turn.run_id}", tool_call_name="run")
            yield ToolCallEnd(tool_call_id=f"k_{turn.run_id}")
        yield TurnResult(conversation=b"{}", asks=(ask,) if asks else ())


async def prompt(conductor: Any, sid: str, command_id: str, **fields: Any) -> None:
    """Prompt, and tell what came of it."""
    from navi_jupyter.commands import Prompt
    from navi_jupyter.errors import NaviError

    try:
        answer = await conductor.submit(sid, Prompt(command_id=command_id, **fields), user_id="local")
        tell(accepted=command_id, seq=answer.seq, run_id=answer.run_id)
    except NaviError as error:
        tell(refused=command_id, code=error.code)


async def settle(conductor: Any, sid: str, command_id: str, **fields: Any) -> None:
    """Answer a question, and tell what came of it."""
    from navi_jupyter.commands import Answer
    from navi_jupyter.errors import NaviError

    answer = Answer(**{"status": "resolved", "command_id": command_id, **fields})
    try:
        given = await conductor.submit(sid, answer, user_id="local")
        tell(answered=command_id, interrupt=answer.interrupt_id, seq=given.seq, run_id=given.run_id)
    except NaviError as error:
        tell(refused=command_id, code=error.code)


async def settle_all(conductor: Any, sid: str) -> None:
    """Approve whatever is asked."""
    for question in (await conductor.sessions.view(sid, owner="local")).approvals:
        await settle(conductor, sid, f"a-{question.id}", interrupt_id=question.id)


async def break_store(store: Any, how: str) -> None:
    """``refuse``: the database can be read, and not be written by this server, until ``accept``. ``cut_off``: nothing
    that it asks the database is answered any more."""
    from navi_jupyter.errors import StoreError
    from navi_jupyter.store.sqlite.store import SqliteStore

    async def unanswered(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async def refused(*_: Any, **__: Any) -> Any:
        raise StoreError("The database cannot be written.")

    if how == "cut_off":
        store.write = store.fetch_all = unanswered
    elif not isinstance(store, SqliteStore):
        store.write = refused if how == "refuse" else functools.partial(type(store).write, store)
    else:
        await store._db.execute(f"PRAGMA query_only = {'ON' if how == 'refuse' else 'OFF'}")


async def follow(conductor: Any, sid: str, after: int) -> None:
    async for page in conductor.follow(sid, after=after, owner="local"):
        at = time.monotonic()
        for _, frame in page.envelopes:
            tell(seen=sid, frame=frame, at=at)


async def make_recall(store: Any, sid: str, every: str, message: str) -> None:
    """One that fires at each of its times, also those at which no server was there."""
    from navi_jupyter.clock import SystemClock
    from navi_jupyter.model.recalls import RecallCreate
    from navi_jupyter.scheduling.service import RecallService

    policy = {"busy": "queue", "misfire": "all"}
    request = RecallCreate.model_validate(
        {"session_id": sid, "message": message, "schedule": {"kind": "every", "every": every}, "policy": policy}
    )
    service = RecallService(store, clock=SystemClock(), max_recalls_per_user=1000)
    tell(recall=(await service.create(request, owner="local", zone="UTC")).id)


async def pause_recall(store: Any, recall_id: str) -> None:
    from navi_jupyter.clock import SystemClock
    from navi_jupyter.scheduling.service import RecallService

    await RecallService(store, clock=SystemClock(), max_recalls_per_user=1000).pause(recall_id, owner="local")
    tell(paused=recall_id)


async def obey(conductor: Any, store: Any, command: Message) -> None:
    from navi_jupyter.commands import Stop
    from navi_jupyter.model.sessions import SessionCreate

    match command.pop("do"):
        case "session":
            tell(session=(await conductor.sessions.create(SessionCreate(), owner="local")).id)
        case "follow":
            await follow(conductor, command["sid"], command["after"])
        case "prompt":
            await prompt(conductor, **command)
        case "answer":
            await settle(conductor, **command)
        case "answer_all":
            await settle_all(conductor, command["sid"])
        case "fault":
            await break_store(store, command["how"])
        case "recall":
            await make_recall(store, **command)
        case "pause":
            await pause_recall(store, **command)
        case "stop":
            answer = await conductor.submit(command["sid"], Stop(), user_id="local")
            tell(stopped=command["sid"], run_id=answer.run_id)


async def serve(folder: Path, lease: float) -> None:
    from navi_jupyter.orchestrator import orchestrator
    from navi_jupyter.orchestrator.upkeep import servers
    from navi_jupyter.settings import SHARED_LEASE, ServerLease, Settings
    from navi_jupyter.store.postgres import signal as postgres_signal
    from tests.support.database import open_store

    terms = ServerLease(duration=lease, trust=lease * 25 / 30, renewed_every=lease / 6)
    if host := os.environ.get("PYTEST_NAVI_HOST"):
        servers._host = lambda: host
        terms = SHARED_LEASE
        postgres_signal.SETTLED = 1.0  # a test does not wait for so long
    store = await open_store(folder / "navi.db")
    conductor = orchestrator.Orchestrator(store, Drip(folder), settings=Settings(lease=terms))
    scheduler: Any = None
    if "PYTEST_NAVI_RECALLS" in os.environ:
        from navi_jupyter.scheduling.scheduler import Scheduler

        scheduler = Scheduler(store, conductor.submit, server_id=conductor.server.id, trusted=conductor.trust.check)
        await conductor.start(
            None,  # type: ignore[arg-type]
            scheduler.on_run_ended,
            run_started=scheduler.on_run_started,
            server_left=scheduler.wake,
        )
        await scheduler.start()
    else:
        await conductor.start(None)  # type: ignore[arg-type]
    tell(ready=True)

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        tasks.add(asyncio.create_task(obey(conductor, store, json.loads(line))))
    if scheduler is not None:
        await scheduler.stop()
    await conductor.stop()
    await asyncio.gather(*tasks)
    await store.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
