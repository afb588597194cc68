"""The watch of one open ``when`` recall: what it waits for in its kernel, its timers, and the occurrences it emits.

Not responsible for finding kernels (``watcher``) or for storing occurrences in the ledger (``delivery``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..model.recalls import When, WhenEvent
from ..model.sessions import Session
from ..ports.jupyter import (
    CellBegan,
    CellEnded,
    CellObserver,
    CellRun,
    CellState,
    CellSubscription,
    KernelLost,
    KernelNotice,
    LostHow,
)
from ..ports.recalls import RecallState
from .cell_target import CELL_EVENTS, REQUEST, CellTarget, counts, wanted
from .report import TriggerReport, cell_report, seconds_text

SETTLE = 0.5  # seconds without a cell after which a kernel is idle: those of a queue follow each other faster
REMEMBER_AFTER = 1.0
"""Seconds that a cell runs before it is stored as the target: most cells end sooner, and need no write."""
ENDING_WITHIN = 15.0  # seconds that a kernel may take to end after it was asked to
MISSING_AFTER = 3.0  # seconds in which a target that still runs shows a sign of it
OWN_CELL = 1.0  # seconds that the cell in which a recall was made must go on to count as activity of the kernel
MAX_COMPARISONS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurrence:
    """Something that a recall waits for."""

    key: str  # the same for every server that sees it: the ledger takes it once
    at: datetime
    report: TriggerReport | Callable[[], TriggerReport]  # a function is called in a thread: it decodes images
    never: str | None = None  # why what is waited for cannot happen any more: the recall ends


@dataclass(eq=False)
class Watch:
    """See the module. The callbacks must not block."""

    state: RecallState
    session: Session
    on_occurrence: Callable[[Watch, Occurrence], None]
    on_problem: Callable[[Watch, str], None]  # called with why it cannot be watched
    on_target_known: Callable[[Watch, When], None]
    """Called with a schedule that names the target cell, to be stored: it is then known after this process, too."""
    observer: CellObserver | None = None

    def __post_init__(self) -> None:
        when = self.state.recall.schedule
        if not isinstance(when, When):
            raise TypeError("only recalls with a When schedule are watched")
        self.when: When = when
        self.target = CellTarget.of(self.when, once=self.once)
        self.subscription: CellSubscription | None = None
        self.ready = asyncio.Event()  # its kernel or files are watched now, or there are none to watch
        self.over = False  # it has happened (`once`)
        self.pending = 0  # occurrences that are not in the ledger yet
        self.cell_ended = asyncio.Event()  # for expressions, which are evaluated between cells
        self.last_cell = ""
        self.problems: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._remembering: asyncio.TimerHandle | None = None
        self._presence_check: asyncio.TimerHandle | None = None
        self._comparisons: set[asyncio.Task[None]] = set()
        self._held: CellRun | None = None  # the target, interrupted by what ends its kernel

    @property
    def id(self) -> str:
        """The recall's id."""
        return self.state.recall.id

    @property
    def once(self) -> bool:
        """Whether it is over when it has happened."""
        return self.when.repeat == "once"

    @property
    def of_kernel(self) -> bool:
        """Whether it needs a kernel."""
        return self.when.event is not WhenEvent.FILE_CHANGED

    def subscribed(self, subscription: CellSubscription) -> None:
        """Its kernel is observed from now on."""
        self.subscription = subscription
        running = subscription.running()
        if self.when.event in CELL_EVENTS:
            target = self.target.begin(running, busy=subscription.busy)
            if self.when.event is WhenEvent.CELL_SLOW and (target is not None or self.target.unknown):
                self._slow_timer(target)
            self._remember(subscription.kernel_id)
            self._check_present()
        self.ready.set()

    def unsubscribed(self) -> None:
        """Its kernel is not observed any more; another one may come."""
        self.subscription = None
        self._disarm()
        if self._presence_check is not None:
            self._presence_check.cancel()
        self.target = CellTarget.of(self.when, once=self.once) if not self.target.bound else self.target

    def target_stored(self, when: When) -> None:
        """The target is stored."""
        self.when = when
        self.state = replace(self.state, recall=self.state.recall.model_copy(update={"schedule": when}))

    def close(self) -> None:
        """Cancel everything; the recall is not open any more."""
        self.over = True
        self._disarm()
        for timer in (self._remembering, self._presence_check):
            if timer is not None:
                timer.cancel()
        for task in self._comparisons:
            task.cancel()

    def on_notice(self, notice: KernelNotice) -> None:
        """Something happened in its kernel."""
        if self.over:
            return
        match notice:
            case CellBegan(run=run):
                self._on_began(run)
            case CellEnded(run=run):
                self.last_cell = run.id
                self._on_ended(run)
                self.cell_ended.set()
            case KernelLost():
                self._on_lost(notice)

    def _on_began(self, run: CellRun) -> None:
        event = self.when.event
        if event is WhenEvent.KERNEL_IDLE:
            self._disarm()
        elif event in CELL_EVENTS and self.target.began(run):
            self._remember(run.kernel_id)
            if event is WhenEvent.CELL_SLOW:
                self._slow_timer(run)

    def _remember(self, kernel_id: str) -> None:
        """Have the target stored, if it is known now and does not end at once."""
        if not self._pinned or self._remembering is not None:
            return
        when = self.when.model_copy(update={"cell": f"{REQUEST}{self.target.named}", "kernel_id": kernel_id})
        if when != self.when:
            loop = asyncio.get_running_loop()
            self._remembering = loop.call_later(REMEMBER_AFTER, lambda: self.on_target_known(self, when))

    def _on_ended(self, run: CellRun) -> None:
        event = self.when.event
        if event is WhenEvent.KERNEL_IDLE:
            self._on_activity(run)
        elif event in CELL_EVENTS:
            if self.target.hits(run):
                if run.state == "interrupted" and self.subscription is not None and self.subscription.ending:
                    self._hold(run)
                else:
                    self._on_target_ended(run)
            elif self.target.named is not None and not self.target.bound and self.observer is not None and run.source:
                self._start(self._compare(run, self.target.named, self.observer))

    def _hold(self, run: CellRun) -> None:
        """It was interrupted because Jupyter ends its kernel: emitted with that end, or later without it."""
        self._held = run
        self._arm(ENDING_WITHIN, lambda: self._release(run.state))

    def _release(self, state: CellState) -> None:
        run, self._held = self._held, None
        if run is not None:
            self._on_target_ended(replace(run, state=state))

    def _on_target_ended(self, run: CellRun) -> None:
        event = self.when.event
        if event is WhenEvent.CELL_SLOW:
            self._disarm()
        elif wanted(event, run.state):
            self._emit_cell(run)
        if self._pinned and not wanted(event, run.state):
            self._give_up(_WITHOUT[event].format(how=_HOW[run.state]))

    def _on_lost(self, lost: KernelLost) -> None:
        event = self.when.event
        self._disarm()
        if self._held is not None:  # interrupted a moment ago by what ended its kernel
            self._release(lost.how)
        elif event in CELL_EVENTS:
            targets = [run for run in lost.running if self.target.hits(run)]
            for run in targets:
                self._on_target_ended(run)
            if not targets and (self.target.unknown or self._pinned):
                self._on_unseen_target_lost(lost)
        elif (event is WhenEvent.KERNEL_DIED and lost.how == "died") or (
            event is WhenEvent.KERNEL_RESTARTED and lost.how == "restarted"
        ):
            self._emit(f"{lost.kernel_id}:{lost.process}:{lost.how}", lambda: self._loss_report(lost))

    def _loss_report(self, lost: KernelLost) -> TriggerReport:
        what = _LOST[lost.how]
        if lost.running:
            return cell_report(lost.running[0], first=what, notebook=self.session.notebook_path)
        return TriggerReport(detail=f"{what} It ran nothing then.{self._place}")

    @property
    def _pinned(self) -> bool:
        """One execution is the target, which can only be in this kernel's process."""
        return self.once and self.target.bound

    def _on_unseen_target_lost(self, lost: KernelLost) -> None:
        """The target was in the process that is lost, and none of its messages was seen."""
        event = self.when.event
        if wanted(event, lost.how):
            self._emit_text(lost.kernel_id, f"{_LOST[lost.how]} What the cell showed until then is not known.")
        elif self.once:
            self._give_up(_WITHOUT[event].format(how=_HOW[lost.how]))

    def lost_elsewhere(self) -> None:
        """The kernel that it names is gone, and with it the server that had it and could have seen its end."""
        kernel_id, event = self.when.kernel_id or "", self.when.event
        gone = "The kernel is gone, and so is the Jupyter server that ran it"
        if event in CELL_EVENTS and wanted(event, "died"):
            what = f"{gone}: what became of the cell in it, and what it showed, is not known. All variables are gone."
            self._emit_text(kernel_id, what)
        elif event is WhenEvent.KERNEL_DIED and self.once:
            self._emit(f"{kernel_id}:gone:died", TriggerReport(detail=f"{gone}. All variables are gone.{self._place}"))
        else:
            self._give_up("the kernel that it waits for is gone, and so is the Jupyter server that ran it")

    def _give_up(self, reason: str) -> None:
        """What it waits for cannot happen any more."""
        # A key of its own for each target: when the recall waits again, for another one, it can fail again.
        key = f"never:{self.when.kernel_id}:{self.target.named}:{self.when.event}"
        report = TriggerReport(detail="")
        self.on_occurrence(self, Occurrence(key=key, at=datetime.now(UTC), report=report, never=reason))

    @property
    def _place(self) -> str:
        return f"\nNotebook: {self.session.notebook_path}" if self.session.notebook_path else ""

    def _check_present(self) -> None:
        """Later, check that the target runs: it may have ended while its kernel was not observed."""
        if self._pinned:
            self._presence_check = asyncio.get_running_loop().call_later(MISSING_AFTER, self._on_missing)

    def _on_missing(self) -> None:
        subscription, event = self.subscription, self.when.event
        if self.over or subscription is None or any(run.id == self.target.named for run in subscription.running()):
            return
        if subscription.busy:  # it may be what runs: a cell that prints nothing shows no sign until its end
            self._check_present()
        elif wanted(event, "finished") and wanted(event, "failed"):
            what = "The cell is over. It ended while it was not watched: what it showed is not known."
            self._emit_text(subscription.kernel_id, what)
        else:
            self._give_up("the cell ended while it was not watched")

    def _emit_cell(self, run: CellRun, first: str | None = None) -> None:
        place = self.session.notebook_path
        key = f"{run.kernel_id}:{run.id}:{self.when.event}"
        self._emit(key, lambda: cell_report(run, first=first, notebook=place))

    def _emit_text(self, kernel_id: str, text: str) -> None:
        """An occurrence of the target of which no cell run is at hand."""
        key = f"{kernel_id}:{self.target.named}:{self.when.event}"
        self._emit(key, TriggerReport(detail=text + self._place))

    def _emit(self, key: str, report: TriggerReport | Callable[[], TriggerReport]) -> None:
        self.on_occurrence(self, Occurrence(key=key, at=datetime.now(UTC), report=report))

    async def _compare(self, run: CellRun, cell_id: str, observer: CellObserver) -> None:
        """Whether the notebook's cell is what ran: messages name no cell, so its source is compared."""
        source = await observer.source_of(self.session, cell_id)
        if source is not None and run.source is not None and source.strip() == run.source.strip() and not self.over:
            self._on_target_ended(run)

    def _start(self, comparison: Any) -> None:
        if len(self._comparisons) > MAX_COMPARISONS:  # of a flood of cells, by a loop that runs them
            comparison.close()
            return
        task = asyncio.ensure_future(comparison)
        self._comparisons.add(task)
        task.add_done_callback(self._comparisons.discard)

    def _slow_timer(self, run: CellRun | None) -> None:
        """``run`` None: the one that runs is not known."""
        limit = self.when.longer_than.total_seconds() if self.when.longer_than else 0.0
        self._arm(max(0.0, limit - (run.duration if run else 0.0)), lambda: self._on_slow(run.id if run else None))

    def _on_slow(self, run_id: str | None) -> None:
        if self.subscription is None:
            return
        run = next((run for run in self.subscription.running() if run_id in (None, run.id)), None)
        longer = seconds_text(self.when.longer_than.total_seconds()) if self.when.longer_than else ""
        first = f"A cell runs for longer than {longer}."
        if run is not None:
            self._emit_cell(run, first)
        elif run_id is None and self.subscription.busy:
            key = f"{self.subscription.kernel_id}:{self.subscription.process}:{self.id}:{self.when.event}"
            detail = f"{first} It began before it was watched, and has shown nothing since."
            self._emit(key, TriggerReport(detail=detail))

    def _on_activity(self, run: CellRun) -> None:
        if not counts(run) or (not run.complete and run.duration < OWN_CELL):
            return
        # Every cell starts the time anew: a queue of cells is one activity.
        wait = max(SETTLE, self.when.longer_than.total_seconds() if self.when.longer_than else 0.0)
        self._arm(wait, lambda: self._on_idle(run))

    def _on_idle(self, run: CellRun) -> None:
        if self.subscription is not None and self.subscription.busy:
            return  # a cell whose beginning we missed runs; its end is another activity
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
