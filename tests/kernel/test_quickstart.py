"""The quickstart notebook does what it says, on a real server."""

from __future__ import annotations

import os
import time
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.server import ROOT, JupyterServer

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def outputs(notebook: Any, cell_id: str) -> str:
    """What a cell shows as plain text."""
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count, dict(cell.metadata)) == ([], None, {})


def test_it_runs_from_the_first_cell_to_the_last(server: JupyterServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NAVI_CONNECTION_FILE", str(server.connection_file))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": os.fspath(server.root)}}).execute()
    assert "0.91" in outputs(notebook, "ask-1")
    assert "plt.plot(losses)" in outputs(notebook, "insert-1")
    assert "09:00" in outputs(notebook, "recall-1")
    assert "what happened since yesterday?" in outputs(notebook, "recall-1")
    chat = next(cell for cell in notebook.cells if cell.id == "chat-1").outputs[0].data
    assert "application/vnd.navi.session+json" in chat
    (recall,) = server.get("navi/api/recalls")["recalls"]
    assert (recall["schedule"]["kind"], recall["schedule"]["expr"]) == ("cron", "0 9 * * *")
    answer = came_back(server, recall)
    assert "what is losses?" in answer, "it reports what was asked in this notebook"
    assert server.get(f"navi/api/recalls/{recall['id']}")["status"] == "pending", "and comes again tomorrow"


def came_back(server: JupyterServer, recall: dict[str, Any]) -> str:
    """The answer of the run that the recall has started."""
    for _ in range(300):
        firings = server.get(f"navi/api/recalls/{recall['id']}/firings")["firings"]
        if firings and firings[0]["status"] == "succeeded":
            break
        time.sleep(0.1)
    assert [one["status"] for one in firings] == ["succeeded"]
    messages = server.get(f"navi/api/sessions/{recall['session_id']}/messages")["messages"]
    return "".join(
        one["content"] for one in messages if one["run_id"] == firings[0]["run_id"] and one["role"] == "assistant"
    )
