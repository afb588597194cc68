"""One execution for the agent in a cell that waits: on the kernel's main thread, in the user's namespace.

Its outputs appear in that cell as if the cell had printed them, and are handed on as well. Not responsible for who asks
for it and reads its outputs (``loan``).
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn
from weakref import WeakSet

from ...navi_cells import AGENT_USER
from ..errors import AwaitInterrupted, UsageError
from ..shell import current_request, current_shell, keep_cell_began
from .outputs import Content, LentResults, PublishedOutputs
from .signals import AGAIN, CellSignals

_NEXT_NUMBER = "_navi_next_number"  # an attribute of the shell, which outlives a reload of this package

_DISPLAY_FAILED = "_last_traceback_during_displayhook"  # ipykernel (from 7 on) fails a cell by it, here the waiting one

_inside: ContextVar[bool] = ContextVar("navi_inside", default=False)
_turn = asyncio.Lock()  # of code in cells that await, on the kernel's loop
_executing: LentExecution | None = None  # the one in progress; there is one main thread


def _executes_for_agent() -> bool:
    """Whether the caller is code that the agent runs in a lent kernel: that code itself, its tasks and its threads."""
    if _inside.get():
        return True
    execution, thread = _executing, threading.current_thread()
    return execution is not None and thread is not threading.main_thread() and thread not in execution.earlier_threads


def refuse_nested() -> None:
    """Raises UsageError in code that an agent executes: it would wait for the run that waits for it."""
    header = current_request().get("header") or {}
    ours = header.get("username") == AGENT_USER and threading.current_thread() is threading.main_thread()
    if ours or _executes_for_agent():
        raise UsageError(
            "Code that Navi runs cannot ask Navi: it would wait for the run that waits for it. "
            "Return the result instead, or ask in a cell of your own."
        )


class CodeInterrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C in code that ran for the agent."""


class LentExecution:
    """See the module. ``signals`` are those of the cell that waits."""

    def __init__(
        self, request: Mapping[str, Any], results: LentResults, signals: CellSignals, on_ctrl_c: Callable[[str], None]
    ) -> None:
        self.id = str(request["id"])
        self.code = str(request.get("code") or "")
        self.silent = bool(request.get("silent"))
        self.shown = False  # an output of it has appeared in the cell
        self.dropped = False  # it is not wanted any more: if it has not begun, it does not
        self.by_user = False  # the user pressed Ctrl-C in it
        self.earlier_threads: WeakSet[threading.Thread] = WeakSet()
        self._store_history = bool(request.get("store_history")) and not self.silent
        self._expressions = dict(request.get("expressions") or {})
        self._results = results
        self._signals = signals
        self._on_ctrl_c = on_ctrl_c
        self._stepping = False  # code of it runs on the main thread at this moment
        self._task: asyncio.Task[Any] | None = None  # what awaits it, where it awaits
        self._loop: asyncio.AbstractEventLoop | None = None  # that task's

    def run(self) -> None:
        """Execute, in a cell that blocks. Raises CodeInterrupted afterwards when the user pressed Ctrl-C."""
        self._results.begin()
        reply: Content = _interrupted()
        try:
            with self._prepared() as (shell, number):
                reply = self._reply(shell, number, self._run_blocking)
        finally:
            self._results.end(reply)
        if self.by_user:
            raise CodeInterrupted

    async def run_async(self) -> None:
        """Execute, in a cell that awaits. Raises AwaitInterrupted afterwards when the user pressed Ctrl-C."""
        # A cell may await several answers at once: their runs' code takes turns, or each took the other's outputs.
        async with _turn:
            if not self.dropped:
                await self._run_async()
        if self.by_user:
            raise AwaitInterrupted

    async def _run_async(self) -> None:
        self._results.begin()
        reply: Content = _interrupted()
        try:
            with self._prepared() as (shell, number):
                self._loop = asyncio.get_running_loop()
                task = self._task = self._loop.create_task(self._steps(self._cell(shell)))
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError:
                    await _ended(task)
                    raise
                reply = self._reply(shell, number, lambda _: None if task.cancelled() else task.result())
        finally:
            self._results.end(reply)

    def on_signal(self, by_user: bool) -> None:
        """SIGINT has come while it runs. Called in the signal's handler, on the main thread."""
        __tracebackhide__ = True
        if by_user:
            self.by_user = True
            self._on_ctrl_c(self.id)
        if self._stepping or self._task is None or self._loop is None:
            _interrupt()
        if self._loop is _own_loop and asyncio.current_task(_own_loop) is not None:
            _interrupt()  # in a task that it has started; on the kernel's loop that would end the kernel
        self._loop.call_soon_threadsafe(self._task.cancel)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[tuple[Any, int]]:
        """The shell in the state for it, and the number it has; afterwards as the cell that waits left it."""
        global _executing
        shell = current_shell()
        kernel, payloads = shell.kernel, shell.payload_manager
        token, kept = _inside.set(True), list(payloads.read_payload())
        stdin = getattr(kernel, "_allow_stdin", False)
        failed = getattr(shell, _DISPLAY_FAILED, None)
        self.earlier_threads = WeakSet(threading.enumerate())
        _executing = self
        try:
            with (
                PublishedOutputs(kernel, self._on_output, hidden=self.silent),
                _number_of_its_own(shell) as number,
                keep_cell_began(shell),
            ):
                # As from the chat: a prompt of the agent's code is not the user's to answer. There is no public switch.
                kernel._allow_stdin = False  # noqa: SLF001
                with self._signals.during(self.on_signal):
                    yield shell, number
        finally:
            _executing = None
            kernel._allow_stdin = stdin  # noqa: SLF001
            if failed is not None:
                setattr(shell, _DISPLAY_FAILED, failed)
            # a pager or a next cell that the code asked for is not the waiting cell's.
            payloads.clear_payload()
            for payload in kept:
                payloads.write_payload(payload)
            _inside.reset(token)

    def _on_output(self, kind: str, content: Content) -> None:
        if self.silent:
            return
        self.shown = True
        self._results.output(kind, content)

    def _reply(self, shell: Any, number: int, run: Callable[[Any], Any]) -> dict[str, Any]:
        """The content of the reply. ``run``: executes, and returns IPython's result, or what was raised instead."""
        try:
            result = run(shell)
        except KeyboardInterrupt:  # outside of what IPython guards
            result = None
        if result is None and not self.silent:
            return _interrupted(number)
        failed = result if isinstance(result, BaseException) else _error_of(result)
        if failed is not None:
            shown = [] if self.silent else list(getattr(shell, "_last_traceback", None) or ())
            return {
                "status": "error",
                "execution_count": number,
                "ename": type(failed).__name__,
                "evalue": str(failed),
                "traceback": shown,
                "user_expressions": {},
            }
        values = shell.user_expressions(self._expressions) if self._expressions else {}
        return {"status": "ok", "execution_count": number, "user_expressions": values}

    def _run_blocking(self, shell: Any) -> Any:
        if self._awaits(shell):
            return self._run_on_own_loop(shell)
        self._stepping = True
        try:
            if not self.silent:
                return shell.run_cell(self.code, store_history=self._store_history)
            return self._run_silently(shell)
        finally:
            self._stepping = False

    def _awaits(self, shell: Any) -> bool:
        if self.silent:
            try:
                return bool(_compiled(self.code).co_flags & _COROUTINE)
            except (SyntaxError, ValueError):  # which is what running it gives
                return False
        try:
            transformed = shell.transform_cell(self.code)
        except Exception:  # noqa: BLE001 - of any input transformer; running the cell shows it
            return False
        return bool(shell.should_run_async(self.code, transformed_cell=transformed))

    def _run_silently(self, shell: Any) -> BaseException | None:
        """Code that leaves nothing behind: neither in the history nor in ``_``, and no hook of the user's notices."""
        try:
            exec(_compiled(self.code), shell.user_ns)  # noqa: S102 - what the server asks for
        except BaseException as error:  # noqa: BLE001 - the user's objects may raise anything, which is the result
            return error
        return None

    def _run_on_own_loop(self, shell: Any) -> Any:
        """Run code that awaits while the kernel's own loop is held by the cell that waits."""
        loop = self._loop = own_loop()
        with _no_running_loop():
            task = self._task = loop.create_task(self._steps(self._cell(shell)))
            while True:
                try:
                    return loop.run_until_complete(task)
                except KeyboardInterrupt:  # in another task of this loop, which is lost; the code that awaits it ends
                    task.cancel()
                except asyncio.CancelledError:
                    return None

    async def _cell(self, shell: Any) -> Any:
        if self.silent:
            try:
                waiting = eval(_compiled(self.code), shell.user_ns)  # noqa: S307 - what the server asks for
                if waiting is not None:
                    await waiting
            except BaseException as error:  # noqa: BLE001 - as above
                return error
            return None
        try:
            transformed, failed = shell.transform_cell(self.code), None
        except Exception:  # noqa: BLE001 - of any input transformer; the shell shows it
            transformed, failed = self.code, sys.exc_info()
        result = None
        try:
            result = await shell.run_cell_async(
                self.code,
                store_history=self._store_history,
                transformed_cell=transformed,
                preprocessing_exc_tuple=failed,
            )
        finally:
            shell.events.trigger("post_execute")  # figures are shown by it
            if result is not None:
                shell.events.trigger("post_run_cell", result)
        return result

    async def _steps(self, cell: Coroutine[Any, Any, Any]) -> Any:
        """Await ``cell``. A cancellation reaches it as KeyboardInterrupt; none leaves it, which would end the loop."""
        try:
            return await self._driven(cell)
        except KeyboardInterrupt:
            return None

    @types.coroutine
    def _driven(self, cell: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        raised: BaseException | None = None
        while True:
            self._stepping = True
            try:
                waited = cell.send(None) if raised is None else cell.throw(raised)
            except StopIteration as end:
                return end.value
            finally:
                self._stepping = False
            raised = None
            try:
                yield waited
            except asyncio.CancelledError:
                raised = KeyboardInterrupt()
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is the cell's
                raised = error


def _interrupt() -> NoReturn:
    # The last line of the traceback that the user gets; the handler's own frames are hidden in it.
    raise KeyboardInterrupt


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` until it has ended."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=AGAIN)


_COROUTINE = 0x80  # inspect.CO_COROUTINE


def _compiled(code: str) -> types.CodeType:
    compiled: types.CodeType = compile(code, "<navi>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return compiled


def _error_of(result: Any) -> BaseException | None:
    if result is None:
        return None
    error: BaseException | None = result.error_before_exec or result.error_in_exec
    return error


def _interrupted(number: int | None = None) -> dict[str, Any]:
    return {
        "status": "error",
        "execution_count": number,
        "ename": "KeyboardInterrupt",
        "evalue": "",
        "traceback": [],
        "user_expressions": {},
    }


_own_loop: asyncio.AbstractEventLoop | None = None


def own_loop() -> asyncio.AbstractEventLoop:
    """The loop of code that awaits in a cell that blocks; one per process, so that its tasks go on in the next code."""
    global _own_loop
    if _own_loop is None or _own_loop.is_closed():
        _own_loop = asyncio.new_event_loop()
    return _own_loop


@contextlib.contextmanager
def _no_running_loop() -> Iterator[None]:
    """Let another loop run on this thread, inside of a callback of the kernel's."""
    running = asyncio._get_running_loop()  # noqa: SLF001 - as nested loops do; there is no public way
    swap: Callable[..., Any] | None = getattr(asyncio.tasks, "_swap_current_task", None)  # from Python 3.12 on
    task = swap(running, None) if swap is not None and running is not None else None
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        yield
    finally:
        asyncio._set_running_loop(running)  # noqa: SLF001
        if swap is not None and running is not None:
            swap(running, task)


@contextlib.contextmanager
def _number_of_its_own(shell: Any) -> Iterator[int]:
    """The next number for the code. The cell that waits keeps its own, and the cell after it goes on behind both."""
    before, hook = shell.execution_count, shell.displayhook
    waiting = getattr(hook, "exec_result", None)
    # IPython counts when a cell ends, or (from 9.15 on) when it begins.
    first = before + 1 if getattr(waiting, "execution_count", None) == before else before
    number = shell.execution_count = max(first, getattr(shell, _NEXT_NUMBER, 0))
    try:
        yield number
    finally:
        setattr(shell, _NEXT_NUMBER, max(number, shell.execution_count))
        shell.execution_count = before
        hook.exec_result = waiting
        _count_on_before_next_cell(shell)


def _count_on_before_next_cell(shell: Any) -> None:
    # ipykernel takes the number in a cell's reply from the counter: it may only move once that reply is sent.
    kernel = shell.kernel
    if "pre_handler_hook" in vars(kernel):
        return
    original = kernel.pre_handler_hook

    def count_on() -> None:
        if threading.current_thread() is threading.main_thread():
            del kernel.pre_handler_hook
            shell.execution_count = max(shell.execution_count, vars(shell).pop(_NEXT_NUMBER, 0))
        original()

    kernel.pre_handler_hook = count_on
