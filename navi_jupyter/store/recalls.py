"""SQL for recalls: what a transaction does (``RecallRows``) and what is read (``RecallReads``).

Not responsible for what the transitions mean: that is ``scheduling.decisions``; nor for the ledger (``firings``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..model.recalls import Recall
from ..model.sessions import Run
from ..ports.recall_overview import OpenRecall, OverviewEntry, OverviewRows
from ..ports.recalls import Absence, FiringState, RecallAudit, RecallState, Seen
from .firings import (
    CLAIMED,
    IN,
    LAST,
    OPEN_FIRING,
    STARTABLE,
    TO_STOP,
    UNRUN,
    FiringReads,
    FiringRows,
    decoded,
    number_of,
    updates,
)
from .rows import (
    FIRING_NAMES,
    PROGRESS_COLUMNS,
    RECALL_COLUMNS,
    WithRows,
    advanced_values,
    firing_state_of,
    from_micros,
    job_text,
    leave_and_reason,
    new_firing_values,
    optional_instant,
    progress,
    recall_of,
    recall_state_of,
    recall_values,
    rows_of,
    run_of,
    schedule_and_policy,
    to_micros,
)
from .statements import Row, Statements, json_list

_OPEN_RECALL = "('pending', 'running', 'paused')"
_OVERDUE = timedelta(seconds=60)
_WHEN = """'{"kind":"when"'"""
_WHENS = f"SELECT {RECALL_COLUMNS} FROM recalls WHERE substr(schedule, 1, 14) = {_WHEN} AND status IN"
"""How the stored schedules begin that wait for an event, as a literal: for the partial index."""
_SEEN = (
    "SELECT (SELECT created_at FROM runs WHERE session_id = ? AND origin_kind = 'user'"
    "  ORDER BY number DESC LIMIT 1) AS wrote_at,"
    " (SELECT at FROM reads WHERE session_id = ? AND user_id = ?) AS read_at"
)

# The version guards both: a plan, or a form, that was made from an older state changes nothing.
_ADVANCE_RECALLS = (
    f"UPDATE recalls SET {updates(PROGRESS_COLUMNS)}, version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column8 AND recalls.version = v.column9"
)
_CHANGED = ("title", "message", "schedule", "policy", "origin", "allow", "reason", "run")
_SAVE_RECALLS = (
    f"UPDATE recalls SET {updates((*PROGRESS_COLUMNS, *_CHANGED))},"
    " version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column16 AND recalls.version = v.column17"
)

_NOTE_ABSENCES = (
    "INSERT INTO absences (session_id, since, late, missed) SELECT s.id,"
    + ",".join(f" CAST(json_extract(w.value, '$[{place}]') AS BIGINT)" for place in (1, 2, 3))
    + " FROM json_each(?) w JOIN sessions s ON s.id = json_extract(w.value, '$[0]') WHERE s.deleted_at IS NULL"
    " ON CONFLICT (session_id) DO UPDATE SET since = min(absences.since, excluded.since),"
    " late = absences.late + excluded.late, missed = absences.missed + excluded.missed"
)

# CROSS JOIN keeps the order: without statistics SQLite would go through all recalls of the owner, over or not.
_BESIDE = (
    "r.title, s.title AS session_title, d.at AS read_at, runs.status AS run_status"
    " FROM {firings} CROSS JOIN recalls r ON r.id = f.recall_id"
    " LEFT JOIN sessions s ON s.id = f.session_id AND s.deleted_at IS NULL"
    " LEFT JOIN reads d ON d.session_id = f.session_id AND d.user_id = r.owner LEFT JOIN runs ON runs.id = f.run_id"
)
ENDED_ON = (
    "SELECT f.*, g.ran, g.failed, g.missed, "
    + _BESIDE.format(
        firings="(SELECT max(last) AS number, max(ended_at) AS at,"
        " count(*) FILTER (WHERE status = 'succeeded') AS ran, count(*) FILTER (WHERE status = 'failed') AS failed,"
        f" count(*) FILTER (WHERE status IN {UNRUN} AND status <> 'coalesced') AS missed"
        " FROM (SELECT e.recall_id, e.status, e.ended_at,"
        "  first_value(e.number) OVER (PARTITION BY e.recall_id ORDER BY e.ended_at DESC, e.number DESC) AS last"
        "  FROM firings e CROSS JOIN recalls o ON o.id = e.recall_id"
        "  WHERE e.ended_at >= ? AND e.ended_at < ? AND o.owner = ?"
        "  AND e.status <> 'coalesced' AND (e.status <> 'cancelled' OR e.run_id IS NOT NULL)"
        "  ORDER BY e.ended_at DESC LIMIT 10000) AS ended"
        " GROUP BY recall_id ORDER BY at DESC LIMIT ?) g CROSS JOIN firings f ON f.number = g.number"
    )
    + " ORDER BY g.at DESC"
)
"""Of each recall that had a firing end on a day: the last one. One that was cancelled counts where it ran, and was
stopped."""
ACTIVE = (
    "SELECT f.*, 0 AS ran, 0 AS failed, 0 AS missed, "
    + _BESIDE.format(
        firings="(SELECT number FROM firings WHERE status IN ('claimed', 'running')"
        " UNION ALL SELECT number FROM firings WHERE status = 'pending' AND slot <= ?) g"
        " CROSS JOIN firings f ON f.number = g.number"
    )
    + " WHERE r.owner = ? ORDER BY f.slot, f.number LIMIT ?"
)
_WITH_SESSION = "SELECT r.*, s.title AS session_title FROM recalls r LEFT JOIN sessions s ON s.id = r.session_id"
COMING = (  # By the index of what is due; the || '' keeps SQLite from sorting all of the owner's.
    f"{_WITH_SESSION} WHERE r.owner || '' = ? AND r.due_at IS NOT NULL AND r.status IN ('pending', 'running')"
    " ORDER BY r.due_at LIMIT ?"
)
WAITING = (
    f"{_WITH_SESSION} WHERE r.owner = ? AND r.status IN {_OPEN_RECALL}"
    " AND (r.due_at IS NULL OR r.status = 'paused') ORDER BY r.number DESC LIMIT ?"
)


class RecallRows(FiringRows):
    """Recalls in a transaction. Implements :class:`navi_jupyter.ports.recalls.RecallTx`."""

    async def add_recalls(self, states: Iterable[RecallState]) -> None:
        text = f"INSERT INTO recalls ({RECALL_COLUMNS}) VALUES {{rows}}"
        await self.change_many(text, list(map(recall_values, states)))

    async def room_for_recalls(self, owner: str, session_ids: Sequence[str]) -> tuple[int, Collection[str]]:
        rows = await self.all(
            f"SELECT (SELECT count(*) FROM recalls WHERE owner = ?1 AND status IN {_OPEN_RECALL}) AS open,"
            " (SELECT json_group_array(id) FROM sessions WHERE owner = ?1 AND deleted_at IS NULL"
            "  AND id IN (SELECT value FROM json_each(?2))) AS sessions",
            (owner, json_list(session_ids)),
        )
        return int(rows[0]["open"]), json.loads(rows[0]["sessions"])

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        rows = await self.all(f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {IN}", (json_list(recall_ids),))
        return {state.recall.id: state for state in await decoded(rows, recall_state_of)}

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        rows = await self.all(f"SELECT id, version FROM recalls WHERE id {IN}", (json_list(recall_ids),))
        return {row["id"]: row["version"] for row in rows}

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        rows = [
            (
                *progress(s), s.recall.title, s.recall.message, *schedule_and_policy(s.recall), f"{s.recall.origin}",
                *leave_and_reason(s.recall), job_text(s.recall), s.recall.id, s.version,
            )
            for s in states
        ]  # fmt: skip
        return await self.change_many(_SAVE_RECALLS, rows)

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        return await self.change_many(_ADVANCE_RECALLS, rows_of(states, advanced_values))

    async def open_recalls_of(self, owner: str, *, session_id: str | None = None) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}"
            " AND (CAST(? AS TEXT) IS NULL OR session_id = ?) ORDER BY number",
            (owner, session_id, session_id),
        )
        return await decoded(rows, recall_state_of)

    async def ending_with(self, session_id: str) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            f" AND status IN {_OPEN_RECALL}",
            (session_id,),
        )
        return [recall_state_of(row) for row in rows]

    async def unfinished_in(self, session_id: str) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE session_id = ? AND (status IN {_OPEN_RECALL} OR EXISTS"
            f" (SELECT 1 FROM firings f WHERE f.recall_id = recalls.id AND f.status IN {OPEN_FIRING}))",
            (session_id,),
        )
        return await decoded(rows, recall_state_of)

    async def may_deliver(self, command_id: str, *, server_id: str) -> bool:
        row = await self.one(
            "SELECT f.kind, f.recall_id, f.status = 'claimed' AND f.lease_owner = ? AS held, r.status AS recall,"
            " instr(r.policy, '\"cancel_on\"') > 0 AS ends_with_user"
            " FROM firings f JOIN recalls r ON r.id = f.recall_id WHERE f.command_id = ?",
            (server_id, command_id),
        )
        if row is None:  # a person's prompt, or a recall's of a firing that is pruned
            return True
        if not row["held"] or row["kind"] == "manual":
            return bool(row["held"])
        if row["recall"] == "paused":
            return False
        if not row["ends_with_user"]:
            return True
        # The rule itself is not SQL: it is decided in one place, for this transaction as for all others.
        state = (await self.recall_states([row["recall_id"]]))[row["recall_id"]]
        session_id = state.recall.session_id
        return _seen_of(await self.one(_SEEN, (session_id, session_id, state.owner))).ends(state.recall) is None

    async def note_absences(self, found: Mapping[str, Absence]) -> None:
        values = [(session_id, to_micros(each.since), each.late, each.missed) for session_id, each in found.items()]
        await self.change(_NOTE_ABSENCES, (json.dumps(values),))

    async def take_absences(self) -> dict[str, Absence]:
        served = self.served.of_session("absences.session_id")
        rows = await self.all(f"DELETE FROM absences WHERE 1 = 1{served} RETURNING session_id, since, late, missed")
        return {
            row["session_id"]: Absence(since=from_micros(row["since"]), late=row["late"], missed=row["missed"])
            for row in rows
        }


class OverviewReads(FiringReads):
    """What is read over all sessions. Implements :class:`navi_jupyter.ports.recall_overview.RecallOverviewStore`."""

    async def recall_overview(
        self,
        owner: str,
        *,
        now: datetime,
        days: Sequence[tuple[datetime, datetime]],
        coming: int,
        waiting: int,
        per_day: int,
    ) -> OverviewRows:
        async with self.reading() as view:
            counts = await view.one(
                "SELECT count(*) AS open, count(*) FILTER (WHERE status = 'paused') AS paused FROM recalls"
                f" WHERE owner = ? AND status IN {_OPEN_RECALL}",
                (owner,),
            )
            ended = [
                await view.all(ENDED_ON, (to_micros(start), to_micros(end), owner, per_day)) for start, end in days
            ]
            active = await view.all(ACTIVE, (to_micros(now), owner, per_day))
            return OverviewRows(
                open=0 if counts is None else counts["open"],
                paused=0 if counts is None else counts["paused"],
                days=[list(map(_entry_of, rows)) for rows in ended],
                active=list(map(_entry_of, active)),
                coming=await self._open(view, COMING, owner, coming),
                waiting=await self._open(view, WAITING, owner, waiting),
            )

    async def _open(self, view: Statements, query: str, owner: str, limit: int) -> Sequence[OpenRecall]:
        rows = await view.all(query, (owner, limit)) if limit else []
        return await decoded(rows, _open_recall)


def _open_recall(row: Any) -> OpenRecall:
    return OpenRecall(recall=recall_of(row), session_title=row["session_title"])


def _entry_of(row: Row) -> OverviewEntry:
    return OverviewEntry(
        firing=firing_state_of([row[name] for name in FIRING_NAMES]).firing,
        title=row["title"],
        session_id=row["session_id"],
        session_title=row["session_title"],
        read_at=optional_instant(row["read_at"]),
        asks=row["run_status"] == "waiting",
        ran=row["ran"],
        failed=row["failed"],
        missed=row["missed"],
    )


class RecallReads(OverviewReads):
    """What is read of recalls. Implements the reads of :class:`navi_jupyter.ports.recalls.RecallStore`."""

    def made_ahead(
        self, recalls: Iterable[RecallState], firings: Iterable[FiringState]
    ) -> tuple[Sequence[RecallState], Sequence[FiringState]]:
        return WithRows.of(recalls, advanced_values), WithRows.of(firings, new_firing_values)

    async def recall_state(self, recall_id: str) -> RecallState | None:
        row = await self.fetch_one(f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id = ?", (recall_id,))
        return None if row is None else recall_state_of(row)

    async def recalls(
        self,
        owner: str,
        *,
        session_id: str | None = None,
        status: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[Sequence[Recall], str | None]:
        rows = await self.fetch_all(
            "SELECT * FROM recalls WHERE owner = ? AND number < ? AND (CAST(? AS TEXT) IS NULL OR session_id = ?)"
            " AND (CAST(? AS TEXT) IS NULL OR status = ?) ORDER BY number DESC LIMIT ?",
            (owner, number_of(cursor), session_id, session_id, status, status, limit + 1),
        )
        page = rows[:limit]
        more = str(page[-1]["number"]) if len(rows) > limit else None
        return [recall_of(row) for row in page], more

    async def recalls_in(self, session_id: str) -> Sequence[Recall]:
        rows = await self.fetch_all(
            f"SELECT * FROM recalls WHERE session_id = ? ORDER BY status NOT IN {_OPEN_RECALL},"
            f" CASE WHEN status IN {_OPEN_RECALL} THEN coalesce(next_at, ?) ELSE -number END, number",
            (session_id, LAST),
        )
        return [recall_of(row) for row in rows]

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            f" AND due_at <= ?{self.served.by('owner')} ORDER BY due_at LIMIT ?",
            (to_micros(now), limit),
        )
        return await decoded(rows, recall_state_of)

    async def expired_recalls(self, *, until_after: datetime) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE status = 'expired' AND instr(policy, '\"until\"') > 0"
            + self.served.by("owner")
        )
        states = await decoded(rows, recall_state_of)
        return [one for one in states if one.recall.policy.until is not None and one.recall.policy.until > until_after]

    # The minimum of four indexed lookups, each of which stops at its first row.
    async def next_wake(self) -> datetime | None:
        by, of = self.served.by, self.served.of_recall
        row = await self.fetch_one(
            "SELECT min(at) AS at FROM ("
            "SELECT min(due_at) AS at FROM recalls"
            f" WHERE due_at IS NOT NULL AND status IN ('pending', 'running'){by('owner')}"
            " UNION ALL SELECT * FROM (SELECT f.not_before FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND {STARTABLE}{by('r.owner')} ORDER BY f.not_before LIMIT 1) AS pending"
            f" UNION ALL SELECT min(lease_until) FROM firings WHERE {CLAIMED}{of('firings.recall_id')}"
            f" UNION ALL SELECT * FROM (SELECT f.stop_at {TO_STOP}{of('f.recall_id')} ORDER BY f.stop_at LIMIT 1)"
            " AS stopping) AS each"
        )
        return None if row is None else optional_instant(row["at"])

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        late, served, of = to_micros(now - _OVERDUE), self.served.by("owner"), self.served.of_recall
        row = await self.fetch_one(
            f"SELECT (SELECT count(*) FROM recalls WHERE status IN {_OPEN_RECALL}{served}) AS open,"
            f" EXISTS (SELECT 1 FROM recalls WHERE status IN {_OPEN_RECALL} AND status <> 'paused'{served}) AS awake,"
            f" (SELECT count(*) FROM recalls WHERE due_at < ? AND status IN ('pending', 'running'){served}) AS overdue,"
            " (SELECT count(*) FROM firings f LEFT JOIN runs ON runs.id = f.run_id"
            "   WHERE f.status IN ('claimed', 'running') AND f.status = 'running' AND coalesce(runs.ended_at, 0) < ?"
            f"   AND (runs.id IS NULL OR runs.ended_at IS NOT NULL){of('f.recall_id')}) AS stuck,"
            f" (SELECT count(*) FROM firings WHERE {CLAIMED} AND lease_until < ?{of('firings.recall_id')}) AS orphans,"
            f" (SELECT count(*) FROM recalls r WHERE r.status = 'pending' AND r.due_at IS NULL{served}"
            f"  AND NOT (substr(r.schedule, 1, 14) = {_WHEN}) AND NOT EXISTS"
            f"  (SELECT 1 FROM firings f WHERE f.recall_id = r.id AND f.status IN {OPEN_FIRING})) AS aimless",
            (late, late, late),
        )
        found = {} if row is None else {key: row[key] for key in row.keys()}  # noqa: SIM118
        return RecallAudit(**found | {"awake": bool(found.get("awake"))})

    async def when_recalls(self, *, paused: bool = False, owner: str | None = None) -> Sequence[RecallState]:
        of = "'pending', 'running', 'paused'" if paused else "'pending', 'running'"  # each with an index of its own
        whose = self.served.by("owner") if owner is None else " AND owner = ?"
        rows = await self.fetch_all(f"{_WHENS} ({of}){whose} ORDER BY number", () if owner is None else (owner,))
        return [recall_state_of(row) for row in rows]

    async def begun_firings(self, *, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT runs.* FROM firings f JOIN commands c ON c.session_id = f.session_id"
            " AND c.command_id = f.command_id JOIN runs ON runs.id = c.run_id"
            f" WHERE {CLAIMED.replace('status', 'f.status')} AND f.lease_owner IS NULL"
            f" AND runs.started_at IS NOT NULL AND runs.ended_at IS NULL{self.served.of_recall('f.recall_id')} LIMIT ?",
            (limit,),
        )
        return [run_of(row) for row in rows]

    async def seen(self, session_id: str, owner: str) -> Seen:
        return _seen_of(await self.fetch_one(_SEEN, (session_id, session_id, owner)))

    async def ends_with_user(self, session_id: str) -> bool:
        row = await self.fetch_one(
            "SELECT 1 FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            f" AND status IN {_OPEN_RECALL} LIMIT 1",
            (session_id,),
        )
        return row is not None


def _seen_of(row: Row | None) -> Seen:
    """The row of ``_SEEN``."""
    if row is None:
        return Seen()
    return Seen(wrote_at=optional_instant(row["wrote_at"]), read_at=optional_instant(row["read_at"]))
