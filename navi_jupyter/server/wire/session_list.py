"""Bodies about the list of sessions: its pages, what a search finds, forks and readers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from ...model.base import Instant, Title, Value
from ...model.sessions import Session
from ...ports.session_list import SessionActivity
from .sessions import Access


class HitPart(Value):
    """A piece of a text, and whether it is what was searched for."""

    text: str
    match: bool


class SearchHit(Value):
    """Where something was found: a message, or the title of a session."""

    role: Literal["user", "assistant", "title"]
    message_id: str | None  # null: it is the title
    run_id: str | None
    at: Instant
    snippet: tuple[HitPart, ...]


class SessionInfo(Session):
    """A session as it is listed."""

    unread: int
    """Runs that ended after what its owner has seen, and that the owner did not wait for: of recalls, of Navi itself,
    or ended while no view followed the session."""
    activity: SessionActivity
    access: Access
    hit: SearchHit | None = None  # in a search: the newest text of it that was found
    hits: int = 0  # in a search: how many of its messages were found, and its title


class SessionPage(Value):
    """``GET sessions``: most recently used first; in a search, the session with the newest find first."""

    sessions: tuple[SessionInfo, ...]
    next: str | None
    complete: bool = True
    """False in a search while older conversations are still being taken into it: a later one may find more."""


class HitPage(Value):
    """``GET sessions/{sid}/search``: the newest first."""

    hits: tuple[SearchHit, ...]
    next: str | None
    complete: bool  # as in :class:`SessionPage`


class ForkRequest(Value):
    """Body of ``POST sessions/{sid}/fork``."""

    message_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """The last message that the new session has; left out: all that is over."""
    title: Title | None = None


class ShareRequest(Value):
    """Body of ``POST sessions/{sid}/share`` and ``unshare``."""

    user: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    """The name with which that user logs in to this server."""


class ReaderList(Value):
    """With whom a session is shared, to read."""

    readers: tuple[str, ...]
