"""Servers in processes of their own that share a PostgreSQL: prompts, rows, recalls that are due at once, follow.

    python tests/benchmarks/bench_several_servers.py [--servers 3] [--round-trip 0.5] [--rounds 3]

Starts a private PostgreSQL from the installed programs, with ``fsync`` on. ``--round-trip`` puts a network in between
whose way there and back takes so many ms. Rates are of all servers together; medians of the rounds. The cost of the
signal between servers is measured in turns: the same writers in a server that reports its commits to two others, and in
one that does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.clock import now
from navi_jupyter.commands import Acceptance, Prompt
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.store.postgres.signal import Signal
from navi_jupyter.store.postgres.store import PostgresStore
from tests.benchmarks.bench_postgres import add_due_recalls, add_sessions, draft, orchestrated, submit_all
from tests.benchmarks.measuring import Figures, arguments, percentile
from tests.support.postgres import MISSING, PrivatePostgres, find_programs
from tests.support.slow_network import slow_network

EVENTS_A_SECOND = 100  # of the session that is followed
WRITERS = 16


class Server:
    """One server's process. Requests and answers are a line of JSON each."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, do: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
        return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def servers(url: str, count: int, *, silent: bool = False) -> AsyncIterator[list[Server]]:
    command = [sys.executable, __file__, "--serve", url, *(["--silent"] if silent else [])]
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24) for _ in range(count)
    ]
    try:
        yield [Server(process) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def serve(url: str, *, silent: bool) -> None:
    """What one process does. ``silent``: it reports no commit to others."""
    if silent:
        Signal.committed = lambda _: None  # type: ignore[method-assign]
    store = await PostgresStore.open(url)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        given = json.loads(line)
        answer = await globals()[f"do_{given.pop('do')}"](store, **given)
        print(json.dumps(answer), flush=True)


async def do_ready(store: PostgresStore) -> float:
    """Milliseconds that the least statement takes here."""
    took = []
    for _ in range(50):
        began = time.perf_counter()
        await store.session("s_none")
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


async def do_prompts(store: PostgresStore, count: int, at_once: int) -> list[float]:
    """When it began and ended."""
    async with orchestrated(store, 60) as (orchestrator, ids):
        for sid in ids:
            await orchestrator.submit(sid, Prompt(text="first"), user_id="o")
        began = time.monotonic()
        took = await submit_all(orchestrator, ids, count, at_once)
        return [began, began + took]


async def do_rows(store: PostgresStore, ids: list[str], rows: int) -> list[float]:
    drafts = [draft(n) for n in range(40)]
    began = time.monotonic()
    for _ in range(rows // (len(ids) * len(drafts))):
        await store.write(lambda tx: tx.append_all(dict.fromkeys(ids, drafts)))
    return [began, time.monotonic()]


async def do_commits(store: PostgresStore, ids: list[str], seconds: float) -> float:
    """Commits a second of writers of a row each."""
    count, over = 0, time.monotonic() + seconds

    async def write(sid: str) -> None:
        nonlocal count
        while time.monotonic() < over:
            await store.write(lambda tx: tx.append(sid, [draft(1)]), on=sid)
            count += 1

    began = time.monotonic()
    await asyncio.gather(*(write(sid) for sid in ids))
    return count / (time.monotonic() - began)


async def do_fire(store: PostgresStore, until: float) -> list[tuple[str, float]]:
    """What this server has delivered until then, each with the time."""
    delivered: list[tuple[str, float]] = []

    async def submit(session_id: str, command: Any, **_: Any) -> Acceptance:
        delivered.append((session_id, now().timestamp()))
        return Acceptance(command_id=command.command_id, seq=1, run_id=f"r_{secrets.token_hex(8)}")

    # The claims of a server that is not among those that are alive are taken over at once.
    async with (
        orchestrated(store, 0) as (orchestrator, _),
        Scheduler(store, submit, server_id=orchestrator.server.id, trusted=orchestrator.trust.check),
    ):
        await asyncio.sleep(max(0.0, until - now().timestamp()))
    return delivered


async def do_write(store: PostgresStore, sid: str, seconds: float) -> list[float]:
    """When each event of the session was written."""
    written, began = [], time.monotonic()
    for n in range(int(EVENTS_A_SECOND * seconds)):
        await asyncio.sleep(max(0.0, began + n / EVENTS_A_SECOND - time.monotonic()))
        written.append(time.monotonic())
        await store.write(lambda tx: tx.append(sid, [draft(1)]), on=sid)
    return written


async def do_read(store: PostgresStore, sid: str, seconds: float) -> list[float]:
    """When each event of the session could be read."""
    seen: list[float] = []
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        await store.changed_elsewhere(within=0.05)
        seen += [time.monotonic() for _ in await store.frames(sid, after=len(seen), limit=1_000)]
    return seen


async def measure(base: str, count: int) -> dict[str, float]:
    found: dict[str, float] = {}

    def new_url() -> str:
        return f"{base}?search_path=b_{secrets.token_hex(6)}"

    async with AsyncExitStack() as open_ones:
        url = new_url()
        store = await PostgresStore.open(url)
        open_ones.push_async_callback(store.close)
        group = await open_ones.enter_async_context(servers(url, count))
        waits = await asyncio.gather(*(one.ask("ready") for one in group))
        found["a read, ms"] = statistics.median(waits)

        spans = await asyncio.gather(*(one.ask("prompts", count=1_500, at_once=30) for one in group))
        found["prompts accepted, 1/s"] = count * 1_500 / _length(spans)

        ids = [f"s_{n}" for n in range(20 * count)]
        await add_sessions(store, ids)
        spans = await asyncio.gather(
            *(one.ask("rows", ids=ids[20 * n : 20 * (n + 1)], rows=24_000) for n, one in enumerate(group))
        )
        found["rows of logs, 1/s"] = count * 24_000 / _length(spans)

        writer, *readers = group
        seconds = 5.0
        reading = [asyncio.create_task(one.ask("read", sid="s_0", seconds=seconds + 1)) for one in readers]
        head = (await store.frames("s_0", after=0, limit=100_000))[-1][0]
        written = await writer.ask("write", sid="s_0", seconds=seconds)
        late = [
            at - since
            for seen in await asyncio.gather(*reading)
            for at, since in zip(seen[head:], written, strict=True)
        ]  # fmt: skip
        found |= {f"follow, p{p}, ms": percentile(late, p / 100) * 1e3 for p in (50, 99)}
    for due_at_once in (1_000, 10_000):
        found |= await fire(new_url(), count, due_at_once)
    return found


def _length(spans: list[list[float]]) -> float:
    return max(end for _, end in spans) - min(began for began, _ in spans)


async def fire(url: str, count: int, due_at_once: int) -> dict[str, float]:
    """Recalls of that number that are due at one instant."""
    store = await PostgresStore.open(url)
    try:
        due = (now() + timedelta(seconds=8 + due_at_once / 1_000)).replace(microsecond=0)
        await add_due_recalls(store, due, due_at_once)
        async with servers(url, count) as group:
            until = due.timestamp() + 2 + due_at_once / 2_000
            lists = await asyncio.gather(*(one.ask("fire", until=until) for one in group))
    finally:
        await store.close()
    times = Counter(sid for each in lists for sid, _ in each)
    late = [at - due.timestamp() for each in lists for _, at in each]
    name = f"{due_at_once} due at once"
    return {
        f"{name}: not delivered": due_at_once - len(times),
        f"{name}: delivered more than once": sum(1 for n in times.values() if n > 1),
        f"{name}: before their time": sum(1 for each in late if each < 0),
        f"{name}: p99 late, ms": percentile(late, 0.99) * 1e3,
        f"{name}: planned, claimed, delivered, 1/s": due_at_once / max(late),
    }


async def signal_cost(base: str, rounds: int) -> dict[str, float]:
    """Commits of a server that tells others of them and of one that does not, in turns."""
    reports: list[float] = []
    silent: list[float] = []
    for _ in range(rounds):
        for found in (reports, silent):
            url = f"{base}?search_path=b_{secrets.token_hex(6)}"
            store = await PostgresStore.open(url)
            ids = [f"s_{n}" for n in range(WRITERS)]
            await add_sessions(store, ids)
            async with servers(url, 3, silent=found is silent) as (one, *others):
                reading = [asyncio.create_task(other.ask("read", sid="s_0", seconds=7.0)) for other in others]
                await one.ask("commits", ids=ids, seconds=1.0)
                found.append(await one.ask("commits", ids=ids, seconds=5.0))
                await asyncio.gather(*reading)
            await store.close()
    with_it, without = statistics.median(reports), statistics.median(silent)
    return {
        "commits with the signal, 1/s": with_it,
        "commits without the signal, 1/s": without,
        "the signal costs, %": 100 * (1 - with_it / without),
    }


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--round-trip", type=float, default=0.0, help="ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--silent", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        await serve(given.serve, silent=given.silent)
        return
    programs = find_programs()
    if programs is None:
        sys.exit(f"needs {MISSING}")
    figures = Figures()
    server = PrivatePostgres(programs, durable=True)
    try:
        with contextlib.ExitStack() as open_ones:
            port = server.port
            if given.round_trip:
                port = open_ones.enter_context(slow_network(port, round_trip=given.round_trip / 1e3))
            base = f"postgresql://navi@127.0.0.1:{port}/postgres"
            rounds = [await measure(base, given.servers) for _ in range(1 if given.quick else given.rounds)]
            found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            found |= await signal_cost(base, 1 if given.quick else 2 * given.rounds)
    finally:
        server.remove()
    for name, value in found.items():
        figures.add(name, value)
    figures.write(given.json)


if __name__ == "__main__":
    asyncio.run(main())
