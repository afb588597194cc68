"""``navi.chat()``: what it displays, and its relay for pages that cannot reach the server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kernels import NotebookKernel
from tests.support.server import ROOT

pytestmark = pytest.mark.slow

MIME = "application/vnd.navi.session+json"


@pytest.fixture
def kernel(shared_kernel: NotebookKernel) -> NotebookKernel:
    """One kernel for all, each test with a session of its own."""
    shared_kernel.ok("%navi session new")
    return shared_kernel


@pytest.fixture
def comm_id(kernel: NotebookKernel) -> Iterator[str]:
    """A chat in a cell; the id of its widget."""
    kernel.ok("chat = navi.chat()")
    yield kernel.ok("print(chat.model_id)").stdout.strip()
    kernel.ok("chat.close()")


def exchange(kernel: NotebookKernel, comm_id: str, content: dict[str, Any], answer: str) -> dict[str, Any]:
    kernel.comm_send(comm_id, {"navi": 1, **content})
    return kernel.comm_receive(comm_id, answer)


def test_one_bundle_serves_every_kind_of_front_end(kernel: NotebookKernel) -> None:
    kernel.ok("%navi <b>hello</b>")
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    version = kernel.ok("print(navi.__version__)").stdout.strip()
    for cell in ("navi.chat()", "%navi chat"):
        data = kernel.ok(cell).last
        assert data[MIME] == {"session_id": session_id, "version": version}
        assert set(data["application/vnd.jupyter.widget-view+json"]) == {"version_major", "version_minor", "model_id"}
        assert "You: <b>hello</b>" in data["text/plain"]
        assert "&lt;b&gt;hello&lt;/b&gt;" in data["text/html"]


def test_a_chat_can_be_on_another_session(kernel: NotebookKernel) -> None:
    other = kernel.ok("%navi session new\nprint(navi.session().id)").stdout.splitlines()[-1]
    kernel.ok("%navi session new")
    assert kernel.ok(f"navi.chat(session={other!r})").last[MIME]["session_id"] == other
    assert "navi: " in kernel.run("navi.chat(session='s_none')").error


def test_the_widget_carries_the_small_loader_only(kernel: NotebookKernel, comm_id: str) -> None:
    size = int(kernel.ok("print(len(str(chat._esm)))").stdout)
    assert 0 < size <= 3072
    assert kernel.ok("print(chat.session_id == navi.session().id)").stdout == "True\n"


def test_the_relay_hands_out_the_bundle(kernel: NotebookKernel, comm_id: str) -> None:
    answer = exchange(kernel, comm_id, {"m": "get_bundle"}, "bundle")
    assert answer["text"].encode() == gzip.decompress((ROOT / "navi_jupyter/static/navi-single.js.gz").read_bytes())
    assert "import(" not in answer["text"], "there is nothing beside it that could be loaded"


def test_the_relay_carries_a_whole_conversation(kernel: NotebookKernel, comm_id: str) -> None:
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    opened = exchange(kernel, comm_id, {"m": "open", "conn": "c1", "session_id": session_id, "after": None}, "opened")
    assert opened["conn"] == "c1"
    assert "MESSAGES_SNAPSHOT" in kernel.comm_receive(comm_id, "frame")["data"]
    prompt = json.dumps({"type": "prompt", "text": "What can you do?", "command_id": "p1"})
    kernel.comm_send(comm_id, {"navi": 1, "m": "send", "conn": "c1", "data": prompt})
    seen = ""
    while "RUN_FINISHED" not in seen:
        seen += kernel.comm_receive(comm_id, "frame")["data"]
    assert '"accepted"' in seen
    assert "TEXT_MESSAGE_CONTENT" in seen


def test_the_relay_goes_on_while_a_cell_is_busy(kernel: NotebookKernel, comm_id: str) -> None:
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    exchange(kernel, comm_id, {"m": "open", "conn": "c1", "session_id": session_id, "after": 0}, "opened")
    body = {"type": "prompt", "text": "count to 20", "command_id": "p2"}
    kernel.client.execute("import time\nfor _ in range(40): time.sleep(.05)\nprint('cell ended')")
    kernel.server.request("POST", f"navi/api/sessions/{session_id}/commands", body)
    frames: list[str] = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=20)
        content = message["content"]
        if message["msg_type"] == "stream" and "cell ended" in content["text"]:
            break
        if message["msg_type"] == "comm_msg" and content["data"].get("content", {}).get("m") == "frame":
            frames.append(content["data"]["content"]["data"])
    assert "RUN_FINISHED" in "".join(frames), "all of it came before the cell ended"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "GET", "path": "sessions/{sid}"}, 200),
        ({"method": "GET", "path": "sessions/{sid}/events?after=0&limit=5"}, 200),
        ({"method": "GET", "path": "recalls?session_id={sid}"}, 200),
        ({"method": "GET", "path": "health"}, 200),
        ({"method": "GET", "path": "sessions/s_none"}, 404),
        ({"method": "POST", "path": "recalls", "body": {"session_id": "x"}}, 400),
        ({"method": "GET", "path": "models"}, 200),
        ({"method": "GET", "path": "profiles"}, 200),
        ({"method": "GET", "path": "tools"}, 200),
        ({"method": "GET", "path": "usage"}, 200),
        ({"method": "GET", "path": "mcp"}, 200),
        ({"method": "GET", "path": "memory?limit=5"}, 200),
        ({"method": "POST", "path": "memory", "body": {"text": "They like short answers."}}, 201),
        ({"method": "DELETE", "path": "memory/f_none"}, 404),
        ({"method": "POST", "path": "attachments?name=x"}, 403),
        ({"method": "GET", "path": "openapi.json"}, 403),
        ({"method": "GET", "path": "modelsandmore"}, 403),
        ({"method": "GET", "path": "sessions/../openapi.json"}, 403),
        ({"method": "GET", "path": "memory/..%2fopenapi.json"}, 403),
        ({"method": "GET", "path": "sessions/%2e%2e/openapi.json"}, 403),
        ({"method": "GET", "path": "/sessions"}, 403),
        ({"method": "GET", "path": "http://example.org/"}, 403),
        ({"method": "PUT", "path": "sessions"}, 403),
        ({"method": "GET"}, 403),
    ],
)
def test_the_relay_carries_what_a_chat_asks_for_and_nothing_else(
    kernel: NotebookKernel, comm_id: str, request_: dict[str, Any], status: int
) -> None:
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    if "path" in request_:
        request_ = request_ | {"path": request_["path"].replace("{sid}", session_id)}
    answer = exchange(kernel, comm_id, {"m": "request", "id": 7, **request_}, "response")
    assert (answer["id"], answer["status"]) == (7, status)
    if status >= 400:
        assert answer["body"]["code"]


def test_the_oldest_connection_gives_way_to_a_new_one(kernel: NotebookKernel, comm_id: str) -> None:
    """Pages that are reloaded do not say goodbye."""
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    for number in range(16):
        content = {"m": "open", "conn": f"c{number}", "session_id": session_id, "after": 0}
        assert exchange(kernel, comm_id, content, "opened")["conn"] == f"c{number}"
    gone = exchange(kernel, comm_id, {"m": "open", "conn": "new", "session_id": session_id, "after": 0}, "closed")
    assert gone["conn"] == "c0"
    assert kernel.comm_receive(comm_id, "opened")["conn"] == "new"


def test_what_can_not_be_opened_is_closed_with_a_code(kernel: NotebookKernel, comm_id: str) -> None:
    gone = exchange(kernel, comm_id, {"m": "open", "conn": "x", "session_id": "s_none", "after": 0}, "closed")
    assert (gone["conn"], gone["code"]) == ("x", 4404)
    bad = exchange(kernel, comm_id, {"m": "open", "conn": "y", "session_id": 5}, "closed")
    assert bad["code"] == 4400


def test_messages_that_mean_nothing_are_dropped(kernel: NotebookKernel, comm_id: str) -> None:
    for content in ({"m": "nonsense"}, {}, {"m": "send", "conn": "none", "data": "x"}, {"m": "open"}):
        kernel.comm_send(comm_id, {"navi": 1, **content})
    kernel.comm_send(comm_id, {"navi": 2, "m": "get_bundle"})
    assert exchange(kernel, comm_id, {"m": "request", "id": 1, "method": "GET", "path": "sessions"}, "response")


def test_closing_the_widget_closes_its_connections(kernel: NotebookKernel, comm_id: str) -> None:
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    exchange(kernel, comm_id, {"m": "open", "conn": "c1", "session_id": session_id, "after": 0}, "opened")
    followers = lambda: kernel.server.get("navi/api/health")["followers"]  # noqa: E731
    kernel.server.wait_for(lambda: followers() == 1)
    kernel.ok("chat.close()")
    kernel.server.wait_for(lambda: followers() == 0)
