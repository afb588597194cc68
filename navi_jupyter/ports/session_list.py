"""The list of a user's sessions, where it meets the store: pages, readers, copies, search; the contracts and values.

Not responsible for what a single session does (``store``, ``transactions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from ..model.sessions import Session, Usage
from .agent import Message


class SessionFilter(StrEnum):
    """Which of the sessions that a user can see are listed."""

    ACTIVE = "active"  # the user's own, and those of others that are shared with the user; neither archived nor deleted
    ARCHIVED = "archived"
    DELETED = "deleted"  # those that can still be restored
    SHARED = "shared"  # those of others alone
    ALL = "all"  # active and archived


class SessionActivity(StrEnum):
    """What a session is doing."""

    IDLE = "idle"
    RUNNING = "running"
    WAITING = "waiting"  # for an answer of its user


@dataclass(frozen=True, kw_only=True, slots=True)
class SnippetPart:
    """A piece of a text, and whether it is what was searched for."""

    text: str
    match: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TextHit:
    """A message, or the title of a session, that has what was searched for."""

    session_id: str
    run_id: str | None  # None: it is the title
    message_id: str  # empty: it is the title
    role: str  # ``user``, ``assistant`` or ``title``
    at: datetime
    snippet: tuple[SnippetPart, ...]
    count: int = 1  # of the session's hits, in a list of sessions


@dataclass(frozen=True, kw_only=True, slots=True)
class UntitledSession:
    """A session that no user has titled, and its first exchange."""

    session_id: str
    model: str
    run_id: str  # its first run that a user has asked for and that is over
    prompt: str
    answer: str
    completed: bool  # whether that run has answered


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRun:
    """A run of a session that is over, as a copy of the session is made from it."""

    run_id: str
    merged_into: str | None
    messages: tuple[Message, ...]
    frames: tuple[str, ...]  # its envelopes, as JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCopy:
    """A run of a session's copy. What is not here is as in the run that it was copied from."""

    source_id: str
    run_id: str
    merged_into: str | None
    messages: tuple[Message, ...]
    first_seq: int
    is_cut: bool  # it ends before the other one did: models read of it what its messages have


class SessionListTx(Protocol):
    """One transaction's view of what belongs to the list of sessions."""

    async def deleted_session(self, session_id: str) -> Session | None:
        """A session that was deleted and can still be restored."""

    async def begin_removal(self, session_id: str, *, deleted_before: datetime | None = None) -> bool:
        """Have a session that was deleted (before this) be removed for good: it cannot be restored from now on. Whether
        there is such a one."""

    async def remove_piece(self, session_id: str) -> bool:
        """Remove some rows of a session whose removal has begun; False: ``delete_session`` takes the rest."""

    async def share(self, session_id: str, user_id: str, *, at: datetime) -> None:
        """Let this user read the session. Without effect where that is so."""

    async def unshare(self, session_id: str, user_id: str) -> bool:
        """Take that back; whether it was so."""

    async def copy_runs(
        self, source_id: str, session_id: str, copies: Sequence[RunCopy], frames: Sequence[tuple[str, str]]
    ) -> None:
        """Add runs that are over to a new session. Nothing of them is counted as used up again.

        ``frames``: the new session's log from its first event on, each with its run: (run, envelope as JSON).
        """

    async def add_usage(self, run_id: str, usage: Usage) -> None:
        """Count what was used up for a run after its end."""


class SessionListReads(Protocol):
    """What is read of the list of sessions, and how its search is kept."""

    async def sessions(
        self,
        user_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        notebook_path: str | None = None,
        show: SessionFilter = SessionFilter.ACTIVE,
    ) -> tuple[Sequence[Session], str | None]:
        """A page, most recently used first, and the cursor of the next one."""

    async def sessions_of(self, session_ids: Iterable[str]) -> Sequence[Session]:
        """Those that exist, in that order."""

    async def activities(self, session_ids: Iterable[str]) -> Mapping[str, SessionActivity]:
        """What they are doing; those that are idle are left out."""

    async def readers(self, session_id: str) -> Sequence[str]:
        """The users with whom a session is shared, by name."""

    async def is_shared(self, session_id: str, user_id: str) -> bool:
        """Whether it is shared with this user."""

    async def search(
        self, user_id: str, query: str, *, limit: int, cursor: str | None = None, session_id: str | None = None
    ) -> tuple[Sequence[TextHit], str | None]:
        """Of each session that the user can read and that has all words of ``query``, in one message or in its title,
        the newest message that has them; the newest session first. ``session_id``: every such message of that session.

        Whatever ``query`` is, it is no syntax error. Raises InvalidRequest for a strange cursor.
        """

    async def is_indexed(self) -> bool:
        """Whether everything is in the search."""

    async def untitled(self, *, session_id: str | None = None, limit: int = 20) -> Sequence[UntitledSession]:
        """Sessions with the title of a new one and a first exchange that is over; ``session_id``: that one alone."""

    async def finished_runs(self, session_id: str) -> Sequence[SourceRun]:
        """All runs that are over, in the order of the conversation, with those that were merged into them."""

    async def deleted_before(self, at: datetime, *, limit: int) -> Sequence[str]:
        """Sessions that were deleted before this, the longest ago first; before them those whose removal has begun."""


class TextIndex(Protocol):
    """What the search knows. It gets to know what is new in small pieces, beside everything else."""

    async def take_in(self, *, limit: int) -> int:
        """Take finished runs and new titles into the search, the newest first, ``limit`` runs at most; how many that
        were, of both."""
