"""The thread ``navi-io``: one asyncio loop beside the kernel's own, so that a busy cell delays nothing.

Not responsible for what runs there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_POLL = 0.5  # Windows does not interrupt an endless wait for Ctrl-C, so none is endless


class IoThread:
    """A daemon thread with an event loop; started by its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # set together with ``_thread``, never replaced

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="navi-io", daemon=True)
                self._thread.start()
            return self._loop

    @property
    def current(self) -> bool:
        """Whether the caller is on it."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run ``work`` there, in a copy of the caller's context, by which ipykernel assigns a display to its cell."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there and return its result. Ctrl-C cancels it and is raised here at once."""
        # It would wait for work that only it can do.
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the navi-io thread cannot wait for itself: call this from another thread")
        future = self.submit(work)
        try:
            while not concurrent.futures.wait((future,), timeout=_POLL).done:
                pass
        except BaseException:
            future.cancel()
            raise
        return future.result()


_current = IoThread()


def io_thread() -> IoThread:
    """The one of this process."""
    return _current


def _forget() -> None:
    # a forked child has no threads: it starts its own at the first use.
    global _current
    _current = IoThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
