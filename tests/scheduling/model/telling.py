"""The real service of notifications in each process, with targets that take, refuse or lose messages; and what must
hold of it (N1 to N4): exactly the ends that people are told of are told, each target once or said to have failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from navi_jupyter.model.recalls import Firing, FiringStatus, Recall
from navi_jupyter.notifications.apprise_sender import SendResult
from navi_jupyter.notifications.service import NotificationService
from navi_jupyter.notifications.targets import Target, Targets
from navi_jupyter.store.notices import StoredNotices

if TYPE_CHECKING:
    from navi_jupyter.ports.notifications import Notice
    from navi_jupyter.store.database import Database

    from .processes import Process

Require = Callable[[bool, str], None]
TARGETS = Targets(
    targets={name: Target(name=name, url=name, source="here") for name in ("phone", "mail")}, per_hour=10_000
)


class _Files:
    def read(self) -> Targets:
        return TARGETS


class Messages:
    """What left the house."""

    def __init__(self) -> None:
        self.sent: Counter[int] = Counter()
        """By notice: how often a target took a message of it."""
        self.unrecorded: set[int] = set()
        """Notices whose message was sent, while that is not recorded yet."""
        self.wanted: dict[tuple[str, int | None], datetime] = {}
        """Until when what somebody takes (or, by notice, begins to send) is to be theirs."""
        self.holds: dict[int, tuple[str, datetime]] = {}
        """Notices that a server has taken: which one, and until when they are its own."""
        self.lapsed: set[int] = set()
        """Notices that others took after that: they may be sent twice."""
        self.seen = 0

    async def check(self, store: Database, now: datetime, require: Require) -> None:
        """N4: while a notice is somebody's nobody else takes it. ``now``: not earlier than who took it thinks."""
        rows = await store.fetch_all("SELECT * FROM takes WHERE number > ? ORDER BY number", (self.seen,))
        for row in rows:
            self.seen, notice, by = row["number"], row["notice"], row["taken_by"]
            who, until = self.holds.pop(notice, (by, now))
            if by is None:
                continue
            if who != by:
                require(until <= now, f"N4: {by} takes notice {notice} at {now}: it is {who}'s until {until}")
                self.lapsed.add(notice)
            self.holds[notice] = by, self.wanted[by, notice if row["begins"] else None]


class _Notices(StoredNotices):
    """Notes who wants what until when."""

    def __init__(self, store: Any, process: Process) -> None:
        super().__init__(store)
        self._messages = process.house.messages
        self.begun: Sequence[int] = ()
        """What the next message is about."""

    async def take(self, *, by: str, now: datetime, until: datetime, limit: int) -> Sequence[Notice]:
        self._messages.wanted[by, None] = until
        return await super().take(by=by, now=now, until=until, limit=limit)

    async def attempt(self, numbers: Iterable[int], *, by: str, until: datetime) -> Sequence[int]:
        chosen = list(numbers)
        self._messages.wanted |= {(by, number): until for number in chosen}
        self.begun = await super().attempt(chosen, by=by, until=until)
        return self.begun

    async def sent(self, numbers: Iterable[int], *, message_id: str, at: datetime) -> None:
        chosen = list(numbers)
        await super().sent(chosen, message_id=message_id, at=at)
        self._messages.unrecorded -= set(chosen)


class _Nowhere:
    """Where messages go, and whether that went well."""

    def __init__(self, process: Process, notices: _Notices) -> None:
        self._process = process
        self._notices = notices

    def __call__(self, url: str, *, title: str, body: str) -> SendResult:
        house, about = self._process.house, self._notices.begun
        lot = house.dice.random()
        house.note(f"{self._process.id} tells {url} of {about}: {title} ({len(body)})")
        if lot < 0.08:
            return SendResult(problem="there is no such address", lasting=True)
        if lot < 0.25 and not house.calm:
            return SendResult(problem="it did not answer")
        house.messages.sent.update(about)
        house.messages.unrecorded |= set(about)
        return SendResult(problem=None)

    def close(self) -> None:
        """There is nothing to break off."""


def teller(process: Process, store: Any) -> NotificationService:
    """The service of one process."""
    files: Any = _Files()
    notices = _Notices(store, process)
    return NotificationService(store, notices, files, _Nowhere(process, notices), clock=process.clock)


def is_told(recall: Recall, row: Firing) -> bool | None:
    """N1: whether people are told of this row; None: of some of its kind (the last one missed in each outage)."""
    if not recall.policy.notify:
        return False
    match row.status:
        case FiringStatus.SUCCEEDED | FiringStatus.FAILED | FiringStatus.EXPIRED:
            return True
        case FiringStatus.SKIPPED:
            return row.reason == "the session is busy"
        case FiringStatus.MISSED:
            return None
        case _:
            return False


async def check_told(
    messages: Messages, store: Database, recall: Recall, rows: Sequence[Firing], require: Require, *, edited: bool
) -> None:
    """N1 to N3, when nothing is open any more."""
    for row in rows:
        told = is_told(recall, row)
        if told is not None:
            reason = f"N1: {row.id} is {row.status} ({row.reason}), told: {row.delivery}"
            require((row.delivery != "none") == told, reason)
    # In the order in which they were made: a clock that was set back comes to the same time in another outage.
    for _, at_once in groupby(sorted(rows, key=lambda row: row.id), key=lambda row: row.ended_at):
        missed = [row for row in at_once if is_told(recall, row) is None]
        if not missed:
            continue
        last = max(missed, key=lambda row: row.slot)
        told_rows = [row for row in missed if row.delivery != "none"]
        # Edited after the clock was set back the last one may be in the ledger already: it is not missed again.
        nobody = not told_rows and edited
        require(told_rows == [last] or nobody, f"N1: of {len(missed)} missed slots {len(told_rows)} are told")
    wanted = sorted({name for name in recall.policy.notify if name != "browser"})
    for row in rows:
        if row.delivery == "none":
            continue
        require(row.delivery in ("delivered", "failed"), f"N2: {row.id} is still to be told: {row.delivery}")
        notices = await store.fetch_all("SELECT * FROM notices WHERE firing_id = ? ORDER BY target", (row.id,))
        require([n["target"] for n in notices] == wanted, f"N2: {row.id} was told to {[n['target'] for n in notices]}")
        failed = any(n["status"] == "failed" for n in notices)
        require((row.delivery == "failed") == failed, f"N2: {row.id} says {row.delivery}, its notices: {failed=}")
        for notice in notices:
            number, times = notice["number"], messages.sent[notice["number"]]
            # Who dies between a message and its record, or is stopped until others take it, has it sent again.
            unsure = number in messages.lapsed or number in messages.unrecorded
            require(
                unsure or times == (notice["status"] == "sent"),
                f"N3: notice {notice['number']} of {row.id} is {notice['status']}, sent {times} times",
            )
