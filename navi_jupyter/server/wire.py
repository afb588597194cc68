"""What only the server says or is told: the bodies of its answers, its socket frames, its error shape.

Not responsible for the nouns themselves (``model``) or for what happens in a session (``events``). Imported by the
start task, never at extension load: building pydantic models costs tens of milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from ..commands import Acceptance, Command
from ..events import Envelope
from ..model import (
    Firing,
    Instant,
    Origin,
    Recall,
    RecallCreate,
    RecallPatch,
    Run,
    ScheduleSpec,
    Session,
    SessionCreate,
    SessionPatch,
    Usage,
    Value,
)
from ..work import (
    AttachmentInfo,
    Effect,
    Fact,
    FactCreate,
    FactPatch,
    Interrupt,
    KernelFunctions,
    Permission,
    RunLimits,
)

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


class SessionPage(Value):
    """``GET sessions``: most recently used first."""

    sessions: tuple[Session, ...]
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


class FiringPage(Value):
    """``GET recalls/{id}/firings``: the ledger, newest first."""

    firings: tuple[Firing, ...]
    next: str | None


class PreviewRequest(Value):
    """Body of ``POST recalls/preview``."""

    schedule: ScheduleSpec
    n: Annotated[int, Field(ge=1, le=100)] = 5
    after: AwareDatetime | None = None
    """Default: now."""
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The zone for a schedule that names none; default UTC."""


class Preview(Value):
    """The next fires strictly after ``after``, in the schedule's zone, and what is odd about the schedule."""

    times: tuple[Instant, ...]
    warnings: tuple[str, ...]


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
    "FactCreate": FactCreate,
    "FactPatch": FactPatch,
    "KernelFunctions": KernelFunctions,
}
"""What clients send, by the name it has in the schema."""
