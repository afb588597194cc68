"""Where the layers meet: each Protocol's docstring is its contract.

``orchestrator``, ``recalls``, ``agent``, ``store`` and ``server`` import these and not one another; the composition
root (``server/runtime.py``) puts real parts behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from ..commands import Acceptance, Command
from ..events import Draft
from ..model.recalls import Recall
from ..model.runs import Interrupt, InterruptStatus
from ..model.sessions import Failure, Origin, Run, RunStatus, Session, Usage
from .agent import Message, PastTurn, PromptPart

T = TypeVar("T")


# --- commands in, outcomes out ---------------------------------------------------------------------------------------


class Submit(Protocol):
    """Gives a command to a session. Durable on return; a repeated ``command_id`` returns the first answer.

    Raises SessionNotFound, SessionBusy (a ``reject`` prompt), CommandNotFound, LimitReached, NotReady.
    """

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance: ...


# --- the store -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A process that has the database open."""

    id: str
    host: str
    pid: int
    pid_started: float
    """When the process started, in seconds since 1970: tells a process from a later one with the same pid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOwner:
    """An active run and the server that has it."""

    run_id: str
    session_id: str
    server_id: str
    lease_until: datetime
    stop_requested: bool = False
    """Whether somebody has asked to stop it."""


class SessionTx(Protocol):
    """One transaction's view of sessions, runs and logs. Every method sees the writes before it."""

    async def append(self, session_id: str, drafts: Sequence[Draft]) -> int:
        """Number and store events; return the last ``seq``. Raises SessionNotFound (deleted meanwhile)."""
        ...

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """:meth:`append` for many sessions at once; those that are gone are left out."""
        ...

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        """The run's envelopes so far, as JSON, in order."""
        ...

    async def fold_events(self, session_id: str, folded: Mapping[int, str], dropped: Sequence[int]) -> None:
        """Compaction: replace some frames and remove others."""
        ...

    async def note_folded(self, session_id: str, run_id: str, stretches: Sequence[tuple[int, int]]) -> None:
        """Compaction: ``[first, last)`` cursors can not go on event by event; the run is done with."""
        ...

    async def acceptance(self, session_id: str, command_id: str) -> Acceptance | None:
        """The answer that was given to this command, if it was accepted before."""
        ...

    async def may_deliver(self, command_id: str, *, server_id: str) -> bool:
        """Whether the firing that this command delivers, if there is one, is this server's and its recall not paused.

        A server that was stopped between claiming and delivering may have lost its claim without knowing.
        """
        ...

    async def accept(self, session_id: str, kind: str, acceptance: Acceptance, *, user_id: str) -> None:
        """Remember the answer to a command. Unique on (session, command_id)."""
        ...

    async def session(self, session_id: str) -> Session | None: ...

    async def add_session(self, session: Session) -> None: ...

    async def count_sessions(self, owner: str) -> int: ...

    async def change_session(self, session_id: str, changes: Mapping[str, Any]) -> None: ...

    async def delete_session(self, session_id: str) -> None:
        """Remove it with its log, runs, recalls and ledger."""
        ...

    async def run(self, run_id: str) -> Run | None: ...

    async def active_run(self, session_id: str) -> Run | None: ...

    async def queued_runs(self, session_id: str) -> Sequence[Run]:
        """In the order in which they will start."""
        ...

    async def add_run(
        self,
        run: Run,
        *,
        prompt: str,
        user_id: str,
        first_seq: int,
        priority: int = 0,
        mode: str = "enqueue",
        parts: Sequence[PromptPart] | None = None,
    ) -> None:
        """A queued run. ``first_seq`` is at or before its first event; a higher ``priority`` starts earlier.

        ``parts`` None: the prompt alone.
        """
        ...

    async def repeat_run(self, interrupted_id: str, run: Run, *, priority: int = 0, mode: str = "enqueue") -> None:
        """A queued run for the prompt of an interrupted one, whose command has this run as its answer from now on.

        The message stays in the log once. The model does not read the interrupted attempt, unless another prompt
        had joined that.
        """
        ...

    async def last_effect(self, run: Run) -> str | None:
        """The tool with an effect that the run has started last (``ToolContext.record_effect``); None: none."""
        ...

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        """What waits, in the order in which it will start."""
        ...

    async def change_prompt(self, run_id: str, parts: Sequence[PromptPart]) -> None:
        """Replace what a queued run is to answer."""
        ...

    async def roll_back(self, run_id: str) -> None:
        """The model is not to be told of this run any more."""
        ...

    async def merge_run(self, run_id: str, into: str, *, at: datetime) -> bool:
        """A queued run is over because another took its prompt. False when it is not queued any more."""
        ...

    async def pause_run(self, run_id: str, *, server_id: str, usage: Usage, conversation: bytes) -> bool:
        """``running`` -> ``waiting``, nobody's. False when it is not this server's, or was asked to stop."""
        ...

    async def resume_run(self, run_id: str, *, server_id: str, lease_until: datetime) -> bool:
        """``waiting`` -> ``running``. False when it does not wait, or one of its questions is open."""
        ...

    async def add_interrupt(self, interrupt: Interrupt) -> None:
        """An open question. Those of one pause have one ``created_at``, later than any before."""
        ...

    async def interrupt(self, interrupt_id: str) -> Interrupt | None: ...

    async def open_interrupts(self, run_id: str) -> Sequence[Interrupt]:
        """The run's open questions, oldest first."""
        ...

    async def settle_interrupt(
        self,
        interrupt_id: str,
        *,
        status: InterruptStatus,
        at: datetime,
        payload: Any = None,
        answered_by: str | None = None,
    ) -> Interrupt | None:
        """Close an open question; as it is now. None when it was closed before."""
        ...

    async def expired_interrupts(self, *, at: datetime) -> Sequence[Interrupt]:
        """Open questions of waiting runs whose time has passed."""
        ...

    async def start_run(self, run_id: str, *, server_id: str, at: datetime, lease_until: datetime) -> bool:
        """``queued`` -> ``running``. False when it is not queued any more or another run holds the session."""
        ...

    async def held_runs(self, run_ids: Iterable[str], *, server_id: str) -> set[str]:
        """Those that are active and this server's: the fence in front of every write of a run."""
        ...

    async def end_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        at: datetime,
        usage: Usage | None = None,
        error: Failure | None = None,
        conversation: bytes | None = None,
        transcript: Sequence[Message] = (),
    ) -> bool:
        """Give the run its final status. False when it had one already."""
        ...

    async def request_stop(self, run_id: str, command_id: str) -> None:
        """Leave word for the server that has the run."""
        ...

    async def beat(self, server: Server, *, at: datetime) -> None:
        """Renew the claims of a server on itself and on its runs."""
        ...

    async def forget_server(self, server_id: str) -> None: ...

    async def servers(self) -> Sequence[tuple[Server, datetime]]:
        """All that have not said good-bye, and until when each is trusted to live."""
        ...

    async def active_runs(self) -> Sequence[RunOwner]: ...


class SessionStore(Protocol):
    """Sessions, runs and logs, durable. One writer commits all units that have gathered in one transaction."""

    async def write(self, unit: Callable[[SessionTx], Awaitable[T]], *, durable: bool = False) -> T:
        """Run ``unit`` in a transaction; its return value, once that is committed and its events are published.

        An exception undoes this unit alone. ``durable`` asks that it survives a power cut (an fsync), not only a kill.
        Cancelling the waiter does not undo it. Raises StoreError when the disk refuses.
        """
        ...

    def subscribe(self, listener: Callable[[str, list[tuple[int, str]]], None]) -> None:
        """Call ``listener(session_id, [(seq, frame), …])`` after each commit and before the units' callers go on.

        It must not block: the store's writer calls it.
        """
        ...

    async def changed_elsewhere(self) -> bool:
        """Whether another process has committed since the last call."""
        ...

    async def session(self, session_id: str) -> Session | None: ...

    async def sessions(
        self, owner: str, *, limit: int, cursor: str | None = None, notebook_path: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        """A page, most recently used first, and the cursor of the next one."""
        ...

    async def head(self, session_id: str) -> int | None:
        """The highest ``seq``; None when there is no such session."""
        ...

    async def heads(self, session_ids: Iterable[str]) -> Mapping[str, int]:
        """:meth:`head` of several; those that are gone are left out."""
        ...

    async def frames(self, session_id: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Stored envelopes with ``seq`` > ``after``, in order: at least one if there is any; large ones end early."""
        ...

    async def snapshot(self, session_id: str) -> SessionSnapshot | None:
        """A consistent view of the whole session, for a prelude."""
        ...

    async def gap(self, session_id: str, after: int) -> bool:
        """Whether a follower that has seen up to ``after`` can not be served event by event any more."""
        ...

    async def run(self, run_id: str) -> Run | None: ...

    async def runs(self, session_id: str, *, limit: int, cursor: str | None = None) -> tuple[Sequence[Run], str | None]:
        """A page, newest first, and the cursor of the next one."""
        ...

    async def open_runs(self, session_id: str) -> Sequence[Run]:
        """The active run, if any, and those that wait, in the order in which they will start."""
        ...

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        """The run's envelopes so far, as JSON, in order."""
        ...

    async def prompt(self, run_id: str) -> tuple[str, str]:
        """What the model is to read for this run, and the user who asked. Raises RunNotFound."""
        ...

    async def past_turns(self, session_id: str) -> Sequence[PastTurn]:
        """The session's finished runs, oldest first."""
        ...

    async def known_servers(self) -> Sequence[Server]:
        """All that have not said good-bye."""
        ...

    async def queued_sessions(self) -> Sequence[str]:
        """Sessions with a prompt that waits, or with a run that waited and can go on."""
        ...

    async def ready_sessions(self) -> Sequence[str]:
        """Sessions with a waiting run none of whose questions is open any more."""
        ...

    async def expiring(self, *, at: datetime) -> bool:
        """Whether :meth:`SessionTx.expired_interrupts` would find something."""
        ...

    async def interrupts(self, interrupt_ids: Iterable[str]) -> Sequence[Interrupt]:
        """Those questions, as they are now; those that are gone are left out."""
        ...

    async def open_interrupts(self, session_id: str) -> Sequence[Interrupt]:
        """The session's open questions, oldest first."""
        ...

    async def paused(self, run_id: str) -> Paused | None:
        """With what a run that was resumed had paused; None when it never did."""
        ...

    async def parts(self, run_id: str) -> Sequence[PromptPart]:
        """The prompts that a run answers. Raises RunNotFound."""
        ...

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        """What waits, in the order in which it will start."""
        ...

    async def of_session(self, session_id: str) -> Usage:
        """See :class:`Spending`."""
        ...

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        """See :class:`Spending`."""
        ...

    async def steered_sessions(self) -> Sequence[str]:
        """Sessions with a prompt of mode ``steer`` that waits."""
        ...

    async def stops_for(self, server_id: str) -> Sequence[str]:
        """This server's runs that somebody asked to stop through another server."""
        ...

    async def runs_to_compact(self, *, ended_before: datetime, limit: int) -> Sequence[Run]:
        """Finished runs whose deltas are still apart, the longest finished first."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedPrompt:
    """A queued run and what it is to answer."""

    run: Run
    mode: str
    user_id: str
    parts: tuple[PromptPart, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """How a run paused, and what became of its questions."""

    conversation: bytes
    interrupts: tuple[Interrupt, ...]
    """Those of its last pause, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSnapshot:
    """A session at one instant."""

    session: Session
    head_seq: int
    finished: Sequence[Message]
    """Messages of all runs that are over, in the order of the conversation."""
    active: Run | None
    frames: Sequence[str]
    """The envelopes, as JSON, of the active and of the queued runs so far, by ``seq``."""
    queued: Sequence[Run]
    recalls: Sequence[Recall]
    """Those that are not over."""
    interrupts: Sequence[Interrupt] = ()
    """The open questions; of a run that waits also those that its pause has had answered, in their order."""


DEFAULT_LEASE = timedelta(seconds=30)
"""How long a server's claim on a run or a firing lasts without being renewed."""
