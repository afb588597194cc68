"""Users' servers, there when a run needs one: started through the Hub, stopped when no run has used one for a while.

All replicas share a queue and its places in the database. Each takes a turn when something happens here, and once in a
while: it renews what it wants, uses and starts, and takes what is next. Not responsible for what a run does with a
server (the link to it), nor for which runs may have one started (:meth:`UserServers.may_start` has the setting's rule).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from ..clock import now
from ..errors import HubRefused, NaviError, ServerUnavailable
from ..log_setup import get_logger
from ..model.sessions import Origin, OriginKind
from ..model.user_servers import FAILURES_WITHIN, ServerKey, UserServer, UserServerState
from ..server.process.measures import Spawns
from ..settings import Settings
from ..store.database import Database
from ..store.hub.user_servers import UserServerStore
from .hub_api import HubApi
from .server_changes import ReachedServers, ServerStarts, ServerStops

log = get_logger("hub")

RENEW_EVERY = 4.0  # seconds; three renewals may fail in a row (``store.hub.user_servers.LEASE``)
BUSY_EVERY = 1.0  # seconds between two turns while something is wanted or starts here
REST_EVERY = 10.0  # seconds between two looks for what other replicas have left, and for what is to be stopped
TIDY_EVERY = 60.0  # seconds
SERVER_STARTING = "server_starting"


class Turns:
    """Work that a process of the service does again and again: after a pause, or when something has happened.

    A turn that fails is followed by the next one; of what lasts, the log has one line.
    """

    def __init__(self, name: str, turn: Callable[[], Awaitable[None]], pause: Callable[[], float]) -> None:
        """``pause``: seconds until the next turn, asked after each."""
        self._name, self._turn, self._pause = name, turn, pause
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.obstacle = ""  # why the last turn failed

    def start(self) -> None:
        """Begin, with the first turn at once."""
        self._task = asyncio.create_task(self._run(), name=f"navi-{self._name}")

    async def stop(self) -> None:
        """End, also in the middle of a turn."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Something has happened."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
                self.obstacle = ""
            except NaviError as error:
                if error.message != self.obstacle:
                    log.error("servers_not_looked_at", what=self._name, error=error.message)
                self.obstacle = error.message
            except Exception:
                log.exception("servers_turn_failed", what=self._name)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._pause())
            self._woken.clear()


class _Want:
    """What runs of this process wait for, and the last that is known of it."""

    def __init__(self) -> None:
        self.callers = 0
        self.known: UserServer | None = None
        self.given_up: asyncio.Future[UserServer] = asyncio.get_running_loop().create_future()


class UserServers:
    """See above. :meth:`start` and :meth:`stop` belong to the process; the rest is for runs."""

    def __init__(
        self, database: Database, hub: HubApi, links: ReachedServers, *, settings: Settings, spawns: Spawns
    ) -> None:
        """``spawns``: filled; what the metrics of the process have of it."""
        self._links = links
        self._settings = settings
        self._spawns = spawns
        self._idle = timedelta(seconds=settings.server_idle_stop)
        self._store = UserServerStore(database, secrets.token_hex(8))
        self._starts = ServerStarts(
            self._store, hub, spawns, within=settings.server_start_timeout, on_busy=self._stand_back
        )
        self._stops = ServerStops(self._store, hub, links, idle=self._idle)
        self._wants: dict[ServerKey, _Want] = {}
        self._uses: Counter[ServerKey] = Counter()
        self._being_stopped: set[ServerKey] = set()  # when their use began
        self._starting: dict[ServerKey, asyncio.Task[None]] = {}
        self._stopping: dict[ServerKey, asyncio.Task[None]] = {}
        self._turns = Turns("user-servers", self._take_turn, self._pause)
        self._stand_back_until = self._renew_at = self._rest_at = self._tidy_at = 0.0  # by ``time.monotonic``

    def may_start(self, origin: Origin) -> bool:
        """Whether a run of this origin may have its user's server started, by the setting ``start_servers``."""
        mode = self._settings.start_servers
        return mode == "always" or (mode == "recalls" and origin.kind is OriginKind.RECALL)

    async def start(self) -> None:
        """Begin to take turns. Returns at once."""
        self._turns.start()

    async def stop(self) -> None:
        """End; what is starting goes on at the Hub, and another replica, or the next start, takes it over."""
        await self._turns.stop()
        tasks = [*self._starting.values(), *self._stopping.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- for runs ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def using(self, owner: str, server: str = "") -> AsyncIterator[None]:
        """While it is entered, the server is not stopped by any replica. To be entered before :meth:`ready`.

        Raises StoreError.
        """
        key = ServerKey(owner, server)
        self._uses[key] += 1
        try:
            # Each time: a use that has just begun must be in the database before the server is relied on.
            found = await self._store.hold(key, now=now())
            if found is not None and found.state is UserServerState.STOPPING:
                self._being_stopped.add(key)
            else:
                self._being_stopped.discard(key)
            self._turns.wake()
            yield
        finally:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]
                await self._release(key)

    async def _release(self, key: ServerKey) -> None:
        async def release() -> None:
            if key not in self._uses:  # else another use began, which is in the database after this
                await self._store.release(key, now=now())

        try:
            await asyncio.shield(asyncio.ensure_future(release()))
        except NaviError as error:
            # Then the use ends with its lease.
            log.warning("server_use_not_ended", server=str(key), error=error.message)

    async def ready(self, owner: str, server: str = "", *, waiting: Callable[[str], None] = lambda _: None) -> None:
        """Return once this process has a link to the server, which is started where it is off.

        ``waiting``: called once, with ``server_starting``, where that takes time. Raises ServerUnavailable (with why)
        and HubRefused.
        """
        key = ServerKey(owner, server)
        if key not in self._being_stopped and self._links.linked(owner, server):
            return
        waiting(SERVER_STARTING)
        want = self._wants.get(key)
        if want is None:
            want = self._wants[key] = _Want()
        want.callers += 1
        self._note_pending()
        self._turns.wake()
        linked = asyncio.ensure_future(self._linked(key))
        try:
            done, _ = await asyncio.wait(
                (linked, want.given_up),
                timeout=self._settings.server_start_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if linked in done:
                linked.result()
            elif want.given_up in done:
                raise _failure(want.given_up.result())
            else:
                raise ServerUnavailable(self._why(want.known))
        finally:
            linked.cancel()
            want.callers -= 1
            if not want.callers and self._wants.get(key) is want:
                del self._wants[key]
            self._note_pending()

    async def _linked(self, key: ServerKey) -> None:
        while key in self._being_stopped:  # its link is still there, for a moment
            found = (await self._store.of((key,))).get(key)
            if found is None or found.state is not UserServerState.STOPPING:
                self._being_stopped.discard(key)
                break
            await asyncio.sleep(BUSY_EVERY)
        await self._links.wait(*key)

    def _why(self, known: UserServer | None) -> str:
        """Why a server is not there in time, as far as it is known."""
        waited = f"Your server is not there after {self._settings.server_start_timeout:.0f} seconds: "
        if known is None or known.state is UserServerState.STOPPING:
            return waited + (known.reason if known and known.reason else "it could not be asked for in time.")
        if known.state is UserServerState.WANTED:
            return waited + (known.reason or "others are started before it.")
        if known.state is UserServerState.STARTING:
            return waited + "it is still starting."
        if known.state is UserServerState.FAILED:
            return waited + f"its last start failed ({known.reason})."
        return (
            waited + "it runs, but has not connected to Navi. Is navi-jupyter installed in it, and NAVI_HUB_SERVICE_URL"
            " set?"
        )

    # --- turns -------------------------------------------------------------------------------------------------------

    def _pause(self) -> float:
        at = time.monotonic()
        if self._wants or self._starting or self._turns.obstacle:
            return BUSY_EVERY
        return max(0.1, min(self._rest_at, self._renew_at if self._uses else self._rest_at) - at)

    async def _take_turn(self) -> None:
        at = time.monotonic()
        if at >= self._rest_at:
            self._rest_at = at + min(REST_EVERY, max(1.0, self._settings.server_idle_stop / 4))
            await self._look_for_stops()
            is_pending = await self._store.is_any_pending()
        else:
            is_pending = False
        if at >= self._tidy_at:
            self._tidy_at = at + TIDY_EVERY
            await self._store.tidy(now=now(), forgotten=max(FAILURES_WITHIN, 2 * self._idle))
        if self._wants or self._starting or self._stopping or self._uses or is_pending:
            await self._take_places(at)

    async def _take_places(self, at: float) -> None:
        """Renew, claim, and pass on what is known of those that are waited for."""
        is_due = at >= self._renew_at
        if is_due:
            self._renew_at = at + RENEW_EVERY
        acting = self._starting | self._stopping
        turn = await self._store.turn(
            wants=[key for key, want in self._wants.items() if is_due or want.known is None],
            watched=tuple(self._wants),
            renewed=tuple(acting) if is_due else (),
            uses=tuple(self._uses) if is_due else (),
            places=0 if at < self._stand_back_until else self._settings.max_starting_servers,
            now=now(),
        )
        for key in turn.lost:
            if key in acting and not acting[key].done():
                acting[key].cancel()
        for server in turn.claimed:
            if server.key in self._starting:
                continue  # its claim had ended, as after a sleep of the machine: the start goes on with this one
            self._act(self._starting, server.key, self._starts.start(server))
        for key, server in turn.wanted.items():
            if (want := self._wants.get(key)) is not None:
                want.known = server
                if server.is_given_up(now()):
                    del self._wants[key]
                    want.given_up.set_result(server)

    async def _look_for_stops(self) -> None:
        if not self._idle:
            return
        for server in await self._store.to_stop(idle=self._idle, now=now()):
            if server.key not in self._stopping and self._stops.is_for_this_process(server):
                self._act(self._stopping, server.key, self._stops.stop(server))

    def _act(
        self, among: dict[ServerKey, asyncio.Task[None]], key: ServerKey, work: Coroutine[None, None, None]
    ) -> None:
        task = among[key] = asyncio.create_task(work, name=f"navi-server-{key}")
        task.add_done_callback(lambda done: self._acted(among, key, done))
        self._note_pending()

    def _acted(self, among: dict[ServerKey, asyncio.Task[None]], key: ServerKey, task: asyncio.Task[None]) -> None:
        if among.get(key) is task:
            del among[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its claim ends, and it is taken up again.
            log.error("server_not_dealt_with", server=str(key), error=str(error))
        self._note_pending()
        self._turns.wake()

    def _stand_back(self, seconds: float) -> None:
        """The Hub wants no other request to start a server for a while."""
        self._stand_back_until = max(self._stand_back_until, time.monotonic() + seconds)

    def _note_pending(self) -> None:
        self._spawns.pending = len(self._wants.keys() | self._starting.keys())


def _failure(server: UserServer) -> NaviError:
    if server.refused:
        return HubRefused(server.reason)
    again = max(0, round((server.not_before - now()).total_seconds() / 60))
    return ServerUnavailable(
        f"Your server did not start, {server.failures} times in a row ({server.reason}). It is tried again in"
        f" {again} minutes at the earliest. Start it yourself, or ask the administrator."
    )
