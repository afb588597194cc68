"""A notebook that is open with real-time collaboration is changed in the shared document: every browser sees it.

The server has the real collaboration extension; each "browser" here is a real client of its room, over a WebSocket.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_ydoc import YNotebook
from nbformat.reader import NotJSONError
from pycrdt import Doc, Provider, Text
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect
from traitlets.config import Config

from navi_jupyter import clock
from navi_jupyter.agent.tools.notebook import tools as notebook_tools
from navi_jupyter.errors import CellNotFound, NotebookConflict
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService
from navi_jupyter.jupyter.notebooks.shared_document import replace_text
from navi_jupyter.jupyter.notebooks.undo import RunEdits
from navi_jupyter.model.sessions import USER, Run, RunStatus, Session
from navi_jupyter.ports.agent import ToolContext, tool_context
from navi_jupyter.ports.jupyter_access import JupyterAccess
from navi_jupyter.store.notebooks.edits import NotebookEditStore
from tests.support.database import open_store

from .conftest import text_of
from .test_notebooks import code, loaded, sources, until, write


@pytest.fixture
def jp_server_config(jp_root_dir: Path) -> Config:
    """The server has the collaboration extension, with its databases beside the root."""
    beside = jp_root_dir.parent
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"jupyter_server_ydoc": True, "jupyter_server_fileid": True}},
            "SQLiteYStore": {"db_path": str(beside / "rtc.db")},
            "BaseFileIdManager": {"root_dir": str(jp_root_dir), "db_path": str(beside / "ids.db")},
            "YDocExtension": {
                "document_save_delay": 0.1,
                "document_cleanup_delay": 0.2,
                "file_poll_interval": 0.1,
                "session_store_path": str(beside / "sessions.json"),
            },
        }
    )


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
    markdown = {"id": "title", "cell_type": "markdown", "source": "# Title", "metadata": {}}
    write(path, [markdown, code("x = 1", "one"), code("print(x)", "two")])
    return path


class Channel:
    """A room's WebSocket, as pycrdt's provider wants it."""

    def __init__(self, socket: WebSocketClientConnection, path: str) -> None:
        self._socket = socket
        self.path = path

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        return await self.recv()

    async def send(self, message: bytes) -> None:
        await self._socket.write_message(message, binary=True)

    async def recv(self) -> bytes:
        message = await self._socket.read_message()
        if message is None:
            raise StopAsyncIteration
        assert isinstance(message, bytes)
        return message


class Browser:
    """Somebody who has the notebook open."""

    def __init__(self, document: YNotebook) -> None:
        self.document = document
        self._changed = asyncio.Event()
        self.seen: list[list[dict[str, Any]]] = []
        """The cells after each change that came."""
        document.observe(self._on_change)

    def _on_change(self, target: str, _: object) -> None:
        if target == "cells":
            self.seen.append(self.cells())
        self._changed.set()

    def cells(self) -> list[dict[str, Any]]:
        return [self.document.get_cell(index) for index in range(self.document.cell_number)]

    def sources(self) -> list[str]:
        return [cell["source"] for cell in self.cells()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds here."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), 8)


class Stepwise:
    """Awaits something and measures how long each of its steps holds the loop; others' steps do not count."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: list[float]) -> None:
        self._work = work
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        while True:
            before = time.perf_counter()
            try:
                waited = self._work.send(None)
            except StopIteration as done:
                return done.value
            finally:
                self._steps.append(time.perf_counter() - before)
            yield waited


Open = Callable[[str], Any]


@pytest.fixture
def opened(
    jp_fetch: Callable[..., Awaitable[Any]], jp_http_port: int, jp_base_url: str, jp_auth_header: dict[str, str]
) -> Open:
    """Opens a notebook as JupyterLab does."""
    rooms = f"ws://localhost:{jp_http_port}{jp_base_url}api/collaboration/room"

    @asynccontextmanager
    async def browser(path: str) -> AsyncIterator[Browser]:
        body = json.dumps({"format": "json", "type": "notebook"})
        session = json.loads((await jp_fetch("api/collaboration/session", path, method="PUT", body=body)).body)
        room = f"json:notebook:{session['fileId']}"
        url = f"{rooms}/{room}?sessionId={session['sessionId']}"
        socket = await websocket_connect(HTTPRequest(url, headers=jp_auth_header), max_message_size=1 << 30)
        document = YNotebook()
        there = Browser(document)
        try:
            async with Provider(document.ydoc, Channel(socket, room)) as provider:
                await asyncio.wait_for(provider.synced.wait(), 30)
                await there.until(lambda: document.cell_number > 0)
                yield there
        finally:
            socket.close()

    return browser


def _saved_sources(path: Path) -> list[str]:
    """None while Jupyter is writing: it writes over the file in place."""
    try:
        return sources(path)
    except NotJSONError:
        return []


async def until_saved(path: Path, condition: Callable[[list[str]], bool]) -> None:
    """Return once the file is so."""
    await until(lambda: bool(now := _saved_sources(path)) and condition(now))


async def until_closed(notebooks: NotebookService, session: Session) -> None:
    """Return once the room is gone."""

    async def wait() -> None:
        while (await notebooks.read(session)).live:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), 30)


async def test_every_browser_sees_a_change_at_once_and_the_file_gets_it(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    async with opened("work.ipynb") as ada, opened("work.ipynb") as bob:
        notebook = await notebooks.read(session)
        assert notebook.live
        assert [(cell.id, cell.kind, cell.source) for cell in notebook.cells] == [
            ("title", "markdown", "# Title"),
            ("one", "code", "x = 1"),
            ("two", "code", "print(x)"),
        ]
        assert notebook.metadata["author"] == "ada"

        new = await notebooks.insert(session, "y = 2", after="one")
        await notebooks.edit(session, "two", "print(x, y)", expected="print(x)")
        await notebooks.delete(session, "0")

        for browser in (ada, bob):
            await browser.until(lambda b=browser: b.sources() == ["x = 1", "y = 2", "print(x, y)"])
        assert ada.cells()[1]["id"] == new.id
        await until_saved(work, lambda now: now == ["x = 1", "y = 2", "print(x, y)"])
        nbformat.validate(loaded(work))


@pytest.fixture
def tools(
    run: Callable[..., ToolContext], notebooks: NotebookService, session: Session, tmp_path: Path
) -> Callable[..., Any]:
    """Calls tools in a run whose edits are kept in a real database; and what undoes them."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Callable[..., Awaitable[Any]], RunEdits, str]]:
        store = await open_store(tmp_path / "navi.db")
        edits, at = NotebookEditStore(store), clock.now()
        works = Run(
            id="r_1",
            session_id=session.id,
            command_id="c",
            status=RunStatus.QUEUED,
            origin=USER,
            model="m",
            created_at=at,
        )
        await store.write(lambda tx: tx.add_session(session))
        await store.write(lambda tx: tx.add_run(works, prompt="go", user_id="ada", first_seq=0))

        async def call(name: str, **arguments: Any) -> Any:
            context = replace(run(), jupyter=JupyterAccess(notebooks=notebooks), edits=edits)
            tool_context.set(context)
            tool = next(one for one in notebook_tools.TOOLS if one.name == name)
            return await tool.call(arguments)

        try:
            yield call, RunEdits(lambda *_: JupyterAccess(notebooks=notebooks), edits), works.id
        finally:
            await store.close()

    return opened


async def test_an_undo_is_seen_by_every_browser_and_leaves_what_one_has_changed(
    session: Session, work: Path, opened: Open, tools: Callable[..., Any]
) -> None:
    async with opened("work.ipynb") as ada, opened("work.ipynb") as bob, tools() as (call, edits, run_id):
        await call("edit_cell", cell="one", source="x = 10")
        await call("edit_cell", cell="two", source="print(10)")
        await call("delete_cell", cell="title")
        await call("insert_cell", source="new = 1")
        await ada.until(lambda: ada.sources() == ["x = 10", "print(10)", "new = 1"])
        text = ada.document.ycells[1]["source"]
        text += "  # ada"
        await bob.until(lambda: bob.sources()[1] == "print(10)  # ada")

        result = await edits.undo(session, run_id)

        assert [(edit.cell, reason) for edit, reason in result.left] == [("two", "It was changed since.")]
        for browser in (ada, bob):
            await browser.until(lambda b=browser: b.sources() == ["# Title", "x = 1", "print(10)  # ada"])
        assert ada.cells()[0]["id"] == "title"
        await until_saved(work, lambda now: now == ["# Title", "x = 1", "print(10)  # ada"])
        nbformat.validate(loaded(work))


async def test_an_edit_leaves_the_words_that_somebody_types_meanwhile(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    write(work, [code("# heading\nx = 1\n# end ü\n", "one")])
    async with opened("work.ipynb") as ada:
        # Both at the same time: neither has seen the other's.
        text = ada.document.ycells[0]["source"]
        text += "typed"
        await notebooks.edit(session, "one", "# heading\nx = 2 + 3\n# end ü\n")

        both = "# heading\nx = 2 + 3\n# end ü\ntyped"
        await ada.until(lambda: ada.sources() == [both])
        await until_saved(work, lambda now: now == [both])


async def test_a_cell_that_is_not_as_expected_or_not_there_is_left_alone(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    async with opened("work.ipynb") as ada:
        with pytest.raises(NotebookConflict):
            await notebooks.edit(session, "one", "x = 2", expected="x = 9")
        with pytest.raises(CellNotFound):
            await notebooks.edit(session, "nope", "x = 2")
        assert ada.sources() == ["# Title", "x = 1", "print(x)"]
        await notebooks.edit(session, "one", "x = 3")
        await ada.until(lambda: ada.sources()[1] == "x = 3")


async def test_the_last_cell_leaves_an_empty_one_behind(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    write(work, [code("x = 1", "one")])
    async with opened("work.ipynb") as ada:
        await notebooks.delete(session, "one")
        await ada.until(lambda: ada.sources() == [""])


async def test_outputs_of_a_run_grow_in_every_browser_while_it_runs(
    notebooks: NotebookService, session: Session, work: Path, opened: Open, jp_root_dir: Path
) -> None:
    wait = "while not pathlib.Path('go').exists(): time.sleep(.02)"
    lines = ["import pathlib, time", "from IPython.display import HTML, display", "display(HTML('<b>1</b>'))"]
    source = "\n".join([*lines, "print('first', flush=True)", wait, "print('second')", "6 * 7"])
    old = {"output_type": "stream", "name": "stdout", "text": "old"}
    write(work, [code(source, "one", outputs=[old], execution_count=7), code("y", "two")])

    async with opened("work.ipynb") as ada:
        states: list[Any] = []
        ada.document.observe(lambda *_: states.append(ada.document.ycells[0].get("execution_state")))
        running = asyncio.create_task(notebooks.run(session, "one"))

        def shown() -> list[dict[str, Any]]:
            return list(ada.cells()[0]["outputs"])

        await until(lambda: "first\n" in text_of(shown()))
        assert not running.done()
        assert "old" not in text_of(shown())
        html = ada.document.ycells[0]["outputs"][0]
        (jp_root_dir / "go").touch()
        done = await running

        await until(
            lambda: ada.cells()[0]["execution_count"] == 1 and ada.document.ycells[0]["execution_state"] == "idle"
        )
        assert done.status == "ok"
        assert [one["output_type"] for one in shown()] == ["display_data", "stream", "execute_result"]
        assert shown()[1]["text"] == "first\nsecond\n"
        assert shown()[2]["data"]["text/plain"] == "42"
        assert "running" in states
        assert html["data"]["text/html"] == "<b>1</b>", "the plot was drawn again for a line that was printed"

        def counted(path: Path) -> bool:
            try:
                saved = loaded(path)
            except NotJSONError:  # it is being written
                return False
            return saved.cells[0].execution_count == 1 and len(saved.cells[0].outputs) == 3

        await until(lambda: counted(work))
        nbformat.validate(loaded(work))


async def test_a_stopped_run_leaves_what_came_so_far_and_an_idle_cell(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    write(work, [code("import time\nprint('so far', flush=True)\ntime.sleep(600)", "one")])
    async with opened("work.ipynb") as ada:
        said = asyncio.Event()
        running = asyncio.create_task(notebooks.run(session, "one", on_output=lambda _: said.set()))
        await asyncio.wait_for(said.wait(), 60)

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        await until(
            lambda: (
                ada.document.ycells[0]["execution_state"] == "idle" and "so far" in text_of(ada.cells()[0]["outputs"])
            )
        )


async def test_when_everybody_has_left_the_file_is_changed_and_opening_it_again_shows_that(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    async with opened("work.ipynb") as ada:
        await notebooks.edit(session, "one", "x = 'shared'")
        await ada.until(lambda: ada.sources()[1] == "x = 'shared'")
        await until_saved(work, lambda now: now[1] == "x = 'shared'")

    await until_closed(notebooks, session)
    await notebooks.edit(session, "one", "x = 'alone'")
    assert sources(work)[1] == "x = 'alone'"

    async with opened("work.ipynb") as bob:
        await bob.until(lambda: bob.sources() == ["# Title", "x = 'alone'", "print(x)"])
        assert len(bob.cells()) == 3


async def test_a_run_goes_on_in_the_file_when_the_room_closes_meanwhile(
    notebooks: NotebookService, session: Session, work: Path, opened: Open, jp_root_dir: Path
) -> None:
    wait = "while not pathlib.Path('go').exists(): time.sleep(.02)"
    write(work, [code(f"import pathlib, time\nprint('first', flush=True)\n{wait}\nprint('second')", "one")])
    async with opened("work.ipynb"):
        said = asyncio.Event()
        running = asyncio.create_task(notebooks.run(session, "one", on_output=lambda _: said.set()))
        await asyncio.wait_for(said.wait(), 60)

    await until_closed(notebooks, session)
    (jp_root_dir / "go").touch()

    assert (await running).status == "ok"
    assert text_of(loaded(work).cells[0].outputs) == "first\nsecond\n"


async def test_a_shared_notebook_of_20_mb_is_read_and_changed_without_holding_the_loop(
    notebooks: NotebookService, session: Session, work: Path, opened: Open
) -> None:
    image = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 9000}, "metadata": {}}
    write(work, [code(f"n = {n}", f"c{n}", outputs=[image]) for n in range(210)])
    async with opened("work.ipynb") as ada:
        assert ada.document.cell_number == 210
        server = await notebooks._shared.notebook("work.ipynb")
        assert server is not None

        steps: list[float] = []
        cells, _ = await Stepwise(server.read(), steps)
        assert max(steps) < 1
        assert len(steps) > 1
        assert len(cells) == 210
        assert len(cells[7].outputs[0]["data"]["image/png"]) == 99_000


@settings(max_examples=300, deadline=None)
@given(st.text("ab\nüß😀", max_size=30), st.text("ab\nüß😀", max_size=30))
def test_replacing_what_differs_gives_the_new_text(before: str, after: str) -> None:
    doc: Doc[Any] = Doc()
    doc["t"] = text = Text(before)
    replace_text(text, after)
    assert str(text) == after


async def test_the_id_of_the_session_goes_into_the_shared_document_and_its_file(
    notebooks: NotebookService, opened: Open, work: Path
) -> None:
    def saved_id() -> Any:
        with suppress(ValueError):  # Jupyter is writing
            return json.loads(work.read_text())["metadata"].get("navi")
        return "half written"

    async with opened("work.ipynb") as browser:
        before = await notebooks.mark("work.ipynb")
        assert before is not None
        assert {"title", "one", "two"} <= set(before.fingerprint)
        assert await notebooks.write_id("work.ipynb", "s_1", expected=before)
        await browser.until(lambda: browser.document.get()["metadata"].get("navi") == {"session_id": "s_1"})
        await until(lambda: saved_id() == {"session_id": "s_1"})
        after = await notebooks.mark("work.ipynb")
        assert after is not None
        assert after.id == "s_1"
        assert await notebooks.write_id("work.ipynb", None, expected=after)
        await browser.until(lambda: "navi" not in browser.document.get()["metadata"])
        await until(lambda: saved_id() is None)
