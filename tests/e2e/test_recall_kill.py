"""Two servers on one database, killed with -9 at random instants while fifty recalls a second fall due.

``NAVI_KILLS`` says how many kills (default 3; the long form is 200). Nothing may be lost or doubled: read in the ledger
and in the log, straight from the database file, when both servers have come to rest.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.scheduling.decisions import MAX_CRASHES
from navi_jupyter.scheduling.scheduler import LEASE
from tests.e2e.client import new_session, ok, until
from tests.e2e.conftest import Start
from tests.support.server import JupyterServer

KILLS = int(os.environ.get("NAVI_KILLS", "3"))
SESSIONS = 50
"""Each has one recall for every second: fifty slots a second."""
LIMITS = ("--NaviExtension.max_recalls_per_user=100000", "--NaviExtension.recall_busy_delay=0.5")
SEED = int(os.environ.get("NAVI_SEED", "20261123"))


class Database:
    """The file that both servers share, read by a third."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def one(self, sql: str) -> Any:
        return self.rows(sql)[0][0]


@pytest.fixture
def pair(start: Start, tmp_path: Path) -> tuple[JupyterServer, JupyterServer, Database]:
    """Two running servers and their database."""
    path = tmp_path / "shared.db"
    env = {"NAVI_DATABASE_URL": f"sqlite:///{path}"}
    return start("one", *LIMITS, env=env), start("two", *LIMITS, env=env), Database(path)


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * KILLS)
def test_two_servers_killed_at_any_instant_lose_and_double_no_slot(
    pair: tuple[JupyterServer, JupyterServer, Database],
) -> None:
    *servers, database = pair
    chance = random.Random(SEED)
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    sessions = [new_session(servers[number % 2]) for number in range(SESSIONS)]
    recalls = [_recall(servers[number % 2], sid, begin) for number, sid in enumerate(sessions)]
    began, kills = time.monotonic(), 0
    while kills < KILLS:
        time.sleep(chance.uniform(0.0, 1.0))
        victim = chance.choice(servers)
        victim.kill9()
        kills += 1
        if chance.random() < 0.15 and kills < KILLS:  # and at times the other too, so that nobody is there
            other = servers[1 - servers.index(victim)]
            other.kill9()
            kills += 1
            other.start(args=LIMITS, wait=False)
        victim.start(args=LIMITS)
        for server in servers:
            server.wait_ready()
        if kills % 20 == 0:
            print(f"\n{kills} kills in {time.monotonic() - began:.0f} s", flush=True)
    lasted = time.monotonic() - began
    for recall in recalls:
        ok(servers[0], "POST", f"recalls/{recall}/pause")
    until(lambda: _at_rest(database), patience=120)
    figures = _check(database, recalls, begin)
    print(f"\nseed {SEED}: {kills} kills in {lasted:.0f} s; {figures}")


def _recall(server: JupyterServer, sid: str, begin: datetime) -> str:
    schedule = {"kind": "every", "every": "1s", "start": begin.isoformat()}
    body = {"session_id": sid, "message": "count to 2 every 5 ms", "schedule": schedule}
    return str(ok(server, "POST", "recalls", body)["id"])


def _at_rest(database: Database) -> bool:
    """Paused recalls keep what is pending; nothing else may be open."""
    claimed = database.one("SELECT count(*) FROM firings WHERE status IN ('claimed', 'running')")
    runs = database.one("SELECT count(*) FROM runs WHERE status IN ('queued', 'running', 'waiting')")
    return bool(claimed == 0 and runs == 0)


def _check(database: Database, recalls: list[str], begin: datetime) -> str:
    """Every slot up to the recall's next one is in the ledger once or counted once; every prompt is in the log once."""
    first = int(begin.timestamp() * 1e6)
    slots = 0
    for recall in recalls:
        due = database.one(f"SELECT due_at FROM recalls WHERE id = '{recall}'")
        rows = database.rows(f"SELECT slot, coalesced FROM firings WHERE recall_id = '{recall}' ORDER BY slot")
        assert len({slot for slot, _ in rows}) == len(rows), f"{recall} has a slot twice"
        assert not [slot for slot, _ in rows if (slot - first) % 1_000_000], f"{recall} has a slot beside its grid"
        expected = (due - first) // 1_000_000
        accounted = sum(1 + coalesced for _, coalesced in rows)
        assert accounted == expected, f"{recall}: {expected} slots have come, {accounted} are accounted for"
        slots += expected
    ledger = database.rows(  # the ledger of a deleted session stays; its log does not
        "SELECT command_id, run_id, status, reason FROM firings WHERE recall_id IN"
        " (SELECT id FROM recalls WHERE session_id IN (SELECT id FROM sessions))"
    )
    started = {command: run for command, run, _, _ in ledger if run is not None}
    said = _prompts(database)
    doubled = [command for command, times in said.items() if times > 1]
    assert not doubled, f"in the log more than once: {doubled[:5]}"
    assert set(said) == set(started), f"log and ledger differ: {sorted(set(said) ^ set(started))[:5]}"
    attempts = database.rows("SELECT command_id, status FROM runs WHERE recall_id IS NOT NULL ORDER BY number")
    runs: dict[str, list[str]] = defaultdict(list)
    for command, status in attempts:
        runs[command].append(status)
    again = [command for command, ended in runs.items() if set(ended[:-1]) - {"interrupted"}]
    assert not again, f"run again although the earlier run was not interrupted: {again[:5]}"
    assert max(map(len, runs.values())) <= MAX_CRASHES + 1
    assert set(runs) == set(started), f"runs and ledger differ: {sorted(set(runs) ^ set(started))[:5]}"
    silent = [row for row in ledger if row[1] is None and row[2] != "pending" and not row[3]]
    assert not silent, f"neither ran nor says why: {silent[:3]}"
    how = Counter(status for _, _, status, _ in ledger)
    died = sum("died" in (reason or "") for *_, reason in ledger)
    return f"{slots} slots due, {len(started)} ran, 0 lost, 0 doubled; rows {dict(how)}, {died} say that a server died"


def _prompts(database: Database) -> Counter[str]:
    """How often each recall's prompt is in the logs."""
    found = database.rows(
        "SELECT json_extract(frame, '$.event.messageId') FROM events"
        " WHERE frame LIKE '%\"TEXT_MESSAGE_START\"%' AND json_extract(frame, '$.event.role') = 'user'"
    )
    return Counter(message for (message,) in found if message.startswith("recall:"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_was_stopped_past_its_leases_starts_and_writes_nothing_it_has_lost(
    pair: tuple[JupyterServer, JupyterServer, Database],
) -> None:
    one, two, database = pair
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    recalls = [_recall(one, new_session(one), begin) for _ in range(10)]
    until(lambda: database.one("SELECT count(*) FROM firings WHERE status = 'succeeded'") > 20)
    _stop_between_transactions(one, database)
    stopped = datetime.now(UTC)
    try:
        wanted = int((stopped + 2 * LEASE + timedelta(seconds=2)).timestamp() * 1e6)
        until(
            lambda: database.one(f"SELECT count(*) FROM firings WHERE slot > {wanted} AND run_id IS NOT NULL") >= 10,
            patience=90,
        )
        taken = f"SELECT count(*) FROM firings WHERE status = 'claimed' AND slot < {wanted - 12_000_000}"
        until(lambda: database.one(taken) == 0, patience=30)  # what the stopped server had is not held
    finally:
        os.kill(one.pid, signal.SIGCONT)
    until(lambda: ok(one, "GET", "health")["status"] == "ok")
    for recall in recalls:
        ok(two, "POST", f"recalls/{recall}/pause")
    until(lambda: _at_rest(database), patience=60)
    print(f"\nstopped for {(datetime.now(UTC) - stopped).total_seconds():.0f} s; {_check(database, recalls, begin)}")


def _stop_between_transactions(server: JupyterServer, database: Database) -> None:
    """Within one it holds SQLite's lock, and nobody writes until it goes on or dies."""
    while True:
        os.kill(server.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database.path, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(server.pid, signal.SIGCONT)
                continue
            connection.execute("ROLLBACK")
            return


@pytest.mark.slow
@pytest.mark.parametrize("message", ["count to 60 every 50 ms", "WRITE"])
def test_a_one_time_recall_goes_on_after_kill_9_unless_it_had_written_something(
    start: Start, tmp_path: Path, message: str
) -> None:
    path = tmp_path / "one.db"
    env = {"NAVI_DATABASE_URL": f"sqlite:///{path}"}
    server, database = start("one", *LIMITS, env=env), Database(path)
    sid = new_session(server)
    text = "count to 60 every 50 ms"
    body = {"session_id": sid, "message": text, "schedule": {"kind": "once", "in": "200ms"}}
    recall = ok(server, "POST", "recalls", body)["id"]
    until(lambda: database.one("SELECT count(*) FROM events WHERE frame LIKE '%TEXT_MESSAGE_CONTENT%2%'") > 1)
    server.kill9()
    if (
        message == "WRITE"
    ):  # as the run would have left it, had it started a tool (offline runs have none with an effect)
        _record_effect(path, "write_file")
    server.start(args=LIMITS)
    server.wait_ready()
    until(lambda: ok(server, "GET", f"recalls/{recall}")["status"] not in ("pending", "running"), patience=60)
    (firing,) = ok(server, "GET", f"recalls/{recall}/firings")["firings"]
    runs = [status for (status,) in database.rows("SELECT status FROM runs ORDER BY number")]
    assert set(_prompts(database).values()) == {1}
    if message == "WRITE":
        assert (firing["status"], firing["reason"]) == ("failed", "interrupted after write_file")
        assert runs == [attempt["status"] for attempt in firing["attempts"]] == ["interrupted"]
        assert database.one("SELECT count(*) FROM events WHERE frame LIKE '%navi fire%'") == 1
    else:
        assert firing["status"] == "succeeded"
        assert firing["reason"].startswith("started again")
        assert runs == [attempt["status"] for attempt in firing["attempts"]] == ["interrupted", "completed"]
        assert firing["run_id"] == firing["attempts"][-1]["run_id"]


def _record_effect(path: Path, tool: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        run_id, sid = db.execute("SELECT id, session_id FROM runs WHERE status = 'running'").fetchone()
        (frame, seq) = db.execute(
            "SELECT frame, seq FROM events WHERE session_id = ? ORDER BY seq DESC LIMIT 1", (sid,)
        ).fetchone()
        envelope = json.loads(frame)
        event = {"type": "CUSTOM", "name": "navi.tool", "value": {"action": "started", "tool": tool, "run_id": run_id}}
        envelope |= {"seq": seq + 1, "run_id": run_id, "event": event}
        text = json.dumps(envelope, separators=(",", ":"))
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (sid, seq + 1, run_id, text))
        db.execute("UPDATE sessions SET head_seq = ? WHERE id = ?", (seq + 1, sid))
        db.commit()
