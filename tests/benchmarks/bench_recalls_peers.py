"""Recalls under load beside APScheduler 3.11 on SQLite and beside the bare floor, interleaved; one table in the end.

    python tests/benchmarks/bench_recalls_peers.py [--quick] [--rounds 3] [--what burst] [--without apscheduler]

- *navi*: the scheduler and the service on their store; sessions that answer at once, so that what is measured is ours.
- *apscheduler*: ``AsyncIOScheduler`` on ``SQLAlchemyJobStore`` with a SQLite file in WAL mode; jobs that only note
  who they are and the time; ``misfire_grace_time=None``, since by default those that are late by a second are dropped.
- *floor*: a heap in memory; what is due goes into a table in batches of 500, one transaction each, in a thread.

Every figure is of a fresh process on a temporary file, the contestants one after the other in each round; medians over
the rounds. After each burst what fired is counted in the file: each slot once, or the run is void. *Lateness* is to the
moment at which the job or prompt is begun; with the floor and with navi it is durable by then, not with apscheduler.
*Adding* is of 10,000: navi through ``import`` (TOML, ten files of a thousand, a transaction each) and, as *one by one*,
through the service's ``create``, a hundred at a time; apscheduler one ``add_job`` each (it has no other way); the floor
in batches. *Peek* is a look when the next one is due; navi's goes through a thread, as all its reads. The last columns
are navi's share of the target in ``recalls.md`` (below 1 it is met), and of the floor.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import logging
import pickle
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import structlog

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.bench_recalls import Sessions, add_recalls, add_sessions, created_by_service  # noqa: E402
from tests.benchmarks.measuring import Figures, LoopLag, arguments  # noqa: E402

BATCH = 500
PENDING = 100_000
LONE = 100
Found = dict[str, float]
FIRED: list[tuple[int, datetime]] = []
"""What APScheduler's jobs noted; they are stored by the name of their function, so this cannot be a closure."""


def _now() -> datetime:
    return datetime.now(UTC)


# --- what is measured of each ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Bench:
    """A contestant on a file of its own. ``at``: when what was due began, in the order in which it did."""

    folder: Path
    at: list[datetime] = field(default_factory=list)

    async def add(self, count: int, due: datetime) -> float:
        """Have so many more fall due then; seconds. Before :meth:`begun` or after."""
        raise NotImplementedError

    def begun(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While it runs."""
        raise NotImplementedError

    async def peek(self) -> None:
        """Look when the next one is due."""
        raise NotImplementedError

    async def statement(self) -> Found:
        """The part of :meth:`peek` that a database does, by itself; nothing where that is all of it."""
        return {}

    def fired(self) -> Counter[Any]:
        """How often each slot has fired, as the file says; read when it is closed."""
        raise NotImplementedError


async def burst(bench: Bench, count: int, pending: int, rate: float) -> Found:
    """``count`` due at one instant beside ``pending`` others."""
    if pending:
        await bench.add(pending, _now() + timedelta(days=9))
    due = (_now() + timedelta(seconds=3 + count / rate)).replace(microsecond=0)
    added = await bench.add(count, due)
    assert _now() < due - timedelta(seconds=0.3), "too slow to have them all before they are due"
    async with bench.begun(), LoopLag() as lag:
        await asyncio.sleep(max(0.0, (due - _now()).total_seconds() - 0.2))
        lag.reset()
        while len(bench.at) < count:  # noqa: ASYNC110 - polled, so that nothing of ours runs in the measured path
            await asyncio.sleep(0.02)
        stall = lag.longest
    times = bench.fired()
    assert len(times) == count, f"{len(times)} of {count} slots have fired"
    assert set(times.values()) == {1}, "a slot has fired twice"
    late = sorted((one - due).total_seconds() for one in bench.at)
    assert late[0] >= 0, "one has fired early"
    return {
        "p50": statistics.median(late) * 1000,
        "p99": late[int(count * 0.99) - 1] * 1000,
        "max": late[-1] * 1000,
        "stall": stall * 1000,
        "rate": count / late[-1],
        "added": added,
    }


async def lone(bench: Bench) -> Found:
    """One after the other, each alone."""
    start = _now() + timedelta(seconds=1.5)
    dues = [start + timedelta(milliseconds=50 * number) for number in range(LONE)]
    async with bench.begun():
        for due in dues:
            await bench.add(1, due)
        while len(bench.at) < LONE:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    late = sorted((at - due).total_seconds() * 1000 for at, due in zip(bench.at, dues, strict=True))
    return {"p50": statistics.median(late), "p99": late[int(LONE * 0.99) - 1], "max": late[-1]}


async def idle(bench: Bench, count: int, seconds: float) -> Found:
    """``count`` pending, none due: the processor, memory, and a look at the next one."""
    process = psutil.Process()
    async with bench.begun():
        await asyncio.sleep(1)
        before = process.memory_info().rss
    bare = type(bench)(folder=bench.folder)
    await bench.add(count, _now() + timedelta(hours=9))
    async with bare.begun():
        await asyncio.sleep(1)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        looks = []
        for _ in range(200):
            began = time.perf_counter()
            await bare.peek()
            looks.append(time.perf_counter() - began)
        alone = await bare.statement()
        weight = process.memory_info().rss
    return alone | {
        "cpu": share * 100,
        "rss": weight / 2**20,
        "more": (weight - before) / 2**20,
        "peek": statistics.median(looks) * 1e6,
    }


# --- navi ------------------------------------------------------------------------------------------------------------


class Navi(Bench):
    """Ours."""

    @property
    def path(self) -> Path:
        return self.folder / "navi.db"

    async def add(self, count: int, due: datetime) -> float:
        from navi_jupyter.store.sqlite.store import SqliteStore

        store = getattr(self, "store", None)
        if store is not None:
            added = await add_recalls(store, await add_sessions(store, count), due)
            self.scheduler.wake()
            return added
        store = await SqliteStore.open(self.path)
        try:
            sessions = await add_sessions(store, min(count, 10_000))
            return await add_recalls(store, [sessions[number % len(sessions)] for number in range(count)], due)
        finally:
            await store.close()

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        from navi_jupyter.scheduling.scheduler import Scheduler
        from navi_jupyter.store.sqlite.store import SqliteStore

        self.store = await SqliteStore.open(self.path)
        submit = Sessions()
        self.at = submit.at
        try:
            async with Scheduler(self.store, submit, server_id="bench") as self.scheduler:
                yield
        finally:
            await self.store.close()
            del self.store

    async def peek(self) -> None:
        await self.store.next_wake()

    async def statement(self) -> Found:
        asked: list[str] = []
        fetch = self.store.fetch_one

        async def spied(sql: str, parameters: Any = ()) -> Any:
            asked.append(sql)
            return await fetch(sql, parameters)

        self.store.fetch_one = spied
        await self.store.next_wake()
        self.store.fetch_one = fetch
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            looks = []
            for _ in range(200):
                began = time.perf_counter()
                db.execute(asked[0]).fetchall()
                looks.append(time.perf_counter() - began)
        return {"statement": statistics.median(looks) * 1e6}

    def fired(self) -> Counter[Any]:
        with sqlite3.connect(self.path) as db:
            return Counter(db.execute("SELECT recall_id, slot FROM firings WHERE run_id IS NOT NULL").fetchall())


# --- APScheduler -----------------------------------------------------------------------------------------------------


def note(number: int) -> None:
    FIRED.append((number, datetime.now(UTC)))


class _Times(list[datetime]):
    """The times of FIRED."""

    def __len__(self) -> int:
        return len(FIRED)

    def __iter__(self) -> Any:
        return (at for _, at in FIRED)


class Apscheduler(Bench):
    """APScheduler 3.11."""

    def _made(self) -> Any:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler
        from sqlalchemy import create_engine, event

        self.engine = create_engine(f"sqlite:///{self.folder / 'jobs.db'}")

        @event.listens_for(self.engine, "connect")
        def _wal(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

        scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None})
        scheduler.add_jobstore("sqlalchemy", engine=self.engine)
        return scheduler

    async def add(self, count: int, due: datetime) -> float:
        running = getattr(self, "running", None)
        scheduler = running or self._made()
        if running is None:
            scheduler.start(paused=True)
        began, first = time.perf_counter(), getattr(self, "number", 0)
        self.number = first + count
        if count > 20_000:  # by its own way that takes minutes
            self._put(scheduler, range(first, self.number), due)
        else:
            for number in range(first, self.number):
                scheduler.add_job(note, "date", run_date=due, args=[number])
        added = time.perf_counter() - began
        if running is None:
            scheduler.shutdown(wait=False)
            await asyncio.sleep(0)
            self.engine.dispose()
        return added

    def _put(self, scheduler: Any, numbers: range, due: datetime) -> None:
        job = scheduler.add_job(note, "date", run_date=due, args=[numbers[0]])
        state = job.__getstate__()
        rows = [
            (f"j{number}", due.timestamp(), pickle.dumps(state | {"id": f"j{number}", "args": [number]}, 5))
            for number in numbers[1:]
        ]
        with sqlite3.connect(self.folder / "jobs.db") as db:
            db.executemany("INSERT INTO apscheduler_jobs VALUES (?, ?, ?)", rows)

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        FIRED.clear()
        self.at = _Times()
        self.running = self._made()
        self.running.start()
        try:
            yield
        finally:
            self.running.shutdown(wait=False)
            await asyncio.sleep(0.05)
            self.engine.dispose()
            del self.running

    async def peek(self) -> None:
        next(iter(self.running._jobstores.values())).get_next_run_time()

    def fired(self) -> Counter[Any]:
        return Counter(number for number, _ in FIRED)


# --- the floor -------------------------------------------------------------------------------------------------------


class Floor(Bench):
    """As little as it can be."""

    def _db(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / "floor.db", isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS waits (id INTEGER PRIMARY KEY, due INTEGER)")
        db.execute("CREATE TABLE IF NOT EXISTS fired (id INTEGER, due INTEGER, at INTEGER)")
        return db

    async def add(self, count: int, due: datetime) -> float:
        running = getattr(self, "heap", None)
        began, first = time.perf_counter(), getattr(self, "number", 0)
        self.number = first + count
        rows = [(int(due.timestamp() * 1e6), number) for number in range(first, self.number)]
        db = self._db()
        for low in range(0, count, BATCH):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO waits (due, id) VALUES (?, ?)", rows[low : low + BATCH])
            db.execute("COMMIT")
        db.close()
        if running is not None:
            for row in rows:
                heapq.heappush(running, row)
            self.wake.set()
        return time.perf_counter() - began

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        self.db, self.wake = self._db(), asyncio.Event()
        self.at = []
        self.heap = self.db.execute("SELECT due, id FROM waits").fetchall()
        heapq.heapify(self.heap)
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.db.close()
            del self.heap

    async def _run(self) -> None:
        while True:
            self.wake.clear()
            now = int(_now().timestamp() * 1e6)
            if not self.heap or self.heap[0][0] > now:
                delay = (self.heap[0][0] - now) / 1e6 if self.heap else None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), delay)
                continue
            batch: list[tuple[int, int]] = []
            while self.heap and len(batch) < BATCH and self.heap[0][0] <= now:
                batch.append(heapq.heappop(self.heap))
            await asyncio.to_thread(self._store, batch, now)
            self.at.extend(_now() for _ in batch)

    def _store(self, batch: list[tuple[int, int]], now: int) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO fired (due, id, at) VALUES (?, ?, ?)", [(*row, now) for row in batch])
        self.db.execute("COMMIT")

    async def peek(self) -> None:
        assert self.heap[0]

    def fired(self) -> Counter[Any]:
        with sqlite3.connect(self.folder / "floor.db") as db:
            return Counter(number for (number,) in db.execute("SELECT id FROM fired"))


CONTESTANTS: Mapping[str, tuple[type[Bench], float]] = {
    "floor": (Floor, 20_000),
    "navi": (Navi, 1_500),
    "apscheduler": (Apscheduler, 200),
}
"""And how many a second each can add at least, on a busy machine."""


async def added(bench: Bench) -> Found:
    """10,000."""
    later = _now() + timedelta(days=1)
    if not isinstance(bench, Navi):
        return {"batched": await bench.add(10_000, later)}
    return {"batched": await _imported(bench.path, 10_000), "each": await _created(bench.folder / "each.db", 10_000)}


async def _imported(path: Path, count: int) -> float:
    from navi_jupyter.scheduling.bulk import MAX_RECALLS
    from navi_jupyter.scheduling.service import RecallService
    from navi_jupyter.store.sqlite.store import SqliteStore

    store = await SqliteStore.open(path)
    try:
        (session,) = await add_sessions(store, 1)
        service = RecallService(store, max_recalls_per_user=10**9)
        entry = '[[recall]]\ntitle = "t {n}"\nmessage = "look"\n[recall.schedule]\nkind = "once"\nin = "10h"\n'
        texts = [
            "".join(entry.replace("{n}", str(number)) for number in range(low, low + MAX_RECALLS))
            for low in range(0, count, MAX_RECALLS)
        ]
        began = time.perf_counter()
        for text in texts:
            await service.bulk.take_in(text, owner="u", session_id=session)
        return time.perf_counter() - began
    finally:
        await store.close()


async def _created(path: Path, count: int) -> float:
    from navi_jupyter.store.sqlite.store import SqliteStore

    store = await SqliteStore.open(path)
    try:
        return await created_by_service(store, await add_sessions(store, count))
    finally:
        await store.close()


async def measure(name: str, what: str, count: int) -> Found:
    """One figure's worth, in this process."""
    made, rate = CONTESTANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        bench = made(folder=Path(folder))
        works: Mapping[str, Callable[[], Awaitable[Found]]] = {
            "burst": lambda: burst(bench, count, 0, rate),
            "beside": lambda: burst(bench, count, PENDING, rate),
            "lone": lambda: lone(bench),
            "idle": lambda: idle(bench, PENDING, float(count)),
            "added": lambda: added(bench),
        }
        return await works[what]()


# --- all of them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table."""

    label: str
    what: str
    count: int
    column: str
    target: float | None = None
    """In the same unit; of a rate the least, else the most."""
    beside: str | None = None
    """Of which other measurement this is to be the share."""


def rows(quick: bool) -> list[Row]:
    """What is printed."""
    sizes = (1000,) if quick else (1000, 10_000)
    targets = {(1000, "p99"): 60.0, (10_000, "p99"): 600.0}
    units = {"p50": "lateness p50, ms", "p99": "lateness p99, ms", "max": "lateness max, ms", "stall": "stall, ms"}
    out = [
        Row(
            label=f"{size:,} due: {units.get(column, column)}",
            what="burst",
            count=size,
            column=column,
            target=50.0 if column == "stall" else targets.get((size, column)),
        )
        for size in sizes
        for column in ("p50", "p99", "max", "stall")
    ]
    size = sizes[-1]
    out += [
        Row(label=f"{size:,} due: fires, 1/s", what="burst", count=size, column="rate", target=15_000),
        Row(label=f"{size:,} due, {PENDING:,} others: lateness p99, ms", what="beside", count=size, column="p99"),
        Row(
            label=f"{size:,} due, {PENDING:,} others / none: lateness p99, x",
            what="beside",
            count=size,
            column="p99",
            target=1.3,
            beside="burst",
        ),
        Row(label="lone: lateness p50, ms", what="lone", count=0, column="p50"),
        Row(label="lone: lateness p99, ms", what="lone", count=0, column="p99", target=25.0),
        Row(label="add 10,000 batched, s", what="added", count=0, column="batched", target=1.0),
        Row(label="add 10,000 one by one, s", what="added", count=0, column="each"),
    ]
    seconds = 8 if quick else 30
    out += [
        Row(label=f"idle, {PENDING:,} pending: processor, %", what="idle", count=seconds, column="cpu"),
        Row(label=f"idle, {PENDING:,} pending: resident, MB", what="idle", count=seconds, column="rss"),
        Row(label=f"idle, {PENDING:,} pending: memory for them, MB", what="idle", count=seconds, column="more"),
        Row(label=f"peek, {PENDING:,} pending, us", what="idle", count=seconds, column="peek"),
        Row(
            label=f"the statement of a peek, {PENDING:,} pending, us",
            what="idle",
            count=seconds,
            column="statement",
            target=50.0,
        ),
    ]
    return out


def child(name: str, what: str, count: int) -> Found:
    """In a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--one", name, what, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{name} {what} {count} failed:\n{done.stderr[-4000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def main(quick: bool, rounds: int, without: list[str], only: list[str]) -> Figures:
    """Measure, and print the table."""
    names = [name for name in CONTESTANTS if name not in without]
    table = [row for row in rows(quick) if not only or row.what in only]
    wanted = list(dict.fromkeys((row.what, row.count) for row in table))
    found: dict[tuple[str, str, int], list[Found]] = {}
    for number in range(rounds):
        for what, count in wanted:
            for name in names:
                print(f"round {number + 1}: {name} {what} {count or ''}", file=sys.stderr, flush=True)
                found.setdefault((name, what, count), []).append(child(name, what, count))

    def figure(name: str, row: Row) -> float | None:
        def median(what: str) -> float | None:
            runs = [one[row.column] for one in found[name, what, row.count] if row.column in one]
            return statistics.median(runs) if runs else None

        own = median(row.what)
        other = 1.0 if row.beside is None else median(row.beside)
        return None if own is None or other is None else own / other

    print(f"{'':44}" + "".join(f"{name:>13}" for name in names) + f"{'target':>10}{'of target':>11}{'of floor':>10}")
    for row in table:
        figures = {name: figure(name, row) for name in names}
        ours, floor = figures.get("navi"), figures.get("floor")
        cells = "".join(f"{_text(figures[name]):>13}" for name in names)
        share = None
        if ours and row.target:
            share = row.target / ours if row.column == "rate" else ours / row.target
        against = ours / floor if ours and floor else None
        print(f"{row.label:44}{cells}{_text(row.target):>10}{_text(share):>11}{_text(against):>10}")
    return as_figures(table, {(name, row): figure(name, row) for name in names for row in table})


def as_figures(table: list[Row], found: Mapping[tuple[str, Row], float | None]) -> Figures:
    """Each cell of the table by a name of its own, and APScheduler's share of ours or ours of its."""
    figures = Figures()
    for row in table:
        label, _, unit = row.label.rpartition(", ")
        values = {name: value for (name, one), value in found.items() if one is row and value is not None}
        for name, value in values.items():
            figures.add(f"{label}, {name}, {unit}", value)
        ours, theirs = values.get("navi"), values.get("apscheduler")
        if ours and theirs and row.column == "rate":
            figures.add(f"{label}, navi / apscheduler, x", ours / theirs)
        elif ours and theirs and row.column == "p99" and row.beside is None:
            figures.add(f"{label}, apscheduler / navi, x", theirs / ours)
    return figures


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--what", nargs="*", default=[], choices=["burst", "beside", "lone", "added", "idle"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=[], choices=list(CONTESTANTS))
    parser.add_argument("--one", nargs=3, metavar=("CONTESTANT", "WHAT", "COUNT"), help="one measurement, as JSON")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    if options.one:
        name, what, count = options.one
        print(json.dumps(asyncio.run(measure(name, what, int(count)))))
    else:
        found = main(options.quick, 1 if options.quick else options.rounds, options.without, options.what)
        found.write(options.json)
