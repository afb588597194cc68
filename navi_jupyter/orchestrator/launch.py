"""From a run that is active in the database to an agent at work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

from ..clock import now
from ..errors import LeaseLost, SessionNotFound
from ..events import Draft
from ..model.sessions import Run
from ..ports.agent import StopSignal, ToolContext, Turn, tool_call
from ..ports.store import SessionTx
from .active_run import ActiveRun
from .dependencies import SessionDependencies
from .inbox import Item, Joined, Withdrawn
from .interrupts import PausableTimeout, RunInterrupts
from .run_endings import custom
from .steering import RunSteering
from .transcript import TranscriptBuilder, fold_frames

_FOLDED_HERE = 50
"""More frames than these are folded in a thread: it would hold up the loop."""


async def launch(shared: SessionDependencies, run: Run, put: Callable[[Item], None]) -> ActiveRun:
    """Start or resume: gather what the run needs, and put the agent to work. ``put`` is its session's inbox."""
    turn, user_id = await _turn(shared, run)
    store = shared.store
    patience = PausableTimeout(turn.limits.run_timeout)

    def joined(drafts: Sequence[Draft], run_ids: Sequence[str]) -> None:
        active.note(drafts)
        put(Joined(tuple(run_ids)))

    gear = shared.gear
    active = ActiveRun(
        run,
        context=ToolContext(
            user_id=user_id,
            role="owner",
            session=turn.session,
            run_id=run.id,
            origin=run.origin,
            stop=StopSignal(),
            recalls=shared.recalls,
            library=shared.library,
            jupyter=gear.jupyter,
            memory=gear.memory,
            attachments=gear.attachments,
            spending=gear.spending,
            record_effect=RunEffects(shared, run, noted=lambda draft: active.note([draft])),
        ),
        loop=shared.agent,
        journal=shared.journal,
        fold=await _fold(shared, run),
        patience=patience,
        steering=RunSteering(
            run,
            server_id=shared.server_id,
            store=store,
            journal=shared.journal,
            waiting=False,
            joined=joined,
        ),
        ask=RunInterrupts(
            run,
            server_id=shared.server_id,
            store=store,
            journal=shared.journal,
            questions=shared.questions,
            approval_timeout=shared.settings.approval_timeout,
            patience=patience,
            withdraw=lambda interrupt_id: put(Withdrawn(interrupt_id)),
        ),
    )
    if any(queued.mode == "steer" for queued in await store.queued_prompts(run.session_id)):
        active.steering.waiting = True  # asked last: what comes from now on is told to the session
    active.begin(turn)
    return active


class RunEffects:
    """Records that a run starts a tool with an effect (``ToolContext.record_effect``): a ``navi.tool`` event."""

    def __init__(self, shared: SessionDependencies, run: Run, *, noted: Callable[[Draft], None]) -> None:
        self._shared = shared
        self._run = run
        self._noted = noted
        self._recorded = False

    async def __call__(self, tool: str) -> None:
        run, shared = self._run, self._shared
        await shared.journal.flushed(run.session_id)  # the call is in the log before it
        event = custom("navi.tool", action="started", tool=tool, tool_call_id=tool_call.get(), run_id=run.id)
        draft = Draft(event, run_id=run.id, origin=run.origin, at=now())

        async def unit(tx: SessionTx) -> None:
            # The same fence as for what the run writes. After a sleep past its lease another server may have closed
            # the run, found it without an effect and started it again: then the tool must not run here.
            if not await tx.held_runs([run.id], server_id=shared.server_id):
                raise LeaseLost("The run was taken over by another server.")
            await tx.append(run.session_id, [draft])

        # The first one decides whether the run may be started again: it has to survive a power cut, too.
        await shared.store.write(unit, durable=not self._recorded)
        self._recorded = True
        self._noted(draft)


async def _turn(shared: SessionDependencies, run: Run) -> tuple[Turn, str]:
    """What the loop is told, and the user who asked."""
    store = shared.store
    session = await store.session(run.session_id)
    if session is None:
        raise SessionNotFound(f"There is no session {run.session_id}.")
    prompt, user_id = await store.prompt(run.id)
    paused = await store.paused(run.id)
    turn = Turn(
        session=session,
        run_id=run.id,
        model=run.model,
        prompt=prompt,
        history=tuple(await store.past_turns(run.session_id)),
        limits=shared.settings.limits.within(shared.limits_of_profile(session.profile)),
        origin=run.origin,
        now=now().astimezone(ZoneInfo(session.timezone)),
        attachments=tuple(one for part in await store.parts(run.id) for one in part.attachments),
        resumed=None if paused is None else paused.conversation,
        answers=() if paused is None else paused.interrupts,
    )
    return turn, user_id


async def _fold(shared: SessionDependencies, run: Run) -> TranscriptBuilder:
    frames = await shared.store.run_frames(run.session_id, run.id)
    return fold_frames(frames) if len(frames) <= _FOLDED_HERE else await asyncio.to_thread(fold_frames, frames)
