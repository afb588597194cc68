"""What a server does by itself, and what it does for who opens a long session: compaction, wake-ups, opening.

    python tests/benchmarks/bench_upkeep.py [--quick] [--only compaction wake-ups opening]

- *compaction*: a session of 5,000 runs with 22 events each (``--quick``: 1,000); CPU of the process, and how long a
  writer waits that commits beside it every 5 ms;
- *wake-ups*: turns of the loop of a real Jupyter server for which it was waiting, per second: a bare server, one with
  Navi that is idle, with one follower, and with one follower beside a second server on the same database;
- *opening*: a session of 10,000 messages (``--quick``: 4,000): bytes of its first frame, CPU of the process for one
  follower that opens it, and for ten that open it at once, in turns.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.clock import now
from navi_jupyter.model.sessions import USER, Session
from navi_jupyter.orchestrator.event_log import EventLog
from navi_jupyter.orchestrator.upkeep.compaction import compact
from navi_jupyter.ports.agent import Message
from navi_jupyter.store.rows import dump_messages
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import ROOT, Figures, arguments, percentile
from tests.support.server import JupyterServer

SESSION = "s_1"
SECOND = 1_000_000
_BEGAN = 1_700_000_000 * SECOND
_EXTENSION = "tests.benchmarks.bench_upkeep"


# --- a database


async def database(path: Path, runs: int, words: int) -> None:
    """A session of finished runs, each with a prompt and two answers of ``words`` pieces that alternate."""
    store = await SqliteStore.open(path)
    at = now()
    session = Session(id=SESSION, owner="local", title="t", profile="p", model="m", created_at=at, updated_at=at)
    await store.write(lambda tx: tx.add_session(session))
    await store.close()
    with closing(sqlite3.connect(path)) as db, db:
        seq = 0
        for number in range(runs):
            seq = _add_run(db, number, seq, words)


def _add_run(db: sqlite3.Connection, number: int, seq: int, words: int) -> int:
    run, at = f"r_{number:06d}", _BEGAN + number * 60 * SECOND
    messages = [(f"m{index}{run}", role) for index, role in enumerate(("user", "assistant", "assistant"))]
    events: list[dict[str, Any]] = [{"type": "RUN_STARTED", "threadId": SESSION, "runId": run}]
    events += [{"type": "TEXT_MESSAGE_START", "messageId": name, "role": role} for name, role in messages]
    text = "a few words of an answer that is streamed "
    events += [
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": name, "delta": text}
        for _ in range(words)
        for name, _ in messages[1:]
    ]
    events += [{"type": "TEXT_MESSAGE_END", "messageId": name} for name, _ in messages]
    end = {"type": "RUN_FINISHED", "threadId": SESSION, "runId": run, "outcome": {"type": "success"}}
    origin = {"kind": "user", "recall_id": None}
    said = [
        Message(id=name, role=role, content=text * 8, run_id=run, origin=USER, at="2026-01-01T00:00:00Z")
        for name, role in messages[:2]
    ]
    db.execute(
        "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
        " created_at, started_at, conversation, transcript, indexed)"
        " VALUES (?, ?, ?, 'running', 'user', 'local', 'm', 'go', ?, ?, ?, ?, ?, 1)",
        (run, SESSION, f"c_{run}", seq + 1, at, at, b"x" * 2_000, dump_messages(said)),
    )
    for group in (events, [end]):
        rows = []
        for event in group:
            seq += 1
            frame = {"seq": seq, "session_id": SESSION, "run_id": run, "ts": "", "origin": origin, "event": event}
            rows.append((SESSION, seq, run, json.dumps(frame, separators=(",", ":"))))
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
        db.execute("UPDATE sessions SET head_seq = ? WHERE id = ?", (seq, SESSION))
        if group is events:
            db.execute("UPDATE runs SET status = 'completed', ended_at = ? WHERE id = ?", (at + SECOND, run))
    return seq


# --- compaction


async def compaction(figures: Figures, folder: Path, runs: int) -> None:
    path = folder / "compaction.db"
    await database(path, runs, 6)
    store = await SqliteStore.open(path)
    waits: list[float] = []

    async def write_beside() -> None:
        while True:
            began = time.perf_counter()
            await store.write(lambda tx: tx.session(SESSION))
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)

    # Half of the runs alone, for the CPU; the other half beside a writer.
    half = _BEGAN + runs // 2 * 60 * SECOND
    before = time.process_time()
    await compact(store, older_than=timedelta(microseconds=time.time_ns() // 1000 - half))
    figures.add(f"compaction of {runs} runs, CPU, s", 2 * (time.process_time() - before))
    beside = asyncio.create_task(write_beside())
    await compact(store, older_than=timedelta(0))
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    await store.close()
    figures.add("compaction: a writer beside it waits, p99, ms", percentile(waits, 0.99) * 1e3)
    figures.add("compaction: a writer beside it waits at most, ms", max(waits) * 1e3)


# --- wake-ups


class Turns(RequestHandler):
    """How many turns of the loop there were for which it was waiting."""

    def get(self) -> None:
        self.write(json.dumps(self.application.settings["turns"]))


def _load_jupyter_server_extension(app: Any) -> None:
    turns = app.web_app.settings["turns"] = [0]
    app.web_app.add_handlers(".*", [(f"{app.base_url}turns", Turns)])

    def begin() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            turns[0] += timeout is None or timeout > 0
            return select(timeout)

        selector.select = counted

    app.io_loop.add_callback(begin)


@contextmanager
def server(home: Path, *, navi: bool = True, database: Path | None = None) -> Iterator[JupyterServer]:
    """A Jupyter server that counts the turns of its loop."""
    env = {"PYTHONPATH": str(ROOT)}
    if database is not None:
        env["NAVI_DATABASE_URL"] = f"sqlite:///{database}"
    extensions = f"--ServerApp.jpserver_extensions={{'navi_jupyter': {navi}, '{_EXTENSION}': True}}"
    jupyter = JupyterServer(home, env=env).start(args=[extensions], wait=navi)
    try:
        if not navi:
            while True:
                try:
                    jupyter.get("api/status")
                    break
                except OSError:
                    time.sleep(0.2)
        yield jupyter
    finally:
        jupyter.stop()


def per_second(jupyter: JupyterServer, seconds: float) -> float:
    """Of several stretches the median: what a server does once in a minute is not what it does all the time."""
    rates = []
    for _ in range(3):
        first, began = jupyter.get("turns")[0], time.perf_counter()
        time.sleep(seconds / 3)
        rates.append((jupyter.get("turns")[0] - first) / (time.perf_counter() - began))
    return statistics.median(rates)


def wake_ups(figures: Figures, folder: Path, seconds: float) -> None:
    import websockets.sync.client  # a client of its own, in this thread

    shared = folder / "shared.db"
    with server(folder / "bare", navi=False) as bare:
        time.sleep(3)
        nothing = per_second(bare, seconds)
    figures.add("wake-ups of a bare server, with those of being asked, 1/s", nothing)
    with server(folder / "first", database=shared) as first:
        time.sleep(12)  # what begins some seconds after the start
        figures.add("wake-ups while idle, 1/s", per_second(first, seconds) - nothing)
        session = first.request("POST", "navi/api/sessions", {"title": "t"})["id"]
        address = f"ws://127.0.0.1:{first.port}/navi/api/sessions/{session}/ws"
        headers = {"Authorization": f"token {first.token}"}
        with websockets.sync.client.connect(address, additional_headers=headers) as follower:
            follower.recv()
            time.sleep(1)
            figures.add("wake-ups with one follower, 1/s", per_second(first, seconds) - nothing)
            with server(folder / "second", database=shared):
                time.sleep(5)
                figures.add(
                    "wake-ups with one follower beside a second server, 1/s", per_second(first, seconds) - nothing
                )


# --- opening


async def opening(figures: Figures, folder: Path, messages: int, rounds: int) -> None:
    path = folder / "opening.db"
    await database(path, messages // 2, 1)
    store = await SqliteStore.open(path)
    log = EventLog(store, ring_events=10_000)
    size = 0

    async def open_it() -> None:
        nonlocal size
        async with aclosing(log.follow(SESSION, after=None)) as pages:
            size = len((await anext(pages)).text)

    took: dict[int, list[float]] = {1: [], 10: []}
    for _ in range(rounds + 1):
        for count, found in took.items():
            before = time.process_time()
            await asyncio.gather(*(open_it() for _ in range(count)))
            found.append(time.process_time() - before)
    await store.close()
    figures.add(f"opening {messages} messages: the first frame, KB", size / 1000)
    figures.add(f"opening {messages} messages: CPU, ms", statistics.median(took[1][1:]) * 1e3)
    figures.add(
        f"opening {messages} messages: ten at once / one, CPU, ratio",
        statistics.median(ten / one for one, ten in zip(took[1][1:], took[10][1:], strict=True)),
    )


def main() -> None:
    parser = arguments(__doc__)
    names = ("compaction", "wake-ups", "opening")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        if "compaction" in options.only:
            asyncio.run(compaction(figures, Path(folder), 1_000 if options.quick else 5_000))
        if "wake-ups" in options.only:
            wake_ups(figures, Path(folder), 6 if options.quick else 15)
        if "opening" in options.only:
            asyncio.run(opening(figures, Path(folder), 4_000 if options.quick else 10_000, 5 if options.quick else 15))
    figures.write(options.json)


if __name__ == "__main__":
    main()
