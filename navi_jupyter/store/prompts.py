"""SQL for prompts, each stored in the run that answers it: in a transaction (``PromptRows``) and for readers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from ..errors import RunNotFound
from ..markdown_text import closed
from ..model.notebooks import ClientNotebook, ShownNotebook
from ..model.sessions import Run
from ..ports.agent import PromptPart
from ..ports.transactions import QueuedPrompt
from .connection import Readers, Statements
from .rows import dump_parts, from_micros, load_parts, run_of, to_micros

_QUEUED = "SELECT * FROM runs WHERE session_id = ? AND status = 'queued' ORDER BY priority DESC, number"

_SHOWN = (
    "SELECT at, notebook FROM shown_notebooks WHERE run_id = ?"
    " OR run_id IN (SELECT id FROM runs WHERE merged_into = ?) ORDER BY at DESC LIMIT 1"
)


class PromptRows(Statements):
    """Prompts in a transaction. Implements :class:`navi_jupyter.ports.transactions.PromptTx`."""

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


class PromptReads(Readers):
    """Prompts for readers. Implements part of :class:`navi_jupyter.ports.store.RunQueries`."""

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

    async def shown(self, run_id: str) -> ShownNotebook | None:
        return _shown_of(await self.fetch_one(_SHOWN, (run_id, run_id)))

    async def steered_sessions(self) -> Sequence[str]:
        rows = await self.fetch_all("SELECT session_id FROM runs WHERE status = 'queued' AND mode = 'steer'")
        return [row["session_id"] for row in rows]


def _shown_of(row: sqlite3.Row | None) -> ShownNotebook | None:
    if row is None:
        return None
    notebook = ClientNotebook.model_validate_json(row["notebook"])
    return ShownNotebook(notebook=notebook, at=from_micros(row["at"]))


def _queued_of(row: sqlite3.Row) -> QueuedPrompt:
    return QueuedPrompt(run=run_of(row), mode=row["mode"], user_id=row["user_id"], parts=load_parts(row))
