"""What befalls the disk under a real server: its database deleted or replaced, no space, no permission to write."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
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
def test_a_database_deleted_in_mid_run_keeps_the_text_up_to_then_and_the_server_stops_in_order(start: Start) -> None:
    server = start()
    sid = new_session(server)
    prompt(server, sid, "count to 2000 every 20 ms")
    until(lambda: len(ok(server, "GET", f"sessions/{sid}/events")["events"]) > 8)
    path = database_of(server)
    for name in path.parent.glob("navi.db*"):
        name.unlink()
    until(lambda: "is kept in" in str(health(server)[1].get("message")))
    (kept,) = path.parent.glob("navi.db.recovered-*")
    server.stop()
    assert "Traceback" not in server.log.read_text()
    kept.rename(path)
    server.start()
    messages = ok(server, "GET", f"sessions/{sid}/messages")["messages"]
    assert any(each["role"] == "assistant" and "1" in each["content"] for each in messages)
    runs = ok(server, "GET", f"sessions/{sid}/runs")["runs"]
    assert [each["status"] for each in runs] == ["interrupted"]


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


# --- no space, no permission


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'navi' / 'navi.db'}"

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only an administrator of Linux can mount a small disk")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def upload(server: JupyterServer, size: int = 600_000) -> tuple[int, str]:
    headers = {"Content-Type": "text/plain"}
    answer = call(server, "POST", "attachments?name=big.txt", raw=b"x" * size, headers=headers)
    return answer.status, answer.json.get("code", "")


@pytest.mark.timeout(180)
def test_on_a_full_disk_attachments_are_refused_health_says_so_and_both_heal(start: Start, disk: Disk) -> None:
    server = start(env={"NAVI_DATABASE_URL": disk.url})
    sid = new_session(server)
    assert health(server)[1]["status"] == "ok"
    disk.fill()
    assert upload(server) == (503, "store_unavailable")
    files = [each for each in (disk.folder / "navi").rglob("*") if each.is_file() and "attachments" in str(each)]
    assert files == [], "no part of it is left"
    status, body = until(lambda: found if (found := health(server))[0] == 503 else None)
    assert (status, body["status"]) == (503, "failed")
    assert str(body["code"]).startswith("store_")
    assert ok(server, "GET", f"sessions/{sid}")["id"] == sid, "what is there can be read"
    disk.free()
    until(lambda: health(server)[0] == 200)
    assert upload(server, 60_000)[0] == 201
    assert "Traceback" not in server.log.read_text()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("began", [False, True])
def test_a_start_that_failed_on_a_full_or_read_only_disk_heals_by_itself(
    start: Start, disk: Disk, trouble: str, began: bool
) -> None:
    env = {"NAVI_DATABASE_URL": disk.url}
    if began:
        server = start(env=env)
        new_session(server, title="before")
        server.stop()
    else:
        server = JupyterServer(disk.folder.parent / "server", env=env)
    disk.fill() if trouble == "full" else disk.remount("ro")
    server.start(wait=False)
    try:
        status, body = until(lambda: _answered(server, "failed"))
        assert (status, body["status"]) == (503, "failed")
        assert str(body["code"]).startswith("store_")
        refused = call(server, "GET", "sessions")
        assert (refused.status, refused.json["code"][:6]) == (503, "store_")
        disk.free() if trouble == "full" else disk.remount("rw")
        until(lambda: _answered(server, "ok"), patience=90)
        assert [each["title"] for each in ok(server, "GET", "sessions")["sessions"]] == ["before"] * began
        new_session(server)
        assert server.log.read_text().count("navi_not_available") == 1
    finally:
        server.stop()


def _answered(server: JupyterServer, status: str) -> tuple[int, dict[str, object]] | None:
    with suppress(OSError):
        found = health(server)
        return found if found[1]["status"] == status else None
    return None
