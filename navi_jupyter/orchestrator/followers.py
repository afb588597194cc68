"""Followers of one session's log: the ring of recent frames, the pages cut from it, and when a flush wakes them.

Nothing here is per follower but a cursor: no queue, no sockets. Not responsible for reading the store (``event_log``).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024
KEPT_PAGES = 32  # pages of one head that are kept for the next follower at the same cursor. Most followers are at one.
KEPT_REREADS = 8
LONGEST_HOLD = 0.05  # seconds by which a flush may be put off when serving the last one was expensive
HOLD_FACTOR = 2.0
"""A flush that took t to serve is followed by a pause of this times t: followers take a third of the loop at most."""


@dataclass(frozen=True, slots=True)
class Page:
    """Envelopes for a follower: ready to send, the same bytes for everybody at the same cursor."""

    text: bytes  # A WebSocket frame: one envelope, or ``{"batch":[...]}``
    envelopes: Sequence[tuple[int, str]]  # (seq, envelope as JSON)
    last_seq: int  # the reader's next cursor


def make_page(envelopes: Sequence[tuple[int, str]]) -> Page:
    """Cut one frame out of at least one envelope."""
    frames = [frame for _, frame in envelopes]
    text = frames[0] if len(frames) == 1 else '{"batch":[' + ",".join(frames) + "]}"
    return Page(text.encode(), envelopes, envelopes[-1][0])


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


class Follower:
    """One reader of a feed, by the seq of the last event that it was handed."""

    __slots__ = ("cursor",)

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor


class FollowerLag(NamedTuple):
    """How far followers are behind the heads of their logs."""

    most: int  # events
    behind: int  # followers


class Feed:
    """One session's live log in this process, while somebody follows it or a run writes it."""

    def __init__(self, session_id: str, ring: Ring) -> None:
        self.session_id = session_id
        self.ring = ring
        self.members: set[Follower] = set()
        self.closed = False  # the session was deleted or the server stops: followers end
        self._grown = asyncio.Event()
        self._pages: dict[int, Page] = {}
        """Pages of the present head by cursor: cut once for all followers that are there."""
        # By cursor: followers that fell behind mostly did so together, and get the same page from the store.
        self._rereads: dict[int, asyncio.Task[Page | None]] = {}
        self._signalled_at = 0.0
        self._serving = 0.0  # seconds from the last signal to the last caught-up follower served in LONGEST_HOLD
        self._held: asyncio.TimerHandle | None = None

    @property
    def followers(self) -> int:
        return len(self.members)

    def lags(self) -> list[int]:
        """Events between each follower and the head."""
        # A cursor beyond the head is of a follower that is about to get the snapshot.
        return [max(0, self.ring.head - member.cursor) for member in self.members]

    def extend(self, frames: Sequence[tuple[int, str]]) -> None:
        """New committed events. Followers are woken at once, or a little later if the last time was expensive."""
        self.ring.extend(frames)
        self._grow()

    def skip_to(self, head: int) -> None:
        """Events of another server were found in the store."""
        self.ring.skip_to(head)
        self._grow()

    def close(self) -> None:
        """End every follower."""
        self.closed = True
        self._wake()

    def signal(self) -> asyncio.Event:
        """Is set when there is more. Take it *before* looking: then no growth can be missed."""
        return self._grown

    def page(self, cursor: int) -> Page | None:
        """What follows ``cursor``; None when it has to come from the store. An empty log gives an empty page."""
        page = self._pages.get(cursor)
        if page is None:
            envelopes = self.ring.after(cursor)
            if envelopes is None:
                return None
            if not envelopes:
                return Page(b"", (), cursor)
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

    def served(self) -> None:
        """A follower came back for more and found nothing: it had been served."""
        took = asyncio.get_running_loop().time() - self._signalled_at
        if took < LONGEST_HOLD:
            self._serving = max(self._serving, took)

    def _grow(self) -> None:
        self._pages.clear()
        if self._held is not None:
            return
        loop = asyncio.get_running_loop()
        due = self._signalled_at + min(self._serving * (1 + HOLD_FACTOR), LONGEST_HOLD)
        if self.followers < 2 or loop.time() >= due:
            self._wake()
        else:
            self._held = loop.call_at(due, self._wake)

    def _wake(self) -> None:
        if self._held is not None:
            self._held.cancel()
            self._held = None
        self._signalled_at = asyncio.get_running_loop().time()
        self._serving = 0.0
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class FairGate:
    """``await passage()`` returns at once while this turn of the loop has room, else in a later turn, in order.

    A flush wakes every follower at once: one turn of the loop would write to all, and kernels would wait for the last.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._passed = 0  # in this turn. Above zero, the next turn's opening is scheduled.
        self._line: deque[asyncio.Future[None]] = deque()

    async def passage(self) -> None:
        """Wait for room. Cancelling gives the place in the line up."""
        if self._passed < self._per_turn and not self._line:
            self._count()
            return
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        await place

    def _count(self) -> None:
        self._passed += 1
        if self._passed == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._passed = 0
        while self._line and self._passed < self._per_turn:
            place = self._line.popleft()
            if not place.done():
                self._count()
                place.set_result(None)
