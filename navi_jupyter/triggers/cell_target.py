"""The cell that a recall waits for, and the states of a cell that end its waiting. Pure: fed with notices in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.recalls import When, WhenEvent
from ..navi_cells import is_navi_only_cell
from ..ports.jupyter import CellRun, CellState

AFTER = "after:"  # before the id of an `execute_request`: the first cell that begins after that one
REQUEST = "request:"  # before the id of an `execute_request`: that very execution, in the kernel that is named beside

_ENDINGS: dict[WhenEvent, frozenset[CellState]] = {
    WhenEvent.CELL_DONE: frozenset({"finished", "failed", "interrupted", "died", "restarted", "closed"}),
    WhenEvent.CELL_FINISHED: frozenset({"finished"}),
    WhenEvent.CELL_FAILED: frozenset({"failed", "interrupted", "died"}),
}
CELL_EVENTS = (*_ENDINGS, WhenEvent.CELL_SLOW)


def wanted(event: WhenEvent, state: CellState) -> bool:
    """Whether the event waits for a cell that ended like this."""
    return state in _ENDINGS.get(event, frozenset())


def counts(run: CellRun) -> bool:
    """Whether it is a cell of the user's that does something: no agent's code, and more than commands to Navi."""
    return not run.ours and not (run.source is not None and is_navi_only_cell(run.source))


@dataclass(eq=False)
class CellTarget:
    """See the module. A cell that does not count (see :func:`counts`) is the target only when it is named."""

    named: str | None = None  # an id of an `execute_request` or of a cell; None: the next cell that begins
    any: bool = False  # every cell
    after: str | None = None  # not this one
    unknown: bool = False  # it is the cell that runs, of which no message was seen yet
    bound: bool = False  # `named` is an `execute_request`

    @classmethod
    def of(cls, when: When, *, once: bool) -> CellTarget:
        """The target before any notice."""
        cell = when.cell or ("running" if once else "any")
        if cell.startswith(AFTER):
            return cls(after=cell.removeprefix(AFTER), any=not once)
        if cell.startswith(REQUEST):
            return cls(named=cell.removeprefix(REQUEST), bound=True)
        return cls(named=None if cell in ("any", "running") else cell, any=cell == "any")

    def begin(self, running: Sequence[CellRun], *, busy: bool) -> CellRun | None:
        """What runs when the watching begins; the target, if it is known."""
        if self.any:
            return None
        if self.named is not None:
            found = next((run for run in running if run.id == self.named), None)
            self.bound |= found is not None
            return found
        # A cell without a source began before it was observed: it may be one that does not count.
        mine = next((run for run in running if run.id != self.after and counts(run) and run.source is not None), None)
        if mine is not None:
            self._bind(mine)
        elif busy and self.after is None:
            self.unknown = True
        return mine

    def began(self, run: CellRun) -> bool:
        """Whether this cell, which begins, is the target."""
        if self.any:
            return run.id != self.after and counts(run)
        if self.named is not None:
            self.bound |= run.id == self.named
            return run.id == self.named
        # A cell whose beginning was missed may have ended already (a thread of its prints on): wait for its end.
        if run.id == self.after or run.source is None or not counts(run):
            return False
        self._bind(run)
        return True

    def hits(self, run: CellRun) -> bool:
        """Whether this cell, which has ended, is the target."""
        if self.any:
            return run.id != self.after and counts(run)
        if self.named is None and run.id != self.after and counts(run):
            # It began before anything was seen, and so before every other cell that could be the target.
            self._bind(run)
        self.bound |= run.id == self.named
        return run.id == self.named

    def _bind(self, run: CellRun) -> None:
        self.named, self.bound, self.unknown = run.id, True, False
