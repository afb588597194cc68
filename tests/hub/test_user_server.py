"""A user's server with ``navi hub``: it sends everything there, for its user alone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.client import Answer, Follower, Wire, call, new_session, ok, prompt, until
from tests.support.hub import Hub, Place
from tests.support.kernels import NotebookKernel


def _headers(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@pytest.fixture(scope="module")
def server(hub: Hub) -> Iterator[Place]:
    """Alice's server."""
    user = hub.user("alice")
    yield user.start_server()
    user.stop_server()


def test_what_is_done_in_the_users_server_is_kept_by_the_service(hub: Hub, server: Place) -> None:
    service = hub.user("alice").at_service()
    sid = new_session(server, title="made in the server")
    assert ok(service, "GET", f"sessions/{sid}")["owner"] == "alice"
    run = prompt(service, sid, "say hello")["run_id"]
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
    assert not list(server.home.rglob("navi.db")), "the server keeps nothing itself"


def test_errors_are_those_of_the_service(server: Place) -> None:
    for method, path, status, code in (
        ("GET", "sessions/nope", 404, "session_not_found"),
        ("GET", "nope", 404, "not_found"),
        ("PUT", "sessions", 405, "method_not_allowed"),
        ("POST", "sessions", 400, "invalid_request"),
    ):
        answer = call(server, method, path, {"wrong": 1} if method == "POST" else None)
        assert (answer.status, answer.json["code"]) == (status, code)
    with pytest.raises(ConnectionRefusedError, match="404"):
        Wire(server, "sessions/nope/ws")


def test_a_socket_of_the_server_follows_accepts_and_stops(hub: Hub, server: Place) -> None:
    sid = new_session(server)
    service = hub.user("alice").at_service()
    with_server, with_service = Follower(server, sid).connected(), Follower(service, sid).connected()
    answer, _ = with_server.answer({"type": "prompt", "text": "count slowly to 500"})
    run = answer["accepted"]["run_id"]
    for each in (with_server, with_service):
        each.until(lambda one: one["event"]["type"] == "RUN_STARTED")
    with_server.answer({"type": "stop"})
    for each in (with_server, with_service):
        each.until(lambda one: one["run_id"] == run and one["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR"))
    assert [one["seq"] for one in with_server.seen] == [one["seq"] for one in with_service.seen]
    for each in (with_server, with_service):
        each.close()
    rejected = Wire(server, f"sessions/{sid}/ws").answer({"type": "nonsense", "command_id": "c"})
    assert rejected["rejected"]["command_id"] == "c"


def test_event_streams_uploads_and_downloads_go_through(server: Place) -> None:
    sid = new_session(server)
    content = bytes(range(256)) * 8000  # 2 MB
    made = call(server, "POST", f"sessions/{sid}/attachments", raw=content, headers={"Content-Type": "text/plain"})
    if made.status >= 400:
        made = call(server, "POST", "attachments", raw=content, headers={"Content-Type": "image/png"})
    assert made.status in (201, 400), made.body
    exported = call(server, "GET", f"sessions/{sid}/export?format=json")
    assert exported.status == 200
    assert "attachment" in _headers(exported)["content-disposition"]
    etag = _headers(call(server, "GET", "openapi.json"))["etag"]
    assert call(server, "GET", "openapi.json", headers={"If-None-Match": etag}).status == 304


def test_a_visitor_with_access_to_the_server_is_refused(hub: Hub, server: Place) -> None:
    """Servers can be shared. With the server's token, a visitor would act as its user at the service."""
    visitor = Place(hub, server.base_url, hub.admin_token)  # it has access to all servers
    answer = call(visitor, "GET", "sessions")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert "alice" in answer.json["message"]
    with pytest.raises(ConnectionRefusedError, match="403"):
        Wire(visitor, "notebooks/ws")


def test_a_cell_asks_through_the_users_server(hub: Hub, server: Place) -> None:
    kernel = NotebookKernel(server, "work.ipynb")
    shown = kernel.run("%load_ext navi_jupyter\n%navi what time is it")
    assert shown.status == "ok", (shown.stderr, shown.error, hub.log_tail())
    assert "UTC" in shown.text
    sessions = ok(hub.user("alice").at_service(), "GET", "sessions")["sessions"]
    assert any(session["notebook_path"] == "work.ipynb" for session in sessions)


def test_without_the_service_it_says_so_and_goes_on_when_the_service_is_back(hub: Hub, server: Place) -> None:
    sid = new_session(server)
    follower = Follower(server, sid).connected()
    process = hub.service_process()
    process.send_signal(signal.SIGKILL)
    answer = until(lambda: (it := call(server, "GET", "sessions")).status == 503 and it)
    assert answer.json["code"] == "not_ready"
    assert "service" in answer.json["message"]
    health = call(server, "GET", "health")
    assert health.status in (200, 503)  # the Hub starts it again at once
    assert json.loads(health.body)["status"] in ("failed", "starting", "ok")
    until(lambda: call(server, "GET", "health").status == 200)
    run = prompt(server, sid, "say hello")["run_id"]
    follower.until(lambda one: one["run_id"] == run and one["event"]["type"] == "RUN_FINISHED")
    assert [one["seq"] for one in follower.seen] == list(range(1, len(follower.seen) + 1))
    follower.close()
