"""Where the layers meet: each Protocol's docstring is its contract.

``orchestrator``, ``recalls``, ``agent``, ``store`` and ``server`` import these and not one another; the composition
root (``server/runtime.py``) puts real parts behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..commands import Acceptance, Command
from ..events import Draft, Event
from ..model import (
    Failure,
    Firing,
    Origin,
    Recall,
    RecallCreate,
    Run,
    RunStatus,
    Session,
    Usage,
)
from ..work import Attachment, Interrupt, InterruptStatus, RunLimits
from .work import Ask, AskUser, Attachments, Memory, Spending, Steering
from .workbench import Workbench

if TYPE_CHECKING:
    from .recalls import Unrun

T = TypeVar("T")
NO_WORKBENCH = Workbench()


# --- the agent -------------------------------------------------------------------------------------------------------


class StopSignal:
    """Says that a run is to end. Set once, never cleared. Readable from any thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Ask the run to end. Loop thread only."""
        self._event.set()

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once the run was asked to end."""
        await self._event.wait()


class RecallDesk(Protocol):
    """What tools may do with the recalls of a session. Implemented by ``recalls``."""

    async def create(
        self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False, code: bool = False
    ) -> Recall:
        """Validate and store a recall, durable on return. Raises InvalidSchedule, LimitReached, SessionNotFound.

        ``code``: one of the agent may wait for an expression, which is code that a kernel executes.
        """
        ...

    async def in_session(self, session_id: str) -> Sequence[Recall]:
        """The session's recalls, the soonest first, then those that are over, the newest first."""
        ...

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        """End a recall. Raises RecallNotFound, RecallOver."""
        ...

    async def firings(self, recall_id: str, *, owner: str, limit: int = 50) -> Sequence[Firing]:
        """The recall's ledger, newest first. Raises RecallNotFound."""
        ...

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int = 100) -> Sequence[Unrun]:
        """What did not run in a session, of slots from ``since`` on: the last ``limit``, oldest first."""
        ...


class Library(Protocol):
    """What tools may read of the session they run in. Implemented by ``orchestrator``."""

    async def messages(self, session_id: str) -> Sequence[Message]:
        """The conversation so far, oldest first, the present run included."""
        ...

    async def runs(self, session_id: str, *, limit: int = 50) -> Sequence[Run]:
        """The session's runs, newest first."""
        ...


def ignore(event: Event) -> None:
    """Drops it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Who and what a tool works for. In :data:`tool_context` while a run's tools execute."""

    user_id: str
    role: str
    """``"owner"`` for the session's owner. Others can not run anything yet."""
    session: Session
    run_id: str
    origin: Origin
    stop: StopSignal
    recalls: RecallDesk
    library: Library
    emit: Callable[[Event], None] = ignore
    """Writes an event of this run into its log, at once and in order; nothing once the run has ended."""
    ask: AskUser | None = None
    steering: Steering | None = None
    workbench: Workbench = NO_WORKBENCH
    memory: Memory | None = None
    attachments: Attachments | None = None
    spending: Spending | None = None


tool_call: ContextVar[str | None] = ContextVar("navi_tool_call", default=None)
"""The id, as the log has it, of the tool call that the present task executes."""
subagent: ContextVar[str | None] = ContextVar("navi_subagent", default=None)
"""The ``subagent_run_id`` of the worker that the present task is; None for a run's own agent."""
tool_context: ContextVar[ToolContext] = ContextVar("navi_tool_context")
"""The context of the run on whose behalf the present task works."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A tool call as the conversation shows it. ``result`` is None while it is open."""

    id: str
    name: str
    args: str
    result: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of the folded conversation."""

    id: str
    role: str
    """``user``, ``assistant`` or ``tool``."""
    content: str
    run_id: str | None
    origin: Origin
    at: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    queued: bool = False
    """A prompt whose run has not started."""
    partial: bool = False
    """The run ended, or is still going, before the message was complete."""
    subagent_run_id: str | None = None
    """The worker that said it."""
    attachments: tuple[dict[str, Any], ...] = ()
    """:class:`navi_jupyter.work.AttachmentInfo` each, as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTurn:
    """A finished run, as history for the next one."""

    run_id: str
    status: RunStatus
    prompt: str
    messages: tuple[Message, ...]
    conversation: bytes | None
    """What :class:`TurnResult` said at its end; None when it never got there (stopped, failed, killed)."""
    attachments: tuple[Attachment, ...] = ()
    """What came with its prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPart:
    """One prompt of those that a run answers: a collected run has several."""

    command_id: str
    text: str
    """What the model reads."""
    display: str | None = None
    """What followers are shown instead."""
    attachments: tuple[Attachment, ...] = ()

    @property
    def shown(self) -> str:
        """What followers see."""
        return self.display or self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where a run ends by itself. Zero or None: no limit."""

    max_iterations: int = 50
    """Requests to the model."""
    max_tokens: int | None = None
    """Input and output tokens of this run, its workers included."""
    max_cost: float | None = None
    """US dollars of this run, where the price is known."""
    session_tokens: int | None = None
    """Tokens of all the session's runs together."""
    user_tokens_per_day: int | None = None
    """Tokens of all the user's runs of the last 24 hours."""
    user_cost_per_day: float | None = None
    """US dollars of the same, where the price is known."""
    timeout: float = 600.0
    """Seconds from start to ``timed_out``; enforced by the session, here for the loop's own time-outs."""

    def within(self, wanted: RunLimits) -> Limits:
        """These and those of a profile: the stricter of each."""
        timeout = None if wanted.timeout is None else wanted.timeout.total_seconds()
        return replace(
            self,
            max_iterations=int(_least(self.max_iterations, wanted.max_iterations) or 0),
            max_tokens=None if (tokens := _least(self.max_tokens, wanted.max_tokens)) is None else int(tokens),
            max_cost=_least(self.max_cost, wanted.max_cost),
            timeout=_least(self.timeout, timeout) or 0.0,
        )


def _least(*limits: float | None) -> float | None:
    """Zero and None are no limit."""
    return min((limit for limit in limits if limit), default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """All that an agent loop is told about the run it is to do."""

    session: Session
    run_id: str
    model: str
    prompt: str
    history: tuple[PastTurn, ...]
    limits: Limits
    origin: Origin
    now: datetime
    """When the run started, in the session's zone."""
    attachments: tuple[Attachment, ...] = ()
    """What came with the prompt; their content is in ``ToolContext.attachments``."""
    resumed: bytes | None = None
    """Set when the run goes on after it had asked: the ``conversation`` of the TurnResult with which it paused."""
    answers: tuple[Interrupt, ...] = ()
    """Set exactly when ``resumed`` is: every question of that TurnResult, each with its final status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnResult:
    """The last thing an agent loop yields: what the next run needs to go on from here."""

    conversation: bytes
    """The loop's own JSON of this turn; comes back in :class:`PastTurn`. Opaque to everybody else."""
    asks: tuple[Ask, ...] = ()
    """Not empty: the run pauses until all of them are answered; then the loop runs again with ``Turn.resumed``."""
    usage: Usage = field(default_factory=Usage)
    """Of the whole run so far, what went before a pause included."""
    failure: Failure | None = None
    """Set when the turn ended by a limit (``max_iterations``): the run fails with it, the conversation is kept."""


class AgentLoop(Protocol):
    """Answers a prompt: yields AG-UI bodies of messages, reasoning and tool calls, then a TurnResult. Never ``RUN_*``.

    Each opened message and tool call is closed by the loop when all goes well; after a cancellation or an exception
    the session closes what is open. A tool call that waits for approval has its TOOL_CALL_END, and its result follows
    after the pause. Cancellation (``aclose`` or ``CancelledError``) must be let through at once. Raises
    RunFailed with a stable ``run_code`` for anything the user can act on. Must not block the event loop.
    """

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]: ...


# --- commands in, outcomes out ---------------------------------------------------------------------------------------


class Submit(Protocol):
    """Gives a command to a session. Durable on return; a repeated ``command_id`` returns the first answer.

    Raises SessionNotFound, SessionBusy (a ``reject`` prompt), CommandNotFound, LimitReached, NotReady.
    """

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance: ...


RunEnded = Callable[[Run], Awaitable[None]]
"""Told about each run that reached a final status in this process, after that is durable."""


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
