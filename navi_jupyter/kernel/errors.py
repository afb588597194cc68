"""The errors of the kernel's side: one readable line in a notebook, an ordinary exception in a program.

Not responsible for the server's own errors: those are raised as :class:`Refused`, with the server's code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..errors import NaviError
from ..text import printable

_RED, _PLAIN = "\x1b[0;31m", "\x1b[0m"


class KernelError(NaviError):
    """Base of this module. IPython asks ``_render_traceback_`` how to show it."""

    code = "kernel_error"

    def _render_traceback_(self) -> list[str]:
        return [f"{_RED}navi:{_PLAIN} {printable(self.message)}"]


class UsageError(KernelError):
    """A magic or a function was called in a way that has no meaning."""

    code = "usage"
    status = 400


class NoSuchItem(UsageError):
    """No recall, session or other item has the number, id or title that was given."""

    code = "no_such_item"
    status = 404


class ServerNotFound(KernelError):
    """No place that may name a server names one that is running."""

    code = "server_not_found"
    status = 503

    def __init__(self, message: str, *, rejected: Sequence[str] = ()) -> None:
        """``rejected``: why each place that names a server was passed over."""
        super().__init__(message)
        self.rejected = tuple(rejected)


class Unreachable(KernelError):
    """The server that was found does not answer."""

    code = "server_unreachable"
    status = 503


class Refused(KernelError):
    """The server answered with an error: its ``server_code``, HTTP ``server_status`` and message."""

    code = "refused"

    def __init__(self, message: str, *, server_code: str, server_status: int, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.server_code = server_code
        self.server_status = server_status


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while waiting. A KeyboardInterrupt, so that loops end, but shown as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{_RED}navi:{_PLAIN} {printable(str(self))}"]


class AwaitInterrupted(asyncio.CancelledError):
    """Ctrl-C while awaiting. A CancelledError, which no event loop takes for its own end, but shown as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{_RED}navi:{_PLAIN} Interrupted; the run was stopped."]
