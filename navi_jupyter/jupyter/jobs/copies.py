"""The notebook of a job as it is saved, and the dated copies of it: ``report-results/report-2026-12-01-0900.ipynb``.

A copy is written as a whole, before the first cell is executed, after cells, and at the end: at any instant its file is
a notebook. Not responsible for executing it (``execution``).
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from ...errors import FileConflict, FileRefused, NaviError, NotebookNotFound, NotFound
from ...log_setup import get_logger
from ...model.recalls import NotebookJob
from ...ports.files import NO_FILE
from ...text import joined
from ..files.tree import Tree
from ..kernels.jupyter_services import JupyterServices
from ..notebooks.cells import clean, complete, with_ids
from ..notebooks.contents import notary_of_thread
from ..notebooks.notebook_file import as_bytes, load_nbformat, local_root, parse_notebook, read_whole
from .choice import NotebookFinder
from .parameters import with_parameters

log = get_logger("jobs")

MOST_NAMES = 1000  # copies of one minute


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
