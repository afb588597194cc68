"""A user's server with ``navi hub``: it sends everything there, for its user alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from navi_jupyter import __version__
from navi_jupyter.cli import findings
from navi_jupyter.server.transfers.unfinished import MOST_CONNECTIONS
from tests.e2e.client import Answer, Follower, Wire, call, new_session, ok, prompt, until
from tests.support.hub import Hub, Place
from tests.support.kernels import NotebookKernel
from tests.support.server import free_port

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


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


def of_server(hub: Hub, server: Place, token: str) -> dict[str, str]:
    """The environment of a terminal in the server, with this token as the server's."""
    return {
        "NAVI_HUB_SERVICE_URL": f"{hub.url}services/navi/",
        "JUPYTERHUB_API_TOKEN": token,
        "JUPYTERHUB_API_URL": hub.hub_api,
        "JUPYTER_RUNTIME_DIR": str(server.home / "runtime"),
    }


def test_the_doctor_examines_the_service_and_not_what_that_does_itself(hub: Hub, server: Place) -> None:
    env = {**hub.env(), **of_server(hub, server, hub.user("alice").token(["access:services!service=navi"])[0])}
    command = [sys.executable, "-m", "navi_jupyter.cli", "doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    found = {(one := json.loads(line))["check"]: one for line in done.stdout.splitlines()}
    assert not {"database", "attachments", "models", "agents", "notify"} & set(found)
    assert found["service"]["status"] == "ok", found["service"]
    assert f"{hub.url}services/navi answers the token of this server: Navi {__version__}" in found["service"]["text"]
    assert found["server"]["status"] == "ok", found["server"]


def test_the_doctor_says_what_is_in_the_way_to_the_service(
    hub: Hub, server: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examined(token: str) -> findings.Finding:
        for name, value in of_server(hub, server, token).items():
            monkeypatch.setenv(name, value)
        (found,) = findings.hub_service()
        return found

    found = examined(hub.user("alice").token(["access:servers!user"])[0])
    assert "it has no scope access:services!service=navi" in found.text
    assert "server_token_scopes" in str(found.fix)
    found = examined("0" * 32)
    assert (found.status, "so does the JupyterHub" in found.text) == ("fail", True)
    assert "JUPYTERHUB_API_TOKEN is not set" in examined("").text
    token = hub.user("alice").token(["access:services!service=navi"])[0]
    with monkeypatch.context() as older:
        older.setattr(findings, "__version__", "0.0.1")
        found = examined(token)
    assert (found.status, "this server has 0.0.1" in found.text) == ("warn", True)
    with monkeypatch.context() as away:
        away.setattr(hub, "port", free_port())
        assert "no answer came" in examined(token).text


def test_a_visitor_with_access_to_the_server_is_refused(hub: Hub, server: Place) -> None:
    """Servers can be shared. With the server's token, a visitor would act as its user at the service."""
    visitor = Place(hub, server.base_url, hub.admin_token)  # it has access to all servers
    answer = call(visitor, "GET", "sessions")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert "alice" in answer.json["message"]
    with pytest.raises(ConnectionRefusedError):  # 403, or 503 where the Hub's proxy does not pass that on in time
        Wire(visitor, "notebooks/ws")


@pytest.mark.parametrize("way", ["service", "server"])
def test_a_page_of_another_users_server_opens_no_socket_for_a_visitor(hub: Hub, server: Place, way: str) -> None:
    """It is of the same domain, so the visitor's cookies are sent; what it cannot read is the token against forgery."""
    place = server if way == "server" else hub.user("alice").at_service()
    sid = new_session(place)
    mine = hub.user("alice").log_in(f"{place.base_url[1:]}navi").cookies(place.base_url)
    other = hub.user("bob").log_in("services/navi/").cookies("/services/navi/")["_xsrf"]  # signed by the same service
    browser = {"Origin": f"http://127.0.0.1:{hub.port}", "Cookie": "; ".join(f"{n}={v}" for n, v in mine.items())}
    planted = {**browser, "Cookie": f"_xsrf={other}; {browser['Cookie']}"}
    for path in (f"sessions/{sid}/ws?", "notebooks/ws?", f"kernels/k/loan?session_id={sid}&"):
        for secure in ({}, {"Sec-Fetch-Mode": "websocket"}):
            for headers, forged in ((browser, ""), (browser, f"_xsrf={other}"), (planted, f"_xsrf={other}")):
                with pytest.raises(ConnectionRefusedError, match="403"):
                    Wire(place, path + forged, headers={**headers, **secure})
            Wire(place, f"{path}_xsrf={mine['_xsrf']}", headers={**browser, **secure}).close()
    follower = Wire(place, f"sessions/{sid}/ws?after=0&_xsrf={mine['_xsrf']}", headers=browser)
    assert "accepted" in follower.answer({"type": "stop", "command_id": "c"})


@pytest.mark.parametrize("path", ["../../../hub/api/user", "%2e%2e/%2e%2e/%2e%2e/hub/api/user", "..%255c..%255chub"])
def test_no_address_but_navis_is_reached_with_the_servers_token(server: Place, path: str) -> None:
    """Straight at the server, as its kernels reach it: the Hub's proxy takes such parts out."""
    (file,) = server.home.joinpath("runtime").glob("navi-*.json")
    port = urlsplit(str(json.loads(file.read_text())["url"])).port
    connection = HTTPConnection("127.0.0.1", port or 80, timeout=30)
    connection.request("GET", f"{server.base_url}navi/api/{path}", headers={"Authorization": f"token {server.token}"})
    answer = connection.getresponse()
    assert (answer.status, b"not_found" in answer.read()) == (404, True)


def test_many_sockets_do_not_keep_requests_out(server: Place) -> None:
    wires = [Wire(server, "notebooks/ws") for _ in range(MOST_CONNECTIONS)]
    with pytest.raises(ConnectionRefusedError, match="429"):
        Wire(server, "notebooks/ws")
    assert call(server, "GET", "health").status == 200
    for each in wires:
        each.close()


def test_the_origin_of_mcp_is_looked_at_as_at_the_service(hub: Hub, server: Place) -> None:
    for one in (server, hub.user("alice").at_service()):
        headers = {"Authorization": f"token {one.token}", "Origin": "http://elsewhere.example"}
        request = urllib.request.Request(f"{one.url}navi/mcp", data=b"{}", headers=headers)
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(request, timeout=30)


def test_a_cell_asks_through_the_users_server(hub: Hub, server: Place) -> None:
    kernel = NotebookKernel(server, "work.ipynb")
    shown = kernel.run("%load_ext navi_jupyter\n%navi what time is it")
    assert shown.status == "ok", (shown.stderr, shown.error, hub.log_tail())
    assert "UTC" in shown.text
    kernel.ok("of_alice = 41")
    shown = kernel.run("%navi what variables are there")
    assert "of_alice" in shown.text, "the cell lends its kernel to the service while it waits"
    busy = new_session(server)
    prompt(server, busy, "count slowly to 500")
    shown = kernel.run(
        "import navi_jupyter as navi\n@navi.tool\ndef g(x: int) -> int:\n    'Doubles.'\n    return 2 * x"
    )
    assert "not offered" not in shown.stderr, "also while a run is in progress"
    ok(server, "POST", f"sessions/{busy}/commands", {"type": "stop"})
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
