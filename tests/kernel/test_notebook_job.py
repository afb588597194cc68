"""``%navi recall … run report.ipynb``: what it means, and a real kernel that plans one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from navi_jupyter.kernel.errors import UsageError
from navi_jupyter.kernel.grammar.command_line import parse_line
from navi_jupyter.kernel.grammar.notebook_job import from_root, job_of
from navi_jupyter.kernel.grammar.recall_command import NewRecall
from navi_jupyter.timetext.notebook_jobs import read_job, value_of
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer


def job(line: str) -> dict[str, Any] | None:
    recall = parse_line(line)
    assert isinstance(recall, NewRecall)
    return job_of(recall.message, recall.job, lambda: None)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("recall in 10m run report.ipynb", {"path": "report.ipynb"}),
        ("recall in 10m run a/report.ipynb -p n 7", {"path": "a/report.ipynb", "parameters": {"n": 7}}),
        (
            'recall -p n=7 in 10m --param name="two words" run report.ipynb -p on true',
            {"path": "report.ipynb", "parameters": {"n": 7, "name": "two words", "on": True}},
        ),
        (
            "recall every 1h run 'my report.ipynb' --kernel ir --output /out --then \"look at it\"",
            {"path": "my report.ipynb", "kernel": "ir", "output": "/out", "then": "look at it"},
        ),
        (
            'recall cron "0 9 * * *" run r.ipynb with n=1 then sum up',
            {"path": "r.ipynb", "parameters": {"n": 1}, "then": "sum up"},
        ),
        ("recall in 10m check the loss", None),
        ("recall in 10m run the tests", None),
    ],
)
def test_a_recall_that_runs_a_notebook(line: str, wanted: dict[str, Any] | None) -> None:
    assert job(line) == (None if wanted is None else {"kind": "notebook", **wanted})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("recall in 10m run report.ipynb and mail it", "What follows report.ipynb is not understood"),
        ("recall in 10m check the loss --kernel ir", "--kernel goes with run"),
        ("recall in 10m check the loss -p n 7", "--param goes with run"),
        ("recall in 10m run report.ipynb -p 7", "-p takes a name and a value"),
    ],
)
def test_what_is_no_job_and_looks_like_one_is_a_usage_error(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        job(line)


@pytest.mark.parametrize(
    ("word", "value"),
    [("7", 7), ("1.5", 1.5), ("true", True), ("None", None), ("x", "x"), ("2026-12-01", "2026-12-01"), ("NaN", "NaN")],
)
def test_a_value_is_that_of_json_else_text(word: str, value: Any) -> None:
    assert value_of(word) == value


@pytest.mark.parametrize(
    "text", ["run report.ipynb and tell me", "run", "report.ipynb", "run report.py", "please look"]
)
def test_what_is_not_understood_as_a_whole_is_no_job(text: str) -> None:
    assert read_job(text) is None


def test_a_path_is_meant_from_the_notebooks_folder_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.ipynb").touch()
    assert from_root("here.ipynb", lambda: "work/analysis.ipynb") == "work/here.ipynb"
    assert from_root("there.ipynb", lambda: "work/analysis.ipynb") == "there.ipynb"
    assert from_root("/here.ipynb", lambda: "work/analysis.ipynb") == "here.ipynb"


@pytest.mark.slow
def test_a_cell_plans_a_notebook_and_its_result_comes(
    server: JupyterServer, open_kernel: Callable[..., NotebookKernel]
) -> None:
    cells = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("n * 6")]
    (server.root / "jobs").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), server.root / "jobs" / "report.ipynb")
    kernel = open_kernel("jobs/work.ipynb")
    kernel.ok("%load_ext navi_jupyter\nimport navi_jupyter as navi")
    assert "To cancel it" in kernel.ok("%navi recall every weekday at 9 run report.ipynb -p n 7").stdout
    made = "r = navi.recalls()[0]\nprint(r.schedule['expr'], r.refresh()._content['run'])"
    assert "0 9 * * 1-5" in (shown := kernel.ok(made).stdout)
    assert "'path': 'jobs/report.ipynb', 'parameters': {'n': 7}" in shown
    kernel.ok("r = navi.recall(run='report.ipynb', in_='100ms', parameters={'n': 7})")
    wait = "import time\nwhile r.status not in ('fired', 'failed'): time.sleep(0.1)\n"
    wait += "print(r.refresh()._content['last_result'])"
    result = server.root / kernel.ok(wait).stdout.strip()
    assert result.parent.name == "report-results"
    assert json.loads(result.read_text())["cells"][2]["outputs"][0]["data"]["text/plain"] in ("42", ["42"])
    assert "There is no notebook gone.ipynb" in str(kernel.run("%navi recall in 1h run gone.ipynb").error)
    mistyped = "There is no notebook reprot.ipynb. Did you mean jobs/report.ipynb?"
    for line in ("in 1h run reprot.ipynb", "every weekday at 9 run reprot.ipynb", "tomorrow at 9 run 'reprot.ipynb'"):
        assert mistyped in str(kernel.run(f"%navi recall {line}").error)
    assert "no parameter m. Its cell with the tag parameters sets: n." in str(
        kernel.run("%navi recall in 1h run report.ipynb with m=3").error
    )
    (server.root / "jobs" / "report.ipynb").rename(server.root / "jobs" / "größe der erde 日.ipynb")
    for line in (
        'every weekday at 9 run "größe der erde 日.ipynb" with n=3',
        "in 1h run größe der erde 日.ipynb with n=3",
    ):
        kernel.ok(f"%navi recall {line}")
        shown = kernel.ok("print(navi.recalls()[0]._content['run'])").stdout
        assert "'path': 'jobs/größe der erde 日.ipynb', 'parameters': {'n': 3}" in shown, line
