"""Following a session's log: the ring of recent frames, its pages, and the snapshot for followers without a cursor.

The log is the truth; a follower is a cursor. Nothing here is per follower but that integer: no queue, no sockets.
Not responsible for numbering and storing (``store``) or for what the events mean.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..clock import now
from ..errors import SessionNotFound
from ..ports.store import SessionStore
from .fair_gate import FairGate
from .snapshot import snapshot_events

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024
KEPT_PAGES = 32  # pages of one head that are kept for the next follower at the same cursor. Most followers are at one.
PAGES_PER_TURN = 16  # pages that are handed to followers in one turn of the event loop
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


def _cut(envelopes: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
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
        return _cut(zip(self._seqs[first:last], self._frames[first:last], strict=True))

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


class Feed:
    """One session's live log in this process, while somebody follows it or a run writes it."""

    def __init__(self, session_id: str, ring: Ring) -> None:
        self.session_id = session_id
        self.ring = ring
        self.followers = 0
        self.closed = False  # the session was deleted or the server stops: followers end
        self._grown = asyncio.Event()
        self._pages: dict[int, Page] = {}
        """Pages of the present head by cursor: cut once for all followers that are there."""
        self._rereads: dict[int, asyncio.Task[Page | None]] = {}
        """Pages from the store by cursor: followers that fell behind mostly did so together."""
        self._signalled_at = 0.0
        self._serving = 0.0  # seconds from the last signal to the last caught-up follower that was served in good time
        self._held: asyncio.TimerHandle | None = None

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


class EventLog:
    """All feeds of this process."""

    def __init__(self, store: SessionStore, *, ring_events: int, ring_bytes: int = 8 * 2**20) -> None:
        self._store = store
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._feeds: dict[str, Feed] = {}
        self._turnstile = FairGate(PAGES_PER_TURN)
        self._stopped = False
        self.in_use = asyncio.Event()
        """Set when a follower begins; the poll for other processes' commits clears it and sleeps."""
        self.delivered = 0  # envelopes handed to followers since the start, for the metrics
        store.subscribe(self._appended)

    @property
    def followers(self) -> int:
        """How many are reading now."""
        return sum(feed.followers for feed in self._feeds.values())

    def followed(self) -> list[str]:
        """The sessions that somebody is reading now."""
        return [session_id for session_id, feed in self._feeds.items() if feed.followers]

    def _appended(self, session_id: str, frames: list[tuple[int, str]]) -> None:
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.extend(frames)

    async def refresh(self) -> None:
        """Another process has committed: find out which followed sessions have grown, and which are gone."""
        heads = await self._store.heads(self._feeds)
        for session_id, feed in list(self._feeds.items()):
            head = heads.get(session_id)
            if head is None:
                feed.close()
            else:
                feed.skip_to(head)

    def close_session(self, session_id: str) -> None:
        """The session was deleted: its followers end."""
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.close()

    def close(self) -> None:
        """The server stops: every follower ends."""
        self._stopped = True
        for feed in list(self._feeds.values()):
            feed.close()

    async def follow(self, session_id: str, *, after: int | None) -> AsyncGenerator[Page]:
        """Everything after ``after``, then what comes; the snapshot first when ``after`` is None or no longer kept.

        Ends when the session is deleted or the server stops. Raises SessionNotFound.
        """
        feed = await self._enter(session_id)
        try:
            cursor = after
            gap = cursor is not None and await self._lost(feed, cursor)
            if cursor is None or gap:
                snapshot = await self._snapshot_page(session_id, since=cursor if gap else None)
                cursor = snapshot.last_seq
                yield snapshot
            while not feed.closed:
                grown = feed.signal()
                page = feed.page(cursor) or await feed.reread(cursor, self._reread)
                if page is None:
                    page = await self._snapshot_page(session_id, since=cursor)
                if page.envelopes:
                    await self._turnstile.passage()
                    cursor = page.last_seq
                    self.delivered += len(page.envelopes)
                    yield page
                    continue
                feed.served()
                await grown.wait()
        finally:
            self._leave(feed)

    async def page(self, session_id: str, *, after: int, limit: int, wait: float) -> tuple[Sequence[str], int]:
        """Up to ``limit`` envelopes after ``after`` and the head; waits up to ``wait`` seconds for the first one.

        The snapshot instead, with ``navi.gap``, when the cursor is within what has been folded.
        """
        if await self._store.gap(session_id, after):
            page = await self._snapshot_page(session_id, since=after)
            return [frame for _, frame in page.envelopes], page.last_seq
        feed = await self._enter(session_id)
        try:
            async with asyncio.timeout(wait or None) as patience:
                del patience
                while True:
                    grown = feed.signal()
                    envelopes = await self._store.frames(session_id, after=after, limit=limit)
                    if envelopes or not wait or feed.closed:
                        break
                    await grown.wait()
        except TimeoutError:
            envelopes = []
        finally:
            self._leave(feed)
        head = await self._store.head(session_id)
        return [frame for _, frame in envelopes], head if head is not None else after

    async def _reread(self, session_id: str, cursor: int) -> Page | None:
        """What follows ``cursor`` in the store; None when that was folded meanwhile."""
        envelopes = _cut(await self._store.frames(session_id, after=cursor, limit=PAGE_EVENTS))
        if not envelopes:
            return Page(b"", (), cursor)
        # Asked after reading: compacted before it, the log has a gap; compacted only now, this page is complete.
        return None if await self._store.gap(session_id, cursor) else make_page(envelopes)

    async def _enter(self, session_id: str) -> Feed:
        feed = self._feeds.get(session_id)
        if feed is None:
            ring = Ring(max_events=self._ring_events, max_bytes=self._ring_bytes)
            feed = self._feeds[session_id] = Feed(session_id, ring)
        # Listed before the head is asked for: what is committed meanwhile reaches the ring, so nothing falls between.
        feed.followers += 1
        self.in_use.set()
        try:
            head = await self._store.head(session_id)
            if head is None or self._stopped:
                raise SessionNotFound(f"There is no session {session_id}.")
        except BaseException:
            self._leave(feed)
            raise
        feed.ring.skip_to(head)
        return feed

    def _leave(self, feed: Feed) -> None:
        feed.followers -= 1
        if feed.followers == 0 and self._feeds.get(feed.session_id) is feed:
            del self._feeds[feed.session_id]

    async def _lost(self, feed: Feed, cursor: int) -> bool:
        if cursor > feed.ring.head:
            head = await self._store.head(feed.session_id)
            return head is None or cursor > head
        return cursor < feed.ring.start and await self._store.gap(feed.session_id, cursor)

    async def _snapshot_page(self, session_id: str, *, since: int | None) -> Page:
        snapshot = await self._store.snapshot(session_id)
        if snapshot is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        drafts = await asyncio.to_thread(snapshot_events, snapshot, now(), since=since)
        frames = [draft.frame(session_id, snapshot.head_seq, snapshot=True) for draft in drafts]
        return make_page([(snapshot.head_seq, frame) for frame in frames])
