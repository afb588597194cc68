"""Following the logs of sessions: pages from the ring or the store, and the snapshot for followers without a cursor.

The log is the truth; a follower is a cursor (``followers``).
Not responsible for numbering and storing (``store``) or for what the events mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime

from ..clock import now
from ..errors import SessionNotFound
from ..ports.store import SessionStore
from .followers import (
    PAGE_EVENTS,
    Feed,
    Follower,
    FollowerLag,
    Page,
    Push,
    Ring,
    Rounds,
    cut_page,
    empty_page,
    make_page,
)
from .snapshot import PRELUDE_MESSAGES, snapshot_events

PAGES_PER_TURN = 16  # pages that are handed to followers in one turn of the event loop


class EventLog:
    """All feeds of this process."""

    def __init__(self, store: SessionStore, *, ring_events: int, ring_bytes: int = 8 * 2**20) -> None:
        self._store = store
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._feeds: dict[str, Feed] = {}
        self._openings: dict[str, asyncio.Task[Page]] = {}
        self._gate = FairGate(PAGES_PER_TURN)
        self._rounds = Rounds()
        self._stopped = False
        self.in_use = asyncio.Event()  # set when a follower begins; the poll for others' commits clears it and sleeps
        self._grown_elsewhere: dict[str, int] = {}  # sessions, and their heads before another server wrote
        self._lag_observers: list[Callable[[float], None]] = []
        self._taken = 0  # envelopes that followers took by themselves
        store.subscribe(self._appended)

    @property
    def followers(self) -> int:
        return sum(feed.followers for feed in self._feeds.values())

    @property
    def delivered(self) -> int:
        """Envelopes handed to followers since the start, for the metrics."""
        return self._taken + self._rounds.pushed

    def lag(self) -> FollowerLag:
        """Of all followers, now. Cheap: nothing is read but cursors."""
        lags = [lag for feed in self._feeds.values() for lag in feed.lags()]
        return FollowerLag(most=max(lags, default=0), behind=sum(map(bool, lags)))

    def followed(self) -> list[str]:
        """The sessions that somebody is reading now."""
        return [session_id for session_id, feed in self._feeds.items() if feed.followers]

    def is_followed(self, session_id: str) -> bool:
        """Whether a view of this session is open."""
        feed = self._feeds.get(session_id)
        return feed is not None and feed.followers > 0

    def _appended(self, session_id: str, frames: list[tuple[int, str]]) -> None:
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.extend(frames)

    async def refresh(self) -> None:
        """Another process has committed: find out which followed sessions have grown, and which are gone."""
        asked = dict(self._feeds)  # a feed that begins during the query is not in its answer, and asks for its own head
        heads = await self._store.heads(asked)
        for session_id, feed in asked.items():
            head = heads.get(session_id)
            if head is None:
                feed.close()
            else:
                if head > feed.ring.head:
                    self._grown_elsewhere.setdefault(session_id, feed.ring.head)
                feed.skip_to(head)

    def observe_lag(self, observer: Callable[[float], None]) -> None:
        """Call it with how many seconds after an event of another server was made it is read here, for those who
        follow. Of each stretch that is found at once, its first event; nothing is read for that. It must not raise."""
        self._lag_observers.append(observer)

    def _note_lag(self, session_id: str, cursor: int, frame: str) -> None:
        """``frame``: the first behind ``cursor``. Of a follower that was at the head until another server wrote: what
        one that is behind, or has come later, reads was there before."""
        before = self._grown_elsewhere.get(session_id)
        if before is None or cursor < before:
            return
        del self._grown_elsewhere[session_id]
        if cursor > before:
            return
        made = datetime.fromisoformat(frame.partition('"ts":"')[2].partition('"')[0])
        for observer in self._lag_observers:
            observer(max(0.0, (now() - made).total_seconds()))

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

    async def follow(self, session_id: str, *, after: int | None, push: Push | None = None) -> AsyncGenerator[Page]:
        """Everything after ``after``, then what comes; the snapshot first when ``after`` is None or no longer kept.

        With ``push``, that is called with the pages that come while the follower keeps up; the others, in between, are
        yielded, and what it raises is raised here.
        Ends when the session is deleted or the server stops. Raises SessionNotFound.
        """
        feed, follower = await self._enter(session_id, after, push)
        page: Page | None  # one name for all: none of them is kept while others are pushed
        try:
            gap = after is not None and await self._lost(feed, after)
            if after is None or gap:
                page = await (self._snapshot_page(session_id, since=after) if gap else self._opening(session_id))
                follower.cursor = page.last_seq
                yield page
            while not feed.closed:
                grown = feed.signal()
                page = feed.page(follower.cursor)
                if page is None:
                    page = await feed.reread(follower.cursor, self._reread)
                if page is None:
                    page = await self._snapshot_page(session_id, since=follower.cursor)
                if page.envelopes:
                    await self._gate.passage()
                    follower.cursor = page.last_seq
                    self._taken += len(page.envelopes)
                    yield page
                    continue
                if push is None:
                    await feed.wait(grown)
                elif not grown.is_set():  # else there was a round, or the end, while the store was read
                    await feed.serve(follower)
        finally:
            self._leave(feed, follower)

    async def page(self, session_id: str, *, after: int, limit: int, wait: float) -> tuple[Sequence[str], int]:
        """Up to ``limit`` envelopes after ``after`` and the head; waits up to ``wait`` seconds for the first one.

        The snapshot instead, with ``navi.gap``, when the cursor is within what has been folded.
        """
        if await self._store.gap(session_id, after):
            page = await self._snapshot_page(session_id, since=after)
            return [frame for _, frame in page.envelopes], page.last_seq
        feed, follower = await self._enter(session_id, None)
        try:
            async with asyncio.timeout(wait or None) as patience:
                del patience
                while True:
                    grown = feed.signal()
                    envelopes = await self._store.frames(session_id, after=after, limit=limit)
                    if envelopes or not wait or feed.closed:
                        break
                    await feed.wait(grown)
        except TimeoutError:
            envelopes = []
        finally:
            self._leave(feed, follower)
        head = await self._store.head(session_id)
        return [frame for _, frame in envelopes], head if head is not None else after

    async def _reread(self, session_id: str, cursor: int) -> Page | None:
        """What follows ``cursor`` in the store; None when that was folded meanwhile."""
        envelopes = cut_page(await self._store.frames(session_id, after=cursor, limit=PAGE_EVENTS))
        if not envelopes:
            return empty_page(cursor)
        self._note_lag(session_id, cursor, envelopes[0][1])
        # Asked after reading: compacted before it, the log has a gap; compacted only now, this page is complete.
        return None if await self._store.gap(session_id, cursor) else make_page(envelopes)

    async def _enter(self, session_id: str, after: int | None, push: Push | None = None) -> tuple[Feed, Follower]:
        """None: the follower begins at the head."""
        feed = self._feeds.get(session_id)
        if feed is None:
            ring = Ring(max_events=self._ring_events, max_bytes=self._ring_bytes)
            feed = self._feeds[session_id] = Feed(session_id, ring, self._rounds)
        # Listed before the head is asked for: what is committed meanwhile reaches the ring, so nothing falls between.
        follower = Follower(feed.ring.head if after is None else after, push)
        feed.members.add(follower)
        self.in_use.set()
        try:
            head = await self._store.head(session_id)
            if head is None or self._stopped:
                raise SessionNotFound(f"There is no session {session_id}.")
        except BaseException:
            self._leave(feed, follower)
            raise
        feed.skip_to(head)
        if after is None:
            follower.cursor = feed.ring.head
        return feed, follower

    def _leave(self, feed: Feed, follower: Follower) -> None:
        feed.members.discard(follower)
        if not feed.members and self._feeds.get(feed.session_id) is feed:
            del self._feeds[feed.session_id]
            self._grown_elsewhere.pop(feed.session_id, None)

    async def _lost(self, feed: Feed, cursor: int) -> bool:
        if cursor > feed.ring.head:
            head = await self._store.head(feed.session_id)
            return head is None or cursor > head
        return cursor < feed.ring.start and await self._store.gap(feed.session_id, cursor)

    async def _opening(self, session_id: str) -> Page:
        """The snapshot for a follower without a cursor: made once for all that ask while it is being made.

        It may be of a moment before the last of them asked; what came after it follows as events.
        """
        making = self._openings.get(session_id)
        if making is None:
            making = self._openings[session_id] = asyncio.create_task(self._snapshot_page(session_id, since=None))
            making.add_done_callback(lambda made: self._opened(session_id, made))
        # a follower that leaves must not end the reading of the others.
        return await asyncio.shield(making)

    def _opened(self, session_id: str, made: asyncio.Task[Page]) -> None:
        del self._openings[session_id]
        if not made.cancelled():
            made.exception()  # all who wanted it may have left

    async def _snapshot_page(self, session_id: str, *, since: int | None) -> Page:
        snapshot = await self._store.snapshot(session_id, last=PRELUDE_MESSAGES)
        if snapshot is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        drafts = await asyncio.to_thread(snapshot_events, snapshot, now(), since=since)
        frames = [draft.frame(session_id, snapshot.head_seq, snapshot=True) for draft in drafts]
        return make_page([(snapshot.head_seq, frame) for frame in frames])


class FairGate:
    """``await passage()`` returns at once while this turn of the loop has room, else in a later turn, in order.

    A round wakes every follower at once: one turn of the loop would write to all, and kernels would wait for the last.
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
