"""Every failure that a user or a program can meet, with its stable code and HTTP status.

Not responsible for how an error is shown: the server turns one into a response, the socket into a
``rejected`` frame, a run into ``RUN_ERROR``.
"""

from __future__ import annotations

from typing import ClassVar


class NaviError(Exception):
    """A failure that its reader can act on.

    ``str(error)`` is one sentence in the reader's words. ``field`` names the offending input field, if one is.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(NaviError):
    """The input is malformed: wrong type, unknown field, too large, not JSON."""

    code = "invalid_request"
    status = 400


class InvalidSchedule(NaviError):
    """A time or a schedule that is impossible: past, never, unknown zone, zero interval."""

    code = "invalid_schedule"
    status = 400


class Forbidden(NaviError):
    """The user is known and is not allowed to do this."""

    code = "forbidden"
    status = 403


class NotFound(NaviError):
    """No such route or resource."""

    code = "not_found"
    status = 404


class MethodNotAllowed(NaviError):
    """The route exists, but not with this method."""

    code = "method_not_allowed"
    status = 405


class SessionNotFound(NotFound):
    """No such session, or it belongs to another user."""

    code = "session_not_found"


class RunNotFound(NotFound):
    """No such run in this session."""

    code = "run_not_found"


class RecallNotFound(NotFound):
    """No such recall, or it belongs to another user."""

    code = "recall_not_found"


class CommandNotFound(NotFound):
    """``unqueue`` named a prompt that is not waiting."""

    code = "command_not_found"


class InterruptNotFound(NotFound):
    """``answer`` named a question that is not open."""

    code = "interrupt_not_found"


class SessionBusy(NaviError):
    """The session has a run in progress and the command asked to be refused in that case."""

    code = "session_busy"
    status = 409


class LeaseLost(NaviError):
    """The firing that this prompt delivers was taken over, withdrawn or paused meanwhile: it must not start."""

    code = "lease_lost"
    status = 409


class RecallOver(NaviError):
    """The recall has ended (fired, failed, cancelled or expired) and cannot be changed like this."""

    code = "recall_over"
    status = 409


class LimitReached(NaviError):
    """A configured limit (sessions, recalls, queue) is reached."""

    code = "limit_reached"
    status = 429


class NotReady(NaviError):
    """The server is starting or stopping."""

    code = "not_ready"
    status = 503


class StoreError(NaviError):
    """The database cannot be read or written right now (disk full, read-only, locked too long)."""

    code = "store_unavailable"
    status = 503


class StoreBusy(StoreError):
    """Another program kept the database locked for too long. Try again."""

    code = "store_busy"


class StoreLocked(StoreError):
    """The file system cannot lock the database file, so servers cannot share it safely."""

    code = "store_locking_unsupported"


class StoreTooNew(StoreError):
    """The database was written by a newer version of navi-jupyter."""

    code = "store_too_new"


class StoreDamaged(StoreError):
    """The database file is damaged; it is kept aside, never treated as empty."""

    code = "store_damaged"


class RunFailed(NaviError):
    """A run cannot go on; becomes ``RUN_ERROR {code, message}`` in the session.

    ``run_code`` is one of the stable run error codes in ``docs/reference.md``.
    """

    code = "run_failed"

    def __init__(self, message: str, *, run_code: str) -> None:
        super().__init__(message)
        self.run_code = run_code


class KernelUnavailable(NaviError):
    """There is no kernel, it is dead, or it does not respond."""

    code = "kernel_unavailable"
    status = 409


class KernelBusy(NaviError):
    """The kernel is executing another cell."""

    code = "kernel_busy"
    status = 409


class NotebookNotFound(NotFound):
    """No such notebook under the server's root."""

    code = "notebook_not_found"


class CellNotFound(NotFound):
    """No such cell in the notebook."""

    code = "cell_not_found"


class NotebookConflict(NaviError):
    """The notebook was changed meanwhile: read it again."""

    code = "notebook_conflict"
    status = 409


class FileRefused(NaviError):
    """Outside the server's root, hidden, binary, or too large."""

    code = "file_refused"
    status = 403


class FileConflict(NaviError):
    """A file is not as the writer expected: it was changed or removed meanwhile, or exists already."""

    code = "file_conflict"
    status = 409


class FactNotFound(NotFound):
    """No such fact, or it belongs to another user."""

    code = "fact_not_found"


class AttachmentNotFound(NotFound):
    """No such attachment, or it belongs to another user."""

    code = "attachment_not_found"


class AttachmentRefused(NaviError):
    """Too large, empty, or of a kind that is not accepted."""

    code = "attachment_refused"
    status = 400


class ToolUnavailable(NaviError):
    """The tool is known but cannot be called now: its kernel or its MCP server is not available."""

    code = "tool_unavailable"
    status = 409


class ToolDenied(NaviError):
    """The profile, the administrator or the user does not allow this tool."""

    code = "tool_denied"
    status = 403
