"""Runs of the service use the kernel, notebook and files of the user's server, over its link."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pytest

from navi_jupyter.clock import boot_time
from navi_jupyter.server.bench.channel import GRACE
from tests.e2e.client import Follower, Wire, call, log_of, new_session, ok, prompt, until
from tests.support.balancer import InTurns
from tests.support.hub import Hub, Place, ScriptedHub
from tests.support.kernels import NotebookKernel
from tests.support.providers import Call, Reply, ScriptedProvider

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test

Bench = tuple[Hub, Place, ScriptedProvider, InTurns]


@pytest.fixture(scope="module")
def bench(scripted_hub: ScriptedHub) -> Bench:
    """Alice's server at that Hub."""
    hub, provider, way = scripted_hub
    return hub, hub.user("alice").start_server(), provider, way


def _answered(server: Place, sid: str, text: str = "go", within: float = 60.0) -> list[dict[str, object]]:
    """The events of a run."""
    run = prompt(server, sid, text)["run_id"]
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{run}")["status"] in ("completed", "failed"), within)
    return [one["event"] for one in log_of(server, sid) if one["run_id"] == run]


def _results(events: list[dict[str, object]]) -> list[str]:
    return [str(one["content"]) for one in events if one["type"] == "TOOL_CALL_RESULT"]


def _outputs(server: Place, sid: str) -> list[object]:
    return [one["event"] for one in log_of(server, sid) if one["event"]["type"] == "ACTIVITY_DELTA"]


def _session(server: Place, **fields: object) -> str:
    tools = ["run_code", "edit_cell", "insert_cell", "run_cell", "write_file", "interrupt_kernel", "restart_kernel"]
    return new_session(server, allowed_tools=tools, **fields)


def test_tools_reach_the_kernel_the_notebook_and_the_files(bench: Bench) -> None:
    hub, server, provider, _ = bench
    kernel = NotebookKernel(server, "tools.ipynb")
    kernel.ok("of_alice = 41")
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (server.home / "tools.ipynb").write_text(json.dumps(notebook))
    sid = _session(server, notebook_path="tools.ipynb")
    provider.restart(
        Reply(calls=(Call("run_code", {"code": "print(of_alice + 1)"}),)),
        Reply(calls=(Call("insert_cell", {"source": "of_navi = of_alice * 2"}, id="call_2"),)),
        Reply(calls=(Call("list_variables", {}, id="call_3"),)),
        Reply(calls=(Call("write_file", {"path": "made.txt", "content": "by navi\n"}, id="call_4"),)),
        Reply("done"),
    )
    service = hub.user("alice").at_service()
    events = _answered(service, sid)  # at the service's own page, too
    ran, inserted, variables, wrote = _results(events)
    assert "42" in ran
    assert json.loads((server.home / "tools.ipynb").read_text())["cells"][0]["source"] in (
        "of_navi = of_alice * 2",
        ["of_navi = of_alice * 2"],
    ), inserted
    assert "of_alice" in variables
    assert (server.home / "made.txt").read_text() == "by navi\n", wrote
    outputs = [one for one in events if one["type"] == "ACTIVITY_DELTA"]
    assert "42" in json.dumps(outputs), "what it prints is in the log as it comes"
    kernel.close()


def test_a_stop_reaches_the_cell(bench: Bench) -> None:
    hub, server, provider, _ = bench
    kernel = NotebookKernel(server, "stop.ipynb")
    sid = _session(server, kernel_id=kernel.id)
    code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
    provider.restart(Reply(calls=(Call("run_code", {"code": code}),)), Reply("done"))
    follower = Follower(hub.user("alice").at_service(), sid).connected()
    follower.answer({"type": "prompt", "text": "go"})
    follower.until(lambda one: one["event"]["type"] == "ACTIVITY_DELTA" and "begun" in json.dumps(one["event"]))
    began = time.monotonic()
    follower.answer({"type": "stop"})
    follower.until(lambda one: one["event"].get("name") == "navi.stop" and one["event"]["value"]["action"] == "reached")
    took = time.monotonic() - began
    reached = [one["event"]["value"] for one in follower.seen if one["event"].get("name") == "navi.stop"][-1]
    assert "interrupted" in reached["message"], reached
    kernel.ok("after = 1")
    print(f"stop to interrupted: {took:.2f} s")
    follower.close()
    kernel.close()


def test_a_link_that_breaks_goes_on_with_what_it_had(bench: Bench) -> None:
    hub, server, provider, way = bench
    kernel = NotebookKernel(server, "link.ipynb")
    sid = _session(server, kernel_id=kernel.id)
    code = "import time\nfor i in range(40):\n    print('line', i, flush=True)\n    time.sleep(0.1)"
    provider.restart(Reply(calls=(Call("run_code", {"code": code}),)), Reply("done"))
    service = hub.user("alice").at_service()
    run = prompt(service, sid, "go")["run_id"]
    for line in ("line 5", "line 15"):
        until(lambda line=line: line in json.dumps(log_of(service, sid)))  # type: ignore[misc]
        way.cut()
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed", 60)
    result = _results([one["event"] for one in log_of(service, sid) if one["run_id"] == run])[0]
    lines = [line for line in result.splitlines() if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(40)]
    kernel.close()


def test_code_goes_on_while_a_link_is_away_for_almost_as_long_as_it_may(bench: Bench) -> None:
    """The kernel sees until when its server may act: as long as the link may come back, whenever it was used last."""
    hub, server, provider, way = bench
    service = hub.user("alice").at_service()
    silent = Wire(service, "bench", timeout=30)
    kernel = NotebookKernel(server, "away.ipynb")
    sid = _session(server, kernel_id=kernel.id)
    code = "import time\nprint('begun', flush=True)\ntime.sleep(17)\nprint('went on')"
    provider.restart(Reply(calls=(Call("run_code", {"code": code}),)), Reply("done"))
    run = prompt(service, sid, "go")["run_id"]
    until(lambda: any("begun" in json.dumps(one) for one in _outputs(service, sid)))
    (lease,) = (server.home / "runtime").glob("navi-*.lease")
    left = []
    for _ in range(60):
        left.append(float(lease.read_text().split()[0]) - boot_time())
        time.sleep(0.1)
    assert min(left) >= GRACE, "also where nothing is sent"
    way.cut(refusing=5.0)
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed", 60)
    assert "went on" in _results([one["event"] for one in log_of(service, sid) if one["run_id"] == run])[0]
    with pytest.raises(ConnectionError, match="no hello"):
        silent.read()
    kernel.close()


def test_a_name_of_a_server_that_is_none_is_not_kept(bench: Bench) -> None:
    hub, _, _, _ = bench
    service = hub.user("alice").at_service()
    for given in ("%00", "a%0Ab", "x" * 300):
        made = call(service, "POST", "sessions", {"title": "named"}, headers={"Navi-Server": given})
        assert (made.status, made.json["server"]) == (201, "")


def test_the_service_that_dies_leaves_no_cell_running(bench: Bench) -> None:
    hub, server, provider, _ = bench
    kernel = NotebookKernel(server, "dies.ipynb")
    sid = _session(server, kernel_id=kernel.id)
    code = "import time\nticks = []\nfor _ in range(300):\n    ticks.append(time.time())\n    time.sleep(0.1)"
    provider.restart(Reply(calls=(Call("run_code", {"code": code}),)), Reply("done"))
    run = prompt(server, sid, "go")["run_id"]
    until(lambda: "TOOL_CALL_END" in json.dumps(log_of(server, sid)))
    time.sleep(1.0)
    hub.service_process().send_signal(signal.SIGKILL)
    killed = time.time()
    until(lambda: call(server, "GET", "health").status == 200, 60)
    until(lambda: ok(server, "GET", f"sessions/{sid}/runs/{run}")["status"] == "interrupted", 60)
    last = float(kernel.ok("print(ticks[-1])").text)
    assert last - killed < 12, "it is interrupted when the service does not come back for it"
    # And the next run uses the kernel again.
    provider.restart(Reply(calls=(Call("run_code", {"code": "print(len(ticks) > 1)"}),)), Reply("done"))
    assert "True" in str(_results(_answered(server, sid)))
    kernel.close()


def test_nothing_of_a_server_that_is_off_is_reached(bench: Bench) -> None:
    hub, _, provider, _ = bench
    bob = hub.user("bob").at_service()
    sid = _session(bob, notebook_path="work.ipynb")
    provider.restart(Reply(calls=(Call("run_code", {"code": "1"}),)), Reply("done"))
    (refused,) = _results(_answered(bob, sid))
    assert "none can be started here" in refused


def test_a_recall_executes_a_notebook_there(bench: Bench) -> None:
    hub, server, _, _ = bench
    code = {"cell_type": "code", "id": "c1", "source": "print(6 * 7)", "metadata": {}, "outputs": []}
    notebook = {"cells": [code | {"execution_count": None}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (server.home / "report.ipynb").write_text(json.dumps(notebook))
    service = hub.user("alice").at_service()
    sid = _session(service)
    made = ok(
        service,
        "POST",
        "recalls",
        {
            "session_id": sid,
            "schedule": {"kind": "once", "in": "1s"},
            "run": {"kind": "notebook", "path": "report.ipynb"},
        },
    )
    until(lambda: ok(service, "GET", f"recalls/{made['id']}")["status"] not in ("pending", "running"), 60)
    (result,) = ok(service, "GET", f"recalls/{made['id']}/results")["results"]
    assert (result["status"], result["exists"]) == ("completed", True), result
    assert "42" in (server.home / result["path"]).read_text()


def test_an_undo_at_the_service_changes_the_notebook(bench: Bench) -> None:
    hub, server, provider, _ = bench
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (server.home / "undo.ipynb").write_text(json.dumps(notebook))
    service = hub.user("alice").at_service()
    sid = _session(service, notebook_path="undo.ipynb")
    provider.restart(Reply(calls=(Call("insert_cell", {"source": "by_navi = 1"}),)), Reply("done"))
    _answered(service, sid)
    assert "by_navi" in (server.home / "undo.ipynb").read_text()
    run = ok(service, "GET", f"sessions/{sid}/runs")["runs"][0]["id"]
    assert len(ok(service, "POST", f"runs/{run}/undo", {})["undone"]) == 1
    assert "by_navi" not in (server.home / "undo.ipynb").read_text()
    mentions = ok(service, "GET", f"sessions/{sid}/mentions?query=undo")["mentions"]
    assert any("undo.ipynb" in one["token"] for one in mentions)


def test_a_page_with_unsaved_changes_makes_the_change(bench: Bench) -> None:
    """The page's socket is with its own server, the requests to it go through the service."""
    _, server, provider, _ = bench
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (server.home / "page.ipynb").write_text(json.dumps(notebook))
    sid = _session(server, notebook_path="page.ipynb")
    page = Wire(server, "notebooks/ws")
    page.send({"notebooks": [{"path": "page.ipynb", "unsaved": True}]})
    provider.restart(Reply(calls=(Call("insert_cell", {"source": "by_page = 1"}),)), Reply("done"))
    prompt(server, sid, "go")
    actions = []
    while "insert" not in actions:
        asked = page.read()
        route = f"sessions/{sid}/notebook-requests/{asked['request_id']}"
        change = ok(server, "POST", f"{route}/claim", {"unsaved": True})["change"]
        actions.append(change["action"])
        if change["action"] == "show":
            shown = {"path": "page.ipynb", "cells": [], "unsaved": True}
            ok(server, "POST", f"{route}/report", {"notebook": shown})
        else:
            cell = {"id": change["new_cell"]["id"], "index": 0, "type": "code", "source": "by_page = 1"}
            ok(server, "POST", f"{route}/report", {"cell": cell})
    until(lambda: "unsaved changes" in json.dumps(log_of(server, sid)))
    page.close()


def test_a_session_uses_the_server_that_its_notebook_was_used_in(bench: Bench) -> None:
    hub, server, provider, _ = bench
    code = "import os; print('at', repr(os.environ.get('JUPYTERHUB_SERVER_NAME', '')))"
    reply = Reply(calls=(Call("run_code", {"code": code}),))
    named = hub.user("alice").start_server("gpu")
    service = hub.user("alice").at_service()
    for place, name in ((named, "gpu"), (server, "")):
        sid = _session(place)
        assert ok(service, "GET", f"sessions/{sid}")["server"] == name
        provider.restart(reply, Reply("done"))
        assert f"at {name!r}" in _results(_answered(service, sid))[0]
    # A notebook that is opened in the other one.
    (server.home / "moves.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    found = [
        ok(one, "POST", "sessions/find", {"notebook_path": "moves.ipynb", "create": True}) for one in (server, named)
    ]
    assert [one["session"]["server"] for one in found] == ["", "gpu"]
    assert found[0]["session"]["id"] == found[1]["session"]["id"]


def test_a_server_that_is_killed_ends_its_calls(bench: Bench) -> None:
    hub, server, provider, _ = bench
    kernel = NotebookKernel(server, "killed.ipynb")
    sid = _session(server, kernel_id=kernel.id)
    provider.restart(Reply(calls=(Call("run_code", {"code": "import time; time.sleep(60)"}),)), Reply("done"))
    service = hub.user("alice").at_service()
    run = prompt(service, sid, "go")["run_id"]
    until(lambda: "TOOL_CALL_END" in json.dumps(log_of(service, sid)))
    time.sleep(1.0)
    for process in psutil.process_iter(["cmdline", "username"]):
        line = " ".join(process.info["cmdline"] or ())
        if "jupyterhub.singleuser" in line and psutil.Process(process.pid).cwd() == str(server.home):
            for each in (*process.children(recursive=True), process):  # its kernels would live on
                each.kill()
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed", 40)
    (result,) = _results([one["event"] for one in log_of(service, sid) if one["run_id"] == run])
    assert "lost" in result, result
    kernel.client.stop_channels()
