"""What runs may ask for besides an answer of a model: the user's word, memory, attachments, what was spent.

``ToolContext`` carries these; ``orchestrator``, ``store`` and the composition root put real parts behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..model import Usage
from ..work import Attachment, Fact, Interrupt, InterruptKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A question that a run has to put to the user."""

    kind: InterruptKind
    message: str
    tool_call_id: str | None = None
    """As the log has it."""
    tool: str | None = None
    args: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None
    subagent_run_id: str | None = None
    expires_in: timedelta | None = None
    """None: after the server's ``approval_timeout``."""


class AskUser(Protocol):
    """Ask from within a run and wait, in memory: for what can not wait in the database (MCP elicitation, workers).

    Returns the interrupt with its final status; ``expired`` when nobody answered. Cancelling it withdraws the question.
    """

    async def __call__(self, ask: Ask) -> Interrupt: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeredPrompt:
    """A prompt that joins the run in progress."""

    command_id: str
    text: str
    attachments: tuple[Attachment, ...] = ()


class Steering(Protocol):
    """The prompts of mode ``steer`` that wait for the run's next request to the model."""

    @property
    def waiting(self) -> bool:
        """Whether there are any. Cheap; to be asked before each request."""
        ...

    async def take(self) -> Sequence[SteeredPrompt]:
        """Those that have come, now part of this run: on return that is in the log. Withdrawn ones are left out."""
        ...


class Memory(Protocol):
    """Facts about a user, full-text searchable. Implemented by ``store``."""

    async def add(self, text: str, *, owner: str, source: str, session_id: str | None = None) -> Fact:
        """Remember; a fact with the same text is returned as it is. Raises LimitReached, InvalidRequest."""
        ...

    async def facts(
        self, owner: str, *, query: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[Fact], str | None]:
        """A page, newest first; with ``query`` (words, any of them) the best match first. And the next cursor."""
        ...

    async def change(self, fact_id: str, text: str, *, owner: str) -> Fact:
        """Raises FactNotFound."""
        ...

    async def forget(self, fact_id: str, *, owner: str) -> None:
        """Raises FactNotFound."""
        ...

    async def forget_all(self, owner: str) -> int:
        """How many were forgotten."""
        ...


class Attachments(Protocol):
    """Files beside the database. Implemented by ``store``."""

    async def add(
        self,
        content: bytes,
        *,
        name: str | None,
        media_type: str | None,
        owner: str,
        session_id: str | None = None,
    ) -> Attachment:
        """Store, durable on return; the type is what the content is, not what it is said to be.

        It is kept as long as one of the sessions that show it; without ``session_id`` for a day, unless :meth:`keep`
        is called. Raises AttachmentRefused (too large, empty, a kind that is not taken), LimitReached.
        """
        ...

    async def keep(self, attachment_ids: Sequence[str], *, session_id: str) -> None:
        """A session shows them from now on."""
        ...

    async def find(self, attachment_id: str, *, owner: str) -> Attachment:
        """Raises AttachmentNotFound."""
        ...

    async def read(self, attachment_id: str, *, owner: str) -> bytes:
        """Raises AttachmentNotFound."""
        ...


class Spending(Protocol):
    """What was used up, for budgets and reports. Implemented by ``store``."""

    async def of_session(self, session_id: str) -> Usage: ...

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        """Of all the user's runs that were created since then, deleted sessions not included."""
        ...
