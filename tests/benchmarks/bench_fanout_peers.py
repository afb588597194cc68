"""Fan-out over WebSockets beside other servers and the floor, interleaved.

    python tests/benchmarks/bench_fanout_peers.py [--quick] [--followers 100] [--rounds 3]

- *navi*, *queue* (one per subscriber), *floor* (asyncio alone: each event is framed once, the same bytes are written to
  every socket): the server of `bench_fanout.py`, events are committed to SQLite before they are shown;
- *starlette*: Starlette on uvicorn, ``await socket.send_text(text)`` for each socket, as its documentation does it;
- *ws*: the package ``ws`` on Node, ``socket.send(text)`` for each socket (of `tests/peers` or `js`; left out without).

The last two store nothing. All send the same events of 200 bytes to the same readers. Reported: delivered a second as
fast as it goes, the same for a second of the server's processor, and the latency at 40 events/s.
"""

from __future__ import annotations

import asyncio
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

from tests.benchmarks.bench_fanout import EXTRA, Bench
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


def cost(lag: LoopLag) -> dict[str, float]:
    """Since its last reset, as ``measure`` wants it."""
    return {"stall": lag.longest, "stall_cpu": lag.longest_cpu, "cpu": lag.process_cpu}


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
    found = {"navi": (ours, "b"), "queue": (ours, "a"), "floor": (ours, "f")}
    found["starlette"] = ([sys.executable, __file__, "--serve", "starlette"], "b")
    package = ws_folder()
    if package is None:
        print("ws is left out: it needs Node and `npm ci --ignore-scripts` in tests/peers")
        return found
    return found | {"ws": (["node", str(HERE / "fanout_peer.mjs"), str(package), str(EXTRA)], "b")}


@asynccontextmanager
async def served(command: list[str]) -> AsyncIterator[Bench]:
    """A server that lives as long as the block."""
    from tornado.httpclient import AsyncHTTPClient

    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        floor = int(await server.stdout.readline()) if "bench_fanout.py" in command[1] else port
        yield Bench(AsyncHTTPClient(), {"a": port, "b": port, "f": floor})
    finally:
        server.stdin.close()
        await server.wait()


Found = dict[str, list[dict[str, float]]]


async def compare(folder: str, followers: int, rounds: int) -> tuple[Found, Found]:
    """As fast as it goes and at a modest rate, in turns."""
    fast: Found = {}
    modest: Found = {}
    async with AsyncExitStack() as stack:
        servers: dict[str, Bench] = {}
        sides = contestants(folder)
        for command, _ in sides.values():
            if " ".join(command) not in servers:
                servers[" ".join(command)] = await stack.enter_async_context(served(command))
        for number in range(rounds):
            for name, (command, side) in sides.items():
                bench = servers[" ".join(command)]
                count = max(100, (2_000_000 if name in ("navi", "floor") else 100_000) // followers)
                fast.setdefault(name, []).append(await bench.measure(side, followers, count, 0))
                modest.setdefault(name, []).append(await bench.measure(side, followers, RATE * SECONDS, RATE))
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
    parser.add_argument("--serve", choices=("starlette",), help="be one of the peers")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve_starlette())
        return
    rounds = options.rounds or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(compare(folder, options.followers, rounds))
    report(*found, options.followers).write(options.json)


if __name__ == "__main__":
    main()
