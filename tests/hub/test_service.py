"""``navi hub`` as a service of a real JupyterHub, for users whose servers are off."""

from __future__ import annotations

import re
import time
import urllib.error
from datetime import datetime, timedelta
from threading import Thread
from typing import Any

import pytest

from navi_jupyter.server.hub_proxy.revocation import KNOWN_FOR
from navi_jupyter.server.rest import ROUTES
from tests.e2e.client import Wire, call, log_of, new_session, ok, prompt, until
from tests.support.hub import Hub, Place

NOT_THERE = (
    *("api/kernels", "api/contents", "api/contents/x.ipynb", "api/sessions", "api/kernelspecs", "api/terminals"),
    *("api/me", "api/status", "api/shutdown", "api/config/x", "api/nbconvert", "api/events/subscribe", "files/navi.db"),
    *("nbconvert/html/x.ipynb", "view/x.html", "tree", "lab", "terminals/1", "terminals/websocket/1", "edit/x"),
)

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


def status_of(place: Place, path: str, method: str = "GET") -> int:
    """Of a request outside of Navi's own routes."""
    try:
        place.request(method, path, {} if method == "POST" else None)
    except urllib.error.HTTPError as error:
        return error.code
    except ValueError:  # it is no JSON
        pass
    return 200


def test_a_recall_fires_at_most_a_second_late_while_the_users_server_is_off(hub: Hub) -> None:
    alice = hub.user("alice").at_service()
    sid = new_session(alice)
    body = {"session_id": sid, "message": "say hello", "schedule": {"kind": "once", "in": "2s"}}
    recall = ok(alice, "POST", "recalls", body)
    due = datetime.fromisoformat(recall["next_at"])

    def woken() -> Any:
        return [run for run in ok(alice, "GET", f"sessions/{sid}/runs")["runs"] if run["origin"]["kind"] == "recall"]

    (run,) = until(woken)
    late = datetime.fromisoformat(run["started_at"]) - due
    assert timedelta(0) <= late <= timedelta(seconds=1)
    assert hub.user("alice").servers() == {}
    until(lambda: woken()[0]["status"] == "completed")


def test_the_service_has_neither_kernels_nor_files_nor_terminals(hub: Hub) -> None:
    alice = hub.user("alice").at_service()
    assert {path: status_of(alice, path) for path in NOT_THERE} == dict.fromkeys(NOT_THERE, 404)
    assert {status_of(alice, path, "POST") for path in ("api/kernels", "api/terminals", "api/contents")} == {404}


def test_a_user_sees_nothing_of_another_on_any_route(hub: Hub) -> None:
    alice, bob = hub.user("alice").at_service(), hub.user("bob").at_service()
    secret = "the-secret-of-alice"
    sid = new_session(alice, title=secret)
    run = prompt(alice, sid, f"say {secret}")["run_id"]
    once = {"kind": "once", "in": "3h"}
    recall = ok(alice, "POST", "recalls", {"session_id": sid, "message": secret, "schedule": once})["id"]
    fact = ok(alice, "POST", "memory", {"text": secret})["id"]
    until(lambda: ok(alice, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
    message = next(each["event"]["messageId"] for each in log_of(alice, sid) if "messageId" in each["event"])
    known = {"sid": sid, "rid": recall, "run_id": run, "mid": message, "fid": fact, "id": sid}
    wrong = {}
    for operation in ROUTES.operations:
        path = re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], sid), operation.path)
        answer = call(bob, operation.method, path, None if operation.method in ("GET", "DELETE") else {})
        about_one = "{" in operation.path
        if secret.encode() in answer.body or (
            about_one and any(each in operation.path for each in ("{sid}", "{rid}")) and answer.status < 400
        ):
            wrong[operation.method, operation.path] = answer.status, answer.body[:200]
    assert wrong == {}
    with pytest.raises(ConnectionRefusedError, match="404"):
        Wire(bob, f"sessions/{sid}/ws")
    with pytest.raises(ConnectionRefusedError, match="404"):
        Wire(bob, f"kernels/k/loan?session_id={sid}")
    assert ok(alice, "GET", f"sessions/{sid}")["title"] == secret, "nothing of hers was changed"
    assert ok(alice, "GET", f"recalls/{recall}")["status"] == "pending"
    assert [each["id"] for each in ok(alice, "GET", "memory")["memory"]] == [fact]


def test_a_service_of_the_hub_is_no_user_but_reads_the_metrics_which_users_do_not(hub: Hub) -> None:
    place = Place(hub, "/services/navi/", hub.admin_token)  # it has access to the service
    assert call(place, "GET", "sessions").status == 403
    assert b"navi_" in hub.request("GET", "services/navi/metrics", raw=True)
    assert status_of(hub.user("alice").at_service(), "metrics") == 403


def test_nothing_of_the_services_machine_is_lent_to_users(hub: Hub) -> None:
    alice = hub.user("alice").at_service()
    models = [one["name"] for one in ok(alice, "GET", "models")["models"]]
    assert not [name for name in models if name.startswith("acp:")]
    refused = call(alice, "POST", "sessions", {"model": "acp:claude"})
    assert (refused.status, "This server runs no agent programs." in refused.json["message"]) == (409, True)
    stored = call(alice, "PUT", "providers/openai-chat", {"value": "sk-0123456789abcdef0123456789abcdef"})
    assert stored.status == 403, "the key of one would be everybody's"
    assert not ok(alice, "GET", "providers")["may_store"]
    inward = {"url": "https://127.0.0.1:8888/mcp"}
    assert call(alice, "PUT", "mcp/mine", inward).status == 400
    assert call(alice, "PUT", "mcp/mine", {"command": "sh"}).status == 400


def test_a_token_without_the_scope_of_the_service_is_refused(hub: Hub) -> None:
    token, _ = hub.user("alice").token(["access:servers!user"])
    assert call(Place(hub, "/services/navi/", token), "GET", "sessions").status == 403


@pytest.mark.slow
@pytest.mark.timeout(3 * KNOWN_FOR + 400)
@pytest.mark.parametrize("way", ["service", "server"])
def test_a_revoked_token_is_refused_and_its_socket_is_closed_soon(hub: Hub, way: str) -> None:
    user = hub.user("carol")
    through = user.start_server().base_url if way == "server" else "/services/navi/"
    token, token_id = user.token()
    place = Place(hub, through, token)
    sid = new_session(place)
    wire = Wire(place, f"sessions/{sid}/ws", timeout=2 * KNOWN_FOR + 30)
    ended: list[tuple[float, str]] = []

    def read_on() -> None:
        try:
            while True:
                wire.read()
        except OSError as error:
            ended.append((time.monotonic(), str(error)))

    reading = Thread(target=read_on, daemon=True)
    reading.start()
    user.revoke(token_id)
    revoked = time.monotonic()
    until(lambda: call(place, "GET", "sessions").status == 403, patience=60, every=1.0)
    assert time.monotonic() - revoked < 60
    reading.join(2 * KNOWN_FOR + 30)
    ((at, why),) = ended
    assert "log in again" in why
    assert at - revoked < 2 * KNOWN_FOR + 10


def test_the_page_is_at_the_address_of_the_service_after_a_login_at_the_hub(hub: Hub) -> None:
    visit = hub.user("dave").log_in("services/navi/")
    assert visit.url.startswith(f"{hub.url}services/navi/")
    assert "navi-sessions" in visit.content
    assert "/hub/user-redirect/lab/tree/" in visit.content, "a notebook is opened in the user's own server"
    listed = visit.read(f"{hub.url}services/navi/navi/api/sessions")
    assert b'"sessions"' in listed, "the login's cookie is all that the page needs"
