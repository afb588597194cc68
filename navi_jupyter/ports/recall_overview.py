"""What an owner's recalls did and will do, over all sessions, as the store reads it: each docstring is a contract.

Not responsible for days and zones (``server.rest.overview``): a day is two instants here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..model.recalls import Firing, Recall


@dataclass(frozen=True, kw_only=True, slots=True)
class OverviewEntry:
    """A firing with what a list over all sessions shows beside it."""

    firing: Firing
    title: str  # of its recall
    session_id: str
    session_title: str | None  # None: the session was deleted
    read_at: datetime | None  # when the owner last saw the session
    asks: bool = False  # its run waits for an answer
    ran: int = 0  # how many firings of its recall ended well on that day, this one included
    failed: int = 0
    missed: int = 0  # did not run: skipped, missed, expired


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRecall:
    """A recall that is not over, with the title of its session."""

    recall: Recall
    session_title: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OverviewRows:
    """One consistent view of an owner's recalls."""

    open: int  # recalls that are not over
    paused: int  # of these
    days: Sequence[Sequence[OverviewEntry]]
    """Of each day that was asked for: the firing of each recall that ended last on it, the latest first."""
    active: Sequence[OverviewEntry]  # firings that are due, starting or running, the oldest first
    coming: Sequence[OpenRecall]  # those with a next time, the soonest first
    waiting: Sequence[OpenRecall]  # those that wait for an event, or are paused, the newest first


class RecallOverviewStore(Protocol):
    """The part of the store that reads over all sessions of an owner."""

    async def recall_overview(
        self,
        owner: str,
        *,
        now: datetime,
        days: Sequence[tuple[datetime, datetime]],
        coming: int,
        waiting: int,
        per_day: int,
    ) -> OverviewRows:
        """``days``: from the first instant of each to the one that is no more of it. ``coming``, ``waiting`` and
        ``per_day``: how many at most. Of a day, its last 10,000 firings are looked at."""
