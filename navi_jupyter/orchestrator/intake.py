"""Accepting commands: what each one does to the database, in one transaction. Effects on live runs are the actor's.

A command that was accepted before changes nothing and gets the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..commands import Acceptance, Prompt, Stop, Unqueue
from ..errors import CommandNotFound, LimitReached, SessionBusy, SessionNotFound
from ..events import Custom, Draft, RunStarted, TextMessageContent, TextMessageEnd, TextMessageStart
from ..model import Origin, Run, RunStatus, new_id, now
from ..ports import DEFAULT_LEASE, SessionTx
from .endings import custom


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a prompt."""

    acceptance: Acceptance
    started: Run | None = None
    """Its run, when it could start at once."""
    rival: Run | None = None
    """The run that was in its way."""
    repeated: bool = False
    """It had been accepted before."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What became of a ``stop`` or an ``unqueue``."""

    acceptance: Acceptance
    target: Run | None = None
    """The run that is to end (as it was before), or that was taken out of the queue."""


class Intake:
    """Accepts commands for one session on behalf of one server."""

    def __init__(self, session_id: str, *, server_id: str, max_queued: int) -> None:
        self._session_id = session_id
        self._server_id = server_id
        self._max_queued = max_queued

    async def prompt(
        self, tx: SessionTx, prompt: Prompt, command_id: str, *, user_id: str, origin: Origin, may_start: bool
    ) -> Admission:
        """Put the user's message into the log, and start its run if nothing is in the way.

        Raises SessionNotFound, SessionBusy (mode ``reject``), LimitReached.
        """
        if (before := await tx.acceptance(self._session_id, command_id)) is not None:
            return Admission(before, repeated=True)
        session = await tx.session(self._session_id)
        if session is None:
            raise SessionNotFound(f"There is no session {self._session_id}.")
        rival = await tx.active_run(self._session_id)
        waiting = await tx.queued_runs(self._session_id)
        if prompt.mode == "reject" and (rival is not None or waiting):
            raise SessionBusy("The session is busy with another run.")
        if len(waiting) >= self._max_queued:
            raise LimitReached(f"{len(waiting)} prompts are waiting in this session already.")
        run = Run(
            id=new_id("r"),
            session_id=self._session_id,
            command_id=command_id,
            status=RunStatus.QUEUED,
            origin=origin,
            model=prompt.model or session.model,
            created_at=now(),
        )
        said = _said(prompt, run)
        seq = await tx.append(self._session_id, said)
        urgent = 1 if prompt.mode == "interrupt" else 0
        first_seq = seq - len(said) + 1
        await tx.add_run(run, prompt=prompt.text, user_id=user_id, first_seq=first_seq, priority=urgent)
        acceptance = Acceptance(command_id=command_id, seq=seq, run_id=run.id)
        await tx.accept(self._session_id, prompt.type, acceptance, user_id=user_id)
        await tx.change_session(self._session_id, {"updated_at": run.created_at})
        if urgent and rival is not None:
            await tx.request_stop(rival.id, command_id)
        started = await self._begin(tx, run) if may_start and rival is None and not waiting else None
        if started is None:
            queued = _queue("queued", run, text=prompt.display or prompt.text)
            await tx.append(self._session_id, [Draft(queued, run_id=run.id, origin=origin, at=run.created_at)])
        return Admission(acceptance, started, rival)

    async def stop(self, tx: SessionTx, stop: Stop, command_id: str, *, user_id: str, origin: Origin) -> Withdrawal:
        """Note that a run is to end; one that waits ends here. Accepted without effect when there is none."""
        if (before := await tx.acceptance(self._session_id, command_id)) is not None:
            return Withdrawal(before)
        target = await self._stop_target(tx, stop)
        run_id = target.id if target else None
        at = now()
        events = [
            custom("navi.stop", action=action, command_id=command_id, run_id=run_id)
            for action in ("requested", "acknowledged")
        ]
        if target is not None and target.status is RunStatus.QUEUED:
            events.append(_queue("cancelled", target))
            await tx.end_run(target.id, status=RunStatus.STOPPED, at=at)
        elif target is not None:
            await tx.request_stop(target.id, command_id)
        drafts = [Draft(event, run_id=run_id, origin=origin, at=at) for event in events]
        acceptance = Acceptance(command_id=command_id, seq=await tx.append(self._session_id, drafts), run_id=run_id)
        await tx.accept(self._session_id, stop.type, acceptance, user_id=user_id)
        return Withdrawal(acceptance, target)

    async def unqueue(
        self, tx: SessionTx, unqueue: Unqueue, command_id: str, *, user_id: str, origin: Origin
    ) -> Withdrawal:
        """Take a waiting prompt out of the queue. Raises CommandNotFound."""
        if (before := await tx.acceptance(self._session_id, command_id)) is not None:
            return Withdrawal(before)
        waiting = await tx.queued_runs(self._session_id)
        run = next((run for run in waiting if run.command_id == unqueue.target), None)
        if run is None:
            raise CommandNotFound(f"No prompt with command_id {unqueue.target} is waiting in this session.")
        at = now()
        await tx.end_run(run.id, status=RunStatus.STOPPED, at=at)
        draft = Draft(_queue("cancelled", run), run_id=run.id, origin=origin, at=at)
        seq = await tx.append(self._session_id, [draft])
        acceptance = Acceptance(command_id=command_id, seq=seq, run_id=run.id)
        await tx.accept(self._session_id, unqueue.type, acceptance, user_id=user_id)
        return Withdrawal(acceptance, run)

    async def begin_next(self, tx: SessionTx) -> Run | None:
        """Start the prompt that is first in the queue; None when there is none, or a run is in its way."""
        if await tx.active_run(self._session_id) is not None:
            return None
        waiting = await tx.queued_runs(self._session_id)
        if not waiting:
            return None
        run = waiting[0]
        draft = Draft(_queue("started", run), run_id=run.id, origin=run.origin, at=now())
        await tx.append(self._session_id, [draft])
        return await self._begin(tx, run)

    async def _begin(self, tx: SessionTx, run: Run) -> Run | None:
        at = now()
        if not await tx.start_run(run.id, server_id=self._server_id, at=at, lease_until=at + DEFAULT_LEASE):
            return None
        event = RunStarted(thread_id=self._session_id, run_id=run.id)
        await tx.append(self._session_id, [Draft(event, run_id=run.id, origin=run.origin, at=at)])
        return run.model_copy(update={"status": RunStatus.RUNNING, "started_at": at})

    async def _stop_target(self, tx: SessionTx, stop: Stop) -> Run | None:
        if stop.run_id is None:
            return await tx.active_run(self._session_id)
        run = await tx.run(stop.run_id)
        if run is None or run.session_id != self._session_id or run.status.final:
            return None
        return run


def _said(prompt: Prompt, run: Run) -> list[Draft]:
    events = (
        TextMessageStart(message_id=run.command_id, role="user"),
        TextMessageContent(message_id=run.command_id, delta=prompt.display or prompt.text),
        TextMessageEnd(message_id=run.command_id),
    )
    return [Draft(event, run_id=run.id, origin=run.origin, at=run.created_at) for event in events]


def _queue(action: str, run: Run, *, text: str | None = None) -> Custom:
    value: dict[str, object] = {"action": action, "command_id": run.command_id, "run_id": run.id}
    if text is not None:
        value["text"] = text
    return Custom(name="navi.queue", value=value)
