"""A kernel that a waiting cell lends to the runs of one session: what it is sent, and what comes back.

Not responsible for which kernels are lent to whom (``loans``), or for the socket that brings the frames
(``server.websocket``).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ...errors import InvalidRequest
from ...log_setup import get_logger
from ...ports.agent import tool_call
from .outputs import Outputs
from .requests import ExecuteRequest
from .running_cells import RunningCells
from .transport import IopubMessage, Parent

log = get_logger("kernels")

STOP_WITHIN = 2.0  # seconds for the stop of a run to come, after the user pressed Ctrl-C in code of it
RESTART_NOTICE = 0.1  # seconds for its kernel to read that it is restarted
GRACE = 10.0  # seconds for a kernel whose socket broke to come back
POLL = 0.25  # seconds between polls of whether the kernel lives
_KINDS = ("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output")
_DIED_OUTSIDE = "the kernel died while it ran: all variables are gone. This server does not restart it"
_CONNECTION_LOST = "the connection to the cell that waits in it is lost, so it is not known how the code went on"

Frame = Mapping[str, Any]
LoanEnd = Literal["closed", "returned", "lost", "died"]
"""``closed``: by the cell, which has ended, or because this server stops. ``returned``: the cell ends just now, and
executes no more. ``lost``: its socket broke, and it did not come back. ``died``: the kernel did."""


class LoanSocket(Protocol):
    """The socket of a loan: how frames reach the kernel. Neither method blocks or raises."""

    def emit(self, frame: Frame) -> None: ...

    def hang_up(self, *, for_good: bool) -> None:
        """It is used no more; ``for_good``: the kernel is not to connect again."""


@dataclass(eq=False)
class PendingExecution:
    """A request in a loan."""

    request: ExecuteRequest
    frame: Frame
    sent: bool = False
    by_user: bool = False  # the user pressed Ctrl-C in it, whose kernel stops the run as well
    interrupted: bool = False  # it was asked to end; the kernel interrupts it until it does
    last: int = 0  # the number of its last frame that came: after a reconnect they come again


@dataclass(eq=False)
class LentKernel:
    """A kernel that a waiting cell lends to the runs of one session. Implements ``requests.Executor``.

    It outlives a broken socket for ``GRACE`` seconds: the kernel comes back with the same id.
    """

    id: str
    kernel_id: str
    session_id: str
    language: str
    outside: bool  # another program than this server has started it
    lives: Callable[[], Awaitable[bool]] | None  # whether its process is there; None: there is no way to know
    on_end: Callable[[LentKernel], object]
    on_code: Callable[[LentKernel], object] = lambda _: None  # called before code of an agent is sent
    pid: int | None = None  # of the process that lends it, as that says; None: on another machine
    key: str | None = None  # known to the cell that lends it alone (`server.kernel_scope`)
    poll: float = POLL
    lease_path: Callable[[], str | None] = lambda: None  # the file that shows until when this server may act
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held for each request: one runs after another
    ended: LoanEnd | None = None

    def __post_init__(self) -> None:
        self.cells = RunningCells(at_rest=lambda: False)
        self.shared = False
        """Code of an agent has been executed in the cell that waits, and may have left a thread behind."""
        self._socket: LoanSocket | None = None
        self._executions: dict[str, PendingExecution] = {}
        self._changed = asyncio.Event()  # it has a request, another socket, or has ended
        self._watching = asyncio.create_task(self._watch(), name=f"navi-loan-{self.kernel_id[:8]}")

    @property
    def executes(self) -> bool:
        """Whether it may be executing something of a run: that is known to have ended, and not when it begins."""
        return any(execution.sent for execution in self._executions.values())

    @property
    def attached(self) -> bool:
        """Whether its socket is open."""
        return self._socket is not None

    def attach(self, socket: LoanSocket, unacknowledged: Collection[str]) -> None:
        """Its first socket, or the next one. ``unacknowledged``: what it still has results of."""
        previous, self._socket = self._socket, socket
        if previous is not None:
            previous.hang_up(for_good=False)
        socket.emit({"type": "lent"})
        for execution in list(self._executions.values()):
            if execution.request.id in unacknowledged:
                execution.sent = True
                if execution.interrupted:
                    self._interrupt(execution)
            elif execution.request.begun.done():
                self._end(execution, lost=_CONNECTION_LOST)
            else:
                self._emit_request(execution)
        for unknown in set(unacknowledged) - self._executions.keys():
            # Whatever waited for its result waits no more: it is of a run that was stopped, or of a dead server.
            socket.emit({"type": "interrupt", "id": unknown})
        self._notify()

    def detach(self, socket: LoanSocket, *, closed: bool) -> None:
        """Its socket is gone; ``closed`` by the cell, which has ended."""
        if self._socket is not socket:
            return
        self._socket = None
        if closed:
            self.end_loan("closed")
        self._notify()

    def end_loan(self, how: LoanEnd) -> None:
        """It is over. What had not begun is returned; what runs is lost with it."""
        if self.ended is not None:
            return
        self.ended = how
        log.info("kernel_loan_ended", kernel_id=self.kernel_id, session_id=self.session_id, how=how)
        self.on_end(self)
        lost = _CONNECTION_LOST if how != "died" else _DIED_OUTSIDE if self.outside else None
        for execution in list(self._executions.values()):
            request = execution.request
            request.returned = not request.begun.done() and (how in ("closed", "returned") or not execution.sent)
            self._end(execution, lost=lost)
        self.cells.clear()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.hang_up(for_good=how == "returned")
        self._notify()

    def take(self, frame: Frame) -> None:
        """A frame of the kernel's. Raises InvalidRequest for one that breaks the protocol."""
        kind, execution = frame.get("type"), self._executions.get(str(frame.get("id")))
        if kind not in ("begun", "output", "ended", "interrupted"):
            raise InvalidRequest(f"A loan has no frames of the type {str(kind)[:50]!r}.", field="type")
        if execution is None:
            if kind == "ended":
                self._emit({"type": "received", "id": frame.get("id")})
            return
        number = frame.get("n")
        if isinstance(number, int):
            if number <= execution.last:
                return
            execution.last = number
        if kind == "begun":
            self._on_begun(execution)
        elif kind == "output":
            _take_output(execution.request.outputs, frame)
        elif kind == "ended":
            self._on_ended(execution, frame.get("reply"))
        else:
            execution.by_user = True

    def send(
        self, code: str, outputs: Outputs, *, silent: bool, store_history: bool, expressions: Mapping[str, str]
    ) -> ExecuteRequest:
        """See ``Executor``. Waits for the socket while that is away; returned at once when the loan has ended."""
        loop = asyncio.get_running_loop()
        request = ExecuteRequest(
            id=secrets.token_hex(8), outputs=outputs, begun=loop.create_future(), ended=loop.create_future()
        )
        frame = {
            "type": "execute",
            "id": request.id,
            "code": code,
            "silent": silent,
            "store_history": store_history and not silent,
            "expressions": dict(expressions),
            "tool_call_id": tool_call.get(None),
            "lease": self.lease_path(),
        }
        execution = self._executions[request.id] = PendingExecution(request, frame)
        if self.ended is not None:
            request.returned = True
            self._end(execution)
        elif self._socket is not None:
            self._emit_request(execution)
        self._notify()
        return request

    async def end(self, request: ExecuteRequest, within: float) -> bool:
        """See ``Executor``. The kernel interrupts that very code until it ends, and drops what has not begun."""
        execution = self._executions.get(request.id)
        if execution is not None and request.reply is not None:
            self._end(execution)
        elif execution is not None:
            self._interrupt(execution)
            await asyncio.wait({request.ended}, timeout=within)
        return request.ended.done()

    def abandon(self, request: ExecuteRequest) -> None:
        execution = self._executions.get(request.id)
        if execution is None:
            return
        if execution.sent:
            self._interrupt(execution)
        else:
            request.returned = True
            self._end(execution)

    async def announce_restart(self) -> None:
        """The kernel is about to be restarted; Jupyter interrupts it first, which its cell must not take for Ctrl-C."""
        self._emit({"type": "restart"})
        await asyncio.sleep(RESTART_NOTICE)

    def interrupt(self) -> None:
        """Interrupt what it executes, and not the cell that waits."""
        for execution in list(self._executions.values()):
            if execution.request.begun.done():
                self._interrupt(execution)

    def _on_begun(self, execution: PendingExecution) -> None:
        request = execution.request
        if not request.begun.done():
            self.cells.add(request.id, code=str(execution.frame["code"])[:2000], ours=True)
            request.begun.set_result(time.monotonic())

    def _on_ended(self, execution: PendingExecution, reply: object) -> None:
        request, content = execution.request, reply if isinstance(reply, dict) else {}
        self._emit({"type": "received", "id": request.id})
        if content.get("status") == "aborted" and not request.begun.done():
            request.returned = True
            self._end(execution)
            if not execution.interrupted:
                self.end_loan("returned")
            return
        self._on_begun(execution)
        request.reply = content
        if execution.by_user and not execution.interrupted:
            # Its run is about to be stopped; until then the model must not be asked what to do about it.
            asyncio.get_running_loop().call_later(STOP_WITHIN, self._end, execution)
        else:
            self._end(execution)

    def _interrupt(self, execution: PendingExecution) -> None:
        execution.interrupted = True
        self._emit({"type": "interrupt", "id": execution.request.id})

    def _emit_request(self, execution: PendingExecution) -> None:
        execution.sent = True
        if not execution.frame["silent"]:
            self.shared = True
            self.on_code(self)
        self._emit(execution.frame)

    def _emit(self, frame: Frame) -> None:
        if self._socket is not None:
            self._socket.emit(frame)

    def _end(self, execution: PendingExecution, *, lost: str | None = None) -> None:
        request = execution.request
        self._executions.pop(request.id, None)
        self.cells.remove(request.id)
        request.lost = lost
        if not request.ended.done():
            request.ended.set_result(request.reply)

    def _notify(self) -> None:
        self._changed.set()

    async def _watch(self) -> None:
        """Notice that the kernel dies, or does not come back. Its own supervisor."""
        away_since: float | None = None
        while self.ended is None:
            if self._socket is not None:
                away_since = None
            elif away_since is None:
                away_since = time.monotonic()
            # A dead process is noticed by its socket first, if no child of its has inherited that.
            if (self._executions or away_since is not None) and not await self._process_lives():
                self.end_loan("died")
            elif away_since is not None and time.monotonic() - away_since > GRACE:
                self.end_loan("lost")
            else:
                at_rest = not self._executions and self._socket is not None
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), None if at_rest else self.poll)
                self._changed.clear()

    async def _process_lives(self) -> bool:
        try:
            return self.lives is None or await self.lives()
        except Exception:
            log.exception("kernel_watch_failed", kernel_id=self.kernel_id)
            return True


def _take_output(outputs: Outputs, frame: Frame) -> None:
    kind, content, left_out = frame.get("kind"), frame.get("content"), frame.get("left_out")
    if kind not in _KINDS or not isinstance(content, dict):
        raise InvalidRequest(f"{str(kind)[:50]!r} is no output.", field="kind")
    try:
        outputs.take(
            IopubMessage(
                kind=str(kind),
                sender="",
                parent=Parent(),
                content=content,
                left_out=left_out if isinstance(left_out, int) else 0,
            )
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # content that breaks the protocol
        log.warning("lent_output_not_taken", kind=kind, error=repr(error))
