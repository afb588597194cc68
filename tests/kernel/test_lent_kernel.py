"""A kernel that is lent, seen from the server: what its runs know of it, what others may do, and what survives a death.

A scripted model behind a real server; what the cell shows and how code runs in it is tested in ``test_lending``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from tests.support.kernels import NotebookKernel, Shown
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .conftest import PREPARE
from .test_control import MODEL, provider_of
from .test_magics import session_of


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as scripted:
        yield scripted


@pytest.fixture
def server(tmp_path: Path, provider: ScriptedProvider) -> Iterator[JupyterServer]:
    """A server of the test's own, since it is killed, whose model is scripted and may do anything."""
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    profiles = tmp_path / "config" / "navi" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "trusted.toml").write_text(
        'description = "Asks nothing."\nextends = "assistant"\n[permissions]\n"*" = "allow"\n'
    )
    with JupyterServer(tmp_path, env=env | {"NAVI_DEFAULT_PROFILE": "trusted"}).start() as running:
        yield running


@pytest.fixture
def kernel(server: JupyterServer) -> Iterator[NotebookKernel]:
    opened = NotebookKernel(server, "work.ipynb")
    opened.ok(PREPARE)
    yield opened
    opened.close()


def runs(code: str, call_id: str = "c1") -> Reply:
    return Reply(calls=(Call("run_code", {"code": code}, id=call_id),))


def result(provider: ScriptedProvider, call_id: str = "c1", *, request: int = -1) -> str:
    """What the model got as the result of a call."""
    for message in provider.requests[request].body["messages"]:
        if message.get("role") == "tool" and message.get("tool_call_id") == call_id:
            content = message["content"]
            return content if isinstance(content, str) else json.dumps(content)
    raise AssertionError(f"no result of {call_id}")


def ok(shown: Shown) -> Shown:
    assert shown.status == "ok", shown.error or shown
    return shown


def test_the_instructions_have_the_variables_of_the_kernel_that_waits(
    kernel: NotebookKernel, provider: ScriptedProvider
) -> None:
    kernel.ok("frame_of_sales = [1, 2, 3]")
    provider.restart(Reply("I see."))
    ok(kernel.run("%navi what is there"))
    instructions = json.dumps(provider.requests[-1].body["messages"])
    assert "a cell of the user's waits for the answer" in instructions
    assert "frame_of_sales: list (3)" in instructions


def test_another_session_is_refused_while_the_cell_waits_and_not_afterwards(
    kernel: NotebookKernel, server: JupyterServer, provider: ScriptedProvider
) -> None:
    code = "print('begun', flush=True)\nimport os, time\nwhile not os.path.exists('go'): time.sleep(.02)"
    mine, theirs = "of the cell", "of the other session"
    provider.restart(
        Reply(calls=(Call("run_code", {"code": code}, id="mine"),), when=mine),
        Reply(calls=(Call("run_code", {"code": "1"}, id="t1"), Call("interrupt_kernel", {}, id="t2")), when=theirs),
        Reply("I was refused."),
        Reply("I am done."),
    )
    others: list[str] = []

    def ask_in_the_other_session(shown: Shown) -> None:
        if "begun" in shown.stdout and not others:
            # Only now: the kernel would take a newer session that names it for its own.
            others.append(server.request("POST", "navi/api/sessions", {"kernel_id": kernel.id})["id"])
            threading.Thread(target=run_other, daemon=True).start()

    def run_other() -> None:
        prompt(server, others[0], theirs)
        (server.root / "go").touch()

    ok(kernel.run(f"%navi {mine}", seen=ask_in_the_other_session))
    refused = next(
        request for request in provider.requests if any(m.get("tool_call_id") == "t1" for m in request.body["messages"])
    )
    answers = {m["tool_call_id"]: m["content"] for m in refused.body["messages"] if m.get("role") == "tool"}
    for answer in (str(answers["t1"]), str(answers["t2"])):
        assert "in another session" in answer
        assert "ask the user" not in answer
    provider.restart(runs("6 * 7"), Reply("Now I could."))
    prompt(server, others[0], "again")
    assert "42" in result(provider)


def prompt(server: JupyterServer, session_id: str, text: str) -> None:
    """Prompt as the chat does, and wait for the end of the run."""
    server.request("POST", f"navi/api/sessions/{session_id}/commands", {"type": "prompt", "text": text})
    server.wait_for(lambda: newest(server, session_id) not in ("", "queued", "running", "waiting"))


def newest(server: JupyterServer, session_id: str) -> str:
    """The status of the newest run; empty before the first."""
    found = server.get(f"navi/api/sessions/{session_id}/runs")["runs"]
    return str(found[0]["status"]) if found else ""


def test_the_agent_that_dies_with_the_kernel_it_works_in_says_so_in_the_chat(
    kernel: NotebookKernel, server: JupyterServer, provider: ScriptedProvider
) -> None:
    session = session_of(server, kernel)["id"]
    provider.restart(runs("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), Reply("The kernel died."))
    kernel.client.execute("%navi try this", allow_stdin=False)
    server.wait_for(lambda: newest(server, session) == "completed")
    assert "the kernel died while it ran" in result(provider)


def test_the_agent_restarts_the_kernel_of_the_cell_that_waits_and_goes_on(
    kernel: NotebookKernel, server: JupyterServer, provider: ScriptedProvider
) -> None:
    session = session_of(server, kernel)["id"]
    kernel.ok("x = 1")
    provider.restart(
        Reply(calls=(Call("restart_kernel", {}, id="c1"),)), runs("'x' in globals()", "c2"), Reply("It is fresh.")
    )
    kernel.client.execute("%navi restart it", allow_stdin=False)
    server.wait_for(lambda: newest(server, session) not in ("", "queued", "running"), within=40)
    assert newest(server, session) == "completed"
    assert "restarted" in result(provider, "c1")
    assert "False" in result(provider, "c2")


# --- a server that dies under a kernel which outlives it --------------------------------------------------------------


class OutsideKernel:
    """A kernel that another program has started, and its front end, without stdin."""

    def __init__(self, server: JupyterServer) -> None:
        self.manager = KernelManager()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JPY_", "NAVI_"))}
        env = kept | {"NAVI_SERVER_URL": server.url, "NAVI_TOKEN": server.token}
        self.manager.start_kernel(env=env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.shown = ""

    def begin(self, code: str, *, until: str) -> str:
        """Run a cell, until it has shown that; its request."""
        request = self.client.execute(code, allow_stdin=False)
        self._read(request, lambda: until in self.shown)
        return request

    def _read(self, request: str, enough: Callable[[], bool]) -> None:
        while not enough():
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            self.shown += content.get("text") or str(content.get("data", {}).get("text/plain", ""))
            self.shown += "\n".join(content.get("traceback", ()))
            if content.get("execution_state") == "idle":
                self.shown += "[idle]"

    def end(self, request: str) -> str:
        """What the cell has shown when it is over."""
        self._read(request, lambda: self.shown.endswith("[idle]"))
        shown, self.shown = self.shown, ""
        return shown

    def run(self, code: str) -> str:
        return self.end(self.client.execute(code, allow_stdin=False))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def outside(server: JupyterServer) -> Iterator[OutsideKernel]:
    opened = OutsideKernel(server)
    opened.run(PREPARE)
    yield opened
    opened.close()


def test_code_of_a_run_that_died_with_its_server_is_interrupted_and_the_cell_ends(
    outside: OutsideKernel, server: JupyterServer, provider: ScriptedProvider
) -> None:
    provider.restart(runs("print('begun', flush=True)\nimport time; time.sleep(600)"), Reply("never"))
    cell = outside.begin("%navi compute it", until="begun")
    server.kill9()
    server.start()
    shown = outside.end(cell)
    assert "KeyboardInterrupt" in shown
    assert "interrupted" in shown
    assert "quiet" in outside.run("import time; time.sleep(.5); print('quiet')")


def test_a_question_that_outlives_the_server_is_answered_and_its_code_runs_in_the_cell_that_still_waits(
    outside: OutsideKernel, server: JupyterServer, provider: ScriptedProvider
) -> None:
    outside.run("%navi profile assistant\nx = 1")  # which asks
    provider.restart(runs("x = 41\nprint('x is set')"), Reply("It is done."))
    session_id = outside.run("print('ID', navi.session().id)").split("ID ")[1].split()[0]
    cell = outside.begin("%navi set it", until="run_code")
    server.wait_for(lambda: bool(server.get(f"navi/api/sessions/{session_id}")["approvals"]))
    server.kill9()
    server.start()
    (question,) = server.get(f"navi/api/sessions/{session_id}")["approvals"]
    server.request(
        "POST",
        f"navi/api/sessions/{session_id}/commands",
        {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}},
    )
    shown = outside.end(cell)
    assert "x is set" in shown
    assert "It is done." in shown
    assert "42" in outside.run("print(x + 1)")
    assert not server.get("api/kernels")
