"""One server of a user, started or stopped through the Hub: what that is asked, and what the database keeps of it.

A step that another replica must know is in the database before it is taken, so that one can take over at any point.
Not responsible for which server's turn it is (``user_servers``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from ..clock import now
from ..errors import HubRefused, NaviError, ServerUnavailable
from ..log_setup import get_logger
from ..model.user_servers import NEVER, ServerKey, UserServer, UserServerState
from ..server.process.measures import Spawns
from ..store.hub.user_servers import UserServerStore
from .hub_api import HubApi, HubBusy, HubUnreachable, RunningServer

log = get_logger("hub")

POLL_FIRST, POLL_LAST = 0.2, 2.0  # seconds between two looks at a server that starts
ENDS_WITHIN = 2.0  # seconds until a server that is being stopped is looked at again
LONGEST_PAUSE = 60.0  # seconds between two attempts while the Hub has no place, or does not answer
AGAIN = 60.0  # seconds until it is looked again at a server that could not be asked, or not be stopped
NO_LINK_FOR = timedelta(minutes=10)
"""After a server without a link was due, until the Hub's word on its user's activity is taken: the Hub hears of that
every five minutes."""
ACTIVE = timedelta(minutes=1)  # after the last use, for activity to be the user's: the end of a run is activity, too
LOOKS = 30  # at a server that is being stopped
LOOK_EVERY = 1.0  # seconds


def pause(attempts: int) -> float:
    """Seconds until the next attempt, after so many in vain: 1 s, 2 s, … 60 s, each up to a half shorter by chance, so
    that replicas and servers do not come at once."""
    return min(LONGEST_PAUSE, 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311


class ServerStarts:
    """See above."""

    def __init__(
        self, store: UserServerStore, hub: HubApi, spawns: Spawns, *, within: float, on_busy: Callable[[float], None]
    ) -> None:
        """``within``: seconds after which a start counts as timed out. ``on_busy``: called with the seconds for which
        the Hub wants no other request to start a server."""
        self._store = store
        self._hub = hub
        self._spawns = spawns
        self._within = within
        self._on_busy = on_busy

    async def start(self, server: UserServer) -> None:
        """Bring a server that this replica has claimed to run, or store why it does not. Raises StoreError."""
        try:
            await self._start(server)
        except HubRefused as error:
            why = error.message
            self._spawns.note("refused")
            log.error("server_start_refused", server=str(server.key), error=why)
            await self._change(server.key, lambda one: one.refused_by_hub(now(), why))
        except HubUnreachable as error:
            # Before it was asked anything that counts.
            why, delay = error.message, pause(server.attempts)
            await self._change(server.key, lambda one: one.queued(now(), delay, why, asked=True))

    async def _start(self, server: UserServer) -> None:
        found = await self._hub.server(server.key)
        if found is not None and found.pending == "stop":
            await self._change(server.key, lambda one: one.queued(now(), ENDS_WITHIN, asked=False))
        elif found is not None and server.asked_at is None:
            await self._running_already(server, found)
        elif found is not None or await self._ask(server):
            await self._wait(server.key)

    async def _running_already(self, server: UserServer, found: RunningServer) -> None:
        """It was not asked for: it is ours from before, or somebody has started it."""
        if found.ready and found.started == server.started:
            await self._change(server.key, lambda one: replace(one.ready(now(), found.started), used_at=one.used_at))
        else:
            await self._change(server.key, lambda one: one.theirs(now()))

    async def _ask(self, server: UserServer) -> bool:
        """Ask the Hub to start it, which is off; whether it may have begun."""
        key = server.key

        def decide(one: UserServer, _: bool) -> UserServer | None:
            return one.asked(now()) if one.is_wanted(now()) else None

        if await self._store.change(key, decide, now=now(), keep=True) is None:
            await self._change(key, lambda one: one.ended(now()) if not one.is_wanted(now()) else one)
            return False
        try:
            await self._hub.start(key)
        except HubBusy as error:
            why, delay = error.message, pause(server.attempts) if error.retry_after is None else error.retry_after
            self._on_busy(delay)
            log.info("server_start_waits", server=str(key), seconds=round(delay, 1), error=why)
            await self._change(key, lambda one: one.queued(now(), delay, why))
            return False
        except HubUnreachable:
            return True  # it may have been asked
        except ServerUnavailable as error:
            await self._refused_to_start(server, error)
            return False
        return True

    async def _refused_to_start(self, server: UserServer, error: ServerUnavailable) -> None:
        """The Hub has answered that it did not start it: it failed within seconds, or somebody else was first."""
        found = await self._hub.server(server.key)
        if found is None:
            await self._failed(server.key, await self._hub.reason(server.key) or error.message)
        else:
            await self._change(server.key, lambda one: one.theirs(now()))

    async def _wait(self, key: ServerKey) -> None:
        """Until it is ready, or has not started. The Hub decides when that has taken too long: until then it has one of
        the places."""
        server = (await self._store.of((key,))).get(key)
        if server is None or server.asked_at is None:
            return
        delay, was_away, attempts, timed_out = POLL_FIRST, False, 0, False
        while True:
            seconds = (now() - server.asked_at).total_seconds()
            if not timed_out and seconds > self._within:
                timed_out = True
                self._spawns.note("timed_out")
            try:
                found = await self._hub.server(key)
            except HubUnreachable:
                was_away, attempts = True, attempts + 1
                await asyncio.sleep(min(pause(attempts), POLL_LAST))
                continue
            if found is None:
                break
            if found.ready:
                if not timed_out:
                    self._spawns.note("ready", seconds)
                log.info("server_started", server=str(key), seconds=round(seconds, 1))
                await self._ready(key, found)
                return
            await asyncio.sleep(delay)
            delay = min(POLL_LAST, delay * 1.3)
        if was_away:  # what it was starting when it ended is lost
            await self._change(key, lambda one: one.queued(now(), pause(one.attempts)))
        else:
            await self._failed(key, await self._hub.reason(key) or "it ended before it was ready", timed_out=timed_out)

    async def _ready(self, key: ServerKey, found: RunningServer) -> None:
        await self._change(key, lambda one: one.ready(now(), found.started))

    async def _failed(self, key: ServerKey, reason: str, *, timed_out: bool = False) -> None:
        if not timed_out:
            self._spawns.note("failed")
        log.warning("server_start_failed", server=str(key), reason=reason)
        await self._change(key, lambda one: one.failed(now(), reason))

    async def _change(self, key: ServerKey, to: Callable[[UserServer], UserServer]) -> None:
        """Store what became of it, and give the claim back. Where the claim was lost, its new holder finds out."""
        await self._store.change(key, lambda one, _: to(one), now=now())


class ReachedServers(Protocol):
    """The servers of users that this process has a link to."""

    def linked(self, owner: str, server: str) -> bool:
        """Whether this process has a link to that server now; ``""`` is the default server."""
        ...

    async def wait(self, owner: str, server: str) -> None:
        """Return once it has. To be cancelled."""
        ...

    async def in_use(self, owner: str, server: str) -> bool:
        """Whether the user uses it: an open page, a busy kernel, requests since it started that were not ours.

        Raises NaviError if the link is lost.
        """
        ...


class ServerStops:
    """See above."""

    def __init__(self, store: UserServerStore, hub: HubApi, links: ReachedServers, *, idle: timedelta) -> None:
        """``idle``: from the end of the last use until a server is due."""
        self._store = store
        self._hub = hub
        self._links = links
        self._idle = idle

    def is_for_this_process(self, due: UserServer) -> bool:
        """Whether this process is one that can look at a server: one that has its link, or, where no process has had
        it for a while, any."""
        if due.state is UserServerState.STOPPING or self._links.linked(*due.key):
            return True
        return now() - (due.used_at + self._idle) > NO_LINK_FOR

    async def stop(self, due: UserServer) -> None:
        """Stop a server that is due, if that is still so. Raises StoreError."""
        server = await self._store.claim(due.key, state=due.state, now=now())
        if server is None:
            return
        try:
            await self._stop(server)
        except NaviError as error:
            log.warning("server_stop_postponed", server=str(server.key), error=error.message)
            await self._store.change(server.key, lambda one, _: one.kept(now(), AGAIN), now=now())

    async def _stop(self, server: UserServer) -> None:
        key = server.key
        found = await self._hub.server(key)
        if found is not None and found.pending == "stop":
            await self._see_it_end(key, found)
            return
        if found is None or found.started != server.started:
            await self._store.change(key, lambda one, _: one.ended(now()), now=now())
            return
        if await self._user_came(server, found):
            log.info("server_left_to_its_user", server=str(key))
            await self._store.change(key, lambda one, _: one.ended(now()), now=now())
            return

        def decide(one: UserServer, used: bool) -> UserServer | None:
            # Who uses it from now on finds it so, and waits for its next start.
            return None if used or one.is_wanted(now()) else one.being_stopped()

        if await self._store.change(key, decide, now=now(), keep=True) is None:
            await self._store.change(key, lambda one, _: one.kept(now(), 0), now=now())
            return
        await self._hub.stop(key)
        await self._see_it_end(key, found)
        log.info("server_stopped", server=str(key))

    async def _user_came(self, server: UserServer, found: RunningServer) -> bool:
        if self._links.linked(*server.key):
            return await self._links.in_use(*server.key)
        return (found.last_activity or NEVER) > server.used_at + ACTIVE

    async def _see_it_end(self, key: ServerKey, running: RunningServer) -> None:
        """Raises ServerUnavailable where it does not."""
        for _ in range(LOOKS):
            found = await self._hub.server(key)
            if found is None or found.started != running.started:
                await self._store.change(key, lambda one, _: one.ended(now()), now=now())
                return
            await asyncio.sleep(LOOK_EVERY)
        raise ServerUnavailable("It has not ended.")
