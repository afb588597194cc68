"""What only the server says or is told: the bodies of its answers, its socket frames, its error shape.

Not responsible for the nouns themselves (``model``) or for what happens in a session (``events``). Imported by the
start task, never at extension load: building pydantic models costs tens of milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from ..commands import Acceptance, Command
from ..events import Envelope
from ..model.attachments import AttachmentInfo, Fact, FactCreate, FactPatch
from ..model.base import Instant, Value
from ..model.recalls import Firing, Policy, Recall, RecallCreate, RecallPatch, Schedule, ScheduleSpec
from ..model.runs import Effect, Interrupt, KernelFunctions, Permission, RunLimits
from ..model.sessions import Origin, Run, RunStatus, Session, SessionCreate, SessionPatch, Usage

# --- the socket ------------------------------------------------------------------------------------------------------

CommandType = Literal["prompt", "stop", "unqueue", "edit", "answer"]


class AcceptedCommand(Acceptance):
    """An acceptance, and which kind of command it answers."""

    type: CommandType


class Accepted(Value):
    """Your command is durable. Only on the socket that sent it."""

    accepted: AcceptedCommand


class Rejection(Value):
    """Why a command was refused. ``command_id`` is null when the frame was too broken to have one."""

    command_id: str | None
    code: str
    message: str
    field: str | None = None


class Rejected(Value):
    """Your command was refused. Only on the socket that sent it; the socket stays open."""

    rejected: Rejection


class Batch(Value):
    """Several events of one flush."""

    batch: tuple[Envelope, ...]


ServerFrame = Envelope | Batch | Accepted | Rejected
"""What a server frame of the WebSocket is."""


# --- errors ----------------------------------------------------------------------------------------------------------


class ErrorBody(Value):
    """Every answer with a status of 400 or more."""

    message: str
    """One sentence that says what to do."""
    reason: str
    """The HTTP reason phrase."""
    code: str
    """Stable; listed in the reference."""
    field: str | None = None
    """The path of the offending input field, e.g. ``policy.retries``; left out when there is none."""


# --- sessions --------------------------------------------------------------------------------------------------------


class QueuedPrompt(Value):
    """A prompt that waits; ``edit`` and ``unqueue`` name it by its ``command_id``."""

    command_id: str
    text: str
    """What the model will read."""
    display: str | None
    """What is shown instead; null: the text."""
    attachments: tuple[AttachmentInfo, ...]


class QueuedRun(Run):
    """A run that waits for its turn."""

    mode: str
    """Of its first prompt."""
    prompts: tuple[QueuedPrompt, ...]
    """What it will answer: several in mode ``collect``."""


class SessionDetail(Session):
    """A session with what it is doing."""

    run: Run | None
    """The run in progress."""
    queue: tuple[QueuedRun, ...]
    """Waiting prompts, in the order in which they will start."""
    approvals: tuple[Interrupt, ...]
    """Questions to the user that are open, oldest first."""
    usage: Usage
    """Of all its runs that have paused or ended."""
    unread: int = 0
    """As in :class:`SessionInfo`."""


class SessionInfo(Session):
    """A session as it is listed."""

    unread: int
    """Runs that ended after what its owner has seen, and that the owner did not wait for: of recalls, of Navi itself,
    or ended while nobody followed."""


class SessionPage(Value):
    """``GET sessions``: most recently used first."""

    sessions: tuple[SessionInfo, ...]
    next: str | None


class EventPage(Value):
    """``GET sessions/{sid}/events``: envelopes with ``seq`` > ``after``, in order."""

    events: tuple[Envelope, ...]
    head_seq: int


class ToolCallInfo(Value):
    """A tool call as the conversation shows it. ``result`` is null while it is open."""

    id: str
    name: str
    args: str
    result: str | None


class MessageInfo(Value):
    """One message of the folded conversation."""

    id: str
    role: Literal["user", "assistant", "tool"]
    content: str
    run_id: str | None
    origin: Origin
    at: str
    tool_calls: tuple[ToolCallInfo, ...]
    tool_call_id: str | None
    reasoning: str
    queued: bool
    """A prompt whose run has not started."""
    partial: bool
    """The run ended, or is still going, before the message was complete."""
    subagent_run_id: str | None
    """The worker that said it; null: the run's own agent, or the user."""
    attachments: tuple[AttachmentInfo, ...]
    usage: Usage | None
    """Tokens of the run, on the last assistant message of each finished run; else null."""


class MessagePage(Value):
    """``GET sessions/{sid}/messages``: the whole conversation, oldest first; ``next`` is always null."""

    messages: tuple[MessageInfo, ...]
    next: str | None


class UsageReport(Value):
    """``GET usage``: what your runs have used up, by when they were made; deleted sessions are not included."""

    today: Usage
    last_30_days: Usage
    total: Usage


class RunPage(Value):
    """``GET sessions/{sid}/runs``: newest first."""

    runs: tuple[Run, ...]
    next: str | None


# --- recalls ---------------------------------------------------------------------------------------------------------


class RecallPage(Value):
    """``GET recalls``."""

    recalls: tuple[Recall, ...]
    next: str | None
    last: dict[str, Firing] = Field(default_factory=dict)
    """The latest row of the ledger of each of them, by the recall's id."""
    words: dict[str, str] = Field(default_factory=dict)
    """The schedule of each of them as people say it, by the recall's id."""


class FiringPage(Value):
    """``GET recalls/{id}/firings``: the ledger, newest first."""

    firings: tuple[Firing, ...]
    next: str | None


class PreviewRequest(Value):
    """Body of ``POST recalls/preview``: exactly one of ``schedule`` and ``text``."""

    schedule: ScheduleSpec | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=21_000)] | None = None
    """A time in English: ``every other Friday at 16:00``; or an event: ``when the cell is done``."""
    sentence: bool = False
    """``text`` has a message, too: ``every other Friday at 16:00 check the loss``."""
    n: Annotated[int, Field(ge=1, le=100)] = 5
    after: AwareDatetime | None = None
    """A text is read, and what counts from now is counted, as of this instant; default now."""
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The zone for a schedule that names none; default UTC."""


class Preview(Value):
    """The next fires strictly after ``after``, in the schedule's zone, and what is odd about the schedule."""

    times: tuple[Instant, ...]
    warnings: tuple[str, ...]
    schedule: Schedule
    """As it would be stored; to be sent with ``POST recalls``."""
    policy: Policy
    """What the text says besides the times (``until``, ``max_fires``)."""
    meaning: str
    """The schedule in words."""
    message: str = ""
    """Of a sentence: what is left of it without the time."""
    phrase: str = ""
    """Of a text: the words that were read as the time."""


class RecallsChanged(Value):
    """How many recalls were changed."""

    changed: int


class RecallImport(Value):
    """Body of ``POST recalls/import``, which takes plain TOML as well."""

    toml: Annotated[str, StringConstraints(max_length=10_000_000)]


class Imported(Value):
    """``POST recalls/import``: what was made or, with ``dry_run``, would be."""

    recalls: tuple[Recall, ...]
    dry_run: bool
    words: dict[str, str] = Field(default_factory=dict)
    """The schedule of each of them as people say it, by the recall's id."""


class AwayRun(Value):
    """A turn that took place."""

    run_id: str
    at: Instant
    status: RunStatus
    origin: Origin
    prompt: str
    """The beginning of what was asked."""
    answer: str
    """The beginning of what was answered."""
    error: str | None
    """The code of its failure."""


class AwaySlot(Value):
    """A slot that did not run, and why."""

    recall_id: str
    title: str
    slot: Instant
    status: str
    reason: str | None
    coalesced: int
    """How many earlier slots it stands for besides its own."""


class Away(Value):
    """``GET sessions/{sid}/away``: what happened in a session since then, oldest first."""

    since: Instant
    runs: tuple[AwayRun, ...]
    not_run: tuple[AwaySlot, ...]
    missed: int
    """Slots that did not run, those that are only counted included."""
    failed: int
    """Of the runs."""


# --- what can be used here -------------------------------------------------------------------------------------------


class ProfileInfo(Value):
    """A named way to be."""

    name: str
    description: str
    builtin: bool
    path: str | None
    """The file that it comes from."""
    model: str | None
    """The model of new sessions with this profile that name none."""
    tools: tuple[str, ...]
    """Names or patterns; ``!`` takes away."""
    permissions: dict[str, Permission]
    headless: Literal["queue", "deny"]
    """What becomes of questions when nobody is there."""
    mcp: tuple[str, ...]
    context: dict[str, bool]
    workers: tuple[str, ...]
    limits: RunLimits
    available: bool
    why: str | None
    """What is wrong with its file, with file and line; null when nothing is."""


class ProfilePage(Value):
    """``GET profiles``."""

    profiles: tuple[ProfileInfo, ...]
    next: str | None


class ModelInfo(Value):
    """A model."""

    name: str
    """As sessions and prompts name it."""
    provider: str
    available: bool
    why: str | None
    """What to do to make it usable; null when it is."""


class ModelPage(Value):
    """``GET models``: the offline one, those in use, suggestions."""

    models: tuple[ModelInfo, ...]
    next: str | None


class ToolInfo(Value):
    """A tool that runs can call."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of its arguments."""
    effect: Effect | None
    """Null for what could not be loaded."""
    source: str
    """``builtin``, ``package:<distribution>``, ``kernel``, ``mcp:<server>``."""
    permission: Permission | None
    """What holds with a profile and a session that say nothing; null for what could not be loaded."""
    available: bool
    why: str | None
    """What to do to make it usable; null when it is."""


class ToolPage(Value):
    """``GET tools``."""

    tools: tuple[ToolInfo, ...]
    next: str | None


class McpServerInfo(Value):
    """A configured MCP server."""

    name: str
    status: Literal["configured", "starting", "ready", "failed", "stopped", "disabled"]
    """``configured``: not started, since nobody has used it yet."""
    available: bool
    """Whether a run can use it, or will once it has started."""
    why: str | None
    """Why it can not be used; null when it can."""
    transport: Literal["stdio", "http"]
    protocol: str | None
    """The version of MCP that is spoken with it; null when it is not ready."""
    tools: int
    """How many it has; 0 when it is not ready."""
    file: str
    """Where it is configured."""


class McpProblem(Value):
    """A configuration file that can not be read."""

    file: str
    message: str


class McpPage(Value):
    """``GET mcp``."""

    mcp: tuple[McpServerInfo, ...]
    problems: tuple[McpProblem, ...]
    next: str | None


class MemoryPage(Value):
    """``GET memory``: what the agent remembers about the user."""

    memory: tuple[Fact, ...]
    next: str | None


class ReadRequest(Value):
    """Body of ``POST sessions/{sid}/read``."""

    seq: Annotated[int, Field(ge=0, le=2**53)]
    """The last event that the user has seen."""


class ReadMark(Value):
    """How far the user has seen a session."""

    seq: int
    unread: int


class NotifyTarget(Value):
    """Somewhere a notification can be sent."""

    name: str
    """As ``policy.notify`` names it."""
    service: str | None
    """The scheme of its URL; null when it can not be used."""
    source: str
    """The file or the environment variable that it comes from."""
    available: bool
    why: str | None
    """What is wrong with it, with file and line; null when nothing is."""
    waiting: int
    """Notifications that are still to be sent, of your recalls."""
    sent: int
    failed: int
    last_sent_at: Instant | None
    last_error: str | None
    """Why the last one was not sent, also while it is still tried; null when it was."""


class NotifyProblem(Value):
    """Something wrong with a file as a whole, or with a setting in it."""

    file: str
    message: str


class NotifyPage(Value):
    """``GET notify``."""

    notify: tuple[NotifyTarget, ...]
    quiet: str | None
    """Hours in which nobody is told anything, of the zone of each session."""
    per_hour: int
    """Messages to each target within an hour; what is more comes as one digest."""
    problems: tuple[NotifyProblem, ...]
    next: str | None


class NotifyTrial(Value):
    """``POST notify/{name}/test``."""

    delivered: bool
    error: str | None


class Health(Value):
    """``GET health``. Counts are of this server process."""

    status: Literal["ok", "starting", "failed", "stopping"]
    version: str
    sessions: int
    """Sessions in memory."""
    runs: int
    """Runs in progress."""
    recalls: int
    """Recalls that are pending, running or paused, in the database."""
    followers: int
    loop_lag_ms: float
    """The longest delay of the event loop seen in the last ten seconds."""
    message: str | None = None
    """Why it is not ok; or, when it is, what its owner should know (a damaged database that was set aside)."""


INPUTS: dict[str, Any] = {
    "Command": Command,
    "SessionCreate": SessionCreate,
    "SessionPatch": SessionPatch,
    "RecallCreate": RecallCreate,
    "RecallPatch": RecallPatch,
    "PreviewRequest": PreviewRequest,
    "RecallImport": RecallImport,
    "ReadRequest": ReadRequest,
    "FactCreate": FactCreate,
    "FactPatch": FactPatch,
    "KernelFunctions": KernelFunctions,
}
"""What clients send, by the name it has in the schema."""
