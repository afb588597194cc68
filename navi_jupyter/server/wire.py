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

# --- the socket ------------------------------------------------------------------------------------------------------

CommandType = Literal["prompt", "stop", "unqueue", "answer"]


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


class SessionDetail(Session):
    """A session with what it is doing."""

    run: Run | None
    """The run in progress."""
    queue: tuple[Run, ...]
    """Waiting prompts, oldest first."""
    approvals: tuple[dict[str, Any], ...]
    """Questions to the user that are open."""


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
    usage: Usage | None
    """Tokens of the run, on the last assistant message of each finished run; else null."""


class MessagePage(Value):
    """``GET sessions/{sid}/messages``: the whole conversation, oldest first; ``next`` is always null."""

    messages: tuple[MessageInfo, ...]
    next: str | None


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
    tools: tuple[str, ...]
    builtin: bool
    available: bool
    why: str | None
    """What to do to make it usable; null when it is."""


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
    status: str
    available: bool
    why: str | None
    """What to do to make it usable; null when it is."""


class McpPage(Value):
    """``GET mcp``."""

    mcp: tuple[McpServerInfo, ...]
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
}
"""What clients send, by the name it has in the schema."""
