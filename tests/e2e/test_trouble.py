"""What befalls a machine, to a real server with recalls that fall due each second: stopped, asleep, locked out of its
database, its disk full. Everything is made up for, errors are seen, nothing happens twice: read in the database.

``NAVI_TROUBLE`` is for how many seconds (default 11, more than a lease; the long form is 60).
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.client import call, log_of, new_session, ok, prompt, until
from tests.e2e.conftest import check_log
from tests.e2e.movable import clock_of, movable, set_clock
from tests.e2e.test_recall_kill import Database, _at_rest, _check
from tests.support.server import JupyterServer

SECONDS = float(os.environ.get("NAVI_TROUBLE", "11"))
BUSY_MS = 1000 if SECONDS < 30 else 10_000
RECALLS = 6
LIMITS = ("--NaviExtension.max_recalls_per_user=1000", "--NaviExtension.recall_busy_delay=0.3")

Place = tuple[JupyterServer, Database]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server, and its database on a small disk of its own where that can be had."""
    home = tmp_path_factory.mktemp("trouble")
    disk = home / "disk"
    disk.mkdir()
    mounted = _mounted(disk)
    path = disk / "navi.db"
    env = {"NAVI_DATABASE_URL": f"sqlite:///{path}", "BUSY_TIMEOUT_MS": str(BUSY_MS)}
    server = movable(JupyterServer(home / "server", env=env))
    try:
        yield server.start(args=LIMITS), Database(path)
        server.stop()
        check_log(server)
    finally:
        server.kill9()
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)


def _mounted(disk: Path) -> bool:
    with suppress(OSError):
        command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


class Regular:
    """Some recalls that fall due each second, each in a session of its own."""

    def __init__(self, place: Place) -> None:
        self.server, self.database = place
        self.begin = clock_of(self.server).replace(microsecond=0) + timedelta(seconds=2)
        self.sessions = [new_session(self.server) for _ in range(RECALLS)]
        self.recalls = [self._made(sid) for sid in self.sessions]
        until(lambda: self.ran() > RECALLS)

    def _made(self, sid: str) -> str:
        schedule = {"kind": "every", "every": "1s", "start": self.begin.isoformat()}
        body = {"session_id": sid, "message": "count to 2 every 5 ms", "schedule": schedule}
        return str(ok(self.server, "POST", "recalls", body)["id"])

    def ran(self, since: datetime | None = None) -> int:
        """How many firings of slots after that have started."""
        slot = 0 if since is None else int(since.timestamp() * 1e6)
        mine = ", ".join(f"'{recall}'" for recall in self.recalls)
        count = self.database.one(
            f"SELECT count(*) FROM firings WHERE run_id IS NOT NULL AND slot > {slot} AND recall_id IN ({mine})"
        )
        return int(count)

    def made_up_for(self) -> str:
        """Once new slots run again: everything since the beginning is accounted for, once. Ends them."""
        back = clock_of(self.server)
        until(lambda: self.ran(back) >= RECALLS)
        for recall in self.recalls:
            ok(self.server, "POST", f"recalls/{recall}/pause")
        until(lambda: _at_rest(self.database))
        told = _check(self.database, self.recalls, self.begin)
        with closing(sqlite3.connect(self.database.path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for sid in self.sessions:
            ok(self.server, "DELETE", f"sessions/{sid}")  # _check reads the whole ledger
        return told


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_a_server_that_was_stopped_makes_up_for_what_fell_due_meanwhile(place: Place) -> None:
    regular = Regular(place)
    os.kill(regular.server.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        until(lambda: time.monotonic() - stopped > SECONDS, patience=SECONDS + 60)
    finally:
        os.kill(regular.server.pid, signal.SIGCONT)
    print(f"\nstopped for {SECONDS:.0f} s: {regular.made_up_for()}")


@pytest.mark.timeout(120)
def test_a_machine_that_slept_for_hours_makes_up_for_it_and_tells_each_session_once(place: Place) -> None:
    regular = Regular(place)
    set_clock(regular.server, timedelta(hours=8))
    sid = regular.sessions[0]

    def cards() -> list[object]:
        values = [e["event"]["value"] for e in log_of(regular.server, sid) if e["event"].get("name") == "navi.session"]
        return [value["away"] for value in values if "away" in value["changed"]]

    until(cards)
    (card,) = cards()
    assert isinstance(card, dict)
    assert 8 * 3600 - 120 < card["missed"] <= 8 * 3600 + 120
    back = clock_of(regular.server)
    until(lambda: regular.ran(back) >= RECALLS)
    assert len(cards()) == 1
    print(f"\nasleep for 8 h: {regular.made_up_for()}")


@contextmanager
def _locked(database: Database, _server: JupyterServer) -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    with closing(sqlite3.connect(database.path, timeout=30, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


@contextmanager
def _full(database: Database, server: JupyterServer) -> Iterator[None]:
    """The disk is full: its own, if it has one; else files of the process cannot grow."""
    folder = database.path.parent
    filler = folder / "filler"
    if folder.is_mount():
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
        filler.unlink()
    else:
        size = max(each.stat().st_size for each in folder.iterdir())
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        yield
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.timeout(150 + 3 * SECONDS)
@pytest.mark.parametrize("refusing", [_locked, _full])
def test_what_falls_due_while_the_database_takes_nothing_is_made_up_for_and_users_are_told_why(
    place: Place, refusing: Callable[[Database, JupyterServer], object]
) -> None:
    regular = Regular(place)
    server = regular.server
    errors = server.log.read_text().count("recalls_store_unavailable")
    sid = new_session(server)
    with refusing(regular.database, server):  # type: ignore[attr-defined]
        began = time.monotonic()
        answer = until(lambda: _refused(server, sid), patience=60, every=0)
        assert (answer.status, answer.json["code"][:6]) == (503, "store_"), "unavailable, or busy"
        assert "Traceback" not in answer.json["message"]
        until(lambda: server.log.read_text().count("recalls_store_unavailable") > errors, patience=60)
        assert ok(server, "GET", f"sessions/{sid}")["id"] == sid, "what is there can be read"
        until(lambda: time.monotonic() - began > min(SECONDS, 6) or SECONDS > 30, patience=90)
    accepted = prompt(server, sid, "what can you do?")["run_id"]
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{accepted}")["status"] == "completed")
    print(f"\n{refusing.__name__}: {regular.made_up_for()}")


def _refused(server: JupyterServer, sid: str) -> object:
    """The answer to a prompt, once that is not accepted any more: a full disk may have some room left at first."""
    body = {"type": "prompt", "text": "tell me " + "a long story " * 12000, "display": f"at {datetime.now(UTC)}"}
    answer = call(server, "POST", f"sessions/{sid}/commands", body)
    return answer if answer.status >= 300 else None
