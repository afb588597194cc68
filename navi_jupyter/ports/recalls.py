"""Where recalls meet the store, the sessions and the clock: each Protocol's docstring is its contract.

A :class:`RecallState` is a recall with what only the state machine knows of it; a :class:`FiringState` likewise.
Both are frozen: a transition makes new ones, and the store saves them in the transaction that read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from ..clock import timestamp
from ..events import Draft
from ..model.recalls import Firing, FiringStatus, NotebookJob, Recall, RecallStatus, When
from ..model.sessions import Run, Session
from .agent import RecallAccess, Unrun
from .recall_overview import RecallOverviewStore
from .transactions import SessionTx

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallState:
    """A recall as the machine sees it."""

    recall: Recall
    owner: str
    due_at: datetime | None
    """The first slot that is not in the ledger yet; None when there are no more. Kept while paused. Only grows,
    except by an edit of the schedule."""
    planned: int = 0  # Automatic firings in the ledger that ran or are to run: what ``max_fires`` limits.
    outcome: FiringStatus | None = None  # How the last automatic firing ended.
    version: int = 0  # Grows with each change, so that a plan made outside a transaction can be checked inside one.


@dataclass(frozen=True, kw_only=True, slots=True)
class FiringState:
    """A firing as the machine sees it."""

    firing: Firing
    session_id: str
    command_id: str
    """Of the prompt that delivers it: the same for every try of one attempt, so that a repetition is a no-op."""
    key: str = ""
    """Empty for an automatic firing; for a manual one its identity (the client's idempotency key, else its id)."""
    fence: int = 0  # Grows with each claim, release and finish. What was decided under an older one is void.
    lease_owner: str | None = None
    lease_until: datetime | None = None
    crashes: int = 0  # Deliveries that died half-way.
    wait_until: datetime | None = None  # After this it is not started any more.
    stop_at: datetime | None = None  # While running: when its run is to be stopped (``policy.timeout``).
    deferred: bool = False  # It waits because its session was busy; an idle session wakes it.
    detail: str | None = None
    """Of an event: what its prompt has besides the message (the cell's source, output, traceback ...)."""
    attachments: tuple[str, ...] = ()  # Of an event: ids of images that go along.

    @property
    def in_queue(self) -> bool:
        """Its session has the prompt, in its queue: no server has to deliver it any more, and its run has not begun."""
        return self.firing.status is FiringStatus.CLAIMED and self.lease_owner is None

    def command_of(self, attempt: int) -> str:
        """The command of one of its attempts, the first being 0.

        A retry is a prompt of its own: the session would swallow a second one of the same name.
        """
        first = self.command_id.removesuffix(f":r{self.firing.attempt}")
        return f"{first}:r{attempt}" if attempt else first


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A firing that this server has the lease of, with what its delivery needs."""

    firing: FiringState
    recall: RecallState


@dataclass(frozen=True, kw_only=True, slots=True)
class Absence:
    """What a session's recalls did not do while no server was there."""

    since: datetime  # The first slot of it.
    late: int = 0  # Slots that run now, late.
    missed: int = 0
    """Slots that do not run: missed, skipped, or coalesced into a later one; and ends of waiting for an event."""

    def and_also(self, other: Absence) -> Absence:
        """Both together."""
        return Absence(
            since=min(self.since, other.since), late=self.late + other.late, missed=self.missed + other.missed
        )

    def wire(self) -> dict[str, object]:
        """For ``navi.session``."""
        return {"since": timestamp(self.since), "late": self.late, "missed": self.missed}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallAudit:
    """What should be zero, and how many recalls are not over."""

    open: int = 0
    awake: bool = False  # Whether one of these is not paused.
    overdue: int = 0  # Active recalls whose slot passed long ago without being planned.
    stuck: int = 0  # Firings marked as running whose run is over or gone.
    orphans: int = 0  # Claims whose lease ended long ago.
    aimless: int = 0  # Pending recalls with neither a next slot nor an open firing.


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """Something that a ``when`` recall waits for has happened."""

    recall_id: str
    key: str  # Identifies it: the same occurrence, reported twice (by two servers, after a restart), fires once.
    at: datetime
    detail: str  # For the prompt: at most 20,000 characters of Markdown.
    attachments: tuple[str, ...] = ()  # Ids of images that go along.


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """When a session's owner last was there."""

    wrote_at: datetime | None = None  # The last prompt of the user (not of a recall).
    read_at: datetime | None = None  # When the user's mark in the session last moved.

    def ends(self, recall: Recall) -> str | None:
        """Why the recall is not wanted any more (``cancel_on``), if so: the user was there after it was made.

        The only place that decides it. It stands here, below the store, because the transaction that would start the
        firing asks it too (``RecallTx.may_deliver``).
        """
        for cause, at, why in (
            ("user_message", self.wrote_at, "you wrote in the session"),
            ("read", self.read_at, "you have read the session"),
        ):
            if cause in recall.policy.cancel_on and at is not None and at > recall.created_at:
                return why
        return None


class Occurrences(Protocol):
    """Where the watcher of notebooks reports what happened. Implemented by ``scheduling``."""

    async def open_whens(self, owner: str | None = None) -> Sequence[RecallState]:
        """The ``when`` recalls that are not over and not paused, of everybody or one owner: what is to be watched."""

    async def record(self, happened: Happened) -> bool:
        """Put it into the ledger and have it fire; durable. False when it was there already, or the recall is over,
        paused, cooling down, or past ``until`` or ``max_fires`` (then the ledger has the reason)."""

    async def report_failure(self, recall_id: str, reason: str) -> None:
        """The expression raises, the kernel is gone, the path is outside: one event in the session; it stays open."""

    async def expire(self, happened: Happened, reason: str) -> bool:
        """What a one-time recall waits for cannot happen any more: it expires, and its ledger has the reason. Durable.

        ``happened``: which recall, and the key under which the row is written once. False when there was nothing to
        end.
        """

    async def narrow(self, recall_id: str, before: When, after: When) -> bool:
        """Store what a recall waits for now that it is known, so that the next server to watch it knows it too.

        False when its schedule is not ``before`` any more, or it does not wait any more.
        """

    async def follow(
        self, source: str, target: str, session_id: str | None = None, *, owner: str | None = None
    ) -> None:
        """A file or folder has another path now: recalls that wait for files in it wait for them there.

        ``session_id``, ``owner``: only those of that session, of that owner.
        """


class ClockTx(Protocol):
    """What a clock that was ahead has left in the ledger."""

    async def times_that_ran(self, recall_id: str, *, after: datetime) -> set[datetime]:
        """The slots of the schedule behind ``after`` for which something was started: a clock was ahead."""

    async def drop_times(self, recall_id: str, *, after: datetime) -> int:
        """Remove the rows of slots of the schedule behind ``after`` for which nothing was started; how many waited."""

    async def shift_times(self, *, now: datetime, back: timedelta, lease_until: datetime) -> None:
        """The clock was set back: end claims at ``lease_until`` at most, and what began behind ``now`` as much earlier
        (time limits of runs, waiting that was put off, questions to the user)."""


class FiringTx(ClockTx, SessionTx, Protocol):
    """One transaction's view of the ledger, beside that of sessions and logs."""

    async def add_firings(self, states: Iterable[FiringState]) -> int:
        """Insert; how many. A slot (or key) that the ledger has already is left alone."""

    async def save_firings(self, states: Iterable[FiringState]) -> None:
        """Store each, unless its fence is lower than the stored one."""

    async def firing_states(self, firing_ids: Iterable[str]) -> dict[str, FiringState]:
        """Those that exist, by id."""

    async def firings_beside(self, firing_ids: Sequence[str], command_ids: Sequence[str]) -> Sequence[FiringState]:
        """These firings, and those that these commands deliver; with all firings of their recalls that are not over."""

    async def keyed_firing(self, recall_id: str, kind: str, key: str) -> FiringState | None:
        """The ``manual`` or ``event`` firing of that key."""

    async def last_slots(self, recall_ids: Iterable[str]) -> dict[str, datetime]:
        """The latest slot of the schedule that the ledger has, of each recall that has one."""

    async def event_near(self, recall_id: str, at: datetime, *, within: timedelta) -> datetime | None:
        """The slot of an event less than ``within`` before or after ``at`` that fired, or is to (not of one that was
        only written down)."""

    async def prune_firings(self, recall_id: str, *, before: datetime, limit: int) -> int:
        """Remove rows of slots before ``before`` that are over and notified of; how many."""

    async def open_firings(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        """All firings of these recalls that are not over."""

    async def claim(self, *, now: datetime, server_id: str, lease_until: datetime, limit: int) -> Sequence[Claimed]:
        """Take the lease of due firings (fence + 1), oldest slot first. Those of paused recalls only when manual."""

    async def lost_claims(self, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        """Claims of others whose lease has ended or whose server is gone, and own ones whose lease has ended."""

    async def wake_deferred(self, session_ids: Iterable[str], *, now: datetime) -> int:
        """Make the oldest deferred firing of each session due now; how many there were."""


class DeletedRecallTx(Protocol):
    """What the recalls of a deleted session were before, in one transaction."""

    async def note_statuses(self, session_id: str) -> None:
        """Before the session's recalls are cancelled: remember the status of those that are not over."""

    async def cancelled_with(self, session_id: str, reason: str) -> Sequence[tuple[RecallState, RecallStatus]]:
        """The session's recalls that were cancelled for this reason, each with the status that was remembered."""


class RecallTx(FiringTx, DeletedRecallTx, Protocol):
    """One transaction's view of recalls, beside that of their ledger."""

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """``append`` for many sessions; those that are gone are left out."""

    async def add_recalls(self, states: Iterable[RecallState]) -> None: ...

    async def room_for_recalls(self, owner: str, session_ids: Sequence[str]) -> tuple[int, Collection[str]]:
        """How many of the owner's recalls are not over, and which of these sessions are the owner's."""

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        """Those that exist, by id."""

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        """The ``version`` of those that exist."""

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        """Store each under its version + 1; how many. One whose version is not the stored one is left alone."""

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        """:meth:`save_recalls` without what only users change: title, message, schedule and policy stay."""

    async def open_recalls_of(self, owner: str, *, session_id: str | None = None) -> Sequence[RecallState]:
        """The owner's recalls that are not over, of all sessions or one."""

    async def ending_with(self, session_id: str) -> Sequence[RecallState]:
        """The session's recalls that are not over and have a ``cancel_on``."""

    async def unfinished_in(self, session_id: str) -> Sequence[RecallState]:
        """The session's recalls that are not over, or have a firing that is not."""

    async def note_absences(self, found: Mapping[str, Absence]) -> None:
        """Add to what is to be reported, by session; sessions that are gone are left out."""

    async def take_absences(self) -> Mapping[str, Absence]:
        """Take out what is to be reported, by session."""


class FiringStore(Protocol):
    """The ledger, as it is read, and whether people were notified of what it records."""

    async def firings(
        self, recall_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[Firing], str | None]:
        """A page of the ledger, newest slot first, with ``attempts``; and the cursor of the next one."""

    async def firings_open(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        """All firings of these recalls that are not over."""

    async def deferred_sessions(self) -> set[str]:
        """Sessions that firings wait for."""

    async def ended_firings(self, *, limit: int) -> Sequence[Run]:
        """Final runs of firings that are still marked as claimed or running."""

    async def begun_firings(self, *, limit: int) -> Sequence[Run]:
        """Runs in progress of firings that are still marked as waiting in their session's queue."""

    async def overrunning(self, now: datetime, *, limit: int) -> Sequence[Claimed]:
        """Running firings past their ``stop_at`` whose runs were not asked to stop yet."""

    async def last_firings(self, recall_ids: Iterable[str]) -> dict[str, Firing]:
        """The latest row of the ledger of each recall that has one."""

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int) -> Sequence[Unrun]:
        """Rows of the session's recalls that were skipped, missed, coalesced or expired, of slots from ``since`` on:
        the last ``limit``, oldest first."""

    async def old_firings(self, before: datetime, *, keep: int, limit: int) -> Mapping[str, datetime]:
        """Recalls with more than ``keep`` rows of which some are of slots before ``before``; each with the slot of the
        ``keep``-th row from the end."""

    async def deliveries_pending(self, limit: int) -> Sequence[Claimed]:
        """Firings that are over and still to be notified of (``delivery`` is ``pending``), oldest first. A read: with
        two servers on one database use :meth:`take_deliveries`."""

    async def take_deliveries(self, *, now: datetime, until: datetime, limit: int) -> Sequence[Claimed]:
        """Those of which no notice waits, taken for this server until ``until``."""

    async def delivered(self, firing_id: str, error: str | None = None) -> None:
        """People were notified, or (with ``error``) cannot be: the delivery is over."""


class RecallStore(FiringStore, RecallOverviewStore, Protocol):
    """Recalls, durable. Writes as for :class:`navi_jupyter.ports.store.SessionStore`."""

    async def write(self, unit: Callable[[RecallTx], Awaitable[T]], *, durable: bool = False) -> T:
        """Run ``unit`` in a transaction; its result once that is committed and its events are published."""

    def made_ahead(
        self, recalls: Iterable[RecallState], firings: Iterable[FiringState]
    ) -> tuple[Sequence[RecallState], Sequence[FiringState]]:
        """The same for ``advance_recalls`` and ``add_firings``, which have less to do with them. In any thread."""

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

    async def recalls_in(self, session_id: str) -> Sequence[Recall]:
        """The session's recalls: open ones, the soonest first, then those that are over, the newest first."""

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        """Active recalls with a slot at or before ``now``, the longest overdue first."""

    async def expired_recalls(self, *, until_after: datetime) -> Sequence[RecallState]:
        """Recalls that have expired although they were to go on until a time after this one."""

    async def next_wake(self) -> datetime | None:
        """The earliest instant at which there is something to do."""

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        """Count what is and what should not be."""

    async def when_recalls(self, *, paused: bool = False, owner: str | None = None) -> Sequence[RecallState]:
        """The ``when`` recalls that are pending or running, of everybody or one owner."""

    async def seen(self, session_id: str, owner: str) -> Seen:
        """When the owner last wrote in the session and last read in it."""

    async def ends_with_user(self, session_id: str) -> bool:
        """Whether the session has recalls that are not over and have a ``cancel_on``. Cheap: asked at each prompt."""


class SessionRecalls(RecallAccess, Protocol):
    """What sessions do with their recalls, beside what their tools may. Implemented by ``scheduling``."""

    async def end_with_session(self, session_id: str, delete: Callable[[SessionTx], Awaitable[None]]) -> None:
        """Cancel the recalls of a session and delete it, in one transaction. Their ledger stays."""


LeaveCheck = Callable[[Session, Sequence[str], Sequence[str]], Awaitable[None]]
"""Called with what a new recall of a session is to do without asking, and with the names of the profiles that bound the
agent that makes it. Raises InvalidRequest for a name that there is not (with the nearest one), or that the
administrator, the session's profile or one of the agent's never lets through."""
JobCheck = Callable[[NotebookJob, Session, Sequence[str]], Awaitable[None]]
"""Called with a notebook job before it is stored, its session, and the profiles that bound the agent that makes it
(none: a user does). Raises InvalidRequest, NotebookNotFound where it could not be executed."""
RunEnded = Callable[[Run], Awaitable[None]]
"""Called with each run that reached a final status in this process, after that is durable."""
