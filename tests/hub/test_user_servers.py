"""Users' servers started and stopped through a real JupyterHub, for runs that want them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import HubRefused, ServerUnavailable
from navi_jupyter.hub import server_changes, user_servers
from navi_jupyter.hub.hub_api import HubApi
from navi_jupyter.hub.server_changes import pause
from navi_jupyter.hub.user_servers import UserServers
from navi_jupyter.hub.wake.waker import ReportedServers, Waker
from navi_jupyter.model.sessions import SYSTEM, USER, Origin, OriginKind
from navi_jupyter.model.user_servers import FAILURES, ServerKey
from navi_jupyter.server.process.measures import Spawns
from navi_jupyter.settings import Settings
from navi_jupyter.store.database import Database
from navi_jupyter.store.hub.server_wakes import ServerWakeStore, WakeReport
from navi_jupyter.store.hub.user_servers import UserServerStore
from tests.support.database import open_store
from tests.support.hub import Hub
from tests.support.spawns import QUICK, FileLinks, SpawnFile

pytestmark = pytest.mark.timeout(400)  # a Hub starts with the first test
SPAWNS = int(os.environ.get("NAVI_SPAWNS", "30"))
FAST = Settings(server_start_timeout=60.0, server_idle_stop=1.0, max_starting_servers=5)
NEVER_STOPPED = replace(FAST, server_idle_stop=0.0)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """With quick servers; a start goes on for longer than the Hub lets a request wait for it."""
    settings = {"slow_spawn_timeout": 0.1, "spawn_throttle_retry_range": (1, 2)}
    more = {"JupyterHub": QUICK["JupyterHub"] | {"concurrent_spawn_limit": 6, "tornado_settings": settings}}
    with Hub(tmp_path_factory.mktemp("hub"), more=more).start() as started:
        yield started


@dataclass
class World:
    """One process of the service."""

    hub: Hub
    database: Database
    servers: UserServers
    links: FileLinks
    spawns: Spawns

    @property
    def file(self) -> SpawnFile:
        return self.links.file

    async def until(self, condition: Any, patience: float = 30.0) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def until_state(self, owner: str, state: str | None, patience: float = 30.0) -> None:
        """None: nothing is kept of the server."""
        deadline = time.monotonic() + patience
        while (await self.rows()).get(owner) != state:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def rows(self) -> dict[str, str]:
        """The state of each server that the database knows, by owner."""
        found = await self.database.fetch_all("SELECT owner, state FROM user_servers")
        return {row["owner"]: row["state"] for row in found}


@asynccontextmanager
async def world(hub: Hub, path: Path, settings: Settings = FAST, *, token: str | None = None) -> AsyncIterator[World]:
    database = await open_store(path / "navi.db")
    api = HubApi(hub.hub_api, token or hub.service_token)
    links, spawns = FileLinks(SpawnFile(hub.spawns)), Spawns()
    servers = UserServers(database, api, links, settings=settings, spawns=spawns)
    await servers.start()
    try:
        yield World(hub, database, servers, links, spawns)
    finally:
        await servers.stop()
        api.close()
        await database.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for minutes waits for moments."""
    monkeypatch.setattr(server_changes, "AGAIN", 0.5)
    monkeypatch.setattr(user_servers, "RENEW_EVERY", 0.5)
    monkeypatch.setattr("navi_jupyter.store.hub.user_servers.LEASE", timedelta(seconds=2))


async def test_a_server_is_started_once_for_all_who_want_it_and_stopped_after_its_last_use(
    hub: Hub, tmp_path: Path
) -> None:
    name = hub.user("ada").name
    async with world(hub, tmp_path) as one:
        states: list[str] = []

        async def run() -> None:
            async with one.servers.using(name):
                await one.servers.ready(name, waiting=states.append)
                assert one.links.linked(name, "")
                await asyncio.sleep(1.5)  # longer than a server may be idle
                assert one.links.linked(name, "")

        await asyncio.gather(*(run() for _ in range(10)))
        assert states == ["server_starting"] * 10
        assert one.spawns.results == {"ready": 1, "failed": 0, "refused": 0, "timed_out": 0}
        assert 0.2 < one.spawns.seconds.total < 20
        await one.until(lambda: not one.file.is_up(name))
        async with one.servers.using(name):
            await one.servers.ready(name, waiting=states.append)
            await one.servers.ready(name, waiting=states.append)
        assert len(states) == 11, "one that is there is not waited for"
        assert one.file.count("starting", name) == 2
        await one.until(lambda: not one.file.is_up(name))
        await one.until_state(name, None)


async def test_the_server_of_a_user_who_came_is_left_to_the_user(hub: Hub, tmp_path: Path) -> None:
    name = hub.user("bea").name
    async with world(hub, tmp_path) as one:
        one.links.used_by_user.add(name)
        async with one.servers.using(name):
            await one.servers.ready(name)
        await one.until_state(name, "ours")
        await one.until_state(name, None)
        one.links.used_by_user.clear()
        async with one.servers.using(name):
            await one.servers.ready(name)
        await asyncio.sleep(3)
        assert one.file.is_up(name), "it is not the service's any more, also after another use"
        hub.user(name).stop_server()


async def test_a_server_that_the_user_has_started_again_or_first_is_not_stopped(hub: Hub, tmp_path: Path) -> None:
    first, again = hub.user("cia"), hub.user("cleo")
    async with world(hub, tmp_path) as one:
        hub.request("POST", f"hub/api/users/{first.name}/server")
        await one.until(lambda: one.file.is_up(first.name))
        one.links.lost.add(first.name)  # its link is not there yet
        waiting = asyncio.create_task(one.servers.ready(first.name))
        await one.until_state(first.name, "theirs")
        one.links.lost.clear()
        await waiting
        for user in (first, again):
            async with one.servers.using(user.name):
                await one.servers.ready(user.name)
                if user is again:
                    await one.until(lambda: one.spawns.pending == 0)
                    again.stop_server()
                    hub.request("POST", f"hub/api/users/{again.name}/server")
                    await one.until(lambda: one.file.is_up(again.name))
        await one.until_state(again.name, None)
        await asyncio.sleep(3)  # longer than a server may be idle, and than somebody counts as waiting for it
        assert (await one.rows()).get(first.name, "theirs") == "theirs"
        assert one.file.is_up(first.name)
        assert one.file.is_up(again.name)
        assert one.file.count("starting", first.name) == 1
        for user in (first, again):
            user.stop_server()


async def test_a_stop_that_cannot_be_decided_or_made_is_tried_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hub.user("dora").name
    async with world(hub, tmp_path) as one:
        calls = 0

        async def fails(*_: object) -> bool:
            nonlocal calls
            calls += 1
            raise ServerUnavailable("The link is lost.")

        with monkeypatch.context() as patched:
            patched.setattr(one.links, "in_use", fails)
            async with one.servers.using(name):
                await one.servers.ready(name)
            await one.until(lambda: calls >= 2)
            assert one.file.is_up(name)
        with monkeypatch.context() as patched:
            patched.setattr(HubApi, "stop", fails)
            calls = 0
            await one.until(lambda: calls >= 2)
            assert one.file.is_up(name)
        await one.until(lambda: not one.file.is_up(name))


async def test_a_server_without_a_link_is_stopped_late_if_the_hub_knows_of_no_activity(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hub.user("emma").name
    async with world(hub, tmp_path, replace(FAST, server_start_timeout=2.0)) as one:
        one.links.lost.add(name)
        with pytest.raises(ServerUnavailable, match="has not connected to Navi"):
            async with one.servers.using(name):
                await one.servers.ready(name)
        await asyncio.sleep(2.5)
        assert one.file.is_up(name)
        monkeypatch.setattr(server_changes, "NO_LINK_FOR", timedelta(seconds=1))
        await one.until(lambda: not one.file.is_up(name))


async def test_a_start_that_fails_three_times_is_not_tried_again_for_a_while(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.model.user_servers.FAILURE_PAUSE", 0.2)
    for name in (hub.user("fails-fay").name, hub.user("refuses-fay").name):
        async with world(hub, tmp_path) as one:
            with pytest.raises(ServerUnavailable, match=r"3 times in a row \(Spawn failed: no such image\)"):
                await one.servers.ready(name)
            began = time.monotonic()
            with pytest.raises(ServerUnavailable, match="3 times in a row"):
                await one.servers.ready(name)
            assert time.monotonic() - began < 3, "at once"
            assert one.file.count("failed", name) == FAILURES
            assert one.spawns.results["failed"] == FAILURES
            forget = "UPDATE user_servers SET not_before = 0, failed_at = 0 WHERE owner = ?"
            await one.database.write(lambda tx, name=name, forget=forget: tx.change(forget, (name,)))
            with pytest.raises(ServerUnavailable):
                await one.servers.ready(name)
            assert one.file.count("failed", name) == 2 * FAILURES, "after that while, it is tried again"


async def test_what_the_hub_forbids_is_refused_at_once(hub: Hub, tmp_path: Path) -> None:
    name = hub.user("gina").name
    async with world(hub, tmp_path, token=hub.admin_token[::-1]) as one:
        began = time.monotonic()
        with pytest.raises(HubRefused, match="`servers`"):
            await one.servers.ready(name)
        assert time.monotonic() - began < 10
        assert one.spawns.results["refused"] == 1
    async with world(hub, tmp_path) as one:
        with pytest.raises(HubRefused, match="no user unheard-of"):
            await one.servers.ready("unheard-of")
        assert one.spawns.pending == 0


async def test_when_the_time_is_over_it_is_told_why_as_far_as_it_is_known(hub: Hub, tmp_path: Path) -> None:
    names = [hub.user(f"slow-{number}").name for number in range(2)]
    async with world(hub, tmp_path, replace(NEVER_STOPPED, server_start_timeout=2.0, max_starting_servers=1)) as one:
        results = await asyncio.gather(*(one.servers.ready(name) for name in names), return_exceptions=True)
        assert [str(each).split(": ", 1)[1] for each in results] == [
            "it is still starting.",
            "others are started before it.",
        ]
        await one.until(lambda: one.file.is_up(names[0]))
        await one.servers.ready(names[0])
        assert one.file.count("starting", names[0]) == 1, "a start that goes on is waited for by the next one"
        await one.until(lambda: not one.spawns.pending)
        assert one.spawns.results["timed_out"] == 1
        assert not one.file.events(names[1]), "no run waits for it any more"
    hub.user(names[0]).stop_server()


async def test_the_end_of_one_caller_does_not_end_the_start_for_others(hub: Hub, tmp_path: Path) -> None:
    name = hub.user("slow-hera").name
    async with world(hub, tmp_path, NEVER_STOPPED) as one:
        tasks = [asyncio.create_task(one.servers.ready(name)) for _ in range(3)]
        await one.until(lambda: one.file.count("starting", name) == 1)
        tasks[0].cancel()
        await asyncio.gather(*tasks[1:])
        assert tasks[0].cancelled()
        assert one.file.count("starting", name) == 1
    hub.user(name).stop_server()


@pytest.mark.timeout(400 + 3 * SPAWNS)
async def test_of_many_at_once_no_more_than_the_cap_start_and_each_once(hub: Hub, tmp_path: Path) -> None:
    """``NAVI_SPAWNS=200`` is the long form."""
    names = [hub.user(f"many{number:03}").name for number in range(SPAWNS)]
    async with world(hub, tmp_path, replace(NEVER_STOPPED, server_start_timeout=300.0)) as one:
        began = time.monotonic()
        await asyncio.gather(*(one.servers.ready(name) for name in names))
        seconds = time.monotonic() - began
        assert one.file.most_at_once("many") <= 5
        assert {name: one.file.count("starting", name) for name in names} == dict.fromkeys(names, 1)
        order = [each.user for each in one.file.events("many") if each.event == "starting"]
        assert all(abs(order.index(name) - place) < 10 for place, name in enumerate(names)), "first come, first served"
        await one.until(lambda: one.spawns.results["ready"] == SPAWNS)
        print(f"{SPAWNS} servers in {seconds:.1f} s, {one.file.most_at_once('many')} at once")
    for name in names:
        hub.request("DELETE", f"hub/api/users/{name}/server")


async def test_where_the_hub_has_fewer_places_its_time_is_kept_and_none_is_lost(hub: Hub, tmp_path: Path) -> None:
    names = [hub.user(f"throttled{number:02}").name for number in range(12)]
    async with world(hub, tmp_path, replace(NEVER_STOPPED, max_starting_servers=12)) as one:
        await asyncio.gather(*(one.servers.ready(name) for name in names))
        assert {name: one.file.count("starting", name) for name in names} == dict.fromkeys(names, 1)
        assert one.file.most_at_once("throttled") <= 6
        refused = hub.log.read_text().count("pending spawns, throttling")
        assert 6 <= refused <= 12, "it is not asked again before the time that it names"
    for name in names:
        hub.request("DELETE", f"hub/api/users/{name}/server")


async def test_a_start_outlives_the_hub(hub: Hub, tmp_path: Path) -> None:
    name = hub.user("slow-iris").name
    async with world(hub, tmp_path, replace(NEVER_STOPPED, server_start_timeout=120.0)) as one:
        waiting = asyncio.create_task(one.servers.ready(name))
        await one.until(lambda: one.file.count("starting", name) == 1)
        await asyncio.to_thread(hub.stop)
        await asyncio.to_thread(hub.start)
        await waiting
        assert one.spawns.results["failed"] == 0
        assert one.file.count("starting", name) == 2
    hub.user(name).stop_server()


async def test_another_process_takes_over_what_one_that_died_was_starting(hub: Hub, tmp_path: Path) -> None:
    name = hub.user("slow-juno").name
    async with world(hub, tmp_path) as one:
        waiting = asyncio.create_task(one.servers.ready(name))
        await one.until(lambda: one.file.count("starting", name) == 1)
        await one.servers.stop()  # nothing of it is given back
        waiting.cancel()
        async with world(hub, tmp_path) as other:
            await other.until(lambda: other.file.is_up(name))
            await other.until_state(name, "ours")
            await other.until(lambda: not other.file.is_up(name))
            assert other.file.count("starting", name) == 1


@pytest.mark.parametrize(
    ("mode", "allowed"), [("never", set()), ("recalls", {"recall"}), ("always", {"user", "recall", "system"})]
)
async def test_which_runs_may_have_a_server_started(tmp_path: Path, mode: str, allowed: set[str]) -> None:
    database = await open_store(tmp_path / "navi.db")
    links, settings = FileLinks(SpawnFile(tmp_path / "none")), replace(FAST, start_servers=mode)
    servers = UserServers(database, HubApi("http://127.0.0.1:1", "t"), links, settings=settings, spawns=Spawns())
    origins = (USER, Origin(kind=OriginKind.RECALL, recall_id="r"), SYSTEM)
    assert {origin.kind.value for origin in origins if servers.may_start(origin)} == allowed
    await database.close()


async def test_a_use_is_in_the_database_before_it_is_relied_on_and_until_the_last_one_ends(tmp_path: Path) -> None:
    database = await open_store(tmp_path / "navi.db")
    links = FileLinks(SpawnFile(tmp_path / "none"))
    servers = UserServers(database, HubApi("http://127.0.0.1:1", "t"), links, settings=FAST, spawns=Spawns())

    async def uses() -> list[tuple[str, str]]:
        return [(row["owner"], row["server"]) for row in await database.fetch_all("SELECT * FROM user_server_uses")]

    async with servers.using("ada", "gpu"):
        assert await uses() == [("ada", "gpu")]
        async with servers.using("ada", "gpu"):
            assert await uses() == [("ada", "gpu")]
        assert await uses() == [("ada", "gpu")]
    assert await uses() == []
    await database.close()


def test_attempts_in_vain_are_further_and_further_apart() -> None:
    for attempts, longest in ((0, 1.0), (1, 2.0), (5, 32.0), (6, 60.0), (1000, 60.0)):
        pauses = [pause(attempts) for _ in range(100)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_the_key_of_a_server_is_read_by_people() -> None:
    assert (str(ServerKey("ada")), str(ServerKey("ada", "gpu"))) == ("ada", "ada/gpu")


# --- servers that keep their own Navi (``navi hub --wake-only``) ---


@asynccontextmanager
async def waking(hub: Hub, path: Path, settings: Settings) -> AsyncIterator[tuple[ServerWakeStore, SpawnFile]]:
    """A process of the service that starts servers for their recalls."""
    database = await open_store(path / "navi.db")
    api = HubApi(hub.hub_api, hub.service_token)
    wakes, before = ServerWakeStore(database, "one"), timedelta(seconds=settings.wake_before)
    reported = ReportedServers(wakes, UserServerStore(database, "one"), api, before=before)
    servers = UserServers(database, api, reported, settings=settings, spawns=Spawns())
    waker = Waker(wakes, servers, reported, before=before, most_starting=settings.max_starting_servers)
    await servers.start()
    waker.start()
    try:
        yield wakes, SpawnFile(hub.spawns)
    finally:
        await waker.stop()
        await servers.stop()
        api.close()
        await database.close()


async def _until(condition: Any, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_servers_run_for_their_recalls_as_long_as_they_are_at_work_unless_their_user_comes(
    hub: Hub, tmp_path: Path
) -> None:
    gone, came = (ServerKey(hub.user(name).name) for name in ("woken", "woken-used"))
    async with waking(hub, tmp_path, replace(FAST, wake_before=2.0)) as (wakes, file):
        due = now() + timedelta(seconds=3)
        for key in (gone, came):
            await wakes.report(WakeReport(key=key, next_at=due), now=now())
        await _until(lambda: file.is_up(gone.owner) and file.is_up(came.owner))
        assert file.events(gone.owner)[0].at < due.timestamp(), "before it is due"
        at_work = timedelta(seconds=60)
        await wakes.report(WakeReport(key=gone, next_at=None, busy_for=at_work), now=now())
        await wakes.report(WakeReport(key=came, next_at=None, in_use=True), now=now())
        await asyncio.sleep(4.0)  # longer than a server may be idle
        assert file.is_up(gone.owner), "it is at work"
        assert (await wakes.of((gone,)))[gone].took > timedelta(0)
        await wakes.report(WakeReport(key=gone, next_at=None), now=now())
        await _until(lambda: not file.is_up(gone.owner))
        assert file.is_up(came.owner), "it is its user's"
        assert [file.count("starting", key.owner) for key in (gone, came)] == [1, 1]


async def test_a_server_that_does_not_come_up_for_its_recall_is_tried_again_later(hub: Hub, tmp_path: Path) -> None:
    fails, silent, unknown = (
        ServerKey(hub.user("fails-woken").name),
        ServerKey(hub.user("silent").name),
        ServerKey("no-such-user"),
    )
    async with waking(hub, tmp_path, replace(FAST, server_start_timeout=3.0)) as (wakes, file):
        began = now()
        for key in (fails, silent, unknown):
            await wakes.report(WakeReport(key=key, next_at=began), now=began)

        async def tried() -> bool:
            return all(wake.attempts for wake in (await wakes.of((fails, silent, unknown))).values())

        deadline = time.monotonic() + 30
        while not await tried():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        found = await wakes.of((fails, silent, unknown))
        pauses = {key: (wake.not_before - began).total_seconds() for key, wake in found.items()}
        assert 15 <= pauses[fails] < 60
        assert 15 <= pauses[silent] < 60
        assert pauses[unknown] >= 600, "the Hub refuses it"
        await _until(lambda: not file.is_up(silent.owner))
