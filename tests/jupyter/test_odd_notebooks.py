"""A notebook that breaks the format is read as far as it goes, and changed without touching what is odd in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from navi_jupyter.agent.tools.notebook.cell_text import page_text
from navi_jupyter.errors import FileRefused
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.notebook_file import parse_notebook
from navi_jupyter.jupyter.notebooks.service import NotebookService
from navi_jupyter.model.sessions import Session
from navi_jupyter.output_text import outputs_text

from .test_notebooks import Subclass, manager_of, opened_with


def code(name: str, source: Any = "x = 1", **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": name, "metadata": {}, "source": source, "execution_count": 1, "outputs": []}
    return cell | more


def without(cell: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name not in names}


def shown(**output: Any) -> dict[str, Any]:
    """A cell with this output between two that are as they should be."""
    good = {"output_type": "stream", "name": "stdout"}
    return code("odd", outputs=[good | {"text": "before\n"}, output, good | {"text": ["af", "ter\n"]}])


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# The odd cell, and what is to be read of it.
CELLS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a stream without text": (shown(output_type="stream", name="stdout"), ("before", "after", "outputs[1] (stream)")),
    "a stream whose text is null": (shown(output_type="stream", text=None), ("before", "after", "outputs[1] (stream)")),
    "a stream without name": (shown(output_type="stream", text="hello"), ("before", "hello", "after")),
    "a stream whose name is a number": (shown(output_type="stream", name=2, text="hello"), ("hello", "after")),
    "a text with numbers in it": (shown(output_type="stream", name="stdout", text=["a", 1]), ("a1", "after")),
    "display_data without data": (shown(output_type="display_data", metadata={}), ("after", "outputs[1]")),
    "display_data whose data is null": (shown(output_type="display_data", data=None), ("after",)),
    "display_data whose data is a list": (shown(output_type="display_data", data=["x"]), ("after", "outputs[1]")),
    "display_data without metadata": (shown(output_type="display_data", data={"text/plain": "hi"}), ("hi",)),
    "a result without data": (shown(output_type="execute_result", execution_count=3), ("after", "outputs[1]")),
    "a text/plain that is a number": (shown(output_type="display_data", data={"text/plain": 7}), ("before", "after")),
    "pyout of nbformat 3": (shown(output_type="pyout", text=["4", "2"], prompt_number=1), ("before", "42", "after")),
    "pyout with data": (shown(output_type="pyout", data={"text/plain": "42"}, metadata={}), ("42", "after")),
    "pyout with a picture": (shown(output_type="pyout", png=PNG, text="<Figure>"), ("before", "image", "after")),
    "pyerr of nbformat 3": (shown(output_type="pyerr", ename="E", evalue="v", traceback=["t"]), ("E: v", "after")),
    "an error without traceback": (shown(output_type="error", ename="E", evalue="v"), ("E: v", "after")),
    "an error whose traceback is a text": (
        shown(output_type="error", ename="E", evalue="v", traceback="line 1"),
        ("line 1", "after"),
    ),
    "an error without names": (shown(output_type="error"), ("before", "after")),
    "an output of a kind to come": (shown(output_type="hologram", data={"text/plain": "hi"}), ("hi", "after")),
    "an output without a kind": (shown(text="hi"), ("before", "hi", "after")),
    "an output whose kind is a list": (shown(output_type=["stream"], text="hi"), ("before", "after")),
    "an output that is a text": (code("odd", outputs=["hi", {"output_type": "stream", "text": "ok"}]), ("ok",)),
    "an output that is null": (code("odd", outputs=[None]), ("outputs[0]",)),
    "outputs that are an object": (code("odd", outputs={"text": "hi"}), ("its outputs are no list",)),
    "outputs that are a text": (code("odd", outputs="hi"), ("its outputs are no list",)),
    "outputs that are null": (code("odd", outputs=None), ("x = 1",)),
    "no outputs": (without(code("odd"), "outputs"), ("x = 1",)),
    "no execution_count": (without(code("odd"), "execution_count"), ("x = 1",)),
    "an execution_count that is a text": (code("odd", execution_count="7"), ("x = 1",)),
    "an execution_count that is infinite": (code("odd", execution_count=float("inf")), ("x = 1",)),
    "no metadata": (without(code("odd"), "metadata"), ("x = 1",)),
    "metadata that are null": (code("odd", metadata=None), ("x = 1",)),
    "metadata that are a list": (code("odd", metadata=[1]), ("x = 1",)),
    "no source": (without(code("odd"), "source"), ("it has no source",)),
    "a source that is null": (code("odd", source=None), ("it has no source",)),
    "a source with numbers in it": (code("odd", source=["x = ", 1]), ("x = 1",)),
    "a source with CRLF": (code("odd", source="x = 1\r\ny = 2"), ("x = 1\ny = 2",)),
    "half of a pair in the source": (code("odd", source="x = '\ud83d'"), ("x = '",)),
    "a NUL in the source": (code("odd", source="x = '\0'"), ("x = '",)),
    "no kind": (without(code("odd"), "cell_type"), ("its kind is 'None'",)),
    "a kind to come": (code("odd", cell_type="sql"), ("its kind is 'sql'", "x = 1")),
    "a heading of nbformat 3": ({"cell_type": "heading", "level": 1, "source": "Title", "id": "odd"}, ("Title",)),
    "attachments that are a list": (code("odd", cell_type="markdown", attachments=[1]), ("x = 1",)),
    "an unknown field": (code("odd", colour="red"), ("x = 1",)),
    "the id of another cell": (code("first", "y"), ("y",)),
    "an id that is a number": (code("odd", id=7), ("x = 1",)),
    "an id that is empty": (code("odd", id=""), ("x = 1",)),
    "no id": (without(code("odd"), "id"), ("x = 1",)),
    "a number that is none": (code("odd", metadata={"n": float("nan"), "big": 10**40, "f": 0.10}), ("x = 1",)),
}
# The whole notebook, odd, with the cells "first" and "last".
FRAMES: dict[str, Callable[[list[Any]], Any]] = {
    "a cell that is a text": lambda cells: frame([cells[0], "hi", cells[-1]]),
    "a cell that is null": lambda cells: frame([cells[0], None, cells[-1]]),
    "a cell that is an empty object": lambda cells: frame([cells[0], {}, cells[-1]]),
    "kernelspec that is a text": lambda cells: frame(cells, metadata={"kernelspec": "python3"}),
    "kernelspec that is null": lambda cells: frame(cells, metadata={"kernelspec": None}),
    "metadata that are null": lambda cells: frame(cells, metadata=None),
    "metadata that are a list": lambda cells: frame(cells, metadata=["a"]),
    "no metadata": lambda cells: without(frame(cells), "metadata"),
    "no minor version": lambda cells: without(frame(cells), "nbformat_minor"),
    "a minor version that is a text": lambda cells: frame(cells, nbformat_minor="5"),
    "a minor version to come": lambda cells: frame(cells, nbformat_minor=99),
    "a version with a point": lambda cells: frame(cells, nbformat=4.0),
    "no version": lambda cells: without(frame(cells), "nbformat"),
    "a version that is a text": lambda cells: frame(cells, nbformat="4"),
    "an unknown field": lambda cells: frame(cells, more={"z": 1, "a": [1, 2.50]}),
    "navi metadata that are a text": lambda cells: frame(cells, metadata={"navi": "x"}),
}
STYLES: dict[str, Callable[[Any], str]] = {
    "Jupyter's": lambda value: json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n",
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "one line": json.dumps,
    "two blanks": lambda value: json.dumps(value, indent=2) + "\n",
    "tabs and CRLF": lambda value: json.dumps(value, ensure_ascii=False, indent="\t").replace("\n", "\r\n"),
    "a byte order mark": lambda value: "\ufeff" + json.dumps(value, ensure_ascii=False, indent=1),
}


def frame(cells: Any, **more: Any) -> dict[str, Any]:
    return {"metadata": {}, "nbformat": 4, "nbformat_minor": 5, "cells": cells} | more


def around(*odd: Any) -> list[Any]:
    return [code("first", ["a = 'grüße'\n", "b"]), *odd, code("last", "c")]


@pytest.fixture
def notebooks(
    parts: JupyterServices, kernels: KernelService, jp_serverapp: ServerApp, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[NotebookService]:
    yield from opened_with(AsyncLargeFileManager, parts, kernels, jp_serverapp, jp_asyncio_loop)


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    return jp_root_dir / "work.ipynb"


def as_text(value: Any) -> str:
    """To be compared: NaN does not equal itself."""
    return json.dumps(value, sort_keys=True)


def put(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


CASES = [
    *((name, frame(around(cell)), expected) for name, (cell, expected) in CELLS.items()),
    *((name, make(around()), ()) for name, make in FRAMES.items()),
]


@pytest.mark.parametrize(("notebook", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_the_rest_of_an_odd_notebook_is_shown_and_what_could_not_be_read_is_named(
    notebooks: NotebookService, session: Session, work: Path, notebook: Any, expected: tuple[str, ...]
) -> None:
    put(work, json.dumps(notebook))

    read = await notebooks.read(session)

    text = page_text(read, read.cells, True, 1)
    for words in ("a = 'grüße'\nb", "--- [", *expected):
        assert words in text
    assert read.cells[0].source == "a = 'grüße'\nb"
    assert read.cells[-1].source == "c"
    for cell in read.cells:
        outputs_text(cell.outputs, traceback_limit=100, name_images=True)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("notebook", [case[1] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_change_leaves_the_bytes_of_all_other_cells_as_they_are(
    notebook: Any, style: Callable[[Any], str]
) -> None:
    raw = style(notebook).encode("utf-8", "surrogatepass")
    parsed = parse_notebook(raw, "work.ipynb")
    text = parsed.text
    assert text is not None
    assert text.changed().encode("utf-8", "surrogateescape") == raw

    cells = text.content["cells"]
    cells[-1]["source"] = "c = 'ä'\nd"
    after = text.changed()

    before = raw.decode("utf-8", "surrogateescape")
    start = next(at for at in range(len(before)) if before[at] != after[at])
    end = next(at for at in range(1, len(before)) if before[-at] != after[-at])
    # Only within the last cell is anything different.
    assert before[: start + 1].count('"last"') + before[-end:].count('"last"') <= 1
    assert as_text(json.loads(after.removeprefix("\ufeff"))["cells"][:-1]) == as_text(
        json.loads(before.removeprefix("\ufeff"))["cells"][:-1]
    )
    assert "".join(json.loads(after.removeprefix("\ufeff"))["cells"][-1]["source"]) == "c = 'ä'\nd"


@pytest.mark.parametrize("notebook", [case[1] for case in CASES], ids=[case[0] for case in CASES])
async def test_cells_are_changed_added_and_deleted_beside_odd_ones(
    notebooks: NotebookService, session: Session, work: Path, notebook: Any
) -> None:
    put(work, json.dumps(notebook, indent=1))
    odd = json.dumps(notebook["cells"][1:-1])

    first = await notebooks.insert(session, "# Title", kind="markdown", after="start")
    read = await notebooks.read(session)
    await notebooks.edit(session, read.cells[1].id, "changed", expected="a = 'grüße'\nb")
    await notebooks.delete(session, read.cells[-1].id)
    last = await notebooks.insert(session, "end")

    now = json.loads(work.read_bytes().decode("utf-8", "surrogatepass"))
    cells = now["cells"]
    assert (cells[0]["id"], cells[0]["source"]) == (first.id, ["# Title"])
    assert (cells[-1]["id"], cells[-1]["source"]) == (last.id, ["end"])
    assert cells[1]["source"] == ["changed"]
    given = [without(cell, "id") if isinstance(cell, dict) else cell for cell in cells[2:-1]]
    assert as_text(given) == as_text(
        [without(cell, "id") if isinstance(cell, dict) else cell for cell in json.loads(odd)]
    )
    assert {name: now[name] for name in now if name in ("more", "metadata")} == {
        name: notebook[name] for name in now if name in notebook and name in ("more", "metadata")
    }


@pytest.mark.parametrize("kind", [AsyncLargeFileManager, Subclass])
@pytest.mark.parametrize("notebook", [case[1] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_jupyter_opens_is_read_and_changed_and_jupyter_opens_it_again(
    parts: JupyterServices,
    kernels: KernelService,
    session: Session,
    work: Path,
    jp_serverapp: ServerApp,
    notebook: Any,
    kind: type[Any],
) -> None:
    put(work, json.dumps(notebook))
    if kind is Subclass and "nbformat" not in notebook:
        pytest.skip("Jupyter takes it for nbformat 1, and gives its cells other ids each time")
    manager = manager_of(kind, jp_serverapp)
    try:
        before = await manager.get("work.ipynb")
    except (HTTPError, AttributeError, KeyError, TypeError, UnicodeError) as error:
        pytest.skip(f"Jupyter does not open it: {error!r}"[:100])
    notebooks = NotebookService(replace(parts, contents_manager=manager), kernels)
    try:
        await notebooks.edit(session, (await notebooks.read(session)).cells[-1].id, "changed")
    finally:
        await notebooks.close()

    after = await manager.get("work.ipynb")

    assert after["content"]["cells"][-1]["source"] == "changed"
    assert len(after["content"]["cells"]) == len(before["content"]["cells"])


async def test_the_id_of_a_session_is_written_into_odd_metadata(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    for notebook in (make(around()) for make in FRAMES.values()):
        put(work, json.dumps(notebook, indent=1))
        mark = await notebooks.mark("work.ipynb")
        assert mark is not None
        assert await notebooks.write_id("work.ipynb", "s_7", expected=mark)
        assert json.loads(work.read_text())["metadata"]["navi"]["session_id"] == "s_7"
        assert json.loads(work.read_text())["cells"][0]["source"] == notebook["cells"][0]["source"]


async def test_a_cell_keeps_its_line_ends(notebooks: NotebookService, session: Session, work: Path) -> None:
    put(work, json.dumps(frame(around(code("odd", "x = 1\r\ny = 2\r\n")))))

    cell = await notebooks.edit(session, "odd", "x = 1\nz = 3\n", expected="x = 1\ny = 2\n")

    assert cell.source == "x = 1\nz = 3\n"
    assert json.loads(work.read_text())["cells"][1]["source"] == "x = 1\r\nz = 3\r\n"


async def test_outputs_of_a_run_are_recorded_beside_odd_cells(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    odd = [cell for cell, _ in CELLS.values() if cell.get("cell_type") == "code" and cell.get("id") == "odd"]
    odd = [cell | {"id": f"odd{place}"} for place, cell in enumerate(odd)]
    put(work, json.dumps(frame([*odd, code("last", "print('done')")], metadata={"kernelspec": "python3"})))

    await notebooks.run(session, "last", timeout=60)

    cells = json.loads(work.read_text())["cells"]
    assert cells[-1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["done\n"]}]
    assert as_text(cells[:-1]) == as_text(odd)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"cells": [',
        '{"cells": [1}',
        '{"cells": [{}]} x',
        '{"nbformat": 5, "cells": [{}]}',
        "{}",
    ],
)
def test_what_is_no_notebook_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(FileRefused, match="is no notebook that can be read"):
        parse_notebook(text.encode(), "work.ipynb")


def test_deep_nesting_is_refused_and_ends_no_task() -> None:
    with pytest.raises(FileRefused):
        parse_notebook(b'{"cells": ' + b"[" * 200_000, "work.ipynb")
