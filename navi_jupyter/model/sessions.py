"""The nouns: sessions, runs, recalls, firings. Frozen values, their wire form, their JSON schema.

Not responsible for how they are stored (``store``) or changed (``orchestrator``, ``recalls``).
All instants are timezone-aware; on the wire ISO 8601 with an offset. All durations are :class:`datetime.timedelta`;
on the wire ``90s``, ``10m``, ``1h30m``, ``2d``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .agent_options import NOTHING_CHOSEN, AgentChoice
from .base import Instant, ModelName, Names, ProfileName, Title, Value, ZoneName


class OriginKind(StrEnum):
    """Who caused something."""

    USER = "user"
    RECALL = "recall"
    SYSTEM = "system"


class Origin(Value):
    """Who caused something; ``recall_id`` is set exactly when a recall did."""

    kind: OriginKind = OriginKind.USER
    recall_id: str | None = None
    kernel_id: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """The kernel that sent it in the user's name, with the kernels' token, as it says; left out where the user's page
    or program did."""

    def sender(self, user_id: str) -> str:
        """Who has sent something in that user's name: the user, or ``kernel:<id>``."""
        return user_id if self.kernel_id is None else f"kernel:{self.kernel_id}"


USER = Origin(kind=OriginKind.USER)
SYSTEM = Origin(kind=OriginKind.SYSTEM)


class NotebookLinkState(StrEnum):
    """Whether a notebook carries the id of its session in ``metadata.navi.session_id``."""

    LINKED = "linked"
    PENDING = "pending"  # not until it is saved; meanwhile it is known by its cells
    EARLIER = "earlier"  # it has another session now: this one still works with it and is not found by it


class ZoneSource(StrEnum):
    """Where the zone of a session comes from, the weakest first."""

    DEFAULT = "default"  # no program has named one: it is UTC
    KERNEL = "kernel"  # the zone of the machine of a kernel or program, which need not be the user's
    BROWSER = "browser"  # the zone of the browser with which the user asked last, or opened the session
    CHOSEN = "chosen"  # the user named it, and no other machine changes it


class TitleSource(StrEnum):
    """Who made the title of a session."""

    DEFAULT = "default"  # it is new: the name of its notebook, or when it began
    WORDS = "words"  # the words of its first prompt
    MODEL = "model"  # its model, after the first exchange
    USER = "user"  # the user, and nothing else changes it


_STRENGTHS = {source: strength for strength, source in enumerate(ZoneSource)}


class Asker(Value):
    """The machine of the one who asks: field ``client``, as the program there reports it."""

    tz: ZoneName
    source: Literal["browser", "kernel"] | None = None
    """How ``tz`` is known: it is the clock of the browser in which the user works, or of a kernel, whose machine may be
    anywhere. None: it is named for this very request, and counts for it whatever the session has."""


class Session(Value):
    """One conversation, owned by one user."""

    id: str
    owner: str
    title: str
    profile: str
    model: str
    notebook_path: str | None = None  # where its notebook was last seen: the notebook is known by what it carries
    notebook_link: NotebookLinkState | None = None
    earlier_path: str | None = None
    """Where the notebook was that it belonged to; set once it belongs to none, because another one is there."""
    kernel_id: str | None = None
    server: str = ""
    """On a JupyterHub: the name of the user's server that has its notebook and kernel; empty: the usual one."""
    timezone: str = "UTC"
    """IANA zone of the user. Times that name none are read in it, and its clock is the one that the agent reads."""
    timezone_source: ZoneSource = ZoneSource.DEFAULT
    created_at: Instant
    updated_at: Instant
    head_seq: int = 0
    allowed_tools: tuple[str, ...] = ()
    """Tools that the user has allowed for this session, so that they do not ask again."""
    context: dict[str, bool] = Field(default_factory=dict)
    """Context providers that are switched on or off here, whatever the profile has."""
    agent_options: AgentChoice = NOTHING_CHOSEN  # of an agent program, where its model is one
    title_source: TitleSource = TitleSource.USER
    archived_at: Instant | None = None
    """Set while it is out of the list that is shown by default; its recalls are paused."""
    deleted_at: Instant | None = None
    """Set once it is deleted: it can be restored until it is removed for good."""

    def seen_from(self, client: Asker | None) -> Session:
        """This session with the zone that counts when that client asks: the one rule of whose zone that is.

        The one that is named for this very request; the zone that the user chose; else the browser's that asks, or the
        one that a browser had; else the kernel's that asks. So the same words mean the same time in a cell, the chat, a
        form and a program.
        """
        if client is None:
            return self
        if self.timezone_source is ZoneSource.CHOSEN:
            return self if client.source is not None else self.but(timezone=client.tz)
        source = ZoneSource(client.source or ZoneSource.BROWSER)
        if _STRENGTHS[source] < _STRENGTHS[self.timezone_source]:
            return self
        return self.but(timezone=client.tz, timezone_source=source)


class SessionCreate(Value):
    """Body of ``POST sessions``."""

    title: Title | None = None
    profile: ProfileName | None = None
    model: ModelName | None = None
    notebook_path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    kernel_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    timezone: Annotated[str, StringConstraints(max_length=64)] | None = None
    timezone_source: ZoneSource | None = None
    """Of ``timezone``. Left out: of a new session ``kernel`` (its program's), of a change ``chosen``."""
    allowed_tools: Annotated[Names, Field(max_length=200)] | None = None
    context: dict[Annotated[str, StringConstraints(max_length=64)], bool] | None = None
    agent_options: AgentChoice | None = None
    """Replaces what was chosen before, and counts from the agent program's next turn on."""


class SessionPatch(SessionCreate):
    """Body of ``PATCH sessions/{sid}``: the fields that are there are changed."""


class RunStatus(StrEnum):
    """How far a run is. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        """Holds the session: at most one such run per session, as a database fact."""
        return self in (RunStatus.RUNNING, RunStatus.WAITING)

    @property
    def final(self) -> bool:
        """Never changes again."""
        return not self.active and self is not RunStatus.QUEUED


class Usage(Value):
    """Tokens of a run (or a sum of runs). Zero where the backend does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cost: float | None = None
    """US dollars by the list price; None where it is not known (in a sum: of the parts that are known)."""

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            requests=self.requests + other.requests,
            cost=sum(costs) if costs else None,
        )


class Failure(Value):
    """Why a run did not complete: a stable code and a sentence."""

    code: str
    message: str


class AnswerNotice(Value):
    """What is the matter with the answer of a run that completed: a stable code and a sentence with what to do.

    ``answer_cut``, ``answer_filtered``, ``answer_empty``.
    """

    code: str
    message: str


UNANSWERED = ("needed_approval", "needed_answer")  # Codes of a recall's run that needed the user, who was not there.


CELL_FAILED, NOT_EXECUTED = "notebook_failed", "notebook_not_run"
"""Codes of a recall's run whose notebook failed at a cell, or could not be executed at all. Their messages say why."""


def needed_approval(tools: Iterable[str]) -> Failure:
    """Of a recall's run that needed these tools, and could not ask the user for them."""
    return Failure(code="needed_approval", message=f"needed approval: {', '.join(dict.fromkeys(tools))}")


def needed_answer(question: str) -> Failure:
    """Of a recall's run that asked something other than whether it may call a tool."""
    return Failure(code="needed_answer", message=f"needed an answer: {question}")


class Run(Value):
    """One turn of the agent in a session."""

    id: str
    session_id: str
    command_id: str
    status: RunStatus
    origin: Origin
    model: str
    created_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    usage: Usage = Usage()
    error: Failure | None = None
    notice: AnswerNotice | None = None  # set when it completed and its answer is cut, filtered or empty
    merged_into: str | None = None  # the run that took this one's prompt over while it was in progress (mode ``steer``)
    timezone: str | None = None
    """IANA zone in which its prompt is read, from the client that sent it; None: that of the session."""
    rolled_back: bool = False
    """Left out of what the model reads of earlier turns (mode ``rollback``); the log has it all."""
