"""SQL for sessions, logs and commands: in a transaction (``SessionRows``) and for readers (``SessionReads``)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..commands import Acceptance
from ..errors import InvalidRequest, SessionNotFound
from ..events import Custom, Draft
from ..model.agent_options import AgentOffer
from ..model.sessions import Run, Session
from ..ports.jupyter import NotebookLink
from ..ports.store import SessionSnapshot
from ..ports.transactions import Server
from .interrupts import OF_LAST_PAUSE, InterruptQueries, InterruptRows, interrupt_of
from .log.compaction import GAP, READ_BYTES, CompactionRows
from .log.frames import run_frames
from .prompts import PromptReads, PromptRows
from .rows import from_micros, offer_of, optional_micros, recall_of, run_of, server_of, session_of, to_micros
from .runs import OPEN_RUNS, RunQueries, RunRows, read_turns
from .served_owners import ServedOwners
from .session_list.listing import SessionListQueries, SessionListRows
from .session_list.search import SearchReads
from .statements import Readers, Row, Statements, marks

_SESSION_COLUMNS = frozenset(
    {
        "title",
        "title_source",
        "archived_at",
        "deleted_at",
        "profile",
        "model",
        "notebook_path",
        "notebook_link",
        "fingerprint",
        "earlier_path",
        "kernel_id",
        "server",
        "timezone",
        "timezone_source",
        "updated_at",
        "allowed_tools",
        "context",
        "agent_options",
    }
)


def _column(value: Any) -> Any:
    """A field of a session as its column has it."""
    if isinstance(value, datetime):
        return to_micros(value)
    return json.dumps(value) if isinstance(value, tuple | list | dict) else value


_CHUNKS = (256, 128, 64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows per statement: few sizes, so that the statements stay prepared; what one command appends is one statement."""
_INSERT_EVENTS = "INSERT INTO events (session_id, seq, run_id, frame) VALUES {rows}"
_RAISE_HEADS = (
    "UPDATE sessions SET head_seq = head_seq + CAST(more.value AS BIGINT) FROM json_each(?) AS more"
    " WHERE sessions.id = more.key AND sessions.deleted_at IS NULL RETURNING id, head_seq"
)
"""The only counter of a log. Read and raised by one statement, so that two servers never give a number twice."""


class LogRows(CompactionRows):
    """Logs in a transaction. Implements :class:`navi_jupyter.ports.transactions.LogTx`."""

    appended: list[tuple[str, int, str]]
    """What this transaction stored in logs: (session, seq, frame), in order. Published after the commit."""

    async def append(self, session_id: str, drafts: Sequence[Draft], *, updated_at: datetime | None = None) -> int:
        touched = "" if updated_at is None else ", updated_at = ?2"
        row = await self.one(
            f"UPDATE sessions SET head_seq = head_seq + ?3{touched} WHERE id = ?1 AND deleted_at IS NULL"
            " RETURNING head_seq",
            (session_id, optional_micros(updated_at), len(drafts)),
        )
        if row is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        head: int = row["head_seq"]
        await self._insert({session_id: drafts}, {session_id: head})
        return head

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """:meth:`append` for many sessions in two statements. Sessions that are gone are left out."""
        rows = await self.all(_RAISE_HEADS, (json.dumps({one: len(drafts) for one, drafts in batches.items()}),))
        heads = {row["id"]: row["head_seq"] for row in rows}
        await self._insert({session: batches[session] for session in batches if session in heads}, heads)

    async def _insert(self, batches: Mapping[str, Sequence[Draft]], heads: Mapping[str, int]) -> None:
        """``heads``: as they are with these."""
        rows = [
            (session_id, seq, draft.run_id, draft.frame(session_id, seq))
            for session_id, drafts in batches.items()
            for seq, draft in enumerate(drafts, heads[session_id] - len(drafts) + 1)
        ]
        if not rows:
            return
        await self.change_many(_INSERT_EVENTS, rows, sizes=_CHUNKS)
        offers = [
            (json.dumps(draft.event.value, ensure_ascii=False), session_id)
            for session_id, drafts in batches.items()
            for draft in drafts
            if type(draft.event) is Custom and draft.event.name == "navi.agent_options"
        ]
        if offers:
            await self.db.executemany("UPDATE sessions SET agent_offer = ? WHERE id = ?", offers)
        self.appended.extend((session_id, seq, frame) for session_id, seq, _, frame in rows)

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        return await run_frames(self, session_id, [run_id])


class LogQueries(Readers):
    """Logs for readers. Implements :class:`navi_jupyter.ports.store.LogQueries`."""

    async def head(self, session_id: str) -> int | None:
        row = await self.fetch_one("SELECT head_seq FROM sessions WHERE id = ? AND deleted_at IS NULL", (session_id,))
        return None if row is None else int(row["head_seq"])

    async def heads(self, session_ids: Iterable[str]) -> dict[str, int]:
        wanted = tuple(session_ids)
        rows = await self.fetch_all(
            f"SELECT id, head_seq FROM sessions WHERE id IN ({marks(wanted)}) AND deleted_at IS NULL", wanted
        )
        return {row["id"]: row["head_seq"] for row in rows}

    async def frames(self, session_id: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        rows = await self.fetch_all(
            "SELECT seq, frame FROM"
            " (SELECT seq, frame, SUM(LENGTH(frame)) OVER (ORDER BY seq) - LENGTH(frame) AS before"
            " FROM events WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?) AS page WHERE before < ?",
            (session_id, after, limit, READ_BYTES),
        )
        return [(row["seq"], row["frame"]) for row in rows]

    async def gap(self, session_id: str, after: int) -> bool:
        return await self.fetch_one(GAP, (session_id, after)) is not None

    async def snapshot(self, session_id: str, *, last: int | None = None) -> SessionSnapshot | None:
        decode = await self.read(lambda view: _read_snapshot(view, session_id, last=last))
        return None if decode is None else await asyncio.to_thread(decode)

    async def agent_offer(self, session_id: str) -> AgentOffer | None:
        row = await self.fetch_one("SELECT agent_offer FROM sessions WHERE id = ?", (session_id,))
        return None if row is None else offer_of(row["agent_offer"])

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        return await self.read(lambda view: run_frames(view, session_id, [run_id]))


async def _read_snapshot(
    view: Statements, session_id: str, *, last: int | None
) -> Callable[[], SessionSnapshot] | None:
    """Reads it all; the answer makes the snapshot. It is not for the event loop."""
    row = await view.one("SELECT * FROM sessions WHERE id = ? AND deleted_at IS NULL", (session_id,))
    if row is None:
        return None
    decode_turns = await read_turns(view, session_id, last=last)
    open_rows = await view.all(OPEN_RUNS, (session_id,))
    frames = await run_frames(view, session_id, [r["id"] for r in open_rows])
    waiting = next((r["id"] for r in open_rows if r["status"] == "waiting"), None)
    questions = await view.all(
        f"SELECT * FROM interrupts WHERE session_id = ? AND (status = 'open' OR {OF_LAST_PAUSE}) ORDER BY number",
        (session_id, waiting, waiting),
    )
    recalls = await view.all(
        "SELECT * FROM recalls WHERE session_id = ? AND status IN ('pending', 'running', 'paused') ORDER BY"
        " next_at NULLS FIRST",
        (session_id,),
    )

    def snapshot() -> SessionSnapshot:
        turns = decode_turns()
        runs = [run_of(r) for r in open_rows]
        return SessionSnapshot(
            session=session_of(row),
            head_seq=row["head_seq"],
            finished=turns.messages,
            active=next((run for run in runs if run.status.active), None),
            frames=frames,
            queued=[run for run in runs if not run.status.active],
            recalls=[recall_of(r) for r in recalls],
            interrupts=[interrupt_of(r) for r in questions],
            earlier=turns.earlier,
            agent_offer=offer_of(row["agent_offer"]),
        )

    return snapshot


class LinkRows(Statements):
    """Links to notebooks in a transaction."""

    async def mark_notebook(
        self, path: str, fingerprint: Sequence[str], *, now_at: str, made_by: datetime | None = None
    ) -> None:
        await self.change(
            "UPDATE sessions SET fingerprint = ?, notebook_path = ? WHERE notebook_path = ? AND fingerprint IS NULL"
            f" AND created_at <= coalesce(?, created_at){self.served.by('owner')}",
            (json.dumps(list(fingerprint)), now_at, path, optional_micros(made_by)),
        )

    async def links_below(self, path: str, *, owner: str | None = None) -> Sequence[NotebookLink]:
        whose = self.served.by("owner") if owner is None else " AND owner = ?2"
        # What begins with the path and '/' is before the path and '0', the character after that one.
        rows = await self.all(
            f"SELECT {LINK} FROM sessions WHERE deleted_at IS NULL AND (notebook_path = ?1"
            f" OR (notebook_path >= ?1 || '/' AND notebook_path < ?1 || '0')){whose} ORDER BY created_at DESC, id DESC",
            (path,) if owner is None else (path, owner),
        )
        return [link_of(row) for row in rows]


class SessionRows(LogRows, LinkRows, PromptRows, RunRows, InterruptRows, SessionListRows):
    """The session half of a transaction. Implements :class:`navi_jupyter.ports.transactions.SessionTx`."""

    async def acceptance(self, session_id: str, command_id: str) -> Acceptance | None:
        row = await self.one(
            "SELECT command_id, seq, run_id FROM commands WHERE session_id = ? AND command_id = ?",
            (session_id, command_id),
        )
        return None if row is None else Acceptance(command_id=command_id, seq=row["seq"], run_id=row["run_id"])

    async def accept(self, session_id: str, kind: str, acceptance: Acceptance, *, user_id: str) -> None:
        await self.change(
            "INSERT INTO commands (session_id, command_id, kind, user_id, seq, run_id) VALUES (?, ?, ?, ?, ?, ?)",
            (session_id, acceptance.command_id, kind, user_id, acceptance.seq, acceptance.run_id),
        )

    async def session(self, session_id: str) -> Session | None:
        row = await self.one("SELECT * FROM sessions WHERE id = ? AND deleted_at IS NULL", (session_id,))
        return None if row is None else session_of(row)

    async def add_session(self, session: Session) -> None:
        await self.change(
            "INSERT INTO sessions (id, owner, title, profile, model, notebook_path, notebook_link, kernel_id, server,"
            " timezone, timezone_source, created_at, updated_at, allowed_tools, context, agent_options, title_source)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.id,
                session.owner,
                session.title,
                session.profile,
                session.model,
                session.notebook_path,
                session.notebook_link,
                session.kernel_id,
                session.server,
                session.timezone,
                session.timezone_source.value,
                to_micros(session.created_at),
                to_micros(session.updated_at),
                _column(session.allowed_tools),
                _column(session.context),
                _column(session.agent_options.model_dump(exclude_none=True)),
                session.title_source.value,
            ),
        )

    async def count_sessions(self, owner: str) -> int:
        row = await self.one("SELECT count(*) AS n FROM sessions WHERE owner = ? AND deleted_at IS NULL", (owner,))
        return 0 if row is None else int(row["n"])

    async def change_session(self, session_id: str, changes: Mapping[str, Any]) -> None:
        unknown = set(changes) - _SESSION_COLUMNS
        if unknown:
            raise InvalidRequest(f"a session has no {', '.join(sorted(unknown))}")
        values = [_column(value) for value in changes.values()]
        assignments = ", ".join(f"{name} = ?" for name in changes)
        await self.change(f"UPDATE sessions SET {assignments} WHERE id = ?", (*values, session_id))

    async def is_awaited(self, run: Run, *, at: datetime) -> bool:
        # Deferred, woken, or on its way to a session that is going to refuse it.
        row = await self.one(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE session_id = ? AND status = 'queued') OR EXISTS"
            " (SELECT 1 FROM firings WHERE session_id = ? AND status IN ('pending', 'claimed', 'running')"
            " AND status <> 'running' AND (deferred = 1 OR not_before <= ?) AND command_id <> ?) AS awaited",
            (run.session_id, run.session_id, to_micros(at), run.command_id),
        )
        return row is not None and bool(row["awaited"])

    async def delete_session(self, session_id: str) -> None:
        await self.change("DELETE FROM sessions WHERE id = ?", (session_id,))


class SessionReads(LogQueries, PromptReads, RunQueries, InterruptQueries, SessionListQueries, SearchReads):
    """The session half of what is read. Implements the reads of :class:`navi_jupyter.ports.store.SessionStore`."""

    async def session(self, session_id: str) -> Session | None:
        row = await self.fetch_one("SELECT * FROM sessions WHERE id = ? AND deleted_at IS NULL", (session_id,))
        return None if row is None else session_of(row)

    async def link(self, session_id: str) -> NotebookLink | None:
        row = await self.fetch_one(f"SELECT {LINK} FROM sessions WHERE id = ? AND deleted_at IS NULL", (session_id,))
        return None if row is None else link_of(row)

    async def links(
        self, owner: str, *, session_id: str | None = None, path: str | None = None, kernel_id: str | None = None
    ) -> Sequence[NotebookLink]:
        rows = await self.fetch_all(
            f"SELECT {LINK} FROM sessions WHERE owner = ? AND deleted_at IS NULL AND (id = ? OR"
            " (coalesce(notebook_link, '') <> 'earlier' AND (notebook_path = ? OR kernel_id = ?)))"
            " ORDER BY created_at DESC, id DESC",
            (owner, session_id, path, kernel_id),
        )
        return [link_of(row) for row in rows]

    async def unmarked_paths(self, *, limit: int, made_by: datetime | None = None) -> Sequence[str]:
        rows = await self.fetch_all(
            "SELECT DISTINCT notebook_path FROM sessions WHERE notebook_path IS NOT NULL AND fingerprint IS NULL"
            f" AND created_at <= coalesce(?, created_at){self.served.by('owner')} LIMIT ?",
            (optional_micros(made_by), limit),
        )
        return [row["notebook_path"] for row in rows]

    async def earlier_sessions(self, owner: str, path: str, *, without: str | None, limit: int) -> Sequence[Session]:
        rows = await self.fetch_all(
            "SELECT * FROM sessions WHERE owner = ? AND (earlier_path = ? OR notebook_path = ?) AND id <>"
            " coalesce(?, '')"
            " AND deleted_at IS NULL ORDER BY updated_at DESC, id LIMIT ?",
            (owner, path, path, without, limit),
        )
        return [session_of(row) for row in rows]

    async def leases(self) -> Mapping[str, datetime]:
        rows = await self.fetch_all("SELECT id, lease_until FROM servers")
        return {row["id"]: from_micros(row["lease_until"]) for row in rows}

    async def known_servers(self) -> Sequence[Server]:
        return [server_of(row) for row in await self.fetch_all("SELECT * FROM servers")]


LINK = "id, owner, notebook_path, notebook_link, kernel_id, fingerprint"


def links_now(served: ServedOwners) -> str:
    """The statement of :meth:`navi_jupyter.ports.store.SessionStore.links_now`. The session that is named is there
    also where its owner is not served: a notebook that carries its id keeps it."""
    return (
        f"SELECT {LINK} FROM sessions WHERE (notebook_path = ?{served.by('owner')} OR id = ?) AND deleted_at IS NULL"
        " ORDER BY created_at DESC, id DESC"
    )


def link_of(row: Row) -> NotebookLink:
    return NotebookLink(
        session_id=row["id"],
        owner=row["owner"],
        path=row["notebook_path"],
        kernel_id=row["kernel_id"],
        state=row["notebook_link"] or "pending",
        fingerprint=tuple(json.loads(row["fingerprint"] or "[]")),
    )
