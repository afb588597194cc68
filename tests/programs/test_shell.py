"""``navi ask``, ``follow``, ``sessions`` and ``recalls``: what a person and a job do with them in a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from navi_jupyter.text import printable
from tests.e2e.client import until
from tests.e2e.obedient import call, tell
from tests.support.server import JupyterServer

HELD = {"text": "Wait.", "hold": True}
NAVI = [sys.executable, "-m", "navi_jupyter.cli"]
Shell = Callable[..., subprocess.CompletedProcess[str]]


def write(path: str, content: str = "from a shell\n") -> dict[str, Any]:
    """A call that asks first."""
    return call("write_file", path=path, content=content)


@pytest.fixture
def shell(server: JupyterServer) -> Shell:
    """``navi`` with these words, in the environment of the server's user."""

    def run(*words: str, typed: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*NAVI, *words],
            env=server.env() | env,
            input=typed,
            stdin=subprocess.DEVNULL if typed is None else None,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def newest(server: JupyterServer) -> dict[str, Any]:
    return dict(server.get("navi/api/sessions?limit=1")["sessions"][0])


def test_the_answer_alone_is_on_standard_output_and_nothing_in_it_acts_on_a_terminal(shell: Shell) -> None:
    done = shell("ask", tell("The loss \x1b[31mis\x07 flat."))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, printable("The loss \x1b[31mis\x07 flat."), "")
    done = shell("ask", "--json", tell("All \x1b[31mgood."))
    accepted, *events, result = lines(done)
    assert "\x1b" not in done.stdout
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert {event["run_id"] for event in events} == {accepted["accepted"]["run_id"]}
    assert (result["result"]["status"], result["result"]["text"], result["result"]["exit"]) == (
        "completed",
        "All \x1b[31mgood. ",
        0,
    )


def test_standard_input_is_the_prompt_or_goes_along_as_a_file(shell: Shell, server: JupyterServer) -> None:
    assert shell("ask", "-", typed=tell("From a pipe.")).stdout.strip() == "From a pipe."
    done = shell("ask", "--model", "offline", "hello", "-", typed="1,2,3\n")
    assert done.returncode == 0, done.stderr
    messages = server.get(f"navi/api/sessions/{newest(server)['id']}/messages")["messages"]
    assert messages[0]["content"] == "hello"
    assert [each["name"] for each in messages[0]["attachments"]] == ["stdin.txt"]


def test_without_a_terminal_a_question_is_left_to_a_chat_or_refused(shell: Shell, server: JupyterServer) -> None:
    done = shell("ask", tell([write("left.txt", "a\x1b[2Jb\n")], "Written."))
    sid = newest(server)["id"]
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{server.url}navi?session={sid}" in done.stderr
    assert "left.txt" in done.stderr
    assert "a⟨U+001B⟩[2Jb" in done.stderr, "all that would happen is shown, and does nothing"
    queued = shell("ask", "--session", sid, tell("Later."))
    assert (queued.returncode, queued.stdout) == (3, "")
    assert "withdrawn" in queued.stderr
    (question,) = server.get(f"navi/api/sessions/{sid}")["approvals"]
    answer = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}}
    server.request("POST", f"navi/api/sessions/{sid}/commands", answer)
    until(lambda: (server.root / "left.txt").exists())
    done = shell("ask", "--approve", "never", tell([write("never.txt")], "Then not."))
    assert (done.returncode, done.stdout.strip(), (server.root / "never.txt").exists()) == (0, "Then not.", False)
    result = lines(shell("ask", "--json", tell([write("json.txt")])))[-1]["result"]
    assert (result["status"], result["exit"], [each["kind"] for each in result["questions"]]) == (
        "waiting",
        3,
        ["approval"],
    )


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_at_a_terminal_questions_are_asked_there_and_one_that_a_chat_answers_is_not_waited_for(
    server: JupyterServer,
) -> None:
    terminal = Terminal(server, "ask", tell([write("typed.txt")], [write("chat.txt")], "Both."))
    terminal.expect("Allow write_file? [y]es / [n]o / [a]lways: ")
    terminal.type("perhaps\n")
    terminal.expect("Type y, n or a")
    terminal.type("y\n")
    terminal.expect("chat.txt")
    terminal.expect("[a]lways: ")
    sid = newest(server)["id"]
    (question,) = until(lambda: server.get(f"navi/api/sessions/{sid}")["approvals"])
    answer = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}}
    server.request("POST", f"navi/api/sessions/{sid}/commands", answer)
    assert (terminal.wait(), terminal.output().strip()) == (0, "Both.")
    assert (server.root / "typed.txt").exists()
    assert (server.root / "chat.txt").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_the_end_of_a_job_stop_the_run(server: JupyterServer, number: int, status: int) -> None:
    process = start(server, "ask", tell(HELD))
    assert process.stdout is not None
    assert process.stdout.read(5) == b"Wait."
    process.send_signal(number)
    assert process.wait(60) == status
    (run,) = server.get(f"navi/api/sessions/{newest(server)['id']}/runs")["runs"]
    assert run["status"] == "stopped"


def test_a_time_limit_stops_the_run_and_a_reader_that_goes_away_does_not(shell: Shell, server: JupyterServer) -> None:
    done = shell("ask", "--timeout", "2s", tell(HELD))
    assert (done.returncode, done.stdout.strip()) == (124, "Wait.")
    (run,) = server.get(f"navi/api/sessions/{newest(server)['id']}/runs")["runs"]
    assert run["status"] == "stopped"
    process = start(server, "ask", tell(" ".join(["word"] * 3000)))
    assert process.stdout is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(60) == 141
    sid = newest(server)["id"]
    until(lambda: server.get(f"navi/api/sessions/{sid}/runs")["runs"][0]["status"] == "completed")


def test_what_cannot_be_done_is_one_line_and_an_exit_status(shell: Shell, server: JupyterServer) -> None:
    failed = shell("ask", tell({"status": 401}))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("navi: the run failed (")
    for words, status, message in (
        (("ask",), 2, "nothing to ask"),
        (("ask", "--timeout", "soon", "x"), 2, "--timeout"),
        (("ask", "--session", "no such session", "x"), 1, "navi sessions shows them"),
        (("follow", "s_000000000000000000000000"), 1, ""),
        (("recalls", "show", "none"), 1, "No recall is called 'none'"),
        (("recalls", "add", "check", "the", "loss"), 2, "navi recalls add in 10m check the loss"),
        (("sessions", "--token", "wrong"), 1, "send a token"),
    ):
        done = shell(*words)
        assert (done.returncode, done.stdout) == (status, ""), words
        assert message in done.stderr, words
        assert len(done.stderr.splitlines()) == 1, done.stderr
    done = shell("sessions", "--json", "--token", "wrong")
    assert lines(done)[0]["error"]["code"] == "refused"
    assert shell("ask", "--no-such-option").returncode == 2
    elsewhere = shell("sessions", JUPYTER_RUNTIME_DIR=str(server.home / "nowhere"))
    assert elsewhere.returncode == 2
    assert "--url" in elsewhere.stderr


def test_sessions_are_listed_found_shown_exported_and_deleted_by_their_whole_name(
    shell: Shell, server: JupyterServer
) -> None:
    assert (
        shell("ask", "--title", "A quokka", "--allow", "write_file", tell([write("q.txt")], "Quokka.")).returncode == 0
    )
    sid = newest(server)["id"]
    assert sid in [each["id"] for each in lines(shell("sessions", "--json"))]
    assert "A quokka" in shell("sessions").stdout
    assert [each["id"] for each in lines(shell("sessions", "search", "--json", "quokka"))] == [sid]
    shown = shell("sessions", "show", "A quok")
    assert "Navi: Quokka." in shown.stdout
    assert sid in shown.stdout
    target = server.home / "quokka.md"
    assert shell("sessions", "export", "A quokka", "-o", str(target)).returncode == 0
    assert "Quokka." in target.read_text()
    assert shell("sessions", "export", "A quokka", "-o", str(target)).returncode == 2
    assert shell("sessions", "export", "A quokka").stdout.strip() == target.read_text().strip()
    assert shell("sessions", "delete", "A quok").returncode == 2
    assert lines(shell("sessions", "delete", "--json", "A quokka")) == [{"deleted": sid}]
    assert shell("sessions", "show", sid).returncode == 1


def test_recalls_are_made_as_in_a_cell_and_managed(shell: Shell, server: JupyterServer) -> None:
    sid = server.request("POST", "navi/api/sessions", {"title": "Recalled"})["id"]
    made = shell("recalls", "add", "--json", "--session", "Recalled", "cron", "0 9 * * 1-5", "check the loss")
    (recall,) = lines(made)
    assert (recall["session_id"], recall["schedule"]["expr"], recall["message"]) == (
        sid,
        "0 9 * * 1-5",
        "check the loss",
    )
    english = lines(shell("recalls", "add", "--json", "--session", sid, "every friday at 16:00", "--", "report"))[0]
    assert (english["message"], english["schedule"]["kind"]) == ("report", "cron")
    listed = shell("recalls", "list", "--session", sid).stdout
    assert "check the loss" in listed
    assert "report" in listed
    assert lines(shell("recalls", "pause", "--json", recall["id"]))[0]["status"] == "paused"
    assert lines(shell("recalls", "resume", "--json", "check the"))[0]["status"] == "pending"
    assert shell("recalls", "fire", "check the loss").returncode == 0
    until(lambda: server.get(f"navi/api/recalls/{recall['id']}/firings")["firings"][0]["status"] == "succeeded")
    (firing,) = lines(shell("recalls", "ledger", "--json", recall["id"]))
    assert firing["kind"] == "manual"
    assert "manual" in shell("recalls", "ledger", recall["id"]).stdout
    assert lines(shell("recalls", "cancel", "--json", recall["id"]))[0]["status"] == "cancelled"
    assert [each["id"] for each in lines(shell("recalls", "--json", "--session", sid))] == [english["id"]]


def test_a_session_is_followed_from_a_cursor_and_live_until_ctrl_c(server: JupyterServer) -> None:
    sid = server.request("POST", "navi/api/sessions", {"title": "Followed"})["id"]
    watched = start(server, "follow", "Followed", "--after", "0", "--json")
    read = start(server, "follow", sid)
    asked = subprocess.run(
        [*NAVI, "ask", "--session", sid, tell("It \x1b[2J is.")], env=server.env(), capture_output=True, check=True
    )
    assert asked.stdout.strip() == printable("It \x1b[2J is.").encode()
    head = server.get(f"navi/api/sessions/{sid}")["head_seq"]
    events = [json.loads(line) for line in through(watched, f'"seq": {head},')]
    log = server.get(f"navi/api/sessions/{sid}/events?limit=1000")["events"]
    assert [each["seq"] for each in events] == [each["seq"] for each in log][: len(events)]
    text = "".join(through(read, "⟩[2J is."))
    assert "You: Please." in text
    # Live, or of the snapshot where the run began or ended before this command followed.
    assert "Navi: It ⟨U+001B⟩[2J is." in text.replace("Navi:\n", "Navi: ")
    for process in (watched, read):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_help_is_quick_because_nothing_of_the_client_or_the_server_is_imported() -> None:
    heavy = {"asyncio", "tornado", "pydantic", "IPython", "jupyter_server", "jupyter_core"}
    code = (
        "import sys, navi_jupyter.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("ask", "follow", "sessions", "recalls"):
        assert name in done.stdout


def start(server: JupyterServer, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    """The command, running."""
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **more}
    process = subprocess.Popen([*NAVI, *words], env=server.env(), **given)
    # A test that fails leaves none behind.
    timer = threading.Timer(100, process.kill)
    timer.daemon = True
    timer.start()
    return process


def through(process: subprocess.Popen[bytes], text: str) -> list[str]:
    """The lines of its output up to the one with that text."""
    assert process.stdout is not None
    found: list[str] = []
    while not found or text not in found[-1]:
        line = process.stdout.readline().decode()
        assert line, found
        found.append(line)
    return found


class Terminal:
    """A command at a terminal: questions and notes on it, the answer in a pipe."""

    def __init__(self, server: JupyterServer, *words: str) -> None:
        self._ours, theirs = os.openpty()
        self._process = start(server, *words, stdin=theirs, stderr=theirs)
        os.close(theirs)
        self._shown = b""

    def expect(self, text: str) -> None:
        """Return once it is shown; what is before it counts no more."""
        while text.encode() not in self._shown:
            piece = b""
            with suppress(OSError):  # its end was closed
                piece = os.read(self._ours, 4096)
            assert piece, self._shown
            self._shown += piece
        self._shown = self._shown.partition(text.encode())[2]

    def type(self, text: str) -> None:
        """As on a keyboard."""
        os.write(self._ours, text.encode())

    def output(self) -> str:
        """Its standard output, to the end."""
        assert self._process.stdout is not None
        return self._process.stdout.read().decode()

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(60)
