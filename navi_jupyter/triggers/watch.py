"""One open ``when`` recall: what it waits for in its kernel, its timers, and what it has to tell.

Not responsible for finding kernels (``watcher``) or for bringing what happened into the ledger (``delivery``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from ..model.recalls import When, WhenEvent
from ..model.sessions import Session
from ..ports.jupyter import (
    CellBegan,
    CellEnded,
    CellRun,
    CellSources,
    CellState,
    CellSubscription,
    KernelLost,
    KernelNotice,
    LostHow,
)
from ..ports.recalls import RecallState
from .cell_target import CELL_EVENTS, REQUEST, CellTarget, counts, wanted
from .report import TriggerReport, cell_report, seconds_text

SETTLE = 0.5
"""Seconds without a cell after which a kernel is idle: those of a queue follow each other faster."""
REMEMBER_AFTER = 1.0
"""Seconds that a cell runs before it is stored that it is the one which is meant."""
ENDING_WITHIN = 15.0
"""Seconds that a kernel may take to end after it was asked to."""
MISSING_AFTER = 3.0
"""Seconds in which an execution that is meant is heard of, if it goes on."""
OWN_CELL = 1.0
"""Seconds that the cell in which a recall was made must go on to count as something that the kernel did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurrence:
    """Something that a recall waits for. What is told is made in a thread: it may decode pictures."""

    key: str
    at: datetime
    report: TriggerReport | Callable[[], TriggerReport]
    never: str | None = None
    """It is the end of the waiting: why what is waited for can not happen any more."""


class Happen(Protocol):
    """Takes what happened. Must not block."""

    def __call__(self, watch: Watch, occurrence: Occurrence) -> None: ...


@dataclass(eq=False)
class Watch:
    """See the module. ``happen``, ``trouble`` (could not look, and why) and ``narrow`` must not block."""

    state: RecallState
    session: Session
    happen: Happen
    trouble: Callable[[Watch, str], None]
    narrow: Callable[[Watch, When], None]
    """Told which cell is meant, so that it is known after this process."""
    sources: CellSources | None = None

    def __post_init__(self) -> None:
        when = self.state.recall.schedule
        if not isinstance(when, When):
            raise TypeError("only what waits for something is watched")
        self.when: When = when
        self.aim = CellTarget.of(self.when, once=self.once)
        self.hearing: CellSubscription | None = None
        self.looked_for = asyncio.Event()
        """It is being watched, or it is known that there is nothing to watch."""
        self.over = False
        """It has happened (``once``)."""
        self.pending = 0
        """Occurrences that are not in the ledger yet."""
        self.cell_over = asyncio.Event()
        """A cell ended; for what is looked at between cells."""
        self.last_cell = ""
        self.troubles: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._remembering: asyncio.TimerHandle | None = None
        self._missing: asyncio.TimerHandle | None = None
        self._questions: set[asyncio.Task[None]] = set()
        self._held: CellRun | None = None
        """The cell that is meant, which was interrupted by what ends its kernel."""

    @property
    def id(self) -> str:
        """Of the recall."""
        return self.state.recall.id

    @property
    def once(self) -> bool:
        """Whether it is over when it has happened."""
        return self.when.repeat == "once"

    @property
    def of_kernel(self) -> bool:
        """Whether it needs a kernel."""
        return self.when.event is not WhenEvent.FILE_CHANGED

    # --- a kernel ----------------------------------------------------------------------------------------------------

    def begin(self, hearing: CellSubscription) -> None:
        """Its kernel is being listened to."""
        self.hearing = hearing
        running = hearing.running()
        if self.when.event in CELL_EVENTS:
            meant = self.aim.begin(running, busy=hearing.busy)
            if self.when.event is WhenEvent.CELL_SLOW and (meant is not None or self.aim.unknown):
                self._slow_timer(meant)
            self._remember(hearing.kernel_id)
            self._look_for_it()
        self.looked_for.set()

    def lose(self) -> None:
        """Its kernel is not listened to any more; another one may come."""
        self.hearing = None
        self._disarm()
        if self._missing is not None:
            self._missing.cancel()
        self.aim = CellTarget.of(self.when, once=self.once) if not self.aim.bound else self.aim

    def narrowed(self, when: When) -> None:
        """It is stored now which cell is meant."""
        self.when = when
        self.state = replace(self.state, recall=self.state.recall.model_copy(update={"schedule": when}))

    def close(self) -> None:
        """Nobody wants to know any more."""
        self.over = True
        self._disarm()
        for timer in (self._remembering, self._missing):
            if timer is not None:
                timer.cancel()
        for task in self._questions:
            task.cancel()

    def take(self, noticed: KernelNotice) -> None:
        """Something happened in its kernel."""
        if self.over:
            return
        match noticed:
            case CellBegan(run=run):
                self._on_began(run)
            case CellEnded(run=run):
                self.last_cell = run.id
                self._on_ended(run)
                self.cell_over.set()
            case KernelLost():
                self._on_lost(noticed)

    def _on_began(self, run: CellRun) -> None:
        event = self.when.event
        if event is WhenEvent.KERNEL_IDLE:
            self._disarm()
        elif event in CELL_EVENTS and self.aim.began(run):
            self._remember(run.kernel_id)
            if event is WhenEvent.CELL_SLOW:
                self._slow_timer(run)

    def _remember(self, kernel_id: str) -> None:
        """Have it stored which cell is meant, if it is known now and does not end at once."""
        if not (self.once and self.aim.bound) or self._remembering is not None:
            return
        narrower = self.when.model_copy(update={"cell": f"{REQUEST}{self.aim.named}", "kernel_id": kernel_id})
        if narrower != self.when:
            loop = asyncio.get_running_loop()
            self._remembering = loop.call_later(REMEMBER_AFTER, lambda: self.narrow(self, narrower))

    def _on_ended(self, run: CellRun) -> None:
        event = self.when.event
        if event is WhenEvent.KERNEL_IDLE:
            self._on_activity(run)
        elif event in CELL_EVENTS:
            if self.aim.hits(run):
                if run.state == "interrupted" and self.hearing is not None and self.hearing.ending:
                    self._hold(run)
                else:
                    self._on_meant(run)
            elif self.aim.named is not None and not self.aim.bound and self.sources is not None and run.source:
                self._ask(self._compare(run, self.aim.named, self.sources))

    def _hold(self, run: CellRun) -> None:
        """It was interrupted because its kernel is to end: told with that, or without when nothing comes of it."""
        self._held = run
        self._arm(ENDING_WITHIN, lambda: self._release(run.state))

    def _release(self, state: CellState) -> None:
        run, self._held = self._held, None
        if run is not None:
            self._on_meant(replace(run, state=state))

    def _on_meant(self, run: CellRun) -> None:
        """The cell that is meant has ended."""
        event = self.when.event
        if event is WhenEvent.CELL_SLOW:
            self._disarm()
        elif wanted(event, run.state):
            self._emit_cell(run)
        if self.once and self.aim.bound and not wanted(event, run.state):
            self.give_up(_WITHOUT[event].format(how=_HOW[run.state]))

    def _on_lost(self, lost: KernelLost) -> None:
        event = self.when.event
        self._disarm()
        if self._held is not None:
            self._release(lost.how)
        elif event in CELL_EVENTS:
            meant = [run for run in lost.running if self.aim.hits(run)]
            for run in meant:
                self._on_meant(run)
            if not meant and (self.aim.unknown or self._pinned):
                self._on_lost_unheard(lost)
        elif (event is WhenEvent.KERNEL_DIED and lost.how == "died") or (
            event is WhenEvent.KERNEL_RESTARTED and lost.how == "restarted"
        ):
            self._emit(f"{lost.kernel_id}:{lost.process}:{lost.how}", lambda: _loss_report(lost, self.session))

    @property
    def _pinned(self) -> bool:
        """One execution is meant, which can only be in this kernel's process."""
        return self.once and self.aim.bound

    def _on_lost_unheard(self, lost: KernelLost) -> None:
        """A cell that is meant was in the process that is lost, and nothing was heard of it."""
        event = self.when.event
        if wanted(event, lost.how):
            what = f"{_LOST[lost.how]} What the cell showed until then was not heard."
            self._emit(f"{lost.kernel_id}:{self.aim.named}:{event}", TriggerReport(detail=what + self._place))
        elif self.once:
            self.give_up(_WITHOUT[event].format(how=_HOW[lost.how]))

    def lost_elsewhere(self) -> None:
        """The kernel that it names is gone, and with it the server that had it: nobody was there to hear its end."""
        kernel_id, event = self.when.kernel_id or "", self.when.event
        gone = "The kernel is gone, and so is the Jupyter server that ran it"
        if event in CELL_EVENTS and wanted(event, "died"):
            what = f"{gone}: what became of the cell in it, and what it showed, is not known. All variables are gone."
            self._emit(f"{kernel_id}:{self.aim.named}:{event}", TriggerReport(detail=what + self._place))
        elif event is WhenEvent.KERNEL_DIED and self.once:
            self._emit(f"{kernel_id}:gone:died", TriggerReport(detail=f"{gone}. All variables are gone.{self._place}"))
        else:
            self.give_up("the kernel that it waits for is gone, and so is the Jupyter server that ran it")

    def give_up(self, reason: str) -> None:
        """What it waits for can not happen any more."""
        key = f"never:{self.when.kernel_id}:{self.aim.named}:{self.when.event}"
        report = TriggerReport(detail="")
        self.happen(self, Occurrence(key=key, at=datetime.now(UTC), report=report, never=reason))

    @property
    def _place(self) -> str:
        return f"\nNotebook: {self.session.notebook_path}" if self.session.notebook_path else ""

    def _look_for_it(self) -> None:
        """See to it that the execution that is meant is there: it may have ended while nobody listened."""
        if self._pinned:
            self._missing = asyncio.get_running_loop().call_later(MISSING_AFTER, self._on_missing)

    def _on_missing(self) -> None:
        hearing, event = self.hearing, self.when.event
        if self.over or hearing is None or any(run.id == self.aim.named for run in hearing.running()):
            return
        if hearing.busy:
            self._look_for_it()
        elif wanted(event, "finished") and wanted(event, "failed"):
            what = f"The cell is over. It ended while it was not watched: what it showed is not known.{self._place}"
            self._emit(f"{hearing.kernel_id}:{self.aim.named}:{event}", TriggerReport(detail=what))
        else:
            self.give_up("the cell ended while it was not watched")

    def _emit_cell(self, run: CellRun, first: str | None = None) -> None:
        place = self.session.notebook_path
        key = f"{run.kernel_id}:{run.id}:{self.when.event}"
        self._emit(key, lambda: cell_report(run, first=first, notebook=place))

    def _emit(self, key: str, report: TriggerReport | Callable[[], TriggerReport]) -> None:
        self.happen(self, Occurrence(key=key, at=datetime.now(UTC), report=report))

    # --- a cell of a notebook, by its id -----------------------------------------------------------------------------

    async def _compare(self, run: CellRun, cell_id: str, sources: CellSources) -> None:
        """A kernel does not say which cell it runs: it is the one that holds what ran."""
        source = await sources.source_of(self.session, cell_id)
        if source is not None and run.source is not None and source.strip() == run.source.strip() and not self.over:
            self._on_meant(run)

    def _ask(self, question: Any) -> None:
        if len(self._questions) > _MOST_QUESTIONS:
            question.close()
            return
        task = asyncio.ensure_future(question)
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    # --- timers ------------------------------------------------------------------------------------------------------

    def _slow_timer(self, run: CellRun | None) -> None:
        """``run`` None: the one that runs is not known."""
        limit = self.when.longer_than.total_seconds() if self.when.longer_than else 0.0
        self._arm(max(0.0, limit - (run.duration if run else 0.0)), lambda: self._on_slow(run.id if run else None))

    def _on_slow(self, run_id: str | None) -> None:
        if self.hearing is None:
            return
        runs = self.hearing.running()
        run = next((run for run in runs if run_id in (None, run.id)), None)
        longer = seconds_text(self.when.longer_than.total_seconds()) if self.when.longer_than else ""
        first = f"A cell runs for longer than {longer}."
        if run is not None:
            self._emit_cell(run, first)
        elif run_id is None and self.hearing.busy:
            key = f"{self.hearing.kernel_id}:{self.hearing.process}:{self.id}:{self.when.event}"
            detail = f"{first} It began before it was watched, and has shown nothing since."
            self._emit(key, TriggerReport(detail=detail))

    def _on_activity(self, run: CellRun) -> None:
        if not counts(run) or (not run.complete and run.duration < OWN_CELL):
            return
        wait = max(SETTLE, self.when.longer_than.total_seconds() if self.when.longer_than else 0.0)
        self._arm(wait, lambda: self._on_idle(run))

    def _on_idle(self, run: CellRun) -> None:
        if self.hearing is not None and self.hearing.busy:
            return  # something that we did not begin to hear; its end is another activity
        idle = self.when.longer_than
        first = f"The kernel is idle{f', for {seconds_text(idle.total_seconds())} now' if idle else ''}. The last cell:"
        self._emit_cell(run, first)

    def _arm(self, after: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(after, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_MOST_QUESTIONS = 100
_WITHOUT = {
    WhenEvent.CELL_DONE: "the cell {how}",
    WhenEvent.CELL_FINISHED: "the cell did not finish: it {how}",
    WhenEvent.CELL_FAILED: "the cell did not fail: it {how}",
    WhenEvent.CELL_SLOW: "the cell did not take so long: it {how}",
}
_HOW: Mapping[CellState, str] = {
    "running": "still runs",
    "finished": "finished without an error",
    "failed": "failed",
    "interrupted": "was interrupted",
    "died": "ended with its kernel, which died",
    "restarted": "ended with its kernel, which was restarted",
    "closed": "ended with its kernel, which was shut down",
}
_LOST: Mapping[LostHow, str] = {
    "died": "The kernel died: its process is gone, and all its variables.",
    "restarted": "The kernel was restarted; its variables are gone.",
    "closed": "The kernel was shut down.",
}


def _loss_report(lost: KernelLost, session: Session) -> TriggerReport:
    what = _LOST[lost.how]
    if lost.running:
        return cell_report(lost.running[0], first=what, notebook=session.notebook_path)
    place = f"\nNotebook: {session.notebook_path}" if session.notebook_path else ""
    return TriggerReport(detail=f"{what} It ran nothing then.{place}")
