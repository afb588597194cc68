"""A prompt and its reply: sent, shown while the answer streams, stopped by Ctrl-C.

Events are applied on the io thread. A cell that waits is painted by its own thread, which also does what the io thread
posts (``main_thread``); one that does not wait is painted by the io thread, in the context of that cell, so that the
output goes to it. Not responsible for how a run looks (``render``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .client.client import Client, new_command_id
from .client.io_thread import io_thread
from .display.painters import NoPainter, Painter, TerminalPainter
from .display.run_view import Part, RunView, TextPart
from .errors import AwaitInterrupted, Interrupted, KernelError, Refused
from .lending.execution import CodeInterrupted
from .lending.loan import KernelLoan, can_lend
from .lending.signals import CellSignals
from .main_thread import MainThreadQueue
from .programs.run import finished, read_ending
from .questions import PromptedQuestions, line_input
from .reply import Reply

POLL = 0.5  # seconds; Windows does not interrupt an endless wait for Ctrl-C, so none is endless
CALL_SEEN = 30  # hundredths of a second that code waits at most for the event of its call, which is shown before it
STOP_PATIENCE = 12.0  # seconds to wait for the end of a stopped run: more than the server's ``stop_deadline`` of ten


class PendingPrompt:
    """A prompt from its sending to the end of its run."""

    def __init__(self, client: Client, session_id: str, prompt: Mapping[str, Any], painter: Painter) -> None:
        self._client = client
        self._session_id = session_id
        self._prompt = {"type": "prompt", "command_id": new_command_id(), **prompt}
        self._painter = painter
        self._changed = threading.Event()  # set when the view has changed since it was painted
        self._queue: MainThreadQueue | None = None  # of the cell's thread, where that waits
        self._submitted = asyncio.Event()  # set once the server has accepted or refused the prompt
        self._questions: PromptedQuestions | None = None  # where a cell waits
        self._seq = 0  # of the event that was applied last
        self._until = float("inf")  # the last event to apply: what comes after is shown by another cell
        self._held: asyncio.Event | None = None  # set when it is known whether another cell shows what comes
        self.view = RunView("", self._prompt["command_id"], session_id=session_id)
        """Written on the io thread only; readable anywhere. Its ``run_id`` is empty until the prompt is accepted."""

    def wait(self) -> Reply:
        """Ask, paint until the run is over, return the reply. Meanwhile this kernel is lent to the session's runs.

        Ctrl-C stops the run and the code that it runs here, waits for its end and raises Interrupted; a second Ctrl-C
        does not wait. Ctrl-C leaves a run waiting that waits for the user's answer: it can be answered by its buttons,
        in another cell or in any chat, and goes on here, or in the cell that answers. Raises RunDidNotComplete when the
        run failed, and other KernelErrors when the prompt was refused or the server lost.
        """
        if not can_lend():
            return self._wait(MainThreadQueue(), None)
        with CellSignals() as signals:
            return self._wait(MainThreadQueue(), signals)

    def _wait(self, queue: MainThreadQueue, signals: CellSignals | None) -> Reply:
        self._queue = queue
        asking = self._ask_questions(queue)
        work = io_thread().submit(self._run_lent(queue, signals, self._run))
        work.add_done_callback(lambda _: queue.wake())
        try:
            self._paint_until_done(work, queue)
        except KeyboardInterrupt as pressed:
            queue.close()
            self.view.advice = None
            stops = asking.interrupted or isinstance(pressed, CodeInterrupted)
            if not stops and (self.view.questions or self.view.status == "waiting"):
                work.cancel()
                self._painter.paint(self.view, live=False)
                self._go_on_here()
                raise Interrupted(
                    "The run still waits for your answer: %navi approve, %navi deny, or %navi stop."
                ) from None
            try:
                io_thread().wait(self._stop(work))
            finally:
                work.cancel()
                self._painter.paint(self.view, live=False)
            raise Interrupted("Interrupted; the run was stopped.") from None
        finally:
            queue.close()
            asking.close()
            self.view.advice = None
        work.result()
        self._painter.paint(self.view, live=False)
        return self.reply()

    def _go_on_here(self) -> None:
        """Have the io thread show in this cell how the run goes on, until another cell answers and shows it."""
        run_id = self.view.run_id
        _left[run_id] = self
        following = io_thread().submit(self._follow_painted({"seq": self._seq}))
        following.add_done_callback(lambda _: _left.pop(run_id, None))

    async def hold(self) -> None:
        """Show nothing that comes until ``release``: another cell is about to answer. On the io thread."""
        self._held = asyncio.Event()

    async def release(self, until: int | None) -> None:
        """Show nothing after that event: another cell does. None: go on here. On the io thread."""
        if until is not None:
            self._until = until
            self.view.handed_over = True
        if self._held is not None:
            self._held.set()
            self._held = None

    def start(self) -> Reply:
        """Ask and return; the io thread continues to paint and to fill the reply. Raises KernelError when refused."""
        acceptance = io_thread().wait(self._submit())
        self._painter.paint(self.view, live=True)
        io_thread().submit(self._follow_painted(acceptance))
        return self.reply(waited=False)

    async def run(self) -> Reply:
        """As :meth:`wait`, for ``await`` in a cell, with the kernel's loop free. Cancelling it stops the run."""
        queue = MainThreadQueue(asyncio.get_running_loop())
        if not can_lend():
            return await self._wait_async(queue, None)
        with CellSignals() as signals:
            return await self._wait_async(queue, signals)

    async def _wait_async(self, queue: MainThreadQueue, signals: CellSignals | None) -> Reply:
        asking = self._ask_questions(queue)
        work = io_thread().submit(self._run_lent(queue, signals, self._run_painted))
        work.add_done_callback(lambda _: queue.wake())
        try:
            while not work.done():
                if not await queue.run_next_async():
                    await queue.wait_async(POLL)
        except asyncio.CancelledError:
            queue.close()
            await asyncio.wait((asyncio.wrap_future(io_thread().submit(self._stop(work))),))
            raise AwaitInterrupted from None
        finally:
            queue.close()
            asking.close()
            self.view.advice = None
        work.result()
        return self.reply()

    def reply(self, *, waited: bool = True) -> Reply:
        """The reply as it is now. Raises RunDidNotComplete when ``waited`` and the run failed."""
        reply = Reply(self._session_id, self.view, shown=not isinstance(self._painter, NoPainter))
        return finished(reply, self.view) if waited else reply

    def _ask_questions(self, queue: MainThreadQueue) -> PromptedQuestions:
        """Have the questions of the run asked in this cell from now on."""
        lines = line_input() if not isinstance(self._painter, NoPainter) else None
        page = f"{self._client.connection.url}navi"
        self.view.advice = "" if lines else f"waiting for your answer: in any chat of this session, or at {page}"
        self._questions = PromptedQuestions(self._client, self._session_id, self.view, queue, lines)
        self._questions.start()
        return self._questions

    def _paint_until_done(self, work: concurrent.futures.Future[None], queue: MainThreadQueue) -> None:
        self._painter.paint(self.view, live=True)
        due = time.monotonic() + self._interval()
        while not work.done():
            if self._questions is not None and self._questions.interrupted:
                raise KeyboardInterrupt
            if queue.run_next():
                continue
            if not self._changed.is_set():
                queue.wait(POLL)
            elif (left := due - time.monotonic()) > 0:
                queue.wait(min(POLL, left))
            else:
                self._changed.clear()
                self._painter.paint(self.view, live=True)
                due = time.monotonic() + self._interval()

    def _interval(self) -> float:
        # Seconds between paintings; more for a long answer, since the front end renders all of it each time.
        return 0.1 + sum(len(part.content) for part in list(self.view.parts) if isinstance(part, TextPart)) / 200_000

    async def _run_lent(
        self, queue: MainThreadQueue, signals: CellSignals | None, run: Callable[[], Awaitable[None]]
    ) -> None:
        """``run`` while this kernel is lent to the session, where it can be."""
        if signals is None:
            await run()
            return
        loan = KernelLoan(self._client, self._session_id, queue, signals, self._before_code, self._after_code)
        try:
            await loan.open()
            await run()
        finally:
            await loan.close()

    async def _before_code(self, call: str | None) -> None:
        """What comes before the code is shown above its outputs. (A display above them is replaced where it is.)"""
        printed = isinstance(self._painter, TerminalPainter)
        if call is None or not (printed or self.view.code):
            return
        for _ in range(CALL_SEEN):
            await asyncio.sleep(0 if self.view.has_call(call) else 0.01)
        if printed:
            self.view.code.append((call, len(self.view.parts)))
        if self._queue is None:
            self._painter.paint(self.view, live=True)
        else:
            self._queue.post(lambda: self._painter.paint(self.view, live=True))

    def _after_code(self, call: str | None, shown: bool) -> None:
        """What comes after the code is painted below its outputs."""
        if shown and not (call and self.view.executed(call)):
            self.view.code.append((call, len(self.view.parts)))
            self._notify()

    async def _run(self) -> None:
        await self._follow(await self._submit())

    async def _run_painted(self) -> None:
        acceptance = await self._submit()
        self._painter.paint(self.view, live=True)
        await self._follow_painted(acceptance)

    async def _submit(self) -> dict[str, Any]:
        try:
            acceptance = await self._client.command(self._session_id, self._prompt)
            self.view.run_id = str(acceptance["run_id"])
        finally:
            self._submitted.set()
        return acceptance

    async def _follow(self, acceptance: Mapping[str, Any]) -> None:
        """Apply the session's events until the run is over."""
        self._seq = acceptance["seq"]
        async with contextlib.aclosing(self._client.follow(self._session_id, acceptance["seq"])) as pages:
            async for page in pages:
                if self._held is not None:
                    await self._held.wait()
                for envelope in page:
                    if envelope["seq"] > self._until:
                        return
                    self.view.apply(envelope)
                    self._seq = envelope["seq"]
                if self.view.reset:
                    await read_ending(self._client, self._session_id, self.view)
                self._notify()
                await self._fetch_images()
                if self.view.over:
                    return

    async def _fetch_images(self) -> None:
        """Fetch the images that outputs refer to. One that cannot be fetched is left out."""
        for attachment_id in self.view.missing_images():
            # Noted first: after a failure it is not missing any more, so that it is not asked for at each event.
            self.view.images[attachment_id] = ("image/png", b"")
            with contextlib.suppress(KernelError):
                self.view.images[attachment_id] = await self._client.image(attachment_id)
                self._notify()

    def _notify(self) -> None:
        self._changed.set()
        if self._queue is not None:
            self._queue.wake()
        if self._questions is not None:
            self._questions.notify()

    async def _follow_painted(self, acceptance: Mapping[str, Any]) -> None:
        follow = asyncio.ensure_future(self._follow(acceptance))
        try:
            while not follow.done():
                await asyncio.wait((follow,), timeout=self._interval())
                if self._changed.is_set() and not follow.done():
                    self._changed.clear()
                    self._painter.paint(self.view, live=True)
            await follow
        except KernelError as problem:
            self.view.status, self.view.error = "failed", (problem.code, problem.message)
        finally:
            follow.cancel()
            self._painter.paint(self.view, live=True)

    async def _stop(self, work: concurrent.futures.Future[None]) -> None:
        """Withdraw the prompt if it still waits in the queue, else stop its run; then wait for the end."""
        deadline = time.monotonic() + STOP_PATIENCE
        # Before it is accepted there is no run to stop.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._submitted.wait(), STOP_PATIENCE)
        if work.done() or not self.view.run_id:
            return
        stop = {"type": "stop", "run_id": self.view.run_id}
        if self.view.status == "queued":
            try:
                await self._client.command(self._session_id, {"type": "unqueue", "target": self.view.command_id})
            except Refused:  # it has started in the meantime
                await self._client.command(self._session_id, stop)
        else:
            with contextlib.suppress(Refused):  # it has ended in the meantime
                await self._client.command(self._session_id, stop)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(work)), deadline - time.monotonic())


_left: dict[str, PendingPrompt] = {}  # the runs that waited for an answer when their cell was interrupted, by id


def answered_here(run_id: str, send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``send`` returns, which answers a question of a run that this cell alone shows from there on."""
    if (left := _left.pop(run_id, None)) is None:
        return send()
    # Before the answer is sent: the run may go on before it is known that the answer was accepted.
    io_thread().wait(left.hold())
    until = None
    try:
        acceptance = send()
        until = int(acceptance["seq"])
    finally:
        if until is None:
            _left[run_id] = left
        io_thread().wait(left.release(until))
    return acceptance


class ContinuedRun(PendingPrompt):
    """A run that goes on with the answer to its question, from there on to its end."""

    def __init__(
        self, client: Client, session_id: str, acceptance: Mapping[str, Any], painter: Painter, parts: Sequence[Part]
    ) -> None:
        """``acceptance``: of the answer; ``parts``: calls without a result, and questions that are open besides."""
        super().__init__(client, session_id, {}, painter)
        self._acceptance = dict(acceptance)
        self.view = RunView(str(acceptance["run_id"]), session_id=session_id)
        self.view.parts.extend(parts)
        self.view.status = "waiting" if self.view.questions else "running"

    async def _submit(self) -> dict[str, Any]:
        self._submitted.set()
        return self._acceptance
