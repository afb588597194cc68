"""Kernels as ``ports.jupyter.Kernels``: those of this server, with every browser closed, and those that are lent.

Not responsible for messages (``connection``, ``loans``), for bounding outputs (``outputs``) or for what is sent into
kernels to evaluate and inspect (``evaluation``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

from jupyter_core.utils import ensure_async

from ...errors import InvalidRequest, KernelUnavailable
from ...events import Custom, Event
from ...log_setup import get_logger
from ...model.sessions import Session
from ...ports.agent import tool_context
from ...ports.jupyter import Execution, KernelState, OnOutput
from ...text import plain_number
from .connection import KernelConnection
from .evaluation import RESULT, evaluation, guard, inspection, value_of
from .iopub import IopubReader
from .jupyter_services import JupyterServices
from .lent_kernel import LentKernel
from .loans import LENT, OUTSIDE, KernelLoans
from .lookup import KernelLookup, Locate
from .outputs import Outputs, error_of
from .requests import PATIENCE, ExecuteRequest, Executor, until_ended
from .transport import language_of, process_of, status_of

log = get_logger("kernels")

UNUSED = 900.0  # seconds until the connection to a kernel that is not used is closed
_MAX_RUNS = 50
"""Runs that are notified when a kernel dies. Those that have ended are not removed: their ``emit`` does nothing."""

OnKernelLost = Callable[[str, str], None]
"""Called when a kernel (its id) has lost all its state: ``restarted``, ``restarting`` or ``dead``."""


class KernelService:
    """See the module. Opens a connection to a kernel when it is first asked about, and closes it when it is unused."""

    def __init__(
        self,
        parts: JupyterServices,
        iopub: IopubReader | None = None,
        *,
        loans: KernelLoans | None = None,
        on_lost: OnKernelLost | None = None,
        on_code: Callable[[str], object] = lambda _: None,
        locate: Locate | None = None,
        lease_path: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``on_code``: called with a kernel's id before an expression or a function runs there that an agent may have
        chosen; what it executes otherwise shows itself. ``locate``: the verified path of a session's notebook; None:
        paths are taken as they are. ``lease_path``: the file that shows until when this server may act."""
        self._parts = parts
        self._lease_path = lease_path
        self._iopub = iopub or IopubReader()
        self._loans = loans or KernelLoans(parts)
        self._lookup = KernelLookup(parts, locate)
        self._connections: dict[str, KernelConnection] = {}
        self._runs: dict[str, dict[str, Callable[[Event], None]]] = {}
        """By kernel id and run id: what emits events of a run that has used the kernel."""
        self._context: Any = None
        self._background: set[asyncio.Task[None]] = set()
        self._lost_listener = on_lost
        self._on_code = on_code

    async def close(self) -> None:
        """Close all connections, and end all loans; the kernels go on."""
        self._loans.close()
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
        kernel_id = await self._find(session)
        if kernel_id is None:
            return KernelState(status="none", note=OUTSIDE if await self._runs_outside(session) else None)
        loan, state = self._loans.at(session.id, kernel_id), KernelState(status="idle", kernel_id=kernel_id)
        if self.knows(kernel_id):
            state = await self._state_of(self._connected(kernel_id))
        if loan is None:
            return state
        busy = {"status": "idle", "busy_with": None, "busy_for": None} | loan.cells.as_state()
        return replace(state, **busy, language=loan.language, note=LENT)

    def _connected(self, kernel_id: str) -> KernelConnection:
        """The connection to a kernel, which is opened in the background where it is not."""
        connection = self._connection(kernel_id)
        self._watch(kernel_id)
        # Not awaited: a kernel that starts takes a second, and a busy old one answers only between cells.
        if not connection.open:
            self._in_background(connection.connect())
        return connection

    async def _state_of(self, connection: KernelConnection) -> KernelState:
        status, busy = status_of(connection.manager), connection.cells.as_state()
        if status in ("busy", "starting") and connection.listening:
            status = "idle"  # that a kernel has started, or ended a cell, reaches Jupyter a moment after us
        state = KernelState(
            status=status,
            kernel_id=connection.kernel_id,
            kernel_name=getattr(connection.manager, "kernel_name", None),
            language=connection.language.get("name") or language_of(connection.manager),
        )
        return replace(state, **busy) if await connection.lives() else replace(state, status="dead")

    def runs_ours(self, kernel_id: str) -> bool:
        """Whether the kernel executes code of an agent's run at this moment."""
        connection = self._connections.get(kernel_id)
        return self._loans.executes(kernel_id) or (connection is not None and connection.cells.any_ours)

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
        lent: bool = True,
    ) -> Execution:
        kernel_id = await (self._find(session, lent=lent) if start else self._kernel_of(session, lent=lent))
        if kernel_id is None:
            if await self._runs_outside(session):
                raise KernelUnavailable(OUTSIDE)
            kernel_id = await self._lookup.start(session)
            self._watch(kernel_id)
            self._emit_status(kernel_id, "started")
        outputs = Outputs(on_output)
        options: dict[str, Any] = {"silent": False, "store_history": store_history, "expressions": {}}
        request, ending = await self._request(
            session, kernel_id, timeout, lambda executor: executor.send(code, outputs, **options), lent=lent
        )
        outputs.finish()
        reply = (request.ended.result() if request.ended.done() else None) or {}
        status: Literal["ok", "error", "interrupted", "timed_out", "kernel_died"] = ending
        if ending == "ok" and reply.get("status") != "ok":
            interrupted = str(reply.get("ename")) == "KeyboardInterrupt"
            status = "interrupted" if interrupted or reply.get("status") == "aborted" else "error"
        return Execution(
            status=status,
            outputs=outputs.all(),
            execution_count=reply.get("execution_count"),
            duration=request.duration,
            error=error_of(reply) if status == "error" else None,
            note=request.lost,
        )

    async def evaluate(
        self, session: Session, code: str, *, timeout: float = 10.0, clean: bool = False, lent: bool = True
    ) -> Any:
        """The code may ``await``, and what it assigns goes nowhere. ``clean``: it does not see the user's names."""
        kernel_id = await self._python_kernel(session, lent=lent)
        cell, expression = evaluation(code, clean=clean)
        options: dict[str, Any] = {"silent": True, "store_history": False, "expressions": {RESULT: expression}}
        if not lent:  # not one of our own descriptions
            self._on_code(kernel_id)
        request, ending = await self._request(
            session, kernel_id, timeout, lambda executor: executor.send(cell, Outputs(), **options), lent=lent
        )
        if ending == "kernel_died":
            raise KernelUnavailable(f"The evaluation has no result: {request.lost or 'the kernel died over it'}.")
        if ending == "timed_out":
            ended = "" if request.ended.done() else " It ignores the interrupt; restart it."
            raise KernelUnavailable(f"The kernel did not answer within {plain_number(timeout)} s.{ended}")
        return value_of(request.ended.result() or {})

    async def _find(self, session: Session, *, lent: bool = True) -> str | None:
        """The kernel's id: of the waiting cell, if there is one and ``lent``, else as ``lookup`` has it."""
        loan = self._loans.at(session.id, session.kernel_id) or (self._loans.of(session.id) if lent else None)
        return await self._lookup.find(session) if loan is None else loan.kernel_id

    async def _kernel_of(self, session: Session, *, lent: bool = True) -> str:
        kernel_id = await self._find(session, lent=lent)
        if kernel_id is None:
            none = "No kernel runs for this conversation. Run some code to start one."
            raise KernelUnavailable(OUTSIDE if await self._runs_outside(session) else none)
        return kernel_id

    async def _runs_outside(self, session: Session) -> bool:
        return self._loans.lent_from_outside(session.id) or await self._lookup.runs_outside(session)

    async def _python_kernel(self, session: Session, *, lent: bool) -> str:
        kernel_id = await self._kernel_of(session, lent=lent)
        loan = self._loans.at(session.id, kernel_id)
        if loan is not None:
            language = loan.language
        else:
            connection = self._connection(kernel_id)
            await connection.connect()
            language = str(connection.language.get("name") or language_of(connection.manager) or "")
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
        kernel_id = await self._find(session)
        if kernel_id is None:
            return False
        loan = self._loan(session, kernel_id)
        if loan is not None:
            loan.interrupt()
        else:
            await self._connection(kernel_id).interrupt()
        return True

    async def restart(self, session: Session) -> KernelState:
        kernel_id = await self._kernel_of(session)
        loan = self._loan(session, kernel_id)  # and not to another session
        if not self.knows(kernel_id):
            raise KernelUnavailable("The kernel runs outside of this server: only what has started it can restart it.")
        connection = self._connection(kernel_id)
        self._watch(kernel_id)
        try:
            if loan is not None:
                await loan.announce_restart()
            # A cell that waits has nothing to clean up.
            ready = await ensure_async(self._parts.kernel_manager.restart_kernel(kernel_id, now=loan is not None))
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

    async def _request(
        self,
        session: Session,
        kernel_id: str,
        timeout: float | None,
        send: Callable[[Executor], ExecuteRequest],
        *,
        lent: bool,
    ) -> tuple[ExecuteRequest, Literal["ok", "timed_out", "kernel_died"]]:
        """Execute in the kernel, and wait for the end. Raises KernelUnavailable, KernelBusy."""
        while True:
            async with self._turn(session, kernel_id) as executor:
                request = send(executor)
                ending = await until_ended(executor, request, timeout)
            if ending != "returned":
                return request, ending
            # The cell that lent the kernel ended before it began with this: the kernel takes it as from any client.
            kernel_id = await self._kernel_of(session, lent=lent)

    def _loan(self, session: Session, kernel_id: str) -> LentKernel | None:
        """None: by messages. Raises KernelBusy when a cell waits there for another session, KernelUnavailable."""
        loan = self._loans.of_kernel(kernel_id, session.id)
        if loan is None and not self.knows(kernel_id):
            raise KernelUnavailable(OUTSIDE)
        return loan

    @asynccontextmanager
    async def _turn(self, session: Session, kernel_id: str) -> AsyncIterator[Executor]:
        """The kernel for one request of this session. Raises KernelUnavailable, KernelBusy."""
        loan = self._loan(session, kernel_id)
        if loan is None:
            async with self._own_turn(session, kernel_id) as connection:
                # What ran there may have been a cell of this session, which has just begun to wait.
                loan = self._loan(session, kernel_id)
                if loan is None:
                    yield connection
                    return
        if self.knows(kernel_id):
            self._connected(kernel_id)  # it reports to the run when the kernel is lost
        async with loan.lock:
            yield loan

    @asynccontextmanager
    async def _own_turn(self, session: Session, kernel_id: str) -> AsyncIterator[KernelConnection]:
        """The kernel of this server for this session alone: connected, and no other cell runs, or one that lends it."""
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
                raise connection.cells.busy_error() from None
        connection.holder = session.id
        try:
            # A cell of the user that was sent just before is in the queue before us: wait until it shows.
            await connection.settle()
            if not await connection.cells.until_none(PATIENCE, unless=lambda: self._loans.lent(kernel_id)):
                raise connection.cells.busy_error()
            await guard(connection, self._lease_path())
            yield connection
        finally:
            connection.holder = None
            connection.lock.release()

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
