"""Recalls under load: lateness of a burst, the longest stall of the event loop, the cost of adding, idle CPU.

    python tests/benchmarks/bench_recalls.py [--quick]

The store is the real one on a temporary file; the sessions answer at once, so that what is measured is ours. Every
figure is of one run in one process; the machine's noise is in it.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

sys.path.insert(0, str(Path(__file__).parents[2]))

from navi_jupyter.clock import now
from navi_jupyter.commands import Acceptance, Command
from navi_jupyter.model.base import new_id, ordered_id
from navi_jupyter.model.recalls import Once, Recall, RecallCreate
from navi_jupyter.model.sessions import Origin, Session
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import Figures, LoopLag, arguments, collect_as_a_server_does


class Sessions:
    """Accepts every prompt at once and remembers when."""

    def __init__(self) -> None:
        self.at: list[datetime] = []
        self.seen: set[str] = set()

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
        self.at.append(now())
        assert command.command_id is not None
        assert command.command_id not in self.seen, "delivered twice"
        self.seen.add(command.command_id)
        return Acceptance(command_id=command.command_id, seq=1, run_id="r_" + command.command_id[-24:])


async def add_sessions(store: SqliteStore, n: int) -> list[str]:
    sessions = [
        Session(id=new_id("s"), owner="u", title="t", profile="p", model="offline", created_at=now(), updated_at=now())
        for _ in range(n)
    ]

    async def unit(tx: Any) -> None:
        for session in sessions:
            await tx.add_session(session)

    await store.write(unit)
    return [session.id for session in sessions]


async def add_recalls(store: SqliteStore, sessions: list[str], at: datetime) -> float:
    """Through the transaction's own method, in batches of 500; seconds."""
    started = time.perf_counter()
    for low in range(0, len(sessions), 500):

        async def unit(tx: Any, batch: list[str] = sessions[low : low + 500]) -> None:
            recalls = [
                Recall(
                    id=ordered_id("rec"), session_id=session_id, title="t", message="look", schedule=Once(at=at),
                    policy={}, status="pending", next_at=at, created_at=now(),
                )
                for session_id in batch
            ]  # fmt: skip
            await tx.add_recalls([RecallState(recall=recall, owner="u", due_at=at) for recall in recalls])

        await store.write(unit)
    return time.perf_counter() - started


async def created_by_service(store: SqliteStore, sessions: list[str]) -> float:
    """Through the service, one durable transaction each, 100 at a time; seconds for all."""
    service = RecallService(store, max_recalls_per_user=10**9)
    gate = asyncio.Semaphore(100)

    async def one(session_id: str) -> None:
        request = RecallCreate.model_validate(
            {"session_id": session_id, "message": "look", "schedule": {"kind": "once", "in": "10h"}}
        )
        async with gate:
            await service.create(request, owner="u", zone="UTC")

    started = time.perf_counter()
    await asyncio.gather(*(one(session_id) for session_id in sessions))
    return time.perf_counter() - started


async def burst(figures: Figures, n: int, pending: int = 0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        try:
            sessions = await add_sessions(store, n)
            if pending:
                await add_recalls(store, [sessions[i % n] for i in range(pending)], now() + timedelta(days=9))
            submit = Sessions()
            due = now() + timedelta(seconds=3 + n / 2000)
            due = due.replace(microsecond=0)
            added = await add_recalls(store, sessions, due)
            async with Scheduler(store, submit, server_id="bench"), LoopLag() as lag:
                await asyncio.sleep(max(0.0, (due - now()).total_seconds() - 0.2))
                lag.reset()
                while len(submit.at) < n:  # noqa: ASYNC110 - polled, so that nothing of ours runs in the measured path
                    await asyncio.sleep(0.02)
                count = 0
                async with asyncio.timeout(60):
                    while count < n:
                        row = await store.fetch_one("SELECT count(*) AS n FROM firings WHERE status = 'running'")
                        count = row["n"] if row else 0
                        await asyncio.sleep(0.05)
                recorded = (now() - due).total_seconds()
        finally:
            await store.close()
    late = sorted((at - due).total_seconds() * 1000 for at in submit.at)
    name = f"{n:,} due" + (f" beside {pending:,}" if pending else "")
    figures.add(f"{name}: lateness, p50, ms", statistics.median(late))
    figures.add(f"{name}: lateness, p99, ms", late[int(len(late) * 0.99) - 1])
    figures.add(f"{name}: lateness, max, ms", late[-1])
    figures.add(f"{name}: fires, 1/s", 1000 * n / late[-1])
    figures.add(f"{name}: all recorded, ms", recorded * 1000)
    figures.add(f"{name}: longest stall, ms", lag.longest * 1000)
    figures.add(f"{name}: longest stall of CPU, ms", lag.longest_cpu * 1000)
    figures.add(f"{name}: CPU of the loop for each, us", lag.loop_cpu * 1e6 / n)
    figures.add(f"{name}: added in batches, s", added)


async def lone(figures: Figures, n: int = 20) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        try:
            sessions = await add_sessions(store, n)
            submit = Sessions()
            async with Scheduler(store, submit, server_id="bench") as scheduler:
                dues = [now() + timedelta(seconds=0.5 + 0.1 * i) for i in range(n)]
                for session_id, due in zip(sessions, dues, strict=True):
                    await add_recalls(store, [session_id], due)
                scheduler.wake()
                while len(submit.at) < n:  # noqa: ASYNC110 - polled, so that nothing of ours runs in the measured path
                    await asyncio.sleep(0.05)
        finally:
            await store.close()
    late = sorted((at - due).total_seconds() * 1000 for at, due in zip(submit.at, dues, strict=True))
    figures.add("lone recalls: lateness, p50, ms", statistics.median(late))
    figures.add("lone recalls: lateness, max, ms", late[-1])


async def idle(figures: Figures, n: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        try:
            sessions = await add_sessions(store, n)
            await add_recalls(store, sessions, now() + timedelta(hours=9))
            async with Scheduler(store, Sessions(), server_id="bench"):
                await asyncio.sleep(1)
                started, cpu = time.perf_counter(), time.process_time()
                await asyncio.sleep(seconds)
                share = (time.process_time() - cpu) / (time.perf_counter() - started)
                peek = time.perf_counter()
                for _ in range(100):
                    await store.next_wake()
                peek = (time.perf_counter() - peek) / 100
        finally:
            await store.close()
    figures.add(f"idle with {n:,} pending: CPU, %", share * 100)
    figures.add(f"idle with {n:,} pending: a peek, us", peek * 1e6)


async def service(figures: Figures, n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        try:
            sessions = await add_sessions(store, n)
            figures.add(f"{n:,} recalls added one by one, s", await created_by_service(store, sessions))
        finally:
            await store.close()


async def main(quick: bool) -> Figures:
    figures = Figures()
    collect_as_a_server_does()
    await lone(figures)
    await burst(figures, 1000)
    await service(figures, 1000)
    await burst(figures, 10_000)
    if not quick:
        await burst(figures, 1000, pending=100_000)
        await service(figures, 10_000)
        await idle(figures, 10_000, 10)
    return figures


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    options = arguments(__doc__).parse_args()
    asyncio.run(main(options.quick)).write(options.json)
