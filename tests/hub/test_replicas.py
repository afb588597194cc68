"""Two processes of ``navi hub`` behind one address, on one PostgreSQL: a user's requests reach any of them."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from itertools import cycle
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import pytest

from tests.e2e.client import Follower, new_session, ok, prompt, until
from tests.support.hub import PASSWORD, Hub, Place
from tests.support.postgres import PrivatePostgres
from tests.support.server import free_port

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


class InTurns:
    """A load balancer: each connection goes to the next replica that answers."""

    def __init__(self, ports: list[int]) -> None:
        self.port = free_port()
        self.taken: list[int] = []
        """The port of each connection."""
        self._ports = cycle(ports)
        self._count = len(ports)
        self._server = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                Thread(target=self._serve, args=(self._server.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        for _ in range(self._count):
            port = next(self._ports)
            with suppress(OSError):
                replica = socket.create_connection(("127.0.0.1", port))
                break
        else:
            client.close()
            return
        self.taken.append(port)
        back = Thread(target=_pump, args=(replica, client), daemon=True)
        back.start()
        _pump(client, replica)
        back.join()
        client.close()
        replica.close()

    def close(self) -> None:
        self._server.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Replicas:
    """The Hub, and its service as an administrator starts it: twice."""

    def __init__(self, home: Path, postgres: PrivatePostgres) -> None:
        self.ports = [free_port(), free_port()]
        self.balancer = InTurns(self.ports)
        self.token = secrets.token_hex(16)
        address = f"http://127.0.0.1:{self.balancer.port}"
        self.hub = Hub(home, service={"url": address, "command": None, "environment": None, "api_token": self.token})
        self._url = postgres.url()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for folder in ("config", "data", "runtime"):
            (self.hub.home / folder).mkdir(parents=True)
        for port in self.ports:
            env = self.hub.env() | {
                "JUPYTERHUB_API_TOKEN": self.token,
                "JUPYTERHUB_API_URL": self.hub.hub_api,
                "JUPYTERHUB_SERVICE_NAME": "navi",
                "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
                "NAVI_DATABASE_URL": self._url,
            }
            command = [sys.executable, "-m", "navi_jupyter.cli", "hub", "--allow-root"]
            with (self.hub.home / f"replica-{port}.log").open("wb") as log:
                self.processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
        self.hub.start()

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(20)
        self.hub.stop()
        self.balancer.close()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, postgres_server: PrivatePostgres) -> Iterator[Replicas]:
    made = Replicas(tmp_path_factory.mktemp("replicas"), postgres_server)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_login_begun_at_one_replica_ends_at_another(replicas: Replicas) -> None:
    hub = replicas.hub
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    login = browser.open(f"{hub.url}services/navi/", timeout=60)
    xsrf = re.search(r'name="_xsrf" value="([^"]+)"', login.read().decode())
    assert xsrf is not None
    form = urlencode({"username": "dave", "password": PASSWORD, "_xsrf": xsrf[1]}).encode()
    before = len(replicas.balancer.taken)
    assert b"navi-sessions" in browser.open(urllib.request.Request(login.url, data=form), timeout=60).read()
    for _ in range(4):
        assert b'"sessions"' in browser.open(f"{hub.url}services/navi/navi/api/sessions", timeout=60).read()
    assert set(replicas.balancer.taken[before:]) == set(replicas.ports), "both have served it"


def test_any_replica_follows_accepts_and_stops_and_the_end_of_one_loses_nothing(replicas: Replicas) -> None:
    place: Place = replicas.hub.user("alice").at_service()
    sid = new_session(place)
    followers = [Follower(place, sid).connected() for _ in range(2)]
    run = prompt(place, sid, "count slowly to 5000")["run_id"]
    for each in followers:
        each.until(lambda one: one["run_id"] == run and one["event"]["type"] == "RUN_STARTED")
    ok(place, "POST", f"sessions/{sid}/commands", {"type": "stop"})
    until(lambda: ok(place, "GET", f"sessions/{sid}/runs/{run}")["status"] == "stopped")
    once = {"kind": "once", "in": "4s"}
    recall = ok(place, "POST", "recalls", {"session_id": sid, "message": "say hello", "schedule": once})["id"]
    time.sleep(1)
    replicas.processes[0].kill()
    replicas.processes[0].wait(20)

    def fired() -> list[str]:
        runs = ok(place, "GET", f"sessions/{sid}/runs")["runs"]
        return [each["status"] for each in runs if each["origin"]["recall_id"] == recall]

    until(lambda: fired() == ["completed"])
    for each in followers:
        each.until(lambda one: one["event"]["type"] == "RUN_FINISHED" and one["run_id"] != run)
        assert [one["seq"] for one in each.seen] == list(range(1, len(each.seen) + 1)), "no gap, nothing twice"
        each.close()
