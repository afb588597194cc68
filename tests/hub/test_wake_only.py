"""``navi hub --wake-only``: users' servers keep their own Navi, and are started for their recalls. No agent in it."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Answer, Follower, call, new_session, ok, until
from tests.support.balancer import InTurns
from tests.support.database import perform_at
from tests.support.hub import Hub, Place
from tests.support.postgres import PrivatePostgres
from tests.support.server import free_port

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test
BEFORE, IDLE = 15, 5  # seconds


class Wakers:
    """The Hub, and two processes of its service on one PostgreSQL."""

    def __init__(self, home: Path, postgres: PrivatePostgres) -> None:
        self.ports = [free_port(), free_port()]
        self.balancer = InTurns(self.ports)
        address = f"http://127.0.0.1:{self.balancer.port}"
        token = secrets.token_hex(16)
        self.hub = Hub(home, service={"url": address, "command": None, "environment": None, "api_token": token})
        self.hub.server_env |= {"NAVI_HUB_SERVICE_URL": "", "NAVI_HUB_WAKE_URL": f"{self.hub.url}services/navi/"}
        self.url = postgres.url()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for folder in ("config", "data", "runtime"):
            (self.hub.home / folder).mkdir(parents=True)
        self.start_service()
        self.hub.start()

    def start_service(self) -> None:
        for port in self.ports:
            env = self.hub.env() | {
                "JUPYTERHUB_API_TOKEN": self.hub.service_token,
                "JUPYTERHUB_API_URL": self.hub.hub_api,
                "JUPYTERHUB_SERVICE_NAME": "navi",
                "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
                "NAVI_DATABASE_URL": self.url,
                "NAVI_WAKE_BEFORE": str(BEFORE),
                "NAVI_SERVER_IDLE_STOP": str(IDLE),
            }
            command = [sys.executable, "-m", "navi_jupyter.cli", "hub", "--wake-only", "--allow-root"]
            with (self.hub.home / f"replica-{port}.log").open("ab") as log:
                self.processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))

    def kill_service(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(20)
        self.processes.clear()

    def stop(self) -> None:
        self.kill_service()
        self.hub.stop()
        self.balancer.close()

    def rows(self) -> dict[str, Any]:
        """By owner."""
        return {row["owner"]: row for row in perform_at(self.url, "SELECT * FROM user_server_wakes")}

    def log(self) -> str:
        return "".join((self.hub.home / f"replica-{port}.log").read_text() for port in self.ports)


@pytest.fixture(scope="module")
def wakers(tmp_path_factory: pytest.TempPathFactory, postgres_server: PrivatePostgres) -> Iterator[Wakers]:
    made = Wakers(tmp_path_factory.mktemp("wakers"), postgres_server)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _report(place: Place, **fields: Any) -> Answer:
    return call(place, "PUT", "wake", {"next_at": None, **fields})


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_there_is_no_agent_and_a_page_that_says_so(wakers: Wakers) -> None:
    service = wakers.hub.user("dora").at_service()
    assert ok(service, "GET", "health")["mode"] == "wake-only"
    for method, path in (("GET", "sessions"), ("POST", "recalls"), ("GET", "sessions/s/ws"), ("GET", "models")):
        answer = call(service, method, path, {} if method == "POST" else None)
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "no chat" in wakers.hub.user("dora").log_in("services/navi/").content
    assert call(service, "GET", "health", token="wrong").status == 403


def test_a_token_sets_its_own_users_servers_once_in_a_second(wakers: Wakers) -> None:
    service = wakers.hub.user("erin").at_service()
    assert call(service, "PUT", "wake", {"next_at": _in(5000), "owner": "dora"}).status == 400
    answers = [_report(service, next_at=_in(5000)) for _ in range(3)]
    assert [each.status for each in answers] == [204, 429, 429]
    assert answers[1].json["code"] == "limit_reached"
    assert _report(service, server="other", next_at=_in(6000)).status == 204, "another server of the same user"
    assert "dora" not in wakers.rows()
    for wrong in ({"next_at": "soon"}, {"busy": 1}, {"server": "a/b"}, {"needed_for": 1e9, "busy": True}, {"more": 1}):
        assert _report(service, **wrong).status == 400
    token, token_id = wakers.hub.user("erin").token()
    wakers.hub.user("erin").revoke(token_id)
    assert call(service, "PUT", "wake", {"next_at": None}, token=token).status == 403


def _recall(place: Place, seconds: int) -> None:
    sid = new_session(place)
    body = {"session_id": sid, "message": "say hello", "schedule": {"kind": "once", "in": f"{seconds}s"}}
    ok(place, "POST", "recalls", body)


def _firings(place: Place) -> list[Any]:
    with closing(sqlite3.connect(next(place.home.rglob("navi.db")))) as db:
        return db.execute("SELECT status, lateness_ms FROM firings").fetchall()


def test_servers_are_started_once_for_their_recalls_and_stopped_unless_their_user_came(wakers: Wakers) -> None:
    hub = wakers.hub
    alice, bob = hub.user("alice"), hub.user("bob")
    assert _report(bob.at_service(), next_at=_in(1)).status == 204
    place = alice.start_server()
    at_bobs = bob.start_server()  # it was started before, for what was reported
    page = Follower(at_bobs, new_session(at_bobs)).connected()
    _recall(place, 21)
    alice.stop_server()  # at once: the last report of a server has what was made a moment ago
    wakers.kill_service()
    assert wakers.rows()["alice"]["next_at"]
    wakers.start_service()
    until(lambda: _firings(place), 60, every=0.2)
    until(lambda: not alice.servers(), 60, every=0.2)
    ((status, lateness),) = _firings(place)
    print(f"late by {lateness} ms")  # no limit: two busy cores need longer than the recall was away to start a server
    assert status == "succeeded"
    until(lambda: "event=server_left_to_its_user server=bob" in wakers.log(), 30)
    assert bob.servers(), "its user came"
    for name in ("alice", "bob"):
        assert wakers.log().count(f"event=server_started server={name} ") == 1, "by one of both processes"
    page.close()
