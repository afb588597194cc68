"""Two processes of ``navi hub`` behind one address, on one PostgreSQL: a user's requests reach any of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.client import Follower, new_session, ok, prompt, until
from tests.support.hub import Place
from tests.support.postgres import PrivatePostgres
from tests.support.replicas import Replicas

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


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
    before = len(replicas.balancer.taken)
    visit = hub.user("dave").log_in("services/navi/")
    assert "navi-sessions" in visit.content
    for _ in range(4):
        assert b'"sessions"' in visit.read(f"{hub.url}services/navi/navi/api/sessions")
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
