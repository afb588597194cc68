"""Bodies about sessions (runs and queue, messages, usage), the frames of their WebSocket, the body of every error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ...commands import Acceptance
from ...events import Envelope
from ...model.agent_options import AgentOffer
from ...model.attachments import AttachmentInfo
from ...model.base import Instant, Value
from ...model.runs import AskOption, Interrupt, InterruptKind, InterruptStatus
from ...model.sessions import Origin, Run, RunStatus, Session, SessionCreate, Usage


class QueuedPrompt(Value):
    """A prompt that waits; ``edit`` and ``unqueue`` name it by its ``command_id``."""

    command_id: str
    text: str  # what the model will read
    display: str | None  # what is shown instead; null: the text
    attachments: tuple[AttachmentInfo, ...]


class QueuedRun(Run):
    """A run that waits for its turn."""

    mode: str  # of its first prompt
    prompts: tuple[QueuedPrompt, ...]  # what it will answer: several in mode ``collect``


Access = Literal["owner", "reader"]
"""What the user may do with a session: everything, or read one that somebody else shares."""


class SessionDetail(Session):
    """A session with what it is doing."""

    run: Run | None  # the run in progress
    queue: tuple[QueuedRun, ...]  # waiting prompts, in the order in which they will start
    approvals: tuple[Interrupt, ...]  # questions to the user that are open, oldest first
    usage: Usage  # of all its runs that have paused or ended
    agent_offer: AgentOffer | None = None  # what its agent program offered last; it names the program
    unread: int = 0  # as in :class:`SessionInfo`
    access: Access = "owner"
    readers: tuple[str, ...] = ()  # the users with whom its owner shares it; empty for these


class Question(Interrupt):
    """``GET sessions/{sid}/interrupts/{iid}``: a question, open or settled."""

    drawn: bool  # whether a page has reported that it shows buttons or a form for it


class WaitingSession(Value):
    """A session in which something waits for you."""

    id: str
    title: str
    notebook_path: str | None
    unread: int  # as in :class:`SessionInfo`
    questions: int  # that are open


class Attention(Value):
    """``GET attention``: what waits for you in all sessions."""

    unread: int
    questions: int
    sessions: tuple[WaitingSession, ...]  # the last used first; at most 50 of them


class SessionFind(SessionCreate):
    """Body of ``POST sessions/find``: what the asker knows of its notebook and kernel, and fields of a new session."""

    create: bool = False  # whether to make a session when there is none
    cell_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    """The cell that asks: it names one of several notebooks with the same kernel, and is known before it is saved."""
    cell_source: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    """Its source, by which a notebook whose cells have no ids (before nbformat 4.5) is known."""
    is_open: bool = False
    """Whether the asker has the notebook open, perhaps without a kernel of this server (a page that shows a chat, VS
    Code): nothing is changed behind it, and its next save brings the id."""
    session_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    """The session that a program without notebook and kernel has used until now."""


class FoundSession(Value):
    """The session of a notebook, and how it was found."""

    session: Session | None
    how: Literal["found", "moved", "copied", "created", "none"]
    """``moved``: the notebook was at another path before; ``copied``: it is a copy, and got a new session; ``none``:
    there is none, and none was to be made."""
    path: str | None  # where the notebook is now, relative to the server's root; null: there is none
    note: str | None  # what the user should know, in a sentence
    earlier: tuple[Session, ...]
    """Other sessions of this notebook, and of notebooks that were at its path before; the last used first."""


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
    queued: bool  # a prompt whose run has not started
    partial: bool  # the run ended, or is still going, before the message was complete
    subagent_run_id: str | None  # the subagent whose message it is; null: the run's own agent, or the user
    attachments: tuple[AttachmentInfo, ...]
    usage: Usage | None  # tokens of the run, on the last assistant message of each finished run; else null


class MessagePage(Value):
    """``GET sessions/{sid}/messages``: the whole conversation, oldest first; ``next`` is always null."""

    messages: tuple[MessageInfo, ...]
    next: str | None


class SettledQuestion(Value):
    """How a question to the user was settled, without what it showed: who allowed what, and when."""

    id: str
    run_id: str
    kind: InterruptKind
    message: str
    tool_call_id: str | None
    tool: str | None
    source: str | None
    options: tuple[AskOption, ...] = Field(default=(), exclude_if=lambda value: not value)
    subagent_run_id: str | None
    status: InterruptStatus
    payload: Any
    answered_by: str | None
    answered_at: Instant | None


class TranscriptPage(Value):
    """``GET sessions/{sid}/transcript``: messages of finished runs, oldest first, as in ``MESSAGES_SNAPSHOT``."""

    messages: tuple[dict[str, Any], ...]
    runs: tuple[Run, ...]  # those that the messages are of: how each ended
    questions: tuple[SettledQuestion, ...]  # of these runs, oldest first
    earlier: str | None  # `before` of the page before this; null: this begins with the session's first message


class UsageReport(Value):
    """``GET usage``: what your runs have used up, by when they were made; deleted sessions are not included."""

    today: Usage
    last_30_days: Usage
    total: Usage


class RunPage(Value):
    """``GET sessions/{sid}/runs``: newest first."""

    runs: tuple[Run, ...]
    questions: tuple[SettledQuestion, ...]  # of these runs, oldest first
    next: str | None


class ReadRequest(Value):
    """Body of ``POST sessions/{sid}/read``."""

    seq: Annotated[int, Field(ge=0, le=2**53)]  # the last event that the user has seen


class ReadMark(Value):
    """How far the user has seen a session."""

    seq: int
    unread: int


class AwayRun(Value):
    """A turn that took place."""

    run_id: str
    at: Instant
    status: RunStatus
    origin: Origin
    prompt: str  # the beginning of what was asked
    answer: str  # the beginning of what was answered
    error: str | None  # the code of its failure
    reason: str | None = None  # its failure in words: ``needed approval: run_code``


class AwaySlot(Value):
    """A slot that did not run, and why."""

    recall_id: str
    title: str
    slot: Instant
    status: str
    reason: str | None
    coalesced: int  # how many earlier slots it stands for besides its own


class Away(Value):
    """``GET sessions/{sid}/away``: what happened in a session since then, oldest first."""

    since: Instant
    runs: tuple[AwayRun, ...]
    not_run: tuple[AwaySlot, ...]
    missed: int  # slots that did not run, those that are only counted included
    failed: int  # of the runs: those that failed, took too long, or were cut by the end of their server


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


ServerFrame = Envelope | Batch | Accepted | Rejected  # what a server frame of the WebSocket is


class ErrorBody(Value):
    """Every answer with a status of 400 or more."""

    message: str  # one sentence: what happened, and what to do
    reason: str  # the HTTP reason phrase
    code: str  # stable; listed in the reference
    field: str | None = None
    """The path of the offending input field, e.g. ``policy.retries``; left out when there is none."""
