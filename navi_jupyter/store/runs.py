"""SQL for runs and what waits to become one: in a transaction (``RunRows``) and for readers (``RunReads``)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from ..errors import InvalidRequest, RunNotFound
from ..model.sessions import Failure, Run, RunStatus, Usage
from ..ports.agent import Message, PastTurn, PromptPart
from ..ports.transactions import QueuedPrompt, RunOwner
from .connection import Readers, Statements
from .rows import dump_messages, dump_parts, from_micros, load_messages, load_parts, run_of, to_micros

_LAST = 2**62
"""Beyond every key of a list that is paged downwards."""
ACTIVE = "('running', 'waiting')"
OPEN_RUNS = (
    "SELECT * FROM runs WHERE session_id = ? AND status IN ('queued', 'running', 'waiting')"
    " ORDER BY priority DESC, number"
)
_QUEUED = "SELECT * FROM runs WHERE session_id = ? AND status = 'queued' ORDER BY priority DESC, number"
TOLD = "ended_at IS NOT NULL AND started_at IS NOT NULL"
"""Runs that were a turn of the conversation; not those that were withdrawn or merged into another."""


class RunRows(Statements):
    """The part of :class:`navi_jupyter.ports.SessionTx` that is about runs."""

    async def run(self, run_id: str) -> Run | None:
        row = await self.one("SELECT * FROM runs WHERE id = ?", (run_id,))
        return None if row is None else run_of(row)

    async def active_run(self, session_id: str) -> Run | None:
        row = await self.one(f"SELECT * FROM runs WHERE session_id = ? AND status IN {ACTIVE}", (session_id,))
        return None if row is None else run_of(row)

    async def queued_runs(self, session_id: str) -> Sequence[Run]:
        return [run_of(row) for row in await self.all(_QUEUED, (session_id,))]

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        return [_queued_of(row) for row in await self.all(_QUEUED, (session_id,))]

    async def add_run(
        self,
        run: Run,
        *,
        prompt: str,
        user_id: str,
        first_seq: int,
        priority: int = 0,
        mode: str = "enqueue",
        parts: Sequence[PromptPart] | None = None,
    ) -> None:
        await self.change(
            "INSERT INTO runs (id, session_id, command_id, status, origin_kind, recall_id, user_id, model, prompt,"
            " priority, first_seq, created_at, mode, parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run.id,
                run.session_id,
                run.command_id,
                run.status.value,
                run.origin.kind.value,
                run.origin.recall_id,
                user_id,
                run.model,
                prompt,
                priority,
                first_seq,
                to_micros(run.created_at),
                mode,
                None if parts is None else dump_parts(parts),
            ),
        )

    async def repeat_run(self, interrupted_id: str, run: Run, *, priority: int = 0, mode: str = "enqueue") -> None:
        await self.change(
            "INSERT INTO runs (id, session_id, command_id, status, origin_kind, recall_id, user_id, model, prompt,"
            " priority, first_seq, created_at, mode, parts) SELECT ?, r.session_id, r.command_id, ?, r.origin_kind,"
            " r.recall_id, r.user_id, ?, r.prompt, ?, s.head_seq + 1, ?, ?, r.parts"
            " FROM runs r JOIN sessions s ON s.id = r.session_id WHERE r.id = ?",
            (run.id, run.status.value, run.model, priority, to_micros(run.created_at), mode, interrupted_id),
        )
        await self.change(
            "UPDATE commands SET run_id = ? WHERE session_id = ? AND command_id = ?",
            (run.id, run.session_id, run.command_id),
        )
        await self.change(
            "UPDATE runs SET rolled_back = 1 WHERE id = ?"
            " AND NOT EXISTS (SELECT 1 FROM runs joined WHERE joined.merged_into = runs.id)",
            (interrupted_id,),
        )

    async def last_effect(self, run: Run) -> str | None:
        row = await self.one(
            "SELECT json_extract(frame, '$.event.value.tool') AS tool FROM events WHERE session_id = ? AND run_id = ?"
            " AND seq >= (SELECT first_seq FROM runs WHERE id = ?) AND instr(frame, '\"navi.tool\"') > 0"
            " AND json_extract(frame, '$.event.name') = 'navi.tool' ORDER BY seq DESC LIMIT 1",
            (run.session_id, run.id, run.id),
        )
        return None if row is None else str(row["tool"])

    async def change_prompt(self, run_id: str, parts: Sequence[PromptPart]) -> None:
        prompt = "\n\n".join(part.text for part in parts)
        await self.change(
            "UPDATE runs SET prompt = ?, parts = ? WHERE id = ? AND status = 'queued'",
            (prompt, dump_parts(parts), run_id),
        )

    async def start_run(self, run_id: str, *, server_id: str, at: datetime, lease_until: datetime) -> bool:
        # Looked at first: a violated unique index would undo the whole unit, not just this statement.
        changed = await self.change(
            "UPDATE runs SET status = 'running', server_id = ?, started_at = ?, lease_until = ?"
            " WHERE id = ? AND status = 'queued' AND NOT EXISTS"
            f" (SELECT 1 FROM runs other WHERE other.session_id = runs.session_id AND other.status IN {ACTIVE})",
            (server_id, to_micros(at), to_micros(lease_until), run_id),
        )
        return changed == 1

    async def pause_run(self, run_id: str, *, server_id: str, usage: Usage, conversation: bytes) -> bool:
        changed = await self.change(
            "UPDATE runs SET status = 'waiting', server_id = NULL, lease_until = NULL, conversation = ?,"
            " input_tokens = ?, output_tokens = ?, requests = ?, cost = ?"
            " WHERE id = ? AND status = 'running' AND server_id = ? AND stop_command_id IS NULL",
            (conversation, *_spent(usage), run_id, server_id),
        )
        return changed == 1

    async def resume_run(self, run_id: str, *, server_id: str, lease_until: datetime) -> bool:
        changed = await self.change(
            "UPDATE runs SET status = 'running', server_id = ?, lease_until = ? WHERE id = ? AND status = 'waiting'"
            " AND NOT EXISTS (SELECT 1 FROM interrupts WHERE run_id = runs.id AND status = 'open')",
            (server_id, to_micros(lease_until), run_id),
        )
        return changed == 1

    async def roll_back(self, run_id: str) -> None:
        await self.change("UPDATE runs SET rolled_back = 1 WHERE id = ?", (run_id,))

    async def merge_run(self, run_id: str, into: str, *, at: datetime) -> bool:
        changed = await self.change(
            "UPDATE runs SET status = 'completed', merged_into = ?, ended_at = ? WHERE id = ? AND status = 'queued'",
            (into, to_micros(at), run_id),
        )
        return changed == 1

    async def held_runs(self, run_ids: Iterable[str], *, server_id: str) -> set[str]:
        wanted = tuple(run_ids)
        rows = await self.all(
            f"SELECT id FROM runs WHERE id IN ({marks(wanted)}) AND server_id = ? AND status IN {ACTIVE}",
            (*wanted, server_id),
        )
        return {row["id"] for row in rows}

    async def end_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        at: datetime,
        usage: Usage | None = None,
        error: Failure | None = None,
        conversation: bytes | None = None,
        transcript: Sequence[Message] = (),
    ) -> bool:
        changed = await self.change(
            "UPDATE runs SET status = ?, ended_at = ?, input_tokens = ?, output_tokens = ?, requests = ?, cost = ?,"
            " error_code = ?, error_message = ?, conversation = ?, transcript = ?, lease_until = NULL"
            " WHERE id = ? AND ended_at IS NULL",
            (
                status.value,
                to_micros(at),
                *_spent(usage or Usage()),
                error.code if error else None,
                error.message if error else None,
                conversation,
                dump_messages(transcript),
                run_id,
            ),
        )
        return changed == 1

    async def request_stop(self, run_id: str, command_id: str) -> None:
        await self.change(
            "UPDATE runs SET stop_command_id = ? WHERE id = ? AND stop_command_id IS NULL",
            (command_id, run_id),
        )

    async def active_runs(self) -> Sequence[RunOwner]:
        # Those that wait for an answer are nobody's: they outlive the server that started them.
        rows = await self.all(
            "SELECT id, session_id, server_id, lease_until, stop_command_id IS NOT NULL AS stopping FROM runs"
            " WHERE status = 'running'"
        )
        return [
            RunOwner(
                run_id=row["id"],
                session_id=row["session_id"],
                server_id=row["server_id"],
                lease_until=from_micros(row["lease_until"]),
                stop_requested=bool(row["stopping"]),
            )
            for row in rows
        ]


class RunReads(Readers):
    """The reads of :class:`navi_jupyter.ports.SessionStore` that are about runs."""

    async def run(self, run_id: str) -> Run | None:
        row = await self.fetch_one("SELECT * FROM runs WHERE id = ?", (run_id,))
        return None if row is None else run_of(row)

    async def runs(self, session_id: str, *, limit: int, cursor: str | None = None) -> tuple[Sequence[Run], str | None]:
        before = _number_cursor(cursor)
        rows = await self.fetch_all(
            "SELECT * FROM runs WHERE session_id = ? AND number < ? ORDER BY number DESC LIMIT ?",
            (session_id, before, limit + 1),
        )
        page = rows[:limit]
        return [run_of(row) for row in page], str(page[-1]["number"]) if len(rows) > limit else None

    async def open_runs(self, session_id: str) -> Sequence[Run]:
        return [run_of(row) for row in await self.fetch_all(OPEN_RUNS, (session_id,))]

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        return [_queued_of(row) for row in await self.fetch_all(_QUEUED, (session_id,))]

    async def prompt(self, run_id: str) -> tuple[str, str]:
        row = await self.fetch_one("SELECT prompt, user_id FROM runs WHERE id = ?", (run_id,))
        if row is None:
            raise RunNotFound(f"There is no run {run_id}.")
        return row["prompt"], row["user_id"]

    async def parts(self, run_id: str) -> Sequence[PromptPart]:
        row = await self.fetch_one("SELECT command_id, prompt, parts FROM runs WHERE id = ?", (run_id,))
        if row is None:
            raise RunNotFound(f"There is no run {run_id}.")
        return load_parts(row)

    async def past_turns(self, session_id: str) -> Sequence[PastTurn]:
        rows = await self.fetch_all(
            "SELECT id, status, command_id, prompt, parts, transcript, conversation FROM runs"
            f" WHERE session_id = ? AND {TOLD} AND rolled_back = 0 ORDER BY started_at, number",
            (session_id,),
        )
        return await asyncio.to_thread(_turns_of, rows)

    async def stops_for(self, server_id: str) -> Sequence[str]:
        rows = await self.fetch_all(
            f"SELECT id FROM runs WHERE status IN {ACTIVE} AND server_id = ? AND stop_command_id IS NOT NULL",
            (server_id,),
        )
        return [row["id"] for row in rows]

    async def steered_sessions(self) -> Sequence[str]:
        rows = await self.fetch_all("SELECT session_id FROM runs WHERE status = 'queued' AND mode = 'steer'")
        return [row["session_id"] for row in rows]

    async def runs_to_compact(self, *, ended_before: datetime, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT * FROM runs WHERE compacted = 0 AND ended_at IS NOT NULL AND ended_at < ?"
            " ORDER BY ended_at LIMIT ?",
            (to_micros(ended_before), limit),
        )
        return [run_of(row) for row in rows]

    # --- what was spent

    async def of_session(self, session_id: str) -> Usage:
        """See :class:`navi_jupyter.ports.agent.Spending`."""
        return _sum(await self.fetch_one(f"SELECT {_SUMS} FROM runs WHERE session_id = ?", (session_id,)))

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        """See :class:`navi_jupyter.ports.agent.Spending`."""
        return _sum(
            await self.fetch_one(
                f"SELECT {_SUMS} FROM runs WHERE user_id = ? AND created_at >= ?", (owner, to_micros(since))
            )
        )


_SUMS = (
    "total(input_tokens) AS input_tokens, total(output_tokens) AS output_tokens, total(requests) AS requests,"
    " sum(cost) AS cost"
)


def _sum(row: sqlite3.Row | None) -> Usage:
    if row is None:
        return Usage()
    counts = {name: int(row[name]) for name in ("input_tokens", "output_tokens", "requests")}
    return Usage(**counts, cost=row["cost"])


def _spent(usage: Usage) -> tuple[int, int, int, float | None]:
    return usage.input_tokens, usage.output_tokens, usage.requests, usage.cost


def marks(values: Sequence[object]) -> str:
    """Placeholders for as many values."""
    return ", ".join("?" * len(values))


def _queued_of(row: sqlite3.Row) -> QueuedPrompt:
    return QueuedPrompt(run=run_of(row), mode=row["mode"], user_id=row["user_id"], parts=load_parts(row))


def messages_of(rows: Sequence[sqlite3.Row]) -> list[Message]:
    """What finished runs said. Not on the event loop: a long session has megabytes of it."""
    return [message for row in rows for message in load_messages(row["transcript"])]


def _turns_of(rows: Sequence[sqlite3.Row]) -> list[PastTurn]:
    return [
        PastTurn(
            run_id=row["id"],
            status=RunStatus(row["status"]),
            prompt=row["prompt"],
            messages=load_messages(row["transcript"]),
            conversation=row["conversation"],
            attachments=tuple(attachment for part in load_parts(row) for attachment in part.attachments),
        )
        for row in rows
    ]


def _number_cursor(cursor: str | None) -> int:
    if cursor is None:
        return _LAST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(cursor)
