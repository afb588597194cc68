"""A server was off while recalls fell due: what its first start does about it, and tells, in every place that tells it.

Killed with -9, and started again with its clock hours ahead. ``NAVI_AWAY_SESSIONS`` is how many sessions missed
something when it is many (default 20; the long form is 500).
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.kernel.client.client import Service
from navi_jupyter.kernel.client.connection import find_server
from navi_jupyter.kernel.session import Session
from tests.e2e.client import log_of, new_session, ok, pages, prompt, until
from tests.e2e.conftest import check_log
from tests.e2e.movable import clock_of, movable, set_clock
from tests.support.server import JupyterServer

SESSIONS = int(os.environ.get("NAVI_AWAY_SESSIONS", "20"))
AGO = timedelta(hours=-3)


def make(server: JupyterServer, sid: str, message: str, schedule: Mapping[str, Any], **policy: Any) -> str:
    """A recall's id."""
    body = {"session_id": sid, "message": message, "schedule": schedule, "policy": policy}
    return str(ok(server, "POST", "recalls", body)["id"])


def ledger(server: JupyterServer, recall: str) -> list[dict[str, Any]]:
    """Oldest slot first."""
    return list(reversed(pages(server, f"recalls/{recall}/firings", "firings")))


def cards(server: JupyterServer, sid: str) -> list[dict[str, Any]]:
    """What the session was told of absences."""
    events = [envelope["event"] for envelope in log_of(server, sid)]
    return [
        event["value"]["away"]
        for event in events
        if event.get("name") == "navi.session" and "away" in event["value"]["changed"]
    ]


def at_rest(server: JupyterServer, sid: str) -> bool:
    """Whether all that was due has run, and no run is left."""
    state = ok(server, "GET", f"sessions/{sid}")
    firings = [f for r in pages(server, f"recalls?session_id={sid}", "recalls") for f in ledger(server, r["id"])]
    return state["run"] is None and not state["queue"] and all(f["ended_at"] for f in firings)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """Not started; its clock is three hours behind."""
    made = movable(JupyterServer(tmp_path / "server"), AGO)
    yield made
    made.stop()
    check_log(made)


@pytest.mark.timeout(150)
def test_the_first_start_makes_up_for_what_was_missed_and_tells_it_everywhere(server: JupyterServer) -> None:
    server.start()
    sid, quiet = new_session(server, title="busy one"), new_session(server, title="quiet one")
    half_hourly = {"kind": "every", "every": "30m"}
    minute = (clock_of(server) + timedelta(minutes=10)).minute
    until_then = (clock_of(server) + timedelta(hours=1)).isoformat()
    recalls = {
        "once": make(server, sid, "once", {"kind": "once", "in": "10m"}),
        "graceful": make(server, sid, "graceful", {"kind": "once", "in": "10m"}, grace="1m"),
        "latest": make(server, sid, "latest", half_hourly),
        "skip": make(server, sid, "skip", {"kind": "every", "every": "50m"}, misfire="skip"),
        "all": make(server, sid, "all", {"kind": "every", "every": "50m"}, misfire="all"),
        "cron": make(server, sid, "cron", {"kind": "cron", "expr": f"{minute} * * * *", "tz": "Europe/Berlin"}),
        "when": make(server, sid, "when", {"kind": "when", "event": "file_changed", "path": "x"}, until=until_then),
    }
    paused = make(server, sid, "paused", half_hourly)
    ok(server, "POST", f"recalls/{paused}/pause")
    make(server, quiet, "later", {"kind": "once", "in": "30d"})
    server.kill9()
    set_clock(server, timedelta(minutes=2))  # off the half hours that were counted from minus three
    server.start()
    until(lambda: cards(server, sid))
    until(lambda: at_rest(server, sid))

    rows = {name: ledger(server, recall) for name, recall in recalls.items()}
    became = {name: Counter(row["status"] for row in each) for name, each in rows.items()}
    assert became["once"] == {"succeeded": 1}
    assert became["graceful"] == {"missed": 1}
    assert became["latest"] == {"succeeded": 1, "coalesced": 5}
    assert became["skip"] == {"missed": 3}
    assert became["all"] == {"succeeded": 3}
    assert became["cron"] == {"succeeded": 1, "coalesced": 2}
    assert (became["when"], ok(server, "GET", f"recalls/{recalls['when']}")["status"]) == ({}, "expired")
    assert ledger(server, paused) == []

    (card,) = cards(server, sid)
    everything = [row for each in rows.values() for row in each if late_by(row, server) >= 60]
    ran = [row for row in everything if row["run_id"]]
    assert card["late"] == len(ran)
    assert card["missed"] == len(everything) - len(ran) + 1, "and the event that was waited for"
    assert cards(server, quiet) == []

    told = ok(server, "GET", f"sessions/{sid}/away")
    assert {run["run_id"] for run in told["runs"]} == {row["run_id"] for each in rows.values() for row in each} - {None}
    assert told["missed"] == sum(not row["run_id"] for each in rows.values() for row in each)
    assert ok(server, "GET", f"sessions/{quiet}/away")["runs"] == []

    _check_kernel(server, sid)
    _check_agent(server, sid)
    server.stop()
    server.start()
    assert len(cards(server, sid)) == 1, "a start without an absence tells nothing"


def late_by(row: Mapping[str, Any], server: JupyterServer) -> float:
    """Seconds from the slot until it ran; of what did not, until now."""
    if row["lateness_ms"] is not None:
        return float(row["lateness_ms"]) / 1000
    return (clock_of(server) - datetime.fromisoformat(row["slot"])).total_seconds()


def _check_kernel(server: JupyterServer, sid: str) -> None:
    rows = Session(Service(find_server(server.url, server.token)), sid).away()
    runs = [row for row in rows if "run_id" in row]
    assert [row["what"] for row in runs].count("Recall: all") == 3
    missed = {row["what"]: row for row in rows if "slots" in row}
    assert missed["skip"]["slots"] == 3
    assert missed["latest"]["slots"] == 5
    shown = rows._repr_html_()
    assert "missed (3 times)" in shown
    assert "made up for by the run of" in shown
    assert list(rows) == sorted(rows, key=lambda row: row["at"])


def _check_agent(server: JupyterServer, sid: str) -> None:
    run = prompt(server, sid, "what happened while I was away?")["run_id"]
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{run}")["ended_at"])
    own = [one for one in ok(server, "GET", f"sessions/{sid}/messages")["messages"] if one["run_id"] == run]
    called = [call for one in own for call in one.get("tool_calls") or ()]
    assert [call["name"] for call in called] == ["session_history"]
    answer = own[-1]["content"]
    assert answer.count("recall **all**") == 3
    assert "graceful (missed: later than its grace of 1m)" in answer
    assert "skip (missed" in answer
    assert "3 times" in answer
    assert "a later run made up for it" in answer


@pytest.mark.timeout(200)
def test_many_sessions_are_told_once_each_by_two_servers_that_start_at_once_and_one_that_dies_over_it(
    tmp_path: Path,
) -> None:
    env = {"NAVI_DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}"}
    limits = ("--NaviExtension.max_recalls_per_user=100000", "--NaviExtension.max_sessions_per_user=100000")
    one, two = (movable(JupyterServer(tmp_path / name, env=env), AGO) for name in ("one", "two"))
    try:
        one.start(args=limits)
        sessions = [new_session(one) for _ in range(SESSIONS)]
        for sid in sessions:
            make(one, sid, "once", {"kind": "once", "in": "10m"})
            make(one, sid, "skip", {"kind": "every", "every": "1h"}, misfire="skip", until=_in(one, minutes=150))
        one.kill9()
        set_clock(one, timedelta())
        set_clock(two, timedelta())
        one.start(args=limits, wait=False)
        until(lambda: _catching_up(tmp_path / "shared.db"))
        one.kill9()
        one.start(args=limits, wait=False)
        two.start(args=limits, wait=False)
        one.wait_ready()
        two.wait_ready()
        until(lambda: all(cards(one, sid) for sid in sessions), patience=90, every=1)
        told = [cards(two, sid) for sid in sessions]
        assert Counter(map(len, told)) == {1: SESSIONS}
        assert {(card["late"], card["missed"]) for each in told for card in each} == {(1, 2)}
    finally:
        one.stop()
        two.stop()
    check_log(one)
    check_log(two)


def _in(server: JupyterServer, minutes: int) -> str:
    return (clock_of(server) + timedelta(minutes=minutes)).isoformat()


def _catching_up(path: Path) -> bool:
    """Whether the first missed slots are in the ledger."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
        return bool(database.execute("SELECT count(*) FROM firings").fetchone()[0])


@pytest.mark.timeout(120)
def test_a_clock_that_was_set_back_while_the_server_was_off_fires_nothing_twice_and_tells_nothing(
    server: JupyterServer,
) -> None:
    server.start()
    sid = new_session(server)
    fired = make(server, sid, "fired", {"kind": "once", "in": "1s"})
    waits = make(server, sid, "waits", {"kind": "every", "every": "1m"})
    until(lambda: ok(server, "GET", f"recalls/{fired}")["status"] == "fired")
    due = ok(server, "GET", f"recalls/{waits}")["next_at"]
    server.kill9()
    set_clock(server, AGO - timedelta(hours=5))
    server.start()
    later = make(server, sid, "later", {"kind": "once", "in": "1s"})
    until(lambda: ok(server, "GET", f"recalls/{later}")["status"] == "fired")
    assert [row["status"] for row in ledger(server, fired)] == ["succeeded"]
    assert ledger(server, waits) == []
    assert ok(server, "GET", f"recalls/{waits}")["next_at"] == due
    assert cards(server, sid) == []


@pytest.mark.timeout(120)
def test_a_run_that_the_end_of_the_server_cut_is_among_what_happened_meanwhile(server: JupyterServer) -> None:
    server.start()
    sid = new_session(server)
    run = prompt(server, sid, "count to 900")["run_id"]
    until(lambda: any(e["event"]["type"] == "TEXT_MESSAGE_CONTENT" and e["run_id"] == run for e in log_of(server, sid)))
    server.kill9()
    server.start()
    away = ok(server, "GET", f"sessions/{sid}/away")
    assert [(one["run_id"], one["status"], one["error"]) for one in away["runs"]] == [
        (run, "interrupted", "interrupted")
    ]
    assert away["failed"] == 1
    (listed,) = (one for one in ok(server, "GET", "sessions")["sessions"] if one["id"] == sid)
    assert listed["unread"] == 1
    (row,) = Session(Service(find_server(server.url, server.token)), sid).away()
    assert (row["run_id"], row["status"]) == (run, "interrupted")
