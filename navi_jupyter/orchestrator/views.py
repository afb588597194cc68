"""What the orchestrator tells about sessions and about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..clock import now
from ..model.runs import Interrupt
from ..model.sessions import Run, Session, SessionCreate, Usage
from ..ports.transactions import QueuedPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionView:
    """A session with what goes on in it."""

    session: Session
    head_seq: int
    run: Run | None
    queue: Sequence[Run]
    prompts: Sequence[QueuedPrompt]
    """The queue again, each with what it is to answer."""
    approvals: Sequence[Interrupt]
    """Questions that are open."""
    usage: Usage
    """Of all the session's runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Numbers for health and metrics."""

    sessions: int
    """In memory."""
    runs: int
    """In progress in this process."""
    followers: int
    delivered: int
    """Envelopes handed to followers since the start."""


def default_title(request: SessionCreate) -> str:
    """What a session is called that was given no title."""
    if request.notebook_path:
        return request.notebook_path.rsplit("/", 1)[-1].removesuffix(".ipynb")[:200] or "Session"
    return f"Session of {now():%Y-%m-%d %H:%M}"
