"""What a kernel executes at this moment, ours and other clients', as seen by its connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import KernelBusy
from ...navi_cells import is_navi_only_cell

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

    async def until_none(self, timeout: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait until no cell runs, or ``unless`` holds. False when one still does after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self.longest is not None and not unless():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Of a change that only Jupyter sees we are not notified, so poll as well.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.1))
        return True

    def as_state(self) -> dict[str, Any]:
        """That it is busy, with what and for how long, as fields of a ``KernelState``; empty when nothing runs."""
        cell = self.longest
        seconds = 0.0 if cell is None else time.monotonic() - cell.since
        return {} if cell is None else {"status": "busy", "busy_with": cell.code, "busy_for": seconds}

    def busy_error(self) -> KernelBusy:
        """The error for a request that cannot run because of what runs."""
        cell = self.longest
        if cell is None:
            return KernelBusy("The kernel is busy. Try again in a moment.")
        what = "other code of an agent" if cell.ours else "a cell of the user's"
        if not cell.ours and is_navi_only_cell(cell.code or ""):
            return KernelBusy(
                "A cell of this kernel waits for Navi's answer, and does not lend the kernel. Nothing was run. Answer "
                "without it; it can be used when the cell has its answer."
            )
        first = (cell.code or "").strip().splitlines()
        code = f": {first[0][:120]!r}{' …' if len(first) > 1 else ''}" if first else ""
        return KernelBusy(
            f"The kernel has been busy for {time.monotonic() - cell.since:.0f} s with {what}{code}. "
            "Nothing was run. Try again later, or ask the user whether to interrupt it."
        )
