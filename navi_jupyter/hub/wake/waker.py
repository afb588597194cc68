"""Users' servers started shortly before a recall of theirs is due, and held until what it began has ended.

Each replica claims servers that are due in the database, so that one of them alone acts on a server; the start and the
stop themselves are those of ``user_servers``, with its queue and places. Not responsible for what fires in the server:
its own scheduler does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from ...clock import now
from ...errors import HubRefused, ServerUnavailable
from ...log_setup import get_logger
from ...model.user_servers import NEVER, ServerKey, UserServer, UserServerState
from ...store.hub.server_wakes import ServerWake, ServerWakeStore
from ...store.hub.user_servers import UserServerStore
from ..hub_api import HubApi
from ..server_changes import ACTIVE
from ..user_servers import Turns, UserServers

log = get_logger("hub")

LOOK_EVERY = 1.0  # seconds between two looks at the reports of a server that is held
DUE_EVERY = 5.0  # seconds between two looks for what is due, at most: reports may reach another replica
RENEW_EVERY = 4.0  # seconds; three renewals may fail in a row
TIDY_EVERY = 3600.0  # seconds
ASKED_AGAIN = timedelta(seconds=15)  # that a server is held, until the Hub is asked whether it still runs
SILENT = timedelta(seconds=60)
"""After a recall was due, until a server that runs and is not at work counts as one that does not do its recalls."""
RUNS = timedelta(seconds=5)  # after a recall was due in a server that runs already, until that is looked at again
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=15), timedelta(hours=1)  # until one that did not come up is tried again
REFUSED_PAUSE = timedelta(minutes=10)  # the same where the Hub does not let the service start it


class ReportedServers:
    """What is known of servers by their reports; implements ``ReachedServers``.

    Every process knows the same of each server, by the database: so any of them has a "link" to all, but to those that
    it has started and that have not reported yet.
    """

    def __init__(self, wakes: ServerWakeStore, servers: UserServerStore, hub: HubApi, *, before: timedelta) -> None:
        """``before``: as the setting ``wake_before``."""
        self._wakes = wakes
        self._servers = servers
        self._hub = hub
        self._before = before
        self._awaited: dict[ServerKey, datetime] = {}

    @contextmanager
    def awaiting(self, key: ServerKey, since: datetime) -> Iterator[None]:
        """While it is entered, the server has no link until it has reported, and the Hub was asked about it lately."""
        self._awaited[key] = since
        try:
            yield
        finally:
            self._awaited.pop(key, None)

    def linked(self, owner: str, server: str) -> bool:
        """See ``ReachedServers``."""
        return ServerKey(owner, server) not in self._awaited

    async def wait(self, owner: str, server: str) -> None:
        """Return once the Hub has seen it run since it is awaited, and it has reported since its start."""
        key = ServerKey(owner, server)
        while (since := self._awaited.get(key)) is not None:
            found = await self.server(key)
            # ``not_before`` is later than the Hub's answer by a while: what is not looked at anew in it is recent.
            if found is not None and found.not_before > since:
                if found.state is UserServerState.THEIRS:
                    return
                if found.state is UserServerState.OURS and await self._of_this_start(found) is not None:
                    return
            await asyncio.sleep(LOOK_EVERY)

    async def in_use(self, owner: str, server: str) -> bool:
        """See ``ReachedServers``. Raises ServerUnavailable while it is at work: then it is looked at again later."""
        key = ServerKey(owner, server)
        found = await self.server(key)
        reported = None if found is None else await self._of_this_start(found)
        if found is None or reported is None:
            # It runs and does not report, so that only the Hub knows whether its user came.
            running = await self._hub.server(key)
            activity = (running and running.last_activity) or NEVER
            return found is None or activity > found.used_at + ACTIVE
        if reported.is_needed(now(), self._before):
            raise ServerUnavailable("It is at work.")
        return reported.in_use

    async def server(self, key: ServerKey) -> UserServer | None:
        """As it is known to the queue of starts. Raises StoreError."""
        return (await self._servers.of((key,))).get(key)

    async def _of_this_start(self, found: UserServer) -> ServerWake | None:
        """What it has reported since it was started, if it has."""
        reported = (await self._wakes.of((found.key,))).get(found.key)
        return reported if reported is not None and reported.reported_at >= _instant(found.started) else None


def _instant(text: str | None) -> datetime:
    """When the Hub has started a server, in its own words."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Waker:
    """See the module. :meth:`start` and :meth:`stop` belong to the process."""

    def __init__(
        self,
        wakes: ServerWakeStore,
        servers: UserServers,
        reported: ReportedServers,
        *,
        before: timedelta,
        most_starting: int,
    ) -> None:
        """``before``: as the setting ``wake_before``; ``most_starting``: places of the queue of starts."""
        self._wakes = wakes
        self._servers = servers
        self._reported = reported
        self._before = before
        self._most_claimed = 2 * most_starting  # that are not up yet: the next ones wait for a place then
        self._up: set[ServerKey] = set()
        self._tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._turns = Turns("wakes", self._take_turn, self._pause)
        self._renew_at = self._tidy_at = 0.0  # by ``time.monotonic``

    def start(self) -> None:
        """Begin to take turns."""
        self._turns.start()

    async def stop(self) -> None:
        """End; another replica, or the next start, goes on with what is claimed here, once the claims are over."""
        await self._turns.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Look for what is due now: a server has reported."""
        self._turns.wake()

    def _pause(self) -> float:
        every = min(DUE_EVERY, max(1.0, self._before.total_seconds() / 4))
        return min(every, RENEW_EVERY) if self._tasks else every

    async def _take_turn(self) -> None:
        at = time.monotonic()
        if self._tasks and at >= self._renew_at:
            self._renew_at = at + RENEW_EVERY
            for key in await self._wakes.renew(tuple(self._tasks), now=now()):
                if (task := self._tasks.get(key)) is not None:
                    task.cancel()
        if at >= self._tidy_at:
            self._tidy_at = at + TIDY_EVERY
            await self._wakes.tidy(now=now())
        free = self._most_claimed - len(self._tasks.keys() - self._up)
        if free > 0:
            for wake in await self._wakes.claim_due(before=self._before, free=free, now=now()):
                self._act(wake)

    def _act(self, wake: ServerWake) -> None:
        task = self._tasks[wake.key] = asyncio.create_task(self._wake(wake), name=f"navi-wake-{wake.key}")
        task.add_done_callback(lambda done: self._acted(wake.key, done))

    def _acted(self, key: ServerKey, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._up.discard(key)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its claim ends, and it is taken up again.
            log.error("server_not_woken", server=str(key), error=str(error))
        self._turns.wake()

    async def _wake(self, wake: ServerWake) -> None:
        """Have one server run until it is not needed any more. Raises StoreError."""
        key = wake.key
        try:
            async with self._servers.using(*key):
                not_before = await self._until_done(wake)
        except (ServerUnavailable, HubRefused) as error:
            longer = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(wake.attempts, 10))
            pause = max(longer, REFUSED_PAUSE) if isinstance(error, HubRefused) else longer
            log.warning("server_not_woken", server=str(key), seconds=pause.total_seconds(), error=error.message)
            await self._wakes.settle(key, not_before=now() + pause, attempts=wake.attempts + 1)
        else:
            await self._wakes.settle(key, not_before=not_before)

    async def _until_done(self, wake: ServerWake) -> datetime:
        """Start it, where it is off, and wait until its work is done; from when on it is looked at again."""
        key, began = wake.key, now()
        state = await self._ready(key)
        if wake.next_at is not None and state is UserServerState.THEIRS:
            return max(wake.next_at, now()) + RUNS  # its user has it: its own scheduler does the rest
        self._up.add(key)
        reported = await self._report(key)
        if wake.reported_at < began and reported is not None and reported.reported_at >= began:  # else it ran already
            await self._wakes.note_start(key, reported.reported_at - began)
        asked_at = now()
        while (reported := await self._report(key)) is not None and reported.is_needed(now(), self._before):
            due = reported.next_at
            if reported.busy_until <= now() and due is not None and now() - max(due, began) > SILENT:
                raise ServerUnavailable(f"It runs, and has not done what was due at {due.isoformat()}.")
            await asyncio.sleep(LOOK_EVERY)
            if now() - asked_at > ASKED_AGAIN:
                await self._ready(key)
                asked_at = now()
        return NEVER

    async def _ready(self, key: ServerKey) -> UserServerState | None:
        """Return once it runs; whose it is then. Raises ServerUnavailable, HubRefused, StoreError."""
        with self._reported.awaiting(key, now()):
            await self._servers.ready(*key)
        found = await self._reported.server(key)
        return None if found is None else found.state

    async def _report(self, key: ServerKey) -> ServerWake | None:
        return (await self._wakes.of((key,))).get(key)
