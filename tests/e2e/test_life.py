"""The server's life: how it is reached, what it does when its database is not right, how it ends, what it weighs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.client import Follower, Wire, call, log_of, new_session, ok, prompt, until
from tests.e2e.conftest import Start, check_log
from tests.e2e.logs import check_session_log
from tests.support.server import JupyterServer

PASSWORD = "a good password"


class Browser:
    """Logs in with a password and keeps cookies, as a browser does."""

    def __init__(self, server: JupyterServer) -> None:
        self._server = server
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        connection.request(method, self._server.base_url + path, body=body, headers=given)
        answer = connection.getresponse()
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, answer.read()

    def log_in(self, password: str) -> None:
        self.ask("GET", "login")
        form = {"password": password, "_xsrf": self.cookies["_xsrf"]}
        self.ask("POST", "login", urllib.parse.urlencode(form).encode(), **FORM)


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def with_password(tmp_path: Path) -> Iterator[JupyterServer]:
    """A server that asks for a password, below a prefix, and lets nobody in without it."""
    from jupyter_server.auth.security import passwd

    server = JupyterServer(tmp_path / "server", token="")
    strict = "--ServerApp.allow_unauthenticated_access=False"
    hashed = f"--PasswordIdentityProvider.hashed_password={passwd(PASSWORD)}"  # type: ignore[no-untyped-call]
    yield server.start(base_url="/user/a%40b/", args=(strict, hashed))
    server.stop()
    check_log(server)


def test_with_a_password_and_a_prefix_it_works_for_who_has_logged_in_and_for_nobody_else(
    with_password: JupyterServer,
) -> None:
    browser = Browser(with_password)
    for path in ("health", "sessions", "openapi.json", "profiles"):
        assert browser.ask("GET", f"navi/api/{path}")[0] == 403
    assert browser.ask("GET", "navi")[0] in (302, 403)
    browser.log_in("a wrong password")
    assert browser.ask("GET", "navi/api/health")[0] == 403
    browser.log_in(PASSWORD)
    until(lambda: browser.ask("GET", "navi/api/health")[0] == 200)  # it may be starting still
    unforgeable = {"Content-Type": "application/json"}
    assert browser.ask("POST", "navi/api/sessions", b"{}", **unforgeable)[0] == 403, "without XSRF token"
    unforgeable["X-XSRFToken"] = browser.cookies["_xsrf"]
    status, content = browser.ask("POST", "navi/api/sessions", b"{}", **unforgeable)
    assert status == 201
    sid = json.loads(content)["id"]
    command = json.dumps({"type": "prompt", "text": "count to 3"}).encode()
    assert browser.ask("POST", f"navi/api/sessions/{sid}/commands", command, **unforgeable)[0] == 202
    assert browser.ask("GET", f"navi/api/sessions/{sid}/events?after=0&wait=5")[0] == 200
    # The kernels' own token, from the file that only this user can read.
    held = json.loads(with_password.connection_file.read_text())
    assert with_password.connection_file.stat().st_mode & 0o077 == 0
    kernel = {"Authorization": f"navi {held['token']}"}
    assert json.loads(call(with_password, "GET", "sessions", headers=kernel).body)["sessions"][0]["id"] == sid
    with pytest.raises(ConnectionRefusedError, match="403"):
        Wire(with_password, f"sessions/{sid}/ws")


def database(server: JupyterServer) -> Path:
    return server.home / "data" / "navi" / "navi.db"


def made_and_stopped(server: JupyterServer) -> str:
    """A session with one answered prompt; the server is down afterwards."""
    sid = new_session(server)
    follower = Follower(server, sid)
    follower.until_end(prompt(server, sid, "count to 3")["run_id"])
    follower.close()
    server.stop()
    return sid


def test_a_damaged_database_is_set_aside_and_said_and_jupyter_itself_works(start: Start) -> None:
    server = start()
    made_and_stopped(server)
    content = database(server).read_bytes()
    damaged = content[:4096] + b"\xa5" * 8192 + content[12288:]
    database(server).write_bytes(damaged)
    server.start(wait=False)
    health = until(lambda: unhealthy(server))
    assert health["code"] == "store_damaged"
    assert "set aside" in health["message"] or "kept as" in health["message"]
    aside = [file for file in database(server).parent.iterdir() if ".damaged-" in file.name]
    assert [file.read_bytes() for file in aside if file.name.endswith("Z")] == [damaged]
    refused = call(server, "POST", "sessions", {})
    assert (refused.status, refused.json["code"]) == (503, "store_damaged")
    assert server.get("api/status")["kernels"] == 0
    # Never treated as empty: as long as this server runs, nothing is written where the damaged one was.
    assert not database(server).exists()


def unhealthy(server: JupyterServer) -> Any:
    """What health says, once the start has failed."""
    try:
        answer = call(server, "GET", "health")
    except OSError:
        return None
    return answer.json if answer.status == 503 and answer.json["status"] == "failed" else None


def test_a_database_of_a_newer_version_is_left_alone_and_said(start: Start) -> None:
    server = start()
    sid = made_and_stopped(server)
    with sqlite3.connect(database(server)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    server.start(wait=False)
    health = until(lambda: unhealthy(server))
    assert health["code"] == "store_too_new"
    assert "pip install --upgrade navi-jupyter" in health["message"]
    server.stop()
    with sqlite3.connect(database(server)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    server.start()
    assert ok(server, "GET", f"sessions/{sid}")["id"] == sid


def test_where_the_data_directory_can_not_be_written_it_says_so(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("in the way")
    server = JupyterServer(tmp_path / "server", env={"NAVI_DATABASE_URL": f"sqlite:///{tmp_path}/a-file/navi.db"})
    server.start(wait=False)
    try:
        health = until(lambda: unhealthy(server))
        assert health["code"] == "store_unavailable"
        assert "a-file" in health["message"]
        assert server.get("api/status")["kernels"] == 0
    finally:
        server.stop()
    check_log(server)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_data_directory_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    server = JupyterServer(tmp_path / "server", env={"NAVI_DATABASE_URL": f"sqlite:///{folder}/navi.db"})
    server.start(wait=False)
    try:
        assert until(lambda: unhealthy(server))["code"] == "store_unavailable"
    finally:
        server.stop()
    check_log(server)


def test_a_stopping_server_ends_its_run_as_interrupted_and_keeps_the_text(start: Start) -> None:
    server = start()
    sid = new_session(server)
    follower = Follower(server, sid).connected()
    run_id = prompt(server, sid, "count to 1000 every 20 ms")["run_id"]
    queued = prompt(server, sid, "count to 3")["run_id"]
    follower.until(lambda e: e["event"].get("delta", "").startswith("20"))
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    until(lambda: not server.running)
    took = time.monotonic() - began
    seen = list(follower.seen)
    server.start()
    assert follower.until_end(queued)["event"]["outcome"] == {"type": "success"}
    log = log_of(server, sid)
    assert log[: len(seen)] == seen
    assert not check_session_log(log)
    run = ok(server, "GET", f"sessions/{sid}/runs/{run_id}")
    assert (run["status"], run["error"]["code"]) == ("interrupted", "interrupted")
    said = [m for m in ok(server, "GET", f"sessions/{sid}/messages")["messages"] if m["run_id"] == run_id]
    assert said[-1]["partial"]
    assert said[-1]["content"].startswith("1 2 3 4 5 6 7 8 9 10")
    print(f"\nstopped in {took:.2f} s with a run in progress")
    assert took < 6
    follower.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no UNIX sockets here")
def test_it_works_on_a_unix_socket(tmp_path: Path) -> None:
    server = JupyterServer(tmp_path / "server", token="t")
    path = Path("/tmp") / f"navi-test-{os.getpid()}.sock"  # short: such paths have 108 bytes
    with_socket = [f"--ServerApp.sock={path}"]
    for folder in (server.root, server.home / "config"):
        folder.mkdir(parents=True)
    enabled = {"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}}}
    (server.home / "config" / "jupyter_server_config.json").write_text(json.dumps(enabled))
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--IdentityProvider.token=t"]
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [*command, *with_socket], env=server.env(), cwd=server.root, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        assert until(lambda: path.exists() and over_unix(path)) == 200
        held = json.loads((server.home / "runtime" / f"navi-{process.pid}.json").read_text())
        assert held["sock"] == str(path)
    finally:
        process.terminate()
        process.wait(20)
    check_log(server)


def over_unix(path: Path) -> int | None:
    """The status of health over a UNIX socket; None while nobody listens."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/navi/api/health", headers={"Authorization": "token t"})
        status = connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
    return status if status == 200 else None


@pytest.mark.slow
def test_two_hundred_idle_sessions_weigh_little(start: Start) -> None:
    server = start()
    process = psutil.Process(server.pid)
    warm = new_session(server)
    follower = Follower(server, warm)
    follower.until_end(prompt(server, warm, "count to 3")["run_id"])
    before = process.memory_info().rss
    for _ in range(200):
        sid = new_session(server)
        prompt(server, sid, "count to 3 every 1 ms")
    until(lambda: ok(server, "GET", "health")["runs"] == 0)
    grown = (process.memory_info().rss - before) / 2**20
    weight = process.memory_info().rss / 2**20
    print(f"\n200 sessions with a run each: {grown:.1f} MB more, {weight:.0f} MB in all")
    assert grown < 40
    follower.close()


def test_what_is_written_to_the_log_names_runs_and_never_says_what_was_asked(start: Start) -> None:
    server = start()
    sid = new_session(server, title="SECRET-TITLE")
    follower = Follower(server, sid)
    follower.until_end(prompt(server, sid, "SECRET-QUESTION")["run_id"])
    server.stop()  # the line about a run's end is written after followers have seen it
    log = server.log.read_text()
    assert re.search(r"run_ended.*status", log)
    assert "SECRET" not in log
    follower.close()
