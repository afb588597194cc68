"""Tools and context of installed packages: the entry points ``navi_jupyter.tools`` and ``navi_jupyter.context``.

Entry points are loaded at the first use, one after the other in a thread of their own: a package that takes seconds to
import, raises or hangs fails no run and blocks no event loop; lists show it with the reason.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from ...log_setup import get_logger
from ...model.runs import Effect, ToolName
from ...ports.agent import ToolContext
from .base import Function, Tool, ToolNote, tool

log = get_logger("agent")
T = TypeVar("T")

TOOLS_GROUP = "navi_jupyter.tools"
PATIENCE = 10.0  # seconds that the first run waits for packages to be imported; later ones do not wait


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedEntry(Generic[T]):
    """An entry point and the result of loading it."""

    name: str
    source: str  # `package:<distribution>`
    value: T | None
    why: str | None  # why there is no value; None when there is


class EntryPoints(Generic[T]):
    """The entry points of a group, each read by ``read(name, object, source)``, which may raise anything."""

    def __init__(self, group: str, read: Callable[[str, object, str], T], *, patience: float = PATIENCE) -> None:
        self._group = group
        self._read = read
        self._patience = patience
        # What is loaded so far. Written by the loading thread only.
        self._loaded: dict[EntryPoint, LoadedEntry[T]] = {}
        self._points: Sequence[EntryPoint] = ()
        self._done: Future[None] | None = None  # set at the first use; done once all are loaded
        self._until = 0.0  # monotonic seconds until which runs wait for the loading; set with `_done`

    async def loaded(self) -> list[LoadedEntry[T]]:
        """Every entry point with its value, or why it has none. Never raises.

        Waits for the loading until ``patience`` seconds after the first use, and not at all after that.
        """
        if self._done is None:
            self._done = Future()
            self._until = time.monotonic() + self._patience
            threading.Thread(target=self._load, args=(self._done,), name="navi-packages", daemon=True).start()
        if not self._done.done():
            # Not wrap_future: the time-out would cancel the future, and the thread could not set its result.
            settled = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._done.add_done_callback(lambda _: _wake(loop, settled))
            try:
                async with asyncio.timeout(max(self._until - time.monotonic(), 0)):
                    await settled.wait()
            except TimeoutError:
                log.warning("packages_still_loading", group=self._group)
        importing = "is still being imported."
        return [
            self._loaded.get(point)
            or LoadedEntry(name=point.name, source=_source(point), value=None, why=f"{point.value} {importing}")
            for point in self._points
        ]

    def _load(self, done: Future[None]) -> None:
        try:
            self._points = tuple(entry_points(group=self._group))
            for point in self._points:
                self._loaded[point] = self._load_one(point)
        except Exception:
            # The supervisor of this thread: unreadable metadata of one package must not fail the others.
            log.exception("packages_not_listed", group=self._group)
        finally:
            done.set_result(None)

    def _load_one(self, point: EntryPoint) -> LoadedEntry[T]:
        source = _source(point)
        try:
            value = self._read(point.name, point.load(), source)
        except (Exception, SystemExit) as error:
            # The supervisor of packages' code: any error is reported, and the next one is loaded.
            why = f"{point.value} cannot be loaded: {type(error).__name__}: {error}"
            log.warning("package_broken", group=self._group, entry_point=point.name, source=source, why=why)
            log.debug("package_broken_where", entry_point=point.name, exc_info=True)
            return LoadedEntry(name=point.name, source=source, value=None, why=why[:500])
        return LoadedEntry(name=point.name, source=source, value=value, why=None)


def _wake(loop: asyncio.AbstractEventLoop, settled: asyncio.Event) -> None:
    """Set an event from the loading thread, unless its loop is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(settled.set)


def _source(point: EntryPoint) -> str:
    return f"package:{point.dist.name if point.dist is not None else point.module}"


class PackageTools:
    """Tools of packages as a source. An entry point is a Tool, a typed function, or a sequence of those."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._packages = EntryPoints(TOOLS_GROUP, tools_of, patience=patience)

    async def tools(self, context: ToolContext) -> Sequence[Tool]:  # noqa: ARG002
        """Those of the packages that are loaded."""
        return [tool for one in await self._packages.loaded() for tool in one.value or ()]

    async def known(self, context: ToolContext | None = None) -> Sequence[ToolNote]:  # noqa: ARG002 - the same for all
        """All of them, and the entry points that have failed."""
        loaded = await self._packages.loaded()
        notes = [ToolNote(name=one.name, source=one.source, why=one.why) for one in loaded if one.value is None]
        return notes + [ToolNote(name=it.name, source=one.source, tool=it) for one in loaded for it in one.value or ()]


def tools_of(name: str, value: object, source: str) -> tuple[Tool, ...]:
    """The tools of the entry point ``name``. Raises TypeError or ValueError with what is wrong."""
    if isinstance(value, Tool):
        TypeAdapter(ToolName).validate_python(value.name)
        return (replace(value, source=source),)
    if inspect.isroutine(value):
        return (_function_tool(value, source),)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(tool for one in value for tool in tools_of(name, one, source))
    raise TypeError(f"{name!r} is {type(value).__name__}, not a Tool, a function, or a sequence of those")


def _function_tool(function: Callable[..., Any], source: str) -> Tool:
    """Its effect is its attribute ``navi_effect`` (``read``, ``write``, …), else ``outside``."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{function.__name__} takes {parameter}: a tool's arguments must have names")
    if not function.__doc__:
        raise ValueError(f"{function.__name__} has no docstring: the model needs a description")
    effect = Effect(getattr(function, "navi_effect", Effect.OUTSIDE))
    TypeAdapter(ToolName).validate_python(function.__name__)
    return tool(_async(function), effect, source=source)


def _async(function: Callable[..., Any]) -> Function:
    """A synchronous function runs in a thread of its own, with the run's context, and ends with the call."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def in_thread(**arguments: Any) -> Any:
        return await _Threaded(functools.partial(function, **arguments)).result()

    return in_thread


class _CallEnded(BaseException):
    """Raised in the thread of a call that was cancelled. Not an Exception: the function must not go on with it."""


class _Threaded:
    """A call in a thread of its own. Not one of a pool: what is raised in it must not hit the next one's work."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Any] = self._loop.create_future()

    async def result(self) -> Any:
        """What the function returns or raises. Cancelled, it ends between two of its steps, unless it waits in C."""
        # A daemon: one that waits for something that never comes must not hold up the end of the server.
        thread = threading.Thread(target=self._work, name="navi-tool", daemon=True)
        thread.start()
        try:
            return await self._done
        except asyncio.CancelledError:
            if thread.ident is not None and thread.is_alive():
                import ctypes  # late: most calls are not cancelled

                # The only way to end code in a thread: an exception at its next instruction of Python.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_CallEnded))
            raise

    def _work(self) -> None:
        settle: Callable[[Any], None]
        with suppress(_CallEnded):
            try:
                settle, value = self._settle, self._context.run(self._function)
            except _CallEnded:
                raise
            except BaseException as error:  # noqa: BLE001 - the function's own, for its caller
                settle, value = self._fail, error
            with suppress(RuntimeError):  # the loop is closed: the server has stopped meanwhile
                self._loop.call_soon_threadsafe(settle, value)

    def _settle(self, value: Any) -> None:
        if not self._done.done():
            self._done.set_result(value)

    def _fail(self, error: BaseException) -> None:
        # SystemExit would end the server, and a future refuses StopIteration.
        ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration)
        if not self._done.done():
            self._done.set_exception(error if ordinary else RuntimeError(repr(error)))
