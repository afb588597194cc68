"""The session store and the way commands reach a session: the contracts between orchestrator, scheduling and server.

Not responsible for what a transaction can do (``transactions``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from ..commands import Acceptance, Command
from ..model.agent_options import AgentOffer
from ..model.notebooks import ShownNotebook
from ..model.recalls import Recall
from ..model.runs import Interrupt
from ..model.sessions import Origin, Run, Session
from .agent import Message, PastTurn, PromptPart, Spending
from .jupyter import NotebookLink
from .session_list import SessionListReads
from .transactions import Foldable, QueuedPrompt, Server, SessionTx

T = TypeVar("T")


class Submit(Protocol):
    """Gives a command to a session. Durable on return; a repeated ``command_id`` returns the first answer.

    Raises SessionNotFound, SessionBusy (a ``reject`` prompt), CommandNotFound, LimitReached, NotReady.
    """

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance: ...


class LogReads(Protocol):
    """The logs of sessions, for readers."""

    async def head(self, session_id: str) -> int | None:
        """The highest ``seq``; None when there is no such session."""

    async def heads(self, session_ids: Iterable[str]) -> Mapping[str, int]:
        """:meth:`head` of several; those that are gone are left out."""

    async def frames(self, session_id: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Stored envelopes with ``seq`` > ``after``, in order: at least one if there is any; large ones end early."""

    async def gap(self, session_id: str, after: int) -> bool:
        """Whether a follower that has seen up to ``after`` cannot be served event by event any more."""

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        """The run's envelopes so far, as JSON, in order; pieces of one text that follow each other may be joined."""

    async def transcript(self, session_id: str, *, before: str | None, limit: int) -> TranscriptSlice:
        """The last messages of finished runs, or those before a cursor or a run. Raises InvalidRequest for others."""

    async def snapshot(self, session_id: str, *, last: int | None = None) -> SessionSnapshot | None:
        """A consistent view of the session, for a follower without a cursor: with its ``last`` messages, or all."""

    async def agent_offer(self, session_id: str) -> AgentOffer | None:
        """The newest ``navi.agent_options`` of the log; None when there is none."""


class RunReads(Protocol):
    """Runs and their prompts, for readers."""

    async def run(self, run_id: str) -> Run | None: ...

    async def runs(self, session_id: str, *, limit: int, cursor: str | None = None) -> tuple[Sequence[Run], str | None]:
        """A page, newest first, and the cursor of the next one."""

    async def open_runs(self, session_id: str) -> Sequence[Run]:
        """The active run, if any, and those that wait, in the order in which they will start."""

    async def past_turns(self, session_id: str) -> Sequence[PastTurn]:
        """The session's finished runs, oldest first."""

    async def beginning(self, run_id: str) -> RunBeginning:
        """What a run begins with, or goes on with. Raises RunNotFound."""

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        """What waits, in the order in which it will start."""

    async def paused(self, run_id: str) -> Paused | None:
        """With what a run that was resumed had paused; None when it never did."""

    async def queued_sessions(self) -> Mapping[str, int]:
        """Sessions with a prompt that waits, or a run that waited and can go on; each with how many prompts wait."""

    async def ready_sessions(self) -> Sequence[str]:
        """Sessions with a waiting run none of whose questions is open any more."""

    async def steered_sessions(self) -> Sequence[str]:
        """Sessions with a prompt of mode ``steer`` that waits."""

    async def runs_of(self, server_id: str) -> Mapping[str, bool]:
        """The runs that a server has, and of each whether somebody asked to stop it."""


class InterruptReads(Protocol):
    """Questions to the user, for readers."""

    async def expiring(self, *, at: datetime) -> bool:
        """Whether :meth:`SessionTx.expired_interrupts` would find something."""

    async def interrupts(self, interrupt_ids: Iterable[str]) -> Sequence[Interrupt]:
        """Those questions, as they are now; those that are gone are left out."""

    async def open_interrupts(self, session_id: str) -> Sequence[Interrupt]:
        """The session's open questions, oldest first."""

    async def session_interrupts(
        self, session_id: str, *, settled_of: Iterable[str] | None = None
    ) -> Sequence[Interrupt]:
        """The questions of the session, the oldest first: all of them, or the settled ones of these runs."""


class PageReads(Protocol):
    """What the pages of prompts showed, for readers."""

    async def shown(self, run_id: str) -> ShownNotebook | None:
        """Of the run's latest prompt; None: no page sent anything, or the run has ended."""


class CompactableLogs(Protocol):
    """What compaction reads of logs that are over."""

    async def runs_to_compact(self, *, ended_before: datetime, limit: int) -> Sequence[Foldable]:
        """Finished runs whose deltas are still apart, the longest finished first."""

    async def foldable_frames(self, foldable: Foldable, *, limit: int) -> tuple[Sequence[tuple[int, str]], bool]:
        """Its stored envelopes, in order, so many at most and fewer large ones; and whether there may be more."""

    async def free_pages(self) -> int:
        """How many unused pages the file has that can be given back to the file system."""


class ServersOfStore(Protocol):
    """The servers that share the database."""

    async def changed_elsewhere(self, *, within: float = 0.0) -> bool:
        """Whether another process has committed since the last call; waits for that so many seconds at most."""

    async def announce(self, server_id: str) -> None:
        """This process is that server: :meth:`disconnected` names it once its connection has ended."""

    async def disconnected(self, server_ids: Iterable[str]) -> Collection[str]:
        """Those of them whose connection to the database has ended, by its server: they have died, or connect again
        within a second. Empty where there is no such server, or it does not know."""

    @property
    def is_cut_off(self) -> bool:
        """Whether other servers may take this one for gone, as it was not connected for a while."""

    async def leases(self) -> Mapping[str, datetime]:
        """Until when each server that is registered counts as alive."""

    async def known_servers(self) -> Sequence[Server]:
        """Those that are registered."""


class SessionStore(
    LogReads, RunReads, InterruptReads, PageReads, SessionListReads, CompactableLogs, ServersOfStore, Spending, Protocol
):
    """Sessions, runs and logs, durable. One writer commits all units that have gathered in one transaction."""

    async def write(
        self, unit: Callable[[SessionTx], Awaitable[T]], *, durable: bool = False, on: str | None = None
    ) -> T:
        """Run ``unit`` in a transaction; its return value, once that is committed and its events are published.

        It awaits nothing but the transaction and may run twice (see :mod:`navi_jupyter.ports.transactions`).
        ``on``: the session that it reads and changes, if it changes no other one and nothing that is not a session's: a
        store that several servers share may perform units of other sessions at the same time.
        An exception undoes this unit alone. ``durable`` asks that it survives a power cut (an fsync), not only a kill.
        Cancelling the waiter does not undo it. Raises StoreError when the disk refuses.
        """

    def subscribe(self, listener: Callable[[str, list[tuple[int, str]]], None]) -> None:
        """Call ``listener(session_id, [(seq, frame), …])`` after each commit and before the units' callers go on.

        It must not block: the store's writer calls it.
        """

    async def session(self, session_id: str) -> Session | None: ...

    async def link(self, session_id: str) -> NotebookLink | None:
        """Where the session's notebook was last seen, and by what it is known; None when there is no such session."""

    async def links(
        self, owner: str, *, session_id: str | None = None, path: str | None = None, kernel_id: str | None = None
    ) -> Sequence[NotebookLink]:
        """The owner's session of that id, and those of that notebook's path or of that kernel, the newest first.

        Without those that are only earlier sessions of their notebook, unless the id names one.
        """

    def links_now(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        """Sessions of all users at a path, and the one with that id, the newest first: read at once, for a hook."""

    async def unmarked_paths(self, *, limit: int, made_by: datetime | None = None) -> Sequence[str]:
        """Paths of sessions of earlier versions, which knew a notebook by its path alone: no fingerprint is stored.

        ``made_by``: of none that was made later.
        """

    async def earlier_sessions(self, owner: str, path: str, *, without: str | None, limit: int) -> Sequence[Session]:
        """Sessions of notebooks at this path, also of those that were there before, but that one; last used first."""


class RecallsOfSession(Protocol):
    """What the recalls of a session do when it is archived or restored. Implemented by ``scheduling``.

    Each runs ``change`` in the same transaction; that raises SessionNotFound where there is nothing to change.
    """

    async def pause_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], *, owner: str) -> T:
        """Pause what is not over and not paused, for the reason that the session is archived."""

    async def resume_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], *, owner: str) -> T:
        """Resume what was paused for that reason."""

    async def restore_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], since: datetime) -> T:
        """Bring back what was cancelled when the session was deleted, at ``since``. Times that passed meanwhile are
        as for a recall that was paused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunBeginning:
    """What a run begins with, or goes on with."""

    session: Session | None
    user_id: str  # who asked
    prompt: str  # what the model is to read
    parts: Sequence[PromptPart]  # the prompts that it answers
    paused: bool  # whether it goes on after a pause: ``RunReads.paused`` has it
    shown: bool  # whether the page of a prompt showed something: ``PageReads.shown`` has it
    job: bool  # whether its recall executes a notebook


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """How a run paused, and what became of its questions."""

    conversation: bytes
    interrupts: tuple[Interrupt, ...]  # those of its last pause, in their order


@dataclass(frozen=True, kw_only=True, slots=True)
class TranscriptSlice:
    """Consecutive messages of finished runs, oldest first: from a message of the user or the agent on.

    From a result on, whose call is the slice before, only where both together would be very large.
    """

    messages: Sequence[Message]
    runs: Sequence[Run]  # those that the messages are of, oldest first
    earlier: str | None  # cursor of what comes before; None: it begins with the session's first message


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSnapshot:
    """A session at one instant."""

    session: Session
    head_seq: int
    finished: Sequence[Message]  # messages of the runs that are over, in the order of the conversation
    active: Run | None
    frames: Sequence[str]
    """The envelopes, as JSON, of the active and of the queued runs so far, by ``seq``; pieces of one text that follow
    each other may be joined."""
    queued: Sequence[Run]
    recalls: Sequence[Recall]  # those that are not over
    interrupts: Sequence[Interrupt] = ()
    """The open questions; of a run that waits also those that its pause has had answered, in their order."""
    earlier: str | None = None  # cursor of the messages before ``finished``; None: there are none
    agent_offer: AgentOffer | None = None
