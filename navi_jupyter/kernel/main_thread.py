"""Work for the thread of a cell that waits: posted from any thread, done there in order.

A cell that blocks (``%navi``, ``navi.ask``) does it on the kernel's main thread between two paintings; one that awaits
(``navi.ask_async``) does it as a part of its own task, on the kernel's loop. Not responsible for what the work is:
code that the agent runs in this kernel (``lending``), a question at an input prompt (``questions``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]  # what is to be done. Where the cell awaits, it may return an awaitable, which is awaited.


class MainThreadQueue:
    """The work of one waiting cell, and what wakes the cell up."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """``loop``: the kernel's, for a cell that awaits; None for one that blocks its thread."""
        self._loop = loop
        self._lock = threading.Lock()
        self._work: deque[tuple[Work, concurrent.futures.Future[Any]]] = deque()
        self._closed = False
        self._woken = threading.Event()  # of a cell that blocks
        self._woken_loop = asyncio.Event()  # of one that awaits

    @property
    def awaits(self) -> bool:
        """Whether work may return an awaitable."""
        return self._loop is not None

    @property
    def has_work(self) -> bool:
        """Whether work waits to be done. Any thread."""
        return bool(self._work)

    def post(self, work: Work) -> concurrent.futures.Future[Any]:
        """Have the cell's thread do ``work``; its result. Cancelled when the cell is over before, or by ``cancel()``.

        Any thread. On the io thread, ``await asyncio.wrap_future(queue.post(work))``.
        """
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._closed:
                done.cancel()
            else:
                self._work.append((work, done))
        self.wake()
        return done

    def wake(self) -> None:
        """End a ``wait`` early. Any thread."""
        if self._loop is None:
            self._woken.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken_loop.set)

    def close(self) -> None:
        """The cell is over: what was not begun is cancelled, and so is what is posted from now on. Any thread."""
        with self._lock:
            self._closed = True
            left, self._work = self._work, deque()
        for _, done in left:
            done.cancel()
        self.wake()

    def wait(self, timeout: float) -> None:
        """Block until there is work, ``wake`` was called, or ``timeout`` (seconds) is over. The cell's thread only."""
        self._woken.wait(timeout)
        self._woken.clear()

    async def wait_async(self, timeout: float) -> None:
        """The same for a cell that awaits."""
        waiting = asyncio.ensure_future(self._woken_loop.wait())
        try:
            await asyncio.wait((waiting,), timeout=timeout)
        finally:
            waiting.cancel()
        self._woken_loop.clear()

    def run_next(self) -> bool:
        """Do the next piece of work; False when there is none. KeyboardInterrupt is raised here, too."""
        work, done = self._next()
        if work is None:
            return False
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        return True

    async def run_next_async(self) -> bool:
        """The same for a cell that awaits. CancelledError is raised here, too."""
        work, done = self._next()
        if work is None:
            return False
        try:
            result = work()
            done.set_result(await result if inspect.isawaitable(result) else result)
        except BaseException as error:
            done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        return True

    def _next(self) -> tuple[Work | None, concurrent.futures.Future[Any]]:
        while True:
            with self._lock:
                if not self._work:
                    return None, concurrent.futures.Future()
                work, done = self._work.popleft()
            if done.set_running_or_notify_cancel():
                return work, done
