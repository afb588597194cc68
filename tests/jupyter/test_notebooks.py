"""Notebooks are read and changed in the file when nobody shares them: never over somebody else's work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager, FileContentsManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager
from nbformat.sign import NotebookNotary

from navi_jupyter.errors import (
    CellNotFound,
    FileRefused,
    InvalidRequest,
    KernelUnavailable,
    NotebookConflict,
    NotebookNotFound,
)
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.lookup import KernelLookup, cell_source
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService, files_of
from navi_jupyter.model.sessions import Session
from tests.support.event_loop import loop_watched

from .conftest import session_of, text_of


class Subclass(AsyncLargeFileManager):
    """Somebody's own manager: asked as it is."""


MANAGERS = [AsyncLargeFileManager, LargeFileManager, AsyncFileContentsManager, FileContentsManager, Subclass]


@pytest.fixture
def root(jp_root_dir: Path) -> Path:
    return jp_root_dir


def manager_of(kind: type[Any], serverapp: ServerApp) -> Any:
    """A contents manager that keeps its signatures in a file, as a server does that is no test's."""
    manager = kind(parent=serverapp, root_dir=str(serverapp.root_dir))
    manager.notary = NotebookNotary(  # type: ignore[no-untyped-call]
        parent=manager, db_file=str(Path(serverapp.root_dir).parent / "signatures.db")
    )
    return manager


def opened_with(
    kind: type[Any],
    parts: JupyterServices,
    kernels: KernelService,
    serverapp: ServerApp,
    loop: asyncio.AbstractEventLoop,
) -> Iterator[NotebookService]:
    """Notebooks over such a contents manager."""
    opened = NotebookService(replace(parts, contents_manager=manager_of(kind, serverapp)), kernels)
    assert (opened._stored._own_files() is not None) is (kind is not Subclass)
    yield opened
    loop.run_until_complete(opened.close())


@pytest.fixture
def notebooks(
    parts: JupyterServices, kernels: KernelService, jp_serverapp: ServerApp, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[NotebookService]:
    """Over what every server has by default."""
    yield from opened_with(AsyncLargeFileManager, parts, kernels, jp_serverapp, jp_asyncio_loop)


@pytest.fixture(params=MANAGERS, ids=lambda kind: kind.__name__)
def either(
    request: pytest.FixtureRequest,
    parts: JupyterServices,
    kernels: KernelService,
    jp_serverapp: ServerApp,
    jp_asyncio_loop: asyncio.AbstractEventLoop,
) -> Iterator[NotebookService]:
    """Over each kind of contents manager of files."""
    yield from opened_with(request.param, parts, kernels, jp_serverapp, jp_asyncio_loop)


def code(source: str, cell_id: str, **fields: Any) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "id": cell_id,
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    return cell | fields


def write(path: Path, cells: list[dict[str, Any]], **fields: Any) -> None:
    """A notebook as some other program saves it."""
    document = {"cells": cells, "metadata": {"author": "ada"}, "nbformat": 4, "nbformat_minor": 5} | fields
    path.write_text(json.dumps(document))


async def until(condition: Callable[[], bool], *, within: float = 60) -> None:
    """Return once something that nobody announces (a file, another process) is so."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), within)


def loaded(path: Path) -> Any:
    """The notebook as a file has it."""
    return nbformat.read(path, 4)  # type: ignore[no-untyped-call]


def sources(path: Path) -> list[str]:
    return [cell["source"] for cell in loaded(path).cells]


@pytest.fixture
def work(root: Path) -> Path:
    path = root / "work.ipynb"
    markdown = {"id": "title", "cell_type": "markdown", "source": "# Title", "metadata": {}}
    write(path, [markdown, code("x = 1", "one"), code("print(x)", "two")])
    return path


async def test_cells_are_read_inserted_edited_and_deleted(
    either: NotebookService, session: Session, work: Path
) -> None:
    notebook = await either.read(session)
    assert (notebook.path, notebook.live, notebook.metadata["author"]) == ("work.ipynb", False, "ada")
    assert [(cell.id, cell.index, cell.kind, cell.source) for cell in notebook.cells] == [
        ("title", 0, "markdown", "# Title"),
        ("one", 1, "code", "x = 1"),
        ("two", 2, "code", "print(x)"),
    ]

    end = await either.insert(session, "x + 1")
    top = await either.insert(session, "*note*", kind="markdown", after="start")
    after = await either.insert(session, "y = 2", after="one")
    edited = await either.edit(session, "two", "print(x, y)", expected="print(x)")
    gone = await either.delete(session, "title")

    assert (end.index, top.index, after.index, edited.index) == (3, 0, 3, 4)
    assert (gone.id, gone.source) == ("title", "# Title")
    assert sources(work) == ["*note*", "x = 1", "y = 2", "print(x, y)", "x + 1"]
    saved = loaded(work)
    nbformat.validate(saved)
    assert len({cell.id for cell in saved.cells}) == 5
    assert saved.metadata == {"author": "ada"}
    assert list(work.parent.glob(".~*")) == []


async def test_a_file_is_saved_byte_for_byte_as_jupyter_saves_it(
    notebooks: NotebookService, session: Session, work: Path, jp_serverapp: ServerApp
) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": "grüße\n\u2028b\n"}
    write(work, [code("x = 1\ny", "one", outputs=[text], metadata={"tags": ["a"]}), code("", "two")])
    judge = manager_of(AsyncLargeFileManager, jp_serverapp)
    await judge.save(await judge.get("work.ipynb"), "work.ipynb")

    await notebooks.edit(session, "two", "z\nz")
    await notebooks.insert(session, "first\nline", kind="markdown", after="start")
    await notebooks.insert(session, "last")
    await notebooks.delete(session, "one")
    ours = work.read_bytes()
    await judge.save(await judge.get("work.ipynb"), "work.ipynb")

    assert work.read_bytes() == ours


async def test_an_index_names_a_cell_too(notebooks: NotebookService, session: Session, work: Path) -> None:
    assert (await notebooks.edit(session, "1", "x = 3")).id == "one"
    assert (await notebooks.insert(session, "z", after="-1")).index == 3
    for cell in ("9", "-9", "nope", ""):
        with pytest.raises(CellNotFound, match="4 cells"):
            await notebooks.edit(session, cell, "x")


async def test_with_an_expected_source_only_that_is_replaced(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    with pytest.raises(NotebookConflict):
        await notebooks.edit(session, "one", "x = 2", expected="x = 9")
    assert sources(work) == ["# Title", "x = 1", "print(x)"]


def meddle(notebooks: NotebookService, what: Callable[[], None], *, times: int = 1) -> list[int]:
    """Somebody else saves after each of the next readings, before what was read is saved."""
    stored = notebooks._stored
    left = [times]

    def now() -> None:
        if left[0] > 0:
            left[0] -= 1
            what()

    files = stored._own_files()
    if files is not None:
        read = files.read

        def reading(path: str) -> Any:
            got = read(path)
            now()
            return got

        files.read = reading  # type: ignore[method-assign]
    else:
        get = stored._get

        async def getting(path: str) -> Any:
            got = await get(path)
            now()
            return got

        stored._get = getting  # type: ignore[method-assign]
    return left


async def test_a_change_is_merged_with_one_that_somebody_saves_meanwhile_in_another_cell(
    either: NotebookService, session: Session, work: Path
) -> None:
    def theirs() -> None:
        write(work, [code("import new", "new"), code("x = 1", "one"), code("print(x)  # theirs", "two")])

    left = meddle(either, theirs)

    cell = await either.edit(session, "1", "x = 100")

    assert left == [0], "nobody meddled: the test shows nothing"
    assert cell.id == "one"
    assert sources(work) == ["import new", "x = 100", "print(x)  # theirs"]


async def test_a_cell_that_somebody_changes_or_deletes_meanwhile_is_a_conflict(
    either: NotebookService, session: Session, work: Path
) -> None:
    meddle(either, lambda: write(work, [code("x = 'theirs'", "one"), code("print(x)", "two")]))
    with pytest.raises(NotebookConflict):
        await either.edit(session, "one", "x = 'ours'")
    assert sources(work) == ["x = 'theirs'", "print(x)"]

    meddle(either, lambda: write(work, [code("print(x)", "two")]))
    with pytest.raises(NotebookConflict):
        await either.delete(session, "one")
    with pytest.raises(CellNotFound):
        await either.delete(session, "one")
    assert sources(work) == ["print(x)"]


async def test_somebody_who_saves_all_the_time_makes_a_conflict_not_a_hang(
    either: NotebookService, session: Session, work: Path
) -> None:
    count = [0]

    def theirs() -> None:
        count[0] += 1
        write(work, [code(f"n = {count[0]}", "n"), code("x = 1", "one")])

    meddle(either, theirs, times=100)
    with pytest.raises(NotebookConflict, match="all the time"):
        await either.edit(session, "one", "x = 2")
    assert sources(work)[1] == "x = 1"


async def test_changes_of_two_runs_at_once_are_all_kept(either: NotebookService, session: Session, work: Path) -> None:
    await asyncio.gather(*(either.insert(session, f"n = {n}") for n in range(20)))

    assert sorted(sources(work)[3:]) == sorted(f"n = {n}" for n in range(20))
    assert len(either._locks) == 0


async def test_an_old_notebook_without_ids_gets_ids_that_stay(
    either: NotebookService, session: Session, work: Path
) -> None:
    bare: list[dict[str, Any]] = [
        {"cell_type": "code", "source": text, "metadata": {}, "outputs": [], "execution_count": None} for text in "aab"
    ]
    write(work, bare, nbformat_minor=2)

    ids = [cell.id for cell in (await either.read(session)).cells]
    assert len(set(ids)) == 3
    assert [cell.id for cell in (await either.read(session)).cells] == ids
    assert (await either.insert(session, "new", after=ids[0])).index == 1
    assert (await either.edit(session, ids[2], "c")).index == 3

    saved = loaded(work)
    nbformat.validate(saved)
    assert [cell.source for cell in saved.cells] == ["a", "new", "a", "c"]
    assert [cell.id for cell in saved.cells if cell.source != "new"] == ids


async def test_trust_stays_what_it_was(
    either: NotebookService, session: Session, work: Path, jp_serverapp: ServerApp
) -> None:
    html = {"output_type": "display_data", "data": {"text/html": "<script>1</script>"}, "metadata": {}}
    write(work, [code("x", "one", outputs=[html]), code("y", "two")])
    judge = manager_of(AsyncLargeFileManager, jp_serverapp)

    async def trusted() -> bool:
        model = await judge.get("work.ipynb")
        return all(cell.metadata.trusted for cell in model["content"].cells)

    await either.insert(session, "z = 1")
    assert not await trusted(), "what nobody trusted became trusted"
    await judge.trust_notebook("work.ipynb")
    await either.insert(session, "z = 2")
    await either.edit(session, "two", "y = 3")
    assert await trusted()
    work.write_text(work.read_text().replace("<script>1", "<script>2"))
    await either.edit(session, "two", "y = 4")
    assert not await trusted()


async def test_only_notebooks_below_the_root_can_be_named(
    either: NotebookService, session: Session, work: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "elsewhere.ipynb"
    write(theirs, [code("secret", "s")])
    before = theirs.read_bytes()
    (work.parent / "link.ipynb").symlink_to(theirs)
    (work.parent / "far").symlink_to(tmp_path)
    write(work.parent / ".hidden.ipynb", [code("hidden", "h")])
    (work.parent / "plain.txt").write_text("x")
    (work.parent / "broken.ipynb").write_text("{")
    (work.parent / "list.ipynb").write_text("[]")

    for path in (
        *("link.ipynb", "far/elsewhere.ipynb", "../elsewhere.ipynb", str(theirs), ".hidden.ipynb", "plain.txt"),
        *("broken.ipynb", "list.ipynb", "none.ipynb", "far", "", "x/../../elsewhere.ipynb", "a\0.ipynb"),
    ):
        for change in (
            either.read(session, path),
            either.insert(session, "x", path=path),
            either.delete(session, "0", path=path),
        ):
            with pytest.raises((FileRefused, InvalidRequest, NotebookNotFound)):
                await change
    assert theirs.read_bytes() == before
    with pytest.raises(NotebookNotFound):
        await either.read(session, "none.ipynb")


async def test_a_file_that_jupyter_is_just_writing_is_read_when_it_is_whole(
    notebooks: NotebookService, session: Session, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work.read_text()
    work.write_text("")

    def later(_: float) -> None:
        work.write_text(whole)

    monkeypatch.setattr("navi_jupyter.jupyter.notebooks.contents.time.sleep", later)
    assert len((await notebooks.read(session)).cells) == 3


async def test_a_session_may_know_its_notebook_by_its_absolute_path(notebooks: NotebookService, work: Path) -> None:
    assert (await notebooks.read(session_of(str(work)))).path == "work.ipynb"
    with pytest.raises(InvalidRequest, match="belongs to no notebook"):
        await notebooks.read(session_of(None))


async def test_what_no_notebook_can_hold_is_refused(notebooks: NotebookService, session: Session, work: Path) -> None:
    for source in ("\ud800", "x" * 2_000_001):
        with pytest.raises(InvalidRequest):
            await notebooks.edit(session, "one", source)
    with pytest.raises(InvalidRequest):
        await notebooks.insert(session, "x", kind="shell")
    assert sources(work)[1] == "x = 1"


async def test_a_notebook_of_20_mb_is_changed_without_holding_the_loop(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    image = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 9000}, "metadata": {}}
    lines = {"output_type": "stream", "name": "stdout", "text": [f"line {n}\n" for n in range(500)]}
    write(work, [code(f"n = {n}", f"c{n}", outputs=[image, lines]) for n in range(190)])
    assert work.stat().st_size > 20_000_000
    await notebooks.read(session)  # what is imported at first use is another matter

    with loop_watched(0.5):
        await notebooks.insert(session, "small", after="c100")
        cells = (await notebooks.read(session)).cells

    assert len(cells) == 191
    assert cells[101].source == "small"


# --- running cells ---------------------------------------------------------------------------------------------------


async def test_a_cell_that_is_run_has_its_outputs_and_count_in_the_notebook(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    await notebooks.run(session, "one")
    seen: list[Any] = []

    done = await notebooks.run(session, "two", on_output=seen.append)

    assert (done.status, text_of(done.outputs)) == ("ok", "1\n")
    assert seen
    saved = loaded(work)
    nbformat.validate(saved)
    assert [cell.get("execution_count") for cell in saved.cells] == [None, 1, 2]
    assert saved.cells[2].outputs == [{"output_type": "stream", "name": "stdout", "text": "1\n"}]


async def test_an_error_and_rich_outputs_are_kept_as_a_front_end_would(
    notebooks: NotebookService, session: Session, work: Path, jp_serverapp: ServerApp
) -> None:
    source = "from IPython.display import HTML, display\nh = display(HTML('<b>1</b>'), display_id=True)\nprint('a')\n"
    await notebooks.edit(session, "one", source + "h.update(HTML('<b>2</b>'))\n1/0")

    done = await notebooks.run(session, "one")

    assert done.status == "error"
    saved = loaded(work)
    nbformat.validate(saved)
    outputs = saved.cells[1].outputs
    assert [output.output_type for output in outputs] == ["display_data", "stream", "error"]
    assert outputs[0].data["text/html"] == "<b>2</b>"
    assert outputs[2].ename == "ZeroDivisionError"
    judge = manager_of(AsyncLargeFileManager, jp_serverapp)
    trusted = (await judge.get("work.ipynb"))["content"].cells[1].metadata.trusted
    assert trusted, "what the user let run just now would not be shown"


async def test_a_stopped_cell_keeps_what_it_has_said_so_far(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    await notebooks.edit(session, "one", "import time\nprint('so far', flush=True)\ntime.sleep(600)")
    said = asyncio.Event()
    running = asyncio.create_task(notebooks.run(session, "one", on_output=lambda _: said.set()))
    await asyncio.wait_for(said.wait(), 60)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert "so far" in text_of(loaded(work).cells[1].outputs)
    assert not notebooks._recordings


async def test_outputs_come_into_the_file_while_a_long_cell_still_runs(
    notebooks: NotebookService, session: Session, work: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.jupyter.notebooks.recording.FILE_SECONDS", 0.1)
    await notebooks.edit(
        session,
        "one",
        "import pathlib, time\nprint('early', flush=True)\nwhile not pathlib.Path('go').exists(): time.sleep(.02)",
    )
    running = asyncio.create_task(notebooks.run(session, "one"))

    await until(lambda: "early" in work.read_text().replace("print('early'", ""))
    assert not running.done()
    (root / "go").touch()
    assert (await running).status == "ok"


async def test_a_run_whose_cell_is_deleted_meanwhile_still_has_its_result(
    notebooks: NotebookService, session: Session, work: Path, root: Path
) -> None:
    await notebooks.edit(
        session,
        "one",
        "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists(): time.sleep(.02)",
    )
    said = asyncio.Event()
    running = asyncio.create_task(notebooks.run(session, "one", on_output=lambda _: said.set()))
    await asyncio.wait_for(said.wait(), 60)
    await notebooks.delete(session, "one")
    (root / "go").touch()

    assert text_of((await running).outputs) == "here\n"
    assert sources(work) == ["# Title", "print(x)"]


async def test_a_cell_that_prints_without_end_does_not_hold_the_loop(
    notebooks: NotebookService, session: Session, work: Path
) -> None:
    await notebooks.edit(session, "one", "for n in range(100_000): print(n)")
    await notebooks.run(session, "two")  # the kernel starts before we watch

    with loop_watched(0.5):
        done = await notebooks.run(session, "one")

    assert done.status == "ok"
    kept = text_of(loaded(work).cells[1].outputs)
    assert kept.startswith("0\n1\n")
    assert kept.endswith("99999\n")


async def test_what_can_not_run_says_why_and_leaves_the_notebook_alone(
    notebooks: NotebookService, parts: JupyterServices, session: Session, work: Path
) -> None:
    before = work.read_bytes()
    with pytest.raises(InvalidRequest, match="markdown"):
        await notebooks.run(session, "title")
    with pytest.raises(CellNotFound):
        await notebooks.run(session, "nope")
    bare = NotebookService(parts, None)
    with pytest.raises(KernelUnavailable):
        await bare.run(session, "one")
    await bare.close()
    assert work.read_bytes() == before


async def test_another_notebooks_cell_runs_in_that_notebooks_kernel(
    notebooks: NotebookService, parts: JupyterServices, session: Session, work: Path, root: Path
) -> None:
    write(root / "other.ipynb", [code("mine = 1", "m")])
    await notebooks.run(session, "one")

    await notebooks.run(session, "m", path="other.ipynb")
    await notebooks.edit(session, "two", "print('mine' in globals())")
    done = await notebooks.run(session, "two")

    assert text_of(done.outputs) == "False\n"
    assert sorted(one["path"] for one in await parts.session_manager.list_sessions()) == ["other.ipynb", "work.ipynb"]


def test_files_are_offered_only_where_they_are_on_this_machine(parts: JupyterServices) -> None:
    from jupyter_server.services.contents.manager import ContentsManager

    assert files_of(parts) is not None
    assert files_of(replace(parts, contents_manager=ContentsManager())) is None


async def test_hooks_of_the_server_see_every_save(notebooks: NotebookService, session: Session, work: Path) -> None:
    seen: list[str] = []

    def hook(model: dict[str, Any], path: str, contents_manager: Any) -> None:
        seen.append(path)

    manager = notebooks._stored._manager
    manager.register_pre_save_hook(hook)
    await notebooks.insert(session, "x")
    assert seen == ["work.ipynb"]


class SlowSaves(AsyncLargeFileManager):
    """A save is held in its middle, where that of a large notebook is for seconds: its file is empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()

    async def _save_notebook(self, os_path: str, nb: Any, capture_validation_error: Any = None) -> None:
        with self.atomic_writing(os_path, encoding="utf-8") as file:
            self.begun.set()
            await self.goes_on.wait()
            nbformat.write(nb, file, version=nbformat.NO_CONVERT)


def slow(serverapp: ServerApp, *, own: bool) -> SlowSaves:
    """``own``: taken for one of Jupyter's own, with a hook."""
    manager: SlowSaves = manager_of(SlowSaves, serverapp)
    manager.register_pre_save_hook(lambda **_: None)
    if own:
        manager.__class__ = type(
            "AsyncLargeFileManager", (SlowSaves,), {"__module__": AsyncLargeFileManager.__module__}
        )
    return manager


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("by", ["page", "tool"])
@pytest.mark.parametrize("reader", ["mark", "read", "insert", "source", "kernel"])
async def test_a_notebook_that_is_read_in_the_middle_of_a_save_keeps_what_is_saved(
    parts: JupyterServices,
    kernels: KernelService,
    jp_serverapp: ServerApp,
    session: Session,
    work: Path,
    own: bool,
    by: str,
    reader: str,
) -> None:
    manager = slow(jp_serverapp, own=own)
    parts = replace(parts, contents_manager=manager)
    notebooks = NotebookService(parts, kernels)
    if by == "page":
        content = json.loads(work.read_text())
        content["cells"].append(nbformat.v4.new_code_cell("saved"))
        saving = asyncio.create_task(
            manager.save({"type": "notebook", "format": "json", "content": content}, "work.ipynb")
        )
    else:
        saving = asyncio.create_task(notebooks.insert(session, "saved"))
    await manager.begun.wait()
    reads: dict[str, Callable[[], Any]] = {
        "mark": lambda: notebooks.mark("work.ipynb"),
        "read": lambda: notebooks.read(session),
        "insert": lambda: notebooks.insert(session, "inserted"),
        "source": lambda: cell_source(parts, session, "two"),
        "kernel": lambda: KernelLookup(parts)._kernel_name("work.ipynb"),
    }
    reading = asyncio.create_task(reads[reader]())
    await asyncio.sleep(0.5)  # it reads
    manager.goes_on.set()
    await saving
    assert await reading is not None or reader == "kernel"  # the notebook names none
    sources = ["".join(cell["source"]) for cell in json.loads(work.read_text())["cells"]]
    assert sources[-1 if reader != "insert" else -2] == "saved"
    assert not list(work.parent.glob("*.invalid"))
    await notebooks.close()


async def test_a_save_that_was_cut_off_is_left_to_jupyter(
    parts: JupyterServices,
    kernels: KernelService,
    jp_serverapp: ServerApp,
    session: Session,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("navi_jupyter.jupyter.notebooks.notebook_file.SAVE_SECONDS", 0.2)
    notebooks = NotebookService(replace(parts, contents_manager=slow(jp_serverapp, own=False)), kernels)
    before, whole = work.with_name(".~work.ipynb"), work.read_bytes()
    before.write_bytes(whole)
    work.write_bytes(whole[:20])
    with pytest.raises(FileRefused, match="cut off"):
        await notebooks.insert(session, "x")
    assert (work.read_bytes(), before.read_bytes()) == (whole[:20], whole)
    work.write_bytes(whole)  # the other one is left behind: it means nothing
    assert len((await notebooks.read(session)).cells) > 0
    await notebooks.close()
