"""Prompts: the events of the user's message and of its time in the queue, and prompts that join a run (``steer``).

Not responsible for accepting prompts: ``command_handler`` does, in the transaction that makes them durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..clock import now
from ..commands import Acceptance, Edit, Prompt
from ..errors import RunNotFound, SessionBusy
from ..events import Custom, Draft, TextMessageContent, TextMessageEnd, TextMessageStart, session_event
from ..markdown_text import closed
from ..model.attachments import Attachment, AttachmentInfo
from ..model.base import new_id
from ..model.notebooks import ClientNotebook, ShownNotebook
from ..model.sessions import Origin, Run, RunStatus, Session, ZoneSource
from ..ports.agent import PromptPart, SteeredPrompt
from ..ports.store import SessionStore
from ..ports.transactions import QueuedPrompt, SessionTx
from .event_writer import EventWriter

PRIORITIES = {"interrupt": 2, "rollback": 2, "steer": 1}
"""Which of the prompts that wait starts first: one that replaces a run, one that was to join it, then the others."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a prompt."""

    acceptance: Acceptance
    started: Run | None = None  # its run, when it could start at once
    rival: Run | None = None  # the run that is in its way, as it was before
    ended: Run | None = None  # a run that waited for an answer, and was ended for it
    repeated: bool = False  # it had been accepted before


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A prompt as it comes in."""

    prompt: Prompt
    command_id: str
    user_id: str
    origin: Origin
    attachments: tuple[Attachment, ...] = ()

    @property
    def part(self) -> PromptPart:
        """What is stored of it while it waits."""
        return PromptPart(
            command_id=self.command_id,
            text=self.prompt.text,
            display=self.prompt.display,
            attachments=self.attachments,
            from_page=self.notebook is not None,
            traceparent=self.prompt.traceparent,
            tools=self.prompt.tools,
        )

    @property
    def is_plain(self) -> bool:
        """Whether its text is all that has to be stored of it."""
        return self.metadata is None and self.prompt.traceparent is None

    @property
    def notebook(self) -> ClientNotebook | None:
        """What the sender's page shows."""
        return self.prompt.client.notebook if self.prompt.client is not None else None

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What the log has of it besides its text; None: nothing."""
        found: dict[str, Any] = {"attachments": infos(self.attachments)} if self.attachments else {}
        if self.notebook is not None:
            found["notebook"] = ShownNotebook(notebook=self.notebook, at=now()).summary()
        if self.prompt.tools:
            found["tools"] = [tool.name for tool in self.prompt.tools]
        return found or None

    def new_run(self, session: Session, zone: str | None, *, at: datetime) -> Run:
        """The run that is to answer it."""
        return Run(
            id=new_id("r"),
            session_id=session.id,
            command_id=self.command_id,
            status=RunStatus.QUEUED,
            origin=self.origin,
            model=self.prompt.model or session.model,
            created_at=at,
            timezone=zone,
        )

    def queued_event(self, run: Run, mode: str) -> Draft:
        """That it has to wait."""
        event = queue_event("queued", run.command_id, run.id, text=self.part.shown, mode=mode)
        return Draft(event, run_id=run.id, origin=run.origin, at=run.created_at)

    async def zone(self, tx: SessionTx, session: Session) -> str | None:
        """The zone in which it is read; None when its client named none. The session keeps what it names."""
        if self.prompt.client is None:
            return None
        seen = session.seen_from(self.prompt.client)
        if seen != session and session.timezone_source is not ZoneSource.CHOSEN:
            zone = {"timezone": seen.timezone, "timezone_source": seen.timezone_source}
            await tx.change_session(session.id, zone)
            draft = Draft(session_event(seen, zone), run_id=None, origin=self.origin, at=now())
            await tx.append(session.id, [draft])
        return seen.timezone

    async def keep_shown(self, tx: SessionTx, run: Run) -> None:
        """Store what the sender's page shows, for the run that is to answer the prompt."""
        if self.notebook is not None:
            await tx.keep_shown(run.id, self.command_id, ShownNotebook(notebook=self.notebook, at=now()))

    async def roll_back(self, tx: SessionTx, run: Run) -> None:
        """Leave a run out of what the model reads, for this prompt, and say so in the log."""
        await tx.roll_back(run.id)
        event = queue_event("rolled_back", run.command_id, run.id)
        await tx.append(run.session_id, [Draft(event, run_id=run.id, origin=self.origin, at=now())])

    async def replace_run(self, tx: SessionTx, session_id: str) -> None:
        """Take the turn out in the place of which it is sent, if it names one. Raises RunNotFound, SessionBusy."""
        if (run_id := self.prompt.replaces) is None:
            return
        run = await tx.run(run_id)
        if run is None or run.session_id != session_id:
            raise RunNotFound(f"There is no run {run_id[:100]} in this session.")
        if not run.status.final:
            raise SessionBusy("The run to be replaced has not ended. The mode rollback replaces a run in progress.")
        if not run.rolled_back:
            await self.roll_back(tx, run)


def infos(attachments: Sequence[Attachment]) -> list[dict[str, Any]]:
    """Attachments as messages show them."""
    return [
        AttachmentInfo(id=one.id, name=one.name, media_type=one.media_type, size=one.size).wire() for one in attachments
    ]


def message_events(arrival: Arrival, run: Run) -> list[Draft]:
    """The events of the user's message."""
    message_id = arrival.command_id
    events = (
        TextMessageStart(message_id=message_id, role="user", metadata=arrival.metadata),
        TextMessageContent(message_id=message_id, delta=arrival.part.shown),
        TextMessageEnd(message_id=message_id),
    )
    return [Draft(event, run_id=run.id, origin=run.origin, at=run.created_at) for event in events]


def acts_on(rival: Run, mode: str) -> bool:
    """Whether a prompt of this mode changes the run that is in its way, and so what the log has of that."""
    return mode in ("interrupt", "rollback") or (mode == "steer" and rival.status is RunStatus.WAITING)


def queue_event(action: str, command_id: str | None, run_id: str, **more: Any) -> Custom:
    """A change of a prompt that waits."""
    value = {"action": action, "command_id": command_id, "run_id": run_id, **more}
    return Custom(name="navi.queue", value={name: one for name, one in value.items() if one is not None})


def host_of(waiting: Sequence[QueuedPrompt], arrival: Arrival, zone: str | None) -> QueuedPrompt | None:
    """The queued run that a collected prompt joins: the same user's, for the same model, read in the same zone."""
    for queued in waiting:
        same = queued.user_id == arrival.user_id and queued.run.origin == arrival.origin
        same = same and queued.run.timezone == zone
        if queued.mode == "collect" and same and arrival.prompt.model in (None, queued.run.model):
            return queued
    return None


def holder_of(waiting: Sequence[QueuedPrompt], command_id: str) -> QueuedPrompt | None:
    """The queued run that is to answer this prompt."""
    return next((one for one in waiting if any(part.command_id == command_id for part in one.parts)), None)


def without(parts: Sequence[PromptPart], command_id: str) -> list[PromptPart]:
    """What is left when a prompt is withdrawn."""
    return [part for part in parts if part.command_id != command_id]


def edited(parts: Sequence[PromptPart], edit: Edit) -> list[PromptPart]:
    """The prompts after one of them was changed."""
    return [
        part if part.command_id != edit.target else replace(part, text=edit.text, display=edit.display)
        for part in parts
    ]


class RunSteering:
    """Implements :class:`navi_jupyter.ports.agent.Steering` for one run.

    Such a prompt is a queued run of its own until it is taken: if the run in progress ends first, it starts.
    """

    def __init__(
        self,
        run: Run,
        *,
        server_id: str,
        store: SessionStore,
        event_writer: EventWriter,
        waiting: bool,
        joined: Callable[[Sequence[Draft], Sequence[str]], None],
    ) -> None:
        self.waiting = waiting  # set when such a prompt is accepted, here or elsewhere; cleared when they are taken
        self._run = run
        self._server_id = server_id
        self._store = store
        self._event_writer = event_writer
        self._joined = joined  # called with the events and the runs of the prompts that were taken

    async def take(self) -> Sequence[SteeredPrompt]:
        self.waiting = False
        merging = asyncio.ensure_future(self._merge())
        try:
            found = await asyncio.shield(merging)
            shown = {queued.run.id: await self._store.shown(queued.run.id) for queued in found}
        except asyncio.CancelledError:
            # A stop meets the transaction, which is committed all the same: what it took belongs to this run, and has
            # to be in its transcript before the run's end is stored.
            await asyncio.wait({merging})
            raise
        except Exception:
            self.waiting = True  # they still wait, in the queue at least
            raise
        return [
            SteeredPrompt(
                command_id=part.command_id,
                text=self._with_clock(part.text, queued.run),
                origin=queued.run.origin,
                attachments=part.attachments,
                shown=shown[queued.run.id],
            )
            for queued in found
            for part in queued.parts
        ]

    def _with_clock(self, text: str, steered: Run) -> str:
        """For the model: whose clock the prompt is of, where that is not the one that this run reads."""
        if steered.timezone in (None, self._run.timezone):
            return text
        return f"{closed(text)}\n\n[Times here that name no zone are in {steered.timezone}.]"

    async def _merge(self) -> list[QueuedPrompt]:
        await self._event_writer.flushed(self._run.session_id)  # they come after what the run has emitted

        async def unit(tx: SessionTx) -> tuple[list[QueuedPrompt], list[Draft]]:
            if not await tx.held_runs([self._run.id], server_id=self._server_id):
                return [], []
            found = [queued for queued in await tx.queued_prompts(self._run.session_id) if queued.mode == "steer"]
            at, drafts = now(), list[Draft]()
            for queued in found:
                await tx.merge_run(queued.run.id, self._run.id, at=at)
                for part in queued.parts:
                    shown: dict[str, Any] = {"attachments": infos(part.attachments)} if part.attachments else {}
                    if (page := await tx.shown(queued.run.id)) is not None:
                        shown["notebook"] = page.summary()
                    event = queue_event("steered", part.command_id, self._run.id, text=part.shown, **shown)
                    drafts.append(Draft(event, run_id=self._run.id, origin=queued.run.origin, at=at))
            if drafts:
                await tx.append(self._run.session_id, drafts)
            return found, drafts

        found, drafts = await self._store.write(unit, durable=True)
        self._joined(drafts, [queued.run.id for queued in found])
        return found
