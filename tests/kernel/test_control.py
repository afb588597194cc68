"""What a user can say from a cell while a run asks, waits or goes on. A scripted model behind a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernels import NotebookKernel
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .conftest import PREPARE
from .test_magics import session_of

MODEL = "openai-chat:gpt-6.1-sol"


@contextmanager
def provider_of(*script: Reply) -> Iterator[ScriptedProvider]:
    """A scripted model on a loop of its own, so that a test may wait for a cell."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    provider = ScriptedProvider(*script)
    try:
        asyncio.run_coroutine_threadsafe(provider.__aenter__(), loop).result(20)
        yield provider
    finally:
        asyncio.run_coroutine_threadsafe(provider.__aexit__(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@pytest.fixture
def script() -> list[Reply]:
    return []


@pytest.fixture
def notebook(tmp_path: Path, script: list[Reply]) -> Iterator[tuple[JupyterServer, NotebookKernel, ScriptedProvider]]:
    """A server whose model is scripted, and the kernel of a notebook on it. The test fills the script."""
    with provider_of(Reply("unscripted")) as provider:
        provider.script = script
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        with JupyterServer(tmp_path / "server", env=env).start() as server:
            kernel = NotebookKernel(server, "work.ipynb")
            kernel.ok(PREPARE)
            yield server, kernel, provider
            kernel.close()


Notebook = tuple[JupyterServer, NotebookKernel, ScriptedProvider]


def ends(server: JupyterServer, session_id: str, run_id: str) -> Callable[[], bool]:
    def ended() -> bool:
        run = server.get(f"navi/api/sessions/{session_id}/runs/{run_id}")
        return run["status"] not in ("queued", "running", "waiting")

    return ended


def asked(server: JupyterServer, session_id: str) -> Callable[[], bool]:
    return lambda: bool(server.get(f"navi/api/sessions/{session_id}")["approvals"])


def test_a_tool_call_is_approved_from_a_cell_and_its_output_is_shown(notebook: Notebook, script: list[Reply]) -> None:
    server, kernel, _ = notebook
    script += [Reply(calls=(Call("run_code", {"code": "answer = 6 * 7\nprint('it is', answer)"}),)), Reply("Done.")]
    kernel.ok("r = %navi -b compute it")
    session = session_of(server, kernel)["id"]
    server.wait_for(asked(server, session))
    shown = kernel.ok("%navi approvals")
    assert "run_code" in shown.text
    assert "Approved" in kernel.ok("%navi approve -b").stdout
    run_id = kernel.ok("print(r.run_id)").stdout.strip()
    server.wait_for(ends(server, session, run_id))
    assert kernel.ok("print(answer)").stdout.strip() == "42"
    kernel.ok("import time\nfor _ in range(100):\n    if r.status == 'completed': break\n    time.sleep(0.1)")
    text = kernel.ok("r").text
    assert "it is 42" in text
    assert "Done." in text


def test_a_denial_and_its_reason_reach_the_model(notebook: Notebook, script: list[Reply]) -> None:
    server, kernel, provider = notebook
    script += [Reply(calls=(Call("run_code", {"code": "1/0"}),)), Reply("Then not.")]
    kernel.ok("r = %navi -b divide")
    session = session_of(server, kernel)["id"]
    server.wait_for(asked(server, session))
    assert "Denied" in kernel.ok("%navi deny never divide by zero").stdout
    run_id = kernel.ok("print(r.run_id)").stdout.strip()
    server.wait_for(ends(server, session, run_id))
    assert "never divide by zero" in str(provider.requests[-1].body)
    assert "No such question" in kernel.run("%navi approve").error


def test_interrupting_a_cell_that_waits_for_an_answer_leaves_the_run_waiting(
    notebook: Notebook, script: list[Reply]
) -> None:
    server, kernel, _ = notebook
    script += [Reply(calls=(Call("run_code", {"code": "x = 1"}),)), Reply("Done.")]
    kernel.ok("%navi status")
    session = session_of(server, kernel)["id"]

    interrupted: list[bool] = []

    def interrupt_when_it_asks(shown: Any) -> None:
        if "waiting for your answer" in shown.text and not interrupted:
            interrupted.append(True)  # once: a second one might hit the kernel after its cell
            kernel.interrupt()

    shown = kernel.run("%navi set x", seen=interrupt_when_it_asks)
    assert shown.status == "ok", shown.error
    (question,) = server.get(f"navi/api/sessions/{session}")["approvals"]
    assert question["tool"] == "run_code"
    kernel.ok("%navi approve --always")
    server.wait_for(lambda: not server.get(f"navi/api/sessions/{session}")["run"])
    assert server.get(f"navi/api/sessions/{session}")["allowed_tools"] == ["run_code"]


def test_a_running_answer_is_steered_from_another_cell(notebook: Notebook, script: list[Reply]) -> None:
    server, kernel, provider = notebook
    slow = Reply("Thinking ", "about it", calls=(Call("current_time", {}),), delay=0.3)
    script += [slow, Reply("In euros then.")]
    kernel.ok("r = %navi -b how much is it?")
    session = session_of(server, kernel)["id"]
    server.wait_for(lambda: bool(provider.requests))
    kernel.ok("s = %navi -b --mode steer in euros please")
    run_id = kernel.ok("print(r.run_id)").stdout.strip()
    server.wait_for(ends(server, session, run_id))
    assert "in euros please" in str(provider.requests[-1].body)
    kernel.ok("import time\nfor _ in range(100):\n    if s.status == 'completed': break\n    time.sleep(0.1)")
    assert kernel.ok("print(s.run_id == r.run_id, s.text)").stdout.strip() == "True In euros then."


def test_waiting_prompts_are_listed_edited_and_withdrawn(notebook: Notebook, script: list[Reply]) -> None:
    server, kernel, provider = notebook
    script += [Reply("slow ", *("x " for _ in range(20)), delay=0.2), Reply("second")]
    kernel.ok("a = %navi -b first")
    kernel.ok("b = %navi -b second, wrnog")
    kernel.ok("c = %navi -b third")
    shown = kernel.ok("q = navi.session().queue\nq").text
    assert "second, wrnog" in shown
    assert "third" in shown
    kernel.ok("navi.session().edit(q[0]['command_id'], 'second, right')")
    assert kernel.ok("%navi unqueue third").stdout == "Withdrawn: third\n"
    assert "second, right" in kernel.ok("%navi queue").text
    kernel.ok("%navi stop")
    session = session_of(server, kernel)["id"]
    run_id = kernel.ok("print(b.run_id)").stdout.strip()
    server.wait_for(ends(server, session, run_id))
    said = [str(request.body["messages"][-1]["content"]) for request in provider.requests]
    assert said[-1].endswith("second, right")
    assert not any("third" in text for text in said)


def test_what_was_spent_and_what_can_be_used_are_listed(notebook: Notebook, script: list[Reply]) -> None:
    _, kernel, _ = notebook
    script += [Reply("Hello.")]
    kernel.ok("%navi hello")
    assert "tokens" in kernel.ok("%navi usage").stdout
    tools = kernel.ok("%navi tools").text
    assert "run_code" in tools
    assert "ask" in tools
    assert "assistant" in kernel.ok("%navi profiles").text
    assert MODEL in kernel.ok("%navi models").text
    assert "No MCP server" in kernel.ok("%navi mcp").text
