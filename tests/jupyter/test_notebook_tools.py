"""What a model gets from the tools for notebooks and files: compact, cut with a way to the rest, never an exception."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.tools import files as file_tools
from navi_jupyter.agent.tools.base import ToolOutput
from navi_jupyter.agent.tools.notebook import tools as notebook_tools
from navi_jupyter.agent.tools.notebook.cell_text import chosen_cells
from navi_jupyter.events import Event
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService, files_of
from navi_jupyter.model.runs import Effect
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.agent import ToolContext, tool_context
from navi_jupyter.ports.jupyter import Cell
from navi_jupyter.ports.jupyter_access import JupyterAccess

from .test_notebooks import code, sources, write

TOOLS = {tool.name: tool for tool in (*notebook_tools.TOOLS, *file_tools.TOOLS)}


@pytest.fixture
def notebooks(
    parts: JupyterServices, kernels: KernelService, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[NotebookService]:
    opened = NotebookService(parts, kernels)
    yield opened
    jp_asyncio_loop.run_until_complete(opened.close())


Call = Callable[..., Any]


@pytest.fixture
def call(run: Callable[..., ToolContext], parts: JupyterServices, notebooks: NotebookService, session: Session) -> Call:
    """Calls a tool as a model does, in a run that has everything."""

    async def call(name: str, **arguments: Any) -> ToolOutput:
        context = run()
        bench = JupyterAccess(kernels=context.jupyter.kernels, notebooks=notebooks, files=files_of(parts))
        tool_context.set(replace(context, jupyter=bench))
        return await TOOLS[name].call(arguments)

    return call


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    markdown = {"id": "title", "cell_type": "markdown", "source": "# Title", "metadata": {}}
    write(path, [markdown, code("x = 1", "one"), code("print(x)", "two")])
    return path


def test_reading_asks_nothing_and_changing_asks() -> None:
    effects = {name: tool.effect for name, tool in TOOLS.items()}
    assert {name for name, effect in effects.items() if effect is Effect.READ} == {
        *("read_notebook", "list_files", "read_file", "search_files")
    }
    assert effects["run_cell"] is Effect.RUN
    assert {name for name, effect in effects.items() if effect is Effect.WRITE} == {
        *("insert_cell", "edit_cell", "delete_cell", "write_file")
    }
    for tool in TOOLS.values():
        assert tool.description
        assert tool.parameters["type"] == "object"


async def test_a_notebook_is_read_as_text(call: Call, work: Path) -> None:
    png = base64.b64encode(b"\x89PNG" + bytes(12_000)).decode()
    image = {"output_type": "display_data", "data": {"image/png": png, "text/plain": "<Figure>"}, "metadata": {}}
    text = {"output_type": "stream", "name": "stdout", "text": ["a\n", "\x1b[31mb\x1b[0m\n"]}
    write(work, [code("plot()", "p", outputs=[text, image], execution_count=3), code("y", "y")])

    output = await call("read_notebook")

    head, state, rest = output.content.split("\n", 2)
    assert head == "work.ipynb: 2 cells"
    assert re.fullmatch(r"\[from the file, which was saved (less than a second|\d+ s) ago\]", state), state
    assert rest == (
        "\n--- [0] code In[3] id=p\nplot()\n--- output\na\nb\n[image 1] <Figure>\n"
        "[image/png 12 kB]\n\n--- [1] code In[ ] id=y\ny"
    )
    assert not output.images
    assert "output" not in (await call("read_notebook", outputs="none")).content
    seen = await call("read_notebook", cells="0", outputs="images")
    assert [image.content for image in seen.images] == [base64.b64decode(png)]


async def test_a_long_notebook_is_cut_and_each_cut_says_how_to_read_on(call: Call, work: Path) -> None:
    write(work, [code(f"# {n}\n" + "x = 1\n" * 5000, f"c{n}") for n in range(20)])

    output = (await call("read_notebook")).content

    assert len(output) < 40_000
    assert 'read_notebook(cells="0") has all' in output
    assert '16 more cells: read_notebook(cells="4-19")' in output or "more cells: read_notebook(" in output
    whole, start = "", 1
    while True:
        page = (await call("read_notebook", cells="3", start=start)).content
        assert len(page) < 40_000
        lines = page.split("\n")[4:]
        more = [line for line in lines if line.startswith("[…")]
        whole += "\n".join(line for line in lines if not line.startswith("[…")) + "\n"
        if not more:
            break
        start = int(more[0].split("start=")[1].split(")")[0])
    assert whole.rstrip("\n") == ("# 3\n" + "x = 1\n" * 5000).rstrip("\n")


@pytest.mark.parametrize(
    ("which", "indexes"),
    [
        *((None, [0, 1, 2, 3]), ("2", [2]), ("1-2", [1, 2]), ("2-", [2, 3]), ("-1", [3]), ("-2-", [2, 3])),
        *(("b, 0", [1, 0]), ("1-9", [1, 2, 3]), ("c,c,2", [2])),
    ],
)
def test_cells_are_chosen_by_index_range_and_id(which: str | None, indexes: list[int]) -> None:
    cells = [Cell(id=name, index=index, kind="code", source="") for index, name in enumerate("abcd")]
    assert [cell.index for cell in chosen_cells(cells, which)] == indexes


async def test_a_place_in_a_cell_is_replaced_only_when_it_is_one_place(call: Call, work: Path) -> None:
    done = await call("edit_cell", cell="1", search="1", replace="2")
    assert done.content == {"cell": "one", "index": 1, "kind": "code"}
    assert sources(work)[1] == "x = 2"

    for arguments, said in (
        ({"search": "nope"}, "not in the cell"),
        ({"search": " "}, "2 times"),
        ({}, "either"),
        ({"source": "a", "search": "b"}, "either"),
        ({"source": "a", "expected": "other"}, "changed meanwhile"),
    ):
        failed = await call("edit_cell", cell="one", **arguments)
        assert failed.failed
        assert said in failed.content["message"]
    assert sources(work)[1] == "x = 2"


async def test_a_cell_is_inserted_run_and_deleted(call: Call, work: Path, written: list[Event]) -> None:
    new = (await call("insert_cell", source="print(6 * 7)", after="one")).content
    assert new["index"] == 2

    ran = await call("run_cell", cell=new["cell"])

    assert not ran.failed
    assert "42" in ran.content
    shown = [event for event in written if event.type in ("ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA")]
    assert "42" in "".join(event.wire() for event in shown)
    assert (await call("delete_cell", cell=new["cell"])).content["source"] == "print(6 * 7)"
    assert sources(work) == ["# Title", "x = 1", "print(x)"]
    failed = await call("run_cell", cell="title")
    assert failed.failed
    assert failed.content["error"] == "invalid_request"


async def test_what_can_not_be_is_a_result_with_a_code(call: Call, work: Path) -> None:
    for name, arguments, error in (
        ("read_notebook", {"path": "none.ipynb"}, "notebook_not_found"),
        ("read_notebook", {"path": "../x.ipynb"}, "file_refused"),
        ("read_notebook", {"cells": "99"}, "cell_not_found"),
        ("read_notebook", {"wrong": 1}, "invalid_arguments"),
        ("read_file", {"path": "/etc/passwd"}, "file_refused"),
        ("read_file", {"path": "work.ipynb"}, "file_refused"),
        ("read_file", {"path": "none"}, "not_found"),
        ("write_file", {"path": "../x", "content": ""}, "file_refused"),
        ("search_files", {"query": "(", "regex": True}, "invalid_request"),
    ):
        output = await call(name, **arguments)
        assert output.failed
        assert output.content["error"] == error, (name, arguments)


async def test_without_notebooks_and_files_the_tools_say_so(run: Callable[..., ToolContext]) -> None:
    tool_context.set(replace(run(), jupyter=JupyterAccess()))
    for name, arguments in (("read_notebook", {}), ("list_files", {}), ("run_cell", {"cell": "0"})):
        output = await TOOLS[name].call(arguments)
        assert output.content["error"] == "tool_unavailable"


async def test_files_are_listed_read_searched_and_written(call: Call, work: Path) -> None:
    root = work.parent
    (root / "data").mkdir()
    (root / "data" / "long.txt").write_text("".join(f"line {n} {'x' * 90}\n" for n in range(1, 1001)))

    listing = (await call("list_files")).content.split("\n")
    assert listing[0].startswith("folder\t\t")
    assert listing[0].endswith("\tdata/")
    assert listing[1].startswith(f"notebook\t{work.stat().st_size}\t")
    assert "more than 1" in (await call("list_files", limit=1)).content
    assert (await call("list_files", pattern="*.png")).content == "(nothing)"

    first = (await call("read_file", path="data/long.txt")).content
    digest = hashlib.sha256((root / "data" / "long.txt").read_bytes()).hexdigest()
    assert f"sha256 {digest[:16]}" in first
    assert len(first) < 25_000
    following = int(first.rsplit("start=", 1)[1].split(")")[0])
    assert f"\nline {following - 1} " in first
    assert f"\nline {following} " not in first
    assert f"\nline {following} " in (await call("read_file", path="data/long.txt", start=following, lines=2)).content
    assert "no line 5000 of 1000" in (await call("read_file", path="data/long.txt", start=5000)).content

    assert (await call("search_files", query="LINE 7 ")).content.startswith("(nothing in ")
    assert (await call("search_files", query="line 7 ")).content.startswith("data/long.txt:7: line 7 ")
    assert (await call("search_files", query="print(")).content == "work.ipynb cell two:1: print(x)"

    done = await call("write_file", path="data/long.txt", content="new\n", expected_sha256=digest[:16])
    assert done.content["size"] == 4
    stale = await call("write_file", path="data/long.txt", content="newer\n", expected_sha256=digest[:16])
    assert stale.content["error"] == "file_conflict"
    assert (root / "data" / "long.txt").read_text() == "new\n"
