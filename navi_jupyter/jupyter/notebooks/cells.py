"""Changes of a notebook as values, and their application to its JSON (nbformat 4). Pure: no disk, no shared document.

A change names its cell by id or by index. To apply it again to a newer state of the notebook, pin it first (its index
may name another cell by then), and compare what it would overwrite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from ...errors import CellNotFound, InvalidRequest, NotebookConflict
from ...output_text import readable_outputs
from ...ports.jupyter import Cell, Output
from ...text import joined
from ..files.text_form import with_ends_of, with_newlines

Content = MutableMapping[str, Any]  # a notebook as nbformat 4 has it
KINDS = ("code", "markdown", "raw")
MAX_SOURCE = 2_000_000  # characters of one cell


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertCell:
    """Add a cell after ``after`` (an id or index); None: at the end; ``"start"``: at the top."""

    source: str
    kind: str = "code"
    after: str | None = None
    id: str = ""  # of the new cell: made once, so that applying it again makes the same cell
    outputs: Sequence[Output] = ()  # of a cell that was deleted and comes back
    execution_count: int | None = None

    @classmethod
    def of(cls, source: str, kind: str, after: str | None, cell_id: str | None = None) -> InsertCell:
        """Raises InvalidRequest."""
        if kind not in KINDS:
            raise InvalidRequest(f"A cell is {', '.join(KINDS)}, not {kind!r}.", field="kind")
        return cls(source=checked(source), kind=kind, after=after, id=cell_id or new_cell_id())


@dataclass(frozen=True, kw_only=True, slots=True)
class EditCell:
    """Replace a cell's source; with ``expected`` only if that is its source now."""

    cell: str
    source: str
    expected: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteCell:
    """Remove a cell; with ``expected`` only if that is its source now."""

    cell: str
    expected: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOutputs:
    """Store what the execution of a cell has given so far."""

    cell: str
    outputs: Sequence[Output] | None  # all of them, adjacent pieces of a stream joined; None: those that are there stay
    count: int | None = None
    running: bool = False
    grown: bool = False
    """The outputs that were stored last are the first of these; only the text of the last one may be longer now."""


CellChange = InsertCell | EditCell | DeleteCell | RecordOutputs


def new_cell_id() -> str:
    """An id for a new cell."""
    return uuid4().hex[:8]


def checked(source: str) -> str:
    """A source that a notebook can hold. Raises InvalidRequest."""
    if len(source) > MAX_SOURCE:
        raise InvalidRequest(f"A cell has at most {MAX_SOURCE} characters.", field="source")
    try:
        source.encode()
    except UnicodeError:
        raise InvalidRequest("The source has characters that no notebook can hold.", field="source") from None
    return source


def find(ids: Sequence[str], cell: str) -> int:
    """The index of a cell that is named by its id or by an index as text. Raises CellNotFound."""
    if cell in ids:
        return ids.index(cell)
    try:
        index = int(cell)
    except ValueError:
        index = len(ids)
    if -len(ids) <= index < len(ids):
        return index % len(ids)
    raise CellNotFound(f"There is no cell {cell[:80]!r}: the notebook has {len(ids)} cells, from 0.", field="cell")


def pinned(change: CellChange, ids: Sequence[str]) -> CellChange:
    """The change with ids in place of indexes. Raises CellNotFound."""
    if isinstance(change, InsertCell):
        if change.after in (None, "start"):
            return change
        return replace(change, after=ids[find(ids, change.after)])
    return replace(change, cell=ids[find(ids, change.cell)])


def place_of(change: InsertCell, ids: Sequence[str]) -> int:
    """The index that the new cell will have. Raises CellNotFound."""
    if change.after is None:
        return len(ids)
    return 0 if change.after == "start" else find(ids, change.after) + 1


def check_expected(change: EditCell | DeleteCell, source: str) -> None:
    """Raises NotebookConflict."""
    check_source(change.cell, source, change.expected)


def check_source(cell: str, source: str, expected: str | None) -> None:
    """Raises NotebookConflict unless the source of the cell is the expected one."""
    if expected is not None and with_newlines(expected) != with_newlines(source):
        raise NotebookConflict(
            f"Cell {cell} was changed meanwhile; it is now {len(source)} characters long: read it again."
        )


def new_cell(change: InsertCell) -> dict[str, Any]:
    """The cell that an insertion makes."""
    cell: dict[str, Any] = {
        "id": change.id,
        "cell_type": change.kind,
        # A cell without outputs is no reason to trust the notebook less.
        "metadata": {"trusted": True} if change.kind == "code" and not change.outputs else {},
        "source": change.source,
    }
    if change.kind == "code":
        cell |= {"execution_count": change.execution_count, "outputs": [plain(one) for one in change.outputs]}
    return cell


def clean(content: Content) -> tuple[str, ...]:
    """Leave out of a notebook what breaks the format so that it cannot be worked with; what that was. In place."""
    cells = content.get("cells")
    listed = cells if isinstance(cells, list) else []
    content["cells"] = [cell for cell in listed if isinstance(cell, MutableMapping)]
    if not isinstance(content.get("metadata"), MutableMapping):
        content["metadata"] = {}
    return tuple(f"cells[{at}] is no cell" for at, cell in enumerate(listed) if not isinstance(cell, MutableMapping))


def complete(content: Content) -> None:
    """Give a notebook what Jupyter needs to save it, and no more. In place."""
    for cell in content["cells"]:
        cell.setdefault("metadata", {})
        cell.setdefault("source", "")
        if cell.get("cell_type") == "code":
            cell.setdefault("execution_count", None)
            outputs = cell.get("outputs")
            cell["outputs"] = [_completed(one) for one in outputs] if isinstance(outputs, list) else []


def _completed(output: Any) -> Any:
    if not isinstance(output, MutableMapping):
        return output
    if output.get("output_type") == "stream":
        output.setdefault("text", "")
        output.setdefault("name", "stdout")
    elif "output_type" not in output:
        readable, _ = readable_outputs([output])
        output.update(readable[0] if readable else {"output_type": "display_data", "data": {}, "metadata": {}})
    return output


def with_ids(content: Content) -> Content:
    """``content`` as nbformat 4.5, each cell with an id of its own; changed in place.

    An id that was missing is made from the cell's content: the next read, by another run, gives the same one.
    """
    seen: set[str] = set()
    for index, cell in enumerate(content["cells"]):
        known = cell.get("id")
        if not isinstance(known, str) or not known or known in seen:
            known = _made_id(cell, index, seen)
            cell["id"] = known
        seen.add(known)
    content["nbformat_minor"] = max(5, minor_of(content))
    return content


def minor_of(content: Mapping[str, Any]) -> int:
    """The minor version of the format; 0 where it is no number."""
    minor = content.get("nbformat_minor")
    return int(minor) if isinstance(minor, int | float) and abs(minor) < 1000 else 0


def _made_id(cell: Mapping[str, Any], index: int, seen: set[str]) -> str:
    text = f"{cell.get('cell_type')}\n{joined(cell.get('source'))}"
    made = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return made if made not in seen else hashlib.sha256(f"{index}\n{text}".encode("utf-8", "replace")).hexdigest()[:12]


def ids_of(content: Content) -> list[str]:
    """The ids of its cells."""
    return [cell["id"] for cell in content["cells"]]


def touched(content: Content, change: CellChange) -> tuple[str, str] | None:
    """The kind and source of the cell that a change overwrites; None when it overwrites nothing that people write."""
    if isinstance(change, InsertCell | RecordOutputs):
        return None
    cell = content["cells"][find(ids_of(content), change.cell)]
    return str(cell.get("cell_type")), joined(cell.get("source"))


def apply(content: Content, change: CellChange) -> Cell:
    """Change the notebook in place; the cell as it is then (or was, if deleted).

    Raises CellNotFound, NotebookConflict.
    """
    cells, ids = content["cells"], ids_of(content)
    if isinstance(change, InsertCell):
        index = place_of(change, ids)
        cells.insert(index, new_cell(change))
        return as_cell(cells[index], index)
    index = find(ids, change.cell)
    if isinstance(change, DeleteCell):
        check_expected(change, joined(cells[index]["source"]))
        return as_cell(cells.pop(index), index)
    if isinstance(change, EditCell):
        before = joined(cells[index].get("source"))
        check_expected(change, before)
        cells[index]["source"] = with_ends_of(before, change.source)
    else:
        _record(cells[index], change)
    return as_cell(cells[index], index)


def _record(cell: MutableMapping[str, Any], change: RecordOutputs) -> None:
    if cell.get("cell_type") != "code":
        raise NotebookConflict(f"Cell {change.cell} is no code cell any more.")
    if change.outputs is None:
        return
    cell["outputs"] = [plain(output) for output in change.outputs]
    cell["execution_count"] = change.count
    if not isinstance(cell.get("metadata"), MutableMapping):
        cell["metadata"] = {}
    cell["metadata"]["trusted"] = True  # as a front end does: these outputs were made here and now


def plain(output: Output) -> dict[str, Any]:
    """An output without what nbformat does not know."""
    kept = {name: value for name, value in output.items() if name != "transient"}
    if kept.get("output_type") in ("display_data", "execute_result"):
        kept.setdefault("metadata", {})
    return kept


def as_cell(cell: Mapping[str, Any], index: int) -> Cell:
    """A cell of the JSON as the port has it."""
    kind, count = cell.get("cell_type"), cell.get("execution_count")
    outputs, unread = readable_outputs(cell.get("outputs")) if kind == "code" else ([], [])
    if kind not in KINDS:
        unread.insert(0, f"its kind is {str(kind)[:40]!r}")
    if not isinstance(cell.get("source"), str | list):
        unread.insert(0, "it has no source")
    return Cell(
        id=str(cell["id"]),
        index=index,
        kind="code" if kind == "code" else "markdown" if kind == "markdown" else "raw",
        source=with_newlines(joined(cell.get("source"))),
        execution_count=int(count) if isinstance(count, int | float) and abs(count) < 1e15 else None,
        outputs=tuple(outputs),
        unread=tuple(unread),
    )
