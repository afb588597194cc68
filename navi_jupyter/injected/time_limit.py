"""A time limit for the user's code, kept inside the kernel; sent there as source.

An interrupt from outside may come a moment too late and hit the user's next cell; an alarm that is set and disarmed by
the thread that evaluates cannot. Leaves nothing behind, neither in the user's names nor in the process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

AGAIN = 0.05  # seconds until the next alarm: code that swallows the first one may let a later one through


class TookTooLong(BaseException):
    """Not an Exception: the user's own ``except Exception`` must not swallow it."""


def possible() -> bool:
    """On POSIX, on the main thread, if the user has no alarm of their own."""
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


def failed(error: BaseException) -> dict[str, str]:
    """What was raised, in short: the traceback of an expression may have thousands of lines. Its text is user code."""
    try:
        with limited(0.2):
            text = str(error)
    except Exception:  # noqa: BLE001 - whatever the user's class raises
        text = ""
    return {"error": type(error).__name__[:100], "text": " ".join(str.__getitem__(text, slice(0, 2000)).split())[:300]}


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError for what takes longer; where that is not possible, nothing is limited."""
    if not possible():
        yield
        return
    armed, rang = [True], [False]

    def ring(*_: Any) -> None:
        if armed[0]:
            rang[0] = True
            raise TookTooLong

    # Exceptions of a signal handler are raised between two instructions of the main thread, wherever it is.
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        try:
            yield
        finally:
            armed[0] = False  # an alarm that comes before this line ends up below; one that comes after does nothing
    except TookTooLong:
        armed[0] = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if rang[0]:
        raise TimeoutError(f"it takes longer than {seconds:g} s, and was ended")
