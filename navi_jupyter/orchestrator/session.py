"""The owner of one live session: one task, one inbox.

It alone starts and ends the session's runs in this process; that there is at most one over *all* processes is the
database's doing (a unique index), so every decision that depends on it is taken inside a transaction. Its state could
be rebuilt from the store at any moment, which is why an idle one may simply leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never
from zoneinfo import ZoneInfo

from ..commands import Acceptance, Answer, Prompt, Stop, Unqueue
from ..errors import InterruptNotFound, NaviError, NotReady, SessionNotFound
from ..logs import get_logger
from ..model import Failure, Run, RunStatus, new_id, now
from ..ports import (
    AgentLoop,
    Library,
    Limits,
    RecallDesk,
    RunEnded,
    SessionStore,
    SessionTx,
    StopSignal,
    ToolContext,
    Turn,
)
from .endings import Ending, close_run, persist
from .inbox import Close, Finished, Item, Poke, Submitted
from .intake import Admission, Intake, Withdrawal
from .journal import Journal
from .slots import Slots
from .transcript import Fold, fold_frames
from .turns import ActiveRun

log = get_logger("session")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The limits that runs and sessions live under."""

    max_iterations: int = 50
    run_timeout: float = 600.0
    stop_deadline: float = 10.0
    max_concurrent_runs: int = 32
    max_sessions_per_user: int = 1000
    max_queued_prompts: int = 100
    idle_after: float = 60.0
    """Seconds without work after which a session leaves memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What every session of a process shares."""

    server_id: str
    settings: Settings
    store: SessionStore
    journal: Journal
    slots: Slots
    agent: AgentLoop
    recalls: RecallDesk
    library: Library
    run_ended: RunEnded


class SessionActor:
    """See the module. Made and supervised by the orchestrator."""

    def __init__(self, session_id: str, shared: Surroundings) -> None:
        self.session_id = session_id
        self.current: ActiveRun | None = None
        """The run of this process, from its start until its end is durable."""
        self._shared = shared
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._deadline: asyncio.TimerHandle | None = None
        """When the current run is given up: some time after its timeout, a stop or a close. None without a run."""
        self._closing = False
        self._intake = Intake(session_id, server_id=shared.server_id, max_queued=shared.settings.max_queued_prompts)

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
                async with asyncio.timeout(self._shared.settings.idle_after):
                    item = await self._inbox.get()
            except TimeoutError:
                if self.idle:
                    return
                continue
            try:
                await self._take(item)
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
        match item.command:
            case Prompt() as prompt:
                return await self._prompt(prompt, item)
            case Stop() as stop:
                return await self._stop(stop, item)
            case Unqueue() as unqueue:
                return await self._unqueue(unqueue, item)
            case Answer() as answer:
                raise InterruptNotFound(f"No question {answer.interrupt_id} is open in this session.")
            case _:
                assert_never(item.command)

    async def _prompt(self, prompt: Prompt, item: Submitted) -> Acceptance:
        command_id = prompt.command_id or new_id("c")
        slots = self._shared.slots
        free = self.current is None and not self._closing and not slots.expects(self.session_id)
        slot = free and slots.take(self.session_id)

        async def unit(tx: SessionTx) -> Admission:
            return await self._intake.prompt(
                tx, prompt, command_id, user_id=item.user_id, origin=item.origin, may_start=slot
            )

        started: Run | None = None
        try:
            admission = await self._shared.store.write(unit, durable=True)
            started = admission.started
        finally:
            if slot and started is None:
                slots.give_back()
        item.accept(admission.acceptance)  # It is durable; what follows takes its time.
        if started is not None:
            await self._launch(started)
        elif admission.rival is not None and prompt.mode == "interrupt":
            # A rival of another server is stopped by that one: it finds the request in the run's row.
            self._stop_current(admission.rival.id)
        elif admission.rival is None and not admission.repeated and not self._closing:
            slots.wait(self.session_id)
        return admission.acceptance

    async def _stop(self, stop: Stop, item: Submitted) -> Acceptance:
        command_id = stop.command_id or new_id("c")

        async def unit(tx: SessionTx) -> Withdrawal:
            return await self._intake.stop(tx, stop, command_id, user_id=item.user_id, origin=item.origin)

        stopped = await self._shared.store.write(unit, durable=True)
        if stopped.target is not None and stopped.target.status is RunStatus.QUEUED:
            await self._tell_ended(stopped.target.id)
        elif stopped.target is not None:
            # The run of another server is stopped by that one: it finds the request in the run's row.
            self._stop_current(stopped.target.id)
        return stopped.acceptance

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

    async def _unqueue(self, unqueue: Unqueue, item: Submitted) -> Acceptance:
        command_id = unqueue.command_id or new_id("c")

        async def unit(tx: SessionTx) -> Withdrawal:
            return await self._intake.unqueue(tx, unqueue, command_id, user_id=item.user_id, origin=item.origin)

        withdrawn = await self._shared.store.write(unit, durable=True)
        if withdrawn.target is not None:
            await self._tell_ended(withdrawn.target.id)
        return withdrawn.acceptance

    # --- runs

    async def _start_next(self) -> None:
        """Start the prompt that waits longest, if nothing is in its way and a slot is free."""
        if self.current is not None or self._closing:
            self._shared.slots.renounce(self.session_id)
            return
        if not self._shared.slots.take(self.session_id):
            self._shared.slots.wait(self.session_id)
            return
        try:
            started = await self._shared.store.write(self._intake.begin_next)
        except SessionNotFound:
            started = None
        except BaseException:
            self._shared.slots.give_back()
            raise
        if started is None:
            self._shared.slots.give_back()
        else:
            await self._launch(started)

    async def _launch(self, run: Run) -> None:
        """Put the agent to work. The run is active in the database already: if that fails, it has to be ended there."""
        try:
            active = await self._prepare(run)
        except Exception as error:
            log.exception("run_not_launched", session_id=self.session_id, run_id=run.id)
            await self._end_unlaunched(run, error)
            return
        self.current = active
        self._shared.journal.watch(run.id, active)
        active.task.add_done_callback(lambda task: self._finished(active, task))
        patience = self._shared.settings.run_timeout + self._shared.settings.stop_deadline
        self._give_up_after(active, patience)
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
            self._shared.slots.give_back()
        await self._tell_ended(run.id)
        self.put(Poke())

    async def _prepare(self, run: Run) -> ActiveRun:
        shared = self._shared
        session = await shared.store.session(self.session_id)
        if session is None:
            raise SessionNotFound(f"There is no session {self.session_id}.")
        prompt, user_id = await shared.store.prompt(run.id)
        stop = StopSignal()
        turn = Turn(
            session=session,
            run_id=run.id,
            model=run.model,
            prompt=prompt,
            history=tuple(await shared.store.past_turns(self.session_id)),
            limits=Limits(max_iterations=shared.settings.max_iterations, timeout=shared.settings.run_timeout),
            origin=run.origin,
            now=now().astimezone(ZoneInfo(session.timezone)),
        )
        context = ToolContext(
            user_id=user_id,
            role="owner",
            session=session,
            run_id=run.id,
            origin=run.origin,
            stop=stop,
            recalls=shared.recalls,
            library=shared.library,
        )
        fold = fold_frames(await shared.store.run_frames(self.session_id, run.id))
        return ActiveRun(run, turn, context, shared.agent, shared.journal, fold)

    async def _end(self, item: Finished) -> None:
        active = item.active
        if active is not self.current or (item.forced and active.task.done()):
            return  # Ended already: the deadline and the task's own end may both arrive.
        if item.forced:
            active.abandoned = True
            log.warning("run_forced", session_id=self.session_id, run_id=active.run.id)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        ending = active.ending()
        if ending.error is not None and ending.error.code == "internal_error":
            error = active.task.exception() if active.task.done() else None
            log.error("run_broke", run_id=active.run.id, exc_info=error)
        try:
            await self._record(active, ending, forced=item.forced)
        finally:
            self._shared.journal.forget(active.run.id)
            self.current = None
            self._shared.slots.give_back()
        log.info("run_ended", session_id=self.session_id, run_id=active.run.id, status=ending.status)
        await self._tell_ended(active.run.id)
        await self._start_next()

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
            await persist(lambda: store.write(lambda tx: close_run(tx, run, plain, Fold()), durable=True))

    async def _tell_ended(self, run_id: str) -> None:
        run = await self._shared.store.run(run_id)
        if run is None:
            return
        try:
            await self._shared.run_ended(run)
        except Exception:
            # Whoever listens has its own safety net; the session goes on.
            log.exception("run_ended_listener_failed", run_id=run_id)
