"""Cells of a notebook as text: which ones a call names, and what a model reads of them, within bounds.

Not responsible for where the cells come from (``jupyter.notebooks``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ....clock import now
from ....errors import CellNotFound, InvalidRequest
from ....output_text import outputs_text
from ....ports.jupyter import Cell, Notebook, kernel_name_of
from ....text import one_line, truncate_middle
from ....timetext.format import say_stretch
from ..kernel import TRACEBACK

READ = 24_000  # characters that one reading gives
SOURCE = 6_000
OUTPUT = 2_000  # characters of one cell's source and of its outputs, when several cells are read
LIVE = timedelta(seconds=3)  # what a page showed for no longer is what it shows
UNREAD = 500  # of the list of what could not be read
ALONE = 16_000  # of each, when it is the only one that is read


def one_cell(notebook: Notebook, cell: str) -> Cell:
    """Raises CellNotFound, InvalidRequest."""
    found = chosen_cells(notebook.cells, cell)
    if len(found) != 1:
        raise InvalidRequest("Name one cell.", field="cell")
    return found[0]


def chosen_cells(cells: Sequence[Cell], which: str | None) -> list[Cell]:
    """The cells that ``which`` names, in its order. Raises CellNotFound, InvalidRequest."""
    if which is None or not which.strip():
        return list(cells)
    by_id = {cell.id: cell for cell in cells}
    found: dict[str, Cell] = {}
    for name in (part.strip() for part in which.split(",")):
        one = by_id.get(name)
        for cell in [one] if one is not None else _range(cells, name):
            found.setdefault(cell.id, cell)
    return list(found.values())


def _range(cells: Sequence[Cell], name: str) -> Sequence[Cell]:
    """``3``, ``-1``, ``2-5``, ``7-``, ``-3-`` (the last three)."""
    first, dash, last = name[1:].partition("-")
    try:
        begin = int(name[:1] + first)
        end = begin if not dash else int(last) if last else len(cells) - 1
    except ValueError:
        raise CellNotFound(f"There is no cell {name[:80]!r} among {len(cells)}.", field="cells") from None
    if begin < 0:
        begin = max(0, begin + len(cells))  # "-9" of three cells is the first
        end = begin if not dash else end
    if not 0 <= begin <= end or begin >= len(cells):
        raise CellNotFound(f"There are no cells {name[:80]}: the notebook has {len(cells)}, from 0.", field="cells")
    return cells[begin : end + 1]


def replaced(source: str, search: str, replace: str) -> str:
    """``source`` with the text ``search`` replaced. Raises InvalidRequest unless it occurs exactly once."""
    search, replace = search.replace("\r\n", "\n"), replace.replace("\r\n", "\n")
    count = source.count(search)
    if count != 1:
        found = "is not in the cell" if count == 0 else f"is {count} times in the cell: give more of what is around it"
        raise InvalidRequest(f"The text to search {found}.", field="search")
    return source.replace(search, replace)


def page_text(notebook: Notebook, chosen: Sequence[Cell], outputs: bool, start: int) -> str:
    kernel = kernel_name_of(notebook.metadata)
    head = f"{notebook.path}: {len(notebook.cells)} cells"
    head += (f", kernel {kernel}" if kernel else "") + f"\n[{state_words(notebook, now())}]"
    if notebook.unread:
        head += f"\n[not read: {one_line('; '.join(notebook.unread), UNREAD)}]"
    if len(chosen) == 1:
        return f"{head}\n\n{_single(chosen[0], outputs, start)}"
    parts, size = [head], 0
    for place, cell in enumerate(chosen):
        shown = _described(cell, outputs)
        if size + len(shown) > READ and place:
            rest = f"{cell.index}-{chosen[-1].index}"
            parts.append(f'[… {len(chosen) - place} more cells: read_notebook(cells="{rest}") …]')
            break
        parts.append(shown)
        size += len(shown)
    return "\n\n".join(parts)


def _title(cell: Cell) -> str:
    count = "" if cell.kind != "code" else f" In[{cell.execution_count or ' '}]"
    unread = f"\n[not read: {one_line('; '.join(cell.unread), UNREAD)}]" if cell.unread else ""
    return f"--- [{cell.index}] {cell.kind}{count} id={cell.id}{unread}"


def _described(cell: Cell, outputs: bool) -> str:
    hint = f'read_notebook(cells="{cell.index}") has all'
    parts = [_title(cell), truncate_middle(cell.source, SOURCE, head=2 / 3, note=hint)]
    if outputs and cell.outputs:
        parts += ["--- output", truncate_middle(_outputs_text(cell.outputs), OUTPUT, head=2 / 3, note=hint)]
    return "\n".join(parts)


def _single(cell: Cell, outputs: bool, start: int) -> str:
    lines = cell.source.split("\n")
    if outputs and cell.outputs:
        lines += ["--- output", *_outputs_text(cell.outputs).split("\n")]
    kept: list[str] = []
    size = 0
    for line in lines[start - 1 :]:
        if size + len(line) > 2 * ALONE and kept:
            break
        kept.append(truncate_middle(line, ALONE, head=2 / 3))
        size += len(kept[-1]) + 1
    after = start + len(kept)
    more = f'\n[… {len(lines) - after + 1} more lines: read_notebook(cells="{cell.index}", start={after}) …]'
    return "\n".join([_title(cell), *kept]) + (more if after <= len(lines) else "")


def _outputs_text(outputs: Sequence[Mapping[str, Any]]) -> str:
    """The text of outputs; images by their type and size."""
    pieces = [outputs_text(outputs, traceback_limit=TRACEBACK, name_images=True)]
    images = [item for output in outputs for item in (output.get("data") or {}).items() if item[0].startswith("image/")]
    for kind, value in images:
        # base64: four characters are three bytes; SVG is text.
        size = len(value) * 3 // 4 if kind != "image/svg+xml" else len(value)
        pieces.append(f"[{kind} {max(1, size // 1000)} kB]")
    return "\n".join(piece for piece in pieces if piece)


def place_text(notebook: Notebook, cell: Cell) -> str:
    """``In [7], code cell 3 of 9, id abc``."""
    count = "" if cell.kind != "code" else f"In [{cell.execution_count or ' '}], "
    return f"{count}{cell.kind} cell {cell.index + 1} of {len(notebook.cells)}, id {cell.id}"


def state_words(notebook: Notebook, at: datetime) -> str:
    """Where the cells come from, and how old that is."""
    if notebook.live:
        return "open, shared live"
    if notebook.shown_at is not None:
        age = at - notebook.shown_at
        if age < LIVE:
            return "as the user's page shows it now, with changes that are not saved"
        return f"as the user's page showed it {say_stretch(age)} ago, when they wrote, with changes that are not saved"
    words = "from the file"
    if notebook.modified is not None:
        words += f", which was saved {say_stretch(max(at - notebook.modified, at - at))} ago"
    return words + ("; a page has it open, and what is not saved there is not in this" if notebook.has_page else "")
