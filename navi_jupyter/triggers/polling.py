"""Looks now and then: at files, and at expressions in kernels. A task for each recall that wants it.

Not responsible for what a change is (``files``) or when an expression has turned true (``expressions``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, KernelBusy, KernelUnavailable, NaviError
from ..log_setup import get_logger
from ..model.recalls import WhenEvent
from ..ports.jupyter import Kernels
from .expressions import Edge, question
from .file_changes import CanNotLook, Change, FileObserver
from .report import TriggerReport, expression_report
from .watch import Happen, Occurrence, Watch

log = get_logger("watching")

EXPRESSION_SECONDS = 1.0
"""That an expression may take; the kernel itself ends it then."""
ANSWER_SECONDS = 5.0
"""After which an expression that the kernel could not end is interrupted."""
SETTLE_FILE = 0.5
"""Seconds after which a file that changed is looked at again, whether it is written to still."""
MOST_LOOKING = 4
"""Looks at files at the same time."""
SLOW_LOOK = 30.0
"""Seconds of a look at files after which that is said."""
BACKOFF_MOST = 30.0


class Looking:
    """See the module. ``happen`` and ``trouble`` (could not look, and why) must not block."""

    def __init__(
        self, *, root: Path | None, kernels: Kernels | None, happen: Happen, trouble: Callable[[Watch, str], None]
    ) -> None:
        self._root = root
        self._kernels = kernels
        self._happen = happen
        self._trouble = trouble
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, watch: Watch) -> asyncio.Task[None] | None:
        """Look for it from now on; the task, to be cancelled. None when there is nothing to look at."""
        looks = {WhenEvent.FILE_CHANGED: self._look_at_file, WhenEvent.EXPRESSION: self._look_into}
        look = looks.get(watch.when.event)
        return None if look is None else asyncio.create_task(self._guard(watch, look), name=f"navi-{watch.id}")

    def close(self) -> None:
        """When all tasks are over. A look that hangs is left to itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _guard(self, watch: Watch, look: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
        """Supervise one eye: it goes on whatever it meets."""
        pause = 1.0
        while not watch.over:
            try:
                await look(watch)
            except NaviError as error:
                log.warning("look_failed", recall_id=watch.id, error=error.message)
            except Exception:
                log.exception("look_failed", recall_id=watch.id)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACKOFF_MOST)

    async def _look_at_file(self, watch: Watch) -> None:
        when, recall = watch.when, watch.state.recall
        every = max(1.0, when.every.total_seconds())
        if self._root is None or when.path is None:
            self._trouble(watch, "this server has no folder of files")
            return
        eye = FileObserver(self._root, when.path, since=max(recall.created_at, recall.last_at or recall.created_at))
        while not (watch.over and watch.pending == 0):
            try:
                change = None if watch.over else await self._in_thread(watch, eye.look)
            except CanNotLook as error:
                self._trouble(watch, str(error))
                change = None
            watch.looked_for.set()
            if change is not None:
                report = TriggerReport(detail=change.detail(when.path))
                self._happen(watch, Occurrence(key=change.key, at=change.at, report=report))
            await asyncio.sleep(min(every, SETTLE_FILE) if eye.unsettled else every)

    async def _in_thread(self, watch: Watch, look: Callable[[], Change | None]) -> Change | None:
        """In threads of our own: a file system that hangs must not hold up what else needs threads."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MOST_LOOKING, thread_name_prefix="navi-look")
        looking = asyncio.get_running_loop().run_in_executor(self._threads, look)
        if not (await asyncio.wait({looking}, timeout=SLOW_LOOK))[0]:
            self._trouble(watch, f"the file system has not answered for {SLOW_LOOK:.0f} s")
        return await looking

    async def _look_into(self, watch: Watch) -> None:
        edge = Edge()
        every = max(1.0, watch.when.every.total_seconds())
        while not (watch.over and watch.pending == 0):
            if not watch.over:
                await self._evaluate(watch, edge)
            with suppress(TimeoutError):
                await asyncio.wait_for(watch.cell_over.wait(), every)
            watch.cell_over.clear()

    async def _evaluate(self, watch: Watch, edge: Edge) -> None:
        """Look once, if nothing runs in the kernel."""
        hearing, expr = watch.hearing, watch.when.expr
        if hearing is None or self._kernels is None or expr is None or hearing.busy:
            return
        process, first = hearing.process, edge.was is None
        session = watch.session.model_copy(update={"kernel_id": hearing.kernel_id})
        try:
            asked = question(expr, seconds=EXPRESSION_SECONDS)
            value = await self._kernels.evaluate(session, asked, timeout=ANSWER_SECONDS)
        except KernelBusy:
            return
        except (KernelUnavailable, InvalidRequest, SyntaxError) as error:
            said = edge.raised(str(getattr(error, "message", error)), process=process)
            if said is not None:
                self._trouble(watch, f"the expression could not be looked at: {said}")
            return
        if edge.saw(bool(value), process=process):
            now = datetime.now(UTC)
            stamp = "first" if first else f"{watch.last_cell}:{int(now.timestamp() * 1000)}"
            key = f"{hearing.kernel_id}:{process}:{stamp}"
            self._happen(watch, Occurrence(key=key, at=now, report=expression_report(expr, turned=not first)))
