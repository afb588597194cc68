"""Tells people what their recalls came to: takes what the ledger says is to be told, and sends it.

A firing that is to be told becomes one notice per target; each is retried, held back and settled by itself, and when
none is left the ledger is told. All of it is in the database, so that it goes on after a crash, by whichever server.
A message is counted before it is sent and recorded after: killed in between, it is sent again (at least once, never
never), and one that kills whoever sends it is given up like one that nobody takes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..clock import Clock
from ..errors import LimitReached, NaviError, NotFound
from ..log_setup import get_logger
from ..model.base import new_id
from ..ports.notifications import Notice, NoticeStore, TargetRecord
from ..ports.recalls import Claimed, RecallStore
from .apprise_sender import Outcome, Send
from .messages import NotificationMessage, digest, letter, trial
from .pacing import FIRST_RETRY, HOUR, MAX_ATTEMPTS, free_at, retry_after
from .quiet_hours import QuietHours, quiet_until, read_quiet, zone_of
from .targets import BROWSER, Target, TargetFiles, Targets

log = get_logger("notify")

LOOK_EVERY = timedelta(seconds=15)
"""Between looks for what another server left, or what this one was not woken for: two reads of small indexes."""
TAKEN = timedelta(seconds=90)
"""How long what was taken is ours, counted anew when its message begins, and longer than that can take."""
SETTLE_AGAIN = timedelta(minutes=2)
BATCH = 100
AT_ONCE = 3
"""Sending processes; a target's messages go one after the other."""
STOP_PATIENCE = 2.0
"""Seconds that messages have to end when the server does, before they are broken off."""
TRIALS = 5
"""Test messages of one user within a minute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetState:
    """A target and how it did."""

    target: Target
    record: TargetRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    """What was taken at one time for one target of one user."""

    by: str
    owner: str
    target: str
    targets: Targets


class NotificationService:
    """See the module. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        ledger: RecallStore,
        notices: NoticeStore,
        files: TargetFiles,
        send: Send,
        *,
        clock: Clock,
        base_url: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._notices = notices
        self._files = files
        self._send = send
        self._clock = clock
        self._base_url = base_url
        """The server's address as far as the server knows it."""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._stopping = False
        self._trials: defaultdict[str, list[datetime]] = defaultdict(list)

    # --- life

    def start(self) -> None:
        """Begin to look. Once."""
        self._task = asyncio.create_task(self._work(), name="navi-notify")

    async def stop(self) -> None:
        """What is being sent has a moment to end; what is broken off then is sent again by the next server."""
        self._stopping = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_PATIENCE)
        self._send.close()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_PATIENCE)  # until that is written down
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """A firing may be over."""
        self._woken.set()

    async def _work(self) -> None:
        while not self._stopping:
            now = self._clock.now()
            due: datetime | None = None
            try:
                await self.deliver()
                due = await self._notices.next_due()
            except NaviError as error:
                log.error("notify_postponed", error=str(error))
            except Exception:  # The supervisor: one message's defect must not end all of them.
                log.exception("notify_failed")
            until = now + LOOK_EVERY
            if not self._stopping:
                await self._clock.wait(self._woken, until=until if due is None else max(min(until, due), now + _TICK))
                self._woken.clear()

    # --- delivering

    async def deliver(self) -> None:
        """Send what is due now, and settle what is done. Raises StoreError."""
        if await self._ledger.deliveries_pending(1):
            await self._expand()
        now = self._clock.now()
        due = await self._notices.next_due()
        if due is None or due > now:
            return
        targets = await asyncio.to_thread(self._files.read)
        by = new_id("take")
        taken = await self._notices.take(by=by, now=now, until=now + TAKEN, limit=BATCH)
        groups: defaultdict[tuple[str, str], list[Notice]] = defaultdict(list)
        for notice in taken:
            groups[notice.owner, notice.target].append(notice)
        # No TaskGroup: where one target's record fails, the others' messages are sent and must be recorded.
        told = (
            self._tell(_Round(by=by, owner=owner, target=target, targets=targets), notices)
            for (owner, target), notices in groups.items()
        )
        for result in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        await self._settle({notice.firing_id for notice in taken})

    async def _expand(self) -> None:
        """A notice for each target of each firing that is to be told."""
        now = self._clock.now()
        while claims := await self._ledger.take_deliveries(now=now, until=now + SETTLE_AGAIN, limit=BATCH):
            await self._notices.add([(claim, _targets_of(claim)) for claim in claims], now=now)
            await self._settle(claim.firing.firing.id for claim in claims)
            if len(claims) < BATCH:
                return

    async def _settle(self, firing_ids: Iterable[str]) -> None:
        for firing_id, error in await self._notices.settle(firing_ids):
            await self._ledger.delivered(firing_id, error)

    async def _tell(self, turn: _Round, notices: Sequence[Notice]) -> None:
        """Everything for one target of one user: what was held or failed in one message, the rest one by one."""
        awake = await self._without_quiet(turn, await self._without_lost(turn, notices))
        late = [notice for notice in awake if notice.held or notice.attempts]
        letters = [late] if late else []
        letters += [[notice] for notice in awake if not (notice.held or notice.attempts)]
        for number, group in enumerate(letters):
            now = self._clock.now()
            rest = [notice.number for each in letters[number:] for notice in each]
            if self._stopping:
                await self._notices.hold(rest, by=turn.by, until=now, why=None)
                return
            sent = await self._notices.sent_at(turn.owner, turn.target, since=now - HOUR)
            free = free_at(sent, now, per_hour=turn.targets.per_hour)
            if free is not None:
                await self._notices.hold(rest, by=turn.by, until=free, why="rate")
                log.info("notify_held", target=turn.target, notices=len(rest), until=free.isoformat())
                return
            problem = await self._send_to(turn, group)
            if problem is not None:
                await self._spare(turn, problem, rest[len(group) :])
                return

    async def _without_lost(self, turn: _Round, notices: Sequence[Notice]) -> list[Notice]:
        """Those that have a try left: of the others nothing was heard again, each time."""
        lost = [notice.number for notice in notices if notice.attempts >= MAX_ATTEMPTS]
        if lost:
            error = "whoever sent it did not live to see how that ended"
            await self._notices.failed(lost, by=turn.by, error=error, at=self._clock.now(), again_at=None)
            log.warning("notify_given_up", target=turn.target, notices=len(lost), problem=error)
        return [notice for notice in notices if notice.number not in lost]

    async def _without_quiet(self, turn: _Round, notices: Sequence[Notice]) -> list[Notice]:
        """Those that may be told now; the others are held until their quiet hours are over."""
        now = self._clock.now()
        awake: list[Notice] = []
        asleep: defaultdict[datetime, list[int]] = defaultdict(list)
        for notice in notices:
            window = _window(notice, turn.targets.quiet)
            until = None if window is None else quiet_until(window, now, zone_of(notice.zone))
            if until is None:
                awake.append(notice)
            else:
                asleep[until].append(notice.number)
        for until, numbers in asleep.items():
            await self._notices.hold(numbers, by=turn.by, until=until, why="quiet")
        return awake

    async def _send_to(self, turn: _Round, group: Sequence[Notice]) -> Outcome | None:
        """One message; how it went when it did not go."""
        async with self._slots:
            # After the wait for a slot: by now somebody else may have found them due.
            ours = set(
                await self._notices.attempt(
                    [notice.number for notice in group], by=turn.by, until=self._clock.now() + TAKEN
                )
            )
            group = [notice for notice in group if notice.number in ours]
            if not group:
                return None
            base = turn.targets.public_url or self._base_url()
            content = letter(group[0], base=base) if len(group) == 1 else digest(group, base=base)
            outcome = await self._outcome(turn.targets.targets.get(turn.target), content)
        now = self._clock.now()
        if outcome.problem is None:
            await self._notices.sent(ours, message_id=new_id("m"), at=now)
            log.info("notify_sent", target=turn.target, notices=len(ours))
            return None
        # Each by its own count: those that joined a digest later have tries left.
        by_tries: defaultdict[int, list[int]] = defaultdict(list)
        for notice in group:
            by_tries[notice.attempts + 1].append(notice.number)
        for attempts, tried in by_tries.items():
            again = _again_at(outcome, attempts, now)
            await self._notices.failed(tried, by=turn.by, error=outcome.problem, at=now, again_at=again)
        log.warning("notify_not_sent", target=turn.target, notices=len(ours), problem=outcome.problem)
        return outcome

    async def _spare(self, turn: _Round, outcome: Outcome, rest: Sequence[int]) -> None:
        """A target that did not take one message is not tried with the next: they come together when it takes one."""
        now = self._clock.now()
        if not rest:
            return
        if outcome.lasting:
            await self._notices.failed(rest, by=turn.by, error=str(outcome.problem), at=now, again_at=None)
        elif outcome.stopped:
            await self._notices.hold(rest, by=turn.by, until=now, why=None)
        else:
            await self._notices.hold(rest, by=turn.by, until=now + FIRST_RETRY, why="silence")

    async def _outcome(self, target: Target | None, content: NotificationMessage) -> Outcome:
        if target is None:
            return Outcome(problem="there is no such target in navi/notify.toml")
        if target.wrong is not None:
            return Outcome(problem=target.wrong)
        return await asyncio.to_thread(self._send, target.url, title=content.title, body=content.body)

    # --- for people

    async def targets(self) -> Targets:
        """What is configured now."""
        return await asyncio.to_thread(self._files.read)

    async def names(self) -> Sequence[str]:
        """What a recall may name, in small letters: what is configured now, also where something is wrong with it."""
        return sorted({BROWSER, *(await self.targets()).targets})

    async def states(self, owner: str) -> Sequence[TargetState]:
        """Every target, and those that are named by recalls and not configured any more."""
        targets = await self.targets()
        records = await self._notices.records(owner)
        gone = {name: Target(name=name, source="", wrong="it is not configured") for name in records}
        return [
            TargetState(target=target, record=records.get(name, TargetRecord()))
            for name, target in sorted({**gone, **targets.targets}.items())
        ]

    async def trial(self, name: str, *, owner: str) -> Outcome:
        """Send a test message, at once whatever the hour. Raises NotFound, LimitReached."""
        targets = await self.targets()
        target = targets.targets.get(name.lower())
        if target is None:
            raise NotFound(f"There is no notification target {name[:64]}.")
        now = self._clock.now()
        recent = [at for at in self._trials[owner] if at > now - timedelta(minutes=1)]
        if len(recent) >= TRIALS:
            raise LimitReached(f"You have sent {TRIALS} test messages within a minute; wait a little.")
        self._trials[owner] = [*recent, now]
        content = trial(target.name, base=targets.public_url or self._base_url())
        async with self._slots:
            return await self._outcome(target, content)


_TICK = timedelta(milliseconds=50)


def _again_at(outcome: Outcome, attempts: int, now: datetime) -> datetime | None:
    """When to try again; None: no more."""
    if outcome.stopped:
        return now
    delay = None if outcome.lasting else retry_after(attempts)
    return None if delay is None else now + delay


def _targets_of(claim: Claimed) -> list[str]:
    names = (name.lower() for name in claim.recall.recall.policy.notify)
    return [name for name in dict.fromkeys(names) if name != BROWSER]


def _window(notice: Notice, default: QuietHours | None) -> QuietHours | None:
    if notice.quiet is None:
        return default
    try:
        return read_quiet(notice.quiet)
    except ValueError:
        return default
