"""SQL for sessions, logs and commands: in a transaction (``SessionRows``) and for readers (``SessionReads``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..commands import Acceptance
from ..errors import InvalidRequest
from ..model.sessions import Session
from ..ports.store import DEFAULT_LEASE
from ..ports.transactions import Server
from .interrupts import InterruptReads, InterruptRows
from .log import LogReads, LogRows
from .prompts import PromptReads, PromptRows
from .rows import from_micros, server_of, session_of, to_micros
from .runs import ACTIVE, RunReads, RunRows

_LAST = 2**62
"""Beyond every key of a list that is paged downwards."""
_SESSION_COLUMNS = frozenset(
    {
        "title",
        "profile",
        "model",
        "notebook_path",
        "kernel_id",
        "timezone",
        "updated_at",
        "allowed_tools",
        "context",
    }
)


def _column(value: Any) -> Any:
    """A field of a session as its column has it."""
    if isinstance(value, datetime):
        return to_micros(value)
    return json.dumps(value) if isinstance(value, tuple | list | dict) else value


class SessionRows(LogRows, PromptRows, RunRows, InterruptRows):
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
        row = await self.one("SELECT * FROM sessions WHERE id = ?", (session_id,))
        return None if row is None else session_of(row)

    async def add_session(self, session: Session) -> None:
        await self.change(
            "INSERT INTO sessions (id, owner, title, profile, model, notebook_path, kernel_id, timezone,"
            " created_at, updated_at, allowed_tools, context) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.id,
                session.owner,
                session.title,
                session.profile,
                session.model,
                session.notebook_path,
                session.kernel_id,
                session.timezone,
                to_micros(session.created_at),
                to_micros(session.updated_at),
                _column(session.allowed_tools),
                _column(session.context),
            ),
        )

    async def count_sessions(self, owner: str) -> int:
        row = await self.one("SELECT count(*) AS n FROM sessions WHERE owner = ?", (owner,))
        return 0 if row is None else int(row["n"])

    async def change_session(self, session_id: str, changes: Mapping[str, Any]) -> None:
        unknown = set(changes) - _SESSION_COLUMNS
        if unknown:
            raise InvalidRequest(f"a session has no {', '.join(sorted(unknown))}")
        values = [_column(value) for value in changes.values()]
        assignments = ", ".join(f"{name} = ?" for name in changes)
        await self.change(f"UPDATE sessions SET {assignments} WHERE id = ?", (*values, session_id))

    async def delete_session(self, session_id: str) -> None:
        await self.change("DELETE FROM sessions WHERE id = ?", (session_id,))

    async def beat(self, server: Server, *, at: datetime) -> None:
        # The server's lease and those of its runs in one transaction: no other server sees one without the other.
        until = to_micros(at + DEFAULT_LEASE)
        await self.change(
            "INSERT INTO servers (id, host, pid, pid_started, lease_until) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
            (server.id, server.host, server.pid, server.pid_started, until),
        )
        await self.change(
            f"UPDATE runs SET lease_until = ? WHERE server_id = ? AND status IN {ACTIVE}", (until, server.id)
        )

    async def forget_server(self, server_id: str) -> None:
        await self.change("DELETE FROM servers WHERE id = ?", (server_id,))

    async def servers(self) -> Sequence[tuple[Server, datetime]]:
        rows = await self.all("SELECT * FROM servers")
        return [(server_of(row), from_micros(row["lease_until"])) for row in rows]


class SessionReads(LogReads, PromptReads, RunReads, InterruptReads):
    """The session half of what is read. Implements the reads of :class:`navi_jupyter.ports.store.SessionStore`."""

    async def session(self, session_id: str) -> Session | None:
        row = await self.fetch_one("SELECT * FROM sessions WHERE id = ?", (session_id,))
        return None if row is None else session_of(row)

    async def sessions(
        self, owner: str, *, limit: int, cursor: str | None = None, notebook_path: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        at, last_id = _session_cursor(cursor)
        rows = await self.fetch_all(
            "SELECT * FROM sessions WHERE owner = ? AND (updated_at < ? OR (updated_at = ? AND id > ?))"
            " AND (? IS NULL OR notebook_path = ?) ORDER BY updated_at DESC, id LIMIT ?",
            (owner, at, at, last_id, notebook_path, notebook_path, limit + 1),
        )
        page = rows[:limit]
        more = f"{page[-1]['updated_at']}:{page[-1]['id']}" if len(rows) > limit else None
        return [session_of(row) for row in page], more

    async def known_servers(self) -> Sequence[Server]:
        return [server_of(row) for row in await self.fetch_all("SELECT * FROM servers")]


def _session_cursor(cursor: str | None) -> tuple[int, str]:
    if cursor is None:
        return _LAST, ""
    at, _, session_id = cursor.partition(":")
    if not (at.isascii() and at.isdigit() and len(at) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(at), session_id
