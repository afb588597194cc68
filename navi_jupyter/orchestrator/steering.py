"""Prompts that join the run in progress (mode ``steer``), when the agent's loop is ready for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..clock import now
from ..events import Draft
from ..model.sessions import Run
from ..ports.agent import SteeredPrompt
from ..ports.store import QueuedPrompt, SessionStore, SessionTx
from .event_writer import EventWriter
from .prompts import infos, queue_event


class RunSteering:
    """Implements :class:`navi_jupyter.ports.agent.Steering` for one run.

    Such a prompt is a queued run of its own as long as nobody takes it: if the run in progress ends first, it starts.
    """

    def __init__(
        self,
        run: Run,
        *,
        server_id: str,
        store: SessionStore,
        journal: EventWriter,
        waiting: bool,
        joined: Callable[[Sequence[Draft], Sequence[str]], None],
    ) -> None:
        self.waiting = waiting
        """Set when such a prompt is accepted, here or elsewhere; cleared when they are taken."""
        self._run = run
        self._server_id = server_id
        self._store = store
        self._journal = journal
        self._joined = joined
        """Told the events and the runs of the prompts that were taken."""

    async def take(self) -> Sequence[SteeredPrompt]:
        self.waiting = False
        try:
            found, drafts = await self._merge()
        except BaseException:
            self.waiting = True  # they still wait, in the queue at least
            raise
        self._joined(drafts, [queued.run.id for queued in found])
        return [
            SteeredPrompt(command_id=part.command_id, text=part.text, attachments=part.attachments)
            for queued in found
            for part in queued.parts
        ]

    async def _merge(self) -> tuple[list[QueuedPrompt], list[Draft]]:
        await self._journal.flushed(self._run.session_id)  # they come after what the run has said

        async def unit(tx: SessionTx) -> tuple[list[QueuedPrompt], list[Draft]]:
            if not await tx.held_runs([self._run.id], server_id=self._server_id):
                return [], []
            found = [queued for queued in await tx.queued_prompts(self._run.session_id) if queued.mode == "steer"]
            at, drafts = now(), list[Draft]()
            for queued in found:
                await tx.merge_run(queued.run.id, self._run.id, at=at)
                for part in queued.parts:
                    shown: dict[str, Any] = {"attachments": infos(part.attachments)} if part.attachments else {}
                    event = queue_event("steered", part.command_id, self._run.id, text=part.shown, **shown)
                    drafts.append(Draft(event, run_id=self._run.id, origin=queued.run.origin, at=at))
            if drafts:
                await tx.append(self._run.session_id, drafts)
            return found, drafts

        return await self._store.write(unit, durable=True)
