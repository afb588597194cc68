"""Tools read what the user's page shows, unsaved cells too, and say what they have read and how old it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.tools.notebook import tools as notebook_tools
from navi_jupyter.clock import now
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService
from navi_jupyter.model.notebooks import ClientNotebook, ShownNotebook
from navi_jupyter.ports.agent import PromptPage, ToolContext, tool_context
from navi_jupyter.ports.jupyter_access import JupyterAccess

from .test_notebooks import code, sources, write

TOOLS = {tool.name: tool for tool in notebook_tools.TOOLS}
OUTPUT = {"output_type": "stream", "name": "stdout", "text": "from the file\n"}
LIVE = [
    {"id": "one", "type": "code", "source": "x = 'unsaved'", "execution_count": 1},
    {"id": "two", "type": "code", "source": "print(x)", "execution_count": 4, "output": "from the page"},
    {"id": "mine", "type": "markdown", "source": "not in the file"},
]


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
    write(
        path,
        [
            code("x = 1", "one", outputs=[OUTPUT], execution_count=1),
            code("print(x)", "two", outputs=[OUTPUT], execution_count=2),
        ],
    )
    an_hour_ago = (now() - timedelta(hours=1)).timestamp()
    os.utime(path, (an_hour_ago, an_hour_ago))
    return path


Tools = Callable[..., Any]


@pytest.fixture
def call(run: Callable[..., ToolContext], notebooks: NotebookService) -> Tools:
    async def call(name: str, shown: ShownNotebook | None = None, **arguments: Any) -> str:
        access = JupyterAccess(kernels=run().jupyter.kernels, notebooks=notebooks)
        tool_context.set(replace(run(), jupyter=access, page=PromptPage(shown=shown)))
        return str((await TOOLS[name].call(arguments)).content)

    return call


def page(**fields: Any) -> ShownNotebook:
    given = {"path": "work.ipynb", "cells": LIVE, "unsaved": True} | fields
    return ShownNotebook(notebook=ClientNotebook.model_validate(given), at=now() - timedelta(seconds=30))


async def test_what_the_page_shows_is_read_with_its_age(call: Tools, work: Path) -> None:
    text = await call("read_notebook", page())
    assert "3 cells" in text
    assert "as the user's page showed it 30 s ago" in text
    assert "changes that are not saved" in text
    for part in ("x = 'unsaved'", "not in the file", "from the page", "In[4]"):
        assert part in text, part
    one = await call("read_notebook", page(), cells="0")
    assert "from the file" in one, "of a cell that did not run since the file has all outputs"


async def test_without_a_page_the_file_is_read_with_its_age(call: Tools, work: Path) -> None:
    text = await call("read_notebook")
    assert "from the file, which was saved 1 h ago" in text
    assert "unsaved" not in text


@pytest.mark.parametrize(
    "fields", [{"unsaved": False}, {"path": "other.ipynb"}, {"cells": None}], ids=["all saved", "another", "no cells"]
)
async def test_a_page_that_has_nothing_newer_changes_nothing(call: Tools, work: Path, fields: dict[str, Any]) -> None:
    assert "from the file, which" in await call("read_notebook", page(**fields))


async def test_a_save_after_the_prompt_is_newer_than_the_page(call: Tools, work: Path) -> None:
    os.utime(work)
    assert "from the file, which was saved" in await call("read_notebook", page())


async def test_a_source_that_the_page_has_left_out_is_that_of_the_file_and_says_so(call: Tools, work: Path) -> None:
    text = await call("read_notebook", page(cells=[{"id": "one", "type": "code", "execution_count": 1}]))
    assert "x = 1" in text
    assert "this is the one of the file" in text


async def test_a_cell_is_changed_only_if_the_file_has_what_the_page_showed(call: Tools, work: Path) -> None:
    """Without a page that answers: what is unsaved stays in the page, and the file is not changed behind it."""
    assert "changed meanwhile" in await call("edit_cell", page(), cell="0", source="x = 2")
    assert "There is no cell" in await call("edit_cell", page(), cell="mine", source="x = 2")
    assert sources(work) == ["x = 1", "print(x)"]
    await call("edit_cell", page(), cell="1", source="print(x, 2)")
    assert sources(work) == ["x = 1", "print(x, 2)"]


async def test_a_page_that_has_the_notebook_open_is_named_where_the_file_is_read(
    call: Tools, work: Path, parts: JupyterServices, jp_ws_fetch: Callable[..., Any]
) -> None:
    made = await parts.session_manager.create_session(
        path="work.ipynb", name="work.ipynb", type="notebook", kernel_name="python3"
    )
    assert "a page has it open" not in await call("read_notebook")
    socket = await jp_ws_fetch("api", "kernels", made["kernel"]["id"], "channels")
    try:
        assert "a page has it open, and what is not saved there is not in this" in await call("read_notebook")
        assert "what is unsaved there stays" in await call("insert_cell", source="new = 1")
    finally:
        socket.close()


async def test_a_notebook_of_five_megabytes_is_read_within_bounds(call: Tools, work: Path) -> None:
    """Its page has left out the sources that are far from the active cell."""
    write(work, [code("x" * 10_000, f"c{n}") for n in range(500)])
    an_hour_ago = (now() - timedelta(hours=1)).timestamp()
    os.utime(work, (an_hour_ago, an_hour_ago))
    cells = [{"id": f"c{n}", "source": f"near {n}" if 240 <= n < 260 else None} for n in range(500)]
    text = await call("read_notebook", page(cells=cells), cells="239-241")
    assert "the one of the file" in text
    assert "near 240" in text
    assert "near 241" in text
    assert len(await call("read_notebook", page(cells=cells))) < 40_000
