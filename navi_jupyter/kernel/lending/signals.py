"""SIGINT while a cell waits: Ctrl-C is the user's; an interrupt of lent code ends that code, and never the cell.

Not responsible for what a signal does to the code (``execution``).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, Self

OnSignal = Callable[[bool], None]

AGAIN = 0.7  # seconds until code that still runs is interrupted again: it may have caught the first one
_TIMES = 40  # after which code that ignores every interrupt is left alone


class CellSignals:
    """See the module. Entered and left on the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: OnSignal | None = None
        self._requested = False  # the signal that comes next was sent by us
        self._ignored_until = 0.0  # by the monotonic clock
        self._before: Any = None
        self._handler = self._on_sigint  # one object: a bound method is a new one each time

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        if signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, self._before)

    def ignore(self, seconds: float) -> None:
        """Ignore what comes so soon: Jupyter interrupts a kernel before it restarts it. On the io thread."""
        self._ignored_until = time.monotonic() + seconds

    @contextlib.contextmanager
    def during(self, code: OnSignal) -> Iterator[None]:
        """While ``code`` runs, which is called with whether the user pressed Ctrl-C, in the signal's handler."""
        with self._lock:
            self._running = code
        try:
            yield
        finally:
            with self._lock:  # a signal that was sent under it has come, or comes while the handler is still ours
                self._running = None

    async def interrupt(self, code: OnSignal) -> None:
        """Interrupt ``code`` until it has ended. On the io thread; does nothing when it does not run."""
        for _ in range(_TIMES):
            if not self._send_to(code):
                return
            await asyncio.sleep(AGAIN)

    def _send_to(self, code: OnSignal) -> bool:
        with self._lock:
            if self._running != code:
                return False
            if signal.getsignal(signal.SIGINT) is self._handler:  # else the code has a handler of its own
                self._requested = True
            _signal_main_thread()
            return True

    def _on_sigint(self, number: int, frame: types.FrameType | None) -> None:
        __tracebackhide__ = True  # in the traceback that the user gets
        requested, self._requested = self._requested, False
        if time.monotonic() < self._ignored_until:
            return
        if self._running is not None:
            if not requested or not _is_ending(frame):
                self._running(not requested)
        elif not requested:
            if not callable(self._before):
                raise KeyboardInterrupt
            self._before(number, frame)
            # ipykernel's handler of a cell that awaits notes the signal, but does not wake its loop.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().call_soon_threadsafe(lambda: None)


def _is_ending(frame: types.FrameType | None) -> bool:
    """Whether IPython shows a traceback at this moment: another interrupt would spoil that, and end nothing."""
    while frame is not None:
        if frame.f_code.co_name == "showtraceback":
            return True
        frame = frame.f_back
    return False


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, signal.SIGINT)
    else:
        import _thread  # Windows: there is no signal for one thread

        _thread.interrupt_main()
