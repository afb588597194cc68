"""How Python collects garbage in the server's process, which belongs to Jupyter and its other extensions as well.

A full collection looks at every object of the process: 200,000 to 450,000 after the imports of Jupyter, Navi and a
model's package, for 130 to 400 ms in which every kernel's messages wait. Nearly all of these objects live as long as
the process. *Tuned*, they are left out of later collections (``gc.freeze``), and full collections are rarer: made when
the loop has nothing to do, and by Python itself only after five times as many changes as usual. The thresholds of the
younger generations stay, so that garbage that is young is freed as soon as before.

What that costs: a cycle of objects that was there when it was frozen, and is garbage later, is kept until the extension
stops: no more than what was there after the imports (with some 0.1 MB for each run that was in progress), and nothing
that has come since. Where the user or another
extension has set the collector in any way, nothing is changed. What is changed is undone when the extension stops.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Literal

from .measures import LoopLag

Collection = Literal["tuned", "untouched"]

USUAL = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0))
"""The thresholds that versions of Python begin with; any others were set by the user or an extension."""
RARER = 5  # times as many collections of the middle generation, before Python makes a full one
LOOK_EVERY = 30.0  # seconds between two looks whether the loop has nothing to do
IDLE_SHARE = 0.02  # of this time, at most, the loop was at work
MANY = 10_000  # objects; since Python 3.12 a few are left out by Python itself
MOST_FREEZES = 3  # at the start, after the packages of a model, and once more after those of another one


class GarbageCollection:
    """Python's collector, for as long as the extension is at work."""

    def __init__(self, *, tuned: bool) -> None:
        self.in_force: Collection = "untouched"
        self.why: str | None = None
        """Why it is left as it is although it is to be tuned."""
        self._wanted = tuned
        self._former = gc.get_threshold()
        self._set = self._former
        self._frozen = 0  # objects, after our last freeze
        self._freezes = 0

    def tune(self) -> None:
        """Begin, once what is imported at the start is there. Does nothing where it is not wanted, or others go before.

        No full collection is made: it would be the longest pause of all. Garbage that is old by now is kept.
        """
        if not self._wanted:
            return
        self.why = _set_by_others()
        if self.why is not None:
            return
        self._former = gc.get_threshold()
        young, middle, full = self._former
        self._set = (young, middle, full * RARER)  # a full threshold of 0 means an incremental collector: it stays
        gc.set_threshold(*self._set)
        self.in_force = "tuned"
        self.freeze()

    def freeze(self) -> bool:
        """Leave out of later collections what is there now: packages have been imported. Whether that was done.

        A few times at most: each time keeps what is garbage later.
        """
        if self.in_force != "tuned" or self._freezes >= MOST_FREEZES:
            return False
        self._freezes += 1
        gc.collect(1)  # the young ones: that takes a few milliseconds, and much of an import is garbage by now
        gc.freeze()
        self._frozen = gc.get_freeze_count()
        return True

    async def collect_when_idle(self, lag: LoopLag, busy: Callable[[], bool]) -> None:
        """Until cancelled, make the full collections that are due by the usual thresholds when the loop is idle."""
        while True:
            idle = await lag.idle(LOOK_EVERY, share=IDLE_SHARE)
            if idle and not busy() and self.in_force == "tuned" and gc.isenabled() and self.is_due:
                gc.collect()

    @property
    def is_due(self) -> bool:
        """Whether Python would make a full collection by the thresholds that it begins with."""
        return gc.get_count()[2] >= max(1, self._former[2])

    def restore(self) -> None:
        """Undo what was changed, but for what another one has set since. May be called at any time, and again."""
        if self.in_force != "tuned":
            return
        self.in_force = "untouched"
        if gc.get_threshold() == self._set:
            gc.set_threshold(*self._former)
        if gc.get_freeze_count() < self._frozen + MANY:  # more: frozen by another one as well, who relies on it
            gc.unfreeze()


def _set_by_others() -> str | None:
    """How the collector has been set by the user or another extension, as a sentence; None: it was not."""
    if not gc.isenabled():
        return "Garbage collection is off in this process."
    if gc.get_threshold() not in USUAL:
        return f"The thresholds of garbage collection in this process were set to {gc.get_threshold()}."
    if gc.get_freeze_count() >= MANY:
        return "Objects of this process are left out of garbage collection (gc.freeze) by another extension."
    return None
