"""What befalls the disk under a real server: its database deleted or replaced, no space, no permission to write."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.client import call, log_of, new_session, ok, prompt, until
from tests.e2e.conftest import Start
from tests.support.server import JupyterServer


def database_of(server: JupyterServer) -> Path:
    return server.home / "data" / "navi" / "navi.db"


def health(server: JupyterServer) -> tuple[int, dict[str, object]]:
    answer = call(server, "GET", "health")
    return answer.status, answer.json


@pytest.mark.timeout(180)
@pytest.mark.parametrize("killed", [False, True])
def test_a_database_deleted_under_a_server_is_refused_reported_and_restored_whole(start: Start, killed: bool) -> None:
    server = start()
    sid = new_session(server, title="before")
    run = prompt(server, sid, "what can you do?")["run_id"]
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
    path = database_of(server)
    for name in path.parent.glob("navi.db*"):
        name.unlink()
    refused = call(server, "POST", "sessions", {"title": "after"})
    assert (refused.status, refused.json["code"]) == (503, "store_replaced")
    refused = call(server, "POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "hello"})
    assert (refused.status, refused.json["code"]) == (503, "store_replaced")
    status, body = until(lambda: found if "is kept in" in str((found := health(server))[1]["message"]) else None)
    assert (status, body["status"], body["code"]) == (503, "failed", "store_replaced")
    before = ok(server, "GET", f"sessions/{sid}/events")["events"]
    assert before, "reading goes on"
    (kept,) = path.parent.glob("navi.db.recovered-*")
    if killed:
        server.kill9()
    server.stop()
    assert not path.exists(), "nothing was begun in its place"
    kept.rename(path)
    server.start()
    assert [each["title"] for each in ok(server, "GET", "sessions")["sessions"]] == ["before"]
    assert log_of(server, sid)[: len(before)] == before
    assert health(server)[1]["message"] is None


@pytest.mark.timeout(180)
def test_two_servers_on_a_database_that_is_replaced_both_refuse_and_leave_the_new_file_alone(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "shared" / "navi.db"
    path.parent.mkdir()
    servers = [start(name, env={"NAVI_DATABASE_URL": f"sqlite:///{path}"}) for name in ("one", "two")]
    new_session(servers[0], title="before")
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE other (x)")
        other.commit()
    (tmp_path / "other").replace(path)
    content = path.read_bytes()
    for server in servers:
        until(lambda server=server: health(server)[1].get("code") == "store_replaced")
        assert call(server, "POST", "sessions", {}).json["code"] == "store_replaced"
    until(lambda: len(list(path.parent.glob("navi.db.recovered-*"))) == 2)
    for server in servers:
        server.stop()
    assert path.read_bytes() == content


@pytest.mark.timeout(180)
def test_after_a_kill_a_log_that_was_cut_is_reported_by_health(start: Start) -> None:
    server = start()
    for number in range(5):
        new_session(server, title=f"number {number}")
    server.kill9()
    path = database_of(server)
    wal = path.with_name("navi.db-wal")
    assert wal.stat().st_size > 0
    wal.unlink()
    server.start()
    assert "Changes are missing" in str(health(server)[1]["message"])
    assert "Changes are missing" in server.log.read_text()
    assert json.loads(path.with_name("navi.db.state").read_text())["database"]
