"""What runs work with and leave behind: attachments, questions to the user, facts, what a tool may do.

The second half of the nouns: sessions, runs and recalls are in ``model``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, Field, StringConstraints, model_validator

from .model import Duration, Instant, Value

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")]


# --- attachments -----------------------------------------------------------------------------------------------------


class AttachmentRef(Value):
    """An image or a file that goes with a prompt: exactly one of ``id``, ``data`` and ``path``."""

    id: Annotated[str, StringConstraints(max_length=64)] | None = None
    """One that was uploaded before (``POST attachments``)."""
    data: Base64Bytes | None = None
    """The content itself, base64; small ones only (``max_message_bytes`` bounds the whole command)."""
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """A file under the server's root, read when the prompt is accepted."""
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)] | None = None
    media_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[A-Za-z0-9.+-]{1,100}$")] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> AttachmentRef:
        if sum(value is not None for value in (self.id, self.data, self.path)) != 1:
            raise ValueError("give exactly one of id, data and path")
        return self


class Attachment(Value):
    """A stored file. Its content is immutable; the same content is stored once per owner."""

    id: str
    owner: str
    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    created_at: Instant


class AttachmentInfo(Value):
    """An attachment as messages show it."""

    id: str
    name: str
    media_type: str
    size: int


# --- questions to the user -------------------------------------------------------------------------------------------


class InterruptKind(StrEnum):
    """Why a run asks."""

    APPROVAL = "approval"
    """A tool call may run only if the user says so."""
    QUESTION = "question"
    """A value is missing (MCP elicitation, a worker's question)."""


class InterruptStatus(StrEnum):
    """How far a question is. All but the first are final."""

    OPEN = "open"
    RESOLVED = "resolved"
    """Answered; for an approval, the payload says whether it may run."""
    CANCELLED = "cancelled"
    """Declined without an answer, or its run ended."""
    EXPIRED = "expired"


class Interrupt(Value):
    """Something that a run waits for (AG-UI's interrupt)."""

    id: str
    session_id: str
    run_id: str
    kind: InterruptKind
    message: str
    tool_call_id: str | None = None
    tool: str | None = None
    """Name of the tool; set for approvals."""
    args: dict[str, Any] | None = None
    """What the tool would be called with; set for approvals."""
    response_schema: dict[str, Any] | None = None
    """JSON schema of the payload of a ``resolved`` answer to a question."""
    subagent_run_id: str | None = None
    """The worker that asks."""
    durable: bool = True
    """Whether the run waits in the database, and goes on after a restart. Else it waits in the server's memory."""
    created_at: Instant
    expires_at: Instant | None = None
    status: InterruptStatus = InterruptStatus.OPEN
    payload: Any = None
    answered_by: str | None = None
    answered_at: Instant | None = None


class Approval(Value):
    """The payload of an answer to an approval."""

    approved: bool
    args: dict[str, Any] | None = None
    """Call it with these instead."""
    always: Literal["session"] | None = None
    """``session``: do not ask again for this tool in this session."""
    message: Annotated[str, StringConstraints(max_length=4000)] | None = None
    """For the model; why not, for example."""


# --- what tools may do -----------------------------------------------------------------------------------------------


class Permission(StrEnum):
    """Whether a tool may be called. Later ones are stricter."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Effect(StrEnum):
    """What calling a tool does to the world: decides whether it asks when nobody has said otherwise."""

    READ = "read"
    """Looks only. Allowed by default."""
    NOTE = "note"
    """Changes Navi's own things: recalls, memory. Allowed by default."""
    WRITE = "write"
    """Changes files or notebooks. Asks by default."""
    RUN = "run"
    """Executes code. Asks by default."""
    OUTSIDE = "outside"
    """Another program's (MCP, a package, a function of the user's) that does not say it only reads. Asks by default."""


# --- functions of a kernel ------------------------------------------------------------------------------------------


class KernelFunction(Value):
    """A function that the user offers as a tool (``@navi.tool``), as its kernel tells of it."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    description: Annotated[str, StringConstraints(max_length=8000)] = ""
    parameters: dict[str, Any]
    """JSON schema of the arguments: an object."""
    effect: Effect = Effect.OUTSIDE
    awaits: bool = False
    """It is a coroutine function."""


class KernelFunctions(Value):
    """Body of ``POST kernels/{kid}/tools``: functions that are new, or have changed."""

    tools: Annotated[tuple[KernelFunction, ...], Field(min_length=1, max_length=100)]


# --- memory ----------------------------------------------------------------------------------------------------------


FactText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class Fact(Value):
    """Something that the agent remembers about a user, over all sessions."""

    id: str
    owner: str
    text: str
    source: Literal["user", "agent"]
    session_id: str | None = None
    """Where it was learned."""
    created_at: Instant
    updated_at: Instant


class FactCreate(Value):
    """Body of ``POST memory``."""

    text: FactText
    session_id: Annotated[str, StringConstraints(max_length=64)] | None = None


class FactPatch(Value):
    """Body of ``PATCH memory/{id}``."""

    text: FactText


# --- limits ----------------------------------------------------------------------------------------------------------


class RunLimits(Value):
    """What a profile may set; the traits of the server are the ceiling."""

    max_iterations: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests to the model in one run."""
    timeout: Duration | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Input and output tokens of one run."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """US dollars of one run, where the price is known."""
