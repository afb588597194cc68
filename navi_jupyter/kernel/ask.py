"""Asks, and shows the answer while it comes.

The envelopes are folded on the io thread. Who waits in a cell paints in that cell's own thread; who does not wait is
painted from the io thread, in the context of the cell that asked. Not responsible for how a run looks (``render``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from .client import Client, new_command_id
from .errors import Interrupted, KernelError, Refused, RunDidNotComplete
from .io_thread import io_thread
from .render import run_bundle, run_plain
from .run_view import RunView, Text, Tool
from .shell import current_shell, show

POLL = 0.5  # seconds; Windows does not interrupt an endless wait for Ctrl-C, so none is endless
STOP_PATIENCE = 12.0
"""Seconds to wait for the end of a stopped run: a little more than the server's ``stop_deadline``."""


class Painter(Protocol):
    """Shows a run; called again when it has changed."""

    def paint(self, fold: RunView, *, live: bool) -> None: ...


class CellPainter:
    """One output of a notebook cell, replaced at each change."""

    def __init__(self) -> None:
        self._handle: Any = None

    def paint(self, fold: RunView, *, live: bool) -> None:
        bundle = run_bundle(fold, live=live)
        if self._handle is None:
            self._handle = show(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class TerminalPainter:
    """Plain text that only grows, for a terminal."""

    def __init__(self) -> None:
        self._printed = ""

    def paint(self, fold: RunView, *, live: bool) -> None:
        text = run_plain(fold)
        if text.startswith(self._printed):
            sys.stdout.write(text[len(self._printed) :])
        else:  # a tool call that was open got its result
            sys.stdout.write("\n\n" + text)
        self._printed = text
        if not live or fold.over:
            sys.stdout.write("\n")
        sys.stdout.flush()


class NoPainter:
    """For programs that are no notebook."""

    def paint(self, fold: RunView, *, live: bool) -> None:
        """Nothing."""


def painter_here() -> Painter:
    """What fits the place this runs in."""
    shell = current_shell()
    if shell is None:
        return NoPainter()
    return CellPainter() if hasattr(shell, "kernel") else TerminalPainter()


class Asking:
    """One prompt on its way to a reply."""

    def __init__(self, client: Client, session_id: str, prompt: Mapping[str, Any], painter: Painter) -> None:
        self._client = client
        self._session_id = session_id
        self._prompt = {"type": "prompt", "command_id": new_command_id(), **prompt}
        self._painter = painter
        self._changed = threading.Event()
        """Set when the fold has changed since it was painted, and when it will not change any more."""
        self._submitted = asyncio.Event()
        """Set once the server has accepted or refused the prompt."""
        self.fold = RunView("", self._prompt["command_id"])
        """Written on the io thread only; readable anywhere. Its ``run_id`` is empty until the prompt is accepted."""

    def wait(self) -> Reply:
        """Ask, paint until the run is over, return the reply.

        Ctrl-C stops the run, waits for its end and raises Interrupted; a second Ctrl-C does not wait. A run that
        waits for the user's answer is left waiting by Ctrl-C: it can be answered here, or in any chat. Raises
        RunDidNotComplete when the run failed, KernelError for what the server, or the way to it, refuses.
        """
        work = io_thread().submit(self._run())
        work.add_done_callback(lambda _: self._changed.set())
        try:
            self._paint_until_done(work)
        except KeyboardInterrupt:
            if self.fold.questions or self.fold.status == "waiting":
                work.cancel()
                self._painter.paint(self.fold, live=False)
                raise Interrupted("The run goes on waiting: %navi approve, %navi deny, or %navi stop.") from None
            try:
                io_thread().wait(self._stop(work))
            finally:
                work.cancel()
                self._painter.paint(self.fold, live=False)
            raise Interrupted("Interrupted; the run was stopped.") from None
        work.result()
        self._painter.paint(self.fold, live=False)
        return self.reply()

    def start(self) -> Reply:
        """Ask and return; the io thread paints on, and the reply fills itself. Raises KernelError when refused."""
        acceptance = io_thread().wait(self._submit())
        self._painter.paint(self.fold, live=True)
        io_thread().submit(self._follow_painted(acceptance))
        return self.reply(waited=False)

    async def run(self) -> Reply:
        """As :meth:`wait`, for a cell that awaits: the kernel's loop goes on meanwhile. Cancelling it stops the run."""
        work = io_thread().submit(self._run_painted())
        try:
            await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            io_thread().submit(self._stop(work))
            raise
        return self.reply()

    def reply(self, *, waited: bool = True) -> Reply:
        """What there is. Raises RunDidNotComplete when it was waited for in vain."""
        reply = Reply(self._session_id, self.fold, shown=not isinstance(self._painter, NoPainter))
        if waited and self.fold.error is not None:
            code, message = self.fold.error
            raise RunDidNotComplete(f"The run failed ({code}): {message}", run_code=code, reply=reply)
        return reply

    def _paint_until_done(self, work: concurrent.futures.Future[None]) -> None:
        self._painter.paint(self.fold, live=True)
        while not work.done():
            if self._changed.wait(POLL) and not work.done():
                self._changed.clear()
                self._painter.paint(self.fold, live=True)
                time.sleep(self._interval())

    def _interval(self) -> float:
        """Seconds between paintings: ten a second, fewer for what is long to draw."""
        return 0.1 + sum(len(part.content) for part in list(self.fold.parts) if isinstance(part, Text)) / 200_000

    # --- on the io thread --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._follow(await self._submit())

    async def _run_painted(self) -> None:
        acceptance = await self._submit()
        self._painter.paint(self.fold, live=True)
        await self._follow_painted(acceptance)

    async def _submit(self) -> dict[str, Any]:
        try:
            acceptance = await self._client.command(self._session_id, self._prompt)
            self.fold.run_id = str(acceptance["run_id"])
        finally:
            self._submitted.set()
        return acceptance

    async def _follow(self, acceptance: Mapping[str, Any]) -> None:
        """Fold until the run is over."""
        async with contextlib.aclosing(self._client.follow(self._session_id, acceptance["seq"])) as pages:
            async for page in pages:
                for envelope in page:
                    self.fold.apply(envelope)
                if self.fold.refold:
                    await self._ask_how_it_ended()
                self._changed.set()
                await self._fetch_pictures()
                if self.fold.over:
                    return

    async def _ask_how_it_ended(self) -> None:
        """The run's own record, or that of the run which took the prompt over."""
        while True:
            run = await self._client.request("GET", f"sessions/{self._session_id}/runs/{self.fold.run_id}")
            if not run.get("merged_into"):
                break
            self.fold.run_id = str(run["merged_into"])
        self.fold.end(run["status"], run.get("error"))

    async def _fetch_pictures(self) -> None:
        """The pictures that tools have shown. One that can not be had is left out."""
        for attachment_id in self.fold.wanted_pictures():
            self.fold.pictures[attachment_id] = ("image/png", b"")
            with contextlib.suppress(KernelError):
                self.fold.pictures[attachment_id] = await self._client.picture(attachment_id)
                self._changed.set()

    async def _follow_painted(self, acceptance: Mapping[str, Any]) -> None:
        follow = asyncio.ensure_future(self._follow(acceptance))
        try:
            while not follow.done():
                await asyncio.wait((follow,), timeout=self._interval())
                if self._changed.is_set() and not follow.done():
                    self._changed.clear()
                    self._painter.paint(self.fold, live=True)
            await follow
        except KernelError as problem:
            self.fold.status, self.fold.error = "failed", (problem.code, problem.message)
        finally:
            follow.cancel()
            self._painter.paint(self.fold, live=True)

    async def _stop(self, work: concurrent.futures.Future[None]) -> None:
        """Withdraw the prompt if it still waits, else stop its run; then give it time to end."""
        deadline = time.monotonic() + STOP_PATIENCE
        with contextlib.suppress(TimeoutError):  # only once it is accepted there is something to stop
            await asyncio.wait_for(self._submitted.wait(), STOP_PATIENCE)
        if work.done() or not self.fold.run_id:
            return
        stop = {"type": "stop", "run_id": self.fold.run_id}
        if self.fold.status == "queued":
            try:
                await self._client.command(self._session_id, {"type": "unqueue", "target": self.fold.command_id})
            except Refused:  # it has just started
                await self._client.command(self._session_id, stop)
        else:
            await self._client.command(self._session_id, stop)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(work)), deadline - time.monotonic())


class Reply:
    """What the agent answered. While its run goes on (``wait=False``) it still grows."""

    def __init__(self, session_id: str, fold: RunView, *, shown: bool) -> None:
        self.session_id = session_id
        self._fold = fold
        self._shown_in = _cell() if shown else None
        """The cell in which it was streamed: as that cell's result it need not be shown a second time."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._fold.run_id

    @property
    def text(self) -> str:
        """The agent's words, without its tool calls."""
        return self._fold.text

    @property
    def status(self) -> str:
        """``sent``, ``queued``, ``running``; then ``completed``, ``waiting``, ``stopped``, ``failed``, ``withdrawn``"""
        return self._fold.status

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """``name``, ``args`` (JSON text) and ``result`` of each."""
        return [
            {"name": part.name, "args": part.args, "result": part.result}
            for part in self._fold.parts
            if isinstance(part, Tool)
        ]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Reply {self.run_id} {self.status}: {self.text[:60]!r}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return run_bundle(self._fold, live=True)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(run_plain(self._fold, live=True))

    def _ipython_display_(self) -> None:
        if self._shown_in is not None and self._shown_in == _cell():
            self._shown_in = None
            return
        show(run_bundle(self._fold, live=True), raw=True)


def _cell() -> int | None:
    return getattr(current_shell(), "execution_count", None)
