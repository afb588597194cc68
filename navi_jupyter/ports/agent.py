"""The agent loop, what it gets for a run, and what its tools work with: each Protocol's docstring is its contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..clock import now
from ..events import Event
from ..model.attachments import Attachment, Fact
from ..model.notebooks import ShownNotebook
from ..model.recalls import Firing, NotebookJob, Recall, RecallCreate, RecallPatch
from ..model.runs import AskOption, CallDetail, ClientTool, Interrupt, InterruptKind
from ..model.sessions import AnswerNotice, Failure, Origin, Run, RunStatus, Session, Usage
from ..settings import Limits
from .edits import NotebookEdits
from .jobs import JobResults
from .jupyter_access import JupyterAccess
from .stop import StopSignal, stop_reached
from .user_configuration import NOTHING_CONFIGURED, UserConfiguration

NO_JUPYTER = JupyterAccess()


class RecallAccess(Protocol):
    """What tools may do with the recalls of a session. Implemented by ``recalls``."""

    async def create(
        self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False, code: bool = False
    ) -> Recall:
        """Validate and store a recall, durable on return. Raises InvalidSchedule, LimitReached, SessionNotFound.

        ``code``: one of the agent may wait for an expression, which is code that a kernel executes.
        """

    async def check_leave(
        self, allow: Sequence[str], *, session_id: str, owner: str, profiles: Sequence[str] = ()
    ) -> None:
        """Raises InvalidRequest for what a recall of the session cannot be allowed to do without asking.

        ``profiles``: those that bound the agent that would give it, besides the session's: none of them may deny it.
        """

    async def recall_of(self, recall_id: str) -> Recall | None:
        """A recall as it is now, for its own runs: what they may do without asking, what they execute. None when there
        is no such recall (any more)."""

    async def patch(
        self, recall_id: str, patch: RecallPatch, *, owner: str, zone: str | None = None, by_agent: bool = False
    ) -> Recall:
        """Change the fields that are there. Raises RecallNotFound, RecallOver, InvalidRequest, InvalidSchedule."""

    async def pause(self, recall_id: str, *, owner: str) -> Recall:
        """Nothing starts until it is resumed. Raises RecallNotFound, RecallOver."""

    async def resume(self, recall_id: str, *, owner: str) -> Recall:
        """Go on. Raises RecallNotFound, RecallOver."""

    async def in_session(self, session_id: str) -> Sequence[Recall]:
        """The session's recalls, the soonest first, then those that are over, the newest first."""

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        """End a recall. Raises RecallNotFound, RecallOver."""

    async def firings(self, recall_id: str, *, owner: str, limit: int = 50) -> Sequence[Firing]:
        """The recall's ledger, newest first. Raises RecallNotFound."""

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int = 100) -> Sequence[Unrun]:
        """What did not run in a session, of slots from ``since`` on: the last ``limit``, oldest first."""


class SessionHistory(Protocol):
    """What tools may read of the session they run in. Implemented by ``orchestrator``."""

    async def session(self, session_id: str) -> Session | None:
        """The session as it is now; None when it was deleted."""

    async def messages(self, session_id: str) -> Sequence[Message]:
        """The conversation so far, oldest first, the present run included."""

    async def runs(self, session_id: str, *, limit: int = 50) -> Sequence[Run]:
        """The session's runs, newest first."""


def ignore(event: Event) -> None:
    """Emits nothing."""


def require_nothing() -> None:
    """Requires nothing: for work outside of a run."""


async def record_nothing(tool: str) -> None:
    """Records nothing: for work outside of a run."""


@dataclass(slots=True)
class PromptPage:
    """The page that a run's prompts come from. One per run, shared by its agents: a prompt that joins changes it."""

    shown: ShownNotebook | None = None  # what it showed when the latest prompt came


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Who and what a tool works for. In :data:`tool_context` while a run's tools execute."""

    user_id: str
    session: Session
    run_id: str
    origin: Origin
    stop: StopSignal
    recalls: RecallAccess
    library: SessionHistory
    emit: Callable[[Event], None] = ignore
    """Writes an event of this run into its log, at once and in order; nothing once the run has ended."""
    record_effect: Callable[[str], Awaitable[None]] = record_nothing
    """Awaited with a tool's name before the tool changes anything outside Navi. Durable on return: a recall's run that
    its server's death interrupts is started again only if it has recorded nothing. Raises LeaseLost when the run was
    taken over by another server, or may have been: the tool must not run then."""
    require_lease: Callable[[], None] = require_nothing
    """Called right before each request to a model. Raises LeaseLost when this server may not work on the run now."""
    ask: AskUser | None = None
    steering: Steering | None = None
    profiles: tuple[str, ...] = ()
    """The names of the profiles that bound the agent, from the session's own to the agent's own; empty outside a run,
    where the session's own counts."""
    leave: tuple[str, ...] = ()  # what a recall's run may do without asking (``Recall.allow``), as of the last look
    foreign: bool = False
    """Whether the conversation that the model reads has foreign text in it, as of the last look: what neither the user
    wrote to Navi nor Navi itself (files, notebooks, outputs, pages, results of other programs)."""
    configuration: UserConfiguration = NOTHING_CONFIGURED  # the user's own, as of the beginning of the run
    jupyter: JupyterAccess = NO_JUPYTER
    page: PromptPage = field(default_factory=PromptPage)
    began: datetime = field(default_factory=now)  # when this process took the run: fences what it does elsewhere
    memory: Memory | None = None
    attachments: Attachments | None = None
    spending: Spending | None = None
    edits: NotebookEdits | None = None  # None: what tools change in notebooks is not kept
    results: JobResults | None = None
    subagents: SubagentSpawner | None = None  # None: this run cannot delegate

    def report_stop(self, what: str, message: str) -> None:
        """Report how a stop has ended the present tool call, while the cancellation passes through the tool: it becomes
        the call's one ``navi.stop`` event. Outside a tool call the event is emitted at once."""
        call = tool_call.get()
        if call is None:
            self.emit(stop_reached(self.run_id, what, message))
        else:
            self.stop.reports[call] = (what, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubagentResult:
    """How a subagent ended."""

    answer: str  # its last text; where it failed, what it had until then
    failure: Failure | None = None


class SubagentSpawner(Protocol):
    """Starts the subagents of one agent. Implemented by ``agent.run.subagents``."""

    async def spawn(self, task: str, profile: str | None, instructions: str | None) -> SubagentResult:
        """Run a subagent to its end, in the present task. Raises ToolDenied for a profile that is not allowed."""


tool_call: ContextVar[str | None] = ContextVar("navi_tool_call", default=None)
"""The id, as the log has it, of the tool call that the present task executes."""
subagent: ContextVar[str | None] = ContextVar("navi_subagent", default=None)
"""The ``subagent_run_id`` of the subagent that the present task is; None for a run's own agent."""
call_expects: ContextVar[str | None] = ContextVar("navi_call_expects", default=None)
"""What the call that the user has approved may change or run: the source of its cell, the SHA-256 of its file. Its tool
refuses when it finds something else."""
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
    role: str  # ``user``, ``assistant`` or ``tool``
    content: str
    run_id: str | None
    origin: Origin
    at: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    queued: bool = False  # a prompt whose run has not started
    partial: bool = False  # the run ended, or is still going, before the message was complete
    subagent_run_id: str | None = None  # the subagent whose message it is
    attachments: tuple[dict[str, Any], ...] = ()  # :class:`navi_jupyter.work.AttachmentInfo` each, as JSON
    notebook: dict[str, Any] | None = None  # of a user's message: ``ShownNotebook.summary`` of what its page showed


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTurn:
    """A finished run, as history for the next one."""

    run_id: str
    status: RunStatus
    prompt: str
    messages: tuple[Message, ...]
    conversation: bytes | None  # of its :class:`TurnResult`; None when it never got there (stopped, failed, killed)
    attachments: tuple[Attachment, ...] = ()  # what came with its prompts
    from_page: bool = False  # whether a page sent what it showed with one of its prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPart:
    """One prompt of those that a run answers: a collected run has several."""

    command_id: str
    text: str  # what the model reads
    display: str | None = None  # what followers are shown instead
    attachments: tuple[Attachment, ...] = ()
    from_page: bool = False  # whether a :class:`ShownNotebook` is stored with it
    traceparent: str | None = None  # who has caused it (``ports.tracing``)
    tools: tuple[ClientTool, ...] = ()  # of the program that sent it

    @property
    def shown(self) -> str:
        """What followers see."""
        return self.display or self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The input of an agent loop: the run it is to do."""

    session: Session  # its ``timezone`` is that of the run's prompt
    run_id: str
    model: str
    prompt: str
    history: tuple[PastTurn, ...]  # context providers of a run with a model get none: it is not held for so long
    limits: Limits
    origin: Origin
    now: datetime  # when the run started, in the session's zone
    attachments: tuple[Attachment, ...] = ()  # came with the prompt; their content is in ``ToolContext.attachments``
    job: NotebookJob | None = None  # the notebook that the run executes instead of answering its prompt
    resumed: bytes | None = None
    """Set when the run goes on after it had asked: the ``conversation`` of the TurnResult with which it paused."""
    shown: ShownNotebook | None = None  # what the page of its prompt showed; of several prompts, the latest
    traceparent: str | None = None  # who has caused it; of several prompts, the first that says
    client_tools: tuple[ClientTool, ...] = ()  # of the programs that sent its prompts: a call is a question to them
    answers: tuple[Interrupt, ...] = ()
    """Set exactly when ``resumed`` is: every question of that TurnResult, each with its final status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnResult:
    """The last thing an agent loop yields: what the next run needs to go on from here."""

    conversation: bytes  # the loop's own JSON of this turn; comes back in :class:`PastTurn`. Opaque to others.
    asks: tuple[Ask, ...] = ()
    """Not empty: the run pauses until all of them are answered; then the loop runs again with ``Turn.resumed``."""
    usage: Usage = field(default_factory=Usage)  # of the whole run so far, what went before a pause included
    failure: Failure | None = None
    """Set when the turn ended by a limit (``max_iterations``): the run fails with it, the conversation is kept."""
    notice: AnswerNotice | None = None  # set when the answer is not what it should be: cut, filtered, empty


class AgentLoop(Protocol):
    """Answers a prompt: yields AG-UI bodies of messages, reasoning and tool calls, then a TurnResult. Never ``RUN_*``.

    Each opened message and tool call is closed by the loop when all goes well; after a cancellation or an exception
    the session closes what is open. A tool call that waits for approval has its TOOL_CALL_END, and its result follows
    after the pause. Cancellation (``aclose``, ``CancelledError``) must be let through at once. Raises RunFailed with a
    stable ``run_code`` for what the user can act on. Must not block the loop, nor begin before an item is asked for.
    """

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A question that a run has to put to the user."""

    kind: InterruptKind
    message: str
    tool_call_id: str | None = None  # as the log has it
    tool: str | None = None
    args: dict[str, Any] | None = None
    source: str | None = None  # of the tool, or of the one who asks
    details: tuple[CallDetail, ...] = ()
    fingerprint: str | None = None
    response_schema: dict[str, Any] | None = None
    options: tuple[AskOption, ...] = ()  # the answers that an agent program offers to its own question
    subagent_run_id: str | None = None
    expires_in: timedelta | None = None  # None: after the server's ``approval_timeout``
    waits: bool = False
    """Whether a recall's run waits for the answer as a user's run does: also with no view open, and for as long."""


class AskUser(Protocol):
    """Ask from within a run and wait, in memory: for what cannot wait in the database (MCP elicitation, subagents).

    Returns the interrupt with its final status; ``expired`` without an answer. Cancelling it withdraws the question.
    """

    async def __call__(self, ask: Ask) -> Interrupt: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeredPrompt:
    """A prompt that joins the run in progress."""

    command_id: str
    text: str
    origin: Origin  # who wrote it; that of the run may be another
    attachments: tuple[Attachment, ...] = ()
    shown: ShownNotebook | None = None  # what its page showed


class Steering(Protocol):
    """The prompts of mode ``steer`` that wait for the run's next request to the model."""

    @property
    def waiting(self) -> bool:
        """Whether there are any. Cheap; to be asked before each request."""

    async def take(self) -> Sequence[SteeredPrompt]:
        """Those that have come, now part of this run: on return that is in the log. Withdrawn ones are left out."""


class Memory(Protocol):
    """Facts about a user, full-text searchable. Implemented by ``store``."""

    async def add(self, text: str, *, owner: str, source: str, session_id: str | None = None) -> Fact:
        """Remember; a fact with the same text is returned as it is. Raises LimitReached, InvalidRequest."""

    async def facts(
        self, owner: str, *, query: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[Fact], str | None]:
        """A page, newest first; with ``query`` (words, any of them) the best match first. And the next cursor."""

    async def change(self, fact_id: str, text: str, *, owner: str) -> Fact:
        """Raises FactNotFound."""

    async def forget(self, fact_id: str, *, owner: str) -> None:
        """Raises FactNotFound."""

    async def forget_all(self, owner: str) -> int:
        """How many were forgotten."""


class Attachments(Protocol):
    """Files beside the database. Implemented by ``store``."""

    async def add(
        self, content: bytes, *, name: str | None, media_type: str | None, owner: str, session_id: str | None = None
    ) -> Attachment:
        """Store, durable on return; the type is found from the content, not taken from the sender.

        It is kept as long as one of the sessions that show it; without ``session_id`` for a day, unless :meth:`keep`
        is called. Raises AttachmentRefused (too large, empty, a kind that is not taken), LimitReached.
        """

    async def keep(self, attachment_ids: Sequence[str], *, session_id: str) -> None:
        """A session shows them from now on."""

    async def find(self, attachment_id: str, *, owner: str) -> Attachment:
        """Raises AttachmentNotFound."""

    async def read(self, attachment_id: str, *, owner: str) -> bytes:
        """Raises AttachmentNotFound."""


class Spending(Protocol):
    """What was used up, for budgets and reports. Implemented by ``store``."""

    async def of_session(self, session_id: str) -> Usage: ...

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        """Of all the user's runs that were created since then, deleted sessions not included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrun:
    """A row of the ledger that did not run, with the name of its recall."""

    firing: Firing
    title: str
