"""The owner of one live session: one task, one inbox.

It alone starts and ends the session's runs in this process; that there is at most one over *all* processes is the
database's doing (a unique index), so every decision that depends on it is taken inside a transaction. Its state could
be rebuilt from the store at any moment, which is why an idle one simply leaves memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from ..commands import Acceptance, Answer, Command, Edit, Prompt, Stop, Unqueue
from ..errors import LeaseLost, NaviError, NotReady, SessionNotFound, StoreError
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.base import new_id
from ..model.sessions import Origin, OriginKind, Run, RunStatus
from ..ports.transactions import SessionTx
from .active_run import ActiveRun, end_unlaunched, launch, record_end, record_pause
from .command_handler import CommandHandler, Sender
from .dependencies import SessionDependencies
from .interrupts import checked_payload, withdraw
from .prompts import Admission, Arrival
from .run_slots import SlotRequest

log = get_logger("session")
T = TypeVar("T")

_RETRY = 1.0  # seconds after which a session looks for its next run again when the database has refused


@dataclass(frozen=True, slots=True)
class Submitted:
    """A command, and the future of its acceptance."""

    command: Command
    user_id: str
    origin: Origin
    accepted: asyncio.Future[Acceptance]
    attachments: tuple[Attachment, ...] = ()  # what a prompt brings along, stored

    def accept(self, acceptance: Acceptance) -> None:
        """Answer, unless that was done or the sender has stopped waiting."""
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
    """The code within the run that asked this question does not wait for it any more."""

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


class SessionActor:
    """See the module. Made and supervised by the orchestrator."""

    def __init__(self, session_id: str, shared: SessionDependencies) -> None:
        self.session_id = session_id
        self.current: ActiveRun | None = None  # the run of this process, from its start until its end is durable
        self._shared = shared
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._deadline: asyncio.TimerHandle | None = None
        """When the current run is given up: some time after its timeout, a stop or a close. None without a run."""
        self._closing = False
        self._commands = CommandHandler(session_id, server_id=shared.server_id, max_queued=shared.max_queued_prompts)

    def put(self, item: Item) -> None:
        """Add an item to the inbox."""
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
                asyncio.get_running_loop().call_later(_RETRY, self.put, Poke())
            except Exception:
                # One item's failure is not the session's: what it was about is settled or in the store.
                log.exception("session_item_failed", session_id=self.session_id, item=type(item).__name__)
            del item  # it may have a run that has ended, with all its text
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
                await self._shared.store.write(lambda tx: withdraw(tx, interrupt_id))
            case Joined(run_ids=run_ids):
                for run_id in run_ids:
                    await self._notify_ended(run_id)
            case Poke():
                await self._start_next()
            case Close():
                self._closing = True
                if self.current is not None:
                    self.current.close()
                    self._give_up_after(self.current, self._shared.settings.stop_deadline)
            case _:
                assert_never(item)

    async def _answer(self, item: Submitted) -> None:
        try:
            item.accept(await self._handle(item))
        except NaviError as error:
            item.refuse(error)
        except Exception as error:
            log.exception("command_failed", session_id=self.session_id, command=item.command.type)
            item.refuse(error)
        except BaseException:
            item.refuse(NotReady("The server is stopping. Try again."))
            raise

    async def _handle(self, item: Submitted) -> Acceptance:
        command, handler = item.command, self._commands
        sender = Sender(command.command_id or new_id("c"), item.user_id, item.origin)
        match command:
            case Prompt():
                return await self._prompt(command, sender, item)
            case Stop():
                return await self._stop(command, sender)
            case Unqueue():
                withdrawn = await self._write(lambda tx: handler.unqueue(tx, command, sender))
                if withdrawn.target is not None:
                    await self._notify_ended(withdrawn.target.id)
                return withdrawn.acceptance
            case Edit():
                return (await self._write(lambda tx: handler.edit(tx, command, sender))).acceptance
            case Answer():
                return await self._settle(command, sender)
            case _:
                assert_never(command)

    async def _write(self, unit: Callable[[SessionTx], Awaitable[T]]) -> T:
        return await self._shared.store.write(unit, durable=True, on=self.session_id)

    async def _prompt(self, prompt: Prompt, sender: Sender, item: Submitted) -> Acceptance:
        slots = self._shared.slots
        request = self._slot_request(sender)
        free = self.current is None and not self._closing and not slots.expects(self.session_id)
        slot = free and self._shared.trust.check() and slots.take(request)
        arrival = Arrival(
            prompt=prompt,
            command_id=sender.command_id,
            user_id=item.user_id,
            origin=item.origin,
            attachments=item.attachments,
        )
        if self.current is not None and prompt.mode not in ("steer", "interrupt", "rollback"):
            self.current.yield_session()
        started: Run | None = None
        try:
            admission = await self._write(lambda tx: self._commands.prompt(tx, arrival, may_start=slot))
            started = admission.started
        finally:
            if slot and started is None:
                slots.give_back(self.session_id)
        item.accept(admission.acceptance)  # It is durable; what follows takes its time.
        if admission.ended is not None:
            await self._notify_ended(admission.ended.id)
        if started is not None:
            await self._launch(started)
        elif not admission.repeated:
            self._await_turn(admission, prompt, request)
        return admission.acceptance

    def _slot_request(self, sender: Sender) -> SlotRequest:
        return SlotRequest(self.session_id, sender.user_id, background=sender.origin.kind is not OriginKind.USER)

    def _await_turn(self, admission: Admission, prompt: Prompt, request: SlotRequest) -> None:
        rival = admission.rival
        if rival is None or rival.status is RunStatus.WAITING:
            if not self._closing:
                self._shared.slots.wait(request)  # to start it, or to go on with a run that it has answered
        # a run of another server is stopped by that one, which finds the request in the run's row; steering likewise.
        elif prompt.mode in ("interrupt", "rollback"):
            self.stop_requested(rival.id)
        elif prompt.mode == "steer":
            self.steered()

    def steered(self) -> None:
        """A prompt for the run in progress waits in the database."""
        if self.current is not None:
            self.current.steering.waiting = True

    async def _stop(self, stop: Stop, sender: Sender) -> Acceptance:
        stopped = await self._write(lambda tx: self._commands.stop(tx, stop, sender))
        target = stopped.target
        if target is not None and target.status is RunStatus.RUNNING:
            # The run of another server is stopped by that one: it finds the request in the run's row.
            self.stop_requested(target.id)
        elif target is not None:
            await self._notify_ended(target.id)
            if target.status is RunStatus.WAITING and not self._closing:
                self._shared.slots.wait(self._slot_request(sender))
        return stopped.acceptance

    async def _settle(self, answer: Answer, sender: Sender) -> Acceptance:
        found = await self._shared.store.interrupts([answer.interrupt_id])
        asked = [question for question in found if question.session_id == self.session_id]
        payload = await checked_payload(asked[0], answer) if asked else None
        answered = await self._write(lambda tx: self._commands.answer(tx, answer, payload, sender))
        question = answered.question
        if question is not None and not question.durable:
            self._shared.interrupts.settled(question)
        elif question is not None and not self._closing:
            self._shared.slots.wait(self._slot_request(sender))
        return answered.acceptance

    def stop_requested(self, run_id: str) -> bool:
        """Stop a run, asked for here or through another server. False when it is not this session's current one."""
        active = self.current
        if active is None or active.run.id != run_id:
            return False
        if not active.stopping:
            active.stop()
            self._give_up_after(active, self._shared.settings.stop_deadline)
        return True

    def lose(self) -> None:
        """End the current run, which another server may have by now. May be called in the handler of a signal."""
        active = self.current
        if active is not None and not active.over and not active.lost:
            self._shared.trust.given_up[active.run.id] = self.session_id
            active.cut("lost")
            self._give_up_after(active, self._shared.settings.stop_deadline)

    def _give_up_after(self, active: ActiveRun, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.put, Finished(active, forced=True))

    async def _start_next(self, *, alone: bool = False) -> None:
        """Go on with a run whose questions are answered, or start the prompt that is next, if a slot is free.

        ``alone``: there was no other run as the last one ended; what is accepted later asks for a slot by itself."""
        slots = self._shared.slots
        if self.current is not None or self._closing or not self._shared.trust.check():
            slots.renounce(self.session_id)
            return
        if slots.waits(self.session_id):
            return  # poked when it is its turn
        request = slots.kept(self.session_id) or (None if alone else await self._next_request())
        if request is None:
            return
        if not slots.take(request):
            slots.wait(request)
            return
        try:
            started = await self._shared.store.write(self._commands.begin_next)
        except SessionNotFound:
            started = None
        except BaseException:
            slots.give_back(self.session_id)
            raise
        if started is None:
            slots.give_back(self.session_id)
            return
        await self._shared.run_started(started)
        await self._launch(started)

    async def _next_request(self) -> SlotRequest | None:
        """The slot that the session needs to go on; None: there is nothing to do.

        A user waits for it if any of the runs is a user's, and for the answer to a question whatever the run.
        """
        runs = await self._shared.store.open_runs(self.session_id)
        session = await self._shared.store.session(self.session_id) if runs else None
        if session is None:
            return None
        background = all(run.status is RunStatus.QUEUED and run.origin.kind is not OriginKind.USER for run in runs)
        return SlotRequest(self.session_id, session.owner, background=background)

    async def _launch(self, run: Run) -> None:
        """Start the agent. The run is active in the database already: if that fails, it has to be ended there."""

        def joined(run_ids: tuple[str, ...]) -> None:
            self.put(Joined(run_ids))

        try:
            active = await launch(self._shared, run, joined=joined, withdrawn=lambda one: self.put(Withdrawn(one)))
        except LeaseLost:  # ended as interrupted once the lease is renewed, unless another server was quicker
            self._shared.trust.given_up[run.id] = self.session_id
            self._shared.slots.give_back(self.session_id)
            return
        except Exception as error:
            # What the user can act on (a broken profile) is no defect: its message is enough.
            trace = None if isinstance(error, NaviError) else error
            log.error("run_not_launched", session_id=self.session_id, run_id=run.id, error=str(error), exc_info=trace)
            try:
                await end_unlaunched(self._shared, run, error)
            finally:
                self._shared.slots.give_back(self.session_id)
            await self._notify_ended(run.id)
            self.put(Poke())
            return
        self.current = active
        active.task.add_done_callback(lambda task: self._finished(active, task))
        self._give_up_after(active, active.time_limit.left + self._shared.settings.stop_deadline)
        log.info("run_started", session_id=self.session_id, run_id=run.id, model=run.model, origin=run.origin.kind)

    def _finished(self, active: ActiveRun, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # Retrieved here too: of a task that was given up it would be logged as never retrieved.
        self.put(Finished(active))

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
        try:
            if (result := active.pausing()) is not None:
                closed = await record_pause(self._shared, active, result)
            else:
                closed = await record_end(self._shared, active, forced=item.forced)
        finally:
            self._shared.event_writer.forget(active.run.id)
            self.current = None
            self._shared.slots.give_back(self.session_id)
        if closed is None:  # it pauses, or others have ended it
            await self._notify_ended(active.run.id)
        else:
            await self._shared.report_ended(closed.run)
        await self._start_next(alone=closed is not None and not closed.followed)

    async def _notify_ended(self, run_id: str) -> None:
        run = await self._shared.store.run(run_id)
        if run is not None and run.status.final:
            await self._shared.report_ended(run)
