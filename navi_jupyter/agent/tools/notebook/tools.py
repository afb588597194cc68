"""Tools for notebooks: read cells and outputs, change and run cells. Open notebooks show every change at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace as replace_fields
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field

from .... import clock
from ....errors import InvalidRequest, NaviError
from ....model.runs import CallDetail, CellPlace, Effect
from ....ports.agent import ToolContext, call_expects, tool_context
from ....ports.edits import TOP, edit_of
from ....ports.jupyter import Cell, Notebook, Notebooks
from ....text import truncate_middle
from ..base import ToolOutput, available, tool
from ..call_details import CallDescription, argument_parts, change_part, code_part, fingerprint_of, text_part
from ..kernel import Timeout, images_of, output_of
from ..output import OutputFeed
from .cell_text import SOURCE, chosen_cells, one_cell, page_text, place_text, replaced

NEIGHBOURS = 6  # lines of the cell before a new one

PathArgument = Annotated[
    str | None,
    Field(description="From the server's folder; this conversation's own notebook when left out.", max_length=4096),
]
CellArgument = Annotated[str, Field(description="The cell's id, or its index (from 0).", min_length=1, max_length=64)]
Source = Annotated[str, Field(description="The source of the cell.", max_length=2_000_000)]


def _notebooks() -> tuple[Notebooks, ToolContext]:
    context = tool_context.get()
    return available(context.jupyter.notebooks, "notebooks"), context


async def seen_notebook(context: ToolContext, path: object = None) -> Notebook:
    """The notebook at a path, or the conversation's own, as the user sees it. Raises NaviError."""
    notebooks = available(context.jupyter.notebooks, "notebooks")
    return await notebooks.read(context.session, None if path is None else str(path), shown=context.page.shown)


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
    """Read a notebook's cells: index, kind, id, source, and the text of the outputs. Long ones are cut, and say so.

    It is what the user's page shows, with unsaved changes, where that is known; the second line says how old it is.
    """
    notebook = await seen_notebook(tool_context.get(), path)
    chosen = chosen_cells(notebook.cells, cells)
    # a notebook can be large: its text is made off the event loop.
    text = await asyncio.to_thread(page_text, notebook, chosen, outputs != "none", start)
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
    now = await seen_notebook(context, path)
    if after is not None and after != TOP:
        after = one_cell(now, after).id  # an index is that of the page
    new = Cell(id=uuid4().hex[:8], index=0, kind=kind, source=source)
    async with recorded(context, now, new, before=None, after=source, path=path):
        made = await notebooks.insert(context.session, source, kind=kind, after=after, path=path, cell_id=new.id)
    return _reference(made, _note(now, made))


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
    notebook = await seen_notebook(context, path)
    now = one_cell(notebook, cell)
    if expected is None:
        expected = call_expects.get()
    if source is None:
        source = replaced(now.source, search or "", replace)
    # By id from here on, and only if it still is what was read: a user may change the notebook meanwhile.
    async with recorded(context, notebook, now, before=now.source, after=source, path=path):
        changed = await notebooks.edit(
            context.session, now.id, source, expected=now.source if expected is None else expected, path=path
        )
    return _reference(changed, _note(notebook, changed))


async def delete_cell(cell: CellArgument, path: PathArgument = None) -> Mapping[str, Any]:
    """Take a cell out of a notebook. You get its source, should it be needed again."""
    notebooks, context = _notebooks()
    notebook = await seen_notebook(context, path)
    now = one_cell(notebook, cell)
    expected = call_expects.get()
    async with recorded(context, notebook, now, before=now.source, after=None, path=path):
        gone = await notebooks.delete(
            context.session, now.id, expected=now.source if expected is None else expected, path=path
        )
    done = {"deleted": gone.id, "index": gone.index, "source": truncate_middle(gone.source, SOURCE, head=2 / 3)}
    note = _note(notebook, gone)
    return done if note is None else done | {"note": note}


async def run_cell(cell: CellArgument, timeout: Timeout = 300.0, path: PathArgument = None) -> ToolOutput:
    """Run a code cell in its notebook's kernel. Its outputs go into the notebook, and you get them.

    A kernel is started when there is none.
    """
    notebooks, context = _notebooks()
    now = one_cell(await seen_notebook(context, path), cell)
    expected = call_expects.get()
    async with OutputFeed(context) as feed:
        done = await notebooks.run(
            context.session,
            now.id,
            on_output=feed.take,
            timeout=timeout,
            expected=now.source if expected is None else expected,
            path=path,
        )
    return await output_of(done, context)


@asynccontextmanager
async def recorded(
    context: ToolContext, notebook: Notebook, cell: Cell, *, before: str | None, after: str | None, path: str | None
) -> AsyncIterator[None]:
    """A change of a cell, kept for the user to undo: what is there before is stored before it is changed."""
    if context.edits is None:
        yield
        return
    after = None if after is None else after.replace("\r\n", "\n")  # as it is read again
    edit = edit_of(
        notebook,
        cell,
        run_id=context.run_id,
        own=path is None or notebook.path == context.session.notebook_path,
        before=before,
        after=after,
        at=clock.now(),
    )
    if after is None:
        edit = replace_fields(edit, outputs=json.dumps([dict(one) for one in cell.outputs], default=str))
    await context.edits.begin(edit)
    try:
        yield
    except NaviError:
        await context.edits.finish(edit, done=False)
        raise
    # Cancelled: whether it was made is not known, and the record says so.
    await context.edits.finish(edit, done=True)


def _reference(cell: Cell, note: str | None) -> Mapping[str, Any]:
    made = {"cell": cell.id, "index": cell.index, "kind": cell.kind}
    return made if note is None else made | {"note": note}


def _note(notebook: Notebook, changed: Cell) -> str | None:
    """Where a change was made, if the user may have something unsaved."""
    if changed.by_page:
        return "The user's page had unsaved changes: it made this one in what it shows, and saved all of them."
    if notebook.shown_at is not None or (notebook.has_page and not notebook.live):
        return "This is in the file, and comes into the page that has the notebook open; what is unsaved there stays."
    return None


async def _named_cell(args: Mapping[str, Any], context: ToolContext) -> tuple[Notebook, Cell]:
    """The notebook and the cell that the arguments of a call name. Raises NaviError."""
    notebook = await seen_notebook(context, args.get("path"))
    return notebook, one_cell(notebook, str(args.get("cell")))


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
        _cell_part("Cell", notebook, cell),
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
        _cell_part("Cell", notebook, cell),
        *argument_parts(args, ("cell", "path", "source", "search", "replace", "expected")),
        await change_part("Change of the cell", cell.source, after),
    )
    return _of_cell(notebook, cell, *details)


async def _describe_delete(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook, cell = await _named_cell(args, context)
    details = (
        text_part("Notebook", notebook.path),
        _cell_part("Cell", notebook, cell),
        await change_part("What is deleted", cell.source, ""),
    )
    return _of_cell(notebook, cell, *details)


async def _describe_insert(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    notebook = await seen_notebook(context, args.get("path"))
    kind, after = str(args.get("kind") or "code"), args.get("after")
    cells = notebook.cells
    before = None if after in (None, TOP) else one_cell(notebook, str(after))
    if before is None and after is None and cells:
        before = cells[-1]
    details = [text_part("Notebook", notebook.path)]
    if before is None:
        details.append(text_part("Place", "at the beginning"))
    else:
        place = "At the end, after" if after is None else "After"
        details.append(_cell_part(place, notebook, before))
    details += argument_parts(args, ("after", "path", "source"))
    if before is not None and before.source.strip():
        lines = before.source.rstrip().split("\n")
        label = "The cell before it" if len(lines) <= NEIGHBOURS else f"The last {NEIGHBOURS} lines before it"
        details.append(code_part(label, "\n".join(lines[-NEIGHBOURS:]), _language(notebook, before.kind)))
    details.append(code_part("New cell", str(args.get("source", "")), _language(notebook, kind)))
    return CallDescription(
        details=tuple(details),
        # At the end is at the end, whatever comes there meanwhile.
        fingerprint=fingerprint_of(notebook.path, before.id if before is not None and after is not None else after),
    )


def _cell_part(label: str, notebook: Notebook, cell: Cell) -> CallDetail:
    place = CellPlace(path=notebook.path, id=cell.id, index=cell.index, execution_count=cell.execution_count)
    return text_part(label, place_text(notebook, cell), cell=place)


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
