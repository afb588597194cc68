"""Several processes of the service on one PostgreSQL: one queue, one cap, and a process that dies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.database import perform_at
from tests.support.hub import Hub
from tests.support.postgres import PrivatePostgres
from tests.support.server import ROOT
from tests.support.spawns import QUICK, SpawnFile

pytestmark = pytest.mark.timeout(400)  # a Hub starts with the first test
CAP = 4


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    more = {"JupyterHub": QUICK["JupyterHub"] | {"tornado_settings": {"slow_spawn_timeout": 0.1}}}
    with Hub(tmp_path_factory.mktemp("hub"), more=more).start() as started:
        yield started


class Replica:
    """One process."""

    def __init__(self, hub: Hub, url: str, names: Sequence[str], log: Path) -> None:
        words = [url, hub.hub_api, hub.service_token, str(hub.spawns), str(CAP), *names]
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.starting_replica", *words],
                cwd=ROOT,
                env=hub.env(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ready(self) -> set[str]:
        """The users whose servers it has."""
        lines = self._log.read_text().splitlines()
        return {line.removeprefix("ready ") for line in lines if line.startswith("ready ")}

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def until(condition: Callable[[], Any], patience: float = 120.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def names_of(hub: Hub, prefix: str, count: int) -> list[str]:
    return [hub.user(f"{prefix}{number:02}").name for number in range(count)]


def test_two_processes_share_the_places_and_start_what_both_want_once(
    hub: Hub, postgres_server: PrivatePostgres, tmp_path: Path
) -> None:
    names, url = names_of(hub, "both", 16), postgres_server.url()
    replicas = [
        Replica(hub, url, some, tmp_path / f"{number}.log")
        for number, some in enumerate((names[:10], names[6:]))  # four of them in both
    ]
    until(lambda: replicas[0].ready() | replicas[1].ready() == set(names) and len(replicas[1].ready()) == 10)
    file = SpawnFile(hub.spawns)
    assert {name: file.count("starting", name) for name in names} == dict.fromkeys(names, 1)
    assert file.most_at_once("both") <= CAP
    for each in replicas:
        each.end()


def test_what_a_killed_process_was_starting_is_taken_over_and_its_places_are_free_again(
    hub: Hub, postgres_server: PrivatePostgres, tmp_path: Path
) -> None:
    slow, others, url = names_of(hub, "slow-killed", CAP), names_of(hub, "killed", 6), postgres_server.url()
    file = SpawnFile(hub.spawns)
    killed = Replica(hub, url, slow, tmp_path / "killed.log")
    until(lambda: all(file.count("starting", name) for name in slow))
    survivor = Replica(hub, url, others, tmp_path / "survivor.log")
    killed.end(kill=True)
    until(lambda: survivor.ready() == set(others), 60)

    def states() -> dict[str, str]:
        rows = perform_at(url, "SELECT owner, state FROM user_servers")
        return {row["owner"]: row["state"] for row in rows if row["owner"] in slow}

    until(lambda: states() == dict.fromkeys(slow, "ours"), 60)
    assert {name: file.count("starting", name) for name in (*slow, *others)} == dict.fromkeys((*slow, *others), 1)
    assert file.most_at_once("killed", "slow-killed") <= CAP
    survivor.end()
