"""The owner of one live session: one task, one inbox.

It alone starts and ends the session's runs in this process; that there is at most one over *all* processes is the
database's doing (a unique index), so every decision that depends on it is taken inside a transaction. Its state could
be rebuilt from the store at any moment, which is why an idle one may simply leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

from ..clock import now
from ..commands import Acceptance, Answer, Edit, Prompt, Stop, Unqueue
from ..errors import NaviError, NotReady, SessionNotFound, StoreError
from ..events import Draft
from ..log_setup import get_logger
from ..model.base import new_id
from ..model.runs import InterruptStatus
from ..model.sessions import Failure, OriginKind, Run, RunStatus
from ..ports.agent import TurnResult
from ..ports.store import SessionTx
from .active_run import ActiveRun
from .command_handler import Admission, Answered, CommandHandler, Sender, Withdrawal
from .dependencies import SessionDependencies
from .inbox import Close, Finished, Item, Joined, Poke, Submitted, Withdrawn
from .interrupts import checked_payload, opened, settle
from .launch import launch
from .prompts import Arrival
from .run_endings import Ending, close_run, pause_run, persist, told
from .run_slots import SlotRequest
from .transcript import TranscriptBuilder, fold_frames

log = get_logger("session")
T = TypeVar("T")

_LOOK_AGAIN = 1.0
"""Seconds after which a session looks for its next run when the database had refused to say."""


class SessionActor:
    """See the module. Made and supervised by the orchestrator."""

    def __init__(self, session_id: str, shared: SessionDependencies) -> None:
        self.session_id = session_id
        self.current: ActiveRun | None = None
        """The run of this process, from its start until its end is durable."""
        self._shared = shared
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._deadline: asyncio.TimerHandle | None = None
        """When the current run is given up: some time after its timeout, a stop or a close. None without a run."""
        self._closing = False
        self._intake = CommandHandler(session_id, server_id=shared.server_id, max_queued=shared.max_queued_prompts)

    def put(self, item: Item) -> None:
        """Give it something to do."""
        self._inbox.put_nowait(item)

    @property
    def idle(self) -> bool:
        """Has nothing to do and nothing to lose."""
        return self.current is None and self._inbox.empty()

    async def live(self) -> None:
        """Work until there was nothing to do for a while, or until closed. One item at a time, in order."""
        while True:
            try:
                async with asyncio.timeout(self._shared.idle_after):
                    item = await self._inbox.get()
            except TimeoutError:
                if self.idle:
                    return
                continue
            try:
                await self._take(item)
            except StoreError as error:
                # What is next in the queue may not have been looked for.
                log.error("session_item_refused", session_id=self.session_id, error=error.message)
                asyncio.get_running_loop().call_later(_LOOK_AGAIN, self.put, Poke())
            except Exception:
                # One item's failure is not the session's: what it was about is settled or in the store.
                log.exception("session_item_failed", session_id=self.session_id, item=type(item).__name__)
            if self._closing and self.current is None:
                self._shared.slots.renounce(self.session_id)
                return

    def refuse_all(self, error: Exception) -> None:
        """Answer what still waits in the inbox. Called by the supervisor once :meth:`live` has ended."""
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if isinstance(item, Submitted):
                item.refuse(error)

    async def _take(self, item: Item) -> None:
        match item:
            case Submitted():
                await self._answer(item)
            case Finished():
                await self._end(item)
            case Withdrawn(interrupt_id=interrupt_id):
                await self._withdraw(interrupt_id)
            case Joined(run_ids=run_ids):
                for run_id in run_ids:
                    await self._tell_ended(run_id)
            case Poke():
                await self._start_next()
            case Close():
                self._closing = True
                if self.current is not None:
                    self.current.close()
                    self._give_up_after(self.current, self._shared.settings.stop_deadline)
            case _:
                assert_never(item)

    # --- commands

    async def _answer(self, item: Submitted) -> None:
        try:
            item.accept(await self._obey(item))
        except NaviError as error:
            item.refuse(error)
        except Exception as error:
            log.exception("command_failed", session_id=self.session_id, command=item.command.type)
            item.refuse(error)
        except BaseException:
            item.refuse(NotReady("The server is stopping. Try again."))
            raise

    async def _obey(self, item: Submitted) -> Acceptance:
        command = item.command
        sender = Sender(command.command_id or new_id("c"), item.user_id, item.origin)
        match command:
            case Prompt():
                return await self._prompt(command, sender, item)
            case Stop():
                return await self._stop(command, sender)
            case Unqueue():
                withdrawn = await self._write(lambda tx: self._intake.unqueue(tx, command, sender))
                if withdrawn.target is not None:
                    await self._tell_ended(withdrawn.target.id)
                return withdrawn.acceptance
            case Edit():
                return (await self._write(lambda tx: self._intake.edit(tx, command, sender))).acceptance
            case Answer():
                return await self._settle(command, sender)
            case _:
                assert_never(command)

    async def _write(self, unit: Callable[[SessionTx], Awaitable[T]]) -> T:
        return await self._shared.store.write(unit, durable=True)

    async def _prompt(self, prompt: Prompt, sender: Sender, item: Submitted) -> Acceptance:
        slots = self._shared.slots
        claimant = self._claimant_of(sender)
        free = self.current is None and not self._closing and not slots.expects(self.session_id)
        slot = free and slots.take(claimant)
        arrival = Arrival(
            prompt=prompt,
            command_id=sender.command_id,
            user_id=item.user_id,
            origin=item.origin,
            attachments=item.attachments,
        )
        started: Run | None = None
        try:
            admission = await self._write(lambda tx: self._intake.prompt(tx, arrival, may_start=slot))
            started = admission.started
        finally:
            if slot and started is None:
                slots.give_back(self.session_id)
        item.accept(admission.acceptance)  # It is durable; what follows takes its time.
        if admission.ended is not None:
            await self._tell_ended(admission.ended.id)
        if started is not None:
            await self._launch(started)
        elif not admission.repeated:
            self._make_way(admission, prompt, claimant)
        return admission.acceptance

    def _claimant_of(self, sender: Sender) -> SlotRequest:
        patient = sender.origin.kind is not OriginKind.USER
        return SlotRequest(self.session_id, sender.user_id, patient=patient)

    def _make_way(self, admission: Admission, prompt: Prompt, claimant: SlotRequest) -> None:
        """A prompt was queued: see that it gets its turn."""
        rival = admission.rival
        if rival is None or rival.status is RunStatus.WAITING:
            if not self._closing:
                self._shared.slots.wait(claimant)  # to start it, or to go on with a run that it has answered
        # A run of another server is stopped by that one, which finds the request in the run's row; steering likewise.
        elif prompt.mode in ("interrupt", "rollback"):
            self._stop_current(rival.id)
        elif prompt.mode == "steer":
            self.steered()

    def steered(self) -> None:
        """A prompt for the run in progress waits in the database."""
        if self.current is not None:
            self.current.steering.waiting = True

    async def _stop(self, stop: Stop, sender: Sender) -> Acceptance:
        stopped: Withdrawal = await self._write(lambda tx: self._intake.stop(tx, stop, sender))
        target = stopped.target
        if target is not None and target.status is RunStatus.RUNNING:
            # The run of another server is stopped by that one: it finds the request in the run's row.
            self._stop_current(target.id)
        elif target is not None:
            await self._tell_ended(target.id)
            if target.status is RunStatus.WAITING and not self._closing:
                self._shared.slots.wait(self._claimant_of(sender))
        return stopped.acceptance

    async def _settle(self, answer: Answer, sender: Sender) -> Acceptance:
        found = await self._shared.store.interrupts([answer.interrupt_id])
        asked = [question for question in found if question.session_id == self.session_id]
        payload = await checked_payload(asked[0], answer) if asked else None
        answered: Answered = await self._write(lambda tx: self._intake.answer(tx, answer, payload, sender))
        question = answered.question
        if question is not None and not question.durable:
            self._shared.questions.settled(question)
        elif question is not None and not self._closing:
            self._shared.slots.wait(self._claimant_of(sender))
        return answered.acceptance

    async def _withdraw(self, interrupt_id: str) -> None:
        """Whoever asked within a run has gone. When the run has, too, its end has closed the question."""

        async def unit(tx: SessionTx) -> None:
            question = await tx.interrupt(interrupt_id)
            run = None if question is None else await tx.run(question.run_id)
            if question is not None and run is not None:
                cancelled = InterruptStatus.CANCELLED
                await settle(
                    tx,
                    question,
                    cancelled,
                    draft=lambda now_is: Draft(told("cancelled", now_is), run_id=run.id, origin=run.origin, at=now()),
                )

        await self._shared.store.write(unit)

    def _stop_current(self, run_id: str) -> bool:
        active = self.current
        if active is None or active.run.id != run_id:
            return False
        if not active.stopping:
            active.stop()
            self._give_up_after(active, self._shared.settings.stop_deadline)
        return True

    def _give_up_after(self, active: ActiveRun, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        late = Finished(active, forced=True)
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.put, late)

    def stop_requested(self, run_id: str) -> bool:
        """Another server was asked to stop a run of ours. False when it is not this session's current one."""
        return self._stop_current(run_id)

    # --- runs

    async def _start_next(self) -> None:
        """Go on with a run whose questions are answered, or start the prompt that is next, if a slot is free."""
        slots = self._shared.slots
        if self.current is not None or self._closing:
            slots.renounce(self.session_id)
            return
        if slots.waits(self.session_id):
            return  # told when it is its turn
        claimant = slots.kept(self.session_id) or await self._next_claimant()
        if claimant is None:
            return
        if not slots.take(claimant):
            slots.wait(claimant)
            return
        try:
            started = await self._shared.store.write(self._intake.begin_next)
        except SessionNotFound:
            started = None
        except BaseException:
            slots.give_back(self.session_id)
            raise
        if started is None:
            slots.give_back(self.session_id)
        else:
            await self._launch(started)

    async def _next_claimant(self) -> SlotRequest | None:
        """For whom the session would go on: somebody who waits, if any of it is a user's. None: there is nothing.

        Who has answered a question waits, too, whoever the run is of.
        """
        runs = await self._shared.store.open_runs(self.session_id)
        session = await self._shared.store.session(self.session_id) if runs else None
        if session is None:
            return None
        patient = all(run.status is RunStatus.QUEUED and run.origin.kind is not OriginKind.USER for run in runs)
        return SlotRequest(self.session_id, session.owner, patient=patient)

    async def _launch(self, run: Run) -> None:
        """Put the agent to work. The run is active in the database already: if that fails, it has to be ended there."""
        try:
            active = await launch(self._shared, run, self.put)
        except Exception as error:
            # What the user can act on (a broken profile) is no defect: its message is enough.
            trace = None if isinstance(error, NaviError) else error
            log.error("run_not_launched", session_id=self.session_id, run_id=run.id, error=str(error), exc_info=trace)
            await self._end_unlaunched(run, error)
            return
        self.current = active
        self._shared.journal.watch(run.id, active)
        active.task.add_done_callback(lambda task: self._finished(active, task))
        self._give_up_after(active, active.patience.left + self._shared.settings.stop_deadline)
        log.info("run_started", session_id=self.session_id, run_id=run.id, model=run.model, origin=run.origin.kind)

    def _finished(self, active: ActiveRun, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # Looked at here too, for a task that was given up: nobody else will.
        self.put(Finished(active))

    async def _end_unlaunched(self, run: Run, error: Exception) -> None:
        failure = Failure(code="internal_error", message="Something went wrong inside Navi before the run began.")
        if isinstance(error, NaviError):
            failure = Failure(code=error.code, message=error.message)
        ending = Ending(RunStatus.FAILED, failure)

        async def unit(tx: SessionTx) -> None:
            await close_run(tx, run, ending, fold_frames(await tx.run_frames(self.session_id, run.id)))

        try:
            await self._persist_end(run, unit)
        finally:
            self._shared.slots.give_back(self.session_id)
        await self._tell_ended(run.id)
        self.put(Poke())

    async def _end(self, item: Finished) -> None:
        active = item.active
        if active is not self.current or (item.forced and active.task.done()):
            return  # Ended already: the deadline and the task's own end may both arrive.
        if item.forced and (grace := active.grace) > 0:
            self._give_up_after(active, grace + self._shared.settings.stop_deadline)
            return  # Its time does not run while the user is asked.
        if item.forced:
            active.abandoned = True
            log.warning("run_forced", session_id=self.session_id, run_id=active.run.id)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if (result := active.pausing()) is not None:
            await self._pause(active, result)
            return
        ending = active.ending()
        active.over = True
        if ending.error is not None and ending.error.code == "internal_error":
            error = active.task.exception() if active.task.done() else None
            log.error("run_broke", run_id=active.run.id, exc_info=error)
        try:
            await self._record(active, ending, forced=item.forced)
        finally:
            self._let_go(active)
        log.info("run_ended", session_id=self.session_id, run_id=active.run.id, status=ending.status)
        await self._tell_ended(active.run.id)
        await self._start_next()

    async def _pause(self, active: ActiveRun, result: TurnResult) -> None:
        """Put the run to rest until its questions are answered; nobody holds it then, and its slot is free."""
        shared, run = self._shared, active.run
        active.over = True
        at = now()
        asked = [
            opened(ask, run, at, approval_timeout=shared.settings.approval_timeout, durable=True) for ask in result.asks
        ]

        async def unit(tx: SessionTx) -> None:
            if not await pause_run(tx, run, result, asked, active.fold, server_id=shared.server_id):
                # Asked to stop meanwhile, through another server.
                await close_run(tx, run, Ending(RunStatus.STOPPED, usage=result.usage), active.fold)

        try:
            await shared.journal.flushed(self.session_id)
            if not active.lost:
                await self._persist_end(run, unit)
        finally:
            self._let_go(active)
        log.info("run_pauses", session_id=self.session_id, run_id=run.id, questions=len(asked))
        await self._tell_ended(run.id)
        await self._start_next()

    def _let_go(self, active: ActiveRun) -> None:
        self._shared.journal.forget(active.run.id)
        self.current = None
        self._shared.slots.give_back(self.session_id)

    async def _record(self, active: ActiveRun, ending: Ending, *, forced: bool) -> None:
        """Make the end durable. Retried until the database takes it; a run must not stay open while we live."""
        if active.lost:
            return

        async def unit(tx: SessionTx) -> None:
            await close_run(tx, active.run, ending, active.fold, forced=forced)

        await self._shared.journal.flushed(self.session_id)
        await self._persist_end(active.run, unit)

    async def _persist_end(self, run: Run, unit: Callable[[SessionTx], Awaitable[None]]) -> None:
        store = self._shared.store
        try:
            await persist(lambda: store.write(unit, durable=True))
        except Exception:
            # An end that can not be written would hold the session for ever: write one that can.
            log.exception("run_end_broke", run_id=run.id)
            failure = Failure(code="internal_error", message="Something went wrong inside Navi when the run ended.")
            plain = Ending(RunStatus.FAILED, failure)
            await persist(lambda: store.write(lambda tx: close_run(tx, run, plain, TranscriptBuilder()), durable=True))

    async def _tell_ended(self, run_id: str) -> None:
        run = await self._shared.store.run(run_id)
        if run is None or not run.status.final:
            return
        try:
            await self._shared.run_ended(run)
        except Exception:
            # Whoever listens has its own safety net; the session goes on.
            log.exception("run_ended_listener_failed", run_id=run_id)
