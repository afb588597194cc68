"""The user's notebooks: one interface over the shared document, where there is one, and the file.

Which of the two to use is decided for every change: people open and close notebooks while the agent works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from ...errors import FileRefused, InvalidRequest, KernelUnavailable, NaviError
from ...model.sessions import Session
from ...ports.jupyter import Cell, Execution, Kernels, Notebook, OnOutput
from ..files.service import LocalFiles
from ..files.tree import Tree, split
from ..kernels.jupyter_services import JupyterServices
from .cells import CellChange, DeleteCell, EditCell, InsertCell, RecordOutputs, checked, find
from .contents import StoredNotebooks, local_root
from .output_recorder import STOPPED_SECONDS, Recording
from .shared_document import SharedDocuments


class NotebookService:
    """Implements ``ports.jupyter.Notebooks``."""

    def __init__(self, parts: JupyterServices, kernels: Kernels | None) -> None:
        root = local_root(parts.contents_manager, parts.root_dir)
        hidden = bool(getattr(parts.contents_manager, "allow_hidden", False))
        self._tree = None if root is None else Tree(root, allow_hidden=hidden)
        self._root_dir = parts.root_dir
        self._kernels = kernels
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

    async def read(self, session: Session, path: str | None = None) -> Notebook:
        """Raises NotebookNotFound, FileRefused."""
        return await self._read(self._path(session, path))

    async def insert(
        self, session: Session, source: str, *, kind: str = "code", after: str | None = None, path: str | None = None
    ) -> Cell:
        """Raises CellNotFound, NotebookConflict, NotebookNotFound, FileRefused."""
        change = InsertCell.of(source, kind, after)
        return (await self._change(self._path(session, path), change))[0]

    async def edit(
        self, session: Session, cell: str, source: str, *, expected: str | None = None, path: str | None = None
    ) -> Cell:
        """Raises as ``insert``."""
        change = EditCell(cell=cell, source=checked(source), expected=expected)
        return (await self._change(self._path(session, path), change))[0]

    async def delete(self, session: Session, cell: str, *, path: str | None = None) -> Cell:
        """The cell as it was. Raises as ``insert``."""
        return (await self._change(self._path(session, path), DeleteCell(cell=cell)))[0]

    async def run(
        self,
        session: Session,
        cell: str,
        *,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        path: str | None = None,
    ) -> Execution:
        """Raises as ``insert`` and as ``Kernels.execute``.

        When cancelled, what the cell has shown so far is in the notebook, or will be within seconds.
        """
        if self._kernels is None:
            raise KernelUnavailable("This server has no kernels.")
        where = self._path(session, path)
        notebook = await self._read(where)
        target = notebook.cells[find([one.id for one in notebook.cells], cell)]
        if target.kind != "code":
            raise InvalidRequest(f"Cell {cell} is {target.kind}; only code cells run.", field="cell")
        # Another notebook's cells run in that notebook's kernel, not in the session's.
        owner = session if where == self._own_path(session) else session.but(notebook_path=where, kernel_id=None)
        async with self._recorded(where, target.id, on_output) as recording:
            execution = await self._kernels.execute(owner, target.source, on_output=recording.add, timeout=timeout)
            recording.finish(execution)
            await recording.settled()
        return execution

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
        cells, metadata = await (self._stored.read(path) if shared is None else shared.read())
        return Notebook(path=path, live=shared is not None, cells=tuple(cells), metadata=metadata)

    async def _change(self, path: str, change: CellChange) -> tuple[Cell, bool]:
        """The cell, and whether the notebook is a shared document."""
        lock = self._locks.setdefault(path, asyncio.Lock())
        async with lock:
            shared = await self._shared.notebook(path)
            if shared is not None:
                return shared.apply(change), True
            return await self._stored.change(path, change), False

    @asynccontextmanager
    async def _recorded(self, path: str, cell: str, on_output: OnOutput | None) -> AsyncIterator[Recording]:
        async def write(record: RecordOutputs) -> bool:
            if record.outputs is None and await self._shared.notebook(path) is None:
                return False  # nbformat has no place for "it runs"
            return (await self._change(path, record))[1]

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
