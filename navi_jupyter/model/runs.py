"""What runs work with and leave behind: attachments, questions to the user, facts, what a tool may do.

The second half of the nouns: sessions, runs and recalls are in ``model``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ..text import approval_words
from .base import Duration, Instant, Value

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")]


class InterruptKind(StrEnum):
    """Why a run asks."""

    APPROVAL = "approval"  # a tool call may run only if the user approves
    QUESTION = "question"  # a value is missing (MCP elicitation, a subagent's question)


class InterruptStatus(StrEnum):
    """How far a question is. All but the first are final."""

    OPEN = "open"
    RESOLVED = "resolved"  # answered; for an approval, the payload has whether it may run
    CANCELLED = "cancelled"  # declined without an answer, or its run ended
    EXPIRED = "expired"


class CellPlace(Value):
    """A cell of a notebook, by which a view finds it: a page that shows the notebook can go there."""

    path: str
    id: str
    index: int  # from zero
    execution_count: int | None = None  # drawn as ``In [7]``


class CallDetail(Value):
    """One part of what the user sees of a call before they decide about it: what it would do, as it is now."""

    label: str  # what it is: `Code`, `Path`, `Change of the file`
    text: str
    kind: Literal["text", "code", "diff"] = "text"
    """``diff``: lines that begin with a blank (as before), ``+``, ``-`` or ``@`` (where the next ones are)."""
    language: str | None = None  # of code, as highlighters name it
    foreign: bool = False  # words of another program (an MCP server, a package, a function of a kernel)
    omitted: int = 0  # characters of the text that are left out at its end
    cell: CellPlace | None = Field(default=None, exclude_if=lambda value: value is None)
    """The cell that the text names: the one that is changed or run, or after which one is added."""


OptionKind = Literal["allow_once", "allow_always", "reject_once", "reject_always"]
"""What choosing an option means (Agent Client Protocol, ``PermissionOptionKind``)."""


class AskOption(Value):
    """One of the answers that an agent program offers to its question whether it may do something."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]  # the program's own
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]  # words of the program, not Navi's
    kind: OptionKind

    @property
    def allows(self) -> bool:
        """Whether choosing it lets the program go on."""
        return self.kind in ("allow_once", "allow_always")


class Interrupt(Value):
    """Something that a run waits for (AG-UI's interrupt)."""

    id: str
    session_id: str
    run_id: str
    kind: InterruptKind
    message: str
    tool_call_id: str | None = None
    tool: str | None = None  # name of the tool; set for approvals
    args: dict[str, Any] | None = None  # what the tool would be called with; set for approvals
    source: str | None = (
        None  # of the tool, or of the one who asks: `builtin`, `mcp:<server>`, `kernel`, `package:<name>`
    )
    details: tuple[CallDetail, ...] = ()  # what the call would do, described when the question was made
    fingerprint: str | None = None
    """Of what the call was described from (a cell's source, a file). When that has changed, the call is not made."""
    response_schema: dict[str, Any] | None = None  # JSON schema of the payload of a ``resolved`` answer to a question
    options: tuple[AskOption, ...] = Field(default=(), exclude_if=lambda value: not value)
    """The answers that an approval offers, where an agent program asks; empty: allow or deny. The answer names one."""
    subagent_run_id: str | None = None  # the subagent that asks
    durable: bool = True
    """Whether the run waits in the database, and goes on after a restart. Else it waits in the server's memory."""
    created_at: Instant
    expires_at: Instant | None = None
    status: InterruptStatus = InterruptStatus.OPEN
    payload: Any = None
    answered_by: str | None = None
    answered_at: Instant | None = None

    @property
    def about_the_tool(self) -> bool:
        """Whether it asks about a tool. Else about this very call, in its own words (leave for a recall), and an answer
        holds for no other one: ``always`` does not count."""
        return self.kind is InterruptKind.APPROVAL and self.message == approval_words(self.tool) and not self.options

    def option(self, approval: Approval) -> AskOption | None:
        """Which of its options an answer chooses: the one that it names, else the first that means what it says.

        None where there is no such option: a program need not offer one for each.
        """
        if approval.option is not None:
            return next((option for option in self.options if option.id == approval.option), None)
        kinds = ("allow_once", "allow_always") if approval.approved else ("reject_once", "reject_always")
        for kind in reversed(kinds) if approval.always else kinds:
            if found := next((option for option in self.options if option.kind == kind), None):
                return found
        return None


class Approval(Value):
    """The payload of an answer to an approval."""

    approved: bool
    args: dict[str, Any] | None = None  # call it with these instead
    always: Literal["session"] | None = None  # ``session``: do not ask again for this tool in this session
    message: Annotated[str, StringConstraints(max_length=4000)] | None = None  # for the model; why not, for example
    option: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """The id of the option that is chosen, of a question that offers some; missing: the first that means the same."""


class Permission(StrEnum):
    """Whether a tool may be called. Later ones are stricter."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Effect(StrEnum):
    """What calling a tool does to the world: decides whether it asks where no permission is set."""

    READ = "read"  # looks only. Allowed by default.
    NOTE = "note"  # changes Navi's own things: recalls, memory. Allowed by default.
    WRITE = "write"  # changes files or notebooks. Asks by default.
    RUN = "run"  # executes code. Asks by default.
    OUTSIDE = "outside"
    """Another program's (MCP, a package, a function of the user's) that is not known to only read. Asks by default."""


class KernelFunction(Value):
    """A function that the user offers as a tool (``@navi.tool``), as its kernel describes it."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    description: Annotated[str, StringConstraints(max_length=8000)] = ""
    parameters: dict[str, Any]  # JSON schema of the arguments: an object
    effect: Effect = Effect.OUTSIDE
    awaits: bool = False  # it is a coroutine function


class KernelFunctions(Value):
    """Body of ``POST kernels/{kid}/tools``: functions that are new, or have changed."""

    tools: Annotated[tuple[KernelFunction, ...], Field(min_length=1, max_length=100)]


class ClientTool(Value):
    """A tool of the program that sends a prompt: that program executes it, and sends the result of the call."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
    description: Annotated[str, StringConstraints(max_length=8000)] = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of the arguments: an object."""


class RunLimits(Value):
    """What a profile may set; the traits of the server are the ceiling."""

    max_iterations: Annotated[int, Field(ge=1, le=10_000)] | None = None  # requests to the model in one run
    timeout: Duration | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # input and output tokens of one run
    max_cost: Annotated[float, Field(gt=0)] | None = None  # US dollars of one run, where the price is known
