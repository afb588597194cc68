"""Calls that are under way at a server: whose they are, how far they have come, what they ask.

Light: nothing of the SDK here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from ...events import ActivitySnapshot
from ...model.runs import Interrupt, InterruptKind
from ...ports.agent import Ask, ToolContext, subagent

PROGRESS_PERIOD = 0.25
"""Seconds between two progress events of one call, at least; the last one always comes."""


class PendingCall:
    """One call. Lives from before its request to after its answer."""

    def __init__(self, context: ToolContext, call_id: str | None, patience: float, hide: Callable[[str], str]) -> None:
        self._context = context
        self.call_id = call_id
        self.run_id = context.run_id
        self._subagent = subagent.get()
        self._patience = patience
        self._hide = hide
        """Takes keys out of what the server says."""
        self._clock: asyncio.Timeout | None = None
        self._asks: set[asyncio.Task[Interrupt]] = set()
        self._progress: dict[str, Any] | None = None
        """The last that was reported and not yet told."""
        self._told_at = float("-inf")

    @asynccontextmanager
    async def running_calls(self) -> AsyncIterator[None]:
        """Around the request. Raises TimeoutError after ``patience`` seconds without progress or a question."""
        token = current.set(self)
        try:
            async with asyncio.timeout(self._patience) as self._clock:
                yield
        finally:
            self._clock = None
            current.reset(token)
            for task in self._asks:
                task.cancel()
            self._tell()

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """The server says how far it is."""
        if self._clock is None:
            return
        self._wait_anew()
        content = {
            "toolCallId": self.call_id,
            "progress": progress,
            "total": total,
            "message": self._hide(message or "")[:500],
        }
        self._progress = {key: value for key, value in content.items() if value not in (None, "")}
        if asyncio.get_running_loop().time() - self._told_at >= PROGRESS_PERIOD:
            self._tell()

    async def ask(self, message: str, schema: dict[str, Any] | None) -> Interrupt | None:
        """Put a question of the server to the user. None when nobody can be asked, or the call ends meanwhile."""
        if self._context.ask is None or self._clock is None:
            return None
        question = Ask(
            kind=InterruptKind.QUESTION,
            message=self._hide(message),
            tool_call_id=self.call_id,
            response_schema=schema,
            subagent_run_id=self._subagent,
        )
        task = asyncio.ensure_future(self._context.ask(question))
        self._asks.add(task)
        self._clock.reschedule(None)  # the user's time is not the server's
        try:
            return await task
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if here is not None and here.cancelling():
                task.cancel()
                raise
            return None  # the question was withdrawn with the call; whoever waits for it here was not cancelled
        finally:
            self._asks.discard(task)
            if not self._asks:
                self._wait_anew()

    def _wait_anew(self) -> None:
        if self._clock is not None and not self._clock.expired() and not self._asks:
            self._clock.reschedule(asyncio.get_running_loop().time() + self._patience)

    def _tell(self) -> None:
        if self._progress is None or self.call_id is None:
            return
        content, self._progress = self._progress, None
        self._told_at = asyncio.get_running_loop().time()
        self._context.emit(
            ActivitySnapshot(
                message_id=f"progress_{self.call_id}",
                activity_type="navi.progress",
                content=content,
                replace=True,
                subagent_run_id=self._subagent,
            )
        )


current: ContextVar[PendingCall | None] = ContextVar("navi_mcp_flight", default=None)
"""The call that the present task belongs to. The SDK carries it over to what comes back on a call's own HTTP stream,
and questions of the newer protocol are asked in the caller's own task."""


class PendingCalls:
    """The calls under way at one server, which all runs share: finds whose call a question belongs to.

    Over stdio with the older protocol (2025-11-25 and before) a question does not say to which call it belongs. It is
    that of the only run that has calls there. If several runs have, nobody is asked, since a wrong guess would show one
    user's matter to another: the question is cancelled; and from a server's first such question on, its calls are made
    one after the other.
    """

    def __init__(self) -> None:
        self._flights: list[PendingCall] = []
        self._turn = asyncio.Lock()
        self._one_at_a_time = False

    @asynccontextmanager
    async def track(self, flight: PendingCall) -> AsyncIterator[None]:
        """Around a call; waits for others where the server's questions could not be told apart."""
        if self._one_at_a_time:
            async with self._turn:
                self._flights.append(flight)
                try:
                    yield
                finally:
                    self._flights.remove(flight)
            return
        self._flights.append(flight)
        try:
            yield
        finally:
            self._flights.remove(flight)

    def asked(self) -> PendingCall | None:
        """The call that the question which the present task answers belongs to. None: that can not be told."""
        flight = current.get()
        if flight is not None:
            return flight
        self._one_at_a_time = True
        if len({flight.run_id for flight in self._flights}) != 1:
            return None
        return self._flights[-1]
