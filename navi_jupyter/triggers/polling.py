"""Polling of files, and of expressions in kernels: a task for each recall that waits for one.

Expressions are evaluated silently, between cells, within a time limit. Not responsible for what a change of files is
(``file_changes``).
"""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, KernelBusy, KernelUnavailable, NaviError
from ..injected import source
from ..log_setup import get_logger
from ..model.recalls import WhenEvent
from ..ports.jupyter import Kernels
from .file_changes import FileChange, FileObserver, UnreadablePath
from .report import TriggerReport, expression_report
from .watch import Occurrence, Watch

log = get_logger("watching")

EXPRESSION_SECONDS = 1.0  # that an expression may take; the kernel itself ends it then
ANSWER_SECONDS = 5.0  # after which an expression that the kernel could not end is interrupted
SETTLE_FILE = 0.5  # seconds after which a file that changed is polled again: it may still be written to
POLL_THREADS = 4
SLOW_POLL = 30.0  # seconds that a poll of files may take until that is reported as a problem
MAX_BACKOFF = 30.0
MAX_PROBLEM = 300
MAX_PROBLEMS = 20  # of one recall that are reported
MAX_FAILURES = 20  # evaluations in a row that may raise; each that takes too long holds the kernel for a second
GIVEN_UP_AFTER = 86_400.0  # seconds of failing for what a cell may still heal
_HEALS = ("NameError", "AttributeError", "KeyError", "IndexError", "TypeError", "ZeroDivisionError")
_NEVER_HEALS = ("SyntaxError", "IndentationError", "RecursionError", "MemoryError", "OverflowError")


class Poller:
    """See the module. ``emit`` and ``on_problem`` must not block."""

    def __init__(
        self,
        *,
        root: Path | None,
        kernels: Kernels | None,
        emit: Callable[[Watch, Occurrence], None],
        on_problem: Callable[[Watch, str], None],
        is_meant: Callable[[Watch, FileChange], Awaitable[bool]],
    ) -> None:
        """``is_meant``: whether a change of files is one that the recall waits for."""
        self._root = root
        self._kernels = kernels
        self._emit = emit
        self._on_problem = on_problem
        self._is_meant = is_meant
        self._threads: ThreadPoolExecutor | None = None

    def start(self, watch: Watch) -> asyncio.Task[None] | None:
        """Poll from now on; the task, to be cancelled. None for a recall that waits for something else."""
        polls = {WhenEvent.FILE_CHANGED: self._poll_file, WhenEvent.EXPRESSION: self._poll_expression}
        poll = polls.get(watch.when.event)
        return None if poll is None else asyncio.create_task(self._guard(watch, poll), name=f"navi-{watch.id}")

    def close(self) -> None:
        """To be called when all tasks are over. A poll that hangs is left alone: no thread can be ended."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _guard(self, watch: Watch, poll: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
        """Supervise the polling of one recall: it goes on after any error."""
        pause = 1.0
        while not watch.over:
            try:
                await poll(watch)
            except NaviError as error:
                log.warning("poll_failed", recall_id=watch.id, error=error.message)
            except Exception:
                log.exception("poll_failed", recall_id=watch.id)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_BACKOFF)

    async def _poll_file(self, watch: Watch) -> None:
        when, recall = watch.when, watch.state.recall
        every = max(1.0, when.every.total_seconds())
        if self._root is None or when.path is None:
            self._on_problem(watch, "this server has no folder of files")
            return
        # What changed since the recall's last firing counts, also while no server ran.
        files = FileObserver(self._root, when.path, since=max(recall.created_at, recall.last_at or recall.created_at))
        while not (watch.over and watch.pending == 0):
            try:
                change = None if watch.over else await self._in_thread(watch, files.poll)
            except UnreadablePath as error:
                self._on_problem(watch, str(error))
                change = None
            watch.ready.set()
            if change is not None and await self._is_meant(watch, change):
                report = TriggerReport(detail=change.detail(when.path))
                self._emit(watch, Occurrence(key=change.key, at=change.at, report=report))
            await asyncio.sleep(min(every, SETTLE_FILE) if files.unsettled else every)

    async def _in_thread(self, watch: Watch, poll: Callable[[], FileChange | None]) -> FileChange | None:
        """In threads of our own: a file system that hangs must not use up the threads of others."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(POLL_THREADS, thread_name_prefix="navi-poll")
        polling = asyncio.get_running_loop().run_in_executor(self._threads, poll)
        if not (await asyncio.wait({polling}, timeout=SLOW_POLL))[0]:
            self._on_problem(watch, f"the file system has not answered for {SLOW_POLL:.0f} s")
        return await polling

    async def _poll_expression(self, watch: Watch) -> None:
        edge = Edge()
        every = max(1.0, watch.when.every.total_seconds())
        while not (watch.over and watch.pending == 0):
            if not watch.over:
                await self._evaluate(watch, edge)
            with suppress(TimeoutError):
                await asyncio.wait_for(watch.cell_ended.wait(), every)
            watch.cell_ended.clear()

    async def _evaluate(self, watch: Watch, edge: Edge) -> None:
        """Evaluate once, if nothing runs in the kernel."""
        subscription, expr = watch.subscription, watch.when.expr
        if subscription is None or self._kernels is None or expr is None or subscription.busy:
            return
        process, first = subscription.process, edge.was is None
        session = watch.session.model_copy(update={"kernel_id": subscription.kernel_id})
        try:
            code = expression_code(expr, seconds=EXPRESSION_SECONDS)
            value = await self._kernels.evaluate(session, code, timeout=ANSWER_SECONDS, lent=False)
        except KernelBusy:  # a cell began meanwhile; its end is the next time to poll
            return
        except KernelUnavailable as error:
            self._report(watch, edge.raised(error.message, process=process))
            return
        except InvalidRequest as error:  # the kernel could not even compile it
            self._on_raised(watch, edge, error.message, process)
            return
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            self._on_raised(watch, edge, f"{type(error).__name__}: {error}", process)
            return
        if isinstance(value, dict):
            self._on_raised(watch, edge, f"{value.get('error')}: {value.get('text')}", process)
            return
        if edge.saw(bool(value), process=process):
            now = datetime.now(UTC)
            # The first true value after a restart of this server is the one that the ledger may have already.
            stamp = "first" if first else f"{watch.last_cell}:{int(now.timestamp() * 1000)}"
            key = f"{subscription.kernel_id}:{process}:{stamp}"
            self._emit(watch, Occurrence(key=key, at=now, report=expression_report(expr, turned=not first)))

    def _report(self, watch: Watch, problem: str | None) -> None:
        if problem is not None:
            self._on_problem(watch, f"the expression could not be evaluated: {problem}")

    def _on_raised(self, watch: Watch, edge: Edge, error: str, process: str) -> None:
        """An evaluation raised: reported once, and the end of the recall when it will not heal."""
        self._report(watch, edge.raised(error, process=process))
        if (why := edge.hopeless(error)) is not None:
            now = datetime.now(UTC)
            reason = f"the expression {why}: {one_line(error)}"
            key = f"hopeless:{int(now.timestamp() * 1000)}"
            self._emit(watch, Occurrence(key=key, at=now, report=TriggerReport(detail=reason), never=reason))


def one_line(text: str) -> str:
    """An error as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_PROBLEM else line[: MAX_PROBLEM - 1] + "…"


def expression_code(expr: str, *, seconds: float) -> str:
    """Code that leaves in ``_navi_result`` whether the expression is true, and ends it when it takes longer than
    ``seconds``. What it raises is left there as ``{"error", "text"}``, in short. Raises SyntaxError, RecursionError.

    ``not not``: the user may have given ``bool`` another meaning. An expression cannot assign: what a ``:=`` names
    is gone with the frame that evaluates it.
    """
    tree = ast.parse(expr.strip(), mode="eval")
    return (
        f"_navi = {{'__name__': 'navi'}}\n__import__('builtins').exec({source('time_limit')!r}, _navi)\n"
        f"try:\n with _navi['limited']({seconds!r}):\n  _navi_result = not not (\n{ast.unparse(tree)}\n)\n"
        "except __import__('builtins').Exception as _navi_error:\n _navi_result = _navi['failed'](_navi_error)"
    )


@dataclass(eq=False)
class Edge:
    """Turns the values of polls into occurrences. A poll that raised counts as false."""

    was: bool | None = None  # its value at the last poll in this process of the kernel; None before the first
    process: str = ""
    problems: set[str] = field(default_factory=set)  # what polls raised, as far as it was reported
    failures: int = 0  # polls that raised since the last one that did not
    failing_since: float = 0.0  # by the event loop's clock

    def saw(self, value: bool, *, process: str) -> bool:
        """A poll; whether it has turned true. True at the first poll counts: it may have turned true just before."""
        self._in(process)
        self.failures = 0
        turned = value and self.was is not True
        self.was = value
        return turned

    def raised(self, problem: str, *, process: str) -> str | None:
        """A poll that raised. The problem to report; None when it was reported before, or enough were."""
        self._in(process)
        self.was = False
        short = one_line(problem)
        if short in self.problems or len(self.problems) >= MAX_PROBLEMS:
            return None
        self.problems.add(short)
        return short

    def hopeless(self, error: str) -> str | None:
        """Why it is to be evaluated no more, after a poll that raised ``error`` (``ValueError: …``); None to go on."""
        kind, now = error.partition(":")[0], time.monotonic()
        if not self.failures:
            self.failing_since = now
        self.failures += 1
        if kind in _NEVER_HEALS:
            return "cannot be evaluated"
        if kind in _HEALS:
            # The cell that makes the variable may come any time.
            lasting = now - self.failing_since > GIVEN_UP_AFTER
            return "has failed for a day" if lasting and self.failures >= MAX_FAILURES else None
        return f"has failed {self.failures} times in a row" if self.failures >= MAX_FAILURES else None

    def _in(self, process: str) -> None:
        if process != self.process:
            self.process, self.was = process, None
