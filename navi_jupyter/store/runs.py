"""SQL for runs and the servers that have them: in a transaction (``RunRows``) and for readers (``RunQueries``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from ..errors import InvalidRequest
from ..model.sessions import AnswerNotice, Failure, Run, RunStatus, Usage
from ..ports.agent import Message
from ..ports.store import TranscriptSlice
from ..ports.transactions import DEFAULT_LEASE, EndedRun, RunOwner, Server
from .log.compaction import CompactionReads
from .prompts import FINISHED_TURNS
from .rows import dump_messages, from_micros, load_messages, run_of, server_of, to_micros
from .statements import Row, Statements, json_list, marks

_LAST = 2**62  # beyond every key of a list that is paged downwards
ACTIVE = "('running', 'waiting')"
OPEN_RUNS = (
    "SELECT * FROM runs WHERE session_id = ? AND status IN ('queued', 'running', 'waiting')"
    " ORDER BY priority DESC, number"
)
_OLDEST_TURN = (
    f"SELECT started_at, number FROM runs WHERE session_id = ? AND {FINISHED_TURNS} ORDER BY started_at, number LIMIT 1"
)
_LAST_TURNS = (
    "SELECT * FROM (SELECT *, SUM(COALESCE(LENGTH(transcript), 0)) OVER (ORDER BY started_at DESC, number DESC)"
    " - COALESCE(LENGTH(transcript), 0) AS newer"
    f" FROM (SELECT * FROM runs WHERE session_id = ? AND {FINISHED_TURNS} AND (started_at, number) <= (?, ?)"
    " ORDER BY started_at DESC, number DESC LIMIT ?) AS turns) AS page WHERE newer < ? ORDER BY started_at DESC,"
    " number DESC"
)
"""Turns up to one, newest first: so many at most, and fewer when they are long."""
_LEFT_BY_RUN = (  # by the run's id and not by ``runs.id``: with that, SQLite uses no index here
    "(EXISTS (SELECT 1 FROM shown_notebooks WHERE run_id = ?1) OR EXISTS (SELECT 1 FROM runs joined"
    "  JOIN shown_notebooks s ON s.run_id = joined.id WHERE joined.merged_into = ?1)) AS shown,"
    " EXISTS (SELECT 1 FROM interrupts WHERE run_id = ?1 AND status = 'open') AS asks,"
    " EXISTS (SELECT 1 FROM runs other WHERE other.status IN ('queued', 'running', 'waiting')"
    "  AND other.session_id = (SELECT session_id FROM runs WHERE id = ?1) AND other.id <> ?1) AS followed"
)
"""What there is to be done when a run has ended: mostly nothing, which the statement that ends it finds out."""
SLICE_SIZE = 120_000
"""Characters of a slice of the conversation, but for what belongs together: a view waits for the first one."""
LARGEST_SLICE = 400_000
"""Characters of a slice but for its first message, whatever belongs together: calls whose results are very large."""
_SPEAKERS = ("user", "assistant")

_RENEW = (
    "INSERT INTO servers (id, host, pid, pid_started, lease_until) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until"
)
_RENEW_RUNS = f"UPDATE runs SET lease_until = ? WHERE server_id = ? AND status IN {ACTIVE}"
_BOUND = "UPDATE servers SET lease_until = ?1 WHERE lease_until > ?1"
RENEWALS = frozenset((_RENEW, _RENEW_RUNS, _BOUND))
"""What each server changes all the time, and no other one has to look for at once."""


class ServerRows(Statements):
    """Servers in a transaction."""

    async def beat(self, server: Server, *, at: datetime, lease: timedelta = DEFAULT_LEASE) -> None:
        # The server's lease and those of its runs in one transaction: no other server sees one without the other.
        until = to_micros(at + lease)
        await self.change(_RENEW, (server.id, server.host, server.pid, server.pid_started, until))
        await self.change(_RENEW_RUNS, (until, server.id))

    async def bound_leases(self, *, until: datetime) -> None:
        await self.change(_BOUND, (to_micros(until),))

    async def forget_server(self, server_id: str) -> None:
        await self.change("DELETE FROM servers WHERE id = ?", (server_id,))

    async def servers(self) -> Sequence[tuple[Server, datetime]]:
        rows = await self.all("SELECT * FROM servers")
        return [(server_of(row), from_micros(row["lease_until"])) for row in rows]


class RunRows(ServerRows):
    """Runs in a transaction. Implements :class:`navi_jupyter.ports.transactions.RunTx`."""

    async def run(self, run_id: str) -> Run | None:
        row = await self.one("SELECT * FROM runs WHERE id = ?", (run_id,))
        return None if row is None else run_of(row)

    async def starts_of(self, run_ids: Iterable[str]) -> Mapping[str, datetime | None]:
        rows = await self.all(
            "SELECT id, started_at FROM runs WHERE id IN (SELECT value FROM json_each(?))"
            " AND (status = 'queued' OR started_at IS NOT NULL)",
            (json_list(run_ids),),
        )
        return {row["id"]: None if row["started_at"] is None else from_micros(row["started_at"]) for row in rows}

    async def active_run(self, session_id: str) -> Run | None:
        row = await self.one(f"SELECT * FROM runs WHERE session_id = ? AND status IN {ACTIVE}", (session_id,))
        return None if row is None else run_of(row)

    async def last_effect(self, run: Run) -> str | None:
        # `instr` first: it is much cheaper than parsing each frame of a long run as JSON.
        row = await self.one(
            "SELECT json_extract(frame, '$.event.value.tool') AS tool FROM events WHERE session_id = ? AND run_id = ?"
            " AND seq >= (SELECT first_seq FROM runs WHERE id = ?) AND instr(frame, '\"navi.tool\"') > 0"
            " AND json_extract(frame, '$.event.name') = 'navi.tool' ORDER BY seq DESC LIMIT 1",
            (run.session_id, run.id, run.id),
        )
        return None if row is None else str(row["tool"])

    async def start_run(self, run_id: str, *, server_id: str, at: datetime, lease_until: datetime) -> bool:
        # Looked at first: a violated unique index would undo the whole unit, not just this statement.
        changed = await self.change(
            "UPDATE runs SET status = 'running', server_id = ?, started_at = ?, lease_until = ?"
            " WHERE id = ? AND status = 'queued' AND NOT EXISTS"
            f" (SELECT 1 FROM runs other WHERE other.session_id = runs.session_id AND other.status IN {ACTIVE})"
            # Also where its prompt came to this server: it waits for one that serves its owner.
            + self.served.of_session("runs.session_id"),
            (server_id, to_micros(at), to_micros(lease_until), run_id),
        )
        return changed == 1

    async def pause_run(self, run_id: str, *, server_id: str, usage: Usage, conversation: bytes) -> bool:
        # a stop that was requested through another server meanwhile wins: the caller ends the run as stopped then.
        changed = await self.change(
            "UPDATE runs SET status = 'waiting', server_id = NULL, lease_until = NULL, conversation = ?,"
            " input_tokens = ?, output_tokens = ?, requests = ?, cost = ?"
            " WHERE id = ? AND status = 'running' AND server_id = ? AND stop_command_id IS NULL",
            (conversation, *_spent(usage), run_id, server_id),
        )
        return changed == 1

    async def resume_run(self, run_id: str, *, server_id: str, lease_until: datetime) -> bool:
        # Two servers may find the answered run: the first one's update wins, the other's matches no row.
        changed = await self.change(
            "UPDATE runs SET status = 'running', server_id = ?, lease_until = ? WHERE id = ? AND status = 'waiting'"
            " AND NOT EXISTS (SELECT 1 FROM interrupts WHERE run_id = runs.id AND status = 'open')"
            + self.served.of_session("runs.session_id"),
            (server_id, to_micros(lease_until), run_id),
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
        error: Failure | AnswerNotice | None = None,
        conversation: bytes | None = None,
        transcript: Sequence[Message] = (),
    ) -> EndedRun | None:
        # The first end counts: its owner and a server that takes over may both write one.
        row = await self.one(
            "UPDATE runs SET status = ?2, ended_at = ?3, input_tokens = ?4, output_tokens = ?5, requests = ?6,"
            " cost = ?7, error_code = ?8, error_message = ?9, conversation = ?10, transcript = ?11, lease_until = NULL"
            f" WHERE id = ?1 AND ended_at IS NULL RETURNING rolled_back, {_LEFT_BY_RUN}",
            (
                run_id,
                status.value,
                to_micros(at),
                *_spent(usage or Usage()),
                error.code if error else None,
                error.message if error else None,
                conversation,
                dump_messages(transcript),
            ),
        )
        if row is None:
            return None
        if row["shown"]:  # nothing reads it any more, and it is large
            await self.change(
                "DELETE FROM shown_notebooks WHERE run_id = ? OR run_id IN (SELECT id FROM runs WHERE merged_into = ?)",
                (run_id, run_id),
            )
        return EndedRun(rolled_back=bool(row["rolled_back"]), asks=bool(row["asks"]), followed=bool(row["followed"]))

    async def request_stop(self, run_id: str, command_id: str) -> None:
        # Only the first request is kept: a run is stopped once, and that command is its reason.
        await self.change(
            "UPDATE runs SET stop_command_id = ? WHERE id = ? AND stop_command_id IS NULL", (command_id, run_id)
        )

    async def active_runs(self) -> Sequence[RunOwner]:
        # Runs that wait for an answer have no server: they outlive the one that started them.
        rows = await self.all(
            "SELECT id, session_id, server_id, lease_until, stop_command_id IS NOT NULL AS stopping FROM runs"
            f" WHERE status IN {ACTIVE} AND status = 'running'{self.served.of_session('runs.session_id')}"
            # the first half is for the partial index
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


class RunQueries(CompactionReads):
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

    async def works_for(self, owner: str) -> bool:
        """Whether a run of this user's is in progress, or waits for an answer, on any server."""
        row = await self.fetch_one(
            "SELECT 1 FROM runs JOIN sessions ON sessions.id = runs.session_id"
            f" WHERE runs.status IN {ACTIVE} AND sessions.owner = ? AND sessions.deleted_at IS NULL LIMIT 1",
            (owner,),
        )
        return row is not None

    async def open_runs(self, session_id: str) -> Sequence[Run]:
        return [run_of(row) for row in await self.fetch_all(OPEN_RUNS, (session_id,))]

    async def transcript(self, session_id: str, *, before: str | None, limit: int) -> TranscriptSlice:
        async with self.reading() as view:
            start = None if before is None else await _position(view, session_id, before)
            decode = await read_turns(view, session_id, last=limit, start=start)
        return await asyncio.to_thread(decode)

    async def runs_of(self, server_id: str) -> Mapping[str, bool]:
        rows = await self.fetch_all(
            f"SELECT id, stop_command_id IS NOT NULL AS stopping FROM runs WHERE status IN {ACTIVE} AND server_id = ?",
            (server_id,),
        )
        return {row["id"]: bool(row["stopping"]) for row in rows}

    async def of_session(self, session_id: str) -> Usage:
        return _sum(await self.fetch_one(f"SELECT {_SUMS} FROM runs WHERE session_id = ?", (session_id,)))

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        return _sum(
            await self.fetch_one(
                f"SELECT {_SUMS} FROM runs WHERE user_id = ? AND created_at >= ?", (owner, to_micros(since))
            )
        )


_SUMS = (
    "coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,"
    " coalesce(sum(requests), 0) AS requests, sum(cost) AS cost"
)


def _sum(row: Row | None) -> Usage:
    if row is None:
        return Usage()
    counts = {name: int(row[name]) for name in ("input_tokens", "output_tokens", "requests")}
    return Usage(**counts, cost=row["cost"])


def _spent(usage: Usage) -> tuple[int, int, int, float | None]:
    return usage.input_tokens, usage.output_tokens, usage.requests, usage.cost


def messages_of(rows: Sequence[Row]) -> list[Message]:
    """The messages of finished runs. Not on the event loop: a long session has megabytes of them."""
    return [message for row in rows for message in load_messages(row["transcript"])]


_Position = tuple[int, int, int]
"""Of a message: when its run started and that run's number, which are the order of runs; and its index in there."""


async def read_turns(
    view: Statements, session_id: str, *, last: int | None, start: _Position | None = None
) -> Callable[[], TranscriptSlice]:
    """Reads finished turns; the answer makes the last messages of them, or all. It is not for the event loop."""
    if last is None:
        sql = f"SELECT transcript FROM runs WHERE session_id = ? AND {FINISHED_TURNS} ORDER BY started_at, number"
        whole = await view.all(sql, (session_id,))
        return lambda: TranscriptSlice(messages=messages_of(whole), runs=(), earlier=None)
    started_at, number, index = start or (_LAST, _LAST, 0)
    # Each turn has a message at least, and the one that was begun may give the beginning of this.
    bounds = (session_id, started_at, number if index else number - 1, last + 1, SLICE_SIZE)
    rows = await view.all(_LAST_TURNS, bounds)
    oldest = await view.one(_OLDEST_TURN, (session_id,))
    return partial(_slice_of, rows, oldest, limit=last, start=start)


def _slice_of(rows: Sequence[Row], oldest: Row | None, *, limit: int, start: _Position | None) -> TranscriptSlice:
    """The last ``limit`` messages of turns, which come newest first, or those before ``start``."""
    taken: list[Message] = []  # newest first
    runs: list[Run] = []
    size = 0
    end: str | None = None
    for row in rows:
        messages = load_messages(row["transcript"])
        if start is not None and (row["started_at"], row["number"]) == start[:2]:
            messages = messages[: start[2]]
        is_new = True
        for index in reversed(range(len(messages))):
            message = messages[index]
            length = size + _length(message)
            # Results belong to the message that called. A view that gets one without it keeps it until that comes.
            is_full = (len(taken) >= limit or length > SLICE_SIZE) and taken[-1].role in _SPEAKERS if taken else False
            if is_full or (taken and length > LARGEST_SLICE):
                end = f"{row['started_at']}.{row['number']}.{index + 1}"
                break
            taken.append(message)
            size = length
            if is_new:
                runs.append(run_of(row))
            is_new = False
        if end is not None:
            break
    else:
        last = rows[-1] if rows else None
        if last is not None and oldest is not None and last["number"] != oldest["number"]:
            end = f"{last['started_at']}.{last['number']}.0"
    return TranscriptSlice(messages=taken[::-1], runs=runs[::-1], earlier=end)


def _length(message: Message) -> int:
    return len(message.content) + len(message.reasoning) + sum(len(call.args) for call in message.tool_calls)


async def _position(view: Statements, session_id: str, cursor: str) -> _Position:
    parts = cursor.split(".")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        started_at, number, index = map(int, parts)
        return started_at, number, index
    # A view that has dropped what is far up knows the run at which it did.
    sql = "SELECT started_at, number FROM runs WHERE session_id = ? AND id = ? AND started_at IS NOT NULL"
    row = await view.one(sql, (session_id, cursor))
    if row is None:
        raise InvalidRequest("before: not a cursor of this conversation, nor one of its runs", field="before")
    return row["started_at"], row["number"], 0


def _number_cursor(cursor: str | None) -> int:
    if cursor is None:
        return _LAST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(cursor)
