"""A notebook keeps its conversation wherever it goes, and %navi session shows and changes what belongs to what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from navi_jupyter.kernel.notebook import describe, vscode_path
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow

WHICH = "import navi_jupyter as navi\nprint(navi.session().id)"
Open = Callable[..., NotebookKernel]


def make(server: JupyterServer, path: str, source: str) -> None:
    """A notebook on the server's disk."""
    (server.root / path).parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    (server.root / path).write_text(nbformat.writes(notebook))


def rename(server: JupyterServer, before: str, after: str) -> None:
    """As JupyterLab does: the file, then the session of the kernel."""
    server.request("PATCH", f"api/contents/{before}", {"path": after})
    for row in server.get("api/sessions"):
        if row["path"] == before:
            server.request("PATCH", f"api/sessions/{row['id']}", {"path": after, "name": Path(after).name})


def save(server: JupyterServer, path: str) -> None:
    """As a page that was opened before the session was bound."""
    content = json.loads((server.root / path).read_text())
    content["metadata"].pop("navi", None)
    server.request("PUT", f"api/contents/{path}", {"type": "notebook", "format": "json", "content": content})


def which(kernel: NotebookKernel) -> str:
    """The id of the notebook's session."""
    return kernel.ok(WHICH).stdout.strip()


def test_a_renamed_notebook_keeps_its_session_and_a_new_one_at_its_path_does_not_get_it(
    server: JupyterServer, open_kernel: Open
) -> None:
    make(server, "work.ipynb", "a = 1")
    kernel = open_kernel("work.ipynb")
    session = which(kernel)
    rename(server, "work.ipynb", "deep-work.ipynb")
    assert which(kernel) == session
    assert server.get(f"navi/api/sessions/{session}")["notebook_path"] == "deep-work.ipynb"
    kernel.restart()
    assert which(kernel) == session
    make(server, "work.ipynb", "b = 2")
    other = open_kernel("work.ipynb")
    assert which(other) != session
    kernel.close()
    assert which(open_kernel("deep-work.ipynb")) == session


def test_a_notebook_moved_while_the_server_was_off_keeps_its_session(tmp_path: Path) -> None:
    with JupyterServer(tmp_path).start() as server:
        make(server, "work.ipynb", "a = 1")
        kernel = NotebookKernel(server, "work.ipynb")
        session = which(kernel)
        save(server, "work.ipynb")
        kernel.close()
    (tmp_path / "notebooks" / "work.ipynb").rename(tmp_path / "notebooks" / "moved.ipynb")
    with JupyterServer(tmp_path).start() as server:
        make(server, "work.ipynb", "b = 2")
        moved, new = NotebookKernel(server, "moved.ipynb"), NotebookKernel(server, "work.ipynb")
        try:
            assert which(moved) == session
            assert which(new) != session
        finally:
            moved.close()
            new.close()


def test_a_deleted_session_is_noticed_by_a_kernel_that_used_it(server: JupyterServer, kernel: NotebookKernel) -> None:
    before = which(kernel)
    server.request("DELETE", f"navi/api/sessions/{before}")
    assert which(kernel) != before


def test_a_session_that_was_bound_elsewhere_is_noticed(server: JupyterServer, open_kernel: Open) -> None:
    make(server, "bound.ipynb", "a = 1")
    kernel = open_kernel("bound.ipynb")
    which(kernel)
    other = server.request("POST", "navi/api/sessions", {"notebook_path": "bound.ipynb"})["id"]
    assert which(kernel) == other


def test_the_link_is_shown_and_changed(server: JupyterServer, open_kernel: Open) -> None:
    make(server, "shown.ipynb", "a = 1")
    kernel = open_kernel("shown.ipynb")
    kernel.ok("%load_ext navi_jupyter")
    first = which(kernel)
    assert "shown.ipynb, linked" in kernel.ok("%navi session").stdout
    kernel.ok("%navi session new")
    second = which(kernel)
    assert second != first
    assert first[-4:] in kernel.ok("%navi session").text
    kernel.ok("%navi session use 1")
    assert which(kernel) == first
    kernel.ok("%navi session unlink")
    third = which(kernel)
    assert third not in (first, second)
    listing = kernel.ok("%navi session").text
    assert first[-4:] in listing
    assert second[-4:] in listing


def test_to_look_at_the_link_starts_no_session(server: JupyterServer, open_kernel: Open) -> None:
    make(server, "looked.ipynb", "a = 1")
    before = (server.root / "looked.ipynb").read_text()
    kernel = open_kernel("looked.ipynb")
    kernel.ok("%load_ext navi_jupyter")
    assert "none yet: the next question here starts one" in kernel.ok("%navi session").stdout
    assert (server.root / "looked.ipynb").read_text() == before
    first = which(kernel)
    kernel.ok("%navi session unlink")
    shown = kernel.ok("%navi session")
    assert "none yet" in shown.stdout
    assert first[-4:] in shown.text
    kernel.ok("%navi session use 1")
    assert which(kernel) == first


def test_a_notebook_that_is_not_saved_yet_is_said_to_be() -> None:
    session = {"id": "s_0123456789abcdef01234567", "title": "work", "notebook_link": "pending"}
    shown = describe({"session": session, "path": "work.ipynb", "earlier": []})
    assert "work.ipynb, not saved yet: save the notebook" in shown


def test_a_session_of_another_notebook_is_moved_only_when_that_is_meant(
    server: JupyterServer, open_kernel: Open
) -> None:
    make(server, "one.ipynb", "a = 1")
    make(server, "two.ipynb", "b = 2")
    one, two = open_kernel("one.ipynb"), open_kernel("two.ipynb")
    two.ok("%load_ext navi_jupyter")
    session = which(one)
    own = which(two)
    assert "belongs to one.ipynb" in two.run(f"%navi session use {session}").error
    assert which(two) == own
    two.ok(f"%navi session use {session} --move")
    assert which(two) == session
    assert which(one) not in (session, own)
    # Of a notebook that is gone, nothing is taken away.
    mine = which(one)
    (server.root / "one.ipynb").unlink()
    two.ok(f"%navi session use {mine}")
    assert which(two) == mine


def test_a_kernel_without_a_notebook_uses_a_notebooks_session_until_it_restarts(
    server: JupyterServer, open_kernel: Open
) -> None:
    make(server, "lent.ipynb", "a = 1")
    session = which(open_kernel("lent.ipynb"))
    console = open_kernel(None)
    console.ok("%load_ext navi_jupyter")
    own = which(console)
    assert "after a restart" in console.ok(f"%navi session use {session}").stdout
    assert which(console) == session
    console.restart()
    assert which(console) == own


def test_a_copy_says_that_it_has_a_session_of_its_own(server: JupyterServer, open_kernel: Open) -> None:
    make(server, "original.ipynb", "a = 1")
    session = which(open_kernel("original.ipynb"))
    save(server, "original.ipynb")
    (server.root / "copy.ipynb").write_text((server.root / "original.ipynb").read_text())
    copy = open_kernel("copy.ipynb")
    copy.ok("%load_ext navi_jupyter")
    assert "This notebook is a copy" in copy.ok("%navi What can you do?").stdout
    assert "This notebook is a copy" not in copy.ok("%navi What can you do?").stdout
    assert which(copy) != session


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("vscode-notebook-cell:/home/me/work/a%20b/n%C3%A4h.ipynb#W0sZmlsZQ%3D%3D", "a b/näh.ipynb"),
        ("vscode-notebook-cell://ssh-remote%2Bhost/home/me/work/one.ipynb#X10sZmlsZQ%3D%3D", "one.ipynb"),
        ("vscode-notebook-cell:/home/me/other/one.ipynb#W0sZmlsZQ%3D%3D", None),
        ("vscode-notebook-cell:Untitled-1.ipynb?jupyter-notebook#W0sdW50aXRsZWQ%3D", None),
        ("8f3a9c52", None),
        ("", None),
    ],
)
def test_the_cells_of_vscode_name_their_notebook(cell: str, path: str | None) -> None:
    assert vscode_path("/home/me/work", cell) == path


def test_a_notebook_in_vscode_keeps_its_session_and_its_file_as_it_is(server: JupyterServer, open_kernel: Open) -> None:
    path = f"{'long-' * 40}name.ipynb"
    make(server, path, WHICH)
    before = (server.root / path).read_text()
    found = set()
    for number in "12":  # it is opened again: another kernel, and another made-up path
        kernel = open_kernel(f"name-jvsc-{number}.ipynb")
        kernel.cell = f"vscode-notebook-cell:{server.root}/{path}#W0sZmlsZQ%3D%3D"
        found.add(which(kernel))
        kernel.ok("%load_ext navi_jupyter")
        assert "known by its cells" in kernel.ok("%navi session").stdout
    (session,) = found
    assert server.get(f"navi/api/sessions/{session}")["notebook_path"] == path
    assert (server.root / path).read_text() == before
