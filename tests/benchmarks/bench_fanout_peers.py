"""Fan-out over WebSockets beside other servers and the floor, interleaved.

    python tests/benchmarks/bench_fanout_peers.py [--quick] [--followers 100] [--rounds 3]

- *navi*, *queue* (one per subscriber): the server of `bench_fanout.py`; events are committed before they are shown;
- *floor*: asyncio alone: each event is framed once, and the same bytes are written to every socket;
- *starlette*: Starlette on uvicorn, ``await socket.send_text(text)`` for each socket, as its documentation does it;
- *ws*: the package ``ws`` on Node, ``socket.send(text)`` for each socket (of `tests/peers` or `js`; left out without).

The last three store nothing. All send the same events of 200 bytes to the same readers. Reported: delivered a second as
fast as it goes, the same for a second of the server's processor, and the latency at 40 events/s.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_fanout import EXTRA, measure
from tests.benchmarks.measuring import ROOT, Figures, LoopLag, arguments

HERE = Path(__file__).parent
ENVELOPE = 330
"""Bytes of one of ours with a body of 200."""
BATCH = 50
"""Events between two looks at what else the loop has to do, as in `bench_fanout.py`."""
RATE = 40
SECONDS = 4


# --- the peers' processes


async def events(count: int, rate: int) -> AsyncIterator[list[str]]:
    """So many envelopes of one size, each with the time at which it was made, in batches."""
    began, made = time.monotonic(), 0
    while made < count:
        if rate:
            await asyncio.sleep(began + made / rate - time.monotonic())
        size = 1 if rate else min(BATCH, count - made)
        yield [envelope(made + number) for number in range(size)]
        made += size


def envelope(seq: int) -> str:
    """JSON."""
    text = f'{{"seq":{seq},"event":{{"type":"TEXT_MESSAGE_CONTENT","message_id":"m0","delta":"@{time.monotonic_ns()}#'
    return text + "x" * (ENVELOPE - len(text) - 3) + '"}}'


class Floor(asyncio.Protocol):
    """A connection to the floor: a follower, or one of the three requests of the measurement."""

    followers: set[Floor]
    lag: LoopLag

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.asked = b""
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.followers.discard(self)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.asked += data
        head, blank, body = self.asked.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not blank or (length is not None and len(body) < int(length[1])):
            return
        self.asked = b""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/b/"):
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            self.followers.add(self)
        elif path == b"/sessions":
            self.answer("one")
        elif path == b"/stalls":
            self.answer(json.dumps(cost(self.lag)))
        else:
            self.run = asyncio.ensure_future(self.send_all(*map(int, body.split())))

    def answer(self, text: str) -> None:
        self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    async def send_all(self, count: int, rate: int) -> None:
        self.lag.reset()
        async for batch in events(count + EXTRA, rate):
            frames = b"".join(framed(text) for text in batch)
            for follower in self.followers:
                follower.transport.write(frames)
            await asyncio.sleep(0)
            for follower in list(self.followers):
                await follower.writable.wait()
        self.answer(json.dumps({"head": count + EXTRA}))


def framed(text: str) -> bytes:
    """A WebSocket frame of a server, of 126 bytes to 64 KB."""
    body = text.encode()
    return b"\x81\x7e" + len(body).to_bytes(2, "big") + body


def cost(lag: LoopLag) -> dict[str, float]:
    """Since its last reset, as ``measure`` wants it."""
    return {"stall": lag.longest, "stall_cpu": lag.longest_cpu, "cpu": lag.process_cpu}


async def serve_floor() -> None:
    """Print the port; work until the input is closed."""
    async with LoopLag() as lag:
        Floor.lag, Floor.followers = lag, set()
        server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_starlette() -> None:
    """Print the port; work until the input is closed."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    sockets: set[Any] = set()
    lag = LoopLag()

    async def follow(socket: Any) -> None:
        await socket.accept()
        sockets.add(socket)
        try:
            await socket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(socket)

    async def run(request: Any) -> Any:
        count, rate = map(int, (await request.body()).split())
        lag.reset()
        async for batch in events(count + EXTRA, rate):
            for text in batch:
                for socket in sockets:
                    await socket.send_text(text)
        return JSONResponse({"head": count + EXTRA})

    async def sessions(_request: Any) -> Any:
        return PlainTextResponse("one")

    async def stalls(_request: Any) -> Any:
        return JSONResponse(cost(lag))

    application = Starlette(
        routes=[
            WebSocketRoute("/b/one", follow),
            Route("/run/one", run, methods=["POST"]),
            Route("/sessions", sessions, methods=["POST"]),
            Route("/stalls", stalls),
        ]
    )
    config = uvicorn.Config(application, port=0, log_level="error", ws_per_message_deflate=False, lifespan="off")
    server = uvicorn.Server(config)
    async with lag:
        task = asyncio.ensure_future(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = server.force_exit = True
        await task


# --- the client


def ws_folder() -> Path | None:
    """Where the package ``ws`` is installed, when Node is, too."""
    folders = [ROOT / "tests" / "peers" / "node_modules" / "ws", ROOT / "js" / "node_modules" / "ws"]
    return next((folder for folder in folders if folder.exists()), None) if shutil.which("node") else None


def contestants(folder: str) -> dict[str, tuple[list[str], str]]:
    """The command of each server, and the first part of the address of its sockets."""
    ours = [sys.executable, str(HERE / "bench_fanout.py"), "--serve", folder]
    found = {
        "navi": (ours, "b"),
        "queue": (ours, "a"),
        "floor": ([sys.executable, __file__, "--serve", "floor"], "b"),
        "starlette": ([sys.executable, __file__, "--serve", "starlette"], "b"),
    }
    package = ws_folder()
    if package is None:
        print("ws is left out: it needs Node and `npm ci --ignore-scripts` in tests/peers")
        return found
    return found | {"ws": (["node", str(HERE / "fanout_peer.mjs"), str(package), str(EXTRA)], "b")}


@asynccontextmanager
async def served(command: list[str]) -> AsyncIterator[int]:
    """The port of a server that lives as long as the block."""
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(await server.stdout.readline())
    finally:
        server.stdin.close()
        await server.wait()


Found = dict[str, list[dict[str, float]]]


async def compare(folder: str, followers: int, rounds: int) -> tuple[Found, Found]:
    """As fast as it goes and at a modest rate, in turns."""
    from tornado.httpclient import AsyncHTTPClient

    fast: Found = {}
    modest: Found = {}
    async with AsyncExitStack() as stack:
        ports: dict[tuple[str, ...], int] = {}
        sides = contestants(folder)
        for command, _ in sides.values():
            if tuple(command) not in ports:
                ports[tuple(command)] = await stack.enter_async_context(served(command))
        client = AsyncHTTPClient()
        for number in range(rounds):
            for name, (command, side) in sides.items():
                port = ports[tuple(command)]
                base = f"http://127.0.0.1:{port}"
                count = max(100, (2_000_000 if name in ("navi", "floor") else 100_000) // followers)
                fast.setdefault(name, []).append(await measure(client, base, port, side, followers, count, 0))
                found = await measure(client, base, port, side, followers, RATE * SECONDS, RATE)
                modest.setdefault(name, []).append(found)
                print(f"  round {number + 1}: {name} {fast[name][-1]['per_second']:,.0f}/s", flush=True)
    return fast, modest


def report(fast: Found, modest: Found, followers: int) -> Figures:
    """Medians, and medians of the ratios of each round."""
    figures = Figures()

    def median(found: Found, name: str, column: str) -> float:
        return statistics.median(one[column] for one in found[name])

    for name in fast:
        to = f"fan-out to {followers}, {name}"
        figures.add(f"{to}: delivered, 1/s", median(fast, name, "per_second"))
        figures.add(f"{to}: delivered for a second of CPU, 1/s", median(fast, name, "per_cpu_second"))
        figures.add(f"{to}: at {RATE} events/s, p50, ms", 1e3 * median(modest, name, "p50"))
        figures.add(f"{to}: at {RATE} events/s, p99, ms", 1e3 * median(modest, name, "p99"))
    for name in fast:
        if name != "navi":
            pairs = zip(fast["navi"], fast[name], strict=True)
            ratio = statistics.median(ours["per_cpu_second"] / theirs["per_cpu_second"] for ours, theirs in pairs)
            figures.add(f"fan-out to {followers}, navi / {name}: delivered for a second of CPU, x", ratio)
    return figures


def main() -> None:
    """Serve as one of the peers, or compare all."""
    parser = arguments(__doc__)
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--rounds", type=int, help="3; in the short form 1")
    parser.add_argument("--serve", choices=("floor", "starlette"), help="be one of the peers")
    options = parser.parse_args()
    if options.serve:
        asyncio.run({"floor": serve_floor, "starlette": serve_starlette}[options.serve]())
        return
    rounds = options.rounds or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(compare(folder, options.followers, rounds))
    report(*found, options.followers).write(options.json)


if __name__ == "__main__":
    main()
