"""A notebook is not its path: which session it belongs to is decided by what it carries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.identity import decide_link, id_of, is_same, mark_of, set_id
from navi_jupyter.jupyter.notebooks.service import NotebookService
from navi_jupyter.ports.jupyter import NotebookLink, NotebookMark


def notebook(session: str | None = None, *cells: str, minor: int = 5) -> dict[str, Any]:
    """A notebook whose cells have these ids, and a source made of each."""
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    made = [{**blank, "id": cell, "source": f"x = {cell!r}"} for cell in cells]
    metadata = {} if session is None else {"navi": {"session_id": session}}
    return {"nbformat": 4, "nbformat_minor": minor, "metadata": metadata, "cells": made}


def mark(session: str | None = None, *cells: str) -> NotebookMark:
    return mark_of(notebook(session, *cells))


def link(session_id: str = "s_1", path: str | None = "work.ipynb", *cells: str, **fields: Any) -> NotebookLink:
    fingerprint = mark_of(notebook(None, *cells)).fingerprint
    return NotebookLink(session_id=session_id, owner="ada", path=path, fingerprint=fingerprint, **fields)


def linked(session_id: str = "s_1", path: str | None = "work.ipynb", *cells: str, **fields: Any) -> NotebookLink:
    return link(session_id, path, *cells, state="linked", **fields)


def test_the_id_is_kept_beside_what_else_the_metadata_has() -> None:
    metadata: dict[str, Any] = {"kernelspec": {"name": "python3"}, "navi": {"theme": "dark"}}
    assert set_id(metadata, "s_1")
    assert metadata == {"kernelspec": {"name": "python3"}, "navi": {"theme": "dark", "session_id": "s_1"}}
    assert not set_id(metadata, "s_1")
    assert set_id(metadata, None)
    assert metadata == {"kernelspec": {"name": "python3"}, "navi": {"theme": "dark"}}


@pytest.mark.parametrize("navi", [None, "s_1", [], {"session_id": 7}, {"session_id": ""}, {}])
def test_metadata_that_is_not_ours_carries_no_id_and_takes_one(navi: Any) -> None:
    metadata: dict[str, Any] = {"navi": navi}
    assert id_of(metadata) is None
    set_id(metadata, "s_1")
    assert id_of(metadata) == "s_1"


def test_cells_without_ids_are_known_by_their_sources_also_when_a_front_end_gives_them_ids() -> None:
    old = {**notebook(None, "a", "b"), "nbformat_minor": 4}
    for cell in old["cells"]:
        del cell["id"]
    bound = NotebookLink(session_id="s_1", owner="ada", path="work.ipynb", fingerprint=mark_of(old).fingerprint)
    upgraded = notebook(None, "a", "b")
    for cell in upgraded["cells"]:
        cell["id"] += "-random"
    assert is_same(bound, mark_of(upgraded))
    assert not is_same(bound, mark(None, "c"))


def test_a_notebook_put_back_without_ids_is_known_by_most_of_its_sources_also_when_it_was_saved_with_ids() -> None:
    def old(*cells: str) -> NotebookMark:
        content = {**notebook(None, *cells), "nbformat_minor": 4}
        for cell in content["cells"]:
            del cell["id"]
        return mark_of(content)

    bound = linked("s_1", "work.ipynb", "a", "b", "c")
    assert bound.shares_cell(old("a", "b"))
    assert not bound.shares_cell(old("a", "else")), "many notebooks begin with the same imports"
    assert not bound.shares_cell(mark(None, "other")), "with ids it is known by them"


def test_the_same_code_alone_makes_no_two_notebooks_the_same() -> None:
    one, other = notebook(None, "a"), notebook(None, "b")
    other["cells"][0]["source"] = one["cells"][0]["source"]
    bound = NotebookLink(session_id="s_1", owner="ada", path="work.ipynb", fingerprint=mark_of(one).fingerprint)
    assert not is_same(bound, mark_of(other))


def test_a_blank_cell_marks_nothing() -> None:
    blank = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": "\n"}]}
    assert mark_of(blank) == NotebookMark()


Decided = tuple[str, str | None, bool]

TABLE: dict[str, tuple[dict[str, Any], Decided]] = {
    "the notebook carries the id and is where it was": (
        {"notebook": mark("s_1", "a"), "by_id": linked()},
        ("found", "s_1", False),
    ),
    "it carries the id and is not where it was: moved": (
        {"path": "new.ipynb", "notebook": mark("s_1", "a"), "by_id": linked()},
        ("moved", "s_1", False),
    ),
    "the one where it was carries the id, too: a copy": (
        {"path": "new.ipynb", "notebook": mark("s_1", "a"), "by_id": linked(), "elsewhere": {"s_1"}},
        ("copied", None, True),
    ),
    "a copy that was asked in before, and not saved since, keeps its own": (
        {
            "path": "new.ipynb",
            "notebook": mark("s_1", "a"),
            "by_id": linked(),
            "by_path": [link("s_2", "new.ipynb", "a")],
            "elsewhere": {"s_1"},
        },
        ("found", "s_2", True),
    ),
    "it carries the id of a session that is gone, or another user's": (
        {"notebook": mark("s_gone", "a")},
        ("created", None, True),
    ),
    "the id decides, not the kernel": (
        {"notebook": mark("s_1", "a"), "by_id": linked(), "by_kernel": [linked("s_2", "other.ipynb", kernel_id="k")]},
        ("found", "s_1", False),
    ),
    "an unlinked session is found by the id": (
        {"notebook": mark("s_1", "a"), "by_id": link("s_1", None)},
        ("found", "s_1", False),
    ),
    "pending, and it still has a cell of then": (
        {"notebook": mark(None, "b", "c"), "by_path": [link("s_1", "work.ipynb", "a", "b")]},
        ("found", "s_1", True),
    ),
    "pending, and another notebook is there": (
        {"notebook": mark(None, "c"), "by_path": [link("s_1", "work.ipynb", "a", "b")]},
        ("created", None, True),
    ),
    "pending, another notebook is there, and Jupyter gave it the same kernel": (
        {
            "notebook": mark(None, "c"),
            "by_path": [link("s_1", "work.ipynb", "a", kernel_id="k")],
            "by_kernel": [link("s_1", "work.ipynb", "a", kernel_id="k")],
        },
        ("created", None, True),
    ),
    "pending since before its file was there, and the same kernel": (
        {"notebook": mark(None, "c"), "by_path": [link(kernel_id="k")], "by_kernel": [link(kernel_id="k")]},
        ("found", "s_1", True),
    ),
    "pending with a new id while the file carries the one before": (
        {"notebook": mark("s_0", "a"), "by_id": linked("s_0"), "by_path": [link("s_1", "work.ipynb", "a")]},
        ("found", "s_1", True),
    ),
    "an older version without the id was put back": (
        {"notebook": mark(None, "a"), "by_path": [linked("s_1", "work.ipynb", "a", "b")]},
        ("found", "s_1", True),
    ),
    "an older version is there, and the notebook is alive elsewhere": (
        {"notebook": mark(None, "a"), "by_path": [linked("s_1", "work.ipynb", "a")], "elsewhere": {"s_1"}},
        ("created", None, True),
    ),
    "deleted and made again, and Jupyter gave it the same kernel": (
        {"notebook": mark(None, "c"), "by_path": [linked(kernel_id="k")], "by_kernel": [linked(kernel_id="k")]},
        ("created", None, True),
    ),
    "an earlier conversation of the notebook is not found by it": (
        {"notebook": mark(None, "a"), "by_path": [link("s_1", "work.ipynb", "a", state="earlier")]},
        ("created", None, True),
    ),
    "a path alone is nothing": (
        {"notebook": mark(None, "c"), "by_path": [linked("s_1", "work.ipynb", "a")]},
        ("created", None, True),
    ),
    "the same kernel, moved, the id lost, a cell shared": (
        {"path": "new.ipynb", "notebook": mark(None, "a"), "by_kernel": [linked("s_1", "work.ipynb", "a")]},
        ("moved", "s_1", True),
    ),
    "another notebook took over the kernel": (
        {
            "path": "new.ipynb",
            "notebook": mark(None, "a"),
            "by_kernel": [linked("s_1", "work.ipynb", "a")],
            "elsewhere": {"s_1"},
        },
        ("created", None, True),
    ),
    "a console's kernel that has a notebook now": (
        {"notebook": mark(None, "a"), "by_kernel": [link("s_1", None)]},
        ("found", "s_1", True),
    ),
    "no file yet, the kernel's session": (
        {"notebook": None, "by_kernel": [link("s_1", kernel_id="k")], "by_path": [link("s_1", kernel_id="k")]},
        ("found", "s_1", True),
    ),
    "no file, and only the path is the same": (
        {"notebook": None, "by_path": [link("s_1", "work.ipynb", "a")]},
        ("created", None, False),
    ),
    "no notebook: the kernel decides": (
        {"path": None, "notebook": None, "by_kernel": [linked("s_2"), link("s_1", None)]},
        ("found", "s_1", False),
    ),
    "no notebook, and a kernel without a session": ({"path": None, "notebook": None}, ("created", None, False)),
}


@pytest.mark.parametrize("given", TABLE)
def test_the_session_of_a_notebook(given: str) -> None:
    facts, expected = TABLE[given]
    decision = decide_link(**{"path": "work.ipynb", "kernel_id": "k", **facts})
    assert (decision.how, decision.session_id, decision.write) == expected


def test_pending_links_to_a_path_are_void_once_another_notebook_is_there() -> None:
    before = [link("s_1", "work.ipynb", "a"), link("s_2", "work.ipynb", "b")]
    decision = decide_link(path="work.ipynb", kernel_id="k", notebook=mark(None, "b"), by_path=before)
    assert (decision.session_id, decision.stale) == ("s_2", ("s_1",))
    decision = decide_link(path="work.ipynb", kernel_id="k", notebook=mark(None, "c"), by_path=before)
    assert (decision.how, decision.stale) == ("created", ("s_1", "s_2"))


@pytest.fixture
def notebooks(
    parts: JupyterServices, kernels: KernelService, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[NotebookService]:
    opened = NotebookService(parts, kernels)
    yield opened
    jp_asyncio_loop.run_until_complete(opened.close())


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    path.write_text(json.dumps(notebook(None, "a", "b")))
    return path


async def test_the_id_is_written_into_the_file_and_read_from_it(notebooks: NotebookService, work: Path) -> None:
    before = await notebooks.mark("work.ipynb")
    assert before is not None
    assert before.id is None
    assert await notebooks.write_id("work.ipynb", "s_1", expected=before)
    stored = json.loads(work.read_text())
    assert stored["metadata"]["navi"] == {"session_id": "s_1"}
    assert [cell["id"] for cell in stored["cells"]] == ["a", "b"]
    after = await notebooks.mark("work.ipynb")
    assert after == replace(before, id="s_1")
    written = work.stat().st_mtime_ns
    assert await notebooks.write_id("work.ipynb", "s_1", expected=after)  # nothing to write
    assert work.stat().st_mtime_ns == written
    assert await notebooks.mark("none.ipynb") is None


async def test_the_id_is_not_written_into_another_notebook(notebooks: NotebookService, work: Path) -> None:
    before = await notebooks.mark("work.ipynb")
    assert before is not None
    work.write_text(other := json.dumps(notebook(None, "c")))
    assert not await notebooks.write_id("work.ipynb", "s_1", expected=before)
    assert work.read_text() == other
    work.write_text(other := json.dumps(notebook("s_2", "a")))
    assert not await notebooks.write_id("work.ipynb", "s_1", expected=before)
    assert work.read_text() == other
    assert not await notebooks.write_id("gone.ipynb", "s_1", expected=before)
