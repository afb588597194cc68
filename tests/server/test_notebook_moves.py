"""A notebook is followed: what this server does to it at once, and by what it carries what happened elsewhere.

A whole runtime on a real Jupyter server: its contents manager, its events, real files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import ensure_async
from jupyter_server.serverapp import ServerApp

from navi_jupyter.errors import NotebookConflict, NotebookNotFound
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.notebooks.links import NotebookLinks
from navi_jupyter.model.recalls import RecallCreate, When, WhenSpec
from navi_jupyter.model.sessions import Session
from navi_jupyter.server.metrics import ProcessMeasures
from navi_jupyter.server.runtime import runtime
from navi_jupyter.server.services import Services
from navi_jupyter.server.wire.sessions import FoundSession, SessionFind
from navi_jupyter.settings import Settings

OWNER = "ada"


class World:
    """The files of a Jupyter server, and a runtime on it that can be stopped and started."""

    def __init__(self, serverapp: ServerApp, folder: Path) -> None:
        self.parts = JupyterServices.of(serverapp)
        self.root = Path(serverapp.root_dir)
        self.settings = Settings(database_url=f"sqlite:///{folder / 'navi.db'}")
        self.services: Services

    @asynccontextmanager
    async def on(self) -> AsyncIterator[World]:
        """The runtime runs."""
        async with runtime(self.settings, ProcessMeasures(), logging.getLogger("server"), self.parts) as self.services:
            yield self

    def make(self, path: str, *sources: str, session: str | None = None) -> Path:
        """A notebook with a cell for each source, on disk."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        if session is not None:
            notebook.metadata["navi"] = {"session_id": session}
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(nbformat.writes(notebook))
        return place

    async def ask(self, path: str, **fields: Any) -> FoundSession:
        """What a cell of the notebook finds."""
        request = SessionFind(notebook_path=path, create=True, **fields)
        return await self.services.sessions.notebooks.find(request, owner=OWNER)

    async def asked(self, path: str, **fields: Any) -> Session:
        """The session that a cell of the notebook finds."""
        session = (await self.ask(path, **fields)).session
        assert session is not None
        return session

    async def insert(self, session: Session, source: str, **fields: Any) -> None:
        """As a tool of a run does."""
        notebooks = self.services.sessions.jupyter_of("local").notebooks
        assert notebooks is not None
        await notebooks.insert(session, source, **fields)

    async def path_of(self, session: Session) -> str | None:
        """Where the session's notebook is, as is stored."""
        return (await self.services.sessions.directory.owned(session.id, OWNER)).notebook_path

    async def rename(self, source: str, target: str) -> None:
        await ensure_async(self.parts.contents_manager.rename(source, target))

    async def delete(self, path: str) -> None:
        await ensure_async(self.parts.contents_manager.delete(path))

    async def when_changed(self, session: Session, path: str) -> str:
        """The id of a recall that waits for a change of the file, and is watched."""
        spec = WhenSpec.model_validate({"kind": "when", "event": "file_changed", "path": path, "every": "1s"})
        request = RecallCreate(session_id=session.id, message="look", schedule=spec)
        recall = await self.services.recalls.service.create(request, owner=OWNER, zone="UTC")
        assert await self.services.recalls.watcher.listening(recall.id, within=30)
        return recall.id

    async def watched_path(self, recall_id: str) -> str | None:
        schedule = (await self.services.recalls.service.queries.get(recall_id, owner=OWNER)).schedule
        assert isinstance(schedule, When)
        return schedule.path


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


@pytest.fixture
def world(jp_serverapp: ServerApp, tmp_path: Path) -> World:
    return World(jp_serverapp, tmp_path)


async def test_a_renamed_notebook_keeps_its_conversation_and_a_new_one_at_its_path_is_not_written(world: World) -> None:
    world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        await world.rename("work.ipynb", "kept.ipynb")
        other = world.make("work.ipynb", "b = 2")
        before = other.read_bytes()
        await world.insert(session, "c = 3")  # of a run that began before the rename
        assert sources(world.root / "kept.ipynb") == ["a = 1", "c = 3"]
        assert other.read_bytes() == before
        assert await world.path_of(session) == "kept.ipynb"
        assert (await world.ask("kept.ipynb")).how == "found"
        assert (await world.asked("work.ipynb")).id != session.id


async def test_renames_of_folders_and_swaps_are_followed_in_their_order(world: World) -> None:
    world.make("one/a.ipynb", "a = 1")
    world.make("one/b.ipynb", "b = 2")
    async with world.on():
        a, b = await world.asked("one/a.ipynb"), await world.asked("one/b.ipynb")
        for source, target in [
            ("one/a.ipynb", "one/t.ipynb"),
            ("one/b.ipynb", "one/a.ipynb"),
            ("one/t.ipynb", "one/b.ipynb"),
        ]:
            await world.rename(source, target)
        await world.rename("one", "two")
        await world.rename("two/a.ipynb", "A.ipynb")
        await world.rename("A.ipynb", "a.ipynb")
        await world.insert(a, "# a")
        await world.insert(b, "# b")
        assert (await world.path_of(a), await world.path_of(b)) == ("two/b.ipynb", "a.ipynb")
        assert sources(world.root / "two/b.ipynb") == ["a = 1", "# a"]
        assert sources(world.root / "a.ipynb") == ["b = 2", "# b"]


async def test_what_was_moved_while_no_server_ran_is_found_by_its_id(world: World) -> None:
    place = world.make("deep/work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("deep/work.ipynb")
    (world.root / "else where").mkdir()
    place.rename(world.root / "else where/moved.ipynb")
    other = world.make("deep/work.ipynb", "b = 2")
    before = other.read_bytes()
    async with world.on():
        await world.insert(session, "c = 3")
        assert sources(world.root / "else where/moved.ipynb") == ["a = 1", "c = 3"]
        assert other.read_bytes() == before
        assert await world.path_of(session) == "else where/moved.ipynb"


async def test_of_two_that_carry_the_id_the_one_that_was_moved_is_meant(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
    os.utime(place, (1e9, 1e9))
    moved = place.rename(world.root / "z.ipynb")
    copy = world.root / "copy.ipynb"
    copy.write_bytes(moved.read_bytes())
    async with world.on():
        await world.insert(session, "c = 3")
    assert (sources(moved), sources(copy)) == (["a = 1", "c = 3"], ["a = 1"])


async def test_hidden_folders_and_environments_are_not_searched(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        for folder in (".hidden", "node_modules", "venv"):
            (world.root / folder).mkdir()
            (world.root / folder / "work.ipynb").write_bytes(place.read_bytes())
        place.unlink()
        with pytest.raises(NotebookNotFound, match="%navi session use"):
            await world.insert(session, "c = 3")


@pytest.mark.parametrize("by_server", [True, False])
async def test_a_deleted_and_made_again_notebook_is_another_one(world: World, by_server: bool) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb", kernel_id="k")
        if by_server:
            await world.delete("work.ipynb")
        else:
            place.unlink()
        with pytest.raises(NotebookNotFound):
            await world.insert(session, "c = 3")
        world.make("work.ipynb", "b = 2")
        before = place.read_bytes()
        with pytest.raises(NotebookNotFound, match="where another notebook is"):
            await world.insert(session, "c = 3")
        assert place.read_bytes() == before
        assert (await world.asked("work.ipynb", kernel_id="k")).id != session.id


async def test_an_older_version_without_the_id_that_is_put_back_is_the_notebook(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    committed = place.read_bytes()
    async with world.on():
        session = await world.asked("work.ipynb")
        place.write_bytes(committed)
        await world.insert(session, "c = 3")
        assert sources(place) == ["a = 1", "c = 3"]
        assert json.loads(place.read_text())["metadata"]["navi"] == {"session_id": session.id}
        place.write_bytes(committed)
        assert (await world.asked("work.ipynb")).id == session.id


async def test_an_older_version_at_the_path_is_not_meant_while_the_notebook_is_elsewhere(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    committed = place.read_bytes()
    async with world.on():
        session = await world.asked("work.ipynb")
        place.rename(world.root / "moved.ipynb")
        place.write_bytes(committed)
        assert (await world.asked("work.ipynb")).id != session.id
        await world.insert(session, "c = 3")
        assert sources(world.root / "moved.ipynb") == ["a = 1", "c = 3"]
        assert sources(place) == ["a = 1"]


async def test_the_check_and_the_write_are_one_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        located = NotebookLinks.located
        swapped: list[bytes] = []

        async def then_replaced(self: NotebookLinks, asked: Session) -> str | None:
            path = await located(self, asked)
            if not swapped:
                place.rename(world.root / "moved.ipynb")
                swapped.append(world.make("work.ipynb", "b = 2").read_bytes())
            return path

        monkeypatch.setattr(NotebookLinks, "located", then_replaced)
        await world.insert(session, "c = 3")
        assert sources(world.root / "moved.ipynb") == ["a = 1", "c = 3"]
        assert place.read_bytes() == swapped[0]


async def test_an_old_path_that_a_model_names_is_not_another_notebook(world: World) -> None:
    world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        await world.rename("work.ipynb", "kept.ipynb")
        other = world.make("work.ipynb", "b = 2")
        before = other.read_bytes()
        with pytest.raises(NotebookConflict, match=r"is at kept\.ipynb now"):
            await world.insert(session, "c = 3", path="work.ipynb")
        assert other.read_bytes() == before
        await world.insert(session, "c = 3", path="kept.ipynb")
        assert sources(world.root / "kept.ipynb") == ["a = 1", "c = 3"]


async def test_a_pending_notebook_is_followed_by_its_cells(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        content = json.loads(place.read_text())
        del content["metadata"]["navi"]
        await world.services.sessions.store.write(
            lambda tx: tx.change_session(session.id, {"notebook_link": "pending"})
        )
    place.write_text(json.dumps(content))
    place.rename(world.root / "moved.ipynb")
    other = world.make("work.ipynb", "b = 2")
    before = other.read_bytes()
    async with world.on():
        await world.insert(session, "c = 3")
        assert sources(world.root / "moved.ipynb") == ["a = 1", "c = 3"]
        assert other.read_bytes() == before


async def test_the_marks_of_a_notebook_grow_with_it(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        model = await ensure_async(world.parts.contents_manager.get("work.ipynb"))
        model["content"]["cells"].append(nbformat.v4.new_code_cell("later = 1"))
        await ensure_async(world.parts.contents_manager.save(model, "work.ipynb"))
        await world.asked("work.ipynb")  # what is saved is stored by then
        content = json.loads(place.read_text())
        del content["metadata"]["navi"], content["cells"][0]
        place.write_text(json.dumps(content))
        assert (await world.asked("work.ipynb")).id == session.id


# --- files that recalls wait for


async def test_recalls_that_wait_for_files_follow_them(world: World) -> None:
    world.make("work.ipynb", "a = 1")
    (world.root / "raw").mkdir()
    (world.root / "raw/data.csv").write_text("1")
    async with world.on():
        session = await world.asked("work.ipynb")
        one, glob, own, other = [
            await world.when_changed(session, path) for path in ("raw/data.csv", "raw/*.csv", "work.ipynb", "raw.csv")
        ]
        await world.services.recalls.service.pause(glob, owner=OWNER)
        await world.rename("raw/data.csv", "raw/new[1].csv")
        await world.rename("raw", "in")
        await world.rename("work.ipynb", "kept.ipynb")
        await world.path_of(session)
        await world.insert(session, "b = 2")  # renames are stored by then
        paths = [await world.watched_path(recall) for recall in (one, glob, own, other)]
        assert paths == ["in/new[[]1].csv", "in/*.csv", "kept.ipynb", "raw.csv"]
        assert await world.services.recalls.watcher.listening(one, within=30)
        (world.root / "in/new[1].csv").write_text("22")
        await fired(world, one)


async def fired(world: World, recall_id: str, count: int = 1) -> list[Mapping[str, Any]]:
    """The ledger, once it has so many rows."""
    async with asyncio.timeout(30):
        while True:
            rows = await world.services.recalls.service.firings(recall_id, owner=OWNER, limit=10)
            if len(rows) >= count:
                return [row.model_dump() for row in rows]
            await asyncio.sleep(0.05)


async def test_a_watch_of_the_own_notebook_does_not_pass_to_another_one(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        recall = await world.when_changed(session, "work.ipynb")
    place.rename(world.root / "moved.ipynb")
    world.make("work.ipynb", "b = 2")
    async with world.on():
        assert await world.services.recalls.watcher.listening(recall, within=30)
        assert await world.watched_path(recall) == "moved.ipynb"
        (world.root / "moved.ipynb").rename(world.root / "again.ipynb")
        world.make("moved.ipynb", "c = 3")
        async with asyncio.timeout(30):
            while await world.watched_path(recall) != "again.ipynb":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        rows = await world.services.recalls.service.firings(recall, owner=OWNER, limit=10)
        assert not rows


# --- kernels


async def test_the_kernel_of_another_notebook_is_not_the_sessions(world: World) -> None:
    place = world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        place.rename(world.root / "moved.ipynb")
        world.make("work.ipynb", "b = 2")
        row = await world.parts.session_manager.create_session(path="work.ipynb", name="work.ipynb", type="notebook")
        kernels = world.services.sessions.jupyter_of("local").kernels
        assert kernels is not None
        stale = session.but(kernel_id=row["kernel"]["id"])
        assert (await kernels.state(session)).status == "none"
        assert (await kernels.state(stale)).status == "none"
        await world.rename("moved.ipynb", "kept.ipynb")
        execution = await kernels.execute(session, "1")
        assert execution.status == "ok"
        rows = await world.parts.session_manager.list_sessions()
        assert sorted(one["path"] for one in rows) == ["kept.ipynb", "work.ipynb"]


async def test_a_kernel_without_a_page_follows_its_notebook(world: World) -> None:
    world.make("work.ipynb", "a = 1")
    async with world.on():
        session = await world.asked("work.ipynb")
        row = await world.parts.session_manager.create_session(path="work.ipynb", name="work.ipynb", type="notebook")
        await world.rename("work.ipynb", "kept.ipynb")
        kernels = world.services.sessions.jupyter_of("local").kernels
        assert kernels is not None
        assert (await kernels.state(session)).kernel_id == row["kernel"]["id"]
        assert (await world.asked("?", kernel_id=row["kernel"]["id"])).id == session.id
