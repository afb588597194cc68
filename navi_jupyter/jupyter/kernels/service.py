"""Kernels of this Jupyter server: ``ports.jupyter.Kernels`` over its kernel manager, with every browser closed.

Not responsible for the wire (``line``), for what becomes of outputs (``outputs``) or for what a look at variables does
in there (``injected/inspect.py``).
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
from .connection import KernelConnection, Request
from .evaluation import calling, look, value_of
from .iopub import IopubReader
from .jupyter_services import JupyterServices
from .lookup import KernelLookup
from .outputs import Outputs, error_of
from .transport import process_of

log = get_logger("kernels")

PATIENCE = 5.0
"""Seconds to wait for somebody else's cell."""
COME_BACK = 2.0
"""Seconds that interrupted code has to end."""
UNUSED = 900.0
"""Seconds until the connection to a kernel that nobody uses is closed."""
_WATCHERS = 50
"""Runs that are told when a kernel dies; those that have ended no longer listen."""

OnKernelLost = Callable[[str, str], None]
"""Told that a kernel (its id) has lost all it had: ``restarted``, ``restarting`` or ``dead``."""


class KernelService:
    """See the module. Opens a connection to a kernel when it is first asked about, and closes it when it is unused."""

    def __init__(
        self, parts: JupyterServices, iopub: IopubReader | None = None, *, on_lost: OnKernelLost | None = None
    ) -> None:
        self._parts = parts
        self._iopub = iopub or IopubReader()
        self._finder = KernelLookup(parts)
        self._lines: dict[str, KernelConnection] = {}
        self._watchers: dict[str, dict[str, Callable[[Event], None]]] = {}
        """By kernel id and run id: who writes into the log of a run that has used the kernel."""
        self._context: Any = None
        self._background: set[asyncio.Task[None]] = set()
        self._lost_listener = on_lost

    async def close(self) -> None:
        """Let go of all kernels; they go on."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            await line.close()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    # --- what it is ----------------------------------------------------------------------------------------------

    async def state(self, session: Session) -> KernelState:
        """See ``Kernels``. Also begins to listen to the kernel, so that later we know what it is busy with."""
        kernel_id = await self._finder.find(session)
        if kernel_id is None:
            return KernelState(status="none")
        line = self._line(kernel_id)
        self._watch(kernel_id)
        if not line.open:
            self._in_background(line.connect())
        return await self._state_of(line)

    async def _state_of(self, line: KernelConnection) -> KernelState:
        cell = line.cells.longest
        status: KernelStatus = _STATUS.get(line.state, "idle")
        if cell is not None:
            status = "busy"
        elif status == "busy" and line.listening:
            status = "idle"  # Jupyter hears of it a moment after us
        return KernelState(
            status=status if await line.lives() else "dead",
            kernel_id=line.kernel_id,
            kernel_name=getattr(line.manager, "kernel_name", None),
            language=line.language.get("name") or _language_of(line.manager),
            busy_with=cell.code if cell else None,
            busy_for=time.monotonic() - cell.since if cell else None,
        )

    def runs_ours(self, kernel_id: str) -> bool:
        """Whether the kernel executes code of an agent's run at this moment."""
        line = self._lines.get(kernel_id)
        return line is not None and line.cells.any_ours

    def process_of(self, kernel_id: str) -> object:
        """What tells the kernel's process from its successor; None where nobody knows."""
        return process_of(self._parts.kernel_manager.get_kernel(kernel_id)) if self.knows(kernel_id) else None

    def knows(self, kernel_id: str) -> bool:
        """Whether it is a kernel of this server."""
        return self._finder.known(kernel_id)

    # --- executing -----------------------------------------------------------------------------------------------

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
        """See ``Kernels``."""
        kernel_id = await self._finder.find(session)
        if kernel_id is None:
            if not start:
                raise KernelUnavailable("No kernel runs for this conversation. Run some code to start one.")
            kernel_id = await self._finder.start(session)
            self._tell(kernel_id, "started")
        outputs = Outputs(on_output)
        async with self._turn(session, kernel_id) as line:
            request = line.send(code, outputs, silent=False, store_history=store_history, expressions={})
            status = await self._finish(line, request, timeout)
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

    async def evaluate(self, session: Session, code: str, *, timeout: float = 10.0) -> Any:
        """See ``Kernels``. The code sees the user's names, may ``await``, and what it assigns goes nowhere."""
        return await self._evaluate(session, code, timeout=timeout, clean=False)

    async def _evaluate(self, session: Session, code: str, *, timeout: float, clean: bool) -> Any:
        line = await self._python(session)
        kernel_id = line.kernel_id
        if not clean and "await " in code:
            cell = f"await {calling('evaluate_async', code)}"
            shown = "__import__('IPython').get_ipython().__dict__.pop('_navi_shown')"
        else:
            cell, shown = "", calling("evaluate", code, clean)
        async with self._turn(session, kernel_id) as line:
            request = line.send(cell, Outputs(), silent=True, store_history=False, expressions={"navi": shown})
            status = await self._finish(line, request, timeout)
        if status == "kernel_died":
            raise KernelUnavailable("The kernel died while it was asked.")
        if status == "timed_out":
            ended = "" if request.ended.done() else " It ignores the interrupt; restart it."
            raise KernelUnavailable(f"The kernel did not answer within {timeout:g} s.{ended}")
        return value_of(request.ended.result() or {})

    async def _python(self, session: Session) -> KernelConnection:
        """The line to the session's kernel, which is one that can be looked into. Raises KernelUnavailable."""
        kernel_id = await self._finder.find(session)
        if kernel_id is None:
            raise KernelUnavailable("No kernel runs for this conversation. Run some code to start one.")
        line = self._line(kernel_id)
        await line.connect()
        language = str(line.language.get("name") or _language_of(line.manager) or "")
        if language and language != "python":
            raise KernelUnavailable(f"That needs a Python kernel; this one is {language}. Run code in it instead.")
        return line

    async def variables(self, session: Session, *, pattern: str = "*", limit: int = 200) -> Mapping[str, Any]:
        """See ``Kernels``."""
        call = f"_navi_result = variables({pattern!r}, {limit})"
        found: Mapping[str, Any] = await self._evaluate(session, look(call), timeout=5.0, clean=True)
        return found

    async def inspect(self, session: Session, expression: str) -> Mapping[str, Any]:
        """See ``Kernels``."""
        call = f"_navi_result = inspect({expression!r})"
        found: Mapping[str, Any] = await self._evaluate(session, look(call), timeout=8.0, clean=True)
        if "error" in found:
            raise InvalidRequest(str(found["error"]), field="expression")
        return found

    # --- interrupting --------------------------------------------------------------------------------------------

    async def interrupt(self, session: Session) -> bool:
        """See ``Kernels``."""
        kernel_id = await self._finder.find(session)
        if kernel_id is None:
            return False
        await self._line(kernel_id).interrupt()
        return True

    async def restart(self, session: Session) -> KernelState:
        """See ``Kernels``."""
        kernel_id = await self._finder.find(session)
        if kernel_id is None:
            raise KernelUnavailable("No kernel runs for this conversation. Run some code to start one.")
        line = self._line(kernel_id)
        self._watch(kernel_id)
        try:
            ready = await ensure_async(self._parts.kernel_manager.restart_kernel(kernel_id))
        except Exception as error:  # noqa: BLE001
            # Jupyter, its provisioners and gateways raise what they like; to the user it is one thing.
            log.warning("kernel_not_restarted", kernel_id=kernel_id, error=repr(error))
            raise KernelUnavailable(f"The kernel could not be restarted: {str(error)[:300]}") from None
        if isinstance(ready, asyncio.Future):
            with suppress(TimeoutError, RuntimeError):  # the line says the same, in words
                await asyncio.wait_for(ready, 30.0)
        line.restarted()
        await line.connect()
        return await self._state_of(line)

    # --- one at a time -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, session: Session, kernel_id: str) -> AsyncIterator[KernelConnection]:
        """The kernel for ourselves: connected, and nobody's cell in the way. Raises KernelUnavailable, KernelBusy."""
        line = self._line(kernel_id)
        self._watch(kernel_id)
        await line.connect()
        if line.holder == session.id:  # calls of one run queue up behind one another
            await line.lock.acquire()
        else:
            try:
                async with asyncio.timeout(PATIENCE):
                    await line.lock.acquire()
            except TimeoutError:
                raise _busy(line) from None
        line.holder = session.id
        try:
            await line.settle()
            if not await line.cells.until_none(PATIENCE):
                raise _busy(line)
            yield line
        finally:
            line.holder = None
            line.lock.release()

    async def _finish(self, line: KernelConnection, request: Request, timeout: float | None) -> Any:
        """Wait for the end; by cancellation or after ``timeout`` bring it about. The status; never ``error``."""
        try:
            either: set[asyncio.Future[Any]] = {request.begun, request.ended}
            await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not request.begun.done() and not request.ended.done():
                # Somebody was quicker between our look and our request: it must not run when nobody waits for it.
                line.abandon(request)
                raise _busy(line)
            await asyncio.wait({request.ended}, timeout=timeout)
        except asyncio.CancelledError:
            await self._stop(line, request)
            raise
        if request.ended.done():
            return "kernel_died" if request.ended.result() is None else "ok"
        await line.end(request, COME_BACK)
        return "timed_out"

    async def _stop(self, line: KernelConnection, request: Request) -> None:
        """Our run was stopped: end our code, and nobody else's, and say what became of it."""
        await asyncio.wait({request.begun}, timeout=0.3)
        if not request.begun.done():
            line.abandon(request)
            self._say_stop("the code had not begun, and will not run")
            return
        after = _since(request)
        try:
            if await line.end(request, COME_BACK):
                self._say_stop(f"the cell was interrupted after {after:.1f} s")
                return
            self._say_stop("the kernel ignores the interrupt: its cell still runs. Restart the kernel to end it")
        except KernelUnavailable as error:
            self._say_stop(error.message)
        line.abandon(request)

    # --- telling -------------------------------------------------------------------------------------------------

    def _say_stop(self, message: str) -> None:
        context = tool_context.get(None)
        if context is not None:
            context.report_stop("kernel", message)

    def _watch(self, kernel_id: str) -> None:
        """Tell the present run what becomes of this kernel, as long as it lasts."""
        context = tool_context.get(None)
        if context is None:
            return
        runs = self._watchers.setdefault(kernel_id, {})
        runs[context.run_id] = context.emit
        while len(runs) > _WATCHERS:
            del runs[next(iter(runs))]

    def _tell(self, kernel_id: str, status: str) -> None:
        self._watch(kernel_id)
        for emit in self._watchers.get(kernel_id, {}).values():
            emit(Custom(name="navi.kernel", value={"status": status, "kernel_id": kernel_id}))

    def _on_lost(self, line: KernelConnection, status: str) -> None:
        log.info("kernel_lost", kernel_id=line.kernel_id, status=status)
        for emit in self._watchers.get(line.kernel_id, {}).values():
            emit(Custom(name="navi.kernel", value={"status": status, "kernel_id": line.kernel_id}))
        if self._lost_listener is not None:
            self._lost_listener(line.kernel_id, status)

    # --- lines ---------------------------------------------------------------------------------------------------

    def _line(self, kernel_id: str) -> KernelConnection:
        """The connection to that kernel, which may not be open yet."""
        line = self._lines.get(kernel_id)
        if line is None:
            self._in_background(self._sweep())
            line = KernelConnection(
                kernel_id=kernel_id,
                manager=self._parts.kernel_manager.get_kernel(kernel_id),
                alive=lambda: self._finder.known(kernel_id),
                context=self._zmq(),
                iopub=self._iopub,
                lost=self._on_lost,
            )
            self._lines[kernel_id] = line
        return line

    def _zmq(self) -> Any:
        if self._context is None:
            import zmq.asyncio  # late: a server that never runs a kernel needs none

            self._context = zmq.asyncio.Context()
        return self._context

    async def _sweep(self) -> None:
        """Close the lines to kernels that are gone, or that nobody has used for a while."""
        for line in list(self._lines.values()):
            unused = time.monotonic() - line.used > UNUSED and not line.lock.locked()
            if unused or not self._finder.known(line.kernel_id):
                self._lines.pop(line.kernel_id, None)
                self._watchers.pop(line.kernel_id, None)
                await line.close()

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _quietly(work: Any) -> None:
    with suppress(KernelUnavailable):  # whoever uses the kernel next is told
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


def _busy(line: KernelConnection) -> KernelBusy:
    cell = line.cells.longest
    if cell is None:
        return KernelBusy("The kernel is busy. Try again in a moment.")
    what = "other code of an agent" if cell.ours else "a cell of the user's"
    first = (cell.code or "").strip().splitlines()
    code = f": {first[0][:120]!r}{' …' if len(first) > 1 else ''}" if first else ""
    seconds = time.monotonic() - cell.since
    return KernelBusy(
        f"The kernel has been busy for {seconds:.0f} s with {what}{code}. "
        "Nothing was run. Try again later, or ask the user whether to interrupt it."
    )


def _since(request: Request) -> float:
    return time.monotonic() - request.begun.result() if request.begun.done() else 0.0


def _language_of(manager: Any) -> str | None:
    """As the kernel's specification says; a gateway's is not at hand."""
    spec = getattr(manager, "_kernel_spec", None)
    return getattr(spec, "language", None)
