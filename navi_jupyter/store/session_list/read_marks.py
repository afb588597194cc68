"""SQL for how far each user has seen each session, what came after that, and what waits for the user.

Not responsible for what else follows when a user sees a session: that is for the caller of :meth:`ReadMarks.mark`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ...errors import SessionNotFound
from ...events import Draft, session_event
from ...model.sessions import SYSTEM, Run, Session
from ..database import Database, Transaction
from ..rows import to_micros
from ..statements import Row, json_list

_UNREAD_RUNS = (
    "(SELECT count(*) FROM runs WHERE session_id = s.id AND last_seq > coalesce(m.seq, 0)"
    " AND merged_into IS NULL AND (origin_kind <> 'user' OR unattended = 1 OR status = 'interrupted'))"
)

_COUNT = (
    f"SELECT s.id, {_UNREAD_RUNS} AS unread"
    " FROM json_each(?) w JOIN sessions s ON s.id = w.value LEFT JOIN reads m ON m.session_id = s.id AND m.user_id = ?"
)

_WAITING = (
    "SELECT id, title, notebook_path, unread, questions FROM ("
    f"SELECT s.id, s.title, s.notebook_path, s.updated_at, {_UNREAD_RUNS} AS unread,"
    " (SELECT count(*) FROM interrupts WHERE session_id = s.id AND status = 'open') AS questions"
    " FROM sessions s LEFT JOIN reads m ON m.session_id = s.id AND m.user_id = s.owner WHERE s.owner = ?"
    " AND s.archived_at IS NULL AND s.deleted_at IS NULL) AS one"
    " WHERE unread > 0 OR questions > 0 ORDER BY updated_at DESC"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionAttention:
    """A session in which something waits for its owner."""

    id: str
    title: str
    notebook_path: str | None
    unread: int  # runs
    questions: int  # that are open


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """What a look at a session changed."""

    seq: int  # how far it is seen now
    before: int  # runs that were unread before
    unread: int  # runs that are unread now


class ReadMarks:
    """A run is unread when it ended after what its session's owner has seen, and the user did not wait for it: a
    recall or Navi itself began it, the session had no follower when it ended, or the end of its server cut it."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def mark(self, session_id: str, *, owner: str, seq: int, at: datetime) -> Marked:
        """The user has seen the log up to ``seq``. A mark never goes back; other views are notified of it.

        Raises SessionNotFound, also for other people's.
        """

        async def unit(tx: Transaction) -> Marked:
            session = await tx.session(session_id)
            if session is None or session.owner != owner:
                raise SessionNotFound(f"There is no session {session_id[:100]}.")
            before = await _unread(tx, session_id, owner)
            seen = min(seq, session.head_seq)
            await tx.change(
                "INSERT INTO reads (session_id, user_id, seq, at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (session_id, user_id) DO UPDATE SET seq = max(reads.seq, excluded.seq), at = excluded.at",
                (session_id, owner, seen, to_micros(at)),
            )
            row = await tx.one("SELECT seq FROM reads WHERE session_id = ? AND user_id = ?", (session_id, owner))
            marked = Marked(seq=row["seq"] if row else seen, before=before, unread=await _unread(tx, session_id, owner))
            if marked.unread < before:
                await tx.append(session_id, [_read_draft(session, marked, at)])
            return marked

        return await self._store.write(unit)

    async def unread(self, session_ids: Iterable[str], *, owner: str) -> dict[str, int]:
        """How many runs are unread in each of the sessions that exist."""
        rows = await self._store.fetch_all(_COUNT, (json_list(session_ids), owner))
        return _counts(rows)

    async def waiting(self, owner: str) -> list[SessionAttention]:
        """The sessions of a user with unread runs or open questions, last used first; archived ones are left out."""
        return [SessionAttention(**dict(row)) for row in await self._store.fetch_all(_WAITING, (owner,))]

    async def nobody_there(self, run: Run) -> None:
        """A run of the user's ended while its session had no follower."""

        async def unit(tx: Transaction) -> None:
            await tx.change("UPDATE runs SET unattended = 1 WHERE id = ?", (run.id,))

        await self._store.write(unit)


async def _unread(tx: Transaction, session_id: str, owner: str) -> int:
    return _counts(await tx.all(_COUNT, (json.dumps([session_id]), owner))).get(session_id, 0)


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    return {row["id"]: row["unread"] for row in rows}


def _read_draft(session: Session, marked: Marked, at: datetime) -> Draft:
    event = session_event(session, ["read"], read={"seq": marked.seq, "unread": marked.unread})
    return Draft(event, run_id=None, origin=SYSTEM, at=at)
