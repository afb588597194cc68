"""What happened in a session since a time: the runs that ended, and the firings of recalls that did not run.

For the agent's tool and for people alike. Not responsible for the words in which it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..model.sessions import OriginKind, Run, RunStatus
from ..text import one_line

if TYPE_CHECKING:
    from ..ports.agent import Message, RecallAccess, SessionHistory, Unrun

MAX_RUNS = 200  # runs of a session that are looked through, the latest
EXCERPT = 300  # characters of a question or an answer


@dataclass(frozen=True, kw_only=True, slots=True)
class SummarizedTurn:
    """One run, and the beginnings of its prompt and of its last answer."""

    run: Run
    prompt: str
    answer: str
    tools: tuple[str, ...]  # the names of the tools that it called


@dataclass(frozen=True, kw_only=True, slots=True)
class HistorySummary:
    """The part of a session's history that :func:`summarize_history` found, oldest first."""

    turns: Sequence[SummarizedTurn]
    unrun: Sequence[Unrun]

    @property
    def missed(self) -> int:
        """Planned times that did not run, those that are only counted included."""
        return sum(1 + row.firing.coalesced for row in self.unrun)


async def summarize_history(
    session_id: str,
    *,
    library: SessionHistory,
    recalls: RecallAccess,
    since: datetime | None,
    limit: int,
    leave_out: str | None = None,
) -> HistorySummary:
    """The last ``limit`` runs that ended, and the firings that did not run, at ``since`` or later.

    ``leave_out``: the present run.
    """
    runs = [run for run in await library.runs(session_id, limit=MAX_RUNS) if run.id != leave_out]
    picked = [run for run in runs if since is None or (run.ended_at or run.created_at) >= since][:limit]
    messages = await library.messages(session_id) if picked else ()
    return HistorySummary(
        turns=[_turn(run, messages) for run in reversed(picked)],
        unrun=await recalls.unrun(session_id, since=since, limit=min(limit, MAX_RUNS)),
    )


async def since_last_here(
    session_id: str, library: SessionHistory, *, leave_out: str | None = None, read_at: datetime | None = None
) -> datetime | None:
    """When the user was last there: the end of the run of their last prompt, or when they read; None: never.

    A run that was cut by the end of its server is what they have to read of: they were there when they asked.
    """
    runs = await library.runs(session_id, limit=MAX_RUNS)
    last = next((run for run in runs if run.origin.kind is OriginKind.USER and run.id != leave_out), None)
    # The instant after, so that this run itself is not among those since then.
    ended_at = None if last is None or last.status is RunStatus.INTERRUPTED else last.ended_at
    wrote_at = (ended_at or last.created_at) + timedelta(microseconds=1) if last else None
    return max((at for at in (wrote_at, read_at) if at is not None), default=None)


def _turn(run: Run, messages: Sequence[Message]) -> SummarizedTurn:
    own = [one for one in messages if one.run_id == run.id]
    prompts = [one.content for one in own if one.role == "user"]
    answers = [one.content for one in own if one.role == "assistant" and one.content]
    return SummarizedTurn(
        run=run,
        prompt=one_line(prompts[0] if prompts else "", EXCERPT),
        answer=one_line(answers[-1] if answers else "", EXCERPT),
        tools=tuple(call.name for one in own for call in one.tool_calls),
    )
