"""Notebooks as files: read, changed, and saved only over what was read.

There are two ways to the file. Jupyter's own file managers hold the event loop for as long as a large notebook takes,
follow links out of the root and write over the file in place; so their work is done here, in a thread, through the
root's tree. Any other contents manager (a subclass, one with hooks, object storage) is called as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import sqlite3
import time
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from ...errors import CellNotFound, FileConflict, FileRefused, NaviError, NotebookConflict, NotebookNotFound, NotFound
from ...log_setup import get_logger
from ...ports.jupyter import Cell, Notebook, NotebookMark
from ..files.tree import Tree
from .cells import CellChange, Content, apply, as_cell, clean, complete, ids_of, pinned, touched, with_ids
from .identity import mark_of
from .notebook_file import (
    MOMENT,
    ParsedNotebook,
    as_bytes,
    as_raw,
    check_inside,
    load_nbformat,
    parse_notebook,
    read_whole,
    until_saved,
)
from .notebook_text import NotebookText
from .save_hook import is_ours

T = TypeVar("T")
Check = Callable[[MutableMapping[str, Any], NotebookMark], None]
"""Called with a notebook's metadata and its marks, in the step that changes it. Raises to refuse."""
log = get_logger("notebooks")
ATTEMPTS = 5  # how often a change is applied again because the file was saved meanwhile
HALF_WRITTEN = 6  # how often a file that is no notebook is read, a moment apart
KNOWN_MARKS = 200  # notebooks whose marks are remembered
# The managers whose work is done here, unless they have hooks.
_OWN = {
    "jupyter_server.services.contents.filemanager.FileContentsManager",
    "jupyter_server.services.contents.filemanager.AsyncFileContentsManager",
    "jupyter_server.services.contents.largefilemanager.LargeFileManager",
    "jupyter_server.services.contents.largefilemanager.AsyncLargeFileManager",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredNotebook:
    """A notebook as it was read."""

    content: Content  # nbformat 4.5, each cell with an id; to be changed in place
    stamp: tuple[Any, ...]  # identifies this state of the file
    mark: NotebookMark  # before ids were given to cells that had none
    text: NotebookText | None = (
        None  # of the file; None where Jupyter reads and writes it, or it is older than nbformat 4
    )
    trusted: bool = False  # its outputs were made here, as its signature says
    unread: tuple[str, ...] = ()  # what of it could not be read
    modified: datetime | None = None  # when it was written last


class SavedMeanwhile(Exception):
    """The file was saved by another client since it was read."""


class StoredNotebooks:
    """The notebooks of a server's contents manager."""

    def __init__(self, contents_manager: Any, tree: Tree | None) -> None:
        self._manager = contents_manager
        self._tree = tree  # None: the contents manager's files are not on this machine
        self._files = None if tree is None else _LocalNotebooks(tree, contents_manager)
        # One thread: the signatures' database connection belongs to the thread that made it.
        self._thread = ThreadPoolExecutor(1, "navi-notebooks")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By path. A file manager takes a notebook that is read while it is written for a broken one: see `_get`."""

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._thread.shutdown(wait=False)

    async def read(self, path: str) -> Notebook:
        """Raises NotebookNotFound, FileRefused."""

        def parts(stored: StoredNotebook) -> Notebook:
            cells = tuple(as_cell(cell, index) for index, cell in enumerate(stored.content["cells"]))
            metadata = dict(stored.content["metadata"])
            return Notebook(
                path=path, live=False, cells=cells, metadata=metadata, unread=stored.unread, modified=stored.modified
            )

        files = self._own_files()
        if files is not None:
            return await self._in_thread(lambda: parts(files.read(path)))
        return parts(await self._get(path))

    async def mark(self, path: str) -> NotebookMark:
        """The id and the marks that it carries. Raises NotebookNotFound, FileRefused."""
        files = self._files if _is_own(self._manager) else None
        if files is not None:  # asked at any time, also in the middle of a save: see `_get`
            with suppress(FileRefused):
                return await self._in_thread(lambda: files.mark(path))
        return (await self._get(path)).mark

    def mark_now(self, path: str) -> NotebookMark | None:
        """As :meth:`mark`, without a thread; None when there is no such notebook. Raises LookupError: not local."""
        if self._tree is None:
            raise LookupError(path)
        try:
            return mark_of(parse_notebook(read_whole(self._tree, path), path).content)
        except (NotebookNotFound, FileRefused):
            return None

    async def change(self, path: str, change: CellChange, check: Check | None = None) -> Cell:
        """Apply a change to the newest state and save it; the cell as it is then.

        A save by another client meanwhile is merged: the change is applied again, by the cell's id, unless the other
        one changed the same cell. ``check`` sees the very state that is changed; what it raises goes through.
        Raises CellNotFound, NotebookConflict, NotebookNotFound, FileRefused.
        """
        merge = _Merge(change)

        def edit(stored: StoredNotebook) -> Cell:
            if check is not None:
                check(stored.content["metadata"], stored.mark)
            return merge.apply(stored.content)

        return await self._update(path, edit)

    async def change_metadata(self, path: str, edit: Check) -> None:
        """Change the metadata in place and save the notebook, unless ``edit`` raises. Raises as above."""
        await self._update(path, lambda stored: edit(stored.content["metadata"], stored.mark))

    async def _update(self, path: str, edit: Callable[[StoredNotebook], T]) -> T:
        files = self._own_files()
        for _ in range(ATTEMPTS):
            try:
                if files is not None:
                    result = await self._in_thread(lambda: _update_once(files, path, edit))
                    # Emitted on the loop, where the listeners of such events run.
                    self._manager.emit(data={"action": "save", "path": path})
                    return result
                stored = await self._get(path)
                result = edit(stored)
                await self._save(path, stored)
            except SavedMeanwhile:
                continue
            return result
        raise NotebookConflict(f"{path} is being changed all the time; try again later.")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _own_files(self) -> _LocalNotebooks | None:
        """The way through the tree; None where the contents manager may do something else."""
        if self._tree is None or not _is_plain(self._manager):
            return None
        return self._files

    async def _get(self, path: str) -> StoredNotebook:
        if self._tree is not None:  # a contents manager of files follows links out of the root: walk the path first
            await asyncio.to_thread(check_inside, self._tree, path)
        # Jupyter's file managers write in place. A notebook that is read in the middle of that they take for one that a
        # crash has broken: they put the version before back, and what is being saved is lost.
        async with self._turn(path):
            await until_saved(self._tree, path)
            model = await self._ask(path, content=True)
        content = model["content"]
        mark = mark_of(content)
        unread = clean(content)
        complete(content)
        return StoredNotebook(
            content=with_ids(content),
            stamp=_stamp(model),
            mark=mark,
            unread=unread,
            modified=model.get("last_modified"),
        )

    async def _save(self, path: str, stored: StoredNotebook) -> None:
        async with self._turn(path):
            if _stamp(await self._ask(path, content=False)) != stored.stamp:
                raise SavedMeanwhile
            model = {"type": "notebook", "format": "json", "content": stored.content}
            await self._call(path, lambda: self._manager.save(model, path))

    def _turn(self, path: str) -> asyncio.Lock:
        return self._turns.setdefault(path, asyncio.Lock())

    async def _ask(self, path: str, *, content: bool) -> dict[str, Any]:
        hashed = {"require_hash": True} if _can_hash(self._manager) else {}
        model = await self._call(path, lambda: self._manager.get(path, content=content, type="notebook", **hashed))
        return dict(model)

    async def _call(self, path: str, call: Callable[[], Any]) -> Any:
        from tornado.web import HTTPError  # late: this package can be imported without a server

        try:
            result = call()
            return await result if inspect.isawaitable(result) else result
        except HTTPError as error:
            if error.status_code == 404:
                raise NotebookNotFound(f"There is no notebook {path}.", field="path") from None
            raise FileRefused(f"{path}: {error.log_message or error.reason}", field="path") from None


class _Merge:
    """One change over all its attempts: it is given up when its cell was changed between two of them."""

    def __init__(self, change: CellChange) -> None:
        self._change = change
        self._seen: tuple[str, str] | None = None
        self._again = False

    def apply(self, content: Content) -> Cell:
        """Apply it. Raises CellNotFound, NotebookConflict."""
        try:
            change = pinned(self._change, ids_of(content))
        except CellNotFound:
            if self._again:
                raise NotebookConflict("The cell was deleted meanwhile.") from None
            raise
        now = touched(content, change)
        if self._again and now != self._seen:
            raise NotebookConflict("The cell was changed meanwhile: read it again.")
        self._change, self._seen, self._again = change, now, True
        return apply(content, change)


def _update_once(files: _LocalNotebooks, path: str, edit: Callable[[StoredNotebook], T]) -> T:
    stored = files.read(path)
    result = edit(stored)
    files.save(path, stored)
    return result


class _LocalNotebooks:
    """The work of Jupyter's file managers, through the tree. Blocks; used in one thread."""

    def __init__(self, tree: Tree, manager: Any) -> None:
        self._tree = tree
        self._manager = manager
        self._notary: Any = None  # signs trusted notebooks; made in the thread
        self._marks: dict[str, tuple[tuple[int, ...], NotebookMark]] = {}  # by path, with the state of the file

    def read(self, path: str) -> StoredNotebook:
        """Raises NotebookNotFound, FileRefused."""
        modified = self._modified(path)  # before it is read: a save in between makes it newer than this
        raw, parsed = self._read(path)
        trusted = self._trust(lambda notary: notary.check_signature(_as_node(parsed.content)))
        mark = mark_of(parsed.content)
        return StoredNotebook(
            content=with_ids(parsed.content),
            stamp=(hashlib.sha256(raw).hexdigest(),),
            mark=mark,
            text=parsed.text,
            trusted=bool(trusted),
            unread=parsed.unread,
            modified=modified,
        )

    def _modified(self, path: str) -> datetime | None:
        with suppress(NaviError), self._tree.file(path) as (_, status):
            return datetime.fromtimestamp(status.st_mtime, UTC)
        return None  # what is the matter is found when it is read

    def mark(self, path: str) -> NotebookMark:
        """Raises as ``read``. Asked before each use of a notebook: read again only when the file is another one."""
        try:
            with self._tree.file(path) as (_, status):
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except NotFound:
            raise NotebookNotFound(f"There is no notebook {path}.", field="path") from None
        known = self._marks.pop(path, None)
        if known is None or known[0] != stamp:
            known = stamp, mark_of(self._read(path)[1].content)
        while len(self._marks) >= KNOWN_MARKS:
            self._marks.pop(next(iter(self._marks)))
        self._marks[path] = known
        return known[1]

    def _read(self, path: str) -> tuple[bytes, ParsedNotebook]:
        """Jupyter writes over a file in place: one that is half written is read again, for a moment."""
        for _ in range(HALF_WRITTEN - 1):
            raw = read_whole(self._tree, path)
            with suppress(FileRefused):
                return raw, parse_notebook(raw, path)
            time.sleep(MOMENT)
        raw = read_whole(self._tree, path)
        return raw, parse_notebook(raw, path)

    def save(self, path: str, stored: StoredNotebook) -> None:
        """Raises SavedMeanwhile."""
        stored.content["nbformat"] = 4  # also where the file has no number
        if stored.text is None:
            data = as_bytes(load_nbformat().from_dict(stored.content))
        else:
            data = bytearray(as_raw(stored.text.changed()))
        self._trust(lambda notary: _sign(notary, stored))
        try:
            self._tree.write(path, data, expected_sha256=stored.stamp[0])
        except FileConflict:
            raise SavedMeanwhile from None

    def _trust(self, ask: Callable[[Any], Any]) -> Any:
        """As Jupyter does: when the signatures' database cannot be used, nothing is trusted.

        Nor is a notebook that breaks the format, on which the notary may fail in any way.
        """
        try:
            if self._notary is None:
                self._notary = notary_of_thread(self._manager.notary)
            return ask(self._notary)
        except (sqlite3.Error, OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            log.warning("notebook_signatures_unusable", error=str(error))
            return False


def _as_node(content: Content) -> Any:
    """A notebook as Jupyter has it after reading: a copy of ours, with texts as strings."""
    return load_nbformat().v4.to_notebook(content)


def _sign(notary: Any, stored: StoredNotebook) -> None:
    """Sign a notebook whose outputs were all made here: those that were there, if it was signed, and the new ones."""
    content = _as_node(stored.content)
    for cell in content["cells"] if stored.trusted else ():
        if cell["cell_type"] == "code":
            cell["metadata"]["trusted"] = True
    if notary.check_cells(content):
        notary.sign(content)


def notary_of_thread(given: Any) -> Any:
    """Like the server's, with a database connection of this thread's own."""
    sign: Any = import_module("nbformat.sign")  # late: as below
    notary = sign.NotebookNotary(
        parent=given.parent,
        data_dir=given.data_dir,
        db_file=given.db_file,
        secret_file=given.secret_file,
        algorithm=given.algorithm,
    )
    if isinstance(given.store, sign.MemorySignatureStore):
        notary.store = given.store
    return notary


def _is_own(manager: Any) -> bool:
    """Whether it is one of Jupyter's own file managers, whose notebooks are the files."""
    kind = type(manager)
    return f"{kind.__module__}.{kind.__qualname__}" in _OWN


def _is_plain(manager: Any) -> bool:
    """Whether it is one of Jupyter's own file managers, without additions."""
    hooks = ("pre_save_hook", "post_save_hook", "_pre_save_hooks", "_post_save_hooks")
    notary = getattr(manager, "notary", None)
    store = getattr(notary, "store", None)
    signatures = getattr(notary, "db_file", ":memory:")
    return (
        _is_own(manager)
        and not any(hook for name in hooks for hook in _hooks(getattr(manager, name, None)) if not is_ours(hook))
        and type(notary).__name__ == "NotebookNotary"
        and (
            type(store).__name__ == "MemorySignatureStore"
            # A database in memory belongs to the connection that made it.
            or (type(store).__name__ == "SQLiteSignatureStore" and signatures != ":memory:")
        )
    )


def _hooks(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else () if value is None else (value,)


def _stamp(model: dict[str, Any]) -> tuple[Any, ...]:
    return model.get("hash"), model.get("last_modified") if model.get("hash") is None else None


def _can_hash(manager: Any) -> bool:
    parameters = inspect.signature(manager.get).parameters.values()
    return any(one.name == "require_hash" or one.kind is one.VAR_KEYWORD for one in parameters)
