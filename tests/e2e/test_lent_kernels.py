"""Kernels that the server did not start: a cell of ``jupyter console`` or an executed notebook asks, and lends its own.

A scripted model behind a real server; the hosts are processes and libraries as users run them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pexpect
import pytest
from nbclient import NotebookClient

from tests.kernel.test_control import MODEL, provider_of
from tests.kernel.test_lending import given_back, runs, trust
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

PREPARE = "%load_ext navi_jupyter\nimport navi_jupyter as navi\n%navi profile trusted"
DATA = (
    "prices = [3, 4, 5]\n@navi.tool(effect='read')\ndef total(factor: int) -> int:\n    'The total.'\n"
    "    return factor * sum(prices)\n"
)
WAYS = ("%navi go on", "%%navi\ngo on", "r = navi.ask('go on')", "r = await navi.ask_async('go on')")


def answers(number: int) -> tuple[Reply, ...]:
    """What the model does for one prompt; what it runs and says has the number of that prompt."""
    look = Call("list_variables", {}, id=f"v{number}"), Call("inspect_variable", {"name": "prices"}, id=f"i{number}")
    return (
        Reply(calls=look),
        runs(f"print('sum', sum(prices) + {number})\nsum(prices) * 10 + {number}", f"c{number}"),
        Reply(calls=(Call("total", {"factor": 100 + number}, id=f"t{number}"),)),
        Reply(f"Answer {number}."),
    )


def check_model(provider: ScriptedProvider, number: int) -> None:
    """The model got what the kernel has."""
    assert "prices" in given_back(provider, f"v{number}")
    assert "[3, 4, 5]" in given_back(provider, f"i{number}")
    assert f"sum {12 + number}" in given_back(provider, f"c{number}")
    assert str(120 + number) in given_back(provider, f"c{number}")
    assert str(12 * (100 + number)) in given_back(provider, f"t{number}")


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as scripted:
        yield scripted


@pytest.fixture
def server(tmp_path: Path, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[JupyterServer]:
    """The server, to which this process's environment points the kernels that are started here."""
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    trust(tmp_path / "server")
    with JupyterServer(tmp_path / "server", env=env).start() as running:
        monkeypatch.setenv("NAVI_SERVER_URL", running.url)
        monkeypatch.setenv("NAVI_TOKEN", running.token)
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        for name in ("JPY_PARENT_PID", "JPY_SESSION_NAME", "NAVI_CONNECTION_FILE"):
            monkeypatch.delenv(name, raising=False)
        yield running


def test_an_executed_notebook_has_answers_and_outputs_of_code_that_ran_in_its_own_kernel(
    server: JupyterServer, provider: ScriptedProvider
) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (PREPARE, DATA, *WAYS, "print(_, Out[3])")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    provider.restart(*(reply for number in range(len(WAYS)) for reply in answers(number)))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert not server.get("api/kernels")
    check_model(provider, len(WAYS) - 1)
    for number, cell in enumerate(notebook.cells[2:-1]):
        outputs = [output for output in cell.outputs if output.get("data", {}).get("text/plain") != ""]
        assert cell.execution_count is not None
        streams = [output.text for output in outputs if output.output_type == "stream"]
        assert streams == [f"sum {12 + number}\n"]
        (result,) = [output for output in outputs if output.output_type == "execute_result"]
        assert result.data["text/plain"] == str(120 + number)
        assert f"Answer {number}." in outputs[-1].data["text/plain"]


class Console:
    """``jupyter console`` in a terminal."""

    def __init__(self, log: Path) -> None:
        env = {**os.environ, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "200"}
        command = ["-m", "jupyter_console", "--ZMQTerminalInteractiveShell.simple_prompt=True", "--simple-prompt"]
        self.terminal = pexpect.spawn(
            sys.executable, command, env=env, timeout=60, encoding="utf-8", dimensions=(50, 200)
        )
        self.terminal.logfile_read = log.open("w")
        self.terminal.expect(r"In \[1\]: ")

    def cell(self, source: str) -> str:
        """Run a line; what it showed."""
        self.terminal.sendline(source)
        self.terminal.expect(r"\r\nIn \[\d+\]: ")
        return str(self.terminal.before)

    def close(self) -> None:
        self.terminal.sendeof()
        time.sleep(0.2)
        self.terminal.close(force=True)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_jupyter_console_shows_the_answer_and_the_outputs_of_code_that_ran_in_its_kernel(
    server: JupyterServer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    pytest.importorskip("jupyter_console")
    console = Console(tmp_path / "console.log")
    try:
        for line in (*PREPARE.splitlines(), "prices = [3, 4, 5]"):
            console.cell(line)
        console.cell("total = navi.tool(lambda factor: factor * sum(prices), effect='read', name='total')")
        for number, way in enumerate(("%navi go on", "r = navi.ask('go on')", "r = await navi.ask_async('go on')")):
            provider.restart(*answers(number))
            shown = console.cell(way)
            check_model(provider, number)
            for words in (f"sum {12 + number}", str(120 + number), f"Answer {number}."):
                assert words in shown
            assert shown.index("sum") < shown.index("Answer")
    finally:
        console.close()
    assert not server.get("api/kernels")


def test_code_for_a_run_that_died_with_its_server_is_ended_by_the_kernel_itself(
    server: JupyterServer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    code = f"import pathlib, time\npathlib.Path({str(began)!r}).write_text('yes')\ntime.sleep(600)"
    provider.restart(runs(code), Reply("never"))
    sources = (PREPARE, "%navi go on", "print('and on')")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=100, kernel_name="python3", allow_errors=True)
    executing = threading.Thread(target=client.execute, daemon=True)
    executing.start()
    server.wait_for(began.exists)
    server.kill9()
    server.start()
    executing.join(90)
    assert not executing.is_alive()
    errors = [output.ename for output in notebook.cells[1].outputs if output.output_type == "error"]
    assert errors == ["KeyboardInterrupt", "RunDidNotComplete"]
    assert notebook.cells[2].outputs[0].text == "and on\n"
