"""The loop that fires recalls: sleep until something is due, plan, claim, deliver, record the outcome.

- *Plan and claim*: one transaction inserts the firings, advances the recalls and takes the leases.
- *Deliver*: a prompt whose ``command_id`` names the planned time; the session swallows a repetition of it.
- *Settle*: the outcomes, in batches, with the event that reports each in the same transaction.

Killed between any two of these, the next sweep (of this or any server on the same database) goes on from the rows.
Materialising and delivering a slot happens exactly once; a run that its server did not survive is started again under
the same message if it had changed nothing, else only where the recall has ``retries``. Not responsible for the rules:
these are in ``decisions``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from ..clock import ClockSteps, SystemClock, boot_time
from ..errors import StoreError
from ..log_setup import get_logger
from ..model.sessions import OriginKind, Run
from ..ports.tracing import NO_TRACING, Tracing
from .clock_steps import LOOK_EVERY, NOTICED, SKEW, bound_times, plan_anew
from .decisions import Busy, Ended, Outcome, PromptAccepted
from .delivery import RecallDelivery
from .ledger import Lease, Report, current, settle_apart, store_plans
from .misfires import MissedReport, Plan
from .mutations import WhensChanged, no_callback, no_whens_changed, owners_of_whens
from .outcomes import Step
from .planner import BATCH, Planner
from .sweeper import Sweeper

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ports.recalls import Claimed, RecallStore, RecallTx
    from ..ports.store import Submit

log = get_logger("recalls")

LONGEST_SLEEP = timedelta(seconds=30)  # So that a suspended machine or a stepped clock is noticed.
LEASE = timedelta(seconds=10)
"""A delivery takes milliseconds; when its server dies in it, others take over after this at the latest."""
RELIED_ON = LEASE - timedelta(seconds=2)  # So long a claim is acted on: the clocks of servers differ.
SETTLE_BATCH = 256
IN_FLIGHT = 1024  # Claims that wait for or are in delivery.
HELD_REPORTS = 10_000  # So many outcomes may wait to be recorded while more is due.
DELIVERIES = 64  # Prompts that are submitted at the same time.
BREATH = 0.005  # Seconds of a turn of the event loop that deliveries which never wait take, all together.
SWEEP_SECONDS = 15.0
RETRY = timedelta(seconds=1)


class Scheduler:
    """Makes the recalls of a store happen. ``async with`` it, or :meth:`start` and :meth:`stop` it."""

    def __init__(
        self,
        store: RecallStore,
        submit: Submit,
        *,
        server_id: str,
        busy_delay: timedelta = timedelta(seconds=60),
        clock: Clock | None = None,
        trusted: Callable[[], bool] = lambda: True,
        steady: Callable[[], float] | None = None,
        whens_changed: WhensChanged = no_whens_changed,
        notices_changed: Callable[[], None] = no_callback,
        full_text: Callable[[str], str] = lambda message: message,
        spans: Tracing = NO_TRACING,
    ) -> None:
        self._store = store
        self._whens_changed = whens_changed
        self._notices_changed = notices_changed  # Called when people are to be notified of a firing; never blocks.
        self._trusted = trusted  # Whether this server may act for what it has claimed; else nothing is started.
        self._clock = clock or SystemClock()
        self._lease: Callable[[datetime], Lease] = lambda at: Lease(server_id=server_id, until=at + LEASE)
        self._planner = Planner(store, self._lease)
        self._delivery = RecallDelivery(
            store,
            submit,
            clock=self._clock,
            busy_delay=busy_delay,
            whens_changed=whens_changed,
            full_text=full_text,
            spans=spans,
        )
        self._sweeper = Sweeper(store, submit, server_id=server_id, clock=self._clock)
        self._signal = asyncio.Event()
        self._groups: deque[tuple[float, list[Claimed]]] = deque()
        """Claims to deliver, by session, and since when they are claimed at most (``boot_time``)."""
        self._called: asyncio.Queue[None] = asyncio.Queue()
        """An entry calls one more delivery to the groups: a queue of the groups themselves costs as much as they do."""
        self._turn_since: float | None = None
        """Since when deliveries are made in this turn of the event loop; None where there was none yet."""
        self._in_flight = 0
        self._reports: list[Report] = []
        self._reported = asyncio.Event()
        self._waited_for: set[str] = set()
        """Sessions that deferred firings wait for: only the end of their runs needs a transaction."""
        self._idle_meanwhile: set[str] = set()
        """Sessions of which a run ended while a firing that had found them busy was not yet recorded as deferred."""
        self._starters: list[asyncio.Task[None]] = []  # The loop and the deliveries: what starts something.
        self._settler: asyncio.Task[None] | None = None
        self._more_since: datetime | None = None
        """Since when each turn has found a full batch: outcomes are recorded after the rest has started."""
        self._missed_report = MissedReport(store)
        self._steady = steady or (boot_time if clock is None else lambda: self._clock.now().timestamp())
        self._steps = ClockSteps(self._steady, self._clock.now)
        self._set_back = timedelta(0)  # By how much the clock was set back, while that is not dealt with.
        # When it was looked for what a clock that was ahead has planned: this server's, or another one's.
        self._planned_anew_at: float | None = None
        self._stopping = False
        self._periodic: Any = None
        self.open = 0  # Recalls that are not over, as of the last sweep.
        self.awake = False  # Whether one of them is not paused.
        self.due: datetime | None = None  # What is next, as of the last turn.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take over what a dead server left, then run the loop in the background."""
        # Late, because only a running server needs it.
        from tornado.ioloop import PeriodicCallback

        await self._guarded("sweep", self.sweep())
        self._settler = asyncio.create_task(self._settle_forever(), name="navi-recalls-settle")
        self._starters = [
            asyncio.create_task(self._run(), name="navi-recalls"),
            *(
                asyncio.create_task(self._deliver_forever(), name=f"navi-recalls-deliver-{n}")
                for n in range(DELIVERIES)
            ),
        ]
        self._periodic = PeriodicCallback(self._safety_net, SWEEP_SECONDS * 1000, jitter=0.1)
        self._periodic.start()

    async def stop(self) -> None:
        """Start nothing more and record the outcomes of what was started. The rest is taken over by other servers."""
        if self._stopping:
            return
        self._stopping = True
        if self._periodic is not None:
            self._periodic.stop()
        for task in self._starters:
            task.cancel()
        await asyncio.gather(*self._starters, return_exceptions=True)
        # Only now: a delivery that was cancelled half-way reports nothing more.
        self._reported.set()
        if self._settler is not None:
            await self._settler

    def wake(self) -> None:
        """Run the loop now: a recall was made or changed."""
        self._signal.set()

    async def on_run_started(self, run: Run) -> None:
        """A run that had waited in its session's queue began in this process. Never blocks, never raises."""
        if run.origin.kind is OriginKind.RECALL:
            began = PromptAccepted(run_id=run.id, at=run.started_at or self._clock.now())
            self._report(Report(outcome=began, command_id=run.command_id))

    async def on_run_ended(self, run: Run) -> None:
        """A run of this process reached its final status. Never blocks, never raises."""
        if run.origin.kind is OriginKind.RECALL:
            self._report(Report(outcome=Ended(run=run), command_id=run.command_id))
        if run.session_id in self._waited_for and not self._stopping:
            self._waited_for.discard(run.session_id)
            # Its firing is not deferred in the database yet, so that the transaction below would not find it.
            if any(report.session_id == run.session_id for report in self._reports):
                self._idle_meanwhile.add(run.session_id)
            await self._guarded("wake_deferred", self._wake_deferred(run.session_id))

    async def _wake_deferred(self, session_id: str) -> None:
        now = self._clock.now()
        if await self._store.write(lambda tx: tx.wake_deferred([session_id], now=now)):
            self._waited_for.add(session_id)  # one at a time: the others wait for the run of this one
            self.wake()

    async def _guarded(self, what: str, work: Awaitable[object]) -> bool:
        """Supervise one piece of work: a failure is logged and does not end the loop around it."""
        try:
            await work
        except StoreError as error:
            log.error("recalls_store_unavailable", during=what, error=error.message)
        except Exception:
            log.exception("recalls_failed", during=what)
        else:
            return True
        return False

    async def _safety_net(self) -> None:
        await self._guarded("sweep", self.sweep())
        await self._guarded("prune", self.prune())
        # In case a signal was lost: another server, or a person with the sqlite shell, changed a recall.
        self.wake()

    async def _run(self) -> None:
        while not self._stopping:
            if not await self._guarded("loop", self._turn()):
                await self._clock.wait(self._signal, until=self._clock.now() + RETRY)

    async def _turn(self) -> None:
        """Sleep until something is due, or do what is."""
        self._signal.clear()  # before looking: what changes meanwhile sets it again
        now = self._clock.now()
        if not self._trusted():
            await self._clock.wait(self._signal, until=now + RETRY)
            return
        await self._follow_clock(now)
        self._missed_report.turned(now)
        due = self.due = now if self._more_since is not None else await self._store.next_wake()
        if due is not None and due <= now:
            await self._advance(now)
            return
        await self._missed_report.publish(now)
        if await self._plan_anew(now):
            return  # what it has planned may be due
        if self._reports:
            self._reported.set()
        until = now + LONGEST_SLEEP
        if due is not None and (until := min(until, self._planner.begin_at(due))) <= now:
            await self._planner.prepare(due)
        else:
            await self._clock.wait(self._signal, until=until)

    async def _follow_clock(self, now: datetime) -> None:
        """Bound what a clock that was ahead has set the end of, once it is set back. Raises StoreError: then again."""
        step = self._steps.since_last()
        if step < -NOTICED:
            self._set_back -= step
            self._planned_anew_at = None
        if self._set_back:
            log.warning("clock_set_back", seconds=self._set_back.total_seconds())
            await bound_times(self._store, now, self._set_back, LEASE)
            self._set_back = timedelta(0)

    async def _plan_anew(self, now: datetime) -> bool:
        """Plan anew what a clock that was ahead has planned, if it is time to look; whether there was any."""
        at, last = self._steady(), self._planned_anew_at
        if last is not None and 0 <= at - last < LOOK_EVERY:
            return False
        # Once whatever the difference: the clock may have been set back while no server ran.
        changed = await plan_anew(self._store, now, more_than=timedelta(0) if last is None else SKEW)
        self._planned_anew_at = at
        return bool(changed) or last is None

    async def _advance(self, now: datetime) -> None:
        """Plan and claim what is due. Sweeps when neither was it: a lease or a time limit has passed."""
        if self._in_flight >= IN_FLIGHT:
            # The leases run from the claim on: more than can be delivered in time would only be rescued again.
            await self._clock.wait(self._signal, until=now + RETRY)
            return
        burst, since = self._more_since is not None, boot_time()
        planned, claimed = await self.plan_and_claim(now)
        ends = min((c.firing.lease_until or now for c in claimed), default=now + LEASE)  # Some run since they were due.
        self._hand_out(claimed, since - (now + LEASE - ends).total_seconds())
        if self._reports:
            self._reported.set()
        if not planned and not claimed and not burst and not await self.sweep():
            await self._clock.wait(self._signal, until=now + RETRY)

    async def plan_and_claim(self, now: datetime) -> tuple[int, Sequence[Claimed]]:
        """One transaction: the times that have come go into the ledger, and this server takes what may start."""
        batch, lease = await self._planner.take(now), self._lease(now)

        async def unit(tx: RecallTx) -> tuple[Sequence[Plan | Step], Sequence[Claimed]]:
            stored = await current(tx, batch.plans)  # another server, or a user, may have been quicker with some
            ahead = batch.ahead if len(stored) == len(batch.plans) else None
            claimed = await store_plans(tx, stored, now, lease=lease, ahead=ahead) if stored else []
            await self._missed_report.note(tx, stored, now)
            claimed += await tx.claim(now=now, server_id=lease.server_id, lease_until=lease.until, limit=BATCH)
            return stored, claimed

        # Before the transaction: when it fails, the next turn plans these again.
        self._more_since = (self._more_since or now) if batch.more else None
        stored, claimed = await self._store.write(unit)
        if owners := owners_of_whens(plan.state for plan in stored):
            self._whens_changed(owners)
        if any(f.firing.delivery == "pending" for plan in stored if isinstance(plan, Plan) for f in plan.firings):
            self._notices_changed()
        return len(batch.plans), claimed  # also those that were outdated: they are made anew at once

    def _hand_out(self, claimed: Sequence[Claimed], since: float) -> None:
        """Queue claims for delivery: those of one session one after the other, in the order of their times."""
        groups: dict[str, list[Claimed]] = {}
        for claim in claimed:
            groups.setdefault(claim.firing.session_id, []).append(claim)
        self._in_flight += len(claimed)
        self._groups.extend((since, group) for group in groups.values())
        for _ in range(min(len(groups), DELIVERIES)):
            self._called.put_nowait(None)

    async def _deliver_forever(self) -> None:
        while True:
            await self._called.get()
            while self._groups:
                if not self._breath_left():
                    await asyncio.sleep(0)
                    continue
                # One session's firings in turn: the second finds it busy with the first, in the order of their times.
                claimed_at, group = self._groups.popleft()
                for claim in group:
                    if not self._trusted() or boot_time() - claimed_at >= RELIED_ON.total_seconds():
                        self._in_flight -= 1  # another server may have it; else the next sweep puts it back
                        continue
                    outcome, row = await self.deliver(claim), claim.firing
                    self._in_flight -= 1
                    self._report(
                        Report(outcome=outcome, firing_id=row.firing.id, fence=row.fence, session_id=row.session_id)
                    )
            if self._in_flight < IN_FLIGHT:
                self._signal.set()

    def _breath_left(self) -> bool:
        """Whether deliveries may go on in this turn of the event loop, which all of them share.

        So the transaction with the next batch begins while this one is delivered, and is done in its thread meanwhile.
        """
        now = time.perf_counter()
        if self._turn_since is None:
            self._turn_since = now
            asyncio.get_running_loop().call_soon(self._turned)
        return now - self._turn_since < BREATH

    def _turned(self) -> None:
        self._turn_since = None

    async def deliver(self, claim: Claimed) -> Outcome:
        """Submit the prompt to the session. Raises nothing; repeating it is harmless."""
        outcome = await self._delivery.deliver(claim)
        if isinstance(outcome, Busy) and outcome.session:
            self._waited_for.add(claim.firing.session_id)
        return outcome

    def _report(self, report: Report) -> None:
        self._reports.append(report)
        self._reported.set()

    async def _settle_forever(self) -> None:
        while not (self._stopping and not self._reports):
            await self._reported.wait()
            self._reported.clear()
            while self._reports:
                if self._may_wait():
                    break
                batch = self._reports[:SETTLE_BATCH]
                if not await self._guarded("settle", self.settle(batch)):
                    if self._stopping:
                        return  # the next sweep of any server finds these firings
                    await self._clock.wait(asyncio.Event(), until=self._clock.now() + RETRY)
                    continue
                del self._reports[: len(batch)]

    def _may_wait(self) -> bool:
        """Whether recording would hold up what is still to be started, which may take a quarter of a lease."""
        since = self._more_since
        if since is None or self._stopping or len(self._reports) >= HELD_REPORTS:
            return False
        return self._clock.now() - since < LEASE / 4

    async def settle(self, reports: Sequence[Report]) -> tuple[Step, ...]:
        """Record the outcomes of deliveries and runs; harmless to repeat."""
        steps = await settle_apart(self._store, reports, self._clock)
        self._signal.set()
        self._notify(steps)
        # These sessions became idle between finding them busy and recording that: their firings are woken now.
        busy = {r.session_id for r in reports if r.session_id and isinstance(r.outcome, Busy)}
        for session_id in busy & self._idle_meanwhile:
            self._idle_meanwhile.discard(session_id)
            await self._wake_deferred(session_id)
        return steps

    def _notify(self, steps: Sequence[Step]) -> None:
        """Call back those whom these steps concern."""
        if owners := owners_of_whens(step.state for step in steps):
            self._whens_changed(owners)
        if any(step.firing is not None and step.firing.firing.delivery == "pending" for step in steps):
            self._notices_changed()

    async def prune(self) -> int:
        """Once an hour: remove rows of the ledger that are old, a few at a time. How many."""
        return await self._sweeper.prune()

    async def sweep(self) -> int:
        """Finish what a dead server or a lost message left open; log what looks wrong. How many things were done."""
        swept = await self._sweeper.sweep({(r.firing_id, r.fence) for r in self._reports if r.firing_id is not None})
        self._waited_for |= swept.waited_for
        self.open, self.awake = swept.audit.open, swept.audit.awake
        self._notify(swept.steps)
        return len(swept.steps) + swept.stopped
