"""The quickstart notebook does what it says, on a real server."""

from __future__ import annotations

import os
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
    assert "recall" in outputs(notebook, "ask-1").lower()
    assert "Summarise this session" in outputs(notebook, "recall-3")
    assert "Recall: Summarise this session" in outputs(notebook, "python-1")
    assert "cancelled" in outputs(notebook, "python-2")
    assert "%navi recall in 10m" in outputs(notebook, "help")
    chat = next(cell for cell in notebook.cells if cell.id == "chat-1").outputs[0].data
    assert "application/vnd.navi.session+json" in chat
