"""Tools for notebooks: read cells and outputs, change and run cells. Open notebooks show every change at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import CellNotFound, InvalidRequest
from ...model.runs import CallDetail, Effect
from ...output_text import outputs_text
from ...ports.agent import ToolContext, call_expects, tool_context
from ...ports.jupyter import Cell, Notebook, Notebooks, kernel_name_of
from ...text import one_line, truncate_middle
from .base import ToolOutput, available, tool
from .call_details import CallDescription, argument_parts, change_part, code_part, fingerprint_of, text_part
from .kernel import TRACEBACK, Timeout, images_of, output_of
from .output import OutputFeed

READ = 24_000  # characters that one reading gives
SOURCE = 6_000
OUTPUT = 2_000  # characters of one cell's source and of its outputs, when several cells are read
UNREAD = 500  # of the list of what could not be read
ALONE = 16_000  # of each, when it is the only one that is read

PathArgument = Annotated[
    str | None,
    Field(description="From the server's folder; this conversation's own notebook when left out.", max_length=4096),
]
CellArgument = Annotated[str, Field(description="The cell's id, or its index (from 0).", min_length=1, max_length=64)]
Source = Annotated[str, Field(description="The source of the cell.", max_length=2_000_000)]


def _notebooks() -> tuple[Notebooks, ToolContext]:
    context = tool_context.get()
    return available(context.jupyter.notebooks, "notebooks"), context


async def read_notebook(
    path: PathArgument = None,
    cells: Annotated[
        str | None,
        Field(
            description='Which cells: "3", "2-5", "-3-" for the last three, ids; several with commas.', max_length=500
        ),
    ] = None,
    outputs: Annotated[
        Literal["text", "none", "images"], Field(description='"images" shows you the images, too: name the cells then.')
    ] = "text",
    start: Annotated[
        int, Field(description="With a single cell: from which line on, of its source and outputs.", ge=1)
    ] = 1,
) -> ToolOutput:
    """Read a notebook's cells: index, kind, id, source, and the text of the outputs. Long ones are cut, and say so."""
    notebooks, context = _notebooks()
    notebook = await notebooks.read(context.session, path)
    chosen = chosen_cells(notebook.cells, cells)
    # a notebook can be large: its text is made off the event loop.
    text = await asyncio.to_thread(_page, notebook, chosen, outputs != "none", start)
    shown = [one for cell in chosen for one in cell.outputs] if outputs == "images" else []
    return ToolOutput(content=text, images=await images_of(shown))


async def insert_cell(
    source: Source,
    kind: Annotated[Literal["code", "markdown", "raw"], Field(description="What the cell is.")] = "code",
    after: Annotated[
        str | None,
        Field(description='Id or index of the cell before it, or "start"; at the end when left out.', max_length=64),
    ] = None,
    path: PathArgument = None,
) -> Mapping[str, Any]:
    """Put a new cell into a notebook. It is not run: use run_cell with the id that you get."""
    notebooks, context = _notebooks()
    return _reference(await notebooks.insert(context.session, source, kind=kind, after=after, path=path))


async def edit_cell(
    cell: CellArgument,
    source: Annotated[str | None, Field(description="The whole new source.", max_length=2_000_000)] = None,
    search: Annotated[
        str | None,
        Field(
            description="Instead of source: text that is in the cell exactly once.", min_length=1, max_length=100_000
        ),
    ] = None,
    replace: Annotated[str, Field(description="What to put in the place of search.", max_length=2_000_000)] = "",
    expected: Annotated[
        str | None, Field(description="Change it only if this is its source now.", max_length=2_000_000)
    ] = None,
    path: PathArgument = None,
) -> Mapping[str, Any]:
    """Change the source of a cell: all of it (source), or one place in it (search, replace). Outputs stay."""
    notebooks, context = _notebooks()
    if (source is None) == (search is None):
        raise InvalidRequest("Give either source or search.", field="source")
    if expected is None:
        expected = call_expects.get()
    if source is None:
        now = _one_cell(await notebooks.read(context.session, path), cell)
        # By id from here on, and only if it still is what was searched: a user may change the notebook meanwhile.
        cell, expected = now.id, now.source if expected is None else expected
        source = replaced(now.source, search or "", replace)
    return _reference(await notebooks.edit(context.session, cell, source, expected=expected, path=path))


async def delete_cell(cell: CellArgument, path: PathArgument = None) -> Mapping[str, Any]:
    """Take a cell out of a notebook. You get its source, should it be needed again."""
    notebooks, context = _notebooks()
    gone = await notebooks.delete(context.session, cell, expected=call_expects.get(), path=path)
    return {"deleted": gone.id, "index": gone.index, "source": truncate_middle(gone.source, SOURCE, head=2 / 3)}


async def run_cell(cell: CellArgument, timeout: Timeout = 300.0, path: PathArgument = None) -> ToolOutput:
    """Run a code cell in its notebook's kernel. Its outputs go into the notebook, and you get them.

    A kernel is started when there is none.
    """
    notebooks, context = _notebooks()
    async with OutputFeed(context) as feed:
        done = await notebooks.run(
            context.session, cell, on_output=feed.take, timeout=timeout, expected=call_expects.get(), path=path
        )
    return await output_of(done, context)


def _one_cell(notebook: Notebook, cell: str) -> Cell:
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


def _page(notebook: Notebook, chosen: Sequence[Cell], outputs: bool, start: int) -> str:
    kernel = kernel_name_of(notebook.metadata)
    head = f"{notebook.path}: {len(notebook.cells)} cells"
    head += (f", kernel {kernel}" if kernel else "") + (", open, shared" if notebook.live else "")
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


def _reference(cell: Cell) -> Mapping[str, Any]:
    return {"cell": cell.id, "index": cell.index, "kind": cell.kind}


async def _named_notebook(args: Mapping[str, Any], context: ToolContext) -> Notebook:
    notebooks = available(context.jupyter.notebooks, "notebooks")
    path = args.get("path")
    return await notebooks.read(context.session, None if path is None else str(path))


async def _named_cell(args: Mapping[str, Any], context: ToolContext) -> tuple[Notebook, Cell]:
    """The notebook and the cell that the arguments of a call name. Raises NaviError."""
    notebook = await _named_notebook(args, context)
    return notebook, _one_cell(notebook, str(args.get("cell")))


def _place(notebook: Notebook, cell: Cell) -> str:
    count = "" if cell.kind != "code" else f", In [{cell.execution_count or ' '}]"
    return f"{cell.kind} cell {cell.index + 1} of {len(notebook.cells)}{count}, id {cell.id}"


def _language(notebook: Notebook, kind: str) -> str:
    if kind != "code":
        return kind
    metadata = notebook.metadata
    found = [metadata.get(name) for name in ("kernelspec", "language_info")]
    spec, info = [one if isinstance(one, Mapping) else {} for one in found]
    return str(spec.get("language") or info.get("name") or "python")


async def _describe_run(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook, cell = await _named_cell(args, context)
    details = (
        text_part("Notebook", notebook.path),
        text_part("Cell", _place(notebook, cell)),
        *argument_parts(args, ("cell", "path")),
        code_part("Source of the cell", cell.source, _language(notebook, cell.kind)),
    )
    return _of_cell(notebook, cell, *details)


async def _describe_edit(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook, cell = await _named_cell(args, context)
    source, search = args.get("source"), args.get("search")
    after = replaced(cell.source, str(search), str(args.get("replace") or "")) if source is None else str(source)
    details = (
        text_part("Notebook", notebook.path),
        text_part("Cell", _place(notebook, cell)),
        *argument_parts(args, ("cell", "path", "source", "search", "replace", "expected")),
        await change_part("Change of the cell", cell.source, after),
    )
    return _of_cell(notebook, cell, *details)


async def _describe_delete(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook, cell = await _named_cell(args, context)
    details = (
        text_part("Notebook", notebook.path),
        text_part("Cell", _place(notebook, cell)),
        await change_part("What is deleted", cell.source, ""),
    )
    return _of_cell(notebook, cell, *details)


async def _describe_insert(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook = await _named_notebook(args, context)
    kind, after = str(args.get("kind") or "code"), args.get("after")
    before = None if after in (None, "start") else _one_cell(notebook, str(after))
    place = "at the beginning" if after == "start" else f"at the end, after {len(notebook.cells)} cells"
    if before is not None:
        place = f"after the {_place(notebook, before)}"
    return CallDescription(
        details=(
            text_part("Notebook", notebook.path),
            text_part("Place", place),
            *argument_parts(args, ("after", "path", "source")),
            code_part("New cell", str(args.get("source", "")), _language(notebook, kind)),
        ),
        fingerprint=fingerprint_of(notebook.path, before.id if before is not None else after),
    )


def _of_cell(notebook: Notebook, cell: Cell, *details: CallDetail) -> CallDescription:
    known = fingerprint_of(notebook.path, cell.id, cell.kind, cell.source)
    return CallDescription(details=details, fingerprint=known, expects=cell.source)


TOOLS = (
    tool(read_notebook, Effect.READ),
    tool(insert_cell, Effect.WRITE, describes=_describe_insert, own=True),
    tool(edit_cell, Effect.WRITE, describes=_describe_edit),
    tool(delete_cell, Effect.WRITE, describes=_describe_delete),
    tool(run_cell, Effect.RUN, describes=_describe_run),
)
