"""One run in progress: the agent's loop drained into the log.

The task that works never writes its own end: the session's owner looks at the finished task and records what became of
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from ..clock import now
from ..errors import NaviError, RunFailed
from ..event_redaction import EventRedactor
from ..events import Custom, Draft, Event
from ..model.sessions import Failure, Run, RunStatus
from ..ports.agent import AgentLoop, AskUser, ToolContext, Turn, TurnResult, tool_context
from .event_writer import EventWriter
from .interrupts import PausableTimeout
from .run_endings import Ending
from .steering import RunSteering
from .transcript import TranscriptBuilder


class ActiveRun:
    """A run of this process from RUN_STARTED to its end or its pause. Owned by one session actor."""

    def __init__(
        self,
        run: Run,
        *,
        context: ToolContext,
        loop: AgentLoop,
        journal: EventWriter,
        fold: TranscriptBuilder,
        patience: PausableTimeout,
        steering: RunSteering,
        ask: AskUser,
    ) -> None:
        self.run = run
        self.fold = fold
        """The run's conversation so far, the prompt included."""
        self.patience = patience
        self.steering = steering
        self.lost = False
        """Set when the run was closed by another server (this one was silent for too long) or went with its session."""
        self.abandoned = False
        """Set when the task did not end in time: it may go on, nobody listens."""
        self.over = False
        """Set when its end is being written down: nothing more gets into the log."""
        self.task: asyncio.Task[None]
        """Set by :meth:`begin`."""
        self._cancelled = False
        self._closing = False
        """Set when the server stops or the session goes."""
        self._context = replace(context, emit=self.emit, ask=ask, steering=steering)
        self._loop = loop
        self._journal = journal
        self._scrubber = EventRedactor()
        self._result: TurnResult | None = None
        self._seconds = 0.0
        """The limit of its time."""

    def begin(self, turn: Turn) -> None:
        """Put the agent to work."""
        self._seconds = turn.limits.run_timeout
        self.task = asyncio.create_task(self._work(turn), name=f"navi-run-{self.run.id}")

    def stop(self) -> None:
        """Ask it to end, now. Cooperative: the loop unwinds at its next await."""
        self._context.stop.set()
        self.task.cancel("stop")

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
        """Seconds that it may still take if nobody wants it to end. Not over while the user is being asked."""
        if self.stopping or self._closing:
            return 0.0
        return max(self.patience.left, 1.0) if self.patience.held else max(self.patience.left, 0.0)

    def emit(self, event: Event) -> None:
        """Write an event of this run to the log, from a tool for example; nothing once it has ended."""
        if not (self.over or self.lost or self.abandoned):
            self._tell(event)

    def note(self, drafts: Sequence[Draft]) -> None:
        """Events of this run are in the log that did not come by here."""
        for draft in drafts:
            self.fold.apply(draft.event, run_id=draft.run_id, origin=draft.origin, at=draft.ts)

    async def _work(self, turn: Turn) -> None:
        try:
            await self._answer(turn)
        except asyncio.CancelledError:
            # Ends here: a cancelled task keeps its traceback, and with it the whole history, until a collection.
            self._cancelled = True

    async def _answer(self, turn: Turn) -> None:
        tool_context.set(self._context)
        items = self._loop.run(turn, self._context)
        try:
            async with self.patience.limit():
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
                self._tell(item)
                await self._journal.room()

    def _tell(self, event: Event) -> None:
        """Write an event of this run to the log."""
        if isinstance(event, Custom):
            event.wire()  # The one kind that can fail to encode: here it fails this run, in the journal everybody's.
        self._write(self._scrubber.passed(event))  # wherever it came from: a kernel may print its environment

    def _write(self, events: Sequence[Event]) -> None:
        for event in events:
            draft = Draft(event, run_id=self.run.id, origin=self.run.origin, at=now())
            self.fold.apply(event, run_id=self.run.id, origin=self.run.origin, at=draft.ts)
            self._journal.write(self.run.session_id, draft)

    def pausing(self) -> TurnResult | None:
        """With what it pauses; None when it has ended. Asked when the task is done, or given up."""
        result = self._result
        if result is None or not result.asks or result.failure is not None or self.stopping or self.abandoned:
            return None
        return result

    def ending(self) -> Ending:
        """What became of it. Called once: when the task is done, or given up."""
        result = self._result
        if result is not None and result.failure is not None:
            return Ending(RunStatus.FAILED, result.failure, result.conversation, result.usage)
        if result is not None and not result.asks and not self.abandoned:
            return Ending(RunStatus.COMPLETED, conversation=result.conversation, usage=result.usage)
        if self.stopping:
            return Ending(RunStatus.STOPPED)
        if self._closing or self._cancelled or self.task.cancelled():
            return Ending(RunStatus.INTERRUPTED, Failure(code="interrupted", message="The server stopped."))
        # Given up although nobody asked it to end: then its time is over.
        return self._failed(self.task.exception() if self.task.done() else TimeoutError())

    def _failed(self, error: BaseException | None) -> Ending:
        match error:
            case None:
                failure = Failure(code="internal_error", message="The backend ended without a result.")
            case TimeoutError():
                seconds = f"{self._seconds:g}"
                failure = Failure(code="timed_out", message=f"The run took longer than {seconds} seconds.")
                return Ending(RunStatus.TIMED_OUT, failure)
            case RunFailed():
                failure = Failure(code=error.run_code, message=error.message)
            case NaviError():
                failure = Failure(code=error.code, message=error.message)
            case _:
                text = f"Something went wrong inside Navi ({type(error).__name__}). The server's log has the details."
                failure = Failure(code="internal_error", message=text)
        return Ending(RunStatus.FAILED, failure)
