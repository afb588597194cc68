"""What happened in a session since a time: what ran, and what did not. For the agent's tool and for people alike.

Not responsible for the words in which it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..model.sessions import OriginKind, Run

if TYPE_CHECKING:
    from ..ports.agent import Message, RecallAccess, SessionHistory, Unrun

MOST_RUNS = 200
EXCERPT = 300
"""Characters of a question or an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTurn:
    """A turn that took place."""

    run: Run
    prompt: str
    """The beginning of what was asked."""
    answer: str
    """The beginning of what was answered last."""
    tools: tuple[str, ...]
    """What it called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistorySummary:
    """What :func:`look_back` found, oldest first."""

    turns: Sequence[PastTurn]
    unrun: Sequence[Unrun]

    @property
    def missed(self) -> int:
        """Slots that did not run, those that are only counted included."""
        return sum(1 + row.firing.coalesced for row in self.unrun)


async def look_back(
    session_id: str,
    *,
    library: SessionHistory,
    recalls: RecallAccess,
    since: datetime | None,
    limit: int,
    leave_out: str | None = None,
) -> HistorySummary:
    """The last ``limit`` turns that ended, and slots that came, at ``since`` or later.

    ``leave_out``: the present run.
    """
    runs = [run for run in await library.runs(session_id, limit=MOST_RUNS) if run.id != leave_out]
    picked = [run for run in runs if since is None or (run.ended_at or run.created_at) >= since][:limit]
    messages = await library.messages(session_id) if picked else ()
    return HistorySummary(
        turns=[_turn(run, messages) for run in reversed(picked)],
        unrun=await recalls.unrun(session_id, since=since, limit=min(limit, MOST_RUNS)),
    )


async def since_last_here(
    session_id: str, library: SessionHistory, *, leave_out: str | None = None, read_at: datetime | None = None
) -> datetime | None:
    """When the user was last there: the end of the run of their last prompt, or when they read; None: never."""
    runs = await library.runs(session_id, limit=MOST_RUNS)
    last = next((run for run in runs if run.origin.kind is OriginKind.USER and run.id != leave_out), None)
    wrote_at = (last.ended_at or last.created_at) + timedelta(microseconds=1) if last else None
    return max((at for at in (wrote_at, read_at) if at is not None), default=None)


def _turn(run: Run, messages: Sequence[Message]) -> PastTurn:
    own = [one for one in messages if one.run_id == run.id]
    said = [one.content for one in own if one.role == "user"]
    answers = [one.content for one in own if one.role == "assistant" and one.content]
    return PastTurn(
        run=run,
        prompt=excerpt(said[0] if said else ""),
        answer=excerpt(answers[-1] if answers else ""),
        tools=tuple(call.name for one in own for call in one.tool_calls),
    )


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 1] + "…"
