"""Pages that give their sessions an empty name, as nbclassic does: Jupyter then names the folder to their kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from navi_jupyter.kernel.notebook import notebook_path
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer


class NamelessKernel(NotebookKernel):
    """Its session has the name that nbclassic gives it: none, which is not the same as no name at all."""

    def __init__(self, server: JupyterServer, path: str) -> None:
        body = {"path": path, "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        server.request("POST", "api/sessions", body)
        super().__init__(server, path)  # the same session: its path is known


@pytest.fixture
def notebook(server: JupyterServer) -> Iterator[NotebookKernel]:
    folder = server.root / "classic"
    folder.mkdir(exist_ok=True)
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "work.ipynb").write_text(json.dumps(empty))
    kernel = NamelessKernel(server, "classic/work.ipynb")
    yield kernel
    kernel.close()


def test_its_kernel_knows_the_folder_alone_and_does_not_take_it_for_the_notebook(notebook: NotebookKernel) -> None:
    named = notebook.ok("import os; print(os.environ['JPY_SESSION_NAME'])").stdout.strip()
    assert named.endswith("classic/")
    assert notebook_path(str(notebook.server.root), {"JPY_SESSION_NAME": named}) is None


def test_its_session_is_that_of_the_notebook(notebook: NotebookKernel) -> None:
    notebook.ok("%load_ext navi_jupyter\nimport navi_jupyter as navi")
    session_id = notebook.ok("print(navi.session().id)").stdout.split()[-1]
    assert notebook.server.get(f"navi/api/sessions/{session_id}")["notebook_path"] == "classic/work.ipynb"
    notebook.ok("%navi session new")
    fresh = notebook.ok("print(navi.session().id)").stdout.split()[-1]
    assert fresh != session_id
    assert notebook.server.get(f"navi/api/sessions/{fresh}")["notebook_path"] == "classic/work.ipynb"
