"""Notebooks that are open with real-time collaboration are followed, too: renamed under an open document, and swapped.

The server has the real collaboration extension; a page is a real client of a room.
"""

from __future__ import annotations

import json
import random
from contextlib import AsyncExitStack
from pathlib import Path

from jupyter_server.serverapp import ServerApp

from navi_jupyter.model.sessions import Session
from tests.jupyter.test_documents import Browser, Open, jp_server_config, opened, until_saved  # noqa: F401 - fixtures

from .test_notebook_moves import World, sources


async def test_a_renamed_shared_document_is_the_conversations_and_a_new_notebook_at_its_path_is_not(
    jp_serverapp: ServerApp,
    tmp_path: Path,
    opened: Open,  # noqa: F811
) -> None:
    world = World(jp_serverapp, tmp_path)
    world.make("work.ipynb", "a = 1")
    async with world.on(), opened("work.ipynb") as page:
        session = await world.asked("work.ipynb")
        assert session.notebook_link == "linked"  # it is in the shared document
        await until_saved(world.root / "work.ipynb", lambda _: True)
        await world.rename("work.ipynb", "kept.ipynb")
        other = world.make("work.ipynb", "b = 2")
        before = other.read_bytes()
        await world.insert(session, "c = 3")
        await page.until(lambda: page.sources() == ["a = 1", "c = 3"])
        await until_saved(world.root / "kept.ipynb", lambda now: now == ["a = 1", "c = 3"])
        carried = json.loads((world.root / "kept.ipynb").read_text())["metadata"]["navi"]
        assert carried == {"session_id": session.id}
        assert other.read_bytes() == before
        async with opened("work.ipynb") as second:
            assert (await world.asked("work.ipynb")).id != session.id
            await world.insert(session, "d = 4")
            await page.until(lambda: page.sources()[-1] == "d = 4")
            assert second.sources() == ["b = 2"]


async def test_random_histories_of_shared_documents(
    jp_serverapp: ServerApp,
    tmp_path: Path,
    opened: Open,  # noqa: F811
) -> None:
    for seed in range(4):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = World(jp_serverapp, folder)
        names = [f"{name} {seed}.ipynb" for name in ("a", "b", "c", "d")]
        for name in names[:3]:
            world.make(name, f"token = {name!r}")
        async with world.on(), AsyncExitStack() as pages:
            books: list[tuple[Session, str, list[str]]] = []
            open_in: dict[str, Browser] = {}  # by session
            for name in names[:3]:
                if chance.random() < 0.7:
                    page = await pages.enter_async_context(opened(name))
                    session = await world.asked(name)
                    open_in[session.id] = page
                else:
                    session = await world.asked(name)
                books.append((session, name, [f"token = {name!r}"]))
            for step in range(8):
                index = chance.randrange(3)
                session, path, cells = books[index]
                free = next(name for name in names if all(name != taken for _, taken, _ in books))
                if chance.random() < 0.5:
                    await world.rename(path, free)
                    books[index] = (session, free, cells)
                else:
                    cells.append(f"# {step}")
                    await world.insert(session, cells[-1])
                for one, _, wanted in books:
                    page_of = open_in.get(one.id)
                    if page_of is not None:
                        await page_of.until(lambda page=page_of, wanted=wanted: page.sources() == wanted)  # type: ignore[misc]
            for session, path, cells in books:
                await until_saved(world.root / path, lambda now, cells=cells: now == cells)  # type: ignore[misc]
                assert (await world.asked(path)).id == session.id
            assert sorted(sources(world.root / path) for _, path, _ in books) == sorted(cells for _, _, cells in books)
