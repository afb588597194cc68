"""SQL for what comes of firings: notifications (``ports.notifications``) and results of notebooks (``ports.jobs``).

Not responsible for when anything is sent, or how (``notifications``), nor for what results are (``jupyter.jobs``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from ..model.sessions import RunStatus
from ..ports.jobs import JobResult
from ..ports.notifications import EventKind, Held, Notice, TargetRecord, Wanted
from ..ports.recalls import Claimed
from .database import Database, Transaction
from .firings import number_of
from .rows import from_micros, load_messages, optional_instant, run_of, to_micros
from .statements import Row, json_list

_IN = "IN (SELECT value FROM json_each(?))"
_IN_NUMBERS = "IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
_SAID = "n.target || ': ' || n.error || CASE WHEN n.attempts > 1 THEN ' (tried ' || n.attempts || ' times)' ELSE '' END"
_MINE = "status = 'pending' AND taken_by = ?"
_NOTICE = (
    "SELECT n.number, n.firing_id, n.run_id AS of_run, n.owner, n.target, n.attempts, n.held, r.id AS recall_of,"
    " s.id AS session_of, f.status AS firing_status, f.reason, f.slot, f.kind AS firing_kind, f.lateness_ms,"
    " f.ended_at AS firing_ended_at, r.title AS recall_title, r.policy, s.title AS session_title,"
    " s.timezone AS zone, s.notebook_path, runs.id, runs.session_id, runs.command_id, runs.status, runs.origin_kind,"
    " runs.recall_id, runs.origin_kernel, runs.model, runs.created_at, runs.started_at, runs.ended_at,"
    " runs.input_tokens, runs.output_tokens, runs.requests, runs.cost, runs.error_code, runs.error_message,"
    " runs.merged_into, runs.timezone, runs.rolled_back, runs.transcript"
    " FROM json_each(?) taken CROSS JOIN notices n ON n.number = CAST(taken.value AS BIGINT)"
    " LEFT JOIN firings f ON f.id = n.firing_id"
    " LEFT JOIN runs ON runs.id = coalesce(n.run_id, f.run_id)"
    " LEFT JOIN recalls r ON r.id = coalesce(f.recall_id, runs.recall_id)"
    " JOIN sessions s ON s.id = coalesce(f.session_id, runs.session_id)"
    " ORDER BY n.number"
)
_OF_FIRINGS = (
    "SELECT f.id AS id, r.owner AS owner FROM firings f JOIN recalls r ON r.id = f.recall_id"
    f" WHERE f.id {_IN} ORDER BY f.number"
)
_OF_RUNS = (
    "SELECT runs.id AS id, s.owner AS owner FROM runs JOIN sessions s ON s.id = runs.session_id"
    f" WHERE runs.id {_IN} ORDER BY runs.number"
)
_ADD = "INSERT INTO notices (firing_id, owner, target, due_at) VALUES {rows} ON CONFLICT DO NOTHING"
_ADD_ENDED = (
    "INSERT INTO notices (firing_id, run_id, owner, target, due_at, status, error, ended_at) VALUES {rows}"
    " ON CONFLICT DO NOTHING"
)
_OWN_TARGETS = f"SELECT owner, name, entry FROM user_entries WHERE kind = 'notify' AND owner {_IN} ORDER BY owner, name"
_WAITING = "SELECT count(*) AS n FROM notices n INDEXED BY notices_waiting WHERE n.status = 'pending' AND n.target = ?"
_IS_OWN = "SELECT 1 FROM user_entries u WHERE u.owner = n.owner AND u.kind = 'notify' AND u.name = n.target"
_RECORDS = (
    "SELECT target, count(*) FILTER (WHERE status = 'pending') AS waiting, count(*) FILTER (WHERE status ="
    " 'sent') AS sent,"
    " count(*) FILTER (WHERE status = 'failed') AS failed, max(CASE WHEN status = 'sent' THEN ended_at END) AS"
    " last_sent_at,"
    " coalesce((SELECT l.error FROM notices l WHERE l.owner = n.owner AND l.target = n.target AND l.status = 'pending'"
    "  AND l.error IS NOT NULL ORDER BY l.number DESC LIMIT 1),"
    " (SELECT l.error FROM notices l WHERE l.owner = n.owner AND l.target = n.target AND l.ended_at IS NOT NULL"
    "  ORDER BY l.ended_at DESC, l.number DESC LIMIT 1)) AS last_error"
    " FROM notices n WHERE owner = ? GROUP BY owner, target"
)


class StoredNotices:
    """Implements :class:`navi_jupyter.ports.notifications.NoticeStore`."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def add(self, claimed: Sequence[tuple[Claimed, Sequence[str]]], *, now: datetime) -> None:
        rows = [
            (claim.firing.firing.id, claim.recall.owner, target, to_micros(now))
            for claim, targets in claimed
            for target in targets
        ]

        async def unit(tx: Transaction) -> None:
            await tx.change_many(_ADD, rows)

        if rows:
            await self._store.write(unit, durable=True)

    async def last_ended(self) -> int | None:
        row = await self._store.fetch_one(
            "SELECT max(number) AS number FROM ended WHERE 1 = 1" + self._store.served.of_ended()
        )
        return None if row is None else row["number"]

    async def add_ended(
        self,
        wanted: Wanted,
        *,
        own: Callable[[Mapping[str, str]], Wanted],
        up_to: int,
        now: datetime,
        limit: int,
        most: int,
    ) -> int:
        async def unit(tx: Transaction) -> int:
            ended = await tx.all(
                f"DELETE FROM ended WHERE number IN (SELECT number FROM ended WHERE number <= ?{tx.served.of_ended()}"
                " ORDER BY number LIMIT ?) RETURNING kind, id",
                (up_to, limit),
            )
            kinds: tuple[tuple[EventKind, str], ...] = (("firing", _OF_FIRINGS), ("run", _OF_RUNS))
            for kind, query in kinds:
                ids = [row["id"] for row in ended if row["kind"] == kind]
                found = await tx.all(query, (json.dumps(ids),)) if ids else []
                entries = await _own_targets(tx, {row["owner"] for row in found})
                for target in wanted.get(kind, ()) if found else ():
                    of_all = [row for row in found if target not in entries.get(row["owner"], ())]
                    await _add_ended(tx, kind, of_all, target, now, most - await _waiting(tx, target, None), most)
                for owner, texts in entries.items():
                    for target in own(texts).get(kind, ()):
                        mine = [row for row in found if row["owner"] == owner]
                        room = most - await _waiting(tx, target, owner)
                        await _add_ended(tx, kind, mine, target, now, room, most)
            return len(ended)

        return await self._store.write(unit, durable=True)

    async def settle(self, firing_ids: Iterable[str]) -> Sequence[tuple[str, str | None]]:
        rows = await self._store.fetch_all(
            f"SELECT f.value AS id, (SELECT group_concat({_SAID}, '; ') FROM notices n WHERE n.firing_id = f.value"
            " AND n.status = 'failed') AS error FROM json_each(?) f"
            " WHERE NOT EXISTS (SELECT 1 FROM notices n WHERE n.firing_id = f.value AND n.status = 'pending')",
            (json_list(firing_ids),),
        )
        return [(row["id"], row["error"]) for row in rows]

    async def next_due(self) -> datetime | None:
        row = await self._store.fetch_one(
            "SELECT min(due_at) AS at FROM notices WHERE status = 'pending'" + self._store.served.by("owner")
        )
        return None if row is None else optional_instant(row["at"])

    async def take(self, *, by: str, now: datetime, until: datetime, limit: int) -> Sequence[Notice]:

        async def unit(tx: Transaction) -> list[Row]:
            taken = await tx.all(
                "UPDATE notices SET due_at = ?, taken_by = ? WHERE number IN (SELECT number FROM notices"
                f" WHERE status = 'pending' AND due_at <= ?{tx.served.by('owner')} ORDER BY due_at, number LIMIT ?)"
                " RETURNING number",
                (to_micros(until), by, to_micros(now), limit),
            )
            return await tx.all(_NOTICE, (json.dumps([row["number"] for row in taken]),))

        # Durable: what two servers take after a crash is sent twice.
        rows = await self._store.write(unit, durable=True)
        return await asyncio.to_thread(lambda: [_notice_of(row) for row in rows])

    async def attempt(self, numbers: Iterable[int], *, by: str, until: datetime) -> Sequence[int]:

        async def unit(tx: Transaction) -> list[Row]:
            return await tx.all(
                f"UPDATE notices SET attempts = attempts + 1, due_at = ? WHERE number {_IN_NUMBERS} AND {_MINE}"
                " RETURNING number",
                (to_micros(until), json.dumps(list(numbers)), by),
            )

        return [row["number"] for row in await self._store.write(unit, durable=True)]

    async def sent_at(self, owner: str, target: str, *, since: datetime) -> Sequence[datetime]:
        rows = await self._store.fetch_all(
            "SELECT min(ended_at) AS at FROM notices WHERE owner = ? AND target = ? AND status = 'sent'"
            " AND ended_at > ? GROUP BY message_id",
            (owner, target, to_micros(since)),
        )
        return [from_micros(row["at"]) for row in rows]

    async def hold(self, numbers: Iterable[int], *, by: str, until: datetime, why: Held | None) -> None:
        await self._change(
            "due_at = ?, held = coalesce(?, held), taken_by = NULL", (to_micros(until), why), numbers, by
        )

    async def sent(self, numbers: Iterable[int], *, message_id: str, at: datetime) -> None:
        values = (message_id, to_micros(at))
        await self._change("status = 'sent', message_id = ?, ended_at = ?, error = NULL", values, numbers)

    async def failed(
        self, numbers: Iterable[int], *, by: str, error: str, at: datetime, again_at: datetime | None
    ) -> None:
        if again_at is None:
            await self._change("status = 'failed', error = ?, ended_at = ?", (error, to_micros(at)), numbers, by)
        else:
            values = (error, to_micros(again_at))
            await self._change("error = ?, due_at = ?, taken_by = NULL", values, numbers, by, shown=True)

    async def records(self, owner: str) -> dict[str, TargetRecord]:
        rows = await self._store.fetch_all(_RECORDS, (owner,))
        return {row["target"]: _record_of(row) for row in rows}

    async def _change(
        self,
        assignments: str,
        values: Sequence[object],
        numbers: Iterable[int],
        by: str | None = None,
        *,
        shown: bool = False,
    ) -> None:
        """Of those that are still to be sent; with ``by``, of those that no other server has taken meanwhile.

        ``shown``: the ledger shows meanwhile what is wrong.
        """
        chosen = json.dumps(list(numbers))
        whose, whom = ("status = 'pending'", ()) if by is None else (_MINE, (by,))

        async def unit(tx: Transaction) -> None:
            changed = await tx.all(
                f"UPDATE notices SET {assignments} WHERE number {_IN_NUMBERS} AND {whose} RETURNING firing_id",
                (*values, chosen, *whom),
            )
            if shown:
                await tx.change(
                    f"UPDATE firings SET delivery_error = (SELECT group_concat({_SAID}, '; ') FROM notices n"
                    " WHERE n.firing_id = firings.id AND n.error IS NOT NULL)"
                    f" WHERE id {_IN} AND delivery = 'pending'",
                    (json.dumps([row["firing_id"] for row in changed]),),
                )

        await self._store.write(unit, durable=True)


async def _own_targets(tx: Transaction, owners: Iterable[str]) -> dict[str, dict[str, str]]:
    """The entries of the users' own targets: owner -> name -> JSON."""
    found: dict[str, dict[str, str]] = {}
    for row in await tx.all(_OWN_TARGETS, (json.dumps(sorted(owners)),)):
        found.setdefault(row["owner"], {})[row["name"]] = row["entry"]
    return found


async def _waiting(tx: Transaction, target: str, owner: str | None) -> int:
    """How many notices wait for a user's own target; with None, for the target of all users with this name."""
    if owner is None:
        row = await tx.one(f"{_WAITING} AND NOT EXISTS ({_IS_OWN})", (target,))
    else:
        row = await tx.one(f"{_WAITING} AND n.owner = ?", (target, owner))
    return 0 if row is None else int(row["n"])


async def _add_ended(
    tx: Transaction, kind: EventKind, found: Sequence[Row], target: str, now: datetime, room: int, most: int
) -> None:
    rows = [_ended_row(kind, row, target, now, most, full=n >= room) for n, row in enumerate(found)]
    await tx.change_many(_ADD_ENDED, rows)


def _ended_row(kind: str, row: Row, target: str, now: datetime, most: int, *, full: bool) -> tuple[object, ...]:
    """The values of :data:`_ADD_ENDED`."""
    about = (row["id"], None) if kind == "firing" else (None, row["id"])
    at = to_micros(now)
    end = ("failed", f"more than {most} events waited for it", at) if full else ("pending", None, None)
    return (*about, row["owner"], target, at, *end)


def _record_of(row: Row) -> TargetRecord:
    return TargetRecord(
        waiting=row["waiting"],
        sent=row["sent"],
        failed=row["failed"],
        last_sent_at=optional_instant(row["last_sent_at"]),
        last_error=row["last_error"],
    )


def _notice_of(row: Row) -> Notice:
    policy: Mapping[str, object] = {} if row["policy"] is None else json.loads(row["policy"])
    quiet = policy.get("quiet")
    run = None if row["id"] is None else run_of(row)
    about_firing = row["firing_id"] is not None
    return Notice(
        number=row["number"],
        firing_id=row["firing_id"],
        owner=row["owner"],
        target=row["target"],
        attempts=row["attempts"],
        held=row["held"],
        recall_id=row["recall_of"],
        recall_title=row["recall_title"] or row["session_title"],
        session_id=row["session_of"],
        session_title=row["session_title"],
        zone=row["zone"],
        quiet=quiet if isinstance(quiet, str) else None,
        status=row["firing_status"] if about_firing else row["status"],
        reason=row["reason"],
        slot=from_micros(row["slot"] if about_firing else row["ended_at"]),
        answer=_answer(row["transcript"]),
        error=row["error_message"],
        run=run,
        run_id=row["of_run"],
        notebook_path=row["notebook_path"],
        kind=row["firing_kind"] or "",
        lateness_ms=row["lateness_ms"],
        ended_at=optional_instant(row["firing_ended_at"]),
    )


def _answer(transcript: str | None) -> str:
    errors = [
        message.content
        for message in load_messages(transcript)
        if message.role == "assistant" and message.subagent_run_id is None and message.content.strip()
    ]
    return errors[-1] if errors else ""


_PATH = "json_extract(run, '$.path')"


class ResultStore:
    """The dated copies that recalls' notebooks have made. Implements :class:`navi_jupyter.ports.jobs.JobResults`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, recall_id: str, run_id: str, path: str, *, at: datetime) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.change(
                "INSERT INTO results (run_id, recall_id, path, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (run_id, recall_id, path, to_micros(at)),
            )
            # No new version: it is in no plan and in no form, and only this writes it.
            await tx.change("UPDATE recalls SET last_result = ? WHERE id = ?", (path, recall_id))

        await self._database.write(unit, durable=True)

    async def of_recall(
        self, recall_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[JobResult], str | None]:
        rows = await self._database.fetch_all(
            "SELECT r.number, r.run_id, r.recall_id, r.path, r.created_at, runs.status, runs.error_message"
            " FROM results r LEFT JOIN runs ON runs.id = r.run_id WHERE r.recall_id = ? AND r.number < ?"
            " ORDER BY r.number DESC LIMIT ?",
            (recall_id, number_of(cursor), limit + 1),
        )
        more = str(rows[limit - 1]["number"]) if len(rows) > limit else None
        return [_result_of(row) for row in rows[:limit]], more

    async def of_runs(self, run_ids: Sequence[str]) -> Mapping[str, str]:
        rows = await self._database.fetch_all(
            "SELECT run_id, path FROM results WHERE run_id IN (SELECT value FROM json_each(?))", (json_list(run_ids),)
        )
        return {row["run_id"]: row["path"] for row in rows}

    async def follow(
        self, source: str, target: str, session_id: str | None = None, *, owner: str | None = None
    ) -> None:
        async def unit(tx: Transaction) -> None:
            length = len(source) + 1
            moved = f"? || substr({{0}}, {length}) WHERE ({{0}} = ? OR substr({{0}}, 1, {length}) = ?)"
            values = (target, source, f"{source}/")
            served = tx.served.by("owner") if owner is None else " AND owner = ?"
            of_session = served if session_id is None else " AND session_id = ?"
            whose = tuple(one for one in (session_id or owner,) if one is not None)
            new_path = moved.format(_PATH).replace(" WHERE", "), version = version + 1 WHERE", 1)
            await tx.change(
                f"UPDATE recalls SET run = json_set(run, '$.path', {new_path} AND run IS NOT NULL{of_session}",
                (*values, *whose),
            )
            if session_id is None:
                of_results = tx.served.of_recall("results.recall_id")
                if owner is not None:
                    of_results = " AND recall_id IN (SELECT id FROM recalls WHERE owner = ?)"
                for table, column, of in (("recalls", "last_result", of_session), ("results", "path", of_results)):
                    await tx.change(f"UPDATE {table} SET {column} = {moved.format(column)}{of}", (*values, *whose))

        await self._database.write(unit, durable=True)


def _result_of(row: Row) -> JobResult:
    return JobResult(
        number=row["number"],
        run_id=row["run_id"],
        recall_id=row["recall_id"],
        path=row["path"],
        created_at=from_micros(row["created_at"]),
        status=RunStatus(row["status"] or RunStatus.INTERRUPTED),  # the run of a session that was deleted
        reason=row["error_message"],
    )
