"""Notebooks that are open with real-time collaboration: the shared document itself, as every browser has it.

jupyter-collaboration is never required: nothing of it is imported, and its server extension is used when it is there.
Everything here runs on the event loop, where the shared documents live; one change is one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import NotebookConflict
from ...ports.jupyter import Cell, NotebookMark, Output
from ...text import joined
from ..files.text_form import with_ends_of
from .cells import (
    CellChange,
    DeleteCell,
    EditCell,
    InsertCell,
    RecordOutputs,
    as_cell,
    check_expected,
    find,
    new_cell,
    pinned,
    place_of,
    plain,
)
from .identity import mark_of, set_id

EXTENSION = "jupyter_server_ydoc"
OPENING_SECONDS = 10.0  # to wait for a document that is just being opened
SLICE = 0.01  # seconds that reading a document may hold the loop at a time


class SharedDocuments:
    """The rooms of a server's collaboration extension."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    async def notebook(self, path: str) -> SharedNotebook | None:
        """The shared document of a notebook; None when it is not open with real-time collaboration.

        Raises NotebookConflict when it is being opened for longer than OPENING_SECONDS.
        """
        app, file_ids = self._extension(), self._settings.get("file_id_manager")
        if app is None or file_ids is None:
            return None
        file_id = file_ids.get_id(path)
        if file_id is None:
            return None
        room = f"json:notebook:{file_id}"
        document = await app.get_document(room_id=room, copy=False)
        if document is None:
            return None
        if self._settings.get("collaborative_document_load_progressively"):
            await app.get_document(room_id=room, copy=True)  # waits until all of it is there
        await _filled(document, path)
        return SharedNotebook(document)

    def _extension(self) -> Any:
        server = self._settings.get("serverapp")
        manager = getattr(server, "extension_manager", None)
        apps = getattr(manager, "extension_apps", {}).get(EXTENSION, ())
        return next((app for app in apps if hasattr(app, "get_document")), None)


async def _filled(document: Any, path: str) -> None:
    """A room is there a moment before its document is; a notebook that is open has at least one cell."""
    deadline = time.monotonic() + OPENING_SECONDS
    while len(document.ycells) == 0:
        if time.monotonic() > deadline:
            raise NotebookConflict(f"{path} is just being opened; try again.")
        await asyncio.sleep(0.02)


class SharedNotebook:
    """One shared document. Not to be kept: a room closes with its last client, and opens with another document."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._cells = document.ycells

    async def read(self) -> tuple[list[Cell], dict[str, Any]]:
        """Its cells, and the notebook's metadata. Gives way to others on the loop while a large one is read."""
        metadata = self.metadata()
        for _ in range(5):
            cells = await self._read()
            if cells is not None:
                return cells, metadata
        raise NotebookConflict("The notebook is being changed all the time; try again.")

    def metadata(self) -> dict[str, Any]:
        """The notebook's metadata, as a copy."""
        return dict((self._meta().to_py() or {}).get("metadata") or {})

    def _meta(self) -> Any:
        from pycrdt import Map  # late: installed where there is a shared document, not elsewhere

        return self._document.ydoc.get("meta", type=Map)

    def mark(self) -> NotebookMark:
        """The id and the marks that it carries."""
        cells = [{"id": str(cell.get("id")), "source": str(cell.get("source"))} for cell in self._cells]
        return mark_of({**(self._meta().to_py() or {}), "cells": cells})

    def set_id(self, session_id: str | None) -> None:
        """Write the id of the session into the metadata; seen in all browsers, saved as other changes are."""
        from pycrdt import Map  # as above

        metadata = self.metadata()
        if set_id(metadata, session_id):
            with self._document.ydoc.transaction():
                shared = self._meta()
                inner = shared.get("metadata")
                if not isinstance(inner, Map):
                    shared["metadata"] = Map(metadata)
                elif "navi" in metadata:
                    inner["navi"] = metadata["navi"]
                else:
                    del inner["navi"]

    async def _read(self) -> list[Cell] | None:
        """None: cells came or went meanwhile."""
        ids = self.ids()
        found: list[Cell] = []
        since = time.monotonic()
        for index, cell_id in enumerate(ids):
            if time.monotonic() - since > SLICE:
                await asyncio.sleep(0)
                since = time.monotonic()
                if self.ids() != ids:
                    return None
            found.append(self._cell(index, cell_id))
        return found

    def ids(self) -> list[str]:
        """The ids of its cells; the shared document gives one to every cell."""
        return [str(cell.get("id")) for cell in self._cells]

    def _cell(self, index: int, cell_id: str) -> Cell:
        return as_cell({**self._document.get_cell(index), "id": cell_id}, index)

    def apply(self, change: CellChange) -> Cell:
        """Make a change, seen in all browsers at once; the cell as it is then (or was, if deleted).

        Raises CellNotFound, NotebookConflict.
        """
        ids = self.ids()
        change = pinned(change, ids)
        if isinstance(change, InsertCell):
            return self._insert(change, ids)
        index = find(ids, change.cell)
        if isinstance(change, DeleteCell):
            cell = self._cell(index, change.cell)
            check_expected(change, cell.source)
            with self._document.ydoc.transaction():
                del self._cells[index]
                if len(self._cells) == 0:  # a notebook that is open has at least one
                    self._document.append_cell(new_cell(InsertCell.of("", "code", None)))
            return cell
        ycell = self._cells[index]
        if isinstance(change, EditCell):
            check_expected(change, str(ycell["source"]))
        elif ycell["cell_type"] != "code":
            raise NotebookConflict(f"Cell {change.cell} is no code cell any more.")
        with self._document.ydoc.transaction():
            if isinstance(change, EditCell):
                replace_text(ycell["source"], with_ends_of(str(ycell["source"]), change.source))
            else:
                _record(ycell, change)
        return self._cell(index, change.cell)

    def _insert(self, change: InsertCell, ids: Sequence[str]) -> Cell:
        index = place_of(change, ids)
        with self._document.ydoc.transaction():
            self._cells.insert(index, self._document.create_ycell(new_cell(change)))
        return self._cell(index, change.id)


def _record(cell: Any, change: RecordOutputs) -> None:
    """Write only what is new: no browser draws a plot again because a line was printed."""
    from pycrdt import Array  # as above

    cell["execution_state"] = "running" if change.running else "idle"
    if change.outputs is None:
        return
    cell["execution_count"] = change.count
    cell["metadata"]["trusted"] = True  # as a front end does: these outputs were made here and now
    there = cell.get("outputs")
    if not isinstance(there, Array):
        cell["outputs"] = Array()
        there = cell["outputs"]
    kept = len(there) if change.grown and len(there) <= len(change.outputs) else 0
    if kept and not _grows(there[kept - 1], change.outputs[kept - 1]):
        kept = 0
    if kept == 0 and len(there):
        there.clear()
    for output in change.outputs[kept:]:
        there.append(_shared(output))


def _shared(output: Output) -> Any:
    from pycrdt import Map, Text  # as above

    value = plain(output)
    if value.get("output_type") == "stream":
        value["text"] = Text(joined(value["text"]))
    return Map(value)


def _grows(shared: Any, wanted: Output) -> bool:
    """Update the last output that is there; False when it is another one."""
    if shared.get("output_type") != wanted["output_type"]:
        return False
    if wanted["output_type"] != "stream":
        return True
    text, now = shared.get("text"), joined(wanted["text"])
    if shared.get("name") != wanted["name"] or not hasattr(text, "insert"):
        return False
    before = str(text)
    if not now.startswith(before):
        return False
    if len(now) > len(before):
        text += now[len(before) :]
    return True


def replace_text(shared: Any, source: str) -> None:
    """Make a shared text ``source`` by replacing only what differs: the cursors of others stay in place."""
    before = str(shared)
    start = _common_prefix(before, source)
    shorter = min(len(before), len(source)) - start
    end = _common_prefix(before[::-1][:shorter], source[::-1][:shorter])
    # Positions in a shared text count bytes of UTF-8.
    first = len(before[:start].encode())
    gone = len(before[start : len(before) - end].encode())
    if gone:
        del shared[first : first + gone]
    if new := source[start : len(source) - end]:
        shared.insert(first, new)


def _common_prefix(one: str, other: str) -> int:
    """The number of characters at their beginning that are the same; by halving: a cell can have a million."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
