"""What a kernel says on IOPub, folded into runs of cells. Without I/O; the time is an argument's default.

Not responsible for how it comes here (``listening``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ...ports.jupyter import CellBegan, CellEnded, CellRun, CellState, LostHow
from .outputs import Bounds, Outputs
from .transport import AGENT_USER, IopubMessage, well_formed

COMM = "navi.cell"
"""The comm by which a kernel tells of the cell that it is in."""
BOUNDS = Bounds(head=10_000, tail=10_000, rich=24 * 2**20, count=100, latest=True)
LONGEST_SOURCE = 20_000
MOST = 64
"""Cells that run at the same time (in subshells); more than that are remains of what was not heard."""


@dataclass(eq=False)
class _Cell:
    id: str
    ours: bool
    complete: bool
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: float = field(default_factory=time.monotonic)
    source: str | None = None
    told: bool = False
    """That it began. Never of silent requests."""
    state: CellState = "finished"
    """What it is if it ends now."""
    outputs: Outputs = field(default_factory=lambda: Outputs(bounds=BOUNDS))
    missed: float | None = None

    def introduce(self, said: Mapping[str, Any]) -> None:
        """The kernel tells what was not heard of its beginning (``kernel.thiscell``)."""
        elapsed, heard = float(said.get("seconds") or 0.0), time.monotonic() - self.since
        self.source = well_formed(str(said.get("code", "")))[:LONGEST_SOURCE]
        self.missed = max(0.0, elapsed - heard)
        self.since -= self.missed
        self.began -= timedelta(seconds=self.missed)


class CellExecutions:
    """The cells of one kernel."""

    def __init__(self, kernel_id: str) -> None:
        self._kernel_id = kernel_id
        self._cells: dict[str, _Cell] = {}
        self._sender = ""
        self._lost = ""
        """The sender whose loss was told."""
        self._orphans: list[_Cell] | None = None
        """Cells of the sender before this one, whose loss was not yet told."""
        self._settled = False
        """Every cell that runs was heard from its beginning: what is said of another one is its remains."""

    @property
    def busy(self) -> bool:
        """Whether a request is being executed."""
        return bool(self._cells)

    @property
    def replaced(self) -> bool:
        """Whether another process speaks than the one whose cells were begun."""
        return self._orphans is not None

    def take(self, said: IopubMessage) -> CellBegan | CellEnded | None:
        """A message about an ``execute_request``; what it means."""
        parent = said.parent
        if said.sender != self._sender:
            self._on_new_sender(said.sender)
        status = said.content.get("execution_state") if said.kind == "status" else None
        cell = self._cells.get(parent.id)
        if cell is None and status is None and self._settled:
            return None  # a thread or a task goes on after the end of its cell
        self._settled |= status is not None
        if cell is None:
            cell = self._cells[parent.id] = _Cell(
                parent.id, ours=parent.username == AGENT_USER, complete=status == "busy"
            )
            while len(self._cells) > MOST:
                del self._cells[next(iter(self._cells))]
        if said.kind == "execute_input":
            cell.source = well_formed(str(said.content.get("code", "")))[:LONGEST_SOURCE]
        elif said.kind == "comm_msg" and said.content.get("comm_id") == COMM and not cell.complete:
            cell.introduce(said.content.get("data") or {})
        elif said.kind == "error":
            cell.state = "interrupted" if said.content.get("ename") == "KeyboardInterrupt" else "failed"
        if status is None:
            cell.outputs.take(said)
        if status == "idle":
            del self._cells[parent.id]
            return CellEnded(run=self._run(cell, cell.state)) if cell.told or not cell.complete else None
        if not cell.told and (cell.source is not None or not cell.complete):
            cell.told = True
            return CellBegan(run=self._run(cell, "running", outputs=False))
        return None

    def settle(self) -> None:
        """It is known that nothing runs which was not heard from its beginning."""
        self._settled = True
        self._cells = {name: cell for name, cell in self._cells.items() if cell.complete}

    def running(self) -> Sequence[CellRun]:
        """Cells that run, with what they have shown so far."""
        return [self._run(replace_outputs(cell), "running") for cell in self._cells.values() if cell.told]

    def end_all(self) -> Sequence[CellRun]:
        """Nothing runs any more: the cells that did, as they ended."""
        gone = list(self._cells.values())
        self._cells.clear()
        return [self._run(cell, cell.state) for cell in gone if cell.told]

    def lose(self, how: LostHow) -> Sequence[CellRun]:
        """The process is gone: what it ran. To be called once for each process."""
        if self._orphans is not None:
            gone, self._orphans = self._orphans, None
        else:
            gone = list(self._cells.values())
            self._cells.clear()
            self._lost = self._sender
        return [self._run(cell, how) for cell in gone if cell.told]

    def _on_new_sender(self, sender: str) -> None:
        if self._sender and self._sender != self._lost:
            self._orphans = (self._orphans or []) + list(self._cells.values())
        self._cells.clear()
        self._settled &= not self._sender  # of the process before; else it was said before anything was heard
        self._sender = sender

    def _run(self, cell: _Cell, state: CellState, *, outputs: bool = True) -> CellRun:
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


def replace_outputs(cell: _Cell) -> _Cell:
    """A copy that may be finished; the content of displays is shared."""
    return replace(cell, outputs=copy.deepcopy(cell.outputs))
