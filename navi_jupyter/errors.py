"""Every failure that a user or a program can meet, with its stable code and HTTP status.

Not responsible for how an error is shown: the server turns one into a response, the socket into a
``rejected`` frame, a run into ``RUN_ERROR``.
"""

from __future__ import annotations

from typing import ClassVar

from .input.json_input import well_formed


class NaviError(Exception):
    """A failure that its reader can act on.

    ``str(error)`` is one sentence in the reader's words. ``field`` names the offending input field, if one is.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init_subclass__(cls, *, code: str | None = None, status: int | None = None) -> None:
        """``class Kind(NaviError, code="its_code", status=400)``; what is left out is the base's."""
        cls.code, cls.status = code or cls.code, status or cls.status

    def __init__(self, message: str, *, field: str | None = None) -> None:
        # Messages quote what came from outside.
        self.message = well_formed(message)
        super().__init__(self.message)
        self.field = field


class InvalidRequest(NaviError, code="invalid_request", status=400):
    """The input is malformed: wrong type, unknown field, too large, not JSON."""


class InvalidSchedule(NaviError, code="invalid_schedule", status=400):
    """A time or a schedule that is impossible: past, never, unknown zone, zero interval."""


class Forbidden(NaviError, code="forbidden", status=403):
    """The user is known and is not allowed to do this."""


class KernelTokenScope(Forbidden, code="kernel_token_scope"):
    """The kernels' token does not do this now: it takes a cell of the user's, or the chat."""


class NotFound(NaviError, code="not_found", status=404):
    """No such route or resource."""


class MethodNotAllowed(NaviError, code="method_not_allowed", status=405):
    """The route exists, but not with this method."""


class SessionNotFound(NotFound, code="session_not_found"):
    """No such session, or it belongs to another user."""


class SessionReadOnly(Forbidden, code="session_read_only"):
    """The session is shared with this user, who may read it and nothing else."""


class MessageNotFound(NotFound, code="message_not_found"):
    """No such message in this session, or its run is in progress."""


class RunNotFound(NotFound, code="run_not_found"):
    """No such run in this session."""


class RecallNotFound(NotFound, code="recall_not_found"):
    """No such recall, or it belongs to another user."""


class CommandNotFound(NotFound, code="command_not_found"):
    """``unqueue`` named a prompt that is not waiting."""


class InterruptNotFound(NotFound, code="interrupt_not_found"):
    """``answer`` named a question that is not open."""


class SessionBusy(NaviError, code="session_busy", status=409):
    """The session has a run in progress and the command asked to be refused in that case."""


class LeaseLost(NaviError, code="lease_lost", status=409):
    """What this was for was taken over, withdrawn or paused meanwhile, or may have been: it must not start."""


class RecallOver(NaviError, code="recall_over", status=409):
    """The recall has ended (fired, failed, cancelled or expired) and cannot be changed like this."""


class ModelUnavailable(NaviError, code="model_unavailable", status=409):
    """A model that cannot be used here is chosen: its package or key is missing, or a test of it was refused."""


class ProviderSet(NaviError, code="provider_set", status=409):
    """The key or address of a provider comes from the server's environment: nothing that is stored would count."""


class LimitReached(NaviError, code="limit_reached", status=429):
    """A configured limit (sessions, recalls, queue, connections, what is unfinished) is reached."""


class InputTimeout(NaviError, code="request_timeout", status=408):
    """The body of a request, or a message of a socket, did not go on."""


class NotReady(NaviError, code="not_ready", status=503):
    """The server is starting or stopping."""


class StoreError(NaviError, code="store_unavailable", status=503):
    """The database cannot be read or written right now (disk full, read-only, locked too long)."""


class StoreBusy(StoreError, code="store_busy"):
    """Another program kept the database locked for too long. Try again."""


class StoreLocked(StoreError, code="store_locking_unsupported"):
    """The file system cannot lock the database file, so servers cannot share it safely."""


class StoreForeign(StoreError, code="store_not_ours"):
    """The file is another program's, or no database at all; it was not changed."""


class StoreTooNew(StoreError, code="store_too_new"):
    """The database was written by a newer version of navi-jupyter."""


class StoreReplaced(StoreError, code="store_replaced"):
    """The database was deleted, replaced or overwritten while open; what was in it is kept in a file beside it."""


class StoreDamaged(StoreError, code="store_damaged"):
    """The database file is damaged; it is kept aside, never treated as empty."""


class RunFailed(NaviError, code="run_failed"):
    """A run cannot go on; becomes ``RUN_ERROR {code, message}`` in the session.

    ``run_code`` is one of the stable run error codes in ``docs/reference.md``.
    """

    def __init__(self, message: str, *, run_code: str) -> None:
        super().__init__(message)
        self.run_code = run_code


class KernelUnavailable(NaviError, code="kernel_unavailable", status=409):
    """There is no kernel, it is dead or silent, or it runs outside of this server and no cell of it waits."""


class KernelBusy(NaviError, code="kernel_busy", status=409):
    """The kernel is executing another cell."""


class ServerUnavailable(NaviError, code="server_unavailable", status=503):
    """The user's server on the JupyterHub is not there and could not be started, or does not connect."""


class HubRefused(NaviError, code="hub_refused", status=403):
    """The JupyterHub does not let the service do this: its role lacks a scope, or the user is not known there."""


class NotebookNotFound(NotFound, code="notebook_not_found"):
    """No such notebook under the server's root."""


class CellNotFound(NotFound, code="cell_not_found"):
    """No such cell in the notebook."""


class NotebookConflict(NaviError, code="notebook_conflict", status=409):
    """The notebook was changed meanwhile: read it again."""


class NotebookRequestGone(NaviError, code="notebook_request_gone", status=404):
    """A page was asked to change its notebook: that is over, or another page does it."""


class FileRefused(NaviError, code="file_refused", status=403):
    """Outside the server's root, hidden, binary, or too large."""


class FileConflict(NaviError, code="file_conflict", status=409):
    """A file is not as the writer expected: it was changed or removed meanwhile, or exists already."""


class FactNotFound(NotFound, code="fact_not_found"):
    """No such fact, or it belongs to another user."""


class AttachmentNotFound(NotFound, code="attachment_not_found"):
    """No such attachment, or it belongs to another user."""


class AttachmentRefused(NaviError, code="attachment_refused", status=400):
    """Too large, empty, or of a kind that is not accepted."""


class ToolUnavailable(NaviError, code="tool_unavailable", status=409):
    """The tool is known but cannot be called now: its kernel or its MCP server is not available."""


class ToolDenied(NaviError, code="tool_denied", status=403):
    """The profile, the administrator or the user does not allow this tool."""
