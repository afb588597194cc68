"""Questions of a run in the cell that waits for it: typed, answered elsewhere, shown by a page. All of it real."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.kernel.questions import BUTTONS_WITHIN
from tests.support.kernels import NotebookKernel, Shown
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .conftest import PREPARE
from .test_control import MODEL, provider_of
from .test_magics import session_of

MIME = "application/vnd.navi.question+json"
EVERYTHING = Path(__file__).parents[1] / "agent" / "mcp" / "everything.py"
DOORS = {
    "line": "%navi write it",
    "cell": "%%navi\nwrite it",
    "function": "navi.ask('write it');",
    "awaited": "r = await navi.ask_async('write it')",
}


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as provider:
        yield provider


@pytest.fixture(scope="module")
def server(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    home = tmp_path_factory.mktemp("asking")
    config = home / "config" / "navi" / "mcp.json"
    config.parent.mkdir(parents=True)
    servers = {"everything": {"command": sys.executable, "args": [str(EVERYTHING)]}}
    config.write_text(json.dumps({"mcpServers": servers}))
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    with JupyterServer(home, env=env).start() as running:
        yield running


@pytest.fixture
def play(provider: ScriptedProvider) -> Callable[..., None]:
    """``play(Reply(…), …)``: what the model answers from now on, request by request."""

    def begin(*script: Reply) -> None:
        provider.requests.clear()
        provider._turn = 0
        provider.script = list(script)

    return begin


@pytest.fixture
def kernel(open_kernel: Callable[..., NotebookKernel]) -> NotebookKernel:
    fresh = open_kernel()
    fresh.ok(PREPARE)
    fresh.ok("%navi session new")
    return fresh


def writes(name: str, text: str = "x") -> Call:
    return Call("write_file", {"path": name, "content": text}, id=f"c-{name}")


def no_prompt(prompt: str) -> str:
    raise AssertionError(f"asked at a prompt: {prompt}")


def asked(server: JupyterServer, session_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"navi/api/sessions/{session_id}")["approvals"]
    return found


def answer(server: JupyterServer, session_id: str, question: dict[str, Any], payload: Any) -> None:
    body = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": payload}
    server.request("POST", f"navi/api/sessions/{session_id}/commands", body)


@pytest.mark.parametrize("door", DOORS)
def test_a_question_is_answered_at_the_prompt_of_the_cell_that_waits(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None], door: str
) -> None:
    play(Reply(calls=(writes(f"{door}.txt", door),)), Reply("It is written."))
    shown = kernel.run(DOORS[door], typed=lambda _: "y")
    assert shown.status == "ok", shown.error
    assert shown.prompts == ["Allow write_file? [y]es / [n]o / [a]lways: "]
    assert (server.root / f"{door}.txt").read_text() == door
    plain = [bundle["text/plain"] for bundle in shown.bundles.values()]
    assert f"[Wrote {door}.txt]" in plain
    assert any(text.startswith("[Allowed in a cell, ") for text in plain)
    assert "It is written." in plain[-1]
    open_ones = [bundle for bundle in shown.history if MIME in bundle]
    assert f"{door}.txt" in open_ones[0]["text/plain"]
    assert not any(MIME in bundle for bundle in shown.bundles.values())


def test_a_denial_has_its_reason_and_what_is_unclear_is_asked_again(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None], provider: ScriptedProvider
) -> None:
    play(Reply(calls=(writes("never.txt"),)), Reply("Then not."))
    lines = iter(["", "perhaps", "n not in this folder"])
    shown = kernel.run("%navi write it", typed=lambda _: next(lines))
    assert shown.status == "ok", shown.error
    assert len(shown.prompts) == 3
    assert not (server.root / "never.txt").exists()
    assert "not in this folder" in str(provider.requests[-1].body)
    assert "[Was not allowed to write never.txt]" in shown.text


def test_several_questions_are_asked_one_by_one_and_always_answers_equal_ones(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("one.txt"), writes("two.txt"))), Reply("Both."))
    shown = kernel.run("%navi write both", typed=lambda _: "y")
    assert len(shown.prompts) == 2
    assert "Both." in shown.text
    play(
        Reply(calls=(writes("three.txt"), writes("four.txt"))),
        Reply("All."),
        Reply(calls=(writes("five.txt"),)),
        Reply("More."),
    )
    shown = kernel.run("%navi write two more", typed=lambda _: "always")
    assert len(shown.prompts) == 1
    assert "All." in shown.text
    assert "More." in kernel.run("%navi write one more", typed=no_prompt).text
    assert all((server.root / f"{name}.txt").exists() for name in ("one", "two", "three", "four", "five"))


def test_a_value_is_typed(kernel: NotebookKernel, play: Callable[..., None], provider: ScriptedProvider) -> None:
    play(Reply(calls=(Call("everything__delete", {"path": "old.csv"}),)), Reply("Gone."))
    lines = iter(["a", "perhaps", "yes"])
    shown = kernel.run("%navi delete it", typed=lambda _: next(lines))
    assert shown.status == "ok", shown.error
    assert shown.prompts[0].startswith("Allow everything__delete?")
    assert "Delete old.csv?" in shown.prompts[1]
    assert "yes or no" in shown.prompts[2]
    assert "deleted old.csv" in str(provider.requests[-1].body)


@pytest.mark.parametrize("door", ["line", "awaited"])
def test_an_answer_from_elsewhere_ends_the_prompt(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None], door: str
) -> None:
    play(Reply(calls=(writes("elsewhere.txt"),)), Reply("Done."))
    session = session_of(server, kernel)["id"]

    def from_the_chat(_: str) -> None:
        (question,) = asked(server, session)
        answer(server, session, question, {"approved": True})

    shown = kernel.run(DOORS[door], typed=from_the_chat)
    assert shown.status == "ok", shown.error
    assert len(shown.prompts) == 1
    assert "Done." in shown.text
    # What is typed for that prompt afterwards answers nothing.
    kernel.client.input("y")
    play(Reply(calls=(writes("later.txt"),)), Reply("Not done."))
    shown = kernel.run(DOORS[door], typed=lambda _: "n")
    assert not (server.root / "later.txt").exists()


def test_what_a_page_shows_with_buttons_is_not_asked_at_a_prompt(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("button.txt"),)), Reply("Done."))
    session = session_of(server, kernel)["id"]
    drawn: list[str] = []

    def draw(shown: Shown) -> None:
        for bundle in shown.history:
            if MIME in bundle and not drawn:
                about = bundle[MIME]
                assert about["session_id"] == session
                drawn.append(about["interrupt_id"])
                server.request("POST", f"navi/api/sessions/{session}/interrupts/{drawn[0]}/drawn", {})

    def press() -> None:
        server.wait_for(lambda: bool(drawn))
        time.sleep(2 * BUTTONS_WITHIN)  # a prompt would have been there by now
        answer(server, session, {"id": drawn[0]}, {"approved": True})

    person = threading.Thread(target=press)
    person.start()
    shown = kernel.run("%navi write it", seen=draw, typed=no_prompt)
    person.join()
    assert shown.status == "ok", shown.error
    assert "Done." in shown.text


def test_where_nothing_can_be_typed_a_line_has_where_it_is_answered(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("plain.txt"),)), Reply("Done."))
    session = session_of(server, kernel)["id"]
    answered: list[str] = []

    def from_the_chat(shown: Shown) -> None:
        if "waiting for your answer" in shown.text and not answered:
            answered.append(shown.text)
            answer(server, session, asked(server, session)[0], {"approved": True})

    shown = kernel.run("%navi write it", seen=from_the_chat)
    assert shown.status == "ok", shown.error
    assert f"{server.url}navi" in answered[0]
    assert "%navi approve" not in answered[0]
    assert "Done." in shown.text


def test_ctrl_c_at_the_prompt_stops_the_run(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("stopped.txt"),)), Reply("unwanted"))
    session = session_of(server, kernel)["id"]
    shown = kernel.run("%navi write it", typed=lambda _: kernel.interrupt())
    assert shown.status == "ok", shown.error
    server.wait_for(lambda: server.get(f"navi/api/sessions/{session}")["run"] is None)
    assert not asked(server, session)
    assert "stopped" in shown.text
    assert kernel.ok("print('well')").stdout == "well\n"
    assert not (server.root / "stopped.txt").exists()


def interrupted(kernel: NotebookKernel, code: str) -> Shown:
    """The cell's output when Ctrl-C was pressed while its run waited for an answer; nothing can be typed there."""
    done: list[bool] = []

    def when_it_asks(shown: Shown) -> None:
        if any(MIME in bundle for bundle in shown.history) and not done:
            done.append(True)  # once: a second one might hit the kernel after its cell
            kernel.interrupt()

    shown = kernel.run(code, seen=when_it_asks)
    assert shown.status == "ok", shown.error
    return shown


LATE = """
import time
from navi_jupyter.kernel.client import client

def late(service, *args, known=client.Service.command):
    acceptance = known(service, *args)
    time.sleep(1)  # the run is over before the cell knows that its answer was accepted
    return acceptance

client.Service.command = late
"""


@pytest.mark.parametrize(
    ("command", "word", "is_written"),
    [("approve", "Approved", True), ("approve --always", "Approved", True), ("deny not there", "Denied", False)],
)
def test_after_an_interrupt_the_run_goes_on_in_the_cell_that_answers(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None], command: str, word: str, is_written: bool
) -> None:
    play(Reply("Let me see. ", calls=(writes("next.txt"),)), Reply("And so it ends."))
    (server.root / "next.txt").unlink(missing_ok=True)
    shown = interrupted(kernel, "%navi write it")
    assert "%navi approve" in shown.text  # now another cell can run
    assert any(MIME in bundle for bundle in shown.bundles.values())  # and a page still has its buttons
    kernel.ok(LATE)
    shown = kernel.ok(f"%navi {command}")
    assert word in shown.stdout
    assert "And so it ends." in shown.text
    assert not any("And so it ends." in str(message["content"]) for message in kernel._aside)  # in this cell only
    assert "Let me see." not in shown.text
    assert "next.txt]" in shown.text
    assert (server.root / "next.txt").exists() is is_written


@pytest.mark.parametrize("command", ["%navi approve -b", None])
def test_after_an_interrupt_an_answer_without_waiting_or_by_a_button_goes_on_in_the_first_cell(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None], command: str | None
) -> None:
    play(Reply("Let me see. ", calls=(writes("first.txt"),)), Reply("And so it ends."))
    interrupted(kernel, "%navi write it")
    session = session_of(server, kernel)["id"]
    if command:
        assert "Approved" in kernel.ok(command).stdout
    else:
        answer(server, session, asked(server, session)[0], {"approved": True})
    kernel.next_update(lambda data: "And so it ends." in data.get("text/plain", ""))


def test_b_answers_without_waiting_and_what_else_is_open_is_asked_where_one_waits(
    server: JupyterServer, kernel: NotebookKernel, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("left.txt"), writes("right.txt"))), Reply("Both."))
    interrupted(kernel, "%navi write both")
    assert "2 questions are open" in kernel.run("%navi approve").error
    shown = kernel.run("%navi approve 1", typed=lambda _: "y")
    assert shown.status == "ok", shown.error
    assert len(shown.prompts) == 1
    assert "Both." in shown.text
    session = session_of(server, kernel)["id"]
    play(Reply(calls=(writes("behind.txt"),)), Reply("Behind."))
    interrupted(kernel, "%navi write it")
    shown = kernel.ok("%navi approve -b")
    assert "Approved" in shown.stdout
    assert "Behind." not in shown.text
    server.wait_for(lambda: server.get(f"navi/api/sessions/{session}")["run"] is None)
    assert (server.root / "behind.txt").exists()


def test_a_question_that_expires_is_shown_as_that_and_ends_its_prompt(
    tmp_path: Path, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("late.txt"),)), Reply("Then not."))
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    server = JupyterServer(tmp_path / "server", env=env)
    with server.start(args=["--NaviExtension.approval_timeout=3"]):
        kernel = NotebookKernel(server)
        kernel.ok(PREPARE)
        shown = kernel.run("%navi write it", typed=lambda _: None)
        assert shown.status == "ok", shown.error
        assert len(shown.prompts) == 1
        assert "[Expired without an answer]" in shown.text
        assert "Then not." in shown.text
        assert not (server.root / "late.txt").exists()
        kernel.close()


def test_in_a_terminal_the_question_is_asked_below_what_would_be_done(
    server: JupyterServer, play: Callable[..., None]
) -> None:
    pty = pytest.importorskip("pty")  # a terminal of our own, where there are such
    play(Reply(calls=(writes("terminal.txt"),)), Reply("It is written."))
    ours, theirs = pty.openpty()
    env = {**server.env(), "NAVI_SERVER_URL": server.url, "NAVI_TOKEN": server.token, "TERM": "dumb"}
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=nocolor"]
    with subprocess.Popen(
        command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as shell:
        os.close(theirs)
        screen = ""

        def until(text: str) -> None:
            nonlocal screen
            while text not in screen:
                readable, _, _ = select.select([ours], [], [], 40)
                if not readable:
                    shell.kill()
                assert readable, screen
                screen += os.read(ours, 65536).decode(errors="replace")

        for line, then in (
            ("%load_ext navi_jupyter", "In [2]:"),
            ("%navi write it", "Allow write_file? [y]es / [n]o / [a]lways:"),
            ("y", "It is written."),
        ):
            until("In [1]:")
            os.write(ours, f"{line}\n".encode())
            until(then)
        os.write(ours, b"exit\n")
        shell.wait(20)
        os.close(ours)
    assert screen.index("Path: terminal.txt") < screen.index("Allow write_file?")
    assert (server.root / "terminal.txt").exists()
