"""The calls that are running at an MCP server: their run, their progress, the questions that they ask.

Imports nothing of the SDK, so that it costs no server start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ...events import ActivitySnapshot
from ...model.runs import Interrupt, InterruptKind
from ...ports.agent import Ask, ToolContext, subagent

PROGRESS_PERIOD = 0.25  # seconds between two progress events of one call, at least; the last one is always emitted


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    reads_only: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOutTool:
    """A tool that its server lists and that no run is offered, or what of its results is not checked."""

    name: str
    why: str  # without a full stop


class SessionLost(Exception):
    """The server does not know the session any more, so the call was not executed: it is made again in a new one."""


class PendingCall:
    """One call. Lives from before its request to after its answer."""

    def __init__(
        self, context: ToolContext, server: str, call_id: str | None, timeout: float, hide: Callable[[str], str]
    ) -> None:
        self._context = context
        self._server = server
        self.call_id = call_id
        self.run_id = context.run_id
        self._subagent = subagent.get()
        self._seconds = timeout
        self._hide = hide  # removes keys from texts of the server
        self._timeout: asyncio.Timeout | None = None  # set while the request is running
        self._questions: set[asyncio.Task[Interrupt]] = set()
        self._progress: dict[str, Any] | None = None  # the last progress, while it is not emitted
        self._emitted_at = float("-inf")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around the request. Raises TimeoutError after ``timeout`` seconds without progress or a question."""
        token = current.set(self)
        try:
            async with asyncio.timeout(self._seconds) as self._timeout:
                yield
        finally:
            self._timeout = None
            current.reset(token)
            for task in self._questions:
                task.cancel()
            self._emit_progress()

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """The SDK's callback: the server reports its progress."""
        if self._timeout is None:
            return
        self._restart_timeout()
        content = {
            "toolCallId": self.call_id,
            "progress": progress,
            "total": total,
            "message": self._hide(message or "")[:500],
        }
        self._progress = {key: value for key, value in content.items() if value not in (None, "")}
        # Servers may report thousands of steps a second; each event is stored in the log.
        if asyncio.get_running_loop().time() - self._emitted_at >= PROGRESS_PERIOD:
            self._emit_progress()

    async def ask(self, message: str, schema: dict[str, Any] | None) -> Interrupt | None:
        """Ask the user a question of the server. None when this run has no user to ask, or the call ends meanwhile."""
        if self._context.ask is None or self._timeout is None:
            return None
        question = Ask(
            kind=InterruptKind.QUESTION,
            message=self._hide(message),
            source=f"mcp:{self._server}",  # these are its words: views say so
            tool_call_id=self.call_id,
            response_schema=schema,
            subagent_run_id=self._subagent,
        )
        task = asyncio.ensure_future(self._context.ask(question))
        self._questions.add(task)
        self._timeout.reschedule(None)  # the time that the user takes does not count as the server's
        try:
            return await task
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if here is not None and here.cancelling():
                task.cancel()
                raise
            return None  # the call ended and cancelled the question, but not the task that awaits it here
        finally:
            self._questions.discard(task)
            if not self._questions:
                self._restart_timeout()

    def _restart_timeout(self) -> None:
        if self._timeout is not None and not self._timeout.expired() and not self._questions:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)

    def _emit_progress(self) -> None:
        if self._progress is None or self.call_id is None:
            return
        content, self._progress = self._progress, None
        self._emitted_at = asyncio.get_running_loop().time()
        self._context.emit(
            ActivitySnapshot(
                message_id=f"progress_{self.call_id}",
                activity_type="navi.progress",
                content=content,
                replace=True,
                subagent_run_id=self._subagent,
            )
        )


# The call that the present task belongs to. The SDK carries the context over to what comes back on a call's own HTTP
# stream, and asks questions of the newer protocol in the caller's own task.
current: ContextVar[PendingCall | None] = ContextVar("navi_mcp_call", default=None)


class PendingCalls:
    """The calls running at one server, which all runs share; finds the call that a question belongs to.

    Over stdio with the older protocol (2025-11-25 and before) a question does not name its call. It belongs to the only
    run that has calls there. If several runs have, the question is cancelled, since a wrong guess would show one user's
    matter to another; and from a server's first such question on, its calls are made one after the other.
    """

    def __init__(self) -> None:
        self._calls: list[PendingCall] = []
        self._turn = asyncio.Lock()
        self._one_at_a_time = False

    @asynccontextmanager
    async def track(self, call: PendingCall) -> AsyncIterator[None]:
        """Around a call; waits for the others where the server's questions could not be assigned to a call."""
        async with self._turn if self._one_at_a_time else nullcontext():
            self._calls.append(call)
            try:
                yield
            finally:
                self._calls.remove(call)

    @property
    def running(self) -> bool:
        """Whether there are any."""
        return bool(self._calls)

    def asking(self) -> PendingCall | None:
        """The call that asks the question which the present task answers. None when it cannot be determined."""
        call = current.get()
        if call is not None:
            return call
        self._one_at_a_time = True
        if len({call.run_id for call in self._calls}) != 1:
            return None
        return self._calls[-1]
