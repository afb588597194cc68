"""Fan-out over WebSockets: the event log's followers (B) against a queue per subscriber (A) and raw sockets (F).

    python tests/benchmarks/bench_fanout.py [--followers 10 100 500] [--parts speed latency stalled connects]

One Tornado process, readers in another one, everything committed to a real SQLite store by a real run before it is
shown (group commit and journal are the same for all sides). Event bodies are 200 bytes and cannot be merged.
A: ``asyncio.Queue`` per socket, ``json.dumps`` per subscriber, ``write_message`` per event.
B: ``orchestrator.follow`` with what writes pages to a socket, as the real handler does.
F: the floor: what a commit brings is made one frame, and written to the transport of each of asyncio's connections.

speed: delivered events per second when the run goes as fast as it can (median of the rounds), and the longest stall of
the server's loop meanwhile in CPU time of its thread.
latency: from the agent's yield to the reader at a fixed rate, and the CPU that the server takes.
stalled: what a follower that reads nothing while 100,000 events are written costs in memory, and the others in time.
connects: 5,000 sockets of a real Jupyter server are opened and closed, twice; what the second time leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import ROOT, Figures, LoopLag, arguments, collect_as_a_server_does, percentile
from tests.support.server import JupyterServer

OWNER = "local"
BODY = 200
SAMPLE = 10
"""Every which reader looks at the time stamps."""
RATES = ((40, 100), (400, 100), (40, 500))
"""Events a second, to that many followers: the rates whose latency is measured."""
STALLED_EVENTS = 100_000
_STAMP = re.compile(rb"@(\d+)#")


# --- the server process


def held() -> dict[str, float]:
    """What this process has: objects, tasks, file descriptors, MB of memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    }


def _load_jupyter_server_extension(app: Any) -> None:
    from tornado.web import RequestHandler

    class Held(RequestHandler):
        def get(self) -> None:
            self.write(held())

    app.web_app.add_handlers(".*", [(f"{app.base_url}held", Held)])


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


class Floor(asyncio.Protocol):
    """A connection of raw asyncio: whole frames are written to its transport, and nothing waits for them to leave."""

    connections: ClassVar[dict[str, set[asyncio.Transport]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            self.session_id = data.split(b" ", 2)[1].rsplit(b"/", 1)[1].decode()
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
            self.connections.setdefault(self.session_id, set()).add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections[self.session_id].discard(self.transport)

    @classmethod
    def appended(cls, session_id: str, frames: list[tuple[int, str]]) -> None:
        """One frame for all of a session."""
        transports = cls.connections.get(session_id)
        if transports:
            text = ('{"batch":[' + ",".join(frame for _, frame in frames) + "]}").encode()
            message = b"\x81\x7f" + len(text).to_bytes(8, "big") + text
            for transport in transports:
                transport.write(message)


async def serve(folder: Path) -> None:  # noqa: C901  all servers side by side, as small as they can be
    """The server: prints its port and that of the floor, works until its input is closed."""
    from tornado.httpserver import HTTPServer
    from tornado.iostream import StreamClosedError
    from tornado.netutil import bind_sockets
    from tornado.web import Application, RequestHandler
    from tornado.websocket import WebSocketClosedError, WebSocketHandler

    from navi_jupyter.commands import Prompt
    from navi_jupyter.model.sessions import SessionCreate
    from navi_jupyter.orchestrator.orchestrator import Orchestrator
    from navi_jupyter.store.sqlite.store import SqliteStore

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
    store.subscribe(Floor.appended)
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
            options: dict[str, Any] = {}
            with contextlib.suppress(ImportError):  # an older version, measured by this file
                from navi_jupyter.server.transfers.websocket_protocol import PageWriter

                options["push"] = PageWriter(self).write
            push = options.get("push") or (lambda page: self.write_message(page.text, binary=False))
            with contextlib.suppress(WebSocketClosedError, StreamClosedError):
                async with aclosing(orchestrator.follow(session_id, after=0, owner=OWNER, **options)) as pages:
                    async for page in pages:
                        left = push(page)
                        if left is not None:
                            await left

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
            self.write(
                {"stall": lag.longest, "stall_cpu": lag.longest_cpu, "cpu": lag.process_cpu, "loop": lag.loop_cpu}
            )

    class Held(RequestHandler):
        def get(self) -> None:
            self.write(held())

    application = Application(
        [
            ("/sessions", Sessions),
            ("/run/(.*)", Run),
            ("/stalls", StallsSoFar),
            ("/held", Held),
            ("/a/(.*)", QueueSocket),
            ("/b/(.*)", FollowSocket),
        ]
    )
    sockets = bind_sockets(0, "127.0.0.1", backlog=1024)
    collect_as_a_server_does()
    server = HTTPServer(application)
    server.add_sockets(sockets)
    floor = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, backlog=1024)
    print(sockets[0].getsockname()[1], floor.sockets[0].getsockname()[1], sep="\n", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    probe.cancel()
    floor.close()
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
    client: Any,
    base: str,
    port: int,
    side: str,
    followers: int,
    events: int,
    rate: int,
    *,
    stalled: int = 0,
    held: bool = False,
) -> dict[str, float]:
    """One run with ``events`` deltas; delivered per second, latencies, longest stall of the server's loop.

    ``stalled`` more followers read nothing; ``held``: also what the server has more of afterwards.
    """

    async def ask(path: str) -> dict[str, float]:
        answer: dict[str, float] = json.loads((await client.fetch(base + path)).body)
        return answer

    session_id = (await client.fetch(f"{base}/sessions", method="POST", body="")).body.decode()
    readers = Readers(events + EXTRA)
    readers.left = followers
    loop = asyncio.get_running_loop()
    connections = []
    for number in range(followers + stalled):
        sample = number % SAMPLE == 0 and bool(rate)
        reader = Reader(readers, f"/{side}/{session_id}", sample=sample)
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
        await reader.opened
        connections.append(reader)
        if number >= followers:
            reader.transport.pause_reading()
    await asyncio.sleep(0.2)
    before = await ask("/held") if held else {}
    started = time.perf_counter()
    answer = await client.fetch(f"{base}/run/{session_id}", method="POST", body=f"{events} {rate}", request_timeout=600)
    head = json.loads(answer.body)["head"]
    assert head == events + EXTRA, head
    await asyncio.wait_for(readers.done.wait(), 600)
    took = readers.last_at - started
    stalls = await ask("/stalls")
    after = await ask("/held") if held else {}
    for reader in connections:
        reader.transport.abort()
    await asyncio.sleep(0.2)
    return {
        "per_second": followers * (events + EXTRA) / took,
        "p50": percentile(readers.latencies, 0.5),
        "p99": percentile(readers.latencies, 0.99),
        "per_cpu_second": followers * (events + EXTRA) / stalls["cpu"],
        "share": stalls["cpu"] / took,
        **{name: after[name] - before[name] for name in after},
        **stalls,
    }


class Bench:
    """The server, and the client of it."""

    def __init__(self, client: Any, ports: dict[str, int]) -> None:
        self._client = client
        self._ports = ports

    async def measure(self, side: str, *given: int, stalled: int = 0, held: bool = False) -> dict[str, float]:
        """See :func:`measure`."""
        base, port = f"http://127.0.0.1:{self._ports['b']}", self._ports[side]
        return await measure(self._client, base, port, side, *given, stalled=stalled, held=held)  # type: ignore[arg-type]


def median(results: list[dict[str, float]], name: str) -> float:
    return statistics.median(result[name] for result in results)


async def speed(bench: Bench, figures: Figures, counts: list[int], rounds: int, scale: float) -> float | None:
    """A B F A B F ... as fast as it goes; the ratio at 100 followers."""
    at_100 = None
    for followers in counts:
        results: dict[str, list[dict[str, float]]] = {"a": [], "b": [], "f": []}
        fast = int(scale * min(40_000, max(10_000, 6_000_000 // followers)))
        events = {"a": max(100, int(scale * 40_000) // followers), "b": fast, "f": fast}
        for _ in range(rounds):
            for side in results:
                results[side].append(await bench.measure(side, followers, events[side], 0))
        ratio = median(results["b"], "per_second") / median(results["a"], "per_second")
        cpu_ratio = median(results["b"], "per_cpu_second") / median(results["a"], "per_cpu_second")
        to = f"to {followers}"
        figures.add(f"delivered {to}, events/s", median(results["b"], "per_second"))
        figures.add(f"delivered {to} per CPU second of the server, events", median(results["b"], "per_cpu_second"))
        figures.add(f"delivered {to}, a queue per subscriber, events/s", median(results["a"], "per_second"))
        figures.add(f"delivered {to}, raw asyncio, events/s", median(results["f"], "per_second"))
        figures.add(f"delivered {to}, ratio to a queue per subscriber, x", ratio)
        figures.add(f"delivered {to}, ratio to a queue per subscriber by CPU of the server, x", cpu_ratio)
        figures.add(f"longest stall while delivering {to}, CPU, ms", median(results["b"], "stall_cpu") * 1e3)
        figures.add(
            f"longest stall while delivering {to}, raw asyncio, CPU, ms", median(results["f"], "stall_cpu") * 1e3
        )
        at_100 = ratio if followers == 100 else at_100
    return at_100


async def latency(bench: Bench, figures: Figures, rounds: int, seconds: float) -> None:
    """B F B F ... at fixed rates."""
    for rate, followers in RATES:
        results: dict[str, list[dict[str, float]]] = {"b": [], "f": []}
        for _ in range(rounds):
            for side in results:
                results[side].append(await bench.measure(side, followers, int(rate * seconds), rate))
        for side, name in (("b", ""), ("f", ", raw asyncio")):
            what = f"{rate} events/s to {followers}{name}"
            figures.add(f"{what}, p50, ms", median(results[side], "p50") * 1e3)
            figures.add(f"{what}, p99, ms", median(results[side], "p99") * 1e3)
            figures.add(f"{what}, CPU of the server, %", median(results[side], "share") * 100)


async def stalled(bench: Bench, figures: Figures, rounds: int) -> None:
    """Ten followers that read, without and with one that does not."""
    await bench.measure("b", 10, STALLED_EVENTS, 0)  # what a first run of that size leaves in caches
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(await bench.measure("b", 10, STALLED_EVENTS, 0, held=True))
        beside.append(await bench.measure("b", 10, STALLED_EVENTS, 0, stalled=1, held=True))
    figures.add("a stalled follower costs, MB", median(beside, "memory") - median(alone, "memory"))
    figures.add("a stalled follower costs, objects", median(beside, "objects") - median(alone, "objects"))
    ratio = median(beside, "per_cpu_second") / median(alone, "per_cpu_second")
    figures.add("others beside a stalled follower, per CPU second of the server, x", ratio)


async def connects(figures: Figures, home: Path, count: int, settle: float) -> None:
    """A real server's sockets, twenty at once."""
    server = JupyterServer(home, env={"PYTHONPATH": str(ROOT)})
    extensions = "--ServerApp.jpserver_extensions={'navi_jupyter': True, 'tests.benchmarks.bench_fanout': True}"
    server.start(args=(extensions,))
    try:
        session_id = server.request("POST", "navi/api/sessions", {})["id"]
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        path = f"/navi/api/sessions/{session_id}/ws?after=0&token={server.token}"

        async def one() -> None:
            readers = Readers(10**9)
            reader = Reader(readers, path, sample=False)
            await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", port)
            await reader.opened
            reader.transport.abort()

        async def many(number: int) -> dict[str, float]:
            for _ in range(number // 20):
                await asyncio.gather(*(one() for _ in range(20)))
            while server.request("GET", "navi/api/health")["followers"]:  # noqa: ASYNC110  nothing else tells
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)  # the last handlers end
            return dict(await asyncio.to_thread(lambda: json.loads(server.download("held"))))

        await many(1000)
        await asyncio.sleep(settle)  # a server imports packages while it is idle
        before = await many(count)  # by then the allocator has what it keeps: 10 MB in the first thousands
        after = await many(count)
        for name, unit in (
            ("objects", "objects"),
            ("tasks", "tasks"),
            ("descriptors", "descriptors"),
            ("memory", "MB"),
        ):
            figures.add(f"left by {count:,} connects, {unit}", after[name] - before[name])
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Bench]:
    """The server, in a process of its own."""
    from tornado.httpclient import AsyncHTTPClient

    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", folder, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port, floor = int(await server.stdout.readline()), int(await server.stdout.readline())
            yield Bench(AsyncHTTPClient(), {"a": port, "b": port, "f": floor})
        finally:
            server.stdin.close()
            await server.wait()


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--serve", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--followers", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--parts", nargs="+", default=["speed", "latency", "stalled", "connects"])
    parser.add_argument("--goal", type=float, help="exit 1 when the ratio at 100 followers is below this")
    options = parser.parse_args()
    if options.serve is not None:
        await serve(options.serve)
        return
    rounds = options.rounds or (1 if options.quick else 3)
    followers = options.followers or ([10, 100] if options.quick else [10, 100, 500])
    figures = Figures()
    ratio = None
    async with served() as bench:
        if "speed" in options.parts:
            ratio = await speed(bench, figures, followers, rounds, 0.25 if options.quick else 1)
        if "latency" in options.parts:
            await latency(bench, figures, rounds, 2 if options.quick else 8)
        if "stalled" in options.parts:
            await stalled(bench, figures, rounds)
    if "connects" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            await connects(figures, Path(folder) / "home", 500 if options.quick else 5000, 1 if options.quick else 20)
    figures.write(options.json)
    if options.goal and ratio is not None and ratio < options.goal:
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
