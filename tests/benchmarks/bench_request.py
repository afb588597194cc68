"""What a request to a model costs the event loop by the length of its session, and what the start of a run costs.

    python tests/benchmarks/bench_request.py [--messages 200 1000 3000 10000] [--rounds 5] [--quick] [--json FILE]

The whole path in one process (orchestrator, SQLite, agent), with a provider in another that speaks OpenAI's protocol
and answers each request with the time at which it had arrived. Each session has that many messages; one run after the
other is prompted in it. Reported of each run, in ms:

- CPU of the loop's thread, which other programs on the machine spoil little: of its longest step, and of all steps
  until the request has arrived;
- by the wall clock, for a machine that does nothing else: how late a sleeper of 1 ms wakes up at worst, and the time
  from the prompt to the arrival of the whole request.

``first run``: of a session in a process, when nothing of it is known yet. ``pydantic-ai`` alone has the same messages
in memory and the same provider, in the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import Figures, arguments
from tests.support.long_sessions import ANSWER, lengthen
from tests.support.orchestrator_world import World, world

MODEL = "lab:scripted"
_ARRIVED = re.compile(r"@(\d+)@")


# --- the provider's process


class Answer(asyncio.Protocol):
    """OpenAI's chat completions by hand: the answer is the time at which the request was complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport: Any = transport
        self._asked = bytearray()
        self._missing = -1  # bytes of the request that have not come; -1 before its head is complete

    def data_received(self, data: bytes) -> None:
        """A request, in pieces."""
        self._asked += data
        if self._missing < 0:
            head, blank, body = self._asked.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", bytes(head).lower())
            if not blank or length is None:
                return
            self._missing = int(length[1]) - len(body)
        else:
            self._missing -= len(data)
        if self._missing > 0:
            return
        self._missing = -1
        self._asked.clear()
        text = f"@{time.monotonic_ns()}@ {ANSWER}"
        events = [chunk({"role": "assistant", "content": text}), chunk({}, "stop"), "data: [DONE]\n\n"]
        answer = "".join(events).encode()
        size = b"Content-Length: %d" % len(answer)
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + size + b"\r\n\r\n" + answer)


def chunk(delta: dict[str, str], finish: str | None = None) -> str:
    """One event of an answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120} if finish else None
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795000000, "model": "scripted"}
    return f"data: {json.dumps({**head, 'choices': [choice], 'usage': usage})}\n\n"


async def provide() -> None:
    """Print the address; work until the input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# --- this process


class Steps:
    """The steps of the loop since the last reset, in CPU seconds of its thread; and the lateness of a sleeper."""

    def __init__(self) -> None:
        self.cpu: list[tuple[float, float]] = []  # when each ended, by the monotonic clock, and what it took
        self.late: list[float] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Each step of the loop is measured, by its one method that all of them go through."""
        run = asyncio.events.Handle._run

        def measured(handle: Any) -> None:
            before = time.thread_time()
            run(handle)
            self.cpu.append((time.monotonic(), time.thread_time() - before))

        asyncio.events.Handle._run = measured  # type: ignore[method-assign,assignment]
        sleeper = asyncio.get_running_loop().create_task(self._sleep())
        try:
            yield
        finally:
            sleeper.cancel()
            asyncio.events.Handle._run = run  # type: ignore[method-assign]

    async def _sleep(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late.append(time.perf_counter() - before - 0.001)

    def reset(self) -> None:
        """Begin anew."""
        self.cpu.clear()
        self.late.clear()

    def figures(self, began: float, arrived: float) -> dict[str, float]:
        """Of one run, in ms."""
        return {
            "CPU of the longest step": max(took for _, took in self.cpu) * 1e3,
            "CPU of the loop until the request is there": sum(took for at, took in self.cpu if at <= arrived) * 1e3,
            "lag of the loop at most": max(self.late) * 1e3,
            "prompt to provider": (arrived - began) * 1e3,
        }


Asking = Callable[[], Awaitable[str]]


async def run_of(steps: Steps, asking: Asking) -> dict[str, float]:
    """One run; its answer has the time at which its request arrived."""
    await asyncio.sleep(0.05)  # what the one before has left behind is done
    gc.collect()
    await asyncio.sleep(0)  # which is not a step of what is measured
    steps.reset()
    began = time.monotonic()
    text = await asking()
    found = _ARRIVED.findall(text)
    if not found:
        raise AssertionError(f"no answer of the provider: {text[:500]}")
    return steps.figures(began, int(found[-1]) / 1e9)


class Session:
    """A session of ``messages`` messages."""

    def __init__(self, made: World, session_id: str) -> None:
        self._made = made
        self._id = session_id

    async def ask(self) -> str:
        """One run, to its end."""
        accepted = await self._made.prompt(self._id, "And now?")
        assert accepted.run_id is not None
        seen: list[str] = []
        async for page in self._made.orchestrator.follow(self._id, after=accepted.seq or 0, owner="local"):
            seen.append("".join(frame for _, frame in page.envelopes))
            if '"RUN_FINISHED"' in seen[-1] or '"RUN_ERROR"' in seen[-1]:
                return "".join(seen)
        raise AssertionError("the follower was ended")

    async def lengthen(self, database: Path, messages: int) -> None:
        """Copy its one run."""
        runs, _ = await self._made.orchestrator.sessions.runs(self._id, owner="local", limit=1)
        await asyncio.to_thread(lengthen, database, runs[0].id, messages // 2 - 1)


class Peer:
    """pydantic-ai alone: an agent with the same conversation, all in memory."""

    def __init__(self, address: str, messages: int) -> None:
        from pydantic_ai import Agent
        from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        model = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=f"{address}/v1", api_key="none"))
        self._agent = Agent(model)
        self._history: list[ModelMessage] = []
        for _ in range(messages // 2):
            self._history += [ModelRequest.user_text_prompt("And now?"), ModelResponse(parts=[TextPart(ANSWER)])]

    async def ask(self) -> str:
        """One run, to its end."""
        async with self._agent.run_stream("And now?", message_history=self._history) as result:
            return str(await result.get_output())


async def measure(options: argparse.Namespace, address: str, folder: Path, figures: Figures) -> None:
    """All of it."""

    def report(name: str, found: list[dict[str, float]]) -> None:
        for key in found[0]:
            figures.add(f"{name}: {key}, ms", statistics.median(one[key] for one in found))

    steps = Steps()
    async with open_world(folder / "starts") as made:
        session = Session(made, await made.session(model=MODEL))
        for _ in range(3):  # imports and first connections are not what is measured
            await session.ask()
        with steps.watched():
            report("a run starts", [await run_of(steps, session.ask) for _ in range(options.starts)])
    for count in options.messages:
        async with open_world(folder / str(count)) as made:
            session = Session(made, await made.session(model=MODEL))
            await session.ask()
            await session.lengthen(folder / str(count) / "navi.db", count)
            peer = Peer(address, count)
            with steps.watched():
                report(f"{count:,} messages, first run", [await run_of(steps, session.ask)])
                runs: list[dict[str, float]] = []
                peers: list[dict[str, float]] = []
                for _ in range(options.rounds):
                    runs.append(await run_of(steps, session.ask))
                    peers.append(await run_of(steps, peer.ask))
            report(f"{count:,} messages, navi", runs)
            report(f"{count:,} messages, pydantic-ai", peers)
            middle = [statistics.median(one["CPU of the longest step"] for one in found) for found in (peers, runs)]
            figures.add(f"{count:,} messages, pydantic-ai / navi: longest step, x", middle[0] / middle[1])


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    """An orchestrator whose agent is the real one."""
    from navi_jupyter.agent.router import AgentRouter

    folder.mkdir()
    agent: Any = AgentRouter()
    agent.gate = asyncio.Event()  # the test agent's, which the world sets at its end
    async with world(folder, agent=agent) as made:
        yield made


def main() -> None:
    """Run all of it."""
    parser = arguments(__doc__)
    parser.add_argument("--messages", type=int, nargs="*", default=[200, 1_000, 3_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=50, help="short runs whose start is measured")
    parser.add_argument("--provide", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provide:
        asyncio.run(provide())
        return
    if options.quick:
        options.messages, options.rounds, options.starts = [200, 1_000], 3, 20
    figures = Figures()
    provider = subprocess.Popen(
        [sys.executable, __file__, "--provide"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert provider.stdout is not None
        address = provider.stdout.readline().strip()
        os.environ |= {
            "NAVI_ENDPOINT_LAB_URL": f"{address}/v1",
            "NAVI_ENDPOINT_LAB_KEY": "none",
            "NAVI_ENDPOINT_LAB_WINDOW": "10000000",  # nothing is shortened
        }
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(options, address, Path(folder), figures))
    finally:
        provider.kill()
        provider.wait()
    figures.write(options.json)


if __name__ == "__main__":
    main()
