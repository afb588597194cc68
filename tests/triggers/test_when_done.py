"""``%navi recall when done …`` in a real kernel on a real server: before the long cell, and inside it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from navi_jupyter.navi_cells import is_navi_only_cell, only_makes_recalls
from tests.support.database import database_url, perform
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

PREPARE = "%load_ext navi_jupyter\nimport navi_jupyter as navi"
ASK = "%navi recall when done summarize the output"
PLOT = (
    "from IPython.display import Image, display\nimport base64\n"
    "display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5"
    "ErkJggg==')))"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A running server, shared by the tests of this module."""
    home = tmp_path_factory.mktemp("server")
    with JupyterServer(home, env={"NAVI_DATABASE_URL": database_url(home / "navi.db")}).start() as running:
        yield running


@pytest.fixture
def kernel(server: JupyterServer, request: pytest.FixtureRequest) -> Iterator[NotebookKernel]:
    """The kernel of a fresh notebook, with the extension loaded."""
    opened = NotebookKernel(server, f"{request.node.name[:60]}.ipynb")
    opened.ok(PREPARE)
    yield opened
    opened.close()


def firings(server: JupyterServer) -> list[dict[str, Any]]:
    """The ledger as it is on disk, the newest first."""
    return list(map(dict, perform(server.home / "navi.db", "SELECT * FROM firings ORDER BY number DESC")))


@pytest.fixture
def fired(server: JupyterServer) -> Callable[..., dict[str, Any]]:
    """Waits for the one firing that is new since the test began, until its run is over."""
    before = len(firings(server))

    def wait() -> dict[str, Any]:
        server.wait_for(lambda: len(firings(server)) > before and firings(server)[0]["status"] == "succeeded")
        assert len(firings(server)) == before + 1
        return firings(server)[0]

    return wait


def test_alone_in_a_cell_it_means_the_next_cell(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    kernel.ok(ASK)
    kernel.ok("import time\nprint('accuracy 0.93')\ntime.sleep(0.5)")
    ended = time.time()
    row = fired()
    for expected in ("import time\nprint('accuracy 0.93')", "Output:\n```\naccuracy 0.93\n```", "after 0."):
        assert expected in row["detail"]
    assert row["started_at"] / 1e6 - ended < 0.3


def test_in_a_cell_among_other_code_it_means_that_cell(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    kernel.ok(f"{ASK}\nprint('first thing')\nimport time\ntime.sleep(0.7)\nprint('last thing')\n{PLOT}")
    row = fired()
    for expected in (ASK, "time.sleep(0.7)", "first thing\nlast thing", "It showed 1 image (attached)"):
        assert expected in row["detail"]
    assert "had begun before" not in row["detail"]
    took = float(row["detail"].split(" after ")[1].split(" s")[0])
    assert 0.7 <= took < 5
    session = server.get(f"navi/api/sessions/{row['session_id']}/messages")["messages"]
    (prompt,) = [message for message in session if message["run_id"] == row["run_id"] and message["role"] == "user"]
    assert prompt["content"] == "summarize the output"
    assert [attachment["media_type"] for attachment in prompt["attachments"]] == ["image/png"]


def test_a_late_line_in_a_long_cell_tells_how_long_it_had_run(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    kernel.ok(f"import time\nprint('before', flush=True)\ntime.sleep(1)\n{ASK}\nprint('after it')")
    row = fired()
    assert "What it showed in its first 1." in row["detail"]
    assert "after it" in row["detail"]
    assert float(row["detail"].split(" after ")[1].split(" s")[0]) >= 1.0


def test_the_function_does_the_same(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    kernel.ok("r = navi.recall('and then?', when='failed')")
    kernel.run("print('about to')\nraise RuntimeError('no such device')")
    row = fired()
    assert "RuntimeError: no such device" in row["detail"]
    assert kernel.ok("print(r.status, r.fired)").stdout == "fired 1\n"


def test_the_kernels_client_may_be_gone_when_the_cell_ends(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    kernel.ok(ASK)
    gate = server.root / "gate"
    kernel.client.execute(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('alone')")
    server.wait_for(lambda: server.get(f"api/kernels/{kernel.id}")["execution_state"] == "busy")
    kernel.client.stop_channels()
    gate.touch()
    assert "alone" in fired()["detail"]


def test_a_kernel_that_dies_in_the_cell_is_reported(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    pid = int(kernel.ok("import os\nprint(os.getpid())").stdout)
    code = f"{ASK}\nprint('half way', flush=True)\nimport time\ntime.sleep(600)"
    kernel.client.execute(code)
    # In one message with the echo of the recall, when the kernel flushes them together.
    while "half way\n" not in kernel.client.get_iopub_msg(timeout=20)["content"].get("text", ""):
        pass
    os.kill(pid, signal.SIGKILL)
    detail = fired()["detail"]
    assert "The kernel died while the cell ran" in detail
    assert "half way" in detail
    assert "time.sleep(600)" in detail


@pytest.mark.parametrize(
    ("source", "alone"),
    [
        (ASK, True),
        (f"# then\n\n{ASK}\n", True),
        (f"%load_ext navi_jupyter\nimport navi_jupyter as navi\n{ASK}", True),
        ("r = navi.recall('x', when='done')\nr", True),
        (f"{ASK}\ntrain()", False),
        (f"x = 1\n{ASK}", False),
        ("train(); navi.recall('x', when='done')", False),
        (f"%%time\n{ASK}", True),
        (f"{ASK}\n!python train.py", False),
        ("for _ in range(3): navi.recall('x', when='done')", False),
        ("r = %navi recall when done summarize", True),
        ("navi recall when done summarize", True),
        ("get_ipython().run_line_magic('navi', 'recall when done x')", True),
        ("get_ipython().run_line_magic('time', 'train()')", False),
        (f"if True:\n    {ASK}", False),
        ("navi = 3", False),
    ],
)
def test_what_is_alone_in_a_cell(source: str, alone: bool) -> None:
    assert only_makes_recalls(source) is alone


@pytest.mark.parametrize(
    ("source", "aside"),
    [
        (ASK, True),
        ("%%navi\nwhy is it flat?", True),
        ("%navi recalls", True),
        ("import navi_jupyter as navi\nnavi.recalls()", True),
        ("import numpy as np", False),
        ("# only a comment", False),
        (f"{ASK}\ntrain()", False),
        ("navigate()", False),
        ("%%bash\nnavi recalls", False),
    ],
)
def test_which_cells_only_talk_to_navi(source: str, aside: bool) -> None:
    assert is_navi_only_cell(source) is aside


def test_two_recalls_in_cells_of_their_own_mean_the_same_next_cell(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    before = len(firings(server))
    kernel.ok(ASK)
    kernel.ok("r = %navi recall --busy queue when the cell is done, tell me how long it took")
    kernel.ok("%navi recalls")
    kernel.ok("print('the cell')")
    server.wait_for(lambda: len(firings(server)) >= before + 2)
    rows = firings(server)[: len(firings(server)) - before]
    assert len(rows) == 2
    assert all("print('the cell')" in row["detail"] and "%navi" not in row["detail"] for row in rows)


def test_one_for_each_cell_is_not_woken_by_the_cell_that_made_it(
    server: JupyterServer, kernel: NotebookKernel, fired: Callable[..., dict[str, Any]]
) -> None:
    made = kernel.ok("%navi recall when done --each tell me")
    assert "each time any cell is done" in made.text
    kernel.ok("%navi recalls")
    kernel.ok("print('the first one')")
    assert "the first one" in fired()["detail"]
    kernel.ok(f"%navi cancel {made.text.partition('%navi cancel ')[2].split()[0]}")


def test_code_below_a_recall_of_a_cell_magic_says_how_to_write_it(kernel: NotebookKernel) -> None:
    shown = kernel.run("%%navi recall when done summarize\nx_of_the_cell = 1")
    assert "one percent sign: %navi recall when done summarize" in shown.error
    assert "Traceback" not in shown.error


def test_a_time_in_english_is_read_back_with_its_next_times_before_it_is_stored(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    shown = kernel.ok("r = %navi recall every other friday at 16:00 check the loss\nprint(r.message)")
    assert "I read 'every other friday at 16:00' as: every other Friday at 16:00" in shown.stdout
    assert "Next: Fri " in shown.stdout
    assert shown.stdout.endswith("check the loss\n")
    odd = kernel.ok('%navi recall cron "*/90 * * * *" look')
    assert "Note: a step of 90 minutes is longer than the hour" in odd.stdout
    refused = kernel.run("%navi recall tomorrow at noon and at 6pm look")
    assert "in quotation marks" in refused.error
    for recall in server.get("navi/api/recalls?status=pending")["recalls"]:
        server.request("DELETE", f"navi/api/recalls/{recall['id']}")
