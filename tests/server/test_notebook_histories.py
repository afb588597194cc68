"""Random histories of notebooks: whatever is done, a conversation stays with its notebook, and no other is written.

Each step is done to real files, by the server's contents manager or behind its back, with the runtime on or off. A
model knows which notebook is which and which cells each has; after each step all files are compared with it. The number
of histories is NAVI_HISTORIES, their first seed NAVI_SEED.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import ensure_async
from jupyter_server.serverapp import ServerApp
from nbformat.sign import NotebookNotary
from tornado.web import HTTPError

from navi_jupyter.errors import InvalidRequest, NotebookNotFound

from .test_notebook_moves import World, sources

HISTORIES = int(os.environ.get("NAVI_HISTORIES", "8"))
SEED = int(os.environ.get("NAVI_SEED", "0"))
STEPS = 16
NAMES = ("work", "Work", "notes", "a b", "ä")
FOLDERS = ("", "one", "two", "one/deep")


@dataclass(eq=False)
class Book:
    """A notebook as the model knows it."""

    path: str | None  # None: deleted
    cells: list[str]
    session: str | None = None
    seen: str | None = None  # where the server last had reason to know it
    carries: bool = False  # its file has the session's id
    page: bool = False  # open in a page, which does not know the id
    copies: set[int] = field(default_factory=set)  # copies without a question in them: which is the original is open
    trash: bytes | None = None
    recall: str | None = None  # waits for a change of its file
    old: str | None = None  # an older version without an id


class History:
    """One history; ``log`` is what was done."""

    def __init__(self, world: World, seed: int, kernel_id: str) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.kernel_id = kernel_id
        self.books: list[Book] = []
        self.log: list[str] = []
        self.running: AsyncExitStack | None = None
        self.count = 0

    # --- what can be done -----------------------------------------------------------------------------------------

    def steps(self) -> list[Callable[[], Awaitable[None]]]:
        on = [
            self.ask, self.ask, self.ask, self.insert, self.insert, self.insert, self.rename, self.rename,
            self.rename_folder, self.swap, self.rename_over, self.copy, self.delete, self.save, self.save_as,
            self.page, self.watch, self.off,
        ]  # fmt: skip
        always = [
            self.make,
            self.mv,
            self.mv,
            self.cp,
            self.rm,
            self.replace,
            self.restore,
            self.undelete,
            self.mv_folder,
        ]
        return [*on, *always] if self.running else [*always, self.on, self.on, self.on]

    async def run(self) -> None:
        await self.on()
        for _ in range(2):
            await self.make()
            await self.ask()
        for _ in range(STEPS):
            await self.random.choice(self.steps())()
            self.compare()
        if not self.running:
            await self.on()
        for book in self.books:
            await self.insert(book)
            await self.ask(book)
            await self.check_watch(book)
            self.compare()
        await self.off()

    async def on(self) -> None:
        self.log.append("on")
        self.running = AsyncExitStack()
        await self.running.enter_async_context(self.world.on())

    async def off(self) -> None:
        self.log.append("off")
        assert self.running is not None
        await self.running.aclose()
        self.running = None

    async def make(self) -> None:
        path = self.free()
        self.log.append(f"make {path}")
        self.books.append(self.made(path))

    def made(self, path: str) -> Book:
        self.count += 1
        cells = [f"token = {self.count}", f"more = {self.count}"]
        text = self.world.make(path, *cells).read_text()
        return Book(path=path, cells=cells, old=text)

    async def ask(self, book: Book | None = None) -> None:
        """A cell of the notebook asks, in a kernel that was started since."""
        book = book or self.any()
        if book is None or book.path is None:
            return
        self.count += 1
        found = await self.world.asked(book.path, kernel_id=f"kernel-{self.count}")
        self.log.append(f"ask {book.path} -> {found.id}")
        others = {one.session for one in self.books if one is not book}
        assert found.id not in others, "the conversation of another notebook"
        lost = not book.carries and book.seen != book.path  # pending and moved behind the server's back
        assert book.session in (None, found.id) or lost, "its conversation is gone"
        if book.session != found.id:
            book.recall = None
        book.session, book.seen = found.id, book.path
        book.carries = found.notebook_link == "linked"
        for one in self.books:
            one.copies.discard(id(book))

    async def insert(self, book: Book | None = None) -> None:
        """A tool of the conversation inserts a cell, also of one whose notebook is gone."""
        book = book or self.any(gone=True)
        if book is None or book.session is None:
            return
        self.count += 1
        source = f"# inserted {self.count}"
        session = await self.world.services.sessions.directory.owned(book.session, "ada")
        try:
            await self.world.insert(session, source)
        except (NotebookNotFound, InvalidRequest) as error:
            self.log.append(f"insert {book.path} refused: {error}")
            assert book.path is None or not book.carries, "its notebook is there"
            return
        self.log.append(f"insert {book.path}: {source}")
        assert book.path is not None, "its notebook is gone"
        book.cells.append(source)
        book.seen, book.carries = book.path, True

    async def rename(self) -> None:
        if (book := self.any()) is not None and book.path is not None:
            await self.renamed(book.path, self.free())

    async def swap(self) -> None:
        one, other = self.any(), self.any()
        if one is not None and other is not None and one is not other and one.path and other.path:
            first, second, between = one.path, other.path, self.free()
            await self.renamed(first, between)
            await self.renamed(second, first)
            await self.renamed(between, second)

    async def rename_folder(self) -> None:
        folders = sorted({book.path.rpartition("/")[0] for book in self.books if book.path and "/" in book.path})
        if folders:
            self.count += 1
            await self.renamed(self.random.choice(folders), f"folder {self.count}")

    async def renamed(self, source: str, target: str) -> None:
        self.log.append(f"rename {source} -> {target}")
        await self.world.rename(source, target)
        for book in self.books:
            moved = book.path is not None and (book.path == source or book.path.startswith(f"{source}/"))
            if moved and book.path is not None:
                new = target + book.path.removeprefix(source)
                book.seen = new if book.seen == book.path else book.seen
                book.path = new

    async def rename_over(self) -> None:
        one, other = self.any(), self.any()
        if one is not None and other is not None and one is not other and one.path and other.path:
            self.log.append(f"rename {one.path} over {other.path}")
            with pytest.raises(HTTPError):
                await self.world.rename(one.path, other.path)

    async def copy(self) -> None:
        if (book := self.any()) is not None and book.path is not None:
            model = await ensure_async(self.world.parts.contents_manager.copy(book.path, book.path.rpartition("/")[0]))
            await self.settle()
            self.copied(book, model["path"], carries=book.session is not None and not book.carries)
            if book.carries:
                book.seen = book.path

    def copied(self, book: Book, path: str, *, carries: bool = True) -> None:
        """``carries``: the copy may carry the id of the original, or be taken for it by its cells."""
        self.log.append(f"copy {book.path} -> {path}")
        made = Book(path=path, cells=list(book.cells), old=book.old)
        self.books.append(made)
        if carries:
            book.copies.add(id(made))

    async def delete(self) -> None:
        if (book := self.any(original=True)) is not None and book.path is not None:
            self.log.append(f"delete {book.path}")
            content = (self.world.root / book.path).read_bytes()
            await self.world.delete(book.path)
            self.gone(book, content)

    def gone(self, book: Book, content: bytes) -> None:
        book.path, book.seen, book.page, book.old = None, None, False, None
        book.trash = content if book.carries else None
        for one in self.books:
            one.copies.discard(id(book))

    async def save(self) -> None:
        """A page that was opened before the notebook had an id saves it with a new cell."""
        if (book := self.any()) is not None and book.path is not None and self.known(book):
            self.count += 1
            book.cells.append(f"page = {self.count}")
            self.log.append(f"save {book.path}: {book.cells[-1]}")
            content = json.loads((self.world.root / book.path).read_text())
            content["metadata"].pop("navi", None)
            content["cells"].append(nbformat.v4.new_code_cell(book.cells[-1]))
            await self.saved(content, book.path)
            saved = json.loads((self.world.root / book.path).read_text())
            carried = saved["metadata"].get("navi", {}).get("session_id")
            assert carried in (None, book.session)
            book.carries = carried is not None
            assert book.carries or book.session is None

    async def saved(self, content: dict[str, Any], path: str) -> None:
        model = {"type": "notebook", "format": "json", "content": copy.deepcopy(content)}
        await self.settle()
        await ensure_async(self.world.parts.contents_manager.save(model, path))
        await self.settle()

    async def settle(self) -> None:
        """What the server did a moment ago is stored: nothing is done to a file within milliseconds of its save."""
        links = self.world.services.sessions.notebooks._links
        assert links is not None
        await links.settled()

    async def save_as(self) -> None:
        """A page that knows the id saves the notebook under another name."""
        if (book := self.any()) is not None and book.path is not None and book.carries and self.known(book):
            path = self.free()
            await self.saved(json.loads((self.world.root / book.path).read_text()), path)
            self.copied(book, path)

    async def page(self) -> None:
        """A page opens the notebook: from now on the id may wait for its next save."""
        if (book := self.any()) is not None and book.path is not None and not book.page:
            self.log.append(f"page {book.path}")
            name = book.path.rpartition("/")[2]
            await self.world.parts.session_manager.create_session(
                path=book.path, name=name, type="notebook", kernel_id=self.kernel_id
            )
            book.page = True

    async def watch(self) -> None:
        book = self.any()
        if book is not None and book.path is not None and book.session and book.recall is None and self.known(book):
            await self.settle()
            session = await self.world.services.sessions.directory.owned(book.session, "ada")
            book.recall = await self.world.when_changed(session, book.path)
            self.log.append(f"watch {book.path}")

    async def check_watch(self, book: Book) -> None:
        """Where the notebook is known to be, its recall waits for it, and else for no other notebook's file."""
        if book.recall is None:
            return
        path = await self.world.watched_path(book.recall)
        if book.path is not None and book.carries and book.seen == book.path:
            assert path == book.path, "the recall waits for another file"

    async def mv(self) -> None:
        if (book := self.any(original=True)) is not None and book.path is not None:
            target = self.free()
            self.log.append(f"mv {book.path} {target}")
            (self.world.root / book.path).rename(self.world.root / target)
            book.path = target

    async def mv_folder(self) -> None:
        books = [book for book in self.books if book.path and "/" in book.path]
        if books:
            source = (self.random.choice(books).path or "").partition("/")[0]
            inside = [book for book in self.books if book.path and book.path.startswith(f"{source}/")]
            if any(book.copies for book in inside):
                return
            self.count += 1
            target = f"moved {self.count}"
            self.log.append(f"mv {source} {target}")
            (self.world.root / source).rename(self.world.root / target)
            for book in inside:
                book.path = target + (book.path or "").removeprefix(source)

    async def cp(self) -> None:
        if (book := self.any()) is not None and book.path is not None and self.known(book):
            path = self.free()
            shutil.copy(self.world.root / book.path, self.world.root / path)
            self.copied(book, path)

    async def rm(self) -> None:
        if (book := self.any(original=True)) is not None and book.path is not None:
            self.log.append(f"rm {book.path}")
            place = self.world.root / book.path
            content = place.read_bytes()
            place.unlink()
            self.gone(book, content)

    async def replace(self) -> None:
        """Another notebook takes the place of this one, in the same file or in a new one."""
        if (book := self.any(original=True)) is not None and book.path is not None:
            path, place = book.path, self.world.root / book.path
            self.log.append(f"replace {path}")
            content = place.read_bytes()
            if self.random.random() < 0.5:
                place.unlink()
            self.gone(book, content)
            self.books.append(self.made(path))

    async def restore(self) -> None:
        """An older version is put back, as version control does."""
        book = self.any(original=True)
        if book is not None and book.path is not None and book.old is not None and self.known(book):
            self.log.append(f"restore {book.path}")
            place = self.world.root / book.path
            place.write_text(book.old)
            book.cells = sources(place)
            book.carries = False

    async def undelete(self) -> None:
        """A notebook that was deleted comes back, anywhere."""
        books = [book for book in self.books if book.path is None and book.trash is not None]
        if books:
            book = self.random.choice(books)
            book.path = self.free()
            self.log.append(f"undelete {book.path}")
            (self.world.root / book.path).write_bytes(book.trash or b"")
            book.trash = None

    # --- the model ------------------------------------------------------------------------------------------------

    def any(self, *, gone: bool = False, original: bool = False) -> Book | None:
        """One of the notebooks; ``original``: of no two files is it open which is the original."""
        books = [book for book in self.books if (gone or book.path is not None) and not (original and book.copies)]
        return self.random.choice(books) if books else None

    def known(self, book: Book) -> bool:
        """The server has no wrong idea of where it is."""
        return book.session is None or book.seen == book.path

    def free(self) -> str:
        """A path at which no notebook is."""
        self.count += 1
        folder, name = self.random.choice(FOLDERS), self.random.choice(NAMES)
        taken = {book.path for book in self.books}
        path = "/".join(part for part in (folder, f"{name}.ipynb") if part)
        if path in taken or (self.world.root / path).exists():
            path = path.removesuffix(".ipynb") + f" {self.count}.ipynb"
        (self.world.root / path).parent.mkdir(parents=True, exist_ok=True)
        return path

    def compare(self) -> None:
        """All files are as the model has them."""
        places = [place for place in self.world.root.rglob("*.ipynb") if place.parent.name != ".ipynb_checkpoints"]
        there = {str(place.relative_to(self.world.root)): sources(place) for place in places}
        assert there == {book.path: book.cells for book in self.books if book.path is not None}


@pytest.mark.timeout(120 + 4 * HISTORIES)
@pytest.mark.parametrize("way", ["its own way to the file", "through the contents manager"])
async def test_a_conversation_stays_with_its_notebook_whatever_is_done_to_it(
    jp_serverapp: ServerApp, tmp_path: Path, way: str
) -> None:
    manager = jp_serverapp.contents_manager
    manager.delete_to_trash = False
    if way == "its own way to the file":  # see `notebooks.contents`: signatures in a file, as a server has them
        signatures = str(tmp_path / "signatures.db")
        manager.notary = NotebookNotary(parent=manager, db_file=signatures)  # type: ignore[no-untyped-call]
    kernel = await jp_serverapp.session_manager.create_session(path="x", name="x", type="console")
    kernel_id = kernel["kernel"]["id"]
    jp_serverapp.kernel_manager.notify_connect(kernel_id)
    for seed in range(SEED, SEED + HISTORIES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(World(jp_serverapp, folder), seed, kernel_id)
        try:
            await history.run()
        except BaseException as error:
            error.add_note(f"seed {seed}:\n" + "\n".join(history.log))
            raise
        finally:
            if history.running is not None:
                await history.running.aclose()
            for row in await jp_serverapp.session_manager.list_sessions():
                if row["type"] == "notebook":
                    jp_serverapp.session_manager.cursor.execute(
                        "DELETE FROM session WHERE session_id = ?", (row["id"],)
                    )
            for entry in history.world.root.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
