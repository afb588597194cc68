"""Accepting commands: what each one does to the database, in one transaction. Effects on live runs are the actor's.

A command that was accepted before changes nothing and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..clock import now
from ..commands import Acceptance, Answer, Edit, Stop, Unqueue
from ..errors import CommandNotFound, InterruptNotFound, LeaseLost, LimitReached, SessionBusy, SessionNotFound
from ..events import Draft, Event, RunStarted, session_event
from ..model.runs import Approval, Interrupt, InterruptKind, InterruptStatus
from ..model.sessions import Origin, OriginKind, Run, RunStatus, Session
from ..ports.transactions import DEFAULT_LEASE, QueuedPrompt, SessionTx, off_loop
from .prompts import (
    PRIORITIES,
    Admission,
    Arrival,
    acts_on,
    edited,
    holder_of,
    host_of,
    message_events,
    queue_event,
    without,
)
from .run_endings import Ending, close_run, custom, interrupt_event, unanswered
from .transcript import fold_frames


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What became of a ``stop``, an ``unqueue`` or an ``edit``."""

    acceptance: Acceptance
    target: Run | None = None  # the run that is to end (as it was before), or that was taken out of the queue


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an ``answer``."""

    acceptance: Acceptance
    question: Interrupt | None = None  # as it is now; None when the command had been accepted before


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a command, and as which."""

    command_id: str
    user_id: str
    origin: Origin


class CommandHandler:
    """Accepts commands for one session on behalf of one server."""

    def __init__(self, session_id: str, *, server_id: str, max_queued: int) -> None:
        self._session_id = session_id
        self._server_id = server_id
        self._max_queued = max_queued

    async def prompt(self, tx: SessionTx, arrival: Arrival, *, may_start: bool) -> Admission:
        """Put the user's message into the log, and start its run if nothing is in the way.

        Raises SessionNotFound, SessionBusy (mode ``reject``), LimitReached, LeaseLost, RunNotFound (``replaces``).
        """
        # In the transaction that would accept it: two deliveries of one command may run at the same time.
        found = await tx.before_command(self._session_id, arrival.command_id)
        before = found.acceptance
        interrupted = None if before is None else await self._interrupted(tx, arrival, before)
        if before is not None and interrupted is None:
            return Admission(before, repeated=True)
        session = self._required(found.session)
        if arrival.origin.kind is OriginKind.RECALL:
            await self._check_lease(tx, arrival)
        rival = await tx.active_run(self._session_id)
        waiting = await tx.queued_prompts(self._session_id) if found.queued else ()
        mode, ended = arrival.prompt.mode, None
        asked = await self._unanswered_by(tx, rival, arrival)
        if mode == "reject" and ((rival is not None and not asked) or waiting):
            raise SessionBusy("The session is busy with another run.")
        if sum(len(queued.parts) for queued in waiting) >= self._max_queued:
            raise LimitReached(f"{self._max_queued} prompts are waiting in this session already.")
        await arrival.replace_run(tx, self._session_id)
        zone = await arrival.zone(tx, session)
        if rival is not None and asked:
            await self._end_waiting(tx, rival, unanswered(asked))
            ended, rival = rival, None
        if mode == "collect" and (host := host_of(waiting, arrival, zone)) is not None:
            return await self._collect(tx, arrival, host, rival, ended)
        # No run to join: it is a prompt like any other.
        if mode == "steer" and rival is None:
            mode = "enqueue"
        run = arrival.new_run(session, zone, at=now())
        may_start = may_start and not waiting  # not past prompts that wait: they were accepted first
        if before is not None and interrupted is not None:
            acceptance = await self._admit_again(tx, interrupted, run, before, mode)
        elif rival is None or not acts_on(rival, mode):
            begins = may_start and rival is None
            acceptance, started = await self._admit_whole(tx, arrival, run, mode, session.head_seq + 1, begins=begins)
            return Admission(acceptance, started, rival, ended)
        else:
            acceptance = await self._admit(tx, arrival, run, mode)
        if rival is not None and acts_on(rival, mode):
            ended = await self._act_on(tx, rival, arrival, mode)
            rival = None if ended is not None else rival
        started = await self._activate(tx, run) if may_start and rival is None else None
        last = arrival.queued_event(run, mode) if started is None else self._run_started(started)
        await tx.append(self._session_id, [last])
        return Admission(acceptance, started, rival, ended)

    async def _interrupted(self, tx: SessionTx, arrival: Arrival, before: Acceptance) -> Run | None:
        """The run that a recall's prompt had, if its server's end interrupted it before it changed anything.

        Only the holder of the firing's lease gets a run out of it (``_check_lease``): for others it is a repetition.
        """
        if arrival.origin.kind is not OriginKind.RECALL or before.run_id is None:
            return None
        run = await tx.run(before.run_id)
        if run is None or run.status is not RunStatus.INTERRUPTED or await tx.last_effect(run) is not None:
            return None
        return run

    async def _admit_again(
        self, tx: SessionTx, interrupted: Run, run: Run, before: Acceptance, mode: str
    ) -> Acceptance:
        """Another run for a prompt that the log has.

        A new run and not the old one resumed: that has its end in the log, and a run has one. A new command would put
        the message into the log a second time; so the command stays, and has the new run as its answer.
        """
        await tx.repeat_run(interrupted.id, run, priority=PRIORITIES.get(mode, 0), mode=mode)
        event = queue_event("restarted", run.command_id, run.id)  # shows readers which message the new run answers
        draft = Draft(event, run_id=run.id, origin=run.origin, at=run.created_at)
        await tx.append(self._session_id, [draft], updated_at=run.created_at)
        return Acceptance(command_id=before.command_id, seq=before.seq, run_id=run.id)

    async def _check_lease(self, tx: SessionTx, arrival: Arrival) -> None:
        """A server that was stopped since it took the firing must not start what others have ended since."""
        if not await tx.may_deliver(arrival.command_id, server_id=self._server_id):
            raise LeaseLost("The firing was taken over, withdrawn or paused before it could start.")

    async def _admit(self, tx: SessionTx, arrival: Arrival, run: Run, mode: str) -> Acceptance:
        """The message, the queued run, the acceptance."""
        message = message_events(arrival, run)
        seq = await tx.append(self._session_id, message, updated_at=run.created_at)
        await self._add_run(tx, arrival, run, mode, first_seq=seq - len(message) + 1)
        return await self._accept_prompt(tx, arrival, run, seq)

    async def _admit_whole(
        self, tx: SessionTx, arrival: Arrival, run: Run, mode: str, first_seq: int, *, begins: bool
    ) -> tuple[Acceptance, Run | None]:
        """The same with the run's start, or its place in the queue, where nothing comes between: one stretch of log."""
        await self._add_run(tx, arrival, run, mode, first_seq=first_seq)
        started = await self._activate(tx, run) if begins else None
        last = arrival.queued_event(run, mode) if started is None else self._run_started(started)
        seq = await tx.append(self._session_id, [*message_events(arrival, run), last], updated_at=run.created_at)
        return await self._accept_prompt(tx, arrival, run, seq - 1), started

    async def _add_run(self, tx: SessionTx, arrival: Arrival, run: Run, mode: str, *, first_seq: int) -> None:
        apart = not arrival.is_plain or mode in ("steer", "collect")  # else the prompt alone is enough
        await tx.add_run(
            run,
            prompt=arrival.prompt.text,
            user_id=arrival.user_id,
            first_seq=first_seq,
            priority=PRIORITIES.get(mode, 0),
            mode=mode,
            parts=(arrival.part,) if apart else None,
        )
        await arrival.keep_shown(tx, run)

    async def _accept_prompt(self, tx: SessionTx, arrival: Arrival, run: Run, seq: int) -> Acceptance:
        acceptance = Acceptance(command_id=arrival.command_id, seq=seq, run_id=run.id)
        await tx.accept(self._session_id, arrival.prompt.type, acceptance, user_id=arrival.user_id)
        return acceptance

    async def _unanswered_by(self, tx: SessionTx, rival: Run | None, arrival: Arrival) -> Sequence[Interrupt]:
        """What the run in the way has asked, if it does not hold the session for this prompt: a recall's run that
        waits for the user makes way, unless this is their answer to it (``steer``) or ends it by itself."""
        if rival is None or rival.status is not RunStatus.WAITING or rival.origin.kind is not OriginKind.RECALL:
            return ()
        own_way = arrival.prompt.mode in ("steer", "interrupt", "rollback")
        if own_way and arrival.origin.kind is not OriginKind.RECALL:
            return ()
        return await tx.open_interrupts(rival.id)  # none: it has its answers, and is about to go on

    async def _collect(
        self, tx: SessionTx, arrival: Arrival, host: QueuedPrompt, rival: Run | None, ended: Run | None
    ) -> Admission:
        at = now()
        seq = await tx.append(self._session_id, message_events(arrival, host.run.but(created_at=at)))
        await tx.change_prompt(host.run.id, [*host.parts, arrival.part])
        await arrival.keep_shown(tx, host.run)
        event = queue_event("collected", arrival.command_id, host.run.id, text=arrival.part.shown)
        draft = Draft(event, run_id=host.run.id, origin=arrival.origin, at=at)
        await tx.append(self._session_id, [draft], updated_at=at)
        return Admission(await self._accept_prompt(tx, arrival, host.run, seq), rival=rival, ended=ended)

    async def _act_on(self, tx: SessionTx, rival: Run, arrival: Arrival, mode: str) -> Run | None:
        """End the run in progress, or ask its owner to, or decline what it asks. The run, if it has ended here."""
        if mode == "steer":
            await self._decline(tx, rival, arrival)
            return None
        if mode == "rollback":
            await arrival.roll_back(tx, rival)
        if rival.status is RunStatus.WAITING:
            await self._end_waiting(tx, rival, Ending(RunStatus.STOPPED))
            return rival
        await tx.request_stop(rival.id, arrival.command_id)
        return None

    async def _end_waiting(self, tx: SessionTx, run: Run, ending: Ending) -> None:
        frames = await tx.run_frames(self._session_id, run.id)
        await close_run(tx, run, ending, await off_loop(lambda: fold_frames(frames)))

    async def _decline(self, tx: SessionTx, run: Run, arrival: Arrival) -> None:
        """A message instead of an answer declines what was asked, and is the reason."""
        no = Approval(approved=False, message=arrival.prompt.text[:4000]).wire()
        for question in await tx.open_interrupts(run.id):
            if question.kind is InterruptKind.APPROVAL:
                await self._settle(tx, question, InterruptStatus.RESOLVED, no, arrival.user_id, arrival.origin)
            else:
                await self._settle(tx, question, InterruptStatus.CANCELLED, None, arrival.user_id, arrival.origin)

    async def stop(self, tx: SessionTx, stop: Stop, sender: Sender) -> Withdrawal:
        """Note that a run is to end; one that waits ends here. Accepted without effect when there is none."""
        if (before := await tx.acceptance(self._session_id, sender.command_id)) is not None:
            return Withdrawal(before)
        target = await self._stop_target(tx, stop)
        run_id = target.id if target else None
        events: list[Event] = [
            custom("navi.stop", action=action, command_id=sender.command_id, run_id=run_id)
            for action in ("requested", "acknowledged")
        ]
        if target is not None and target.status is RunStatus.QUEUED:
            waiting = await tx.queued_prompts(self._session_id)
            parts = next((queued.parts for queued in waiting if queued.run.id == target.id), ())
            events += [queue_event("cancelled", part.command_id, target.id) for part in parts]
            await tx.end_run(target.id, status=RunStatus.STOPPED, at=now())
        elif target is not None and target.status is RunStatus.RUNNING:
            await tx.request_stop(target.id, sender.command_id)
        acceptance = await self._accept(tx, stop.type, sender, run_id, events)
        if target is not None and target.status is RunStatus.WAITING:
            await self._end_waiting(tx, target, Ending(RunStatus.STOPPED))
        return Withdrawal(acceptance, target)

    async def unqueue(self, tx: SessionTx, unqueue: Unqueue, sender: Sender) -> Withdrawal:
        """Take a waiting prompt out of the queue. Raises CommandNotFound."""
        if (before := await tx.acceptance(self._session_id, sender.command_id)) is not None:
            return Withdrawal(before)
        queued = await self._queued(tx, unqueue.target)
        left = without(queued.parts, unqueue.target)
        if left:
            await tx.change_prompt(queued.run.id, left)
            await tx.forget_shown(queued.run.id, unqueue.target)
        else:
            await tx.end_run(queued.run.id, status=RunStatus.STOPPED, at=now())
        event = queue_event("cancelled", unqueue.target, queued.run.id)
        acceptance = await self._accept(tx, unqueue.type, sender, queued.run.id, [event])
        return Withdrawal(acceptance, None if left else queued.run)

    async def edit(self, tx: SessionTx, edit: Edit, sender: Sender) -> Withdrawal:
        """Change the text of a waiting prompt. Raises CommandNotFound."""
        if (before := await tx.acceptance(self._session_id, sender.command_id)) is not None:
            return Withdrawal(before)
        queued = await self._queued(tx, edit.target)
        await tx.change_prompt(queued.run.id, edited(queued.parts, edit))
        event = queue_event("edited", edit.target, queued.run.id, text=edit.display or edit.text)
        return Withdrawal(await self._accept(tx, edit.type, sender, queued.run.id, [event]))

    async def _queued(self, tx: SessionTx, command_id: str) -> QueuedPrompt:
        found = holder_of(await tx.queued_prompts(self._session_id), command_id)
        if found is None:
            raise CommandNotFound(f"No prompt with command_id {command_id} is waiting in this session.")
        return found

    async def _stop_target(self, tx: SessionTx, stop: Stop) -> Run | None:
        if stop.run_id is None:
            return await tx.active_run(self._session_id)
        run = await tx.run(stop.run_id)
        if run is None or run.session_id != self._session_id or run.status.final:
            return None
        return run

    async def answer(self, tx: SessionTx, answer: Answer, payload: Any, sender: Sender) -> Answered:
        """Settle a question. Raises InterruptNotFound when it is not open (any more)."""
        if (before := await tx.acceptance(self._session_id, sender.command_id)) is not None:
            return Answered(before)
        question = await tx.interrupt(answer.interrupt_id)
        if question is None or question.session_id != self._session_id or not _open(question):
            raise InterruptNotFound(f"No question {answer.interrupt_id[:100]} is open in this session.")
        await self._allow(tx, question, payload, sender.origin)
        status = InterruptStatus(answer.status)
        settled, seq = await self._settle(tx, question, status, payload, sender.user_id, sender.origin)
        if isinstance(payload, dict) and payload.get("approved") and payload.get("always") and question.about_the_tool:
            seq = await self._approve_alike(tx, question, sender) or seq
        acceptance = Acceptance(command_id=sender.command_id, seq=seq, run_id=question.run_id)
        await tx.accept(self._session_id, answer.type, acceptance, user_id=sender.user_id)
        return Answered(acceptance, settled)

    async def _settle(
        self, tx: SessionTx, question: Interrupt, status: InterruptStatus, payload: Any, user_id: str, origin: Origin
    ) -> tuple[Interrupt, int]:
        at = now()
        by = origin.sender(user_id)
        settled = await tx.settle_interrupt(question.id, status=status, at=at, payload=payload, answered_by=by)
        settled = settled or question
        event = interrupt_event("resolved" if status is InterruptStatus.RESOLVED else "cancelled", settled)
        seq = await tx.append(self._session_id, [Draft(event, run_id=question.run_id, origin=origin, at=at)])
        return settled, seq

    async def _approve_alike(self, tx: SessionTx, question: Interrupt, sender: Sender) -> int | None:
        """The other calls of a tool that asks no more need not be answered one by one."""
        seq = None
        for other in await tx.open_interrupts(question.run_id):
            if other.durable and other.about_the_tool and other.tool == question.tool:
                yes = Approval(approved=True).wire()
                _, seq = await self._settle(tx, other, InterruptStatus.RESOLVED, yes, sender.user_id, sender.origin)
        return seq

    async def _allow(self, tx: SessionTx, question: Interrupt, payload: Any, origin: Origin) -> None:
        """``always``: the tool asks no more in this session."""
        if not question.about_the_tool or question.tool is None or payload is None:
            return
        approval = Approval.model_validate(payload)
        session = await self._session(tx)
        if not approval.approved or approval.always is None or question.tool in session.allowed_tools:
            return
        at = now()
        allowed = (*session.allowed_tools, question.tool)
        await tx.change_session(self._session_id, {"allowed_tools": allowed, "updated_at": at})
        event = session_event(session, ["allowed_tools"])
        await tx.append(self._session_id, [Draft(event, run_id=None, origin=origin, at=at)])

    async def begin_next(self, tx: SessionTx) -> Run | None:
        """Go on with the run whose questions are answered, else start the prompt that is first in the queue.

        None when there is neither, or a run is in the way.
        """
        active = await tx.active_run(self._session_id)
        if active is not None:
            return await self._resume(tx, active)
        if not (waiting := await tx.queued_prompts(self._session_id)):
            return None
        run, first = waiting[0].run, waiting[0].parts[0]
        started = await self._activate(tx, run)
        if started is not None:
            draft = Draft(queue_event("started", first.command_id, run.id), run_id=run.id, origin=run.origin, at=now())
            await tx.append(self._session_id, [draft, self._run_started(started)])
        return started

    async def _activate(self, tx: SessionTx, run: Run) -> Run | None:
        at = now()
        if not await tx.start_run(run.id, server_id=self._server_id, at=at, lease_until=at + DEFAULT_LEASE):
            return None
        return run.but(status=RunStatus.RUNNING, started_at=at)

    async def _resume(self, tx: SessionTx, run: Run) -> Run | None:
        if not await tx.resume_run(run.id, server_id=self._server_id, lease_until=now() + DEFAULT_LEASE):
            return None
        resumed = run.but(status=RunStatus.RUNNING)
        await tx.append(self._session_id, [self._run_started(resumed)])
        return resumed

    def _run_started(self, run: Run) -> Draft:
        event = RunStarted(thread_id=self._session_id, run_id=run.id)
        return Draft(event, run_id=run.id, origin=run.origin, at=now())

    async def _session(self, tx: SessionTx) -> Session:
        return self._required(await tx.session(self._session_id))

    def _required(self, session: Session | None) -> Session:
        if session is None:
            raise SessionNotFound(f"There is no session {self._session_id}.")
        return session

    async def _accept(
        self, tx: SessionTx, kind: str, sender: Sender, run_id: str | None, events: Sequence[Event]
    ) -> Acceptance:
        drafts = [Draft(event, run_id=run_id, origin=sender.origin, at=now()) for event in events]
        seq = await tx.append(self._session_id, drafts)
        acceptance = Acceptance(command_id=sender.command_id, seq=seq, run_id=run_id)
        await tx.accept(self._session_id, kind, acceptance, user_id=sender.user_id)
        return acceptance


def _open(question: Interrupt) -> bool:
    """Whether it can still be answered; what has expired is about to be settled as such."""
    return question.status is InterruptStatus.OPEN and (question.expires_at is None or question.expires_at > now())
