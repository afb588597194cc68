"""Kernels of this Jupyter server: ``ports.jupyter.Kernels`` over its kernel manager, with every browser closed.

Not responsible for messages (``connection``), for bounding outputs (``outputs``) or for what is sent into kernels to
evaluate and inspect (``evaluation``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from jupyter_core.utils import ensure_async

from ...errors import InvalidRequest, KernelBusy, KernelUnavailable
from ...events import Custom, Event
from ...log_setup import get_logger
from ...model.sessions import Session
from ...ports.agent import tool_context
from ...ports.jupyter import Execution, KernelState, KernelStatus, OnOutput
from .connection import ExecuteRequest, KernelConnection
from .evaluation import RESULT, evaluation, inspection, value_of
from .iopub import IopubReader
from .jupyter_services import JupyterServices
from .lookup import KernelLookup
from .outputs import Outputs, error_of
from .transport import process_of

log = get_logger("kernels")

PATIENCE = 5.0  # seconds to wait for another client's cell
COME_BACK = 2.0  # seconds that interrupted code has to end
UNUSED = 900.0  # seconds until the connection to a kernel that is not used is closed
_MAX_RUNS = 50
"""Runs that are notified when a kernel dies. Those that have ended are not removed: their ``emit`` does nothing."""

OnKernelLost = Callable[[str, str], None]
"""Called when a kernel (its id) has lost all its state: ``restarted``, ``restarting`` or ``dead``."""


class KernelService:
    """See the module. Opens a connection to a kernel when it is first asked about, and closes it when it is unused."""

    def __init__(
        self, parts: JupyterServices, iopub: IopubReader | None = None, *, on_lost: OnKernelLost | None = None
    ) -> None:
        self._parts = parts
        self._iopub = iopub or IopubReader()
        self._lookup = KernelLookup(parts)
        self._connections: dict[str, KernelConnection] = {}
        self._runs: dict[str, dict[str, Callable[[Event], None]]] = {}
        """By kernel id and run id: what emits events of a run that has used the kernel."""
        self._context: Any = None
        self._background: set[asyncio.Task[None]] = set()
        self._lost_listener = on_lost

    async def close(self) -> None:
        """Close all connections; the kernels go on."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            await connection.close()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    async def state(self, session: Session) -> KernelState:
        """Also connects to the kernel, so that later it is known what it is busy with."""
        kernel_id = await self._lookup.find(session)
        if kernel_id is None:
            return KernelState(status="none")
        connection = self._connection(kernel_id)
        self._watch(kernel_id)
        # Not awaited: a kernel that starts takes a second, and a busy old one answers only between cells.
        if not connection.open:
            self._in_background(connection.connect())
        return await self._state_of(connection)

    async def _state_of(self, connection: KernelConnection) -> KernelState:
        cell = connection.cells.longest
        status: KernelStatus = _STATUS.get(connection.state, "idle")
        if cell is not None:
            status = "busy"
        elif status == "busy" and connection.listening:
            status = "idle"  # the end of a cell reaches Jupyter a moment after us
        return KernelState(
            status=status if await connection.lives() else "dead",
            kernel_id=connection.kernel_id,
            kernel_name=getattr(connection.manager, "kernel_name", None),
            language=connection.language.get("name") or _language_of(connection.manager),
            busy_with=cell.code if cell else None,
            busy_for=time.monotonic() - cell.since if cell else None,
        )

    def runs_ours(self, kernel_id: str) -> bool:
        """Whether the kernel executes code of an agent's run at this moment."""
        connection = self._connections.get(kernel_id)
        return connection is not None and connection.cells.any_ours

    def process_of(self, kernel_id: str) -> object:
        """Identifies the kernel's process; None where that is not known."""
        return process_of(self._parts.kernel_manager.get_kernel(kernel_id)) if self.knows(kernel_id) else None

    def knows(self, kernel_id: str) -> bool:
        """Whether it is a kernel of this server."""
        return self._lookup.known(kernel_id)

    async def execute(
        self,
        session: Session,
        code: str,
        *,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        store_history: bool = True,
        start: bool = True,
    ) -> Execution:
        kernel_id = await self._lookup.find(session) if start else await self._kernel_of(session)
        if kernel_id is None:
            kernel_id = await self._lookup.start(session)
            self._watch(kernel_id)
            self._emit_status(kernel_id, "started")
        outputs = Outputs(on_output)
        async with self._turn(session, kernel_id) as connection:
            request = connection.send(code, outputs, silent=False, store_history=store_history, expressions={})
            status = await self._finish(connection, request, timeout)
        outputs.finish()
        reply = (request.ended.result() if request.ended.done() else None) or {}
        if status == "ok" and reply.get("status") != "ok":
            interrupted = str(reply.get("ename")) == "KeyboardInterrupt"
            status = "interrupted" if interrupted or reply.get("status") == "aborted" else "error"
        return Execution(
            status=status,
            outputs=outputs.all(),
            execution_count=reply.get("execution_count"),
            duration=_since(request),
            error=error_of(reply) if status == "error" else None,
        )

    async def evaluate(self, session: Session, code: str, *, timeout: float = 10.0, clean: bool = False) -> Any:
        """The code may ``await``, and what it assigns goes nowhere. ``clean``: it does not see the user's names."""
        kernel_id = await self._python_kernel(session)
        cell, expression = evaluation(code, clean=clean)
        async with self._turn(session, kernel_id) as connection:
            request = connection.send(
                cell, Outputs(), silent=True, store_history=False, expressions={RESULT: expression}
            )
            status = await self._finish(connection, request, timeout)
        if status == "kernel_died":
            raise KernelUnavailable("The kernel died during the evaluation.")
        if status == "timed_out":
            ended = "" if request.ended.done() else " It ignores the interrupt; restart it."
            raise KernelUnavailable(f"The kernel did not answer within {timeout:g} s.{ended}")
        return value_of(request.ended.result() or {})

    async def _kernel_of(self, session: Session) -> str:
        kernel_id = await self._lookup.find(session)
        if kernel_id is None:
            raise KernelUnavailable("No kernel runs for this conversation. Run some code to start one.")
        return kernel_id

    async def _python_kernel(self, session: Session) -> str:
        kernel_id = await self._kernel_of(session)
        connection = self._connection(kernel_id)
        await connection.connect()
        language = str(connection.language.get("name") or _language_of(connection.manager) or "")
        if language and language != "python":
            raise KernelUnavailable(f"That needs a Python kernel; this one is {language}. Run code in it instead.")
        return kernel_id

    async def variables(self, session: Session, *, pattern: str = "*", limit: int = 200) -> Mapping[str, Any]:
        code = inspection(f"variables({pattern!r}, {limit})")
        return dict(await self.evaluate(session, code, timeout=5.0, clean=True))

    async def inspect(self, session: Session, expression: str) -> Mapping[str, Any]:
        code = inspection(f"inspect({expression!r})")
        found: Mapping[str, Any] = await self.evaluate(session, code, timeout=8.0, clean=True)
        if "error" in found:
            raise InvalidRequest(str(found["error"]), field="expression")
        return found

    async def interrupt(self, session: Session) -> bool:
        kernel_id = await self._lookup.find(session)
        if kernel_id is None:
            return False
        await self._connection(kernel_id).interrupt()
        return True

    async def restart(self, session: Session) -> KernelState:
        kernel_id = await self._kernel_of(session)
        connection = self._connection(kernel_id)
        self._watch(kernel_id)
        try:
            ready = await ensure_async(self._parts.kernel_manager.restart_kernel(kernel_id))
        except Exception as error:  # noqa: BLE001
            # Jupyter, its provisioners and gateways raise errors of any kind; to the user it is one.
            log.warning("kernel_not_restarted", kernel_id=kernel_id, error=repr(error))
            raise KernelUnavailable(f"The kernel could not be restarted: {str(error)[:300]}") from None
        if isinstance(ready, asyncio.Future):
            with suppress(TimeoutError, RuntimeError):  # ``connect`` raises the same, with what to do
                await asyncio.wait_for(ready, 30.0)
        connection.restarted()
        await connection.connect()
        return await self._state_of(connection)

    @asynccontextmanager
    async def _turn(self, session: Session, kernel_id: str) -> AsyncIterator[KernelConnection]:
        """The kernel for this session alone: connected, no other cell runs. Raises KernelUnavailable, KernelBusy."""
        connection = self._connection(kernel_id)
        self._watch(kernel_id)
        await connection.connect()
        if connection.holder == session.id:  # calls of one run wait for one another, however long
            await connection.lock.acquire()
        else:
            try:
                async with asyncio.timeout(PATIENCE):
                    await connection.lock.acquire()
            except TimeoutError:
                raise _busy(connection) from None
        connection.holder = session.id
        try:
            # A cell of the user that was sent just before is in the queue before us: wait until it shows.
            await connection.settle()
            if not await connection.cells.until_none(PATIENCE):
                raise _busy(connection)
            yield connection
        finally:
            connection.holder = None
            connection.lock.release()

    async def _finish(self, connection: KernelConnection, request: ExecuteRequest, timeout: float | None) -> Any:
        """Wait for the end; end it when we are cancelled or after ``timeout``. The status; never ``error``."""
        try:
            either: set[asyncio.Future[Any]] = {request.begun, request.ended}
            await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not request.begun.done() and not request.ended.done():
                # Another client was quicker between our check and our request: ours must not run after we gave up.
                connection.abandon(request)
                raise _busy(connection)
            await asyncio.wait({request.ended}, timeout=timeout)
        except asyncio.CancelledError:
            await self._stop(connection, request)
            raise
        if request.ended.done():
            return "kernel_died" if request.ended.result() is None else "ok"
        await connection.end(request, COME_BACK)
        return "timed_out"

    async def _stop(self, connection: KernelConnection, request: ExecuteRequest) -> None:
        """Our run was stopped: end our code and no other, and emit how that went."""
        # A moment, in case the kernel begins with it just now: then it can be interrupted, and that reported.
        await asyncio.wait({request.begun}, timeout=0.3)
        if not request.begun.done():
            # To interrupt now would hit the cell that runs instead, which is the user's.
            connection.abandon(request)
            self._emit_stop("the code had not begun, and will not run")
            return
        after = _since(request)
        try:
            if await connection.end(request, COME_BACK):
                self._emit_stop(f"the cell was interrupted after {after:.1f} s")
                return
            self._emit_stop("the kernel ignores the interrupt: its cell still runs. Restart the kernel to end it")
        except KernelUnavailable as error:
            self._emit_stop(error.message)
        connection.abandon(request)

    def _emit_stop(self, message: str) -> None:
        context = tool_context.get(None)
        if context is not None:
            context.report_stop("kernel", message)

    def _watch(self, kernel_id: str) -> None:
        """Have the present run, if any, notified of what becomes of this kernel."""
        context = tool_context.get(None)
        if context is None:
            return
        runs = self._runs.setdefault(kernel_id, {})
        runs[context.run_id] = context.emit
        while len(runs) > _MAX_RUNS:
            del runs[next(iter(runs))]

    def _emit_status(self, kernel_id: str, status: str) -> None:
        for emit in self._runs.get(kernel_id, {}).values():
            emit(Custom(name="navi.kernel", value={"status": status, "kernel_id": kernel_id}))

    def _on_lost(self, connection: KernelConnection, status: str) -> None:
        log.info("kernel_lost", kernel_id=connection.kernel_id, status=status)
        self._emit_status(connection.kernel_id, status)
        if self._lost_listener is not None:
            self._lost_listener(connection.kernel_id, status)

    def _connection(self, kernel_id: str) -> KernelConnection:
        """The connection to that kernel, which may not be open yet."""
        connection = self._connections.get(kernel_id)
        if connection is None:
            self._in_background(self._sweep())
            connection = KernelConnection(
                kernel_id=kernel_id,
                manager=self._parts.kernel_manager.get_kernel(kernel_id),
                alive=lambda: self._lookup.known(kernel_id),
                context=self._zmq(),
                iopub=self._iopub,
                lost=self._on_lost,
            )
            self._connections[kernel_id] = connection
        return connection

    def _zmq(self) -> Any:
        if self._context is None:
            import zmq.asyncio  # late: a server that never runs a kernel needs none

            self._context = zmq.asyncio.Context()
        return self._context

    async def _sweep(self) -> None:
        """Close the connections to kernels that are gone, or that were not used for a while."""
        for connection in list(self._connections.values()):
            unused = time.monotonic() - connection.used > UNUSED and not connection.lock.locked()
            if unused or not self._lookup.known(connection.kernel_id):
                self._connections.pop(connection.kernel_id, None)
                self._runs.pop(connection.kernel_id, None)
                await connection.close()

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _quietly(work: Any) -> None:
    with suppress(KernelUnavailable):  # the next use of the kernel raises it again
        await work


_STATUS: Mapping[str, KernelStatus] = {
    "starting": "starting",
    "restarting": "starting",
    "autorestarting": "starting",
    "idle": "idle",
    "busy": "busy",
    "dead": "dead",
    "terminating": "dead",
}


def _busy(connection: KernelConnection) -> KernelBusy:
    cell = connection.cells.longest
    if cell is None:
        return KernelBusy("The kernel is busy. Try again in a moment.")
    what = "other code of an agent" if cell.ours else "a cell of the user's"
    first = (cell.code or "").strip().splitlines()
    code = f": {first[0][:120]!r}{' …' if len(first) > 1 else ''}" if first else ""
    return KernelBusy(
        f"The kernel has been busy for {time.monotonic() - cell.since:.0f} s with {what}{code}. "
        "Nothing was run. Try again later, or ask the user whether to interrupt it."
    )


def _since(request: ExecuteRequest) -> float:
    return time.monotonic() - request.begun.result() if request.begun.done() else 0.0


def _language_of(manager: Any) -> str | None:
    """By the kernel's specification; a gateway's is not at hand."""
    return getattr(getattr(manager, "_kernel_spec", None), "language", None)
