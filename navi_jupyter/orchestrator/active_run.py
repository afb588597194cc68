"""One run in progress: the agent's loop drained into the log.

The task that works never writes its own end: the session's owner looks at the finished task and records it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial

from ..clock import now, zone_or_utc
from ..errors import LeaseLost, NaviError, RunFailed, SessionNotFound
from ..event_redaction import EventRedactor
from ..events import Custom, Draft, Event
from ..log_setup import get_logger
from ..model.runs import Interrupt
from ..model.sessions import Failure, OriginKind, Run, RunStatus
from ..ports.agent import AgentLoop, PromptPage, ToolContext, Turn, TurnResult, tool_call, tool_context
from ..ports.transactions import SessionTx
from ..ports.user_configuration import UserConfiguration
from ..text import plain_number
from .dependencies import SessionDependencies
from .event_writer import EventWriter
from .interrupts import PausableTimeout, RunInterrupts, opened
from .prompts import RunSteering
from .run_endings import Closed, Ending, close_run, custom, pause_run, persist_end, unanswered
from .transcript import TranscriptBuilder, fold_frames

log = get_logger("session")


class ActiveRun:
    """A run of this process from RUN_STARTED to its end or its pause. Owned by one session actor."""

    def __init__(
        self,
        run: Run,
        *,
        context: ToolContext,
        loop: AgentLoop,
        event_writer: EventWriter,
        fold: TranscriptBuilder,
        time_limit: PausableTimeout,
        steering: RunSteering,
        ask: RunInterrupts,
    ) -> None:
        self.run = run
        self.fold = fold  # the run's conversation so far, the prompt included
        self.time_limit = time_limit
        self.steering = steering
        self.lost = False
        """Set when the run was closed by another server (this one was silent for too long) or went with its session."""
        self.abandoned = False  # set when the task did not end in time: it may go on, but its events are dropped
        self.over = False  # set when its end is being written down: nothing more gets into the log
        self.task: asyncio.Task[None]  # set by :meth:`begin`
        self._ask = ask
        self._unanswered: Ending | None = None  # set when a recall's run gets no answer
        self._cancelled = self._closing = False  # the latter is set when the server stops or the session goes
        itself = weakref.ref(self)  # what a run has must not hold it: its text would be there until a full collection

        def emit(event: Event) -> None:
            if (run := itself()) is not None:
                run.emit(event)

        self._context = replace(context, emit=emit, ask=ask, steering=steering)
        self._loop, self._event_writer = loop, event_writer
        self._scrubber = EventRedactor()
        self._result: TurnResult | None = None
        self._seconds = 0.0  # the limit of its time

    def begin(self, turn: Turn) -> None:
        """Put the agent to work."""
        self._seconds = turn.limits.run_timeout
        work = self._work(self._loop.run(turn, self._context))  # not in it: it would hold the history until its end
        self.task = asyncio.create_task(work, name=f"navi-run-{self.run.id}")
        self.task.add_done_callback(self.time_limit.end)

    def stop(self) -> None:
        """Ask it to end, now. Cooperative: the loop unwinds at its next await."""
        self._context.stop.set()
        self.task.cancel("stop")

    def end_unanswered(self, questions: Sequence[Interrupt]) -> None:
        """End it because these get no answer: a recall's run does not wait for one."""
        self._unanswered = unanswered(questions)
        self.task.cancel("unanswered")

    def yield_session(self) -> None:
        """The session is needed by others: a recall's run that waits for the user in memory does not hold it."""
        if self.run.origin.kind is OriginKind.RECALL and self._ask.open and self._unanswered is None:
            self.end_unanswered(list(self._ask.open.values()))

    def close(self) -> None:
        """End it because the session leaves."""
        self._closing = True
        self.task.cancel("close")

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._context.stop.stopping

    @property
    def grace(self) -> float:
        """Seconds that it may still take unless it is asked to end. Not over while the user is being asked."""
        if self.stopping or self._closing or self._unanswered is not None:
            return 0.0
        return max(self.time_limit.left, 1.0) if self.time_limit.held else max(self.time_limit.left, 0.0)

    def cut(self, reason: str) -> None:
        """End it because its events cannot be stored: another server has the run (``lost``), or there is a defect.

        ``lost`` also when another server may have it. Then no step of it may follow, and what another thread does for
        it finds it stopped. May be called in the handler of a signal."""
        if reason == "lost":
            self.lost = True
            self._context.stop.cut()
        self.task.cancel(reason)

    def emit(self, event: Event) -> None:
        """Write an event of this run to the log, from a tool for example; nothing once it has ended."""
        if not (self.over or self.lost or self.abandoned):
            self._emit(event)

    def note(self, drafts: Sequence[Draft]) -> None:
        """Events of this run are in the log that did not come by here."""
        for draft in drafts:
            self.fold.apply(draft.event, run_id=draft.run_id, origin=draft.origin, at=draft.ts)

    async def _work(self, items: AsyncIterator[Event | TurnResult]) -> None:
        try:
            await self._answer(items)
        except asyncio.CancelledError:
            # Ends here: a cancelled task keeps its traceback, and with it the whole history, until a collection.
            self._cancelled = True

    async def _answer(self, items: AsyncIterator[Event | TurnResult]) -> None:
        tool_context.set(self._context)
        try:
            async with self.time_limit.limit():
                await self.time_limit.not_counting(self._context.jupyter.prepare())
                await self._drain(items)
        finally:
            # Left in the middle, a generator must clean up now and in this task, not when it is collected.
            if isinstance(items, AsyncGenerator):
                await items.aclose()
            if not (self.over or self.lost or self.abandoned):
                self._write(self._scrubber.rest())

    async def _drain(self, items: AsyncIterator[Event | TurnResult]) -> None:
        async for item in items:
            if self.stopping or self.lost or self.abandoned:
                return
            if isinstance(item, TurnResult):
                self._result = item
            else:
                self._emit(item)
                await self._event_writer.room()

    def _emit(self, event: Event) -> None:
        if isinstance(event, Custom):
            event.wire()  # The one kind that can fail to encode: here it fails this run, in the journal everybody's.
        self._write(self._scrubber.passed(event))  # wherever it came from: a kernel may print its environment

    def _write(self, events: Sequence[Event]) -> None:
        for event in events:
            draft = Draft(event, run_id=self.run.id, origin=self.run.origin, at=now())
            self.fold.apply(event, run_id=self.run.id, origin=self.run.origin, at=draft.ts)
            self._event_writer.write(self.run.session_id, draft)

    def pausing(self) -> TurnResult | None:
        """With what it pauses; None when it has ended. Asked when the task is done, or given up."""
        result = self._result
        if result is None or not result.asks or result.failure is not None:
            return None
        return None if self.stopping or self.abandoned or self._unanswered is not None else result

    def ending(self) -> Ending:
        """What became of it. Called once: when the task is done, or given up."""
        result = self._result
        if self._unanswered is not None:  # also where it came to its end before the cancellation did
            return self._unanswered if result is None else replace(self._unanswered, usage=result.usage)
        if result is not None and result.failure is not None:
            return Ending(RunStatus.FAILED, result.failure, result.conversation, result.usage)
        if result is not None and not result.asks and not self.abandoned:
            return Ending(
                RunStatus.COMPLETED, conversation=result.conversation, usage=result.usage, notice=result.notice
            )
        if self.stopping:
            return Ending(RunStatus.STOPPED)
        if self._closing or self._cancelled or self.task.cancelled():
            return Ending(RunStatus.INTERRUPTED, Failure(code="interrupted", message="The server stopped."))
        # Given up without a request to end it: then its time is over.
        return self._failed(self.task.exception() if self.task.done() else TimeoutError())

    def _failed(self, error: BaseException | None) -> Ending:
        match error:
            case None:
                failure = Failure(code="internal_error", message="The backend ended without a result.")
            case TimeoutError():
                message = f"The run took longer than {plain_number(self._seconds)} seconds."
                failure = Failure(code="timed_out", message=message)
                return Ending(RunStatus.TIMED_OUT, failure)
            case RunFailed():
                failure = Failure(code=error.run_code, message=error.message)
            case NaviError():
                failure = Failure(code=error.code, message=error.message)
            case _:
                text = f"Something went wrong inside Navi ({type(error).__name__}). The server's log has the details."
                failure = Failure(code="internal_error", message=text)
        return Ending(RunStatus.FAILED, failure)


_FOLDED_HERE = 50  # more frames than these are folded in a thread: it would hold up the loop


async def launch(
    shared: SessionDependencies,
    run: Run,
    *,
    joined: Callable[[tuple[str, ...]], None],
    withdrawn: Callable[[str], None],
) -> ActiveRun:
    """Start or resume a run that is active in the database: gather what it needs, and start the agent's task.

    ``joined`` is called with the queued runs whose prompts it has taken, ``withdrawn`` with the id of a question that
    is not wanted any more.
    """
    turn, user_id, own = await _turn(shared, run)
    time_limit = PausableTimeout(turn.limits.run_timeout)

    def note_joined(drafts: Sequence[Draft], run_ids: Sequence[str]) -> None:
        this.note(drafts)
        joined(tuple(run_ids))

    active = ActiveRun(
        run,
        context=replace(
            await shared.tool_context(turn.session, user_id, run_id=run.id, origin=run.origin, configuration=own),
            record_effect=RunEffects(shared, run, noted=lambda draft: this.note([draft])),
            page=PromptPage(shown=turn.shown),
        ),
        loop=shared.agent,
        event_writer=shared.event_writer,
        fold=await _fold(shared, run),
        time_limit=time_limit,
        steering=RunSteering(
            run,
            server_id=shared.server_id,
            store=shared.store,
            event_writer=shared.event_writer,
            waiting=False,
            joined=note_joined,
        ),
        ask=RunInterrupts(
            run,
            server_id=shared.server_id,
            store=shared.store,
            event_writer=shared.event_writer,
            interrupts=shared.interrupts,
            approval_timeout=shared.settings.approval_timeout,
            time_limit=time_limit,
            withdrawn=withdrawn,
            followed=shared.followed,
            unanswered=lambda questions: this.end_unanswered(questions),
        ),
    )
    this = weakref.proxy(active)
    # Read last: the session is notified of prompts that come from now on.
    if any(queued.mode == "steer" for queued in await shared.store.queued_prompts(run.session_id)):
        active.steering.waiting = True
    shared.trust.require()  # the transaction that made it active may have waited for long
    active.begin(turn)
    shared.event_writer.watch(run.id, active.cut)
    return active


async def end_unlaunched(shared: SessionDependencies, run: Run, error: Exception) -> None:
    """End a run that is active in the database and could not be launched."""
    failure = Failure(code="internal_error", message="Something went wrong inside Navi before the run began.")
    if isinstance(error, NaviError):
        failure = Failure(code=error.code, message=error.message)

    async def unit(tx: SessionTx) -> None:
        fold = fold_frames(await tx.run_frames(run.session_id, run.id))
        await close_run(tx, run, Ending(RunStatus.FAILED, failure), fold)

    await persist_end(shared.store, run, unit)


async def record_pause(shared: SessionDependencies, active: ActiveRun, result: TurnResult) -> Closed | None:
    """Put the run to rest until its questions are answered: no server has it then. Its end, where it ends instead."""
    run, at = active.run, now()
    active.over = True
    asked = [
        opened(ask, run, at, approval_timeout=shared.settings.approval_timeout, durable=True) for ask in result.asks
    ]

    async def unit(tx: SessionTx) -> Closed | None:
        waits = run.origin.kind is not OriginKind.RECALL or all(ask.waits for ask in result.asks)
        if not waits and await _is_left_alone(shared, tx, run):
            return await close_run(tx, run, unanswered(asked, result.usage), active.fold)
        if not await pause_run(tx, run, result, asked, active.fold, server_id=shared.server_id):
            # Asked to stop meanwhile, through another server.
            return await close_run(tx, run, Ending(RunStatus.STOPPED, usage=result.usage), active.fold)
        return None

    await shared.event_writer.flushed(run.session_id)
    closed = None if active.lost else await persist_end(shared.store, run, unit)
    log.info("run_pauses", session_id=run.session_id, run_id=run.id, questions=len(asked))
    return closed


async def _is_left_alone(shared: SessionDependencies, tx: SessionTx, run: Run) -> bool:
    """Whether a recall's run must not wait: no view is open to answer in, or others need its session."""
    return not shared.followed(run.session_id) or await tx.is_awaited(run, at=now())


async def record_end(shared: SessionDependencies, active: ActiveRun, *, forced: bool) -> Closed | None:
    """Make the end durable. Retried until the database takes it: a run must not stay open while this server lives."""
    run, ending = active.run, active.ending()
    active.over = True
    if ending.error is not None and ending.error.code == "internal_error":
        log.error("run_broke", run_id=run.id, exc_info=active.task.exception() if active.task.done() else None)
    closed = None
    if not active.lost:
        await shared.event_writer.flushed(run.session_id)
        end = partial(close_run, run=run, ending=ending, fold=active.fold, forced=forced)
        closed = await persist_end(shared.store, run, end)
    log.info("run_ended", session_id=run.session_id, run_id=run.id, status=ending.status)
    return closed


class RunEffects:
    """Records that a run starts a tool with an effect (``ToolContext.record_effect``): a ``navi.tool`` event."""

    def __init__(self, shared: SessionDependencies, run: Run, *, noted: Callable[[Draft], None]) -> None:
        self._shared = shared
        self._run = run
        self._noted = noted
        self._recorded = False

    async def __call__(self, tool: str) -> None:
        run, shared = self._run, self._shared
        await shared.event_writer.flushed(run.session_id)  # the call is in the log before it
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
        # After the commit, with nothing awaited before the tool begins: the process may have been stopped in between.
        shared.trust.require()


async def _turn(shared: SessionDependencies, run: Run) -> tuple[Turn, str, UserConfiguration]:
    """The input of the agent loop, the user who asked, and what this user has configured."""
    found = await shared.store.beginning(run.id)
    if (session := found.session) is None:
        raise SessionNotFound(f"There is no session {run.session_id}.")
    if run.timezone is not None:  # for the whole run: what it reads and makes is in the zone of the one who asked
        session = session.but(timezone=run.timezone)
    paused = await shared.store.paused(run.id) if found.paused else None
    job, limits = await shared.job_of(run) if found.job else (None, shared.settings.limits)
    own = await shared.configuration_of(found.user_id)
    wanted = shared.limits_of_profile(session.profile, own)
    turn = Turn(
        session=session,
        run_id=run.id,
        model=run.model,
        prompt=found.prompt,
        history=tuple(await shared.store.past_turns(run.session_id)),
        limits=limits.within(wanted if job is None else wanted.but(timeout=None)),
        origin=run.origin,
        now=now().astimezone(zone_or_utc(session.timezone)),
        attachments=tuple(one for part in found.parts for one in part.attachments),
        traceparent=next((part.traceparent for part in found.parts if part.traceparent), None),
        client_tools=tuple({tool.name: tool for part in found.parts for tool in part.tools}.values()),
        job=job,
        resumed=None if paused is None else paused.conversation,
        answers=() if paused is None else paused.interrupts,
        shown=await shared.store.shown(run.id) if found.shown else None,
    )
    return turn, found.user_id, own


async def _fold(shared: SessionDependencies, run: Run) -> TranscriptBuilder:
    frames = await shared.store.run_frames(run.session_id, run.id)
    return fold_frames(frames) if len(frames) <= _FOLDED_HERE else await asyncio.to_thread(fold_frames, frames)
