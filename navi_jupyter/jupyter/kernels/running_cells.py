"""What a kernel executes at this moment, ours and other clients', as seen by its connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

UNKNOWN = "?"  # in place of the id of a cell that began before we listened


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCell:
    """An execution that is going on, ours or another client's."""

    since: float  # `time.monotonic()`, when we saw it
    code: str | None = None
    ours: bool = False


class RunningCells:
    """What the kernel executes now. ``at_rest``: whether Jupyter, which listens to it too, takes it for idle."""

    def __init__(self, at_rest: Callable[[], bool]) -> None:
        self._at_rest = at_rest
        self._cells: dict[str, RunningCell] = {}
        self._changed = asyncio.Event()  # set and replaced whenever a cell begins or ends

    @property
    def longest(self) -> RunningCell | None:
        """What runs for the longest time, if anything."""
        if self._at_rest():  # the end of a cell whose beginning we missed is seen only by Jupyter
            self._cells.pop(UNKNOWN, None)
        return next(iter(self._cells.values()), None)

    @property
    def any_ours(self) -> bool:
        """Whether something of ours runs."""
        return any(cell.ours for cell in self._cells.values())

    def add(self, request_id: str, *, code: str | None = None, ours: bool = False) -> None:
        """It runs; called again when its code is known."""
        known = self._cells.get(request_id) or RunningCell(since=time.monotonic())
        self._cells[request_id] = RunningCell(since=known.since, code=code or known.code, ours=ours)
        self._notify()

    def remove(self, *request_ids: str) -> None:
        """They do not run any more."""
        for request_id in request_ids:
            self._cells.pop(request_id, None)
        self._notify()

    def clear(self) -> None:
        """Nothing runs: the process is another one."""
        self._cells.clear()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_none(self, timeout: float) -> bool:
        """Wait until no cell runs. False when one still does after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self.longest is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Of a change that only Jupyter sees we are not notified, so poll as well.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.1))
        return True
