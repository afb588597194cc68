"""A kernel's execute round trip while a hundred followers are sent a stream, against a bare Jupyter server's.

    python tests/benchmarks/bench_kernel.py [--quick] [--followers 100] [--sessions 1] [--rate 400] [--rounds 3]

Two servers with a kernel each, one of them without Navi. In each round the model of the other streams for half a minute
(``rate`` tokens a second in each session) to all followers, and round trips through both servers are taken in turns;
then as many while nothing streams. What the machine has to do for the stream (provider, readers) slows both alike:
*beside* compares with the bare server at the same time, *quiet* with the bare server while nothing streams. The round
trip over ZMQ does not go through a server: what of it grows is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_agent import MODEL, RUN
from tests.benchmarks.bench_fanout import Reader, Readers
from tests.benchmarks.measuring import Figures, arguments, in_ms, percentile
from tests.benchmarks.probe import Program, Trips, Watch, watched
from tests.support.providers import KEY
from tests.support.server import JupyterServer

PROVIDER = str(Path(__file__).with_name("bench_agent.py"))
AT_ONCE = 10
"""Pairs of round trips until it is the other server's turn."""


async def follow(server: JupyterServer, session_ids: list[str], count: int) -> list[Reader]:
    """So many followers, spread over the sessions."""
    loop = asyncio.get_running_loop()
    readers = Readers(sys.maxsize)
    port = urlsplit(server.url).port
    followers = []
    for number in range(count):
        path = f"/navi/api/sessions/{session_ids[number % len(session_ids)]}/ws?after=0&token={server.token}"
        reader = Reader(readers, path, sample=False)
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.wait_for(reader.opened, 30)
        followers.append(reader)
    return followers


def prompt(server: JupyterServer, session_ids: list[str]) -> list[str]:
    """One answer of each session begins: the addresses of the runs."""
    runs = []
    for session_id in session_ids:
        place, body = f"navi/api/sessions/{session_id}", {"type": "prompt", "text": "go"}
        runs.append(f"{place}/runs/{server.request('POST', f'{place}/commands', body)['run_id']}")
    return runs


def ended(server: JupyterServer, runs: list[str]) -> None:
    """Wait until all are."""
    for run in runs:
        server.wait_for(lambda run=run: server.get(run)["status"] == "completed", within=60)  # type: ignore[misc]


async def trips(watches: dict[str, Watch], seconds: float) -> dict[str, Trips]:
    """Of all servers, in turns."""
    found: dict[str, Trips] = {name: {"zmq": [], "server": []} for name in watches}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, watch in watches.items():
            for way, times in (await watch.round_trips(AT_ONCE)).items():
                found[name][way] += times
    return found


async def compare(options: argparse.Namespace) -> Figures:
    """All rounds."""
    loaded: dict[str, Trips] = {}
    quiet: dict[str, Trips] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(Program(PROVIDER, f"--rate={options.rate}", "--provide"))
        address = await asyncio.to_thread(provider.line)
        env = {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": KEY}
        server, ours = stack.enter_context(watched(folder / "navi", env))
        _, bare = stack.enter_context(watched(folder / "bare", {}, navi=False))
        watches = {"bare": bare, "navi": ours}
        session_ids = [
            server.request("POST", "navi/api/sessions", {"model": MODEL})["id"] for _ in range(options.sessions)
        ]
        followers = await follow(server, session_ids, options.followers)
        await trips(watches, 2)  # warm
        for number in range(options.rounds):
            runs = await asyncio.to_thread(prompt, server, session_ids)
            await asyncio.sleep(2)
            began, had, busy = time.monotonic(), sum(one.count for one in followers), ours.busy()
            merge(loaded, await trips(watches, RUN - 6))
            took = time.monotonic() - began
            rate, share = (sum(one.count for one in followers) - had) / took, (ours.busy() - busy) / took
            print(f"  round {number + 1}: {rate:,.0f} envelopes/s delivered, {100 * share:.0f} % CPU", flush=True)
            await asyncio.to_thread(ended, server, runs)
            merge(quiet, await trips(watches, options.quiet))
        for one in followers:
            one.transport.abort()
    return report(loaded, quiet, rate, share)


def merge(into: dict[str, Trips], found: dict[str, Trips]) -> None:
    """Add what was found."""
    for name, ways in found.items():
        for way, times in ways.items():
            into.setdefault(name, {}).setdefault(way, []).extend(times)


def report(loaded: dict[str, Trips], quiet: dict[str, Trips], rate: float, share: float) -> Figures:
    """Percentiles and ratios."""
    figures = Figures()
    figures.add("kernel, stream: delivered, 1/s", rate)
    figures.add("kernel, stream: CPU of the server, %", 100 * share)
    for when, found in (("while it streams", loaded), ("while nothing streams", quiet)):
        for name, ways in found.items():
            for way, times in ways.items():
                for figure, value in in_ms(f"kernel, {when}: round trip, {name}, over {way}", times).items():
                    figures.add(figure, value)
    for name, other in (("bare beside", loaded), ("bare quiet", quiet)):
        for label, part in (("p50", 0.5), ("p99", 0.99)):
            ratio = percentile(loaded["navi"]["server"], part) / percentile(other["bare"]["server"], part)
            figures.add(f"kernel, navi streaming / {name}: round trip, {label}, of it", ratio)
    return figures


def main() -> None:
    """Measure."""
    parser = arguments(__doc__)
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--rate", type=float, default=400.0, help="tokens a second in each session")
    parser.add_argument("--rounds", type=int, help="3; in the short form 1")
    parser.add_argument("--quiet", type=float, default=14.0, help="seconds without a stream in each round")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    asyncio.run(compare(options)).write(options.json)


if __name__ == "__main__":
    main()
