"""Bad input from outside, at a real server: the contract's errors, and nothing of it in a session or as a traceback."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import BINARY, PING, TEXT, Answer, Follower, Wire, call, log_of, new_session, ok, prompt
from tests.e2e.conftest import check_log
from tests.support.server import JupyterServer

MARK = "MARK-OF-BAD-INPUT"
"""In everything bad that is sent: must be found nowhere afterwards."""
MEGABYTES_10 = 10 * 2**20
BIG_NUMBER = "9" * 5000
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """One server for all of it: what one test breaks, the next ones would see."""
    one = JupyterServer(tmp_path_factory.mktemp("bad") / "server").start()
    yield one
    one.stop()
    check_log(one)
    assert " 500 " not in one.log.read_text(errors="replace")
    for file in (one.home / "data" / "navi").iterdir():
        assert MARK.encode() not in file.read_bytes(), f"bad input is in {file.name}"


@pytest.fixture
def sid(server: JupyterServer) -> Iterator[str]:
    """A session that must not change."""
    session_id = new_session(server)
    ok(server, "POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": "count to 1"})
    follower = Follower(server, session_id)
    follower.until(lambda e: e["event"]["type"] == "RUN_FINISHED")
    before = log_of(server, session_id)
    yield session_id
    assert log_of(server, session_id) == before == follower.seen
    run_id = prompt(server, session_id, "count to 1")["run_id"]
    assert follower.until_end(run_id)["event"]["outcome"] == {"type": "success"}
    follower.close()


@dataclass(frozen=True)
class Bad:
    """A body that must be refused."""

    body: Any
    field: str | None = None
    code: str = "invalid_request"


COMMANDS = {
    "no type": Bad({"text": MARK}),
    "unknown type": Bad({"type": MARK}),
    "text is a number": Bad({"type": "prompt", "text": 5}, "text"),
    "text is missing": Bad({"type": "prompt"}, "text"),
    "text is empty": Bad({"type": "prompt", "text": ""}, "text"),
    "text is null": Bad({"type": "prompt", "text": None}, "text"),
    "unknown field": Bad({"type": "prompt", "text": MARK, "extra": 1}, "extra"),
    "unknown mode": Bad({"type": "prompt", "text": MARK, "mode": MARK}, "mode"),
    "user in the command": Bad({"type": "prompt", "text": MARK, "user_id": "root"}, "user_id"),
    "command_id is a list": Bad({"type": "prompt", "text": MARK, "command_id": []}, "command_id"),
    "command_id is long": Bad({"type": "prompt", "text": MARK, "command_id": "c" * 129}, "command_id"),
    "command_id has a line break": Bad({"type": "prompt", "text": MARK, "command_id": "a\nb"}, "command_id"),
    "unknown model": Bad({"type": "prompt", "text": MARK, "model": f"{MARK}:x"}, "model"),
    "display is empty": Bad({"type": "prompt", "text": MARK, "display": ""}, "display"),
    "stop with a number": Bad({"type": "stop", "run_id": 5}, "run_id"),
    "unqueue without a target": Bad({"type": "unqueue"}, "target"),
    "answer without a status": Bad({"type": "answer", "interrupt_id": "i"}, "status"),
    "unqueue of nothing": Bad({"type": "unqueue", "target": "nothing"}, code="command_not_found"),
    "answer to nothing": Bad({"type": "answer", "interrupt_id": "i", "status": "resolved"}, code="interrupt_not_found"),
    "a list": Bad([{"type": "prompt", "text": MARK}]),
    "a string": Bad("prompt"),
    "null": Bad(None),
    "a number": Bad(5),
}
RAW = {
    "empty": b"",
    "spaces": b"  \n",
    "no JSON": MARK.encode(),
    "half a JSON": b'{"type":"prompt","text":"' + MARK.encode(),
    "two JSONs": b'{"type":"stop"}{"type":"stop"}',
    "no UTF-8": b'{"type":"prompt","text":"\xff\xfe"}',
    "UTF-16": '{"type":"stop"}'.encode("utf-16"),
    "deep lists": DEEP.encode(),
    "deep in a field": f'{{"type":"prompt","text":{DEEP}}}'.encode(),
    "a huge number": f'{{"type":"stop","run_id":{BIG_NUMBER}}}'.encode(),
    "NaN": b'{"type":"prompt","text":NaN}',
    "10 MB of text": json.dumps({"type": "prompt", "text": MARK + "x" * MEGABYTES_10}).encode(),
    "10 MB of spaces": b" " * MEGABYTES_10,
}
AT_PAST = {"kind": "once", "at": "2001-01-01T00:00:00Z"}
SCHEDULES = {
    "past": Bad(AT_PAST, "schedule", "invalid_schedule"),
    "no zone": Bad({"kind": "once", "at": "2099-01-01T00:00:00"}, "schedule"),
    "both at and in": Bad({"kind": "once", "at": "2099-01-01T00:00:00Z", "in": "1h"}, "schedule"),
    "neither at nor in": Bad({"kind": "once"}, "schedule"),
    "in nothing": Bad({"kind": "once", "in": "0s"}, "schedule"),
    "in the past": Bad({"kind": "once", "in": "-5m"}, "schedule"),
    "in what": Bad({"kind": "once", "in": MARK}, "schedule"),
    "in for ever": Bad({"kind": "once", "in": "999999999d"}, "schedule"),
    "in a number": Bad({"kind": "once", "in": 5}, "schedule"),
    "at a number": Bad({"kind": "once", "at": 2**70}, "schedule"),
    "every zero": Bad({"kind": "every", "every": "0s"}, "schedule"),
    "every minus": Bad({"kind": "every", "every": "-1h"}, "schedule"),
    "cron words": Bad({"kind": "cron", "expr": MARK}, "schedule"),
    "cron empty": Bad({"kind": "cron", "expr": ""}, "schedule"),
    "cron four fields": Bad({"kind": "cron", "expr": "* * * *"}, "schedule"),
    "cron eight fields": Bad({"kind": "cron", "expr": "* * * * * * * *"}, "schedule"),
    "cron never": Bad({"kind": "cron", "expr": "0 0 31 2 *"}, "schedule"),
    "cron out of range": Bad({"kind": "cron", "expr": "61 * * * *"}, "schedule"),
    "cron huge range": Bad({"kind": "cron", "expr": "0-99999999 * * * *"}, "schedule"),
    "cron random": Bad({"kind": "cron", "expr": "R R * * *"}, "schedule"),
    "cron long": Bad({"kind": "cron", "expr": "1," * 300_000}, "schedule"),
    "cron other digits": Bad({"kind": "cron", "expr": "٥ * * * *"}, "schedule"),
    "cron no-break space": Bad({"kind": "cron", "expr": "0\u00a09 * * *"}, "schedule"),
    "unknown zone": Bad({"kind": "cron", "expr": "0 9 * * *", "tz": "Mars/Base"}, "schedule"),
    "zone with a path": Bad({"kind": "cron", "expr": "0 9 * * *", "tz": "../../etc/passwd"}, "schedule"),
    "zone with a NUL": Bad({"kind": "cron", "expr": "0 9 * * *", "tz": "UTC\0"}, "schedule"),
    "unknown kind": Bad({"kind": MARK}, "schedule"),
    "no kind": Bad({}, "schedule"),
    "a list": Bad([], "schedule"),
    "null": Bad(None, "schedule"),
    "unknown field": Bad({"kind": "once", "in": "1h", "extra": 1}, "schedule"),
}
POLICIES: dict[str, Any] = {
    "unknown misfire": {"misfire": MARK},
    "unknown busy": {"busy": MARK},
    "minus retries": {"retries": -1},
    "many retries": {"retries": 10**6},
    "huge retries": {"retries": 10**30},
    "text retries": {"retries": "1"},
    "no fires": {"max_fires": 0},
    "huge fires": {"max_fires": 10**30},
    "zero grace": {"grace": "0s"},
    "until without zone": {"until": "2099-01-01T00:00:00"},
    "unknown field": {"extra": 1},
    "a list": [],
}


def refused(answer: Answer, status: int, code: str, field: str | None = None) -> None:
    """The contract's shape of an error."""
    assert answer.status == status, (answer.status, answer.body[:1000])
    error = answer.json
    assert {"message", "reason", "code"} <= set(error) <= {"message", "reason", "code", "field"}, error
    assert error["code"] == code, error
    assert error["message"]
    assert len(answer.body) < 1000, "an error must not repeat what was sent"
    if field is not None:
        assert error["field"].split(".")[0] == field or error["field"].startswith(f"{field}."), error


STATUS = {"command_not_found": 404, "interrupt_not_found": 404}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_command_is_refused_over_http_and_over_the_socket(server: JupyterServer, sid: str, name: str) -> None:
    bad = COMMANDS[name]
    answer = call(server, "POST", f"sessions/{sid}/commands", raw=json.dumps(bad.body).encode())
    refused(answer, STATUS.get(bad.code, 400), bad.code, bad.field)
    wire = Wire(server, f"sessions/{sid}/ws?after=0")
    rejected = wire.answer(json.dumps(bad.body))["rejected"]
    assert rejected["code"] == bad.code
    assert rejected["message"] == answer.json["message"]
    assert wire.answer("{}")["rejected"]["code"] == "invalid_request", "the socket stays open"
    wire.close()


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_json_is_refused_over_http_and_over_the_socket(server: JupyterServer, sid: str, name: str) -> None:
    for path in (f"sessions/{sid}/commands", "sessions", "recalls", "recalls/preview"):
        answer = call(server, "POST", path, raw=RAW[name])
        refused(answer, 400, "invalid_request")
    refused(call(server, "PATCH", f"sessions/{sid}", raw=RAW[name]), 400, "invalid_request")
    wire = Wire(server, f"sessions/{sid}/ws?after=0")
    with suppress(ConnectionError):  # what is no UTF-8 is no text frame: RFC 6455 has the connection closed (1007)
        wire.send_frame(TEXT, RAW[name])
        message: dict[str, Any] = {}
        while "rejected" not in message:
            message = wire.read()
        assert message["rejected"]["code"] == "invalid_request"
    assert wire.close_code in (None, 1007)
    wire.close()


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_impossible_schedule_is_refused(server: JupyterServer, sid: str, name: str) -> None:
    bad = SCHEDULES[name]
    began = time.monotonic()
    body = {"session_id": sid, "message": MARK, "schedule": bad.body}
    answers = [call(server, "POST", "recalls", body), call(server, "POST", "recalls/preview", {"schedule": bad.body})]
    for answer in answers[: 1 if bad.body == AT_PAST else 2]:  # a preview may be asked from any time on
        assert answer.status == 400, (answer.status, answer.body[:1000])
        assert answer.json["code"] in ("invalid_schedule", "invalid_request")
        refused(answer, 400, answer.json["code"], "schedule")
    assert time.monotonic() - began < 2
    assert not ok(server, "GET", f"recalls?session_id={sid}")["recalls"]


@pytest.mark.parametrize("name", POLICIES)
def test_an_impossible_policy_is_refused(server: JupyterServer, sid: str, name: str) -> None:
    body = {"session_id": sid, "message": MARK, "schedule": {"kind": "once", "in": "1h"}, "policy": POLICIES[name]}
    refused(call(server, "POST", "recalls", body), 400, "invalid_request", "policy")
    assert not ok(server, "GET", f"recalls?session_id={sid}")["recalls"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "sessions/s_nothing", 404, "session_not_found"),
        ("PATCH", "sessions/s_nothing", 404, "session_not_found"),
        ("DELETE", "sessions/s_nothing", 404, "session_not_found"),
        ("GET", "sessions/s_nothing/events", 404, "session_not_found"),
        ("GET", "sessions/s_nothing/messages", 404, "session_not_found"),
        ("GET", "sessions/s_nothing/runs", 404, "session_not_found"),
        ("GET", "sessions/s_nothing/export?format=md", 404, "session_not_found"),
        ("GET", "sessions/%00", 404, "session_not_found"),
        ("GET", "sessions/%ff", 400, "invalid_request"),
        ("GET", "sessions/%27%3B--", 404, "session_not_found"),
        ("GET", "sessions/..%2f..%2fetc", 404, "not_found"),
        ("GET", f"sessions/{'s' * 5000}", 404, "session_not_found"),
        ("GET", "recalls/rec_nothing", 404, "recall_not_found"),
        ("POST", "recalls/rec_nothing/fire", 404, "recall_not_found"),
        ("POST", "recalls/rec_nothing/pause", 404, "recall_not_found"),
        ("GET", "recalls/rec_nothing/firings", 404, "recall_not_found"),
        ("GET", "nothing", 404, "not_found"),
        ("GET", "", 404, "not_found"),
        ("GET", "sessions//events", 404, "not_found"),
        ("PUT", "sessions", 405, "method_not_allowed"),
        ("DELETE", "sessions", 405, "method_not_allowed"),
        ("POST", "health", 405, "method_not_allowed"),
        ("GET", "recalls?status=nonsense", 400, "invalid_request"),
        ("GET", "sessions?limit=0", 400, "invalid_request"),
        ("GET", "sessions?limit=-1", 400, "invalid_request"),
        ("GET", "sessions?limit=1001", 400, "invalid_request"),
        ("GET", "sessions?limit=abc", 400, "invalid_request"),
        ("GET", f"sessions?limit={BIG_NUMBER}", 400, "invalid_request"),
        ("GET", "sessions?cursor=nonsense", 400, "invalid_request"),
        ("GET", "sessions?cursor=%00%ff", 400, "invalid_request"),
        ("GET", "recalls?cursor=nonsense", 400, "invalid_request"),
    ],
)
def test_what_is_not_there_or_not_possible_is_said_so(
    server: JupyterServer, method: str, path: str, status: int, code: str
) -> None:
    body = {"title": MARK} if method in ("PATCH", "PUT") else None
    refused(call(server, method, path, body), status, code)


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        f"after={BIG_NUMBER}",
        "after=1.5",
        "after=9223372036854775807",
        "after=9223372036854775808",
        "after=1_0",
        "after=%D9%A5",
    ],
)
def test_a_bad_cursor_is_refused_everywhere(server: JupyterServer, sid: str, query: str) -> None:
    refused(call(server, "GET", f"sessions/{sid}/events?{query}"), 400, "invalid_request", "after")
    stream = {"Accept": "text/event-stream"}
    refused(call(server, "GET", f"sessions/{sid}/events?{query}", headers=stream), 400, "invalid_request", "after")
    with pytest.raises(ConnectionRefusedError, match=r"(?s)400 .*invalid_request"):
        Wire(server, f"sessions/{sid}/ws?{query}")


def test_other_content_types_are_refused_and_a_missing_login_is_403(server: JupyterServer, sid: str) -> None:
    body = json.dumps({"type": "prompt", "text": MARK}).encode()
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/xml"):
        answer = call(server, "POST", f"sessions/{sid}/commands", raw=body, headers={"Content-Type": kind})
        refused(answer, 400, "invalid_request")
    for token in ("", "wrong", "é"):
        refused(call(server, "POST", f"sessions/{sid}/commands", raw=body, token=token), 403, "forbidden")
        refused(call(server, "GET", "health", token=token), 403, "forbidden")
        with pytest.raises(ConnectionRefusedError, match="403"):
            Wire(server, f"sessions/{sid}/ws", token=token)


def test_a_socket_that_sends_a_thousand_garbage_frames_still_works(server: JupyterServer, sid: str) -> None:
    wire = Wire(server, f"sessions/{sid}/ws?after=0")
    junk = [MARK, "", "{}", "[]", "null", "1e999", '"\\u0000"', '{"type":', "{" * 500, '{"type":"prompt"}']
    for number in range(1000):
        if number % 10 == 9:
            wire.send_frame(BINARY, MARK.encode())
        else:
            wire.send(junk[number % len(junk)])
    rejected = 0
    while rejected < 1000:
        message = wire.read()
        assert "accepted" not in message
        rejected += "rejected" in message
    # A fragmented command with a ping between its pieces is a good one; its target is not.
    text = json.dumps({"type": "unqueue", "target": "nothing", "command_id": "c1"}).encode()
    wire.send_frame(TEXT, text[:10], first=0)
    wire.send_frame(PING, b"in between")
    wire.send_frame(0, text[10:])
    message = wire.read()
    while "rejected" not in message:
        message = wire.read()
    assert (message["rejected"]["code"], message["rejected"]["command_id"]) == ("command_not_found", "c1")
    wire.close()


@pytest.mark.parametrize("name", ["reserved bits", "unmasked", "unknown opcode", "100 MB announced"])
def test_a_socket_that_breaks_the_protocol_is_closed_and_disturbs_nobody(
    server: JupyterServer, sid: str, name: str
) -> None:
    wire = Wire(server, f"sessions/{sid}/ws?after=0")
    with suppress(ConnectionError):
        match name:
            case "reserved bits":
                wire.send_frame(TEXT, b"{}", first=0xF0)
            case "unmasked":
                wire.send_frame(TEXT, b"{}", masked=False)
            case "unknown opcode":
                wire.send_frame(5, b"{}")
            case _:
                wire.socket.sendall(b"\x81\xff" + (100 * 2**20).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1000)
        if name == "unmasked":  # tornado takes it
            wire.close()
            return
        while True:
            wire.read()
    wire.cut()


def test_half_open_sockets_and_slow_bodies_hold_nobody_up(server: JupyterServer, sid: str) -> None:
    halves = [Wire(server, f"sessions/{sid}/ws?after=0") for _ in range(20)]
    for wire in halves:
        wire.socket.sendall(b"\x81\xfe\x10")  # the beginning of a frame that never ends
    slow = []
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", server.port))
        head = (
            f"POST /navi/api/sessions/{sid}/commands HTTP/1.1\r\nHost: x\r\nAuthorization: token {server.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode() + b'{"type":"prompt","text":"' + MARK.encode())
        slow.append(connection)
    began = time.monotonic()
    for _ in range(10):
        assert ok(server, "GET", f"sessions/{sid}")["run"] is None
    assert time.monotonic() - began < 5
    for wire in halves:
        wire.cut()
    for connection in slow:
        connection.close()


TWO_USERS = """
from jupyter_server.auth import IdentityProvider, User

class ByToken(IdentityProvider):
    def get_user(self, handler):
        token = handler.request.headers.get("Authorization", "").removeprefix("token ")
        name = {"ann-token": "ann", "bob-token": "bob"}.get(token)
        handler._token_authenticated = name is not None
        return User(username=name) if name else None

c.ServerApp.identity_provider_class = ByToken
"""


def test_what_belongs_to_somebody_else_is_not_there(tmp_path: Path) -> None:
    server = JupyterServer(tmp_path / "server", token="ann-token")
    (server.home / "config").mkdir(parents=True)
    (server.home / "config" / "jupyter_server_config.py").write_text(TWO_USERS)
    with server.start():
        sid = new_session(server, title="of ann")
        run_id = prompt(server, sid, "count to 100 every 20 ms")["run_id"]
        hour = {"kind": "once", "in": "1h"}
        recall = ok(server, "POST", "recalls", {"session_id": sid, "message": "x", "schedule": hour})["id"]
        head = ok(server, "GET", f"sessions/{sid}")["head_seq"]
        bob = "bob-token"
        for method, path, body in (
            ("GET", f"sessions/{sid}", None),
            ("PATCH", f"sessions/{sid}", {"title": MARK}),
            ("DELETE", f"sessions/{sid}", None),
            ("POST", f"sessions/{sid}/commands", {"type": "stop"}),
            ("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": MARK}),
            ("GET", f"sessions/{sid}/events", None),
            ("GET", f"sessions/{sid}/events?after=0&wait=1", None),
            ("GET", f"sessions/{sid}/messages", None),
            ("GET", f"sessions/{sid}/runs", None),
            ("GET", f"sessions/{sid}/runs/{run_id}", None),
            ("GET", f"sessions/{sid}/export?format=json", None),
            ("POST", "recalls", {"session_id": sid, "message": MARK, "schedule": hour}),
        ):
            refused(call(server, method, path, body, token=bob), 404, "session_not_found")
        for method, path, body in (
            ("GET", f"recalls/{recall}", None),
            ("PATCH", f"recalls/{recall}", {"message": MARK}),
            ("DELETE", f"recalls/{recall}", None),
            ("POST", f"recalls/{recall}/fire", None),
            ("POST", f"recalls/{recall}/pause", None),
            ("POST", f"recalls/{recall}/resume", None),
            ("GET", f"recalls/{recall}/firings", None),
        ):
            refused(call(server, method, path, body, token=bob), 404, "recall_not_found")
        with pytest.raises(ConnectionRefusedError, match=r"(?s)404 .*session_not_found"):
            Wire(server, f"sessions/{sid}/ws", token=bob)
        stream = {"Accept": "text/event-stream"}
        refused(call(server, "GET", f"sessions/{sid}/events", token=bob, headers=stream), 404, "session_not_found")
        assert call(server, "GET", "sessions", token=bob).json["sessions"] == []
        assert call(server, "GET", "recalls", token=bob).json["recalls"] == []
        assert call(server, "GET", f"recalls?session_id={sid}", token=bob).json["recalls"] == []
        own = call(server, "POST", "sessions", {}, token=bob).json["id"]
        other_run = call(server, "GET", f"sessions/{own}/runs/{run_id}", token=bob)
        refused(other_run, 404, "run_not_found")
        assert (
            call(server, "POST", f"sessions/{own}/commands", {"type": "stop", "run_id": run_id}, token=bob).status
            == 202
        )
        follower = Follower(server, sid, after=head)
        assert follower.until_end(run_id)["event"]["outcome"] == {"type": "success"}, "bob stopped it"
        assert MARK not in json.dumps(log_of(server, sid))
        assert ok(server, "GET", f"recalls/{recall}")["status"] == "pending"
        follower.close()
    check_log(server)
