"""What arrives in the inbox of a live session."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..commands import Acceptance, Command
from ..model.attachments import Attachment
from ..model.sessions import Origin
from .active_run import ActiveRun


@dataclass(frozen=True, slots=True)
class Submitted:
    """A command, and who waits for its acceptance."""

    command: Command
    user_id: str
    origin: Origin
    accepted: asyncio.Future[Acceptance]
    attachments: tuple[Attachment, ...] = ()
    """What a prompt brings along, stored."""

    def accept(self, acceptance: Acceptance) -> None:
        """Answer, unless that was done or nobody waits any more."""
        if not self.accepted.done():
            self.accepted.set_result(acceptance)

    def refuse(self, error: Exception) -> None:
        """The same, with an error."""
        if not self.accepted.done():
            self.accepted.set_exception(error)


@dataclass(frozen=True, slots=True)
class Finished:
    """The current run's task is done, or its stop deadline has passed (``forced``)."""

    active: ActiveRun
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Whoever asked this question within the run has gone."""

    interrupt_id: str


@dataclass(frozen=True, slots=True)
class Joined:
    """These queued runs are over: their prompts are part of the current one."""

    run_ids: tuple[str, ...]


class Poke:
    """Look whether something can start or go on: a slot is free, another server's run has ended, all is answered."""


class Close:
    """Leave; a run in progress ends as interrupted."""


Item = Submitted | Finished | Withdrawn | Joined | Poke | Close
