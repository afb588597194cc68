"""Followers of one session's log: the ring of recent frames, the pages cut from it, and when a flush wakes them.

Nothing here is per follower but a cursor: no queue, no sockets. A follower takes pages by itself, or has them pushed to
its connection while it keeps up: then one loop serves all of a feed, and an event costs no task and no future.
Not responsible for reading the store (``event_log``) or for connections (``server.transfers``).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024
KEPT_PAGES = 32  # pages of one head that are kept for the next follower at the same cursor. Most followers are at one.
KEPT_REREADS = 8
SLICE = 0.001  # seconds of a turn of the event loop in which pages are pushed; then others get their turn
LONGEST_HOLD = 0.05  # seconds by which a round may be put off when serving the last ones was expensive
HOLD_FACTOR = 1.0
"""Serving that took t is followed by a pause of this times t: followers take half of the loop at most."""
CREDIT = 0.01
"""Seconds of serving that have no pause after them when there was little to serve before: only load is held back."""
WAKE_COST = 1e-4  # seconds that a follower takes which is woken to take a page by itself: its task, a write, a future


@dataclass(frozen=True, slots=True)
class Page:
    """Envelopes for a follower: ready to send, the same bytes for everybody at the same cursor."""

    frame: bytes  # a whole WebSocket frame with ``text``, as a server sends it
    envelopes: Sequence[tuple[int, str]]  # (seq, envelope as JSON)
    last_seq: int  # the reader's next cursor

    @property
    def text(self) -> bytes:
        """What is in the frame: one envelope, or ``{"batch":[...]}``."""
        return self.frame[_header_size(self.frame[1]) :]


def _text_frame(text: bytes) -> bytes:
    """``text`` as one unmasked frame that is a whole message (RFC 6455, 5.2)."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


def _header_size(length: int) -> int:
    return {126: 4, 127: 10}.get(length, 2)


def make_page(envelopes: Sequence[tuple[int, str]]) -> Page:
    """Cut one frame out of at least one envelope."""
    frames = [frame for _, frame in envelopes]
    text = frames[0] if len(frames) == 1 else '{"batch":[' + ",".join(frames) + "]}"
    return Page(_text_frame(text.encode()), envelopes, envelopes[-1][0])


def empty_page(cursor: int) -> Page:
    """Nothing follows ``cursor`` now."""
    return Page(b"\x81\x00", (), cursor)


def _size(frame: str) -> int:
    return len(frame) if frame.isascii() else len(frame.encode())


def cut_page(envelopes: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """As many as a page takes, but one at least."""
    chosen: list[tuple[int, str]] = []
    size = 0
    for seq, frame in envelopes:
        size += _size(frame)
        if chosen and size > PAGE_BYTES:
            break
        chosen.append((seq, frame))
    return chosen


class Ring:
    """The last frames of a session, bounded by count and bytes. Knows what it does not hold."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self.start = 0  # every event with seq > start (and <= head) is held
        self.head = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._seqs: list[int] = []
        self._frames: list[str] = []
        self._bytes = 0

    def extend(self, frames: Iterable[tuple[int, str]]) -> None:
        """Take events that follow ``head``; what does not (another server's in between) empties the ring."""
        for seq, frame in frames:
            if seq <= self.head:
                continue
            if seq != self.head + 1:
                self._clear(seq - 1)
            self._seqs.append(seq)
            self._frames.append(frame)
            self._bytes += _size(frame)
            self.head = seq
        self._trim()

    def skip_to(self, head: int) -> None:
        """The log has grown to ``head`` by events that are not here: readers get them from the store."""
        if head > self.head:
            self._clear(head)

    def after(self, cursor: int) -> list[tuple[int, str]] | None:
        """A page's worth of events after ``cursor``; None when the ring does not reach back that far."""
        if cursor < self.start:
            return None
        first = bisect_right(self._seqs, cursor)
        last = first + PAGE_EVENTS
        return cut_page(zip(self._seqs[first:last], self._frames[first:last], strict=True))

    def _clear(self, start: int) -> None:
        self._seqs.clear()
        self._frames.clear()
        self._bytes = 0
        self.start = self.head = start

    def _trim(self) -> None:
        drop = max(0, len(self._seqs) - self._max_events)
        spare = sum(_size(frame) for frame in self._frames[:drop])
        while drop < len(self._seqs) - 1 and self._bytes - spare > self._max_bytes:
            spare += _size(self._frames[drop])
            drop += 1
        # a list is cut at the front in lumps: dropping one by one would move the rest each time.
        if drop > max(16, len(self._seqs) // 4) or (drop and self._bytes > self._max_bytes):
            self.start = self._seqs[drop - 1]
            del self._seqs[:drop], self._frames[:drop]
            self._bytes -= spare


Reread = Callable[[str, int], Coroutine[Any, Any, Page | None]]
"""(session, cursor) -> what follows in the store; None when that was folded."""


Push = Callable[[Page], "asyncio.Future[None] | None"]
"""Write a page to a follower's connection. None: it has left; else done when it has. Raises when it cannot be written.

The future may have any result, and any exception: what is wrong with the connection is raised by the next call.
"""


class Follower:
    """One reader of a feed, by the seq of the last event that it was handed.

    One to which pages are pushed is, while ``served``, in exactly one place: among those that are caught up, in the
    line of a round, or with its connection, which calls back when the last page has left.
    """

    __slots__ = ("cursor", "push", "served")

    def __init__(self, cursor: int, push: Push | None = None) -> None:
        self.cursor = cursor
        self.push = push
        self.served: asyncio.Future[None] | None = None  # done when it is to go on by itself

    def release(self) -> None:
        """Let it go on by itself."""
        if self.served is not None and not self.served.done():
            self.served.set_result(None)


class FollowerLag(NamedTuple):
    """How far followers are behind the heads of their logs."""

    most: int  # events
    behind: int  # followers


class Feed:
    """One session's live log in this process, while somebody follows it or a run writes it."""

    def __init__(self, session_id: str, ring: Ring, rounds: Rounds) -> None:
        self.session_id = session_id
        self.ring = ring
        self.members: set[Follower] = set()
        self.closed = False  # the session was deleted or the server stops: followers end
        self._rounds = rounds
        self._grown = asyncio.Event()
        self._waiting = 0  # followers that wait for ``_grown``
        self._caught_up: dict[Follower, None] = {}  # in order; what comes is pushed to them in the next round
        self._round_head = 0  # the head when the last round began: what came later is for the next one
        self._pages: dict[int, Page] = {}
        """Pages by cursor, cut once in each round for all followers that are there."""
        # By cursor: followers that fell behind mostly did so together, and get the same page from the store.
        self._rereads: dict[int, asyncio.Task[Page | None]] = {}

    @property
    def followers(self) -> int:
        return len(self.members)

    def lags(self) -> list[int]:
        """Events between each follower and the head."""
        # A cursor beyond the head is of a follower that is about to get the snapshot.
        return [max(0, self.ring.head - member.cursor) for member in self.members]

    def extend(self, frames: Sequence[tuple[int, str]]) -> None:
        """New committed events, for the next round."""
        self.ring.extend(frames)
        self._rounds.plan(self)

    def skip_to(self, head: int) -> None:
        """Events of another server were found in the store."""
        if head > self.ring.head:
            self.ring.skip_to(head)
            self._rounds.plan(self)

    def close(self) -> None:
        """End every follower."""
        self.closed = True
        for member in self.members:
            member.release()
        self._wake()

    def signal(self) -> asyncio.Event:
        """Is set when there is more. Take it *before* looking: then no growth can be missed."""
        return self._grown

    async def wait(self, grown: asyncio.Event) -> None:
        """Wait for a signal that was taken. Counted, for what waking costs."""
        self._waiting += 1
        try:
            await grown.wait()
        finally:
            self._waiting -= 1

    async def serve(self, follower: Follower) -> None:
        """Push to a follower that has all there is, until what it lacks is in the store alone or the feed closes.

        Raises what its ``push`` raises.
        """
        follower.served = asyncio.get_running_loop().create_future()
        self._caught_up[follower] = None
        try:
            await follower.served
        finally:
            follower.served = None
            self._caught_up.pop(follower, None)

    def begin_round(self) -> tuple[list[Follower], int]:
        """Those to push to in this round; those that were woken to take what there is by themselves."""
        self._pages.clear()
        self._round_head = self.ring.head
        caught_up, self._caught_up = list(self._caught_up), {}
        woken = self._waiting
        self._wake()
        return caught_up, woken

    def push_next(self, follower: Follower) -> tuple[int, bool]:
        """Push a page to one of this round: how many envelopes it had, and whether the follower is in line again."""
        served, left = follower.served, None
        if served is None or served.done() or follower.push is None:
            return 0, False
        try:
            page = self.page(follower.cursor)
            if page is not None and page.envelopes:
                left = follower.push(page)
                follower.cursor = page.last_seq
        except Exception as error:  # noqa: BLE001 - raised in its own ``serve``: it must not end the round of the others
            served.set_exception(error)
            return 0, False
        if page is None:
            served.set_result(None)
            return 0, False
        if left is not None:
            left.add_done_callback(lambda left: self._left(follower, served, left))
        elif follower.cursor < self._round_head:
            return len(page.envelopes), True
        else:
            self._caught_up[follower] = None
        return len(page.envelopes), False

    def _left(self, follower: Follower, served: asyncio.Future[None], left: asyncio.Future[None]) -> None:
        if not left.cancelled():
            left.exception()
        if follower.served is served and not served.done():
            self._caught_up[follower] = None
            if follower.cursor < self.ring.head:
                self._rounds.plan(self)

    def page(self, cursor: int) -> Page | None:
        """What follows ``cursor``; None when it has to come from the store. An empty log gives an empty page."""
        page = self._pages.get(cursor)
        if page is None:
            envelopes = self.ring.after(cursor)
            if envelopes is None:
                return None
            if not envelopes:
                return empty_page(cursor)
            page = make_page(envelopes)
            if len(self._pages) < KEPT_PAGES:
                self._pages[cursor] = page
        return page

    async def reread(self, cursor: int, read: Reread) -> Page | None:
        """What follows ``cursor``, from the store; read once for all followers who ask for it about now."""
        reading = self._rereads.get(cursor)
        if reading is None:
            reading = self._rereads[cursor] = asyncio.create_task(read(self.session_id, cursor))
            reading.add_done_callback(lambda done: self._reread_done(cursor, done))
        # a follower that leaves must not end the reading of the others.
        return await asyncio.shield(reading)

    def _reread_done(self, cursor: int, reading: asyncio.Task[Page | None]) -> None:
        page = None if reading.cancelled() or reading.exception() else reading.result()
        # a page that ends at what was the head then is not what the next one would get.
        if page is None or not page.envelopes or page.last_seq >= self.ring.start or self.followers < 2:
            del self._rereads[cursor]
        elif len(self._rereads) > KEPT_REREADS:
            del self._rereads[next(iter(self._rereads))]

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class Rounds:
    """The loop that serves the followers of all feeds that have grown, a slice of each turn of the event loop.

    What comes during a round is for the next one, so that all followers of a feed get the same page. Rounds follow each
    other at once, or after a pause when they have taken more of the event loop than their share.
    """

    def __init__(self) -> None:
        self.pushed = 0  # envelopes
        self._grown: dict[Feed, None] = {}  # in order
        self._line: deque[tuple[Feed, Follower]] = deque()
        self._next: asyncio.Handle | None = None
        self._credit = CREDIT  # seconds of serving until a pause
        self._credited_at = 0.0

    def plan(self, feed: Feed) -> None:
        """The feed has something for its followers."""
        self._grown[feed] = None
        if self._next is None:
            self._plan_round()

    def _plan_round(self) -> None:
        loop = asyncio.get_running_loop()
        time_passed, self._credited_at = loop.time() - self._credited_at, loop.time()
        # No debt above the longest pause: it would hold back what comes when the load is over.
        earned = max(self._credit, -LONGEST_HOLD / (1 + HOLD_FACTOR)) + time_passed / (1 + HOLD_FACTOR)
        self._credit = min(earned, CREDIT)
        if self._credit > 0:
            self._next = loop.call_soon(self._begin)
        else:
            self._next = loop.call_later(-self._credit * (1 + HOLD_FACTOR), self._begin)

    def _begin(self) -> None:
        grown, self._grown = self._grown, {}
        for feed in grown:
            followers, woken = feed.begin_round()
            self._line.extend((feed, follower) for follower in followers)
            self._credit -= woken * WAKE_COST
        self._work()

    def _work(self) -> None:
        began, until = time.thread_time(), time.perf_counter() + SLICE
        while self._line:
            feed, follower = self._line.popleft()
            envelopes, again = feed.push_next(follower)
            self.pushed += envelopes
            if again:
                self._line.append((feed, follower))
            if time.perf_counter() >= until:
                break
        # By the thread's own clock: what others do on a busy machine is no reason to pause.
        self._credit -= time.thread_time() - began
        self._next = None
        if self._line:
            self._next = asyncio.get_running_loop().call_soon(self._work)
        elif self._grown:
            self._plan_round()
