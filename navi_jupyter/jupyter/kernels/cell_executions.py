"""The executions of cells that a kernel's IOPub messages show. Without I/O.

Not responsible for how messages come here (``iopub``), or for whether the kernel lives (``observer``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ...input.json_input import well_formed
from ...navi_cells import AGENT_USER
from ...ports.jupyter import CellBegan, CellEnded, CellRun, CellState, LostHow
from .outputs import Bounds, Outputs
from .transport import IopubMessage

COMM = "navi.cell"  # the comm over which our code in the kernel describes the cell that runs (`kernel.recalls`)
BOUNDS = Bounds(head=10_000, tail=10_000, rich=24 * 2**20, count=100, latest=True)
MAX_SOURCE = 20_000
MAX_CELLS = 64  # cells that run at the same time (in subshells); more than that are remains whose end was missed


@dataclass(eq=False)
class _Execution:
    id: str
    ours: bool
    complete: bool
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: float = field(default_factory=time.monotonic)
    source: str | None = None
    noticed: bool = False  # That it began was notified. Never for silent requests.
    state: CellState = "finished"  # its state if it ends now
    outputs: Outputs = field(default_factory=lambda: Outputs(bounds=BOUNDS))
    missed: float | None = None

    def describe(self, data: Mapping[str, Any]) -> None:
        """The kernel's own description of a cell whose beginning we missed."""
        elapsed, seen = float(data.get("seconds") or 0.0), time.monotonic() - self.since
        self.source = well_formed(str(data.get("code", "")))[:MAX_SOURCE]
        self.missed = max(0.0, elapsed - seen)
        self.since -= self.missed
        self.began -= timedelta(seconds=self.missed)


class CellExecutions:
    """Those of one kernel, fed with its messages in order."""

    def __init__(self, kernel_id: str) -> None:
        self._kernel_id = kernel_id
        self._cells: dict[str, _Execution] = {}
        self._sender = ""  # the process that published last
        self._lost = ""  # the process whose loss is known (`lose`)
        self._orphans: list[_Execution] | None = None
        """Cells of the process before this one, whose loss is not known yet."""
        self._settled = False
        """Every cell that runs was seen to begin: a message about another cell comes late, after its end."""

    @property
    def busy(self) -> bool:
        """Whether a request is being executed."""
        return bool(self._cells)

    @property
    def replaced(self) -> bool:
        """Whether another process publishes than the one whose cells were begun."""
        return self._orphans is not None

    def take(self, message: IopubMessage) -> CellBegan | CellEnded | None:
        """A message about an ``execute_request``; the notice that follows from it."""
        kind, content, parent = message.kind, message.content, message.parent
        if message.sender != self._sender:
            self._on_new_sender(message.sender)
        status = content.get("execution_state") if kind == "status" else None
        cell = self._cells.get(parent.id)
        if cell is None and status is None and self._settled:
            return None  # a thread or a task goes on after the end of its cell
        self._settled |= status is not None
        if cell is None:
            cell = _Execution(parent.id, ours=parent.username == AGENT_USER, complete=status == "busy")
            self._cells[parent.id] = cell
            # The oldest: its end was lost in a flood.
            while len(self._cells) > MAX_CELLS:
                del self._cells[next(iter(self._cells))]
        if kind == "execute_input":
            cell.source = well_formed(str(content.get("code", "")))[:MAX_SOURCE]
        elif kind == "comm_msg" and content.get("comm_id") == COMM and not cell.complete:
            cell.describe(content.get("data") or {})
        elif kind == "error" and not message.lent:
            cell.state = "interrupted" if content.get("ename") == "KeyboardInterrupt" else "failed"
        if status is None:
            cell.outputs.take(message)
        if status == "idle":
            del self._cells[parent.id]
            return CellEnded(run=self._run(cell, cell.state)) if cell.noticed or not cell.complete else None
        # A silent request has no ``execute_input``, so its source is never known: it is no cell.
        if not cell.noticed and (cell.source is not None or not cell.complete):
            cell.noticed = True
            return CellBegan(run=self._run(cell, "running", outputs=False))
        return None

    def settle(self) -> None:
        """It is known that nothing runs but what was seen to begin."""
        self._settled = True
        self._cells = {name: cell for name, cell in self._cells.items() if cell.complete}

    def running(self) -> Sequence[CellRun]:
        """Cells that run, with what they have shown so far."""
        # Copies, because making a run finishes its outputs; the content of displays is shared.
        cells = [replace(cell, outputs=copy.deepcopy(cell.outputs)) for cell in self._cells.values() if cell.noticed]
        return [self._run(cell, "running") for cell in cells]

    def end_all(self) -> Sequence[CellRun]:
        """Nothing runs any more: the cells that did, as they ended."""
        gone = list(self._cells.values())
        self._cells.clear()
        return [self._run(cell, cell.state) for cell in gone if cell.noticed]

    def lose(self, how: LostHow) -> Sequence[CellRun]:
        """The process is gone: what it ran. To be called once for each process."""
        if self._orphans is not None:
            gone, self._orphans = self._orphans, None
        else:
            gone = list(self._cells.values())
            self._cells.clear()
            self._lost = self._sender
        return [self._run(cell, how) for cell in gone if cell.noticed]

    def _on_new_sender(self, sender: str) -> None:
        if self._sender and self._sender != self._lost:
            self._orphans = (self._orphans or []) + list(self._cells.values())
        self._cells.clear()
        # It was settled for the process before; for the first one it may have been settled before its first message.
        self._settled &= not self._sender
        self._sender = sender

    def _run(self, cell: _Execution, state: CellState, *, outputs: bool = True) -> CellRun:
        if outputs:
            cell.outputs.finish()
        return CellRun(
            id=cell.id,
            kernel_id=self._kernel_id,
            state=state,
            began=cell.began,
            duration=time.monotonic() - cell.since,
            source=cell.source,
            outputs=cell.outputs.all() if outputs else (),
            ours=cell.ours,
            complete=cell.complete,
            missed=cell.missed,
            images_dropped=cell.outputs.images_dropped,
        )
