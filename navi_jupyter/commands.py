"""What somebody can ask of a session. The same objects over HTTP and WebSocket.

Not responsible for who asked: that is what the server authenticated, and travels beside the command.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .model.attachments import AttachmentRef
from .model.base import CommandId, ModelName, Value
from .model.notebooks import PromptClient
from .model.runs import ClientTool
from .text import TRACEPARENT

PromptMode = Literal["reject", "enqueue", "interrupt", "rollback", "steer", "collect"]
"""``reject``: refuse with 409. ``enqueue``: wait for its turn. ``interrupt``: stop the run and come next. ``rollback``:
the same, and the model does not read the stopped turn. ``steer``: give it to the run before its next request to the
model. ``collect``: wait; what is collected until the run ends becomes one prompt."""

MentionToken = Annotated[str, StringConstraints(pattern=r"^@\S[^\n]*$", max_length=300)]
_Attached = Annotated[tuple[AttachmentRef, ...], Field(max_length=20)]


class Prompt(Value):
    """Ask the agent. ``mode``: what happens when a run is in progress."""

    type: Literal["prompt"] = "prompt"
    command_id: CommandId | None = None
    text: Annotated[str, StringConstraints(min_length=1)]
    display: Annotated[str, StringConstraints(min_length=1)] | None = None  # shown instead of ``text``
    images: _Attached = ()
    files: _Attached = ()
    model: ModelName | None = None
    mode: PromptMode = "enqueue"
    client: PromptClient | None = None
    """Whose clock the times in ``text`` are of (:meth:`navi_jupyter.model.sessions.Session.seen_from`), and what the
    page shows of its notebook: stored with the prompt, read by the model as data, not shown as words of the user's."""
    mentions: Annotated[tuple[MentionToken, ...], Field(max_length=20)] = ()
    """What ``text`` names with ``@``, each as it stands there: its content goes along, as files."""
    tools: Annotated[tuple[ClientTool, ...], Field(max_length=100)] = ()
    """Tools of the sender, which the run may call: it pauses at each call until the sender answers its question."""
    replaces: str | None = None
    """A run of this session that has ended: the model does not read it any more (edit and send again, answer again)."""
    traceparent: Annotated[str, StringConstraints(pattern=TRACEPARENT)] | None = None
    """Whose child the spans of its run are, in W3C Trace Context's form; missing: that of the request's header."""
    again: bool = False
    """The prompt of the run that it ``replaces``, as it was sent: ``text`` only says what is shown of it."""

    @model_validator(mode="after")
    def _repeats_one(self) -> Self:
        if self.again and self.replaces is None:
            raise ValueError("again: name the run whose prompt is sent again in replaces")
        return self


class Stop(Value):
    """Stop a run (the current one when ``run_id`` is missing). Accepted, and without effect, when none is running."""

    type: Literal["stop"] = "stop"
    command_id: CommandId | None = None
    run_id: str | None = None


class Unqueue(Value):
    """Withdraw a prompt that is still waiting."""

    type: Literal["unqueue"] = "unqueue"
    command_id: CommandId | None = None
    target: CommandId


class Edit(Value):
    """Change the text of a prompt that is still waiting."""

    type: Literal["edit"] = "edit"
    command_id: CommandId | None = None
    target: CommandId
    text: Annotated[str, StringConstraints(min_length=1)]
    display: Annotated[str, StringConstraints(min_length=1)] | None = None


class Answer(Value):
    """Answer an approval or a question of a run. The first answer counts; ``cancelled`` declines.

    ``payload`` is a :class:`navi_jupyter.model.runs.Approval` for an approval (missing: approved as it is), for a
    question what fits its ``response_schema``.
    """

    type: Literal["answer"] = "answer"
    command_id: CommandId | None = None
    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None
    option: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """For an approval that offers ``options``: the id of the one that is chosen. It decides whether it is approved, so
    that ``payload`` may be missing; else the first option that means what ``payload`` says is chosen."""


Command = Annotated[Prompt | Stop | Unqueue | Edit | Answer, Field(discriminator="type")]


class Acceptance(Value):
    """The answer to a command: it is durable, at ``seq``. The same for every repetition of its ``command_id``."""

    command_id: str
    seq: int
    run_id: str | None = None
