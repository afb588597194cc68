"""Frames of the WebSocket, and the body of every error."""

from __future__ import annotations

from typing import Literal

from ...commands import Acceptance
from ...events import Envelope
from ...model.base import Value

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


class ErrorBody(Value):
    """Every answer with a status of 400 or more."""

    message: str
    """One sentence: what happened, and what to do."""
    reason: str
    """The HTTP reason phrase."""
    code: str
    """Stable; listed in the reference."""
    field: str | None = None
    """The path of the offending input field, e.g. ``policy.retries``; left out when there is none."""
