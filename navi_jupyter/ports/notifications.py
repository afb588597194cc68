"""Where notifications meet the store: each Protocol's docstring is its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from ..model.sessions import Run
from .recalls import Claimed

Held = Literal["quiet", "rate", "silence"]
"""Why a notice waits: quiet hours, too many messages within the hour, a target that takes none just now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One firing, or for a webhook one run, of which one target is to be notified."""

    number: int
    firing_id: str | None  # None: it is about a run alone
    owner: str
    target: str
    attempts: int  # messages that were begun for it before, whether or not anybody lived to see how they ended
    held: Held | None  # why it waited
    recall_id: str | None  # None: of a run that no recall has started
    recall_title: str  # of such a run: the session's title
    session_id: str
    session_title: str
    zone: str  # IANA zone of the session
    quiet: str | None  # the recall's own quiet hours
    status: str  # of the firing: ``succeeded``, ``failed``, ``skipped``, …; else of the run
    reason: str | None
    slot: datetime  # of the firing; else when the run ended
    answer: str  # the last message of the run; empty when there was no run
    error: str | None  # why the run failed
    run: Run | None = None
    run_id: str | None = None  # set exactly when ``firing_id`` is None
    notebook_path: str | None = None  # of the session
    kind: str = "auto"  # of the firing
    lateness_ms: int | None = None  # of the firing
    ended_at: datetime | None = None  # of the firing


EventKind = Literal["firing", "run"]
"""What webhooks can get without being named by a recall."""
Wanted = Mapping[EventKind, Sequence[str]]
"""The targets that get every event of a kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRecord:
    """What became of the messages to a target."""

    waiting: int = 0
    sent: int = 0
    failed: int = 0
    last_sent_at: datetime | None = None
    last_error: str | None = None  # of the last one, when that failed


class NoticeStore(Protocol):
    """Notices, durable. Every method is one transaction."""

    async def add(self, claimed: Sequence[tuple[Claimed, Sequence[str]]], *, now: datetime) -> None:
        """A notice for each firing and each of its targets, due now; those that are there already are left alone."""

    async def last_ended(self) -> int | None:
        """The number of the last thing that has ended and that :meth:`add_ended` has not looked at; None: nothing."""

    async def add_ended(
        self,
        wanted: Wanted,
        *,
        own: Callable[[Mapping[str, str]], Wanted],
        up_to: int,
        now: datetime,
        limit: int,
        most: int,
    ) -> int:
        """Make notices, due now, of what has ended, for the targets that want its kind; how many had ended, at most
        ``limit``. One that would be more than the ``most`` that may wait for its target is recorded as failed.

        ``wanted`` are the targets of all users, ``own`` those of one, by the user's own entries (name -> JSON): they
        get what is this user's, and those of all with the name of an entry get nothing of this user's.
        """

    async def settle(self, firing_ids: Iterable[str]) -> Sequence[tuple[str, str | None]]:
        """Those of the firings whose notices are all final, each with the error of a target that failed."""

    async def next_due(self) -> datetime | None:
        """When there is something to send."""

    async def take(self, *, by: str, now: datetime, until: datetime, limit: int) -> Sequence[Notice]:
        """Due notices, oldest first, taken until then under a name: no other taker gets them before."""

    async def attempt(self, numbers: Iterable[int], *, by: str, until: datetime) -> Sequence[int]:
        """A message about them begins, which counts even when nothing is heard of it again. Those that are still taken
        by ``by``, until then: the others belong to somebody who found them due meanwhile."""

    async def sent_at(self, owner: str, target: str, *, since: datetime) -> Sequence[datetime]:
        """When messages went to the target since then; a digest is one."""

    async def hold(self, numbers: Iterable[int], *, by: str, until: datetime, why: Held | None) -> None:
        """Not before then, and together; with no reason, as before. No effect on what somebody else has taken."""

    async def sent(self, numbers: Iterable[int], *, message_id: str, at: datetime) -> None:
        """They were sent, in one message; only those taken under that name."""

    async def failed(
        self, numbers: Iterable[int], *, by: str, error: str, at: datetime, again_at: datetime | None
    ) -> None:
        """The message did not go. They are tried again then, or (None) given up; not what others have taken."""

    async def records(self, owner: str) -> Mapping[str, TargetRecord]:
        """What became of the owner's messages, by target."""
