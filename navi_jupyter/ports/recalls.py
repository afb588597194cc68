"""Where recalls meet the store, the sessions and the clock: each Protocol's docstring is its contract.

A :class:`RecallState` is a recall with what only the state machine knows of it; a :class:`FiringState` likewise.
Both are frozen: a transition makes new ones, and the store saves them in the transaction that read them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from ..events import Draft
from ..model import Firing, FiringStatus, Recall, Run
from . import SessionTx

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallState:
    """A recall as the machine sees it."""

    recall: Recall
    owner: str
    due_at: datetime | None
    """The first slot that is not in the ledger yet; None when there are no more. Kept while paused. Only grows,
    except by an edit of the schedule."""
    planned: int = 0
    """Automatic firings in the ledger that ran or are to run: what ``max_fires`` limits."""
    outcome: FiringStatus | None = None
    """How the last automatic firing ended."""
    version: int = 0
    """Grows with each change, so that a plan made outside a transaction can be checked inside one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FiringState:
    """A firing as the machine sees it."""

    firing: Firing
    session_id: str
    command_id: str
    """Of the prompt that delivers it: the same for every try of one attempt, so that a repetition is a no-op."""
    key: str = ""
    """Empty for an automatic firing; for a manual one its identity (the client's idempotency key, else its id)."""
    fence: int = 0
    """Grows with each claim, release and finish. What was decided under an older one is void."""
    lease_owner: str | None = None
    lease_until: datetime | None = None
    crashes: int = 0
    """Deliveries that died half-way."""
    wait_until: datetime | None = None
    """After this it is not started any more."""
    stop_at: datetime | None = None
    """While running: when its run is to be stopped (``policy.timeout``)."""
    deferred: bool = False
    """It waits because its session was busy; an idle session wakes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A firing that this server has the lease of, with what its delivery needs."""

    firing: FiringState
    recall: RecallState


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallAudit:
    """What should be zero, and how many recalls are not over."""

    open: int = 0
    overdue: int = 0
    """Active recalls whose slot passed long ago without being planned."""
    stuck: int = 0
    """Firings marked as running whose run is over or gone."""
    orphans: int = 0
    """Claims whose lease ended long ago."""
    aimless: int = 0
    """Pending recalls with neither a next slot nor an open firing."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        """Return once ``signal`` is set or ``until`` has come, whichever is first."""
        ...


class RecallTx(SessionTx, Protocol):
    """One transaction's view of recalls and their ledger, beside that of sessions and logs."""

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """``append`` for many sessions; those that are gone are left out."""
        ...

    async def add_recalls(self, states: Iterable[RecallState]) -> None: ...

    async def count_open_recalls(self, owner: str) -> int:
        """The owner's recalls that are not over."""
        ...

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        """Those that exist, by id."""
        ...

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        """The ``version`` of those that exist."""
        ...

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        """Store each under its version + 1; how many. One whose version is not the stored one is left alone."""
        ...

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        """:meth:`save_recalls` without what only users change: title, message, schedule and policy stay."""
        ...

    async def add_firings(self, states: Iterable[FiringState]) -> None:
        """Insert; a slot (or manual key) that the ledger has already is left alone."""
        ...

    async def save_firings(self, states: Iterable[FiringState]) -> None:
        """Store each, unless its fence is lower than the stored one."""
        ...

    async def firing_states(self, firing_ids: Iterable[str]) -> dict[str, FiringState]:
        """Those that exist, by id."""
        ...

    async def firings_of_commands(self, command_ids: Iterable[str]) -> Sequence[FiringState]:
        """The firings that these commands deliver (or delivered, in an earlier attempt of a still open firing)."""
        ...

    async def manual_firing(self, recall_id: str, key: str) -> FiringState | None:
        """The manual firing of that key."""
        ...

    async def open_firings(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        """All firings of these recalls that are not over."""
        ...

    async def claim(self, *, now: datetime, server_id: str, lease_until: datetime, limit: int) -> Sequence[Claimed]:
        """Take the lease of due firings (fence + 1), oldest slot first. Those of paused recalls only when manual."""
        ...

    async def lost_claims(self, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        """Claims of others whose lease has ended or whose server is gone, and own ones whose lease has ended."""
        ...

    async def wake_deferred(self, session_ids: Iterable[str], *, now: datetime) -> int:
        """Make the oldest deferred firing of each session due now; how many there were."""
        ...

    async def session_of_owner(self, session_id: str, owner: str) -> bool:
        """Whether there is such a session and it is the owner's."""
        ...


class RecallStore(Protocol):
    """Recalls, durable. Writes as for :class:`navi_jupyter.ports.SessionStore`."""

    async def write(self, unit: Callable[[RecallTx], Awaitable[T]], *, durable: bool = False) -> T:
        """Run ``unit`` in a transaction; its result once that is committed and its events are published."""
        ...

    async def recall_state(self, recall_id: str) -> RecallState | None: ...

    async def recalls(
        self,
        owner: str,
        *,
        session_id: str | None = None,
        status: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[Sequence[Recall], str | None]:
        """A page, newest first, and the cursor of the next one. Raises InvalidRequest for a strange cursor."""
        ...

    async def recalls_in(self, session_id: str) -> Sequence[Recall]:
        """The session's recalls: open ones, the soonest first, then those that are over, the newest first."""
        ...

    async def firings(
        self, recall_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[Firing], str | None]:
        """A page of the ledger, newest slot first, and the cursor of the next one."""
        ...

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        """Active recalls with a slot at or before ``now``, the longest overdue first."""
        ...

    async def firings_open(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        """All firings of these recalls that are not over."""
        ...

    async def deferred_sessions(self) -> set[str]:
        """Sessions that firings wait for."""
        ...

    async def next_wake(self) -> datetime | None:
        """The earliest instant at which there is something to do."""
        ...

    async def ended_firings(self, *, limit: int) -> Sequence[Run]:
        """Final runs of firings that are still marked as claimed or running."""
        ...

    async def overrunning(self, now: datetime, *, limit: int) -> Sequence[Claimed]:
        """Running firings past their ``stop_at``."""
        ...

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        """Count what is and what should not be."""
        ...
