"""What somebody can ask of a session. The same objects over HTTP and WebSocket.

Not responsible for who asked: that is what the server authenticated, and travels beside the command.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from .model import CommandId, ModelName, Value

PromptMode = Literal["reject", "enqueue", "interrupt"]


class Prompt(Value):
    """Ask the agent. ``mode`` says what happens when a run is in progress."""

    type: Literal["prompt"] = "prompt"
    command_id: CommandId | None = None
    text: Annotated[str, StringConstraints(min_length=1)]
    display: Annotated[str, StringConstraints(min_length=1)] | None = None
    """What followers are shown instead of ``text``."""
    model: ModelName | None = None
    mode: PromptMode = "enqueue"


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


class Answer(Value):
    """Answer an approval or a question of a waiting run."""

    type: Literal["answer"] = "answer"
    command_id: CommandId | None = None
    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


Command = Annotated[Prompt | Stop | Unqueue | Answer, Field(discriminator="type")]


class Acceptance(Value):
    """The answer to a command: it is durable, at ``seq``. The same for every repetition of its ``command_id``."""

    command_id: str
    seq: int
    run_id: str | None = None
