"""SQL for prompts, each stored in the run that answers it, and for the turns that these became: in a transaction
(``PromptRows``) and for readers."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..commands import Acceptance
from ..errors import RunNotFound
from ..markdown_text import closed
from ..model.notebooks import ClientNotebook, ShownNotebook
from ..model.sessions import Run, RunStatus
from ..ports.agent import PastTurn, PromptPart
from ..ports.store import RunBeginning
from ..ports.transactions import BeforeCommand, QueuedPrompt
from .rows import dump_parts, from_micros, load_messages, load_parts, run_of, session_of, to_micros
from .statements import Readers, Row, Statements

FINISHED_TURNS = "ended_at IS NOT NULL AND started_at IS NOT NULL"
"""Runs that were a turn of the conversation; not those that were withdrawn or merged into another."""
WAITS = "status IN ('queued', 'running', 'waiting') AND status = 'queued'"
"""The first half is for the partial index: SQLite does not see that it follows, and would read all the runs."""
_QUEUED = f"SELECT * FROM runs WHERE session_id = ? AND {WAITS} ORDER BY priority DESC, number"
_BEFORE_COMMAND = (
    "SELECT s.*, c.seq AS accepted_seq, c.run_id AS accepted_run,"
    f" EXISTS (SELECT 1 FROM runs WHERE session_id = ?1 AND {WAITS}) AS queued"
    " FROM (SELECT 1) AS always LEFT JOIN sessions s ON s.id = ?1 AND s.deleted_at IS NULL"
    " LEFT JOIN commands c ON c.session_id = ?1 AND c.command_id = ?2"
)
_OF_RUN = "(run_id = r.id OR run_id IN (SELECT id FROM runs m WHERE m.merged_into = r.id))"
_BEGINNING = (
    "SELECT s.*, r.user_id, r.command_id, r.prompt, r.parts,"
    f" EXISTS (SELECT 1 FROM shown_notebooks WHERE {_OF_RUN}) AS shown,"
    " EXISTS (SELECT 1 FROM interrupts WHERE run_id = r.id AND durable = 1) AS paused,"
    " EXISTS (SELECT 1 FROM recalls WHERE id = r.recall_id AND run IS NOT NULL) AS job"
    " FROM runs r LEFT JOIN sessions s ON s.id = r.session_id AND s.deleted_at IS NULL WHERE r.id = ?"
)
_SHOWN = (
    "SELECT at, notebook FROM shown_notebooks WHERE run_id = ?"
    " OR run_id IN (SELECT id FROM runs WHERE merged_into = ?) ORDER BY at DESC LIMIT 1"
)


class PromptRows(Statements):
    """Prompts in a transaction. Implements :class:`navi_jupyter.ports.transactions.PromptTx`."""

    async def before_command(self, session_id: str, command_id: str) -> BeforeCommand:
        row = (await self.all(_BEFORE_COMMAND, (session_id, command_id)))[0]  # one row, whatever there is
        acceptance = None
        if row["accepted_seq"] is not None:
            acceptance = Acceptance(command_id=command_id, seq=row["accepted_seq"], run_id=row["accepted_run"])
        session = None if row["id"] is None else session_of(row)
        return BeforeCommand(acceptance=acceptance, session=session, queued=bool(row["queued"]))

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
            "INSERT INTO runs (id, session_id, command_id, status, origin_kind, recall_id, origin_kernel, user_id,"
            " model, prompt, priority, first_seq, created_at, timezone, mode, parts)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run.id,
                run.session_id,
                run.command_id,
                run.status.value,
                run.origin.kind.value,
                run.origin.recall_id,
                run.origin.kernel_id,
                user_id,
                run.model,
                prompt,
                priority,
                first_seq,
                to_micros(run.created_at),
                run.timezone,
                mode,
                None if parts is None else dump_parts(parts),
            ),
        )

    async def repeat_run(self, interrupted_id: str, run: Run, *, priority: int = 0, mode: str = "enqueue") -> None:
        # Copied from the row, not from the command that is repeated: the user may have edited the prompt in the queue.
        await self.change(
            "INSERT INTO runs (id, session_id, command_id, status, origin_kind, recall_id, origin_kernel, user_id,"
            " model, prompt, priority, first_seq, created_at, timezone, mode, parts)"
            " SELECT ?, r.session_id, r.command_id, ?, r.origin_kind, r.recall_id, r.origin_kernel,"
            " r.user_id, ?, r.prompt, ?, s.head_seq + 1, ?, r.timezone, ?, r.parts"
            " FROM runs r JOIN sessions s ON s.id = r.session_id WHERE r.id = ?",
            (run.id, run.status.value, run.model, priority, to_micros(run.created_at), mode, interrupted_id),
        )
        # The scheduler finds the run of a firing through its command: it has to find the attempt that counts.
        await self.change(
            "UPDATE commands SET run_id = ? WHERE session_id = ? AND command_id = ?",
            (run.id, run.session_id, run.command_id),
        )
        # The model would read the same prompt twice; but what a user has added to the run must not be lost.
        await self.change(
            "UPDATE runs SET rolled_back = 1 WHERE id = ?"
            " AND NOT EXISTS (SELECT 1 FROM runs joined WHERE joined.merged_into = runs.id)",
            (interrupted_id,),
        )

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        return [_queued_of(row) for row in await self.all(_QUEUED, (session_id,))]

    async def change_prompt(self, run_id: str, parts: Sequence[PromptPart]) -> None:
        prompt = "\n\n".join(closed(part.text) for part in parts)
        await self.change(
            "UPDATE runs SET prompt = ?, parts = ? WHERE id = ? AND status = 'queued'",
            (prompt, dump_parts(parts), run_id),
        )

    async def merge_run(self, run_id: str, into: str, *, at: datetime) -> bool:
        changed = await self.change(
            "UPDATE runs SET status = 'completed', merged_into = ?, ended_at = ? WHERE id = ? AND status = 'queued'",
            (into, to_micros(at), run_id),
        )
        return changed == 1

    async def roll_back(self, run_id: str) -> None:
        await self.change("UPDATE runs SET rolled_back = 1 WHERE id = ?", (run_id,))

    async def keep_shown(self, run_id: str, command_id: str, shown: ShownNotebook) -> None:
        await self.change(
            "INSERT INTO shown_notebooks (run_id, command_id, at, notebook) VALUES (?, ?, ?, ?)",
            (run_id, command_id, to_micros(shown.at), shown.notebook.model_dump_json(exclude_defaults=True)),
        )

    async def forget_shown(self, run_id: str, command_id: str) -> None:
        await self.change("DELETE FROM shown_notebooks WHERE run_id = ? AND command_id = ?", (run_id, command_id))

    async def shown(self, run_id: str) -> ShownNotebook | None:
        return _shown_of(await self.one(_SHOWN, (run_id, run_id)))


_TURN = "id, status, command_id, prompt, parts, transcript, conversation"
# All that were a turn, by id, and what those after a place are.
_IS_NEW = "(started_at, number) > (?2, ?3)"
_PAST_TURNS = (
    f"SELECT started_at, number, {_IS_NEW} AS is_new, id, status,"
    + ",".join(
        f" CASE WHEN {_IS_NEW} THEN {name} END AS {name}"
        for name in ("command_id", "prompt", "parts", "transcript", "conversation")
    )
    + f" FROM runs WHERE session_id = ?1 AND {FINISHED_TURNS} AND rolled_back = 0 ORDER BY started_at, number"
)
_TURNS_BY_ID = f"SELECT {_TURN}, 0 AS is_new FROM runs WHERE id IN (SELECT value FROM json_each(?))"
_DECODED_HERE = 8  # turns; more are decoded in a thread


@dataclass(slots=True)
class _SessionTurns:
    turns: Mapping[str, PastTurn]  # by run
    last: tuple[int, int] = (-1, -1)  # of them, by start and number: turns begin in this order
    size: int = 0  # bytes


class _KnownTurns:
    """The turns of sessions that were read last. What a run was does not change when it is over, so the next start
    reads what has been added; which of them still count is read each time."""

    # Bytes in all. What is made of these turns for models is kept, too (``agent``).
    _MOST = 10 * 2**20
    _MOST_OF_ONE = 32 * 2**20  # of the session that was read last: it would be read as a whole each time

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _SessionTurns] = OrderedDict()

    def of(self, session_id: str) -> _SessionTurns:
        """What is known of a session."""
        return self._sessions.get(session_id) or _SessionTurns({})

    def keep(
        self, session_id: str, known: _SessionTurns, rows: Sequence[Row], read: Sequence[PastTurn]
    ) -> Mapping[str, PastTurn]:
        """All of a session, with those that were read now. Sessions that were read the longest time ago make room."""
        turns = {**known.turns, **{turn.run_id: turn for turn in read}} if read else known.turns
        if rows:
            size = known.size + sum(map(_size, read))
            last = (rows[-1]["started_at"], rows[-1]["number"])
            self._sessions[session_id] = _SessionTurns(turns, max(last, known.last), size)
            self._sessions.move_to_end(session_id)
        size = sum(one.size for one in self._sessions.values())
        while self._sessions and size > (self._MOST if len(self._sessions) > 1 else self._MOST_OF_ONE):
            size -= self._sessions.popitem(last=False)[1].size
        return turns


def _size(turn: PastTurn) -> int:
    return len(turn.conversation or b"") + sum(len(message.content) for message in turn.messages) + 1_000


class PromptReads(Readers):
    """Prompts for readers. Implements part of :class:`navi_jupyter.ports.store.RunQueries`."""

    def __init__(self) -> None:
        super().__init__()
        self._known_turns = _KnownTurns()

    async def past_turns(self, session_id: str) -> Sequence[PastTurn]:
        known = self._known_turns.of(session_id)
        rows = await self.fetch_all(_PAST_TURNS, (session_id, *known.last))
        turns = [row for row in rows if row["is_new"] or row["id"] not in known.turns]
        if missing := [row["id"] for row in turns if not row["is_new"]]:  # of one that was rolled back no more
            turns = [row for row in turns if row["is_new"]]
            turns += await self.fetch_all(_TURNS_BY_ID, (json.dumps(missing),))
        read = await asyncio.to_thread(_turns_of, turns) if len(turns) > _DECODED_HERE else _turns_of(turns)
        kept = self._known_turns.keep(session_id, known, rows, read)
        return [kept[row["id"]] for row in rows if row["id"] in kept]

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        return [_queued_of(row) for row in await self.fetch_all(_QUEUED, (session_id,))]

    async def beginning(self, run_id: str) -> RunBeginning:
        row = await self.fetch_one(_BEGINNING, (run_id,))
        if row is None:
            raise RunNotFound(f"There is no run {run_id}.")
        return RunBeginning(
            session=None if row["id"] is None else session_of(row),
            user_id=row["user_id"],
            prompt=row["prompt"],
            parts=load_parts(row),
            paused=bool(row["paused"]),
            shown=bool(row["shown"]),
            job=bool(row["job"]),
        )

    async def shown(self, run_id: str) -> ShownNotebook | None:
        return _shown_of(await self.fetch_one(_SHOWN, (run_id, run_id)))

    async def steered_sessions(self) -> Sequence[str]:
        rows = await self.fetch_all(
            f"SELECT session_id FROM runs WHERE {WAITS} AND mode = 'steer'{self.served.of_session('runs.session_id')}"
        )
        return [row["session_id"] for row in rows]


def _shown_of(row: Row | None) -> ShownNotebook | None:
    if row is None:
        return None
    notebook = ClientNotebook.model_validate_json(row["notebook"])
    return ShownNotebook(notebook=notebook, at=from_micros(row["at"]))


def _queued_of(row: Row) -> QueuedPrompt:
    return QueuedPrompt(run=run_of(row), mode=row["mode"], user_id=row["user_id"], parts=load_parts(row))


def _turns_of(rows: Sequence[Row]) -> list[PastTurn]:
    turns: list[PastTurn] = []
    for row in rows:
        parts = load_parts(row)
        turns.append(
            PastTurn(
                run_id=row["id"],
                status=RunStatus(row["status"]),
                prompt=row["prompt"],
                messages=load_messages(row["transcript"]),
                conversation=row["conversation"],
                attachments=tuple(attachment for part in parts for attachment in part.attachments),
                from_page=any(part.from_page for part in parts),
            )
        )
    return turns
