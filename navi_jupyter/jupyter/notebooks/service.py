"""The user's notebooks: one interface over the shared document, where there is one, and the file.

Which of the two to use is decided for every change: people open and close notebooks while the agent works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ... import clock
from ...errors import FileRefused, InvalidRequest, KernelUnavailable, NaviError, NotebookConflict, NotebookNotFound
from ...log_setup import get_logger
from ...model.notebooks import ClientNotebook, ShownCell, ShownNotebook
from ...model.sessions import Session
from ...ports.jupyter import Cell, Execution, Kernels, Notebook, NotebookMark, OnOutput
from ..files.service import LocalFiles
from ..files.tree import Tree, split
from ..kernels.jupyter_services import JupyterServices
from ..kernels.lookup import has_page
from .cells import CellChange, DeleteCell, EditCell, InsertCell, RecordOutputs, check_source, checked, find
from .contents import StoredNotebooks
from .identity import id_of, set_id
from .links import AnotherNotebook, NotebookLinks, NotebookOwner
from .notebook_file import local_root
from .open_pages import OpenPages
from .recording import STOPPED_SECONDS, Recording
from .shared_document import SharedDocuments

log = get_logger("notebooks")

REPLACED = 3  # how often a change is begun again because another notebook was put in the place of the session's


class AlreadyThere(Exception):
    """The notebook carries the id already: nothing is to be saved."""


class NotebookService:
    """Implements ``ports.jupyter.Notebooks``."""

    def __init__(
        self,
        parts: JupyterServices,
        kernels: Kernels | None,
        links: NotebookLinks | None = None,
        pages: OpenPages | None = None,
    ) -> None:
        """``links`` None: the paths of sessions are taken as they are. ``pages`` None: no page is asked."""
        root = local_root(parts.contents_manager, parts.root_dir)
        hidden = bool(getattr(parts.contents_manager, "allow_hidden", False))
        self._tree = None if root is None else Tree(root, allow_hidden=hidden)
        self._root_dir = parts.root_dir
        self._kernels = kernels
        self._links = links
        self._pages = pages
        self._parts = parts
        self._shared = SharedDocuments(parts.settings)
        self._stored = StoredNotebooks(parts.contents_manager, self._tree)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One per notebook that is being changed: two runs must not read one state and save over each other."""
        self._recordings: set[Recording] = set()

    async def close(self) -> None:
        """Write what running cells have shown so far; for a moment at most."""
        for recording in list(self._recordings):
            recording.finish(None)
            await recording.settled(STOPPED_SECONDS)
        self._stored.close()

    async def read(self, session: Session, path: str | None = None, *, shown: ShownNotebook | None = None) -> Notebook:
        """Raises NotebookNotFound, FileRefused."""
        notebook = await self._read((await self._place(session, path))[0])
        if notebook.live:
            return notebook
        unsaved = None if self._pages is None else self._pages.unsaved(session.owner, notebook.path)
        if self._pages is not None and unsaved:
            now = await self._pages.show(session, notebook.path)  # newer than what came with the prompt
            if now is not None:
                return _as_page_has(notebook, now, clock.now())
        return replace(notebook, has_page=False) if unsaved is False else _as_shown(notebook, shown)

    async def insert(
        self,
        session: Session,
        source: str,
        *,
        kind: str = "code",
        after: str | None = None,
        path: str | None = None,
        cell_id: str | None = None,
    ) -> Cell:
        """Raises CellNotFound, NotebookConflict, NotebookNotFound, FileRefused."""
        return (await self._change(session, path, InsertCell.of(source, kind, after, cell_id)))[0]

    async def restore(self, session: Session, cell: Cell, *, after: str | None = None, path: str | None = None) -> Cell:
        """Raises as ``insert``."""
        change = InsertCell.of(cell.source, cell.kind, after, cell.id)
        change = replace(change, outputs=cell.outputs, execution_count=cell.execution_count)
        return (await self._change(session, path, change))[0]

    async def edit(
        self, session: Session, cell: str, source: str, *, expected: str | None = None, path: str | None = None
    ) -> Cell:
        """Raises as ``insert``."""
        return (await self._change(session, path, EditCell(cell=cell, source=checked(source), expected=expected)))[0]

    async def delete(
        self, session: Session, cell: str, *, expected: str | None = None, path: str | None = None
    ) -> Cell:
        """The cell as it was. Raises as ``insert``."""
        return (await self._change(session, path, DeleteCell(cell=cell, expected=expected)))[0]

    async def run(
        self,
        session: Session,
        cell: str,
        *,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        expected: str | None = None,
        path: str | None = None,
    ) -> Execution:
        """Raises as ``insert`` and as ``Kernels.execute``.

        When cancelled, what the cell has shown so far is in the notebook, or will be within seconds.
        """
        if self._kernels is None:
            raise KernelUnavailable("This server has no kernels.")
        where, owner = await self._place(session, path)
        if self._pages is not None and await self._shared.notebook(where) is None:
            await self._pages.save(session, where)  # what the user sees in the cell is what runs
        notebook = await self._read(where)
        target = notebook.cells[find([one.id for one in notebook.cells], cell)]
        if target.kind != "code":
            raise InvalidRequest(f"Cell {cell} is {target.kind}; only code cells run.", field="cell")
        check_source(cell, target.source, expected)
        # Another notebook's cells run in that notebook's kernel, not in the session's.
        own = owner is not None or where == self._own_path(session)
        runs_in = session if own else session.but(id="", notebook_path=where, kernel_id=None)
        async with self._recorded(session, path, target.id, on_output) as recording:
            execution = await self._kernels.execute(
                runs_in, target.source, on_output=recording.add, timeout=timeout, lent=own
            )
            recording.finish(execution)
            await recording.settled()
        return execution

    async def mark(self, path: str) -> NotebookMark | None:
        """What the notebook carries: the shared document's, where there is one. None: there is no such notebook."""
        try:
            shared = await self._shared.notebook(path)
            return await self._stored.mark(path) if shared is None else shared.mark()
        except (NotebookNotFound, FileRefused):
            return None

    def mark_now(self, path: str) -> NotebookMark | None:
        """What the notebook's file carries, read on the event loop. Raises LookupError where that is not possible."""
        return self._stored.mark_now(path)

    async def write_id(
        self, path: str, session_id: str | None, *, expected: NotebookMark, is_open: bool = False
    ) -> bool:
        """Have the notebook carry the id (None: no id); whether it does now.

        False: a page has it open (``is_open``: also if it has no kernel), whose next save brings the id (nothing is
        changed behind its back); or it is another notebook now: it carries neither the id nor a cell of ``expected``.
        """

        def edit(metadata: MutableMapping[str, Any], now: NotebookMark) -> None:
            if now.id not in (session_id, expected.id) or (now.cells and now.cells.isdisjoint(expected.cells)):
                raise NotebookConflict(f"{path} is another notebook now.")
            if not set_id(metadata, session_id):
                raise AlreadyThere

        try:
            async with self._lock(path):
                shared = await self._shared.notebook(path)
                if shared is not None:
                    with suppress(AlreadyThere):
                        edit(shared.metadata(), shared.mark())
                        shared.set_id(session_id)
                elif is_open or await has_page(self._parts, path):
                    return False
                else:
                    with suppress(AlreadyThere):
                        await self._stored.change_metadata(path, edit)
        except (NotebookConflict, NotebookNotFound, FileRefused) as error:
            log.info("id_not_written", path=path, reason=error.message)
            return False
        return True

    async def _place(self, session: Session, path: str | None) -> tuple[str, NotebookOwner | None]:
        """The path of a notebook, and whose it has to be, if it is the session's own: verified, and again at a change.

        Raises InvalidRequest, FileRefused, NotebookNotFound, NotebookConflict.
        """
        if self._links is None:
            return self._path(session, path), None
        owner = await self._links.owner_of(session)
        own = {self._path(session, None), owner.path} if owner is not None and session.notebook_path else set()
        if path is not None and self._path(session, path) not in own:
            return self._path(session, path), None
        found = await self._links.located(session) if owner is not None else session.notebook_path
        where = self._path(session.but(notebook_path=found), None)
        if path is not None and self._path(session, path) != where:
            # What a model has read of this notebook's path is old; the one that is there now is not meant.
            raise NotebookConflict(f"The notebook of this conversation is at {where} now, not at {path}.")
        return where, owner

    def _path(self, session: Session, path: str | None) -> str:
        """Relative to the root. Raises InvalidRequest, FileRefused."""
        if path is None:
            own = self._own_path(session)
            if own is None:
                raise InvalidRequest("This conversation belongs to no notebook; give a path.", field="path")
            path = own
        names = split(path)
        if not names:
            raise InvalidRequest("The path is empty.", field="path")
        if not names[-1].endswith(".ipynb"):
            raise InvalidRequest(f"{path} is no notebook (.ipynb).", field="path")
        if self._tree is not None and not all(self._tree.shown(name) for name in names):
            raise FileRefused(f"{path} is hidden, and this server does not show hidden files.", field="path")
        return "/".join(names)

    def _own_path(self, session: Session) -> str | None:
        """The session's notebook; kernels may know it by its absolute path."""
        path = session.notebook_path
        if path is None or not Path(path).is_absolute():
            return path
        for root in {Path(self._root_dir), *([Path(self._tree.root)] if self._tree else [])}:
            if Path(path).is_relative_to(root):
                return Path(path).relative_to(root).as_posix()
        return path.lstrip("/") if self._tree is None else path

    async def _read(self, path: str) -> Notebook:
        shared = await self._shared.notebook(path)
        if shared is None:
            return replace(await self._stored.read(path), has_page=await has_page(self._parts, path))
        cells, metadata = await shared.read()
        return Notebook(path=path, live=True, cells=tuple(cells), metadata=metadata)

    def _lock(self, path: str) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    async def _change(self, session: Session, path: str | None, change: CellChange) -> tuple[Cell, bool]:
        """The cell, and whether the notebook is a shared document."""
        for _ in range(REPLACED):
            where, owner = await self._place(session, path)
            with suppress(AnotherNotebook):  # it was moved since it was located, and another one is there
                changed = await self._change_at(session, where, change, owner)
                if self._pages is not None:
                    await self._pages.changed(session, where)
                return changed
        raise NotebookConflict("The notebook of this conversation is being moved all the time; try again later.")

    async def _change_at(
        self, session: Session, path: str, change: CellChange, owner: NotebookOwner | None
    ) -> tuple[Cell, bool]:
        async with self._lock(path):
            shared = await self._shared.notebook(path)
            if shared is None and self._pages is not None and not isinstance(change, RecordOutputs):
                made = await self._pages.make(session, path, change)
                if made is not None:
                    return made, False
            if shared is None:
                return await self._stored.change(path, change, owner.check if owner else None), False
            if owner is not None and not owner.is_named(shared.metadata()):
                metadata = shared.metadata()
                owner.check(metadata, shared.mark())
                shared.set_id(id_of(metadata))
            return shared.apply(change), True

    @asynccontextmanager
    async def _recorded(
        self, session: Session, path: str | None, cell: str, on_output: OnOutput | None
    ) -> AsyncIterator[Recording]:
        async def write(record: RecordOutputs) -> bool:
            if record.outputs is None:
                where, _ = await self._place(session, path)
                if await self._shared.notebook(where) is None:
                    return False  # nbformat has no place for "it runs"
            return (await self._change(session, path, record))[1]

        recording = Recording(cell, write, on_output)
        self._recordings.add(recording)
        recording.task.add_done_callback(lambda _: self._recordings.discard(recording))
        try:
            yield recording
        except (NaviError, asyncio.CancelledError):  # it did not begin, or is stopped
            # Its task goes on by itself if this is not enough, or is cancelled too.
            recording.finish(None)
            await recording.settled(STOPPED_SECONDS)
            raise
        finally:
            recording.finish(None)


def files_of(parts: JupyterServices) -> LocalFiles | None:
    """The files below the server's root; None when they are not on this machine."""
    root = local_root(parts.contents_manager, parts.root_dir)
    if root is None:
        return None
    manager = parts.contents_manager
    return LocalFiles(
        root, allow_hidden=bool(getattr(manager, "allow_hidden", False)), hide=tuple(getattr(manager, "hide_globs", ()))
    )


# The notebook as the user sees it: its cells in a page that has it open, where these are newer than the file. A page
# that is there says what it shows when it is asked (``open_pages``). A page also sends its cells with a prompt: where
# none is there any more, they count until the file is saved again, which has what the page had, or what a tool has made
# of it since. A shared document is always what the page shows.


def _as_shown(notebook: Notebook, shown: ShownNotebook | None) -> Notebook:
    """The notebook with the cells of a prompt's page, if it showed this one with changes that no save has met."""
    if shown is None or not shown.notebook.unsaved or shown.notebook.path != notebook.path:
        return notebook
    if notebook.modified is not None and notebook.modified > shown.at:
        return notebook
    return _as_page_has(notebook, shown.notebook, shown.at)


def _as_page_has(notebook: Notebook, page: ClientNotebook, at: datetime) -> Notebook:
    """The notebook with the cells of a page."""
    if page.cells is None:
        return notebook
    saved = {cell.id: cell for cell in notebook.cells}
    cells = [_page_cell(index, cell, saved.get(cell.id)) for index, cell in enumerate(page.cells)]
    return replace(notebook, cells=tuple(cells), shown_at=at)


def _page_cell(index: int, shown: ShownCell, saved: Cell | None) -> Cell:
    unread: tuple[str, ...] = ()
    source = shown.source
    if source is None:
        source = saved.source if saved is not None else ""
        unread = ("its source is long: this is the one of the file",)
    same = saved is not None and saved.kind == shown.type and saved.execution_count == shown.execution_count
    return Cell(
        id=shown.id,
        index=index,
        kind=shown.type,
        source=source,
        execution_count=shown.execution_count,
        # Those of the file are whole, the page's are the beginning of their text.
        outputs=saved.outputs if saved is not None and same else tuple(_page_outputs(shown)),
        unread=unread,
    )


def _page_outputs(shown: ShownCell) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if shown.output:
        outputs.append({"output_type": "stream", "name": "stdout", "text": shown.output})
    if shown.error:
        name, _, value = shown.error.partition(": ")
        outputs.append({"output_type": "error", "ename": name, "evalue": value, "traceback": []})
    return outputs
