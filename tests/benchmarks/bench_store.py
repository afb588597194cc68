"""The store by itself: how long a lone event takes to be durable and seen, and how many events a second it takes.

    python tests/benchmarks/bench_store.py [--events 20000]

Reports: commit latency of a lone event (p50, p99; ``kill``: survives a killed process, ``power``: fsynced), with the
floor: sqlite3 alone in a thread; CPU of the loop's thread for it; events per second through the journal for 1 and for
50 sessions at once (events that cannot be merged); how late the loop is while 500 callers write 10,000 units; how long
another process's commit takes to reach a follower here.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from navi_jupyter.clock import now  # noqa: E402
from navi_jupyter.events import Custom, Draft  # noqa: E402
from navi_jupyter.model.sessions import SYSTEM, SessionCreate  # noqa: E402
from navi_jupyter.orchestrator.event_writer import EventWriter  # noqa: E402
from navi_jupyter.orchestrator.orchestrator import Orchestrator  # noqa: E402
from navi_jupyter.store.sqlite.store import SqliteStore  # noqa: E402
from tests.benchmarks.measuring import Figures, LoopLag, arguments, in_ms  # noqa: E402

NEIGHBOUR = """
import asyncio, os, sys, time
from pathlib import Path
from navi_jupyter.events import Custom, Draft
from navi_jupyter.clock import now
from navi_jupyter.model.sessions import SYSTEM
from navi_jupyter.ports.transactions import Server
from navi_jupyter.store.sqlite.store import SqliteStore
async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    # As every server does: beside one that is known, others look for commits more often.
    server = Server(id="neighbour", host="elsewhere", pid=os.getpid(), pid_started=0.0)
    await store.write(lambda tx: tx.beat(server, at=now()))
    await asyncio.sleep(3)
    for _ in range(int(sys.argv[3])):
        event = Custom(name="navi.kernel", value={"at": time.monotonic()})
        await store.write(lambda tx: tx.append(sys.argv[2], [Draft(event, run_id=None, origin=SYSTEM, at=now())]))
        await asyncio.sleep(0.037)
    await store.close()
asyncio.run(main())
"""


def draft(number: int) -> Draft:
    value = {"n": number, "pad": "x" * 130}
    return Draft(Custom(name="navi.kernel", value=value), run_id=None, origin=SYSTEM, at=now())


async def lone(store: SqliteStore, sid: str, *, durable: bool, count: int = 500) -> list[float]:
    """Seconds of each."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        await store.write(lambda tx, number=number: tx.append(sid, [draft(number)]), durable=durable)  # type: ignore[misc]
        took.append(time.perf_counter() - began)
    return took


async def floor(path: Path, *, durable: bool, count: int = 500) -> list[float]:
    """The same with sqlite3 alone in a thread: seconds of each."""
    frame = json.dumps({"n": 1, "pad": "x" * 250})

    def begin() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute(
            "CREATE TABLE IF NOT EXISTS events (session TEXT, seq INTEGER, frame TEXT, PRIMARY KEY (session, seq))"
        )
        db.execute("CREATE TABLE IF NOT EXISTS heads (session TEXT PRIMARY KEY, seq INTEGER)")
        db.execute("INSERT OR IGNORE INTO heads VALUES ('s', 0)")
        return db

    def commit(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        (head,) = db.execute("SELECT seq FROM heads WHERE session = 's'").fetchone()
        db.execute("INSERT INTO events VALUES ('s', ?, ?)", (head + 1, frame))
        db.execute("UPDATE heads SET seq = seq + 1 WHERE session = 's'")
        db.execute("COMMIT")

    took = []
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        db = await loop.run_in_executor(thread, begin)
        for _ in range(count):
            began = time.perf_counter()
            await loop.run_in_executor(thread, commit, db)
            took.append(time.perf_counter() - began)
        await loop.run_in_executor(thread, db.close)
    return took


async def crowd(store: SqliteStore, sids: list[str], figures: Figures, *, callers: int = 500, units: int = 20) -> None:
    """How late the loop is while many callers write, each one unit after the other."""

    async def call(sid: str) -> None:
        for number in range(units):
            await store.write(lambda tx, number=number: tx.append(sid, [draft(number)]))  # type: ignore[misc]

    async with LoopLag() as lag:
        began = time.perf_counter()
        await asyncio.gather(*(call(sids[number % len(sids)]) for number in range(callers)))
        seconds = time.perf_counter() - began
        cpu = lag.loop_cpu
    for figure, value in in_ms("store: 10,000 units, the loop is late", lag.late).items():
        figures.add(figure, value)
    figures.add("store: 10,000 units, the loop is late, longest, ms", lag.longest * 1e3)
    figures.add("store: 10,000 units, the loop is late, longest in CPU time, ms", lag.longest_cpu * 1e3)
    figures.add("store: 10,000 units, CPU of the loop for each, us", cpu / (callers * units) * 1e6)
    figures.add("store: 10,000 units, 1/s", callers * units / seconds)


async def storm(store: SqliteStore, sids: list[str], events: int) -> float:
    """Events per second through a journal, as runs write them."""
    journal = EventWriter(store, "bench")
    work = asyncio.create_task(journal.work())
    began = time.perf_counter()
    for number in range(events):
        journal.write(sids[number % len(sids)], draft(number))
        await journal.room()
    journal.stop()
    await work
    return events / (time.perf_counter() - began)


async def across(orchestrator: Orchestrator, sid: str, path: Path, count: int = 100) -> list[float]:
    """From another process's write to a follower in this one, who looks every tenth of a second."""
    head = (await orchestrator.sessions.view(sid, owner="local")).head_seq
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(path), sid, str(count)], cwd=ROOT)
    took: list[float] = []
    async with aclosing(orchestrator.follow(sid, after=head, owner="local")) as pages:
        async for page in pages:
            at = time.monotonic()
            took += [at - json.loads(frame)["event"]["value"]["at"] for _, frame in page.envelopes]
            if len(took) == count:
                break
    await asyncio.to_thread(process.wait)
    return took


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, help="20,000; in the short form 5,000")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "navi.db"
        began = time.perf_counter()
        store = await SqliteStore.open(path)
        figures.add("store: open a new file, ms", (time.perf_counter() - began) * 1e3)
        agent: Any = None
        orchestrator = Orchestrator(store, agent)
        await orchestrator.start(agent)
        sids = [(await orchestrator.sessions.create(SessionCreate(), owner="local")).id for _ in range(50)]
        busy = time.thread_time()
        lone_events = await lone(store, sids[0], durable=False)
        busy = time.thread_time() - busy
        figures.add("store: a lone event, CPU of the loop, us", busy / len(lone_events) * 1e6)
        waits = {
            "a lone event is durable (kill)": lone_events,
            "the floor of that, sqlite3 in a thread (kill)": await floor(Path(folder, "floor.db"), durable=False),
            "a lone event is durable (power)": await lone(store, sids[0], durable=True),
            "the floor of that, sqlite3 in a thread (power)": await floor(Path(folder, "floor.db"), durable=True),
            "from another process to a follower": await across(orchestrator, sids[0], path),
        }
        for name, took in waits.items():
            for figure, value in in_ms(f"store: {name}", took).items():
                figures.add(figure, value)
        await crowd(store, sids, figures)
        for count in (1, 50):
            rate = await storm(store, sids[:count], options.events or (5_000 if options.quick else 20_000))
            figures.add(f"store: events of {count} sessions, 1/s", rate)
        await orchestrator.stop()
        await store.close()
    figures.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
