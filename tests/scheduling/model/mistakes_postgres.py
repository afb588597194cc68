"""Mistakes to be planted into what PostgreSQL needs and SQLite's one writer does by itself: locks, lost answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from navi_jupyter.events import Draft
from navi_jupyter.store.database import Unit
from navi_jupyter.store.postgres import writer
from navi_jupyter.store.postgres.writer import Writer
from navi_jupyter.store.sessions import LogRows
from tests.support.simulation import House, Patch

from .mistakes import Plant

ON_POSTGRES: dict[str, Plant] = {}


def mistake(plant: Plant) -> Plant:
    ON_POSTGRES[plant.__name__] = plant
    return plant


@mistake
def a_log_is_appended_to_without_its_lock(_house: House, patch: Patch) -> None:
    """Neither the session's, nor that of its row: the last number is read, and then raised."""
    insert, numbers = LogRows._insert, itertools.count()

    async def append(
        self: LogRows, session_id: str, drafts: Sequence[Draft], *, updated_at: datetime | None = None
    ) -> int:
        row = await self.one("SELECT head_seq FROM sessions WHERE id = ?", (session_id,))
        assert row is not None
        head = int(row["head_seq"]) + len(drafts)
        await self.change("UPDATE sessions SET head_seq = ? WHERE id = ?", (head, session_id))
        await insert(self, {session_id: drafts}, {session_id: head})
        return head

    async def append_all(self: LogRows, batches: Mapping[str, Sequence[Draft]]) -> None:
        for session_id, drafts in batches.items():
            await append(self, session_id, drafts)

    patch(LogRows, "append", append)
    patch(LogRows, "append_all", append_all)
    patch(writer, "_key_of", lambda _schema, _session_id: next(numbers))


@mistake
def whether_a_run_is_held_is_looked_at_without_a_lock(_house: House, patch: Patch) -> None:
    """Others may close it between the look and what it writes."""
    _without_lock(patch, "EventWriter._commit.")


@mistake
def two_servers_claim_firings_at_once(_house: House, patch: Patch) -> None:
    """The lock of transactions that write is what keeps them apart: what is claimed is chosen first, then changed."""
    _without_lock(patch, "Scheduler.plan_and_claim.")


def _without_lock(patch: Patch, units: str) -> None:
    """Those units, by their name, take no turn with other transactions that write."""
    begin = Writer._begin

    async def at_once(self: Writer, name: str, given: Sequence[Unit[Any]]) -> None:
        if not all(unit.work.__qualname__.startswith(units) for unit in given):
            await begin(self, name, given)
            return
        await self._connection.execute(writer._BEGIN)
        await self._connection.execute("UPDATE writers SET last = $2 WHERE name = $1", self._name, name)

    patch(Writer, "_begin", at_once)


@mistake
def a_commit_that_was_not_answered_counts_as_none(_house: House, patch: Patch) -> None:
    """What it has stored is offered once more."""

    async def never(_self: Writer, _sent: Any) -> bool:
        return False

    patch(Writer, "_counts", never)
