"""The execution of a notebook by nbclient in a thread of its own, with a kernel of this server that runs already.

In a thread, because what a kernel prints is decoded and collected there: a flood does not hold the event loop, which
kernels share. Imported when the first job runs: nbclient takes a moment. Not responsible for starting and ending the
kernel (``service``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from ...errors import KernelUnavailable
from ...navi_cells import AGENT_USER
from ...output_text import traceback_text
from ...ports.jobs import FailedCell, JobStep
from ...text import one_line
from ..kernels.evaluation import guard_expressions

READY_SECONDS = 60.0  # that a kernel may take until it answers
ANSWER_SECONDS = 2.0  # after which a kernel that starts is asked again
MAX_CELL, MAX_NOTEBOOK = 20_000_000, 100_000_000  # characters of outputs that one cell, and all of them, keep
FIRST_LINE = 120
LEFT_OUT = "… more output is not kept: a result holds at most {0} MB of a cell, and {1} MB of all of them …\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What the execution asks of the event loop, from its thread."""

    loop: asyncio.AbstractEventLoop
    lives: Callable[[], Awaitable[bool]]  # whether the kernel's process is still the one that was started
    step: Callable[[JobStep], Awaitable[None]]  # before each cell; raises to end the job
    stepped: Callable[[], Awaitable[None]]  # after each cell

    async def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """``work`` on the event loop, awaited in the thread."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


class _KernelClient(AsyncKernelClient):
    """A client that knows from Jupyter whether the kernel lives: heartbeats stop when the machine is busy, too."""

    hooks: Hooks

    async def is_alive(self) -> bool:
        return bool(await self.hooks.call(_awaited(self.hooks.lives)))


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


class _BoundedClient(NotebookClient):
    """nbclient, with bounds for what it keeps in memory."""

    kept = 0  # characters of outputs so far
    cell_kept = 0  # of the present cell

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        size = _size(msg.get("content"))
        if self.cell_kept > MAX_CELL or self.kept > MAX_NOTEBOOK:
            return None
        self.kept += size
        self.cell_kept += size
        if self.cell_kept > MAX_CELL or self.kept > MAX_NOTEBOOK:
            text = LEFT_OUT.format(MAX_CELL // 1_000_000, MAX_NOTEBOOK // 1_000_000)
            msg = {**msg, "msg_type": "stream", "header": {**msg["header"], "msg_type": "stream"}}
            msg["content"] = {"name": "stderr", "text": text}
            display_id = None
        return super().output(outs, msg, display_id, cell_index)


def _size(content: Any) -> int:
    """About how many characters an output has."""
    if not isinstance(content, Mapping):
        return 0
    if isinstance(text := content.get("text"), str):
        return len(text)
    data = content.get("data")
    return sum(len(value) if isinstance(value, str) else 1000 for value in data.values()) if data else 1000


class NotebookExecution:
    """One execution of one notebook, whose cells it fills in place."""

    def __init__(self, node: Any, connection: Mapping[str, Any], hooks: Hooks, *, lease_path: str | None) -> None:
        """``connection``: how the kernel is reached. ``lease_path``: the file that shows until when this server may
        act; None where its kernel cannot read it."""
        self.node = node
        self.executed = 0  # cells that have ended
        self.failed: FailedCell | None = None
        self.total = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in node.cells)
        self._connection = dict(connection)
        self._hooks = hooks
        self._lease_path = lease_path
        self._task: asyncio.Task[None] | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._cancelled = False

    async def run(self) -> None:
        """Execute all cells, up to the first that fails. Raises KernelUnavailable, and what the hooks raise.

        To be ended with :meth:`abort`: cancelling this leaves the thread alone.
        """
        done: asyncio.Future[None] = self._hooks.loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def work() -> None:
            error: BaseException | None = None
            try:
                asyncio.run(self._main())
            except BaseException as raised:  # noqa: BLE001 - passed on to the one who waits
                error = (
                    KernelUnavailable("The job was ended.") if isinstance(raised, asyncio.CancelledError) else raised
                )
            with suppress(RuntimeError):  # the server's loop is closed
                self._hooks.loop.call_soon_threadsafe(settle, error)

        # Not of the pool: a job may take hours. A daemon: a server that ends does not wait for it.
        threading.Thread(target=work, name="navi-notebook-job", daemon=True).start()
        await asyncio.shield(done)

    def abort(self) -> None:
        """Give up: nothing more is sent to the kernel, and :meth:`run` ends."""
        self._cancelled = True
        if self._thread_loop is not None and self._task is not None:
            with suppress(RuntimeError):
                self._thread_loop.call_soon_threadsafe(self._task.cancel)

    async def _main(self) -> None:
        self._thread_loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._cancelled:
            return
        context = zmq.asyncio.Context()
        kernel = _KernelClient(context=context)
        kernel.hooks = self._hooks
        kernel.load_connection_info(self._connection)  # type: ignore[arg-type]  # what a manager gives
        kernel.session.username = AGENT_USER
        kernel.start_channels(stdin=False, hb=False)
        kernel.allow_stdin = False
        try:
            await self._until_ready(kernel)
            await self._execute(kernel)
        finally:
            kernel.stop_channels()
            context.destroy(linger=0)

    async def _until_ready(self, kernel: _KernelClient) -> None:
        """Until the kernel answers, and its outputs come: what it publishes before the subscription is lost."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            request = kernel.kernel_info()
            with suppress(Empty):
                reply = await kernel.get_shell_msg(timeout=ANSWER_SECONDS)
                while reply["parent_header"].get("msg_id") != request:
                    reply = await kernel.get_shell_msg(timeout=ANSWER_SECONDS)
                while (await kernel.get_iopub_msg(timeout=0.5))["parent_header"].get("msg_id") != request:
                    pass
                self.node.metadata["language_info"] = reply["content"].get("language_info", {})
                return
            if not await kernel.is_alive():
                raise KernelUnavailable("The kernel ended before it was ready.")
        raise KernelUnavailable(f"The kernel did not answer within {READY_SECONDS:.0f} s.")

    async def _execute(self, kernel: _KernelClient) -> None:
        client = _BoundedClient(self.node, timeout=None, coalesce_streams=True, store_widget_state=True)
        client.kc = kernel
        client.reset_execution_trackers()
        if self._lease_path is not None and self.node.metadata["language_info"].get("name") == "python":
            request = kernel.execute("", silent=True, user_expressions=guard_expressions(self._lease_path))
            await client.async_wait_for_reply(request)
        for index, cell in enumerate(self.node.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            step = JobStep(number=self.executed + 1, total=self.total, source=first_line(cell.source))
            await self._hooks.call(_step(self._hooks, step))
            client.cell_kept = 0
            try:
                await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            except CellExecutionError:
                self.failed = failed_cell(cell)
                break
            except DeadKernelError:
                error = "its kernel died, or was restarted or shut down, while it ran"
                self.failed = FailedCell(cell=cell.get("id"), number=None, source=step.source, error=error)
                break
            self.executed += 1
            await self._hooks.call(_awaited(self._hooks.stepped))
        client.set_widgets_metadata()


async def _step(hooks: Hooks, step: JobStep) -> None:
    await hooks.step(step)


def first_line(source: str) -> str:
    """The first line of a source that is neither blank nor a comment, shortened; else its first line."""
    lines = [line.strip() for line in source.strip().splitlines()] or [""]
    return one_line(next((line for line in lines if line and not line.startswith("#")), lines[0]), FIRST_LINE)


def failed_cell(cell: Any) -> FailedCell:
    """The failed cell, by its last output that is an error."""
    errors = [output for output in cell.outputs if output.get("output_type") == "error"]
    last = errors[-1] if errors else {"ename": "Error", "evalue": ""}
    name, value = str(last.get("ename") or "Error"), one_line(str(last.get("evalue") or ""), 300)
    return FailedCell(
        cell=cell.get("id"),
        number=cell.execution_count,
        source=first_line(cell.source),
        error=f"{name}: {value}" if value else name,
        traceback=traceback_text(last, 4000) if errors else "",
    )
