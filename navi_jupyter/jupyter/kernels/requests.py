"""Requests of ours to execute code in a kernel: sent, begun, ended; how their end is awaited, and brought about.

Not responsible for the way that they take: ``connection`` sends them to a kernel of this server, ``loans`` to a cell
that waits in its kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ...errors import KernelUnavailable
from ...ports.agent import tool_context
from .outputs import Outputs
from .running_cells import RunningCells

PATIENCE = 5.0  # seconds to wait for another client's cell
COME_BACK = 2.0  # seconds that interrupted code has to end

Ending = Literal["ok", "timed_out", "kernel_died", "returned"]
"""How a request ended; ``ok``: there is a reply, also of code that failed. ``returned``: it did not begin, and never
will, because the cell that lent the kernel has ended: it can be sent again another way."""


@dataclass(eq=False)
class ExecuteRequest:
    """Something that we asked the kernel to execute."""

    id: str
    outputs: Outputs
    begun: asyncio.Future[float]  # the loop's time when the kernel began with it
    ended: asyncio.Future[Mapping[str, Any] | None]
    """Its reply, once all its outputs are here; None when the kernel died over it, or when it was returned."""
    reply: Mapping[str, Any] | None = None
    idle: bool = False
    returned: bool = False
    lost: str | None = None  # why there is no reply, where it is not that the kernel died

    @property
    def duration(self) -> float:
        """Seconds since it began; zero before."""
        return time.monotonic() - self.begun.result() if self.begun.done() else 0.0


class Executor(Protocol):
    """What executes our requests in one kernel."""

    @property
    def cells(self) -> RunningCells:
        """What runs there."""

    def send(
        self, code: str, outputs: Outputs, *, silent: bool, store_history: bool, expressions: Mapping[str, str]
    ) -> ExecuteRequest:
        """Ask for it. It is over when ``ended`` is."""

    async def end(self, request: ExecuteRequest, within: float) -> bool:
        """Interrupt it until it ends. False when it did not in time. Nothing else is interrupted."""

    def abandon(self, request: ExecuteRequest) -> None:
        """It must not run: end it as soon as the kernel begins with it, in the background."""


async def until_ended(executor: Executor, request: ExecuteRequest, timeout: float | None) -> Ending:
    """Wait for the end; bring it about when we are cancelled, or after ``timeout`` seconds. Raises KernelBusy."""
    try:
        either: set[asyncio.Future[Any]] = {request.begun, request.ended}
        await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not request.begun.done() and not request.ended.done():
            # Another client was quicker between our check and our request: ours must not run after we gave up.
            executor.abandon(request)
            raise executor.cells.busy_error()
        await asyncio.wait({request.ended}, timeout=timeout)
    except asyncio.CancelledError:
        await _stop(executor, request)
        raise
    if not request.ended.done():
        await executor.end(request, COME_BACK)
        return "timed_out"
    if request.returned:
        return "returned"
    return "kernel_died" if request.ended.result() is None else "ok"


async def _stop(executor: Executor, request: ExecuteRequest) -> None:
    """Our run was stopped: end our code and no other, and report how that went."""
    # A moment, in case the kernel begins with it just now: then it can be interrupted, and that reported.
    await asyncio.wait({request.begun}, timeout=0.3)
    if not request.begun.done():
        # To interrupt now would hit the cell that runs instead, which is the user's.
        executor.abandon(request)
        _report_stop("the code had not begun, and will not run")
        return
    after = request.duration
    try:
        if await executor.end(request, COME_BACK):
            _report_stop(f"the cell was interrupted after {after:.1f} s")
            return
        _report_stop("the kernel ignores the interrupt: its cell still runs. Restart the kernel to end it")
    except KernelUnavailable as error:
        _report_stop(error.message)
    executor.abandon(request)


def _report_stop(message: str) -> None:
    context = tool_context.get(None)
    if context is not None:
        context.report_stop("kernel", message)
