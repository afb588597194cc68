"""Fan-out over WebSockets: one queue per subscriber (A) against the event log's follow (B), interleaved in one run.

    python tests/benchmarks/bench_fanout.py [--followers 10 100 500] [--rounds 3]

One Tornado process, readers in another one, everything committed to a real SQLite store by a real run before it is
shown (group commit and journal are the same for both sides). Event bodies are 200 bytes and cannot be merged.
A: ``asyncio.Queue`` per socket, ``json.dumps`` per subscriber, ``write_message`` per event.
B: ``async for page in orchestrator.follow(...): await write_message(page.text)``, as the real handler does.

Reports delivered events per second when the run goes as fast as it can (median of the rounds), the longest stall of the
server's loop meanwhile, and the latency from the agent's yield to the reader at a fixed rate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import LoopLag

OWNER = "local"
BODY = 200
SAMPLE = 10
"""Every which reader looks at the time stamps."""
_STAMP = re.compile(rb"@(\d+)#")


# --- the server process


class Storm:
    """An agent that says ``<count> <rate>`` events: two messages alternate, so that nothing can be merged."""

    async def run(self, turn: Any, context: Any) -> AsyncIterator[Any]:
        from navi_jupyter.events import TextMessageContent, TextMessageEnd, TextMessageStart
        from navi_jupyter.ports.agent import TurnResult

        count, rate = (int(word) for word in turn.prompt.split())
        ids = ("m0", "m1")
        for message_id in ids:
            yield TextMessageStart(message_id=message_id)
        empty = len(TextMessageContent(message_id="m0", delta="@#").wire()) + len(str(time.monotonic_ns()))
        padding = "x" * (BODY - empty)
        started = time.monotonic()
        for number in range(count):
            if rate:
                ahead = number / rate - (time.monotonic() - started)
                if ahead > 0:
                    await asyncio.sleep(ahead)
            elif number % 50 == 0:
                await asyncio.sleep(0)
            delta = f"@{time.monotonic_ns()}#{padding}"
            yield TextMessageContent(message_id=ids[number % 2], delta=delta)
        for message_id in ids:
            yield TextMessageEnd(message_id=message_id)
        yield TurnResult(conversation=b"")


async def serve(folder: Path) -> None:  # noqa: C901  both servers side by side, as small as they can be
    """The server: prints its port, works until its input is closed."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.web import Application, RequestHandler
    from tornado.websocket import WebSocketClosedError, WebSocketHandler

    from navi_jupyter.commands import Prompt
    from navi_jupyter.model.sessions import SessionCreate
    from navi_jupyter.orchestrator.orchestrator import Orchestrator
    from navi_jupyter.store.sqlite import SqliteStore

    store = await SqliteStore.open(folder / "navi.db")
    orchestrator = Orchestrator(store, Storm())
    queues: dict[str, set[asyncio.Queue[Any]]] = {}
    ended: dict[str, asyncio.Event] = {}

    def appended(session_id: str, frames: list[tuple[int, str]]) -> None:
        subscribers = queues.get(session_id)
        if subscribers:
            for _, frame in frames:
                event = json.loads(frame)  # once: the baseline's publisher has the event at hand as an object
                for queue in subscribers:
                    queue.put_nowait(event)

    async def run_ended(run: Any) -> None:
        ended[run.session_id].set()

    store.subscribe(appended)
    await orchestrator.start(None, run_ended)  # type: ignore[arg-type]
    lag = LoopLag()
    probe = asyncio.create_task(lag.watch())

    class Socket(WebSocketHandler):
        task: asyncio.Task[None]

        def open(self, session_id: str) -> None:  # type: ignore[override]
            self.set_nodelay(True)
            self.task = asyncio.create_task(self.send_all(session_id))

        def on_close(self) -> None:
            self.task.cancel()

        async def send_all(self, session_id: str) -> None:
            raise NotImplementedError

    class QueueSocket(Socket):
        async def send_all(self, session_id: str) -> None:
            queue: asyncio.Queue[Any] = asyncio.Queue()
            queues.setdefault(session_id, set()).add(queue)
            try:
                while True:
                    event = await queue.get()
                    await self.write_message(json.dumps(event))
            except WebSocketClosedError:
                pass
            finally:
                queues[session_id].discard(queue)

    class FollowSocket(Socket):
        async def send_all(self, session_id: str) -> None:
            with contextlib.suppress(WebSocketClosedError):
                async with aclosing(orchestrator.follow(session_id, after=0, owner=OWNER)) as pages:
                    async for page in pages:
                        await self.write_message(page.text, binary=False)

    class Sessions(RequestHandler):
        async def post(self) -> None:
            session = await orchestrator.sessions.create(SessionCreate(), owner=OWNER)
            self.write(session.id)

    class Run(RequestHandler):
        """Ends with the run; says how long the loop stalled until all was sent (the client asks)."""

        async def post(self, session_id: str) -> None:
            ended[session_id] = asyncio.Event()
            lag.reset()
            text = self.request.body.decode()
            await orchestrator.submit(session_id, Prompt(text=text), user_id=OWNER)
            await ended[session_id].wait()
            view = await orchestrator.sessions.view(session_id, owner=OWNER)
            self.write({"head": view.head_seq, "followers": orchestrator.log.followers})

    class StallsSoFar(RequestHandler):
        def get(self) -> None:
            self.write({"stall": lag.longest, "stall_cpu": lag.longest_cpu, "cpu": lag.process_cpu})

    application = Application(
        [
            ("/sessions", Sessions),
            ("/run/(.*)", Run),
            ("/stalls", StallsSoFar),
            ("/a/(.*)", QueueSocket),
            ("/b/(.*)", FollowSocket),
        ]
    )
    sockets = bind_sockets(0, "127.0.0.1", backlog=1024)
    server = HTTPServer(application)
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    probe.cancel()
    server.stop()
    await orchestrator.stop()
    await store.close()


# --- the client process


class Readers:
    """All readers of one measurement. They count envelopes; some look at the time stamps."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.done = asyncio.Event()
        self.last_at = 0.0
        self.latencies: list[float] = []
        self.left = 0


class Reader(asyncio.Protocol):
    """A WebSocket client that counts ``"seq":`` in what comes and parses nothing: it is not what is measured."""

    def __init__(self, readers: Readers, path: str, *, sample: bool) -> None:
        self.readers = readers
        self.path = path
        self.sample = sample
        self.count = 0
        self.tail = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            (
                f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 101"), data[:200]
            self.opened.set_result(None)
        self.count += data.count(b'"seq":') + (self.tail + data[:5]).count(b'"seq":')
        self.tail = data[-5:]
        if self.sample:
            at = time.monotonic_ns()
            self.readers.latencies += [(at - int(stamp)) / 1e9 for stamp in _STAMP.findall(data)]
        if self.count == self.readers.expected:
            self.readers.left -= 1
            if self.readers.left == 0:
                self.readers.last_at = time.perf_counter()
                self.readers.done.set()


EXTRA = 9
"""Envelopes of a run that are not its deltas: the prompt's 3, RUN_STARTED, two STARTs, two ENDs, RUN_FINISHED."""


async def measure(
    client: Any, base: str, port: int, side: str, followers: int, events: int, rate: int
) -> dict[str, float]:
    """One run with ``events`` deltas; delivered per second, latencies, longest stall of the server's loop."""
    session_id = (await client.fetch(f"{base}/sessions", method="POST", body="")).body.decode()
    readers = Readers(events + EXTRA)
    readers.left = followers
    loop = asyncio.get_running_loop()
    connections = []
    for number in range(followers):
        sample = number % SAMPLE == 0 and bool(rate)
        reader = Reader(readers, f"/{side}/{session_id}", sample=sample)
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
        await reader.opened
        connections.append(reader)
    await asyncio.sleep(0.2)
    started = time.perf_counter()
    answer = await client.fetch(f"{base}/run/{session_id}", method="POST", body=f"{events} {rate}", request_timeout=600)
    head = json.loads(answer.body)["head"]
    assert head == events + EXTRA, head
    await asyncio.wait_for(readers.done.wait(), 600)
    took = readers.last_at - started
    told: dict[str, float] = json.loads((await client.fetch(f"{base}/stalls")).body)
    for reader in connections:
        reader.transport.abort()
    await asyncio.sleep(0.2)
    latencies = sorted(readers.latencies) or [0.0]
    return {
        "per_second": followers * (events + EXTRA) / took,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[int(len(latencies) * 0.99)],
        "per_cpu_second": followers * (events + EXTRA) / told["cpu"],
        **told,
    }


async def compare(client: Any, base: str, port: int, followers: int, rounds: int) -> dict[str, Any]:
    """A B A B ... as fast as it goes, then both at the same modest rate, then B at a high one."""
    results: dict[str, list[dict[str, float]]] = {"a": [], "b": []}
    events = {"a": max(100, 40_000 // followers), "b": min(40_000, max(10_000, 6_000_000 // followers))}
    for _ in range(rounds):
        for side in ("a", "b"):
            result = await measure(client, base, port, side, followers, events[side], 0)
            results[side].append(result)
            print(
                f"  {followers:4} {side.upper()}  {result['per_second']:12,.0f}/s"
                f"  {result['per_cpu_second']:12,.0f} per CPU second of the server"
                f"  stall {result['stall'] * 1e3:6.1f} ms, of CPU {result['stall_cpu'] * 1e3:6.1f} ms",
                flush=True,
            )

    def median(side: str, name: str) -> float:
        return statistics.median(result[name] for result in results[side])

    a, b = median("a", "per_second"), median("b", "per_second")
    modest = max(10, 4_000 // followers)
    slow = {side: await measure(client, base, port, side, followers, modest * 3, modest) for side in ("a", "b")}
    fast = await measure(client, base, port, "b", followers, 6000, 2000)
    return {
        "followers": followers,
        "a": a,
        "b": b,
        "ratio": b / a,
        "cpu_ratio": median("b", "per_cpu_second") / median("a", "per_cpu_second"),
        "stall_a": max(result["stall_cpu"] for result in results["a"]),
        "stall_b": max(result["stall_cpu"] for result in results["b"]),
        "modest_rate": modest,
        "modest": {side: (result["p50"], result["p99"]) for side, result in slow.items()},
        "at_2000": (fast["p50"], fast["p99"], fast["stall_cpu"]),
    }


def show(result: dict[str, Any]) -> None:
    """One paragraph."""
    ms = 1e3
    modest = {side: f"p50 {p50 * ms:.1f} p99 {p99 * ms:.1f}" for side, (p50, p99) in result["modest"].items()}
    p50, p99, stall = result["at_2000"]
    print(
        f"{result['followers']} followers: A {result['a']:,.0f}/s  B {result['b']:,.0f}/s  ratio {result['ratio']:.0f}x"
        f" ({result['cpu_ratio']:.0f}x per CPU second of the server);"
        f" longest stall (CPU) A {result['stall_a'] * ms:.1f} ms, B {result['stall_b'] * ms:.1f} ms\n"
        f"   latency at {result['modest_rate']} events/s: A {modest['a']} ms, B {modest['b']} ms;"
        f" B at 2,000 events/s: p50 {p50 * ms:.1f} p99 {p99 * ms:.1f} ms, stall {stall * ms:.1f} ms"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--followers", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, help="exit 1 when the ratio at 100 followers is below this")
    options = parser.parse_args()
    if options.serve is not None:
        await serve(options.serve)
        return
    from tornado.httpclient import AsyncHTTPClient

    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--serve",
            folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(await server.stdout.readline())
            client = AsyncHTTPClient()
            base = f"http://127.0.0.1:{port}"
            results = [await compare(client, base, port, followers, options.rounds) for followers in options.followers]
            print()
            for result in results:
                show(result)
        finally:
            server.stdin.close()
            await server.wait()
    for result in results:
        if options.goal and result["followers"] == 100 and result["ratio"] < options.goal:
            sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
