"""The user's notebooks: one interface over the shared document, where there is one, and the file.

Which of the two to use is decided for every change: people open and close notebooks while the agent works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ...errors import FileRefused, InvalidRequest, KernelUnavailable, NaviError, NotebookConflict, NotebookNotFound
from ...log_setup import get_logger
from ...model.sessions import Session
from ...output_text import merge_streams
from ...ports.jupyter import Cell, Execution, Kernels, Notebook, NotebookMark, OnOutput, Output
from ...text import joined
from ..files.service import LocalFiles
from ..files.tree import Tree, split
from ..kernels.jupyter_services import JupyterServices
from ..kernels.lookup import has_page
from .cells import CellChange, DeleteCell, EditCell, InsertCell, RecordOutputs, check_source, checked, find
from .contents import StoredNotebooks
from .identity import id_of, set_id
from .links import AnotherNotebook, NotebookLinks, NotebookOwner
from .notebook_file import local_root
from .shared_document import SharedDocuments

log = get_logger("notebooks")

REPLACED = 3  # how often a change is begun again because another notebook was put in the place of the session's


class AlreadyThere(Exception):
    """The notebook carries the id already: nothing is to be saved."""


class NotebookService:
    """Implements ``ports.jupyter.Notebooks``."""

    def __init__(self, parts: JupyterServices, kernels: Kernels | None, links: NotebookLinks | None = None) -> None:
        """``links`` None: the paths of sessions are taken as they are."""
        root = local_root(parts.contents_manager, parts.root_dir)
        hidden = bool(getattr(parts.contents_manager, "allow_hidden", False))
        self._tree = None if root is None else Tree(root, allow_hidden=hidden)
        self._root_dir = parts.root_dir
        self._kernels = kernels
        self._links = links
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

    async def read(self, session: Session, path: str | None = None) -> Notebook:
        """Raises NotebookNotFound, FileRefused."""
        return await self._read((await self._place(session, path))[0])

    async def insert(
        self, session: Session, source: str, *, kind: str = "code", after: str | None = None, path: str | None = None
    ) -> Cell:
        """Raises CellNotFound, NotebookConflict, NotebookNotFound, FileRefused."""
        return (await self._change(session, path, InsertCell.of(source, kind, after)))[0]

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
            return await self._stored.read(path)
        cells, metadata = await shared.read()
        return Notebook(path=path, live=True, cells=tuple(cells), metadata=metadata)

    def _lock(self, path: str) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    async def _change(self, session: Session, path: str | None, change: CellChange) -> tuple[Cell, bool]:
        """The cell, and whether the notebook is a shared document."""
        for _ in range(REPLACED):
            where, owner = await self._place(session, path)
            with suppress(AnotherNotebook):  # it was moved since it was located, and another one is there
                return await self._change_at(where, change, owner)
        raise NotebookConflict("The notebook of this conversation is being moved all the time; try again later.")

    async def _change_at(self, path: str, change: CellChange, owner: NotebookOwner | None) -> tuple[Cell, bool]:
        async with self._lock(path):
            shared = await self._shared.notebook(path)
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


LIVE_SECONDS = 0.1  # between two changes of a shared document
FILE_SECONDS = 3.0  # between two saves of a file
STOPPED_SECONDS = 2.0  # how long a run that is stopped waits for what came so far to be written

Write = Callable[[RecordOutputs], Awaitable[bool]]
"""Stores outputs in the notebook; whether that is a shared document now."""


class Recording:
    """One execution of one cell."""

    def __init__(self, cell: str, write: Write, on_output: OnOutput | None) -> None:
        self._cell = cell
        self._write = write
        self._on_output = on_output
        self._outputs: list[dict[str, Any]] = []
        """Outputs since they were last cleared, adjacent pieces of a stream as one."""
        self._pieces: list[str] = []
        """More text of the last of them, a stream. Joined when it is written: a cell may print a million times."""
        self._places: list[int] = []  # for each output that came since then, its index in them
        self._fresh = False  # something is not in the notebook yet
        self._grown = True  # the outputs in the notebook are the first of ours (see `RecordOutputs.grown`)
        self._written = False
        self._count: int | None = None
        self._over = False
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"navi-recording-{cell}")

    def add(self, output: Output) -> None:
        """An output came. See ``ports.jupyter.OnOutput`` for those that change earlier ones."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._replace([])
        elif kind == "update_display_data":
            index = int(output["index"])
            if index < len(self._places):
                place = self._places[index]
                changed = {name: output[name] for name in ("data", "metadata") if name in output}
                self._outputs[place] = {**self._outputs[place], **changed}
            self._grown = False
        else:
            self._append(output)
        self._fresh = True
        self._news.set()
        if self._on_output is not None:
            self._on_output(output)

    def finish(self, execution: Execution | None) -> None:
        """The execution is over; None when it was stopped before its end, or did not begin."""
        if execution is not None:
            self._count = execution.execution_count
            # These are bounded at both ends; what came piece by piece lacks the end of a flood.
            final = merge_streams(execution.outputs)
            if final != self._all():
                self._replace(final)
            self._fresh = True
        self._over = True
        self._news.set()

    async def settled(self, within: float | None = None) -> None:
        """Return once all is written, or after ``within`` seconds; the writing goes on."""
        await asyncio.wait({self.task}, timeout=within)

    def _append(self, output: Output) -> None:
        last = self._outputs[-1] if self._outputs else None
        if output["output_type"] != "stream":
            self._all()
            self._outputs.append(dict(output))
        elif last is not None and last["output_type"] == "stream" and last["name"] == output["name"]:
            self._pieces.append(joined(output["text"]))
        else:
            self._all()
            self._outputs.append({**output, "text": joined(output["text"])})
        self._places.append(len(self._outputs) - 1)

    def _all(self) -> list[dict[str, Any]]:
        if self._pieces:
            self._outputs[-1] = {**self._outputs[-1], "text": self._outputs[-1]["text"] + "".join(self._pieces)}
            self._pieces.clear()
        return self._outputs

    def _replace(self, outputs: list[dict[str, Any]]) -> None:
        self._outputs, self._grown = outputs, False
        self._pieces.clear()
        self._places.clear()

    async def _run(self) -> None:
        try:
            live = await self._write(RecordOutputs(cell=self._cell, outputs=None, running=True))
            while not self._over:
                await self._news.wait()
                self._news.clear()
                if self._fresh and not self._over:
                    live = await self._write(self._record(running=True))
                    await self._pause(LIVE_SECONDS if live else FILE_SECONDS)
            await self._write(self._record(running=False))
        except NaviError as error:
            # The cell is gone, or the notebook: the run has its result all the same.
            log.warning("outputs_not_kept", cell=self._cell, error=str(error))
        except Exception:  # the task is not awaited: it is its own supervisor
            log.exception("outputs_not_kept", cell=self._cell)

    async def _pause(self, seconds: float) -> None:
        """Wait for more outputs to write at once; the end of the cell does not wait."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self._over and (rest := deadline - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._news.wait(), rest)
            except TimeoutError:
                break
            self._news.clear()
        if self._fresh:  # cleared above, but not written yet
            self._news.set()

    def _record(self, *, running: bool) -> RecordOutputs:
        if not self._fresh and not self._written:
            return RecordOutputs(cell=self._cell, outputs=None, running=running)
        record = RecordOutputs(
            cell=self._cell,
            outputs=tuple(self._all()),
            count=self._count,
            running=running,
            grown=self._grown and self._written,
        )
        self._fresh, self._grown, self._written = False, True, True
        return record
