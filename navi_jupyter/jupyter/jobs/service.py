"""Notebook jobs of this server: a kernel for each, the notebook executed in it, its dated copy written.

Implements ``ports.jobs.NotebookJobs``. The kernel is one of Jupyter's own: it is in the list of what runs, under the
path of the copy, and it is gone when the job is over. Not responsible for what a job means to its session
(``agent.notebook_jobs``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async

from ...errors import FileRefused, InvalidRequest, KernelUnavailable, NaviError
from ...log_setup import get_logger
from ...model.recalls import NotebookJob
from ...output_text import outputs_text
from ...ports.jobs import JobKernel, JobOutcome, NotebookChoice, OnCopy, OnStep, ResultCell
from ...ports.jupyter import kernel_name_of
from ...text import truncate_middle
from ..files.tree import split
from ..kernels.jupyter_services import JupyterServices
from ..kernels.transport import language_of, ports_of, process_of
from .copies import JobFiles, compared, copy_paths, prepared
from .parameters import check_language, check_names, parameters_of

if TYPE_CHECKING:
    from .execution import NotebookExecution

log = get_logger("jobs")

START_SECONDS = 60.0  # that Jupyter may take to start a kernel's process
STOP_SECONDS = 2.0  # that an interrupted cell may take to come back
ABORT_SECONDS = 2.0  # that the thread may take to end after that
END_SECONDS = 5.0  # that Jupyter may take to end the kernel
SAVE_EVERY = 5.0  # seconds between two writes of a copy while its notebook runs
MAX_TEXT = 20_000  # characters of the outputs' text


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kernel:
    """The kernel of one job."""

    id: str
    manager: Any
    process: object
    row: str  # the id of Jupyter's session
    lost: list[str] = field(default_factory=list)  # what has become of its process


class NotebookJobService:
    """See the module. Opens and imports nothing until the first job."""

    def __init__(
        self, jupyter: JupyterServices, *, lease_path: Callable[[], str | None], on_code: Callable[[str], object]
    ) -> None:
        """``lease_path``: the file that shows until when this server may act. ``on_code``: called with a kernel's id
        before code of a job runs in it."""
        self._jupyter = jupyter
        self._files = JobFiles(jupyter)
        self._lease_path = lease_path
        self._on_code = on_code

    async def check(self, job: NotebookJob) -> None:
        content = await self._files.read(job.path)
        await self._kernel_name(job, content)
        split(copy_paths(job, datetime.now(UTC))[0])  # a folder outside of the server's is refused at once

    async def exists(self, path: str) -> bool:
        return await self._files.exists(path)

    async def notebooks(self, query: str, *, limit: int) -> Sequence[str]:
        return await self._files.finder.find(query, limit=limit)

    async def describe(self, path: str) -> NotebookChoice:
        content = await self._files.read(path)
        specs = await self._specs()
        return NotebookChoice(
            path=path,
            parameters=parameters_of(content["cells"]),
            kernel=kernel_name_of(content["metadata"]),
            kernels=[
                JobKernel(name=name, title=str(spec.get("spec", {}).get("display_name") or name))
                for name, spec in sorted(specs.items())
            ],
        )

    async def compare(self, old: str, new: str) -> tuple[Sequence[ResultCell], int]:
        before, after = await self._files.read(old), await self._files.read(new)
        return await asyncio.to_thread(compared, before, after)

    async def execute(
        self, job: NotebookJob, *, at: datetime, run_id: str, on_copy: OnCopy, on_step: OnStep
    ) -> JobOutcome:
        content = await self._files.read(job.path)
        kernel_name = await self._kernel_name(job, content)
        about = {"notebook": job.path, "run_id": run_id, "started_at": at.isoformat(), "status": "running"}
        node = await asyncio.to_thread(prepared, content, job, about)
        path = await self._files.make_copy(copy_paths(job, at), node)
        copy = _Copy(self._files, path, node)
        began = time.monotonic()
        try:
            async with self._kernel(job, path, kernel_name) as kernel:
                await on_copy(path)
                execution = await self._execution(node, kernel, on_step, copy.save_now_and_then)
                await self._run(execution, kernel)
        except BaseException as error:
            await copy.end("failed" if isinstance(error, Exception) else "interrupted")
            raise
        await copy.end("completed" if execution.failed is None else "failed")
        return JobOutcome(
            path=path,
            cells=execution.executed,
            total=execution.total,
            seconds=time.monotonic() - began,
            outputs=await asyncio.to_thread(_text_of, node),
            failed=execution.failed,
        )

    async def _kernel_name(self, job: NotebookJob, content: Mapping[str, Any]) -> str | None:
        """The name of the kernel for the notebook, with these parameters. Raises InvalidRequest."""
        specs = await self._specs()
        wanted = job.kernel or kernel_name_of(content["metadata"])
        name = wanted or str(self._jupyter.kernel_manager.default_kernel_name)
        if name not in specs:
            whose = (
                "is asked for" if job.kernel else f"is named in {job.path}" if wanted else "is this server's default"
            )
            raise InvalidRequest(
                f"There is no kernel {name!r} here, which {whose}. Installed are: {', '.join(sorted(specs)) or 'none'}."
                " Install it, or choose one of these for the recall.",
                field="run.kernel",
            )
        check_language(job.parameters, str(specs[name].get("spec", {}).get("language") or ""))
        check_names(job.parameters, content["cells"], job.path)
        return name

    async def _specs(self) -> Mapping[str, Any]:
        specs: Mapping[str, Any] = await ensure_async(self._jupyter.kernel_manager.kernel_spec_manager.get_all_specs())
        return specs

    @asynccontextmanager
    async def _kernel(self, job: NotebookJob, path: str, name: str | None) -> AsyncIterator[_Kernel]:
        """A kernel for the job, in the notebook's folder; it is ended whatever happens. Raises KernelUnavailable."""
        # Shielded: a start that was cancelled half way would leave a kernel of which no job knows.
        starting = asyncio.ensure_future(self._started(job, path, name))
        try:
            kernel = await asyncio.shield(asyncio.wait_for(asyncio.shield(starting), START_SECONDS))
        except asyncio.CancelledError:
            starting.add_done_callback(lambda started: _ended_later(self._end, started))
            raise
        except NaviError:
            raise
        except Exception as error:  # noqa: BLE001
            # Jupyter, its provisioners and gateways raise errors of any kind; to the user it is one.
            log.warning("job_kernel_not_started", path=job.path, kernel_name=name, error=repr(error))
            reason = getattr(error, "log_message", None) or str(error) or type(error).__name__
            raise KernelUnavailable(f"A kernel could not be started: {str(reason)[:300]}") from None
        try:
            yield kernel
        finally:
            await _finished(self._end(kernel))

    async def _started(self, job: NotebookJob, path: str, name: str | None) -> _Kernel:
        kernels, sessions = self._jupyter.kernel_manager, self._jupyter.session_manager
        folder = await ensure_async(self._jupyter.contents_manager.get_kernel_path(path=job.path))
        # As Jupyter names a session's notebook; what the notebook asks of Navi is for the copy's own session.
        named = os.path.join(self._jupyter.root_dir, *PurePosixPath(path).parts)  # noqa: PTH118
        kernel_id = str(
            await ensure_async(
                kernels.start_kernel(path=folder, kernel_name=name, env={**os.environ, "JPY_SESSION_NAME": named})
            )
        )
        manager = kernels.get_kernel(kernel_id)
        if isinstance(ready := getattr(manager, "ready", None), asyncio.Future):
            await ready
        kernel = _Kernel(id=kernel_id, manager=manager, process=process_of(manager), row=sessions.new_session_id())
        await ensure_async(
            sessions.save_session(
                kernel.row, path=path, name=PurePosixPath(path).name, type="notebook", kernel_id=kernel_id
            )
        )
        if ports_of(manager) is None:
            await self._end(kernel)
            raise KernelUnavailable("The kernels of this server run behind a gateway, where no notebook job can run.")
        for event in ("restart", "dead"):
            with suppress(Exception):  # a manager that restarts nothing has no such callbacks
                kernels.add_restart_callback(kernel_id, lambda event=event: kernel.lost.append(event), event)
        self._on_code(kernel_id)
        return kernel

    async def _end(self, kernel: _Kernel) -> None:
        """End the kernel at once, and Jupyter's session of it."""
        try:
            async with asyncio.timeout(END_SECONDS):
                with suppress(Exception):  # it may be gone: ended in a view, or dead
                    await ensure_async(self._jupyter.kernel_manager.shutdown_kernel(kernel.id, now=True))
                with suppress(Exception):  # deletes the row, also of a kernel that is gone
                    await ensure_async(self._jupyter.session_manager.delete_session(kernel.row))
        except TimeoutError:
            log.warning("job_kernel_not_ended", kernel_id=kernel.id)

    async def _execution(
        self, node: Any, kernel: _Kernel, on_step: OnStep, stepped: Callable[[], Any]
    ) -> NotebookExecution:
        execution = await asyncio.to_thread(_import_execution)

        async def lives() -> bool:
            known = kernel.id in self._jupyter.kernel_manager and not kernel.lost
            same = process_of(kernel.manager) == kernel.process
            return known and same and bool(await ensure_async(kernel.manager.is_alive()))

        hooks = execution.Hooks(loop=asyncio.get_running_loop(), lives=lives, step=on_step, stepped=stepped)
        language = language_of(kernel.manager)
        lease_path = self._lease_path() if language in (None, "", "python") else None
        made: NotebookExecution = execution.NotebookExecution(
            node, kernel.manager.get_connection_info(), hooks, lease_path=lease_path
        )
        return made

    async def _run(self, execution: NotebookExecution, kernel: _Kernel) -> None:
        running = asyncio.ensure_future(execution.run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await _finished(self._interrupted(execution, kernel, running))
            raise

    async def _interrupted(self, execution: NotebookExecution, kernel: _Kernel, running: asyncio.Future[None]) -> None:
        with suppress(Exception):  # it may be gone
            await ensure_async(kernel.manager.interrupt_kernel())
        await asyncio.wait({running}, timeout=STOP_SECONDS)
        if not running.done():
            execution.abort()
            await asyncio.wait({running}, timeout=ABORT_SECONDS)
        if running.done() and not running.cancelled():
            running.exception()  # the job is over: nothing waits for it any more


class _Copy:
    """The dated copy of one job, and when it is written."""

    def __init__(self, files: JobFiles, path: str, node: Any) -> None:
        self._files = files
        self._path = path
        self._node = node
        self._written = time.monotonic()

    async def save_now_and_then(self) -> None:
        """After a cell: what there is, so that a server which dies leaves that. A failure shows at the end."""
        if time.monotonic() - self._written < SAVE_EVERY:
            return
        with suppress(NaviError):
            await self._files.write(self._path, self._node)
        self._written = time.monotonic()

    async def end(self, status: str) -> None:
        """The last write. Raises FileRefused; after another failure that one counts."""
        self._node.metadata.navi.job["status"] = status
        try:
            await _finished(self._files.write(self._path, self._node))
        except NaviError as error:
            log.warning("result_not_written", path=self._path, error=error.message)
            if status == "completed":
                raise FileRefused(f"The result cannot be written to {self._path}: {error.message}") from None


async def _finished(work: Any) -> Any:
    """The result of ``work``, which a cancellation does not cut: it is let through afterwards."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


_ending: set[asyncio.Future[None]] = set()


def _ended_later(end: Callable[[_Kernel], Any], started: asyncio.Future[_Kernel]) -> None:
    """End a kernel whose job was given up while it started."""
    if not started.cancelled() and started.exception() is None:
        task = asyncio.ensure_future(end(started.result()))
        _ending.add(task)
        task.add_done_callback(_ending.discard)


def _text_of(node: Any) -> str:
    shown = (
        outputs_text(cell.outputs, traceback_limit=2000, name_images=True) for cell in node.cells if "outputs" in cell
    )
    return truncate_middle("\n".join(text for text in shown if text), MAX_TEXT)


def _import_execution() -> Any:
    """The module that imports nbclient, which no start of the server is to wait for."""
    from . import execution

    return execution
