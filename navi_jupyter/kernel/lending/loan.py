"""A kernel that is lent: while a cell of it waits for a run, the server has code executed in it, in that cell.

The io thread carries the requests and their results over a WebSocket; the cell's thread executes. A socket that breaks
is opened again under the same name, and what the server has not confirmed is sent again. Not responsible for how code
is executed (``execution``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from socket import gethostname
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from ...injected.execution_guard import POLL, LeaseReader, Programs, machine
from ..client.client import Client
from ..client.io_thread import io_thread
from ..errors import KernelError, Refused
from ..main_thread import MainThreadQueue
from ..shell import claim_as, current_kernel, current_request, lent_kernel_id, waiting_claim
from .execution import LentExecution
from .outputs import LentResults
from .signals import AGAIN, CellSignals

_RESTARTED_WITHIN = 3.0  # seconds after the notice of a restart
_CELL_IS_OVER = 1000  # the code with which the socket is closed in good order
_OPENED_WITHIN = 5.0  # seconds that a prompt waits for its kernel to be lent; it is sent then in any case


def can_lend() -> bool:
    """Whether the caller may lend its kernel: it is on the main thread of an ipykernel, in a cell."""
    kernel = current_kernel()
    return (
        threading.current_thread() is threading.main_thread()
        and hasattr(kernel, "session")
        and hasattr(kernel, "pre_handler_hook")
        and bool(current_request().get("header"))
    )


class KernelLoan:
    """This kernel, lent by one waiting cell to the runs of one session. Lives on the io thread."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        queue: MainThreadQueue,
        signals: CellSignals,
        before: Callable[[str | None], Awaitable[None]],
        after: Callable[[str | None, bool], None],
    ) -> None:
        """``before`` and ``after`` code that shows its outputs; of which tool call, and whether it has shown any."""
        self._client = client
        self._session_id = session_id
        self._queue = queue
        self._signals = signals
        self._before = before
        self._after = after
        self._id = "l_" + secrets.token_hex(8)
        self._kernel_id = str(lent_kernel_id())
        self._claim = waiting_claim()
        self._executions: dict[str, LentExecution] = {}  # requested, and not over
        self._work: dict[str, concurrent.futures.Future[Any]] = {}  # of these, on the cell's thread
        self._stopped: set[str] = set()  # of these, those that the server does not want any more
        self._results: dict[str, LentResults] = {}  # not confirmed
        self._lent = asyncio.Event()
        self._over = asyncio.Event()
        self._to_send = asyncio.Event()
        self._notices: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Lend the kernel. Returns when the server knows, or when that takes too long: then it is lent later."""
        self._start(self._serve())
        either = [asyncio.ensure_future(event.wait()) for event in (self._lent, self._over)]
        await asyncio.wait(either, timeout=_OPENED_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        for waiting in either:
            waiting.cancel()

    async def close(self) -> None:
        """Take the kernel back. Code that still runs in it is interrupted: there is no run that it could be for."""
        self._queue.close()
        for request in list(self._executions):
            self._start(self._interrupt(request))
        while self._work:
            await asyncio.wait([asyncio.wrap_future(work) for work in self._work.values()])
            await asyncio.sleep(0)
        self._over.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        """Keep the socket open until the loan is over, or the server does not lend."""
        claim_as(self._claim)
        pause = 0.05
        while True:
            try:
                socket = await self._client.open_loan(self._kernel_id, self._session_id)
                try:
                    if not await self._exchange(socket):
                        break
                finally:
                    socket.close(_CELL_IS_OVER)
                pause = 0.05
            except Refused as refused:
                if refused.server_status < 500:  # a server of an older version, or a session that is not ours
                    break
            except KernelError:
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        self._over.set()

    async def _exchange(self, socket: WebSocketClientConnection) -> bool:
        """Requests in and results out, until the socket closes. False when the server does not want this loan."""
        offer: dict[str, Any] = {
            "type": "lend",
            "loan_id": self._id,
            "language": "python",
            "unacknowledged": list(self._results),
        }
        offer |= {"pid": os.getpid(), "host": gethostname()}
        sending = None
        try:
            await socket.write_message(json.dumps(offer))
            while (text := await socket.read_message()) is not None:
                frame = json.loads(text)
                if frame.get("type") == "lent":
                    for results in self._results.values():
                        results.send_again()
                    self._to_send.set()
                    sending = sending or asyncio.ensure_future(self._send_results(socket))
                    self._lent.set()
                else:
                    self._on_frame(frame)
        except (WebSocketClosedError, StreamClosedError):
            pass
        finally:
            if sending is not None:
                sending.cancel()
        return not 4400 <= (socket.close_code or 0) < 4500

    def _on_frame(self, frame: Mapping[str, Any]) -> None:
        request = str(frame.get("id"))
        match frame.get("type"):
            case "execute" if request not in self._results:
                self._results[request] = LentResults(request, self._wake)
                self._start(self._execute(request, frame))
            case "interrupt" if request in self._executions:
                self._start(self._interrupt(request))
            case "received":
                self._results.pop(request, None)
            case "restart":
                self._signals.ignore(_RESTARTED_WITHIN)
            case _:
                pass

    async def _execute(self, request: str, frame: Mapping[str, Any]) -> None:
        results = self._results[request]
        execution = self._executions[request] = LentExecution(frame, results, self._signals, self._on_ctrl_c)
        programs = Programs()  # before it begins: those that are there are the user's
        call = frame.get("tool_call_id")
        call = str(call) if call else None
        if not execution.silent:
            await self._before(call)
        work = self._work[request] = self._queue.post(execution.run_async if self._queue.awaits else execution.run)
        if request in self._stopped:
            work.cancel()
        self._start(self._end_with_lease(request, str(frame.get("lease") or ""), programs))
        await asyncio.wait((asyncio.wrap_future(work),))
        if not results.ended:  # it has not begun, and will not
            results.end({"status": "aborted", "execution_count": None, "user_expressions": {}})
        if not execution.silent:
            self._after(call, execution.shown)
        del self._executions[request], self._work[request]

    async def _end_with_lease(self, request: str, path: str, programs: Programs) -> None:
        """End it when the server may not act any more, which says so in the file at ``path`` of this machine."""
        try:
            lease = LeaseReader(path)
        except (OSError, ValueError):
            return  # the server is on another machine, or older
        try:
            while request in self._executions and lease.machine == machine():
                if lease.over():
                    self._start(self._interrupt(request))
                    await self._end_programs(programs, at_once=lease.exited())
                    return
                await asyncio.sleep(POLL)
        finally:
            lease.close()

    async def _end_programs(self, programs: Programs, *, at_once: bool) -> None:
        """End what the code has started, which an interrupt of the code does not reach."""
        if not at_once and programs.send(signal.SIGINT):
            await asyncio.sleep(AGAIN)
        programs.send(getattr(signal, "SIGKILL", signal.SIGTERM))

    async def _interrupt(self, request: str) -> None:
        if request in self._stopped:
            return  # it is interrupted again and again already
        self._stopped.add(request)
        work = self._work.get(request)
        if work is None or work.cancel():  # it has not begun, and will not
            return
        execution = self._executions[request]
        execution.dropped = True
        await self._signals.interrupt(execution.on_signal)

    def _on_ctrl_c(self, request: str) -> None:
        # In a signal's handler, on the main thread. The end waits: else the run went on before it is stopped.
        self._results[request].held = True
        io_thread().loop.call_soon_threadsafe(lambda: self._start(self._stop_run(request)))

    async def _stop_run(self, request: str) -> None:
        """The user pressed Ctrl-C in the code: the run that it is for is stopped, and the code that goes on ends."""
        results = self._results[request]
        self._notices.append({"type": "interrupted", "id": request})
        self._to_send.set()
        try:
            await self._client.command(self._session_id, {"type": "stop"})
        except KernelError:
            pass  # it is over already, or the server is gone
        finally:
            results.held = False
            self._to_send.set()
        await asyncio.sleep(AGAIN)
        if request in self._executions:
            await self._interrupt(request)

    def _wake(self) -> None:
        io_thread().loop.call_soon_threadsafe(self._to_send.set)

    async def _send_results(self, socket: WebSocketClientConnection) -> None:
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                notices, self._notices = self._notices, []
                for frame in notices:
                    await socket.write_message(json.dumps(frame))
                for results in list(self._results.values()):
                    for frame in results.unsent():
                        await socket.write_message(json.dumps(frame, default=str))
