"""SQL that reads the ledger for people: what ran, what did not, of whom somebody is still to be told.

Not responsible for the scheduler's own questions: these are in ``recalls``.
"""

from __future__ import annotations

import json
import sqlite3
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from ..model.recalls import Firing
from ..ports.agent import Unrun
from ..ports.recalls import Claimed, RecallState, Seen
from .connection import Readers, Statements
from .recall_rows import FIRING_COLUMNS, FIRING_NAMES, RECALL_COLUMNS, firing_state_of, recall_state_of
from .rows import from_micros, optional_instant, optional_micros, to_micros

T = TypeVar("T")
_IN = "IN (SELECT value FROM json_each(?))"
_UNRUN = "('skipped', 'missed', 'coalesced', 'expired')"
_TOLD_LATER = (
    "delivery = 'pending' AND (lease_until IS NULL OR lease_until <= ?)"
    # Those with notices that wait are nobody's business before these are over.
    " AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.firing_id = firings.id AND n.status = 'pending')"
)

SEEN = (
    "SELECT (SELECT created_at FROM runs WHERE session_id = ? AND origin_kind = 'user'"
    "  ORDER BY number DESC LIMIT 1) AS wrote_at,"
    " (SELECT at FROM reads WHERE session_id = ? AND user_id = ?) AS read_at"
)


class LedgerReads(Readers):
    """See the module. Implements part of :class:`navi_jupyter.ports.recalls.RecallStore`."""

    @abstractmethod
    async def write(self, unit: Callable[[Statements], Awaitable[T]], *, durable: bool = False) -> T:
        """The store's, in whose class this one is mixed."""

    async def when_recalls(self) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f'SELECT {RECALL_COLUMNS} FROM recalls WHERE substr(schedule, 1, 14) = \'{{"kind":"when"\''
            " AND status IN ('pending', 'running') ORDER BY number"
        )
        return [recall_state_of(row) for row in rows]

    async def last_firings(self, recall_ids: Iterable[str]) -> dict[str, Firing]:
        columns = ", ".join(f"f.{name}" for name in FIRING_NAMES)
        rows = await self.fetch_all(
            f"SELECT {columns} FROM json_each(?) r JOIN firings f ON f.number = (SELECT number FROM firings"
            " WHERE recall_id = r.value ORDER BY slot DESC, number DESC LIMIT 1)",
            (json.dumps(list(recall_ids)),),
        )
        return {row["recall_id"]: firing_state_of(row).firing for row in rows}

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int) -> Sequence[Unrun]:
        columns = ", ".join(f"f.{name}" for name in FIRING_NAMES)
        rows = await self.fetch_all(
            f"SELECT {columns}, r.title FROM recalls r JOIN firings f ON f.recall_id = r.id"
            f" WHERE r.session_id = ? AND f.slot >= ? AND f.status IN {_UNRUN}"
            " ORDER BY f.slot DESC, f.number DESC LIMIT ?",
            (session_id, optional_micros(since) or 0, limit),
        )
        found = [
            Unrun(firing=firing_state_of([row[name] for name in FIRING_NAMES]).firing, title=row["title"])
            for row in rows
        ]
        return found[::-1]

    async def seen(self, session_id: str, owner: str) -> Seen:
        return seen_of(await self.fetch_one(SEEN, (session_id, session_id, owner)))

    async def ends_with_user(self, session_id: str) -> bool:
        row = await self.fetch_one(
            "SELECT 1 FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            " AND status IN ('pending', 'running', 'paused') LIMIT 1",
            (session_id,),
        )
        return row is not None

    async def old_firings(self, before: datetime, *, keep: int, limit: int) -> Mapping[str, datetime]:
        rows = await self.fetch_all(
            "SELECT id, (SELECT slot FROM firings WHERE recall_id = o.id ORDER BY slot DESC LIMIT 1 OFFSET ?) AS edge"
            " FROM (SELECT id FROM recalls WHERE EXISTS"
            "  (SELECT 1 FROM firings WHERE recall_id = recalls.id AND slot < ?)) o WHERE edge IS NOT NULL LIMIT ?",
            (keep - 1, to_micros(before), limit),
        )
        return {row["id"]: from_micros(row["edge"]) for row in rows}

    # --- telling people

    async def deliveries_pending(self, limit: int) -> Sequence[Claimed]:
        async with self.reading() as view:
            rows = await view.all(
                f"SELECT {FIRING_COLUMNS} FROM firings WHERE delivery = 'pending' ORDER BY number LIMIT ?", (limit,)
            )
            return await _with_recalls(view, rows)

    async def take_deliveries(self, *, now: datetime, until: datetime, limit: int) -> Sequence[Claimed]:
        async def unit(tx: Statements) -> Sequence[Claimed]:
            rows = await tx.all(
                f"UPDATE firings SET lease_until = ? WHERE number IN (SELECT number FROM firings WHERE {_TOLD_LATER}"
                f" ORDER BY number LIMIT ?) RETURNING {FIRING_COLUMNS}",
                (to_micros(until), to_micros(now), limit),
            )
            return await _with_recalls(tx, rows)

        return await self.write(unit)

    async def delivered(self, firing_id: str, error: str | None = None) -> None:
        async def unit(tx: Statements) -> None:
            await tx.change(
                "UPDATE firings SET delivery = ?, delivery_error = ?, lease_until = NULL"
                " WHERE id = ? AND delivery = 'pending'",
                ("delivered" if error is None else "failed", error, firing_id),
            )

        await self.write(unit, durable=True)


def seen_of(row: sqlite3.Row | None) -> Seen:
    """The row of ``SEEN``."""
    if row is None:
        return Seen()
    return Seen(wrote_at=optional_instant(row["wrote_at"]), read_at=optional_instant(row["read_at"]))


async def _with_recalls(view: Statements, rows: Sequence[sqlite3.Row]) -> Sequence[Claimed]:
    """Each firing with its recall, the oldest first."""
    recalls = await view.all(
        f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {_IN}", (json.dumps([row["recall_id"] for row in rows]),)
    )
    states = {row["id"]: recall_state_of(row) for row in recalls}
    found = [Claimed(firing=firing_state_of(row), recall=states[row["recall_id"]]) for row in rows]
    return sorted(found, key=lambda claim: claim.firing.firing.slot)
