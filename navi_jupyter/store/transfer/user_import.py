"""What one user has in a SQLite database, brought into a database that others use meanwhile, under a name of theirs.

First everything is compared: ids that something else has there refuse the import before anything is written. Then the
rows come in transactions of at most a megabyte, each followed by a pause of its own length, so that others wait for a
moment at most. What has come is hidden: it belongs to a name that no user has, its sessions are deleted ones and its
recalls cancelled. The last transaction gives all of it to the user, together with the few rows that servers act upon
(open runs, questions and firings). An import that was cut off is repeated, and goes on: rows that are there stay as
they are, and ``head_seq`` shows how much of a log has come. What is never finished is removed like deleted sessions.

Not responsible for the version of the source (``source``), nor for what servers do with what has come: what was in
progress ends, and what was due is caught up with, as after any restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from sqlite3 import Row
from typing import TypeVar

from ...clock import now
from ...errors import StoreError
from ..blobs import owner_key
from ..database import Database, Transaction
from ..rows import to_micros
from ..session_list.index import SearchIndex
from ..statements import json_list
from .source import Source
from .tables import BY_NAME, TABLES, WANTED_RECALLS, WANTED_SESSIONS, Table

T = TypeVar("T")
COUNTED = ("sessions", "runs", "events", "recalls", "attachments", "facts")
NAMED = 10  # ids that an error names
INDEXED_AT_ONCE = 20  # runs that one transaction takes into the search
LONGEST_PAUSE = 1.0  # seconds
_COMING = "\x1f"  # begins the owner's name of what has come: that of no user has a control character
_APART = ("sessions", "events", "attachments", "attachment_uses", "facts", "recalls")  # with a way of their own
_IN = "IN (SELECT value FROM json_each(?))"
_SESSIONS_OF = "session_id IN (SELECT id FROM sessions WHERE owner = ? AND coalesce(deleted_at, 1) > 0)"
_RECALLS_OF = "recall_id IN (SELECT id FROM recalls WHERE owner = ?)"
_RESULTS = "results t JOIN recalls r ON r.id = t.recall_id"
_COMPARED = (
    (
        "session",
        # One that is being removed is not taken.
        "SELECT id, created_at AS mark FROM sessions WHERE owner = ? AND coalesce(deleted_at, 1) > 0",
        f"SELECT id, owner, created_at AS mark FROM sessions WHERE id {_IN}",
    ),
    (
        "run",
        f"SELECT id, session_id AS mark FROM runs WHERE {_SESSIONS_OF}",
        f"SELECT r.id, s.owner, s.id AS mark FROM runs r JOIN sessions s ON s.id = r.session_id WHERE r.id {_IN}",
    ),
    (
        "question",
        f"SELECT id, session_id AS mark FROM interrupts WHERE {_SESSIONS_OF}",
        f"SELECT i.id, s.owner, s.id AS mark FROM interrupts i JOIN sessions s ON s.id = i.session_id WHERE i.id {_IN}",
    ),
    (
        "attachment",
        "SELECT id, sha256 AS mark FROM attachments WHERE owner = ?",
        f"SELECT id, owner, sha256 AS mark FROM attachments WHERE id {_IN}",
    ),
    (
        "fact",
        "SELECT id, created_at AS mark FROM facts WHERE owner = ?",
        f"SELECT id, owner, created_at AS mark FROM facts WHERE id {_IN}",
    ),
    (
        "recall",
        "SELECT id, created_at AS mark FROM recalls WHERE owner = ?",
        f"SELECT id, owner, created_at AS mark FROM recalls WHERE id {_IN}",
    ),
    (
        "firing",
        f"SELECT id, recall_id AS mark FROM firings WHERE {_RECALLS_OF}",
        f"SELECT f.id, r.owner, r.id AS mark FROM firings f JOIN recalls r ON r.id = f.recall_id WHERE f.id {_IN}",
    ),
    (
        "result of run",
        f"SELECT run_id AS id, recall_id AS mark FROM results WHERE {_RECALLS_OF}",
        f"SELECT t.run_id AS id, r.owner, r.id AS mark FROM {_RESULTS} WHERE t.run_id {_IN}",
    ),
)
"""What has an id: those of the source's user, and who has them in the target. Equal marks show that it is the same."""
_PUBLISH_SESSIONS = (
    "UPDATE sessions SET owner = v.column2, deleted_at = v.column3, head_seq = v.column4 FROM (VALUES {rows}) AS v"
    " WHERE sessions.id = v.column1 AND sessions.owner = v.column5"
)
_PUBLISH_RECALLS = (
    "UPDATE recalls SET owner = v.column2, status = v.column3 FROM (VALUES {rows}) AS v"
    " WHERE recalls.id = v.column1 AND recalls.owner = v.column4"
)
# A notebook that has a session of the user there keeps it, as when a deleted session is restored.
_UNLINK = (
    "UPDATE sessions SET notebook_link = 'earlier' WHERE owner = ? AND notebook_path IS NOT NULL"
    f" AND id {_IN} AND EXISTS (SELECT 1 FROM sessions s WHERE s.owner = ? AND s.notebook_path = sessions.notebook_path"
    " AND coalesce(s.notebook_link, '') <> 'earlier' AND s.deleted_at IS NULL)"
)


@dataclass(frozen=True, slots=True)
class Brought:
    """What an import has brought."""

    counts: dict[str, int]  # rows of tables, by their names
    known: int  # sessions that an earlier import had brought


class UserImport:
    """See above. ``owner`` is the user's name in the source, ``name`` the one in the target."""

    def __init__(
        self, source: Source, store: Database, *, owner: str, name: str, report: Callable[[str], None]
    ) -> None:
        self._source = source
        self._store = store
        self._owner = owner
        self._name = name
        self._coming = _COMING + name
        self._report = report  # a line for somebody who waits
        self._known: dict[str, set[str]] = {"session": set(), "recall": set()}  # from an earlier import

    async def perform(self) -> Brought:
        """All of it, or what is missing. Raises StoreError; then nothing of it can be seen."""
        await self._compare()
        await self._stage_sessions()
        sessions = [(row["id"], row["head_seq"]) for row in self._rows(BY_NAME["sessions"])]
        for number, (session_id, head_seq) in enumerate(sessions, start=1):
            await self._stage_log(session_id)
            self._report(f"{number} of {len(sessions)} logs of sessions, up to event {head_seq}")
        for table in TABLES:
            if table.owned is not None and table.name not in _APART:
                await self._stage_table(table)
        await self._stage_attachments()
        facts = await self._publish()
        await self._index()
        counts = {name: self._count(BY_NAME[name]) for name in COUNTED}
        return Brought(counts | {"facts": facts}, len(self._known["session"]))

    # --- what is there

    async def _compare(self) -> None:
        clashes: list[str] = []
        wanted: dict[str, list[str]] = {what: [] for what in self._known}
        for what, of_source, of_target in _COMPARED:
            for batch in self._source.batches(of_source, (self._owner,)):
                marks = {row["id"]: row["mark"] for row in batch}
                for row in await self._store.fetch_all(of_target, (json_list(marks),)):
                    if row["mark"] != marks[row["id"]] or row["owner"] not in (self._name, self._coming):
                        clashes.append(f"{what} {row['id']}")
                    elif row["owner"] == self._name and what in wanted:
                        self._known[what].add(row["id"])
                if what in wanted:
                    wanted[what] += [one for one in marks if one not in self._known[what]]
            self._report(f"compared: each {what}")
        if clashes:
            more = f" and {len(clashes) - NAMED} more" if len(clashes) > NAMED else ""
            raise StoreError(
                f"The target has something else under ids of the source: {', '.join(clashes[:NAMED])}{more}. Were they"
                " imported for another user? Nothing was imported."
            )
        self._source.remember(WANTED_SESSIONS, wanted["session"])
        self._source.remember(WANTED_RECALLS, wanted["recall"])

    def _rows(self, table: Table, *, live: bool = False) -> Iterable[Row]:
        return self._source.rows(table.of_import(live=live), {"owner": self._owner})

    def _batches(self, table: Table, *, live: bool = False) -> Iterable[list[Row]]:
        return self._source.batches(table.of_import(live=live), {"owner": self._owner})

    def _count(self, table: Table) -> int:
        sql = f"SELECT count(*) AS n FROM {table.name} WHERE {table.owned}"
        return int(self._source.rows(sql, {"owner": self._owner}).fetchone()["n"])

    # --- hidden rows, a few at a time

    async def _stage_sessions(self) -> None:
        at = to_micros(now())
        staged: dict[str, object] = {"owner": self._coming, "head_seq": 0, "deleted_at": at, "indexed_title": None}
        # One of an import that was cut off is kept from now on.
        again = "(id) DO UPDATE SET deleted_at = excluded.deleted_at WHERE sessions.owner = excluded.owner"
        for batch in self._batches(BY_NAME["sessions"]):
            rows = self._made(BY_NAME["sessions"], batch, staged)
            await self._write(lambda tx, rows=rows: rows.insert(tx, on_conflict=again))  # type: ignore[misc]

    async def _stage_log(self, session_id: str) -> None:
        found = await self._store.fetch_one("SELECT head_seq FROM sessions WHERE id = ?", (session_id,))
        pages = self._source.batches(
            "SELECT * FROM events WHERE session_id = ? AND seq > ? ORDER BY seq",
            (session_id, 0 if found is None else found["head_seq"]),
        )
        for batch in pages:
            rows, last = self._made(BY_NAME["events"], batch), batch[-1]["seq"]

            async def unit(tx: Transaction, rows: _Rows = rows, last: int = last) -> None:
                moved = await tx.change(
                    "UPDATE sessions SET head_seq = max(head_seq, ?) WHERE id = ? AND owner = ?",
                    (last, session_id, self._coming),
                )
                if not moved:
                    raise _overtaken()
                await rows.insert(tx)

            await self._write(unit, on=session_id)

    async def _stage_table(self, table: Table) -> None:
        if table.name == "firings":  # they refer to recalls
            await self._stage_recalls()
            await self._stage_facts()
        for batch in self._batches(table):
            rows = self._made(table, batch, {"indexed": 0} if table.name == "runs" else {})
            await self._write(lambda tx, rows=rows: rows.insert(tx))  # type: ignore[misc]
        self._report(f"{table.name}: there")

    async def _stage_recalls(self) -> None:
        for batch in self._batches(BY_NAME["recalls"]):
            rows = self._made(BY_NAME["recalls"], batch, {"owner": self._coming, "status": "cancelled"})
            await self._write(lambda tx, rows=rows: rows.insert(tx))  # type: ignore[misc]

    async def _stage_facts(self) -> None:
        for batch in self._batches(BY_NAME["facts"]):
            rows = self._made(BY_NAME["facts"], batch, {"owner": self._coming})
            ids = json_list(row["id"] for row in batch)

            async def unit(tx: Transaction, rows: _Rows = rows, ids: str = ids) -> None:
                await rows.insert(tx)
                # Not those that the user has there, and may have changed.
                for row in await tx.all(
                    f"SELECT id, text FROM facts WHERE id {_IN} AND owner = ?", (ids, self._coming)
                ):
                    await self._store.full_text.keep_fact(tx, row["id"], row["text"])

            await self._write(unit)

    async def _stage_attachments(self) -> None:
        """Each batch with its content before it and what uses it: a sweep removes what has no use."""
        uses = f"{BY_NAME['attachment_uses'].of_import(live=False)} AND attachment_id {_IN.replace('?', ':ids')}"
        for batch in self._batches(BY_NAME["attachments"]):
            kept = []
            for row in batch:
                content = await asyncio.to_thread(self._source.content, self._owner, row["sha256"])
                if content is not None:
                    key = (owner_key(self._name), row["sha256"])
                    await self._store.blobs.put(key, content, draft=row["id"])
                kept.append(row)  # also one whose file is gone: reading it reports that
            rows = self._made(BY_NAME["attachments"], kept)
            ids = json_list(row["id"] for row in kept)
            used = self._source.rows(uses, {"owner": self._owner, "ids": ids}).fetchall()
            used_rows = self._made(BY_NAME["attachment_uses"], used)

            async def unit(tx: Transaction, rows: _Rows = rows, uses: _Rows = used_rows) -> None:
                await rows.insert(tx)
                await uses.insert(tx)

            await self._write(unit)
        self._report("attachments: there")

    # --- all of it becomes the user's

    async def _publish(self) -> int:
        """One transaction; how many facts it has brought. It is read before: a unit reads no other database."""
        sessions = [
            (row["id"], self._name, row["deleted_at"], row["head_seq"], self._coming)
            for row in self._rows(BY_NAME["sessions"])
        ]
        recalls = [(row["id"], self._name, row["status"], self._coming) for row in self._rows(BY_NAME["recalls"])]
        facts = json_list(row["id"] for row in self._rows(BY_NAME["facts"]))
        live = [
            self._made(table, list(self._rows(table, live=True)))
            for table in TABLES
            if table.owned is not None and table.name not in _APART
        ]

        async def unit(tx: Transaction) -> int:
            await tx.change(_UNLINK, (self._coming, json_list(row[0] for row in sessions), self._name))
            if await tx.change_many(_PUBLISH_SESSIONS, sessions) != len(sessions):
                raise _overtaken()
            if await tx.change_many(_PUBLISH_RECALLS, recalls) != len(recalls):
                raise _overtaken()
            for rows in live:
                await rows.insert(tx)
            # What the user knows there already.
            await tx.change(
                "DELETE FROM facts WHERE owner = ? AND text IN (SELECT text FROM facts WHERE owner = ?)",
                (self._coming, self._name),
            )
            return await tx.change(
                f"UPDATE facts SET owner = ? WHERE owner = ? AND id {_IN}", (self._name, self._coming, facts)
            )

        return await self._write(unit, durable=True)

    async def _index(self) -> None:
        """Servers would do it as well: what has no mark is taken into the search, of any user."""
        index, done = SearchIndex(self._store), 0
        while taken := await index.take_in(limit=INDEXED_AT_ONCE):
            done += taken
            self._report(f"{done} runs and titles taken into the search")

    async def _write(
        self, unit: Callable[[Transaction], Awaitable[T]], *, durable: bool = False, on: str | None = None
    ) -> T:
        """A transaction, and a pause of its length for others."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await self._store.write(unit, durable=durable, on=on)
        await asyncio.sleep(min(LONGEST_PAUSE, loop.time() - began))
        return result

    def _made(self, table: Table, rows: Sequence[Row], changed: dict[str, object] | None = None) -> _Rows:
        """The rows as the target gets them."""
        if not rows:
            return _Rows(table, (), [])
        columns = tuple(name for name in rows[0].keys() if name not in table.columns_left_out)  # noqa: SIM118 - no mapping
        made = [
            [
                self._value(table, name, row[name]) if name not in (changed or {}) else (changed or {})[name]
                for name in columns
            ]
            for row in rows
        ]
        if table.name == "shares":  # an owner is no reader
            made = [values for values in made if values[columns.index("user_id")] != self._name]
        return _Rows(table, columns, made)

    def _value(self, table: Table, column: str, value: object) -> object:
        return self._name if column in table.users and value == self._owner else value


@dataclass(frozen=True, slots=True)
class _Rows:
    table: Table
    columns: Sequence[str]
    values: Sequence[Sequence[object]]

    async def insert(self, tx: Transaction, *, on_conflict: str = "DO NOTHING") -> None:
        """Those that are there already stay as they are."""
        if not self.values:
            return
        is_noted = self.table.name == "firings"  # by a trigger, for webhooks: what ended long ago is no news
        before = await tx.one("SELECT coalesce(max(number), 0) AS number FROM ended") if is_noted else None
        columns = ", ".join(self.columns)
        await tx.change_many(
            f"INSERT INTO {self.table.name} ({columns}) VALUES {{rows}} ON CONFLICT {on_conflict}", self.values
        )
        if before is not None:
            await tx.change("DELETE FROM ended WHERE number > ?", (before["number"],))


def _overtaken() -> StoreError:
    return StoreError("Another import of these sessions has gone on meanwhile. Repeat this one to see what is there.")
