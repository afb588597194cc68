"""Where there is no notebook: IPython in a terminal, and plain Python."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow


def run(server: JupyterServer, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """A program that is told its server by the environment."""
    env = {**server.env(), "NAVI_SERVER_URL": server.url, "NAVI_TOKEN": server.token}
    return subprocess.run(
        [sys.executable, *arguments], env=env, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def test_in_a_terminal_the_answer_is_printed_once_as_plain_text(server: JupyterServer) -> None:
    cells = "%load_ext navi_jupyter\n%navi count to 12\n%navi recall in 5x look\n%navi recalls\nexit\n"
    done = run(server, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=nocolor", text=cells)
    assert done.stdout.count("9 10\n11 12") == 1
    assert "navi:" in done.stdout
    assert "not a duration" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "No recalls are waiting." in done.stdout


def test_in_a_program_ask_returns_the_reply_and_errors_are_exceptions(server: JupyterServer) -> None:
    code = (
        "import navi_jupyter as navi\n"
        "reply = navi.ask('count to 5')\n"
        "print(reply.status, '1 2 3 4 5' in reply.text)\n"
        "try: navi.session('s_none').messages\n"
        "except navi.NaviError as error: print(error.server_code)\n"
    )
    done = run(server, "-c", code)
    assert done.stdout == "completed True\nsession_not_found\n", done.stderr
