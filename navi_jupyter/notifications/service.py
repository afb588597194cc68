"""Sends notifications about the firings that the ledger marks for delivery, and events to webhooks.

Each firing gets one notice per target; every notice is retried, held and settled by itself, and when all of a firing
are settled, the ledger records it. All state is in the database, so that any server continues after a crash. An attempt
is counted before the message is sent and its result recorded afterwards: after a kill in between, the message is sent
again (at least once), and a message that kills its server every time is given up like one that a service refuses.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..clock import Clock, zone_or_utc
from ..errors import LimitReached, NaviError, NotFound
from ..log_setup import get_logger
from ..model.base import new_id
from ..ports.notifications import Notice, NoticeStore, TargetRecord
from ..ports.recalls import Claimed, RecallStore
from .apprise_sender import MessageSender, SendResult
from .messages import digest, message_about, test_message
from .quiet_hours import FIRST_RETRY, HOUR, MAX_ATTEMPTS, QuietHours, free_at, quiet_until, read_quiet, retry_after
from .targets import BROWSER, Target, TargetFiles, Targets
from .user_targets import UserTargets, of_all
from .webhook_body import encoded, event_of, test_event
from .webhook_sender import WebhookSender

log = get_logger("notify")

# Between polls for what another server left, or what this one was not woken for. A poll reads two small indexes.
POLL_EVERY = timedelta(seconds=15)
# How long taken notices belong to this server. Renewed when their message begins; longer than sending can take.
TAKEN = timedelta(seconds=90)
# After which the deliveries of a server that died before it stored their notices are taken again.
SETTLE_AGAIN = timedelta(minutes=2)
BATCH = 100
POSTS_AT_ONCE = 8  # requests to webhooks at the same time; those to one target one after the other, too
WAITING = 1000  # events that may wait for a webhook; what is more is recorded as failed
LONGEST_BATCH = timedelta(seconds=30)  # that one slow webhook may hold up the next look for what is due
AT_ONCE = 3  # sending processes at the same time; the messages to one target are sent one after the other
STOP_SECONDS = 2.0  # seconds that running messages get when the server stops, before they are aborted
TEST_MESSAGES = 5  # of one user within a minute
_TICK = timedelta(milliseconds=50)  # between two polls at least


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetState:
    """A target with the results of its last messages."""

    target: Target
    record: TargetRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """The notices that were taken together for one target of one user."""

    by: str
    owner: str
    target: str
    targets: Targets

    @property
    def webhook(self) -> bool:
        """Whether its target is a webhook."""
        target = self.targets.targets.get(self.target)
        return target is not None and target.webhook is not None


class NotificationService:
    """See the module. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        ledger: RecallStore,
        notices: NoticeStore,
        files: TargetFiles,
        send: MessageSender,
        *,
        clock: Clock,
        base_url: Callable[[], str | None] = lambda: None,
        webhooks: WebhookSender | None = None,
        own: UserTargets | None = None,
    ) -> None:
        """``own``: the targets that users have of their own; None: those of files alone."""
        self._ledger = ledger
        self._notices = notices
        self._files = files
        self._own = own
        self._send = send
        self._webhooks = webhooks or WebhookSender()
        self._clock = clock
        self._base_url = base_url  # the server's address, where no `public_url` is configured
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._processes = asyncio.Semaphore(AT_ONCE)
        self._posts = asyncio.Semaphore(POSTS_AT_ONCE)
        self._stopping = False
        self._tests: defaultdict[str, list[datetime]] = defaultdict(list)

    def start(self) -> None:
        """Start delivering."""
        self._task = asyncio.create_task(self._work(), name="navi-notify")

    async def stop(self) -> None:
        """Give running messages a moment to end. An aborted one is sent again by the next server."""
        self._stopping = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        self._send.close()
        self._webhooks.close()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)  # until the aborted messages are recorded
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """A firing may have ended: poll now."""
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
            until = now + POLL_EVERY
            if not self._stopping:
                await self._clock.wait(self._woken, until=until if due is None else max(min(until, due), now + _TICK))
                self._woken.clear()

    async def deliver(self) -> None:
        """Send what is due now, and settle what is done. Raises StoreError."""
        # Looked at first, taken last: a firing that has a notice waiting is not expanded for the targets of its recall.
        up_to = await self._notices.last_ended()
        if await self._ledger.deliveries_pending(1):
            await self._expand()
        if up_to is not None:
            await self._expand_ended(up_to)
        now = self._clock.now()
        due = await self._notices.next_due()
        if due is None or due > now:
            return
        by = new_id("take")
        taken = await self._notices.take(by=by, now=now, until=now + TAKEN, limit=BATCH)
        groups: defaultdict[tuple[str, str], list[Notice]] = defaultdict(list)
        for notice in taken:
            groups[notice.owner, notice.target].append(notice)
        targets = {owner: await self.targets(owner) for owner in {owner for owner, _ in groups}}
        # No TaskGroup: when recording fails for one target, the results of the others' messages must still be recorded.
        deliveries = (
            self._deliver_to_target(_Batch(by=by, owner=owner, target=target, targets=targets[owner]), notices)
            for (owner, target), notices in groups.items()
        )
        for error in filter(None, await asyncio.gather(*deliveries, return_exceptions=True)):
            raise error
        await self._settle({notice.firing_id for notice in taken if notice.firing_id is not None})

    async def _expand_ended(self, up_to: int) -> None:
        """Store a notice of each firing and run that is over for each webhook that wants its kind."""
        wanted = of_all(await asyncio.to_thread(self._files.read))
        own = self._own.wanting if self._own is not None else lambda _: {}
        ended = BATCH
        while ended == BATCH and not self._stopping:
            now = self._clock.now()
            ended = await self._notices.add_ended(wanted, own=own, up_to=up_to, now=now, limit=BATCH, most=WAITING)

    async def _expand(self) -> None:
        """Store a notice for each target of each firing marked for delivery."""
        now = self._clock.now()
        while claims := await self._ledger.take_deliveries(now=now, until=now + SETTLE_AGAIN, limit=BATCH):
            await self._notices.add([(claim, _targets_of(claim)) for claim in claims], now=now)
            await self._settle(claim.firing.firing.id for claim in claims)
            if len(claims) < BATCH:
                return

    async def _settle(self, firing_ids: Iterable[str]) -> None:
        for firing_id, error in await self._notices.settle(firing_ids):
            await self._ledger.delivered(firing_id, error)

    async def _deliver_to_target(self, batch: _Batch, notices: Sequence[Notice]) -> None:
        """What was held or failed before goes in one digest, each other notice in a message of its own."""
        if batch.webhook:
            await self._deliver_to_webhook(batch, await self._give_up_exhausted(batch, notices))
            return
        sendable = await self._hold_in_quiet_hours(batch, await self._give_up_exhausted(batch, notices))
        late = [notice for notice in sendable if notice.held or notice.attempts]
        groups = ([late] if late else []) + [[notice] for notice in sendable if notice not in late]
        for number, group in enumerate(groups):
            now = self._clock.now()
            rest = [notice.number for each in groups[number:] for notice in each]
            if self._stopping:
                await self._notices.hold(rest, by=batch.by, until=now, why=None)
                return
            sent = await self._notices.sent_at(batch.owner, batch.target, since=now - HOUR)
            free = free_at(sent, now, per_hour=batch.targets.per_hour)
            if free is not None:
                await self._notices.hold(rest, by=batch.by, until=free, why="rate")
                log.info("notify_held", target=batch.target, notices=len(rest), until=free.isoformat())
                return
            problem = await self._send_to(batch, group)
            if problem is not None:
                await self._defer(batch, problem, rest[len(group) :])
                return

    async def _deliver_to_webhook(self, batch: _Batch, notices: Sequence[Notice]) -> None:
        """Each notice as an event of its own, at any hour: no digest, no quiet hours, no limit per hour."""
        until = self._clock.now() + LONGEST_BATCH
        for number, notice in enumerate(notices):
            rest = [each.number for each in notices[number:]]
            if self._stopping or self._clock.now() > until:
                await self._notices.hold(rest, by=batch.by, until=self._clock.now(), why=None)
                return
            problem = await self._send_to(batch, [notice])
            if problem is not None:
                await self._defer(batch, problem, rest[1:])
                return

    async def _give_up_exhausted(self, batch: _Batch, notices: Sequence[Notice]) -> list[Notice]:
        """Those with an attempt left. Every attempt of the others was counted, and none recorded a result."""
        lost = [notice.number for notice in notices if notice.attempts >= MAX_ATTEMPTS]
        if lost:
            error = "the server ended during each attempt to send it"
            await self._notices.failed(lost, by=batch.by, error=error, at=self._clock.now(), again_at=None)
            log.warning("notify_given_up", target=batch.target, notices=len(lost), problem=error)
        return [notice for notice in notices if notice.number not in lost]

    async def _hold_in_quiet_hours(self, batch: _Batch, notices: Sequence[Notice]) -> list[Notice]:
        """Those that may be sent now; the others are held until their quiet hours end."""
        now = self._clock.now()
        sendable: list[Notice] = []
        held: defaultdict[datetime, list[int]] = defaultdict(list)
        for notice in notices:
            window = _window(notice, batch.targets.quiet)
            until = None if window is None else quiet_until(window, now, zone_or_utc(notice.zone))
            if until is None:
                sendable.append(notice)
            else:
                held[until].append(notice.number)
        for until, numbers in held.items():
            await self._notices.hold(numbers, by=batch.by, until=until, why="quiet")
        return sendable

    async def _send_to(self, batch: _Batch, group: Sequence[Notice]) -> SendResult | None:
        """Send one message. None when it was sent, else what failed."""
        async with self._posts if batch.webhook else self._processes:
            # After the wait for a free process: another server may have taken the notices meanwhile.
            until = self._clock.now() + TAKEN
            ours = set(await self._notices.attempt([one.number for one in group], by=batch.by, until=until))
            group = [notice for notice in group if notice.number in ours]
            if not group:
                return None
            result = await self._send_now(batch, group)
        now = self._clock.now()
        if result.problem is None:
            await self._notices.sent(ours, message_id=new_id("m"), at=now)
            log.info("notify_sent", target=batch.target, notices=len(ours))
            return None
        # Each by its own count: notices that joined a digest later have attempts left.
        by_attempts: defaultdict[int, list[int]] = defaultdict(list)
        for notice in group:
            by_attempts[notice.attempts + 1].append(notice.number)
        for attempts, tried in by_attempts.items():
            again = _again_at(result, attempts, now)
            await self._notices.failed(tried, by=batch.by, error=result.problem, at=now, again_at=again)
        log.warning("notify_not_sent", target=batch.target, notices=len(ours), problem=result.problem)
        return result

    async def _defer(self, batch: _Batch, result: SendResult, rest: Sequence[int]) -> None:
        """After a failure the target's other notices wait, and are sent in one digest with the retry."""
        now = self._clock.now()
        if rest and result.lasting:
            await self._notices.failed(rest, by=batch.by, error=str(result.problem), at=now, again_at=None)
        elif rest:
            until = now if result.stopped else now + max(FIRST_RETRY, result.wait or FIRST_RETRY)
            await self._notices.hold(rest, by=batch.by, until=until, why=None if result.stopped else "silence")

    async def _send_now(self, batch: _Batch, group: Sequence[Notice]) -> SendResult:
        target = batch.targets.targets.get(batch.target)
        base = batch.targets.public_url or self._base_url()
        if target is None:
            return SendResult(problem="there is no such target in navi/notify.toml")
        if target.wrong is not None:
            return SendResult(problem=target.wrong)
        if target.webhook is not None:
            event = event_of(group[0], target.webhook, base=base)
            return await self._webhooks.send(target.webhook, event.id, encoded(event), at=self._clock.now())
        if any(notice.firing_id is None for notice in group):
            return SendResult(problem="it is no webhook any more, and gets no events of runs", lasting=True)
        content = message_about(group[0], base=base) if len(group) == 1 else digest(group, base=base)
        return await asyncio.to_thread(self._send, target.url, title=content.title, body=content.body)

    async def targets(self, owner: str) -> Targets:
        """What is configured now for a user."""
        files = await asyncio.to_thread(self._files.read)
        return files if self._own is None else await self._own.over(files, owner)

    async def names(self, owner: str) -> Sequence[str]:
        """The names that a user's recall may use, in lower case: all configured targets, also those with a mistake."""
        return sorted({BROWSER, *(await self.targets(owner)).targets})

    async def states(self, owner: str) -> Sequence[TargetState]:
        """All targets, with those that notices were sent to and that are not configured any more."""
        records = await self._notices.records(owner)
        gone = {name: Target(name=name, source="", wrong="it is not configured") for name in records}
        return [
            TargetState(target=target, record=records.get(name, TargetRecord()))
            for name, target in sorted({**gone, **(await self.targets(owner)).targets}.items())
        ]

    async def send_test(self, name: str, *, owner: str) -> SendResult:
        """Send a test message now, also in quiet hours. Raises NotFound, LimitReached."""
        targets = await self.targets(owner)
        target = targets.targets.get(name.lower())
        if target is None:
            raise NotFound(f"There is no notification target {name[:64]}.")
        now = self._clock.now()
        recent = [at for at in self._tests[owner] if at > now - timedelta(minutes=1)]
        if len(recent) >= TEST_MESSAGES:
            sent = f"You have sent {TEST_MESSAGES} test messages within a minute."
            raise LimitReached(f"{sent} Wait a minute, then try again.")
        self._tests[owner] = [*recent, now]
        if target.wrong is not None:
            return SendResult(problem=target.wrong)
        if target.webhook is not None:
            event = test_event(new_id("test"), owner, at=now)
            async with self._posts:
                return await self._webhooks.send(target.webhook, event.id, encoded(event), at=now)
        content = test_message(target.name, base=targets.public_url or self._base_url())
        async with self._processes:
            return await asyncio.to_thread(self._send, target.url, title=content.title, body=content.body)


def _again_at(result: SendResult, attempts: int, now: datetime) -> datetime | None:
    """When to try again; None for never."""
    if result.stopped:
        return now
    delay = None if result.lasting else retry_after(attempts)
    return None if delay is None else now + max(delay, result.wait or delay)


def _targets_of(claim: Claimed) -> list[str]:
    names = (name.lower() for name in claim.recall.recall.policy.notify)
    return [name for name in dict.fromkeys(names) if name != BROWSER]


def _window(notice: Notice, default: QuietHours | None) -> QuietHours | None:
    try:
        return default if notice.quiet is None else read_quiet(notice.quiet)
    except ValueError:
        return default
