"""``recalls/overview``: what it costs with many recalls and a long ledger.

    python tests/benchmarks/bench_overview.py [--recalls 10000] [--firings 100000]

Prints milliseconds of the store's reading, of working out the coming two weeks, and how long the event loop stood
still at most meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[2]))

from navi_jupyter.model.base import new_id
from navi_jupyter.model.recalls import Cron, Every, Once, Policy, Recall, RecallStatus
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.server.rest.overview import calendar, midnights
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import Figures, LoopLag, arguments
from tests.support.scheduler_world import OWNER, TestClock, World

NOW = datetime.now(UTC)
ZONE = ZoneInfo("Europe/Berlin")


def state(number: int, session: str) -> RecallState:
    schedule: Any = (
        Cron(expr=f"{number % 60} {number % 24} * * *", tz="Europe/Berlin"),
        Every(every=timedelta(hours=1 + number % 50), start=NOW),
        Once(at=NOW + timedelta(minutes=number)),
    )[number % 3]
    at = NOW + timedelta(seconds=30 + number)
    recall = Recall(
        id=new_id("rec"), session_id=session, title=f"recall {number}", message="m", schedule=schedule, policy=Policy(),
        status=RecallStatus.PENDING, next_at=at, created_at=NOW,
    )  # fmt: skip
    return RecallState(recall=recall, owner=OWNER, due_at=at)


async def fill(store: SqliteStore, recalls: int, firings: int) -> None:
    session = await World(store, TestClock()).add_session()
    states = [state(number, session) for number in range(recalls)]
    await store.write(lambda tx: tx.add_recalls(states))
    step = timedelta(days=7) / firings

    async def ledger(tx: Any) -> None:
        rows = []
        for number in range(firings):
            at = int((NOW - step * number).timestamp() * 1e6)
            recall = states[number % recalls].recall.id
            rows.append((f"f_{number}", recall, session, at, "auto", "succeeded", f"c_{number}", at, at, at))
        await tx.change_many(
            "INSERT INTO firings (id, recall_id, session_id, slot, kind, status, command_id, not_before, started_at,"
            " ended_at) VALUES {rows}",
            rows,
        )

    await store.write(ledger)


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recalls", type=int, default=10_000)
    parser.add_argument("--firings", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        await fill(store, given.recalls, given.firings)
        figures = Figures()
        async with LoopLag() as lag:
            today = NOW.astimezone(ZONE).date()
            for name, back, coming, waiting in (
                ("brief", 1, 1, 0),
                ("whole", 7, 501, 100),
                ("whole again", 7, 501, 100),
            ):
                lag.reset()
                started = time.perf_counter()
                days = list(pairwise(midnights(ZONE, today - timedelta(days=back - 1), back)))[::-1]
                rows = await store.recall_overview(
                    OWNER, now=NOW, days=days, coming=coming, waiting=waiting, per_day=50
                )
                read = time.perf_counter() - started
                await asyncio.to_thread(calendar, rows.coming[: coming - 1], NOW, ZONE)
                whole = time.perf_counter() - started
                figures.add(f"overview, {name}: read by the store, ms", read * 1000)
                figures.add(f"overview, {name}: all, ms", whole * 1000)
                figures.add(f"overview, {name}: longest lag of the loop, ms", lag.longest * 1000)
        await store.close()
        figures.write(given.json)


if __name__ == "__main__":
    asyncio.run(main())
