"""The notebook of a job as it is saved, and the dated copies of it: ``report-results/report-2026-12-01-0900.ipynb``.

A copy is written as a whole, before the first cell is executed, after cells, and at the end: at any instant its file is
a notebook. Also which notebooks there are for a job (copies are results, and left out), and what differs between two
copies. Not responsible for executing it (``execution``).
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from difflib import SequenceMatcher, unified_diff
from pathlib import PurePosixPath
from typing import Any

from ...errors import FileConflict, FileRefused, NaviError, NotebookNotFound, NotFound
from ...log_setup import get_logger
from ...model.recalls import NotebookJob
from ...output_text import outputs_text
from ...ports.files import NO_FILE
from ...ports.jobs import ResultCell
from ...text import closeness, joined, one_line
from ..files.search import walk
from ..files.tree import Tree
from ..kernels.jupyter_services import JupyterServices
from ..notebooks.cells import clean, complete, with_ids
from ..notebooks.contents import notary_of_thread
from ..notebooks.notebook_file import as_bytes, load_nbformat, local_root, parse_notebook, read_whole
from .parameters import with_parameters

log = get_logger("jobs")

MOST_NAMES = 1000  # copies of one minute
MAX_SEEN = 50_000  # entries of folders
SEARCH_SECONDS = 1.0  # it is asked while somebody types
MAX_COMPARED = 2000  # names that a mistyped one is compared with
ALIKE = 0.6  # of SequenceMatcher: what is less alike was not meant
MAX_CELLS = 200  # that differ
MAX_LINES = 400  # of a cell's difference
MAX_OUTPUT_LINES = 5_000  # lines of a cell's output: more takes seconds
FIRST_LINE = 120
_AROUND = 2  # unchanged lines around a change
_COPY = re.compile(r"-\d{4}-\d\d-\d\d-\d{4}(-\d+)?\.ipynb$", re.IGNORECASE)


def copy_paths(job: NotebookJob, at: datetime) -> list[str]:
    """The paths that a copy of this instant may have, the first that is free counts. Relative to the server's root."""
    notebook = PurePosixPath(job.path)
    folder = notebook.parent / f"{notebook.stem}-results"
    if job.output is not None:
        folder = PurePosixPath(job.output.lstrip("/")) if job.output.startswith("/") else notebook.parent / job.output
    name = f"{notebook.stem}-{at:%Y-%m-%d-%H%M}"
    tails = ["", *(f"-{number}" for number in range(2, MOST_NAMES))]
    return [str(folder / f"{name}{tail}.ipynb") for tail in tails]


def prepared(content: Mapping[str, Any], job: NotebookJob, about: Mapping[str, Any]) -> Any:
    """The notebook as nbformat has it, with the parameters and without outputs. ``about``: what the copy states.

    It has no session: the copy of a notebook is another one.
    """
    fresh: dict[str, Any] = copy.deepcopy(dict(content))
    fresh["cells"] = with_parameters(fresh["cells"], job.parameters)
    fresh["metadata"] = {**fresh["metadata"], "navi": {"job": dict(about)}}
    node: Any = load_nbformat().from_dict({**fresh, "nbformat": 4, "nbformat_minor": 5})
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    return node


class JobFiles:
    """Reads notebooks and writes their copies: through the root's tree, else through the contents manager."""

    def __init__(self, jupyter: JupyterServices) -> None:
        self._manager = jupyter.contents_manager
        root = local_root(jupyter.contents_manager, jupyter.root_dir)
        hidden = bool(getattr(jupyter.contents_manager, "allow_hidden", False))
        self._tree = None if root is None else Tree(root, allow_hidden=hidden)
        self.finder = NotebookFinder(self._tree, hide=getattr(jupyter.contents_manager, "hide_globs", ()))

    async def read(self, path: str) -> dict[str, Any]:
        """A notebook of any version as nbformat 4.5. Raises NotebookNotFound, which names the one that may have been
        meant, FileRefused."""
        try:
            return await self._read(path)
        except NotebookNotFound as error:
            near = await self.finder.meant_by(path)
            raise NotebookNotFound(
                f"{error.message} Did you mean {near}?" if near else error.message, field=error.field
            ) from None

    async def _read(self, path: str) -> dict[str, Any]:
        if self._tree is not None:
            return await asyncio.to_thread(_read, self._tree, path)
        model = await self._call(path, lambda: self._manager.get(path, content=True, type="notebook"))
        return _whole(model["content"])

    async def exists(self, path: str) -> bool:
        """Whether there is such a file; false where that cannot be found out."""
        try:
            if self._tree is None:
                found = self._manager.file_exists(path)
                return bool(await found if inspect.isawaitable(found) else found)
            return await asyncio.to_thread(_is_file, self._tree, path)
        except NaviError:
            return False

    async def make_copy(self, paths: list[str], node: Any) -> str:
        """Write a new copy under the first name that is free. Raises FileRefused."""
        for path in paths:
            try:
                await self.write(path, node, new=True)
            except FileConflict:
                continue
            except (NotFound, NaviError) as error:
                raise FileRefused(f"The result cannot be written to {path}: {error.message}", field="output") from None
            return path
        raise FileRefused(f"There are {MOST_NAMES} results of this minute in {PurePosixPath(paths[0]).parent}.")

    async def write(self, path: str, node: Any, *, new: bool = False) -> None:
        """Write a copy as a whole. ``new``: only where there is no file yet. Raises FileRefused, FileConflict."""
        if self._tree is not None:
            await asyncio.to_thread(_write, self._tree, self._manager, path, node, new=new)
            return
        if new and await self.exists(path):
            raise FileConflict(f"There is a file {path}.")
        folder = str(PurePosixPath(path).parent)
        if new and folder != "." and not await self._is_folder(folder):
            await self._call(folder, lambda: self._manager.save({"type": "directory"}, folder))
        model = {"type": "notebook", "format": "json", "content": node}
        await self._call(path, lambda: self._manager.save(model, path))

    async def _is_folder(self, path: str) -> bool:
        found = self._manager.dir_exists(path)
        return bool(await found if inspect.isawaitable(found) else found)

    async def _call(self, path: str, call: Callable[[], Any | Awaitable[Any]]) -> Any:
        from tornado.web import HTTPError  # late: this package can be imported without a server

        try:
            result = call()
            return await result if inspect.isawaitable(result) else result
        except HTTPError as error:
            if error.status_code == 404:
                raise NotebookNotFound(f"There is no notebook {path}.", field="path") from None
            raise FileRefused(f"{path}: {error.log_message or error.reason}", field="path") from None


def _read(tree: Tree, path: str) -> dict[str, Any]:
    return _whole(parse_notebook(read_whole(tree, path), path).content)


def _whole(content: Any) -> dict[str, Any]:
    clean(content)
    complete(content)
    for cell in content["cells"]:
        cell["source"] = joined(cell["source"])
    return dict(with_ids(content))


def _is_file(tree: Tree, path: str) -> bool:
    with tree.file(path):
        return True


def _write(tree: Tree, manager: Any, path: str, node: Any, *, new: bool) -> None:
    data = as_bytes(copy.deepcopy(node))  # it changes what it is given
    # Its folder is made with the first copy; later it is there, or was taken away by somebody.
    tree.write(path, data, expected_sha256=NO_FILE if new else None, make_folders=new)
    try:
        notary_of_thread(manager.notary).sign(node)  # all its outputs were made here
    except (sqlite3.Error, OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        log.warning("result_not_signed", path=path, error=repr(error))  # then it is shown as one that is not trusted


class NotebookFinder:
    """Finds notebooks below the server's root, and the one that was meant by a name that none has.

    Only where the root is a folder of this machine: elsewhere none are found.
    """

    def __init__(self, tree: Tree | None, *, hide: Sequence[str] = ()) -> None:
        """``tree`` None: the root is no folder of this machine. ``hide``: patterns of names that Jupyter hides."""
        self._tree = tree
        self._hide = tuple(hide)

    async def find(self, query: str, *, limit: int) -> Sequence[str]:
        """Those whose path fits what was typed, the best first; all, by folders, for an empty text."""
        return await asyncio.to_thread(self._find, query, limit)

    async def meant_by(self, path: str) -> str | None:
        """The notebook whose name is most like the last part of ``path``, one in the same folder first."""
        return await asyncio.to_thread(self._meant_by, path)

    def _find(self, query: str, limit: int) -> Sequence[str]:
        found = [(close, where) for where in self._all() if (close := closeness(query, where)) is not None]
        if query:
            found.sort()
        return [where for _, where in found[:limit]]

    def _meant_by(self, path: str) -> str | None:
        wanted = PurePosixPath(path)
        best: tuple[float, bool, str] | None = None
        for number, where in enumerate(self._all()):
            if number >= MAX_COMPARED:
                break
            each = PurePosixPath(where)
            alike = SequenceMatcher(None, wanted.stem.casefold(), each.stem.casefold()).ratio()
            if alike >= ALIKE and (best is None or (alike, each.parent == wanted.parent) > best[:2]):
                best = (alike, each.parent == wanted.parent, where)
        return None if best is None else best[2]

    def _all(self) -> Iterator[str]:
        """Paths of notebooks, those of a folder before those below it, of what is seen within the bounds."""
        if self._tree is None:
            return
        until = time.monotonic() + SEARCH_SECONDS
        try:
            with self._tree.folder("") as root, closing(walk(self._tree, root, "", hide=self._hide)) as entries:
                for number, (_, entry, where) in enumerate(entries):
                    if number >= MAX_SEEN or time.monotonic() > until:
                        return
                    if entry.name.lower().endswith(".ipynb") and not _COPY.search(entry.name):
                        yield where
        except NaviError:  # the root has gone
            return


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Sequence[ResultCell], int]:
    """The cells that differ, in the order of the newer result, then those that are gone; and how many do not.

    Cells are the same by their ids; where a notebook's cells have none, these are made of their sources when it is
    read.
    """
    before = {cell["id"]: cell for cell in _code_cells(old)}
    found: list[ResultCell] = []
    unchanged = 0
    for cell in _code_cells(new):
        earlier = before.pop(cell["id"], None)
        change = _difference(earlier or {}, cell)
        if change:
            found.append(_result_cell(cell, change))
        else:
            unchanged += 1
    found += [_result_cell(gone, _difference(gone, {}), number=None) for gone in before.values()]
    return found[:MAX_CELLS], unchanged


def _code_cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    cells = notebook["cells"]
    return [cell for cell in cells if cell.get("cell_type") == "code" and joined(cell.get("source")).strip()]


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    sources = [_lines(joined(cell.get("source"))) for cell in (old, new)]
    outputs = [
        _lines(outputs_text(cell.get("outputs") or (), traceback_limit=2000, name_images=True)) for cell in (old, new)
    ]
    lines: list[str] = []
    for name, (before, after) in (("source", sources), ("output", outputs)):
        if before != after:
            lines += unified_diff(before, after, f"{name} before", f"{name} now", n=_AROUND, lineterm="")
    if not lines and _pictures(old) != _pictures(new):
        lines = ["--- output before", "+++ output now", "@@ @@", "-[another picture]", "+[another picture]"]
    return lines


def _lines(text: str) -> list[str]:
    return text.splitlines()[:MAX_OUTPUT_LINES]


def _pictures(cell: Mapping[str, Any]) -> list[Any]:
    """What outputs show besides text: images, and the like."""
    data = [output.get("data") for output in cell.get("outputs") or () if isinstance(output, Mapping)]
    return [
        [(kind, joined(value) if isinstance(value, list) else value) for kind, value in one.items() if "image/" in kind]
        for one in data
        if isinstance(one, Mapping)
    ]


def _result_cell(cell: Mapping[str, Any], lines: Sequence[str], **changed: Any) -> ResultCell:
    source = joined(cell.get("source")).strip().splitlines() or [""]
    fields: dict[str, Any] = {
        "cell": str(cell["id"]),
        "number": cell.get("execution_count"),
        "source": one_line(source[0], FIRST_LINE),
        "diff": "\n".join(lines[:MAX_LINES]),
        "omitted": max(0, len(lines) - MAX_LINES),
    }
    return ResultCell(**fields | changed)
