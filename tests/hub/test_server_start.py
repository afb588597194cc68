"""Runs of users whose servers are off: these are started through the Hub where a run needs them, and stopped again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client import log_of, new_session, ok, until
from tests.kernel.test_control import MODEL, provider_of
from tests.support.hub import Hub
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test

Started = tuple[Hub, ScriptedProvider]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A Hub whose service starts servers for recalls, and has a scripted model."""
    with provider_of() as provider:
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        env |= {"NAVI_START_SERVERS": "recalls", "NAVI_SERVER_IDLE_STOP": "3"}
        with Hub(tmp_path_factory.mktemp("hub"), env=env).start() as hub:
            yield hub, provider


def _recall(hub: Hub, name: str, **policy: Any) -> tuple[Any, str, dict[str, Any]]:
    service = hub.user(name).at_service()
    sid = new_session(service, allowed_tools=["run_code"])
    body = {"session_id": sid, "message": "go", "schedule": {"kind": "once", "in": "1s"}, "policy": policy}
    return service, sid, ok(service, "POST", "recalls", body)


def _statuses(events: list[Any]) -> list[str]:
    return [one["event"]["value"]["status"] for one in events if one["event"].get("name") == "navi.kernel"]


def _ended(service: Any, recall: dict[str, Any]) -> Any:
    until(lambda: ok(service, "GET", f"recalls/{recall['id']}")["status"] not in ("pending", "running"), 90)
    return ok(service, "GET", f"recalls/{recall['id']}/firings")["firings"][0]


def test_a_recall_starts_the_server_that_its_tool_needs_and_it_is_stopped_again(started: Started) -> None:
    hub, provider = started
    provider.restart(Reply(calls=(Call("run_code", {"code": "print(6 * 7)"}),)), Reply("done"))
    service, sid, recall = _recall(hub, "alice")
    assert _ended(service, recall)["status"] == "succeeded"
    events = log_of(service, sid)
    assert _statuses(events)[:2] == ["server_starting", "server_ready"]
    (result,) = [one["event"]["content"] for one in events if one["event"]["type"] == "TOOL_CALL_RESULT"]
    assert "42" in result
    ready = next(one for one in events if one["event"].get("value", {}).get("status") == "server_ready")
    first = next(one for one in events if one["seq"] > ready["seq"] and "42" in json.dumps(one["event"]))
    print("from the server's readiness to the first output:", ready["ts"], first["ts"])
    assert hub.user("alice").servers()
    until(lambda: not hub.user("alice").servers(), 60)


def test_a_recall_that_needs_none_starts_none(started: Started) -> None:
    hub, provider = started
    provider.restart(Reply(calls=(Call("run_code", {"code": "1"}),)), Reply("done"))
    service, sid, recall = _recall(hub, "bob", needs="none")
    assert _ended(service, recall)["status"] == "succeeded"
    assert not hub.user("bob").servers()
    (result,) = [one["event"]["content"] for one in log_of(service, sid) if one["event"]["type"] == "TOOL_CALL_RESULT"]
    assert "run_code" in result, "there is no such tool then"


def test_a_recall_that_needs_the_kernel_starts_the_server_first(started: Started) -> None:
    hub, provider = started
    provider.restart(Reply("without any tool"))
    service, sid, recall = _recall(hub, "carol", needs="kernel")
    assert _ended(service, recall)["status"] == "succeeded"
    kinds = [one["event"]["type"] for one in log_of(service, sid)]
    assert _statuses(log_of(service, sid))[:2] == ["server_starting", "server_ready"]
    assert kinds.index("CUSTOM") < kinds.index("TEXT_MESSAGE_START")


def test_a_prompt_starts_none_by_this_setting(started: Started) -> None:
    hub, provider = started
    provider.restart(Reply(calls=(Call("run_code", {"code": "1"}),)), Reply("done"))
    service = hub.user("dave").at_service()
    sid = new_session(service, allowed_tools=["run_code"])
    run = ok(service, "POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "go"})["run_id"]
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed", 60)
    time.sleep(0.5)
    assert not hub.user("dave").servers()


def test_a_server_is_not_stopped_under_a_prompt_and_one_just_stopped_is_started(started: Started) -> None:
    """Also a run that may not have it started uses it. Its link, which has just broken, is no server."""
    hub, provider = started
    provider.restart(Reply("done"))
    service, sid, recall = _recall(hub, "erin", needs="kernel")
    assert _ended(service, recall)["status"] == "succeeded"
    code = "import time; time.sleep(9); print('slept')"  # longer than the service waits until it stops the server
    provider.restart(Reply(calls=(Call("run_code", {"code": code}),)), Reply("done"))
    run = ok(service, "POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "go"})["run_id"]
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed", 60)
    results = [one["event"]["content"] for one in log_of(service, sid) if one["event"]["type"] == "TOOL_CALL_RESULT"]
    assert "slept" in results[-1]
    until(lambda: not hub.user("erin").servers(), 60)
    provider.restart(Reply(calls=(Call("run_code", {"code": "print(6 * 7)"}),)), Reply("done"))
    service, sid, recall = _recall(hub, "erin")
    assert _ended(service, recall)["status"] == "succeeded"
    results = [one["event"]["content"] for one in log_of(service, sid) if one["event"]["type"] == "TOOL_CALL_RESULT"]
    assert "42" in results[-1]


def test_a_server_that_its_user_has_come_to_is_not_stopped(started: Started) -> None:
    hub, provider = started
    provider.restart(Reply("without any tool"))
    service, _, recall = _recall(hub, "erin", needs="kernel")
    assert _ended(service, recall)["status"] == "succeeded"
    place = hub.user("erin").start_server()  # it runs: its address
    until(lambda: bool(new_session(place)) and "server_left_to_its_user server=erin" in hub.log_tail(2000), 40, every=1)
    time.sleep(4)
    assert hub.user("erin").servers()
