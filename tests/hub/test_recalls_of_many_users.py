"""Recalls of many users that are due at one instant while all their servers are off.

``NAVI_RECALLED_USERS=200`` is the long form. The servers start in a moment and are links without a server behind: what
is tested is the service, the Hub's API and the order of the starts.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from navi_jupyter.server.hub_proxy.service import HubService
from tests.e2e.client import log_of, new_session, ok, until
from tests.support.hub import Hub, Place
from tests.support.raw_link import RawLink
from tests.support.spawns import QUICK, SpawnFile

USERS = int(os.environ.get("NAVI_RECALLED_USERS", "8"))
CAP = 5

pytestmark = pytest.mark.timeout(300 + 5 * USERS)


@contextmanager
def links_of_servers(hub: Hub) -> Iterator[None]:
    """As long as it is entered, each server that is up has a link to the service."""
    over = threading.Event()

    async def keep() -> None:
        file, links, done = SpawnFile(hub.spawns), dict[str, RawLink](), 0
        url = f"http://127.0.0.1:{hub.service_port}/services/navi/"
        while not over.is_set():
            events = file.events("")
            for each in events[done:]:
                if each.event == "up":
                    links[each.user] = RawLink(HubService(url, each.token), f"{each.user}-{each.at}")
                    await links[each.user].open()
                elif each.event == "stopped" and each.user in links:
                    await links.pop(each.user).close()
            done = len(events)
            await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(keep()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_each_runs_once_and_no_more_servers_start_at_a_time_than_may(tmp_path: Path) -> None:
    more = {"JupyterHub": QUICK["JupyterHub"] | {"tornado_settings": {"slow_spawn_timeout": 0.1}}}
    env = {"NAVI_START_SERVERS": "recalls", "NAVI_MAX_STARTING_SERVERS": str(CAP), "NAVI_SERVER_IDLE_STOP": "2"}
    with Hub(tmp_path, env=env, more=more).start() as hub, links_of_servers(hub):
        due = datetime.now(UTC) + timedelta(seconds=5 + USERS / 8)

        def plan(number: int) -> tuple[Place, str, str]:
            service = hub.user(f"many{number:03}").at_service()
            sid = new_session(service)
            schedule = {"kind": "once", "at": due.isoformat()}
            body = {"session_id": sid, "message": "go", "schedule": schedule, "policy": {"needs": "kernel"}}
            return service, sid, str(ok(service, "POST", "recalls", body)["id"])

        with ThreadPoolExecutor(8) as threads:
            planned = list(threads.map(plan, range(USERS)))
        assert datetime.now(UTC) < due, "the machine is too slow for this number of users"

        def is_over(service: Place, recall: str) -> bool:
            return ok(service, "GET", f"recalls/{recall}")["status"] not in ("pending", "running")

        for service, _, recall in planned:
            until(partial(is_over, service, recall), 60 + USERS)
        took = (datetime.now(UTC) - due).total_seconds()
        for service, sid, recall in planned:
            firings = ok(service, "GET", f"recalls/{recall}/firings")["firings"]
            assert [each["status"] for each in firings] == ["succeeded"], firings
            kinds = Counter(one["event"]["type"] for one in log_of(service, sid))
            assert (kinds["RUN_STARTED"], kinds["RUN_FINISHED"]) == (1, 1)
        file = SpawnFile(hub.spawns)
        names = [f"many{number:03}" for number in range(USERS)]
        assert {name: file.count("starting", name) for name in names} == dict.fromkeys(names, 1)
        most = file.most_at_once("many")
        print(f"{USERS} recalls with a cap of {CAP}: {took:.1f} s, at most {most} servers starting")
        assert most <= CAP
        until(lambda: all(file.count("stopped", name) for name in names), 60 + USERS)
