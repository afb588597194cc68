"""The audit finds what should not be, each kind by itself, and nothing else (the model asks it after every history)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.store.rows import to_micros
from tests.support.database import on_sqlite
from tests.support.scheduler_world import World, world

LONG = timedelta(minutes=5)


async def _sql(w: World, sql: str, *parameters: Any) -> None:
    assert await w.store.write(lambda tx: tx.change(sql, parameters)) == 1


async def _slot_that_nobody_planned(w: World) -> None:
    w.clock.advance(timedelta(hours=2))


async def _run_that_is_over(w: World) -> None:
    run = await w.active_run(await _running(w))
    assert run is not None
    await w.sessions.end(run.id, RunStatus.COMPLETED)  # nobody is told
    w.clock.advance(LONG)


async def _run_that_is_gone(w: World) -> None:
    await _running(w)
    await _sql(w, "DELETE FROM runs")


async def _claim_that_nobody_ended(w: World) -> None:
    session = await w.add_session()
    await w.recall(session, {"kind": "once", "in": "1s"})
    w.clock.advance(timedelta(seconds=1))
    await w.scheduler("gone").plan_and_claim(w.clock.now())
    w.clock.advance(LONG)


async def _recall_without_an_aim(w: World) -> None:
    session = await w.add_session()
    recall = await w.recall(session, {"kind": "once", "in": "3h"})
    await _sql(w, "UPDATE recalls SET due_at = NULL WHERE id = ?", recall.id)


async def _running(w: World) -> str:
    session = await w.add_session()
    await w.recall(session, {"kind": "once", "in": "1s"})
    w.clock.advance(timedelta(seconds=1))
    assert await w.step(w.scheduler()) == 1
    return session


@pytest.mark.parametrize(
    ("seed", "found"),
    [
        (_slot_that_nobody_planned, {"overdue": 1}),
        (_run_that_is_over, {"stuck": 1}),
        (_run_that_is_gone, {"stuck": 1}),
        (_claim_that_nobody_ended, {"orphans": 1}),
        (_recall_without_an_aim, {"aimless": 1}),
    ],
)
async def test_the_audit_finds_a_planted_fault_and_only_that(tmp_path: Path, seed: Any, found: dict[str, int]) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1h"})
        paused = await w.recall(session, {"kind": "every", "every": "10s"})
        await w.service.pause(paused.id, owner="ada")
        clean = await w.store.audit_recalls(w.clock.now())
        assert (clean.overdue, clean.stuck, clean.orphans, clean.aimless) == (0, 0, 0, 0)
        await seed(w)
        audit = await w.store.audit_recalls(w.clock.now())
        expected = dict.fromkeys(("overdue", "stuck", "orphans", "aimless"), 0) | found
        assert {name: getattr(audit, name) for name in expected} == expected


async def test_the_sweep_mends_what_the_audit_finds_after_a_death(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await _claim_that_nobody_ended(w)
        assert (await w.store.audit_recalls(w.clock.now())).orphans == 1
        scheduler = w.scheduler("next")
        assert await scheduler.sweep() == 1
        assert (await w.store.audit_recalls(w.clock.now())).orphans == 0
        assert await w.step(scheduler) == 1


@on_sqlite
async def test_what_is_due_next_is_read_from_an_index_however_many_recalls_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for sql in (
            "SELECT min(due_at) FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')",
            (
                "SELECT id FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
                f" AND due_at <= {to_micros(w.clock.now())} ORDER BY due_at LIMIT 5"
            ),
        ):
            plan = await w.store.fetch_all(f"EXPLAIN QUERY PLAN {sql}")
            assert any("recalls_due" in row["detail"] for row in plan), [tuple(row) for row in plan]
