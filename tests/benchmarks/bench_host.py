"""How long the event loop that kernels share stands still, idle and in a burst: collection untouched and tuned.

    python tests/benchmarks/bench_host.py [--quick] [--json FILE] [--rounds 1] [--idle 60] [--sessions 20]

A server for each setting, in turns: an idle time from its start, in which the packages of its model are imported, then
the first run, then streams in all sessions at once. And a server whose first run comes at once. Stalls are those of a
task that sleeps 5 ms, by the clock and in CPU time of the loop's thread; pauses of the collector are Python's own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import urllib.error
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_agent import MODEL, Sessions
from tests.benchmarks.measuring import Figures, arguments
from tests.benchmarks.probe import Program, Watch, watched
from tests.support.providers import KEY
from tests.support.server import JupyterServer

PROVIDER = str(Path(__file__).with_name("bench_agent.py"))
SETTINGS = ("untouched", "tuned")
Found = dict[str, list[float]]
"""Values by name, one for each round."""


def first_text(server: JupyterServer) -> float:
    """Seconds from a prompt in a new session to the first text of its answer."""
    place = f"navi/api/sessions/{server.request('POST', 'navi/api/sessions', {'model': MODEL})['id']}"
    began, after = time.perf_counter(), 0
    server.request("POST", f"{place}/commands", {"type": "prompt", "text": "go"})
    while True:
        page = server.download(f"{place}/events?after={after}&wait=5").decode()
        if '"role":"assistant"' in page.partition("TEXT_MESSAGE_END")[2]:  # after the user's own message
            return time.perf_counter() - began
        if "RUN_ERROR" in page:
            raise SystemExit(page[-1000:])
        time.sleep(0.002)


async def stalls(found: Found, name: str, watch: Watch) -> None:
    """The longest since this was last asked."""
    seen = await watch.lag()
    found.setdefault(f"{name}: longest stall, ms", []).append(1e3 * max(seen["late"], default=0.0))
    found.setdefault(f"{name}: longest stall of the loop's CPU, ms", []).append(1e3 * max(seen["cpu"], default=0.0))


def pauses(server: JupyterServer) -> tuple[float, float]:
    """Seconds that garbage collection held the process up, and those of full collections; 0 where it is not known."""
    page = server.download("metrics").decode().splitlines()
    sums = [line for line in page if line.startswith("navi_gc_pause_seconds_sum")]
    full = [float(line.split()[-1]) for line in sums if 'generation="2"' in line]
    return sum(float(line.split()[-1]) for line in sums), sum(full)


async def whole(found: Found, env: dict[str, str], folder: Path, setting: str, options: argparse.Namespace) -> None:
    """One server: idle, its first run, a burst."""
    name, home = f"collection {setting}", folder / setting
    args = (f"--NaviExtension.default_model={MODEL}", f"--NaviExtension.max_concurrent_runs={options.sessions + 8}")
    with watched(home, {**env, "NAVI_GARBAGE_COLLECTION": setting}, *args) as (server, watch):
        await asyncio.sleep(1)
        await watch.lag()
        await asyncio.sleep(options.idle)
        await stalls(found, f"{name}, idle", watch)
        first = await asyncio.to_thread(first_text, server)
        found.setdefault(f"{name}, first run after an idle time: to its text, ms", []).append(1e3 * first)
        await stalls(found, f"{name}, first run after an idle time", watch)
        before = pauses(server)
        sessions = Sessions(server, options.sessions)
        sessions.start()
        await asyncio.sleep(options.burst)
        await sessions.stop()
        await stalls(found, f"{name}, {options.sessions} sessions at once", watch)
        for kind, was, now in zip(("", " by full ones"), before, pauses(server), strict=True):
            seconds = f"{name}, {options.sessions} sessions at once: collections{kind}, ms"
            found.setdefault(seconds, []).append(1e3 * (now - was))


async def at_once(found: Found, env: dict[str, str], folder: Path) -> None:
    """A server whose first run comes as soon as it is ready."""
    with watched(folder / "at once", env) as (server, watch):
        await watch.lag()
        first = await asyncio.to_thread(first_text, server)
        found.setdefault("first run at once: to its text, ms", []).append(1e3 * first)
        await stalls(found, "first run at once", watch)


async def measure(options: argparse.Namespace) -> Figures:
    """All rounds: medians."""
    found: Found = {}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder, Program(PROVIDER, "--rate=50", "--provide") as provider:
            env = {"OPENAI_BASE_URL": f"{await asyncio.to_thread(provider.line)}/v1", "OPENAI_API_KEY": KEY}
            for setting in in_turn(SETTINGS, number):
                await whole(found, env, Path(folder), setting, options)
            await at_once(found, env, Path(folder))
    figures = Figures()
    for name, values in found.items():
        figures.add(name, statistics.median(values))
    return figures


def in_turn(settings: Sequence[str], number: int) -> Sequence[str]:
    """The other one first in each second round."""
    return settings if number % 2 == 0 else settings[::-1]


def main() -> None:
    """Run all of it."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--idle", type=float, help="60 seconds; in the short form 18")
    parser.add_argument("--burst", type=float, help="20 seconds; in the short form 5")
    parser.add_argument("--sessions", type=int, default=20)
    options = parser.parse_args()
    options.idle = options.idle or (18.0 if options.quick else 60.0)
    options.burst = options.burst or (5.0 if options.quick else 20.0)
    try:
        asyncio.run(measure(options)).write(options.json)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{error}: {error.read()[:500]!r}") from error


if __name__ == "__main__":
    main()
