"""Sends notifications about the firings that the ledger marks for delivery.

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
from urllib.parse import quote, urlencode

from ..clock import Clock, zone_or_utc
from ..errors import LimitReached, NaviError, NotFound
from ..log_setup import get_logger
from ..model.base import new_id
from ..ports.notifications import Notice, NoticeStore, TargetRecord
from ..ports.recalls import Claimed, RecallStore
from ..text import one_line, truncate
from .apprise_sender import MessageSender, SendResult
from .quiet_hours import FIRST_RETRY, HOUR, MAX_ATTEMPTS, QuietHours, free_at, quiet_until, read_quiet, retry_after
from .targets import BROWSER, Target, TargetFiles, Targets

log = get_logger("notify")

# Between polls for what another server left, or what this one was not woken for. A poll reads two small indexes.
POLL_EVERY = timedelta(seconds=15)
# How long taken notices belong to this server. Renewed when their message begins; longer than sending can take.
TAKEN = timedelta(seconds=90)
# After which the deliveries of a server that died before it stored their notices are taken again.
SETTLE_AGAIN = timedelta(minutes=2)
BATCH = 100
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
    ) -> None:
        self._ledger = ledger
        self._notices = notices
        self._files = files
        self._send = send
        self._clock = clock
        self._base_url = base_url  # the server's address, where no `public_url` is configured
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._processes = asyncio.Semaphore(AT_ONCE)
        self._stopping = False
        self._tests: defaultdict[str, list[datetime]] = defaultdict(list)

    def start(self) -> None:
        """Start delivering."""
        self._task = asyncio.create_task(self._work(), name="navi-notify")

    async def stop(self) -> None:
        """Give running messages a moment to end. An aborted one is sent again by the next server."""
        self._stopping = True
        self._woken.set()
        if self._task is None:
            self._send.close()
            return
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        self._send.close()
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
        # No TaskGroup: when recording fails for one target, the results of the others' messages must still be recorded.
        deliveries = (
            self._deliver_to_target(_Batch(by=by, owner=owner, target=target, targets=targets), notices)
            for (owner, target), notices in groups.items()
        )
        for error in filter(None, await asyncio.gather(*deliveries, return_exceptions=True)):
            raise error
        await self._settle({notice.firing_id for notice in taken})

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
        async with self._processes:
            # After the wait for a free process: another server may have taken the notices meanwhile.
            until = self._clock.now() + TAKEN
            ours = set(await self._notices.attempt([one.number for one in group], by=batch.by, until=until))
            group = [notice for notice in group if notice.number in ours]
            if not group:
                return None
            base = batch.targets.public_url or self._base_url()
            content = message_about(group[0], base=base) if len(group) == 1 else digest(group, base=base)
            result = await self._send_now(batch.targets.targets.get(batch.target), content)
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
            until = now if result.stopped else now + FIRST_RETRY
            await self._notices.hold(rest, by=batch.by, until=until, why=None if result.stopped else "silence")

    async def _send_now(self, target: Target | None, content: NotificationMessage) -> SendResult:
        if target is None:
            return SendResult(problem="there is no such target in navi/notify.toml")
        if target.wrong is not None:
            return SendResult(problem=target.wrong)
        return await asyncio.to_thread(self._send, target.url, title=content.title, body=content.body)

    async def targets(self) -> Targets:
        """What is configured now."""
        return await asyncio.to_thread(self._files.read)

    async def names(self) -> Sequence[str]:
        """The names that a recall may use, in lower case: all configured targets, also those with a mistake."""
        return sorted({BROWSER, *(await self.targets()).targets})

    async def states(self, owner: str) -> Sequence[TargetState]:
        """All targets, with those that notices were sent to and that are not configured any more."""
        records = await self._notices.records(owner)
        gone = {name: Target(name=name, source="", wrong="it is not configured") for name in records}
        return [
            TargetState(target=target, record=records.get(name, TargetRecord()))
            for name, target in sorted({**gone, **(await self.targets()).targets}.items())
        ]

    async def send_test(self, name: str, *, owner: str) -> SendResult:
        """Send a test message now, also in quiet hours. Raises NotFound, LimitReached."""
        targets = await self.targets()
        target = targets.targets.get(name.lower())
        if target is None:
            raise NotFound(f"There is no notification target {name[:64]}.")
        now = self._clock.now()
        recent = [at for at in self._tests[owner] if at > now - timedelta(minutes=1)]
        if len(recent) >= TEST_MESSAGES:
            sent = f"You have sent {TEST_MESSAGES} test messages within a minute."
            raise LimitReached(f"{sent} Wait a minute, then try again.")
        self._tests[owner] = [*recent, now]
        content = test_message(target.name, base=targets.public_url or self._base_url())
        async with self._processes:
            return await self._send_now(target, content)


def _again_at(result: SendResult, attempts: int, now: datetime) -> datetime | None:
    """When to try again; None for never."""
    if result.stopped:
        return now
    delay = None if result.lasting else retry_after(attempts)
    return None if delay is None else now + delay


def _targets_of(claim: Claimed) -> list[str]:
    names = (name.lower() for name in claim.recall.recall.policy.notify)
    return [name for name in dict.fromkeys(names) if name != BROWSER]


def _window(notice: Notice, default: QuietHours | None) -> QuietHours | None:
    try:
        return default if notice.quiet is None else read_quiet(notice.quiet)
    except ValueError:
        return default


ANSWER = 500  # characters of an answer
_DIGEST_ANSWER = 120
_DIGEST_LINES = 20
_ENDS = {
    "succeeded": "done",
    "failed": "failed",
    "skipped": "skipped",
    "missed": "missed",
    "coalesced": "made up for by a later run",
    "cancelled": "cancelled",
    "expired": "expired",
}
_HELD = {
    "quiet": "during your quiet hours",
    "rate": "while there were too many messages to send",
    "silence": "while you could not be reached",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NotificationMessage:
    """A message as Apprise takes it."""

    title: str
    body: str


def link_to(session_id: str | None, base: str | None) -> str | None:
    """The URL of a session's page. ``base``: the server's address as its users open it, with its path."""
    if not base:
        return None
    page = f"{base.rstrip('/')}/navi"
    return page if session_id is None else f"{page}?{urlencode({'session': session_id}, quote_via=quote)}"


def message_about(notice: Notice, *, base: str | None) -> NotificationMessage:
    """About one firing."""
    parts = [truncate(notice.answer.strip(), ANSWER) or _why(notice), link_to(notice.session_id, base)]
    return NotificationMessage(title=f"Navi: {_outcome(notice)}", body="\n\n".join(part for part in parts if part))


def digest(notices: Sequence[Notice], *, base: str | None) -> NotificationMessage:
    """About several firings, oldest first, in one message."""
    ordered = sorted(notices, key=lambda notice: notice.slot)
    lines = [_entry(notice) for notice in ordered[:_DIGEST_LINES]]
    if len(ordered) > _DIGEST_LINES:
        lines.append(f"… and {len(ordered) - _DIGEST_LINES} more")
    sessions = {notice.session_id for notice in notices}
    link = link_to(sessions.pop() if len(sessions) == 1 else None, base)
    held = next((_HELD[notice.held] for notice in ordered if notice.held), "meanwhile")
    return NotificationMessage(
        title=f"Navi: {len(ordered)} recalls {held}", body="\n".join(lines) + (f"\n\n{link}" if link else "")
    )


def test_message(name: str, *, base: str | None) -> NotificationMessage:
    """A test of a target, which the user has requested."""
    body = f"Navi can reach you here: this is a test of the target {name}."
    link = link_to(None, base)
    return NotificationMessage(title="Navi: test", body=f"{body}\n\n{link}" if link else body)


def _entry(notice: Notice) -> str:
    at = notice.slot.astimezone(zone_or_utc(notice.zone))
    answer = one_line(notice.answer, _DIGEST_ANSWER) or _why(notice)
    return f"• {at:%a %H:%M} {_outcome(notice)}" + (f": {answer}" if answer else "")


def _outcome(notice: Notice) -> str:
    return f"{one_line(notice.recall_title, 100)} – {_ENDS.get(notice.status, notice.status)}"


def _why(notice: Notice) -> str:
    return truncate((notice.error or notice.reason or "").strip(), ANSWER)
