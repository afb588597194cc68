"""Recalls for events of kernels and files: watched in the user's server, kept and run by the service."""

from __future__ import annotations

import json
import queue
import signal
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest

from tests.e2e.client import Wire, call, log_of, new_session, ok, until
from tests.support.balancer import InTurns
from tests.support.hub import Hub, Place, ScriptedHub
from tests.support.kernels import NotebookKernel
from tests.support.providers import Reply, ScriptedProvider

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


class World:
    """Erin's server and the service."""

    def __init__(self, hub: Hub, provider: ScriptedProvider, way: InTurns) -> None:
        self.hub, self.provider, self.way = hub, provider, way
        self.server = hub.user("erin").start_server()
        self.service = hub.user("erin").at_service()
        provider.restart(Reply("noted"))

    def recall(self, sid: str, event: str, **fields: Any) -> str:
        """A new recall, watched when its kernel can be."""
        body = {"session_id": sid, "message": f"on {event}", "schedule": {"kind": "when", "event": event, **fields}}
        return str(ok(self.service, "POST", "recalls", body)["id"])

    def read_by_the_model(self) -> str:
        return json.dumps([request.body for request in self.provider.requests])

    def firings(self, recall: str) -> list[dict[str, Any]]:
        return list(ok(self.service, "GET", f"recalls/{recall}/firings")["firings"])

    def fired(self, recall: str, within: float = 30.0) -> None:
        """Wait until it has run once, and nothing of it is left."""
        until(lambda: [one["status"] for one in self.firings(recall)] == ["succeeded"], within, every=0.01)


@pytest.fixture(scope="module")
def world(scripted_hub: ScriptedHub) -> World:
    return World(*scripted_hub)


@pytest.fixture
def kernel(world: World) -> Iterator[NotebookKernel]:
    opened = NotebookKernel(world.server, f"{time.time_ns()}.ipynb")
    yield opened
    opened.close()


def _ended(kernel: NotebookKernel, request: str) -> float:
    """When the cell has ended."""
    while True:
        try:
            message = kernel.client.get_iopub_msg(timeout=40)
        except queue.Empty:
            raise AssertionError("the cell did not end") from None
        idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
        if idle and message["parent_header"].get("msg_id") == request:
            return time.monotonic()


def test_a_cell_that_ends_wakes_its_recall_with_what_it_showed(world: World, kernel: NotebookKernel) -> None:
    sid = new_session(world.service, kernel_id=kernel.id)
    request = kernel.client.execute("import time\ntime.sleep(1.5)\nprint('the loss is', 6 * 7)")
    recall = world.recall(sid, "cell_done")
    ended = _ended(kernel, request)
    until(lambda: world.firings(recall), 30, every=0.01)
    took = time.monotonic() - ended
    print(f"end of the cell to firing: {took:.2f} s")
    assert took < 1.0
    world.fired(recall)
    assert "the loss is 42" in world.read_by_the_model()


def test_a_recall_that_a_cell_makes_about_itself_misses_nothing(world: World, kernel: NotebookKernel) -> None:
    kernel.ok("%load_ext navi_jupyter")
    shown = kernel.ok("recall = %navi recall when done, summarize it\nprint('all', 'of it')")
    recall = kernel.ok("print(recall.id)").text
    world.fired(recall, 5)
    assert "all of it" in world.read_by_the_model(), shown.text


def test_an_image_that_a_cell_shows_goes_along(world: World, kernel: NotebookKernel) -> None:
    sid = new_session(world.service, kernel_id=kernel.id)
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    shows = f"display(Image(base64.b64decode('{pixel}')))"
    code = f"import base64, time\nfrom IPython.display import Image, display\ntime.sleep(3)\n{shows}"  # watched by then
    kernel.client.execute(code)
    recall = world.recall(sid, "cell_done")
    world.fired(recall)
    assert "output-1.png" in json.dumps(log_of(world.service, sid))


def test_a_file_and_an_expression_wake_their_recalls(world: World, kernel: NotebookKernel) -> None:
    sid = new_session(world.service, kernel_id=kernel.id)
    kernel.ok("ready = False")
    of_file = world.recall(sid, "file_changed", path="result.csv", every="1s")
    of_expression = world.recall(sid, "expression", expr="ready", every="1s")
    assert not world.firings(of_file), "a service without files reports no trouble about them"
    (world.server.home / "result.csv").write_text("a,b\n")
    world.fired(of_file)
    kernel.ok("ready = True")
    world.fired(of_expression)
    assert "`result.csv` was created" in world.read_by_the_model()
    assert "cannot be looked at" not in json.dumps(log_of(world.service, sid))


@pytest.mark.parametrize("what", ["link", "service"])
def test_a_cell_that_ends_without_a_link_is_recorded_once(world: World, kernel: NotebookKernel, what: str) -> None:
    sid = new_session(world.service, kernel_id=kernel.id)
    request = kernel.client.execute(f"import time\ntime.sleep(2.5)\nprint('meanwhile', '{what}')")
    recall = world.recall(sid, "cell_done")
    if what == "service":
        time.sleep(0.5)
        world.hub.service_process().send_signal(signal.SIGKILL)
        _ended(kernel, request)
        until(lambda: call(world.service, "GET", "health").status == 200, 60)
    else:
        stop = time.monotonic() + 5.0
        while time.monotonic() < stop:
            world.way.cut()
            time.sleep(0.05)
    world.fired(recall, 40)
    time.sleep(0.5)
    assert [one["kind"] for one in world.firings(recall)] == ["event"]
    assert f"meanwhile {what}" in world.read_by_the_model()


def test_what_is_renamed_in_the_users_server_is_followed(world: World) -> None:
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (world.server.home / "before.ipynb").write_text(json.dumps(notebook))
    sid = new_session(world.service, notebook_path="before.ipynb")
    recall = world.recall(sid, "file_changed", path="before.ipynb", every="1s")
    stranger = world.hub.user("mallory").at_service()
    of_stranger = new_session(stranger, notebook_path="before.ipynb")
    world.server.request("PATCH", "api/contents/before.ipynb", {"path": "after.ipynb"})

    def path_of(place: Place, session: str) -> str | None:
        found = ok(place, "GET", f"sessions/{session}")
        return None if found["notebook_path"] is None else str(found["notebook_path"])

    until(lambda: path_of(world.service, sid) == "after.ipynb")
    assert ok(world.service, "GET", f"recalls/{recall}")["schedule"]["path"] == "after.ipynb"
    assert path_of(stranger, of_stranger) == "before.ipynb", "it is a file of another user"
    (world.server.home / "after.ipynb").write_text(json.dumps(notebook, indent=1))
    world.fired(recall)
    world.server.request("DELETE", "api/contents/after.ipynb")
    until(lambda: path_of(world.service, sid) is None)
    assert path_of(stranger, of_stranger) == "before.ipynb"


def test_a_link_is_of_one_user(world: World, kernel: NotebookKernel) -> None:
    sid = new_session(world.service, kernel_id=kernel.id, notebook_path="of-erin.ipynb")
    recall = world.recall(sid, "cell_done", cell="never")
    schedule = ok(world.service, "GET", f"recalls/{recall}")["schedule"]
    happened = {"recall_id": recall, "key": "forged", "at": "2026-01-01T00:00:00Z", "detail": "forged"}
    with _Link(world.hub.user("mallory").at_service()) as mallory:
        for method, args in {
            "record": {"happened": happened},
            "expire": {"happened": happened, "reason": "forged"},
            "report_failure": {"recall_id": recall, "reason": "forged"},
            "narrow": {"recall_id": recall, "before": schedule, "after": schedule},
        }.items():
            assert mallory.call(f"occurrences.{method}", args)["error"]["code"] == "recall_not_found", method
        assert mallory.call("occurrences.open_whens", {"owner": "erin"})["result"] == []
        assert mallory.call("session", {}, id=sid)["result"] is None
        image = {"content": "iVBORw0KGgo=", "name": "x.png", "media_type": "image/png", "owner": "erin"}
        assert mallory.call("attachments.add", image | {"session_id": sid})["error"]["code"] == "session_not_found"
        assert mallory.call("attachments.add", image)["error"]["code"] == "session_not_found"
        mallory.call("paths.follow", {}, source="of-erin.ipynb", target="taken.ipynb")
        mallory.call("paths.forget", {}, path="of-erin.ipynb")
        assert ok(world.service, "GET", f"sessions/{sid}")["notebook_path"] == "of-erin.ipynb"
        assert "method" in mallory.call("occurrences.user_wrote", {"session_id": sid})["error"]["message"]
    with _Link(world.service, server="other") as erin:  # another server of hers
        opens = erin.call("occurrences.open_whens", {})["result"]
        assert recall in [one["recall"]["id"] for one in opens]
        assert erin.call("session", {}, id=sid)["result"]["id"] == sid
        assert erin.call("kernel_elsewhere", {}, kernel_id=kernel.id, server="other")["result"] is True
        wider = {"recall_id": recall, "before": schedule, "after": {**schedule, "repeat": "each"}}
        assert "narrowed" in erin.call("occurrences.narrow", wider)["error"]["message"]
        assert "does not fit" in erin.call("occurrences.record", {})["error"]["message"]
    assert world.firings(recall) == []


@pytest.mark.slow
def test_a_kernel_that_ended_with_its_server_is_gone_when_the_server_is_back(world: World) -> None:
    kernel = NotebookKernel(world.server, "ended.ipynb")
    sid = new_session(world.service, kernel_id=kernel.id)
    recall = world.recall(sid, "cell_done")
    kernel.client.execute("import time\ntime.sleep(600)")
    until(lambda: ok(world.service, "GET", f"recalls/{recall}")["schedule"]["kernel_id"] == kernel.id)
    kernel.client.stop_channels()
    world.hub.user("erin").stop_server()
    assert world.firings(recall) == [], "a server that is off reports nothing"
    world.hub.user("erin").start_server()
    world.fired(recall, 60)
    assert "The kernel is gone" in world.read_by_the_model()


class _Link:
    """A link that a test opens by hand, as some program with a user's token could."""

    def __init__(self, place: Place, server: str = "") -> None:
        self._wire = Wire(place, "bench")
        self._sent = self._received = 0
        self._wire.send({"hello": {"bench": "by hand", "server": server, "received": {}, "attached": []}})
        self._wire.read()

    def call(self, method: str, args: dict[str, Any], **params: Any) -> dict[str, Any]:
        """The frame that ends the call."""
        self._sent += 1
        frame = {"type": "call", "id": self._sent, "method": method, "params": {"args": args, **params}}
        self._wire.send({"n": self._sent, "received": self._received, "frame": frame})
        while True:
            message = self._wire.read()
            self._received = message.get("n", self._received)
            answer = message.get("frame") or {}
            if answer.get("type") in ("result", "error") and answer["id"] == self._sent:
                return dict(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()
