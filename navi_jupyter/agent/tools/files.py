"""Tools for files below the server's folder: list, read, search, write."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import FileRefused, NotFound
from ...model.runs import Effect
from ...ports.agent import ToolContext, call_expects, tool_context
from ...ports.files import NO_FILE, Files
from .base import ToolOutput, available, tool
from .call_details import CallDescription, argument_parts, change_part, code_part, fingerprint_of, text_part

PAGE = 24_000  # characters that one call returns
_COMPARED = 4_000_000  # bytes of a file that is compared with what replaces it
Path = Annotated[str, Field(description="From the server's folder, with slashes.", max_length=4096)]


def _files() -> Files:
    return available(tool_context.get().jupyter.files, "files on its own disk, so they cannot be reached")


async def list_files(
    path: Annotated[str, Field(description="A folder; empty for the server's own.", max_length=4096)] = "",
    pattern: Annotated[
        str | None, Field(description="Look in folders below, too: *.csv, data/**/*.py", min_length=1, max_length=256)
    ] = None,
    limit: Annotated[int, Field(description="At most so many.", ge=1, le=1000)] = 200,
) -> ToolOutput:
    """List a folder: kind, size in bytes, time of the last change, path."""
    found = await _files().list(path, pattern=pattern, limit=limit + 1)
    lines = []
    for entry in found[:limit]:
        size = "" if entry["size"] is None else entry["size"]
        slash = "/" if entry["kind"] == "folder" else ""
        lines.append(f"{entry['kind']}\t{size}\t{entry['modified'] or ''}\t{entry['path']}{slash}")
    if len(found) > limit:
        lines.append(f"[… there are more than {limit}: give a pattern, a folder, or a larger limit …]")
    return ToolOutput(content="\n".join(lines) or "(nothing)")


async def read_file(
    path: Path,
    start: Annotated[int, Field(description="The first line, from 1.", ge=1)] = 1,
    lines: Annotated[int, Field(description="How many lines.", ge=1, le=5000)] = 400,
) -> ToolOutput:
    """Read lines of a text file. The first line of the answer says which they are, and the file's hash."""
    if path.endswith(".ipynb"):
        raise FileRefused("That is a notebook: use read_notebook with this path.", field="path")
    page = await _files().page(path, start=start, lines=lines)
    text, shown = page.text, page.lines
    if len(text) > PAGE:  # as many whole lines as there is room for; at least one, if need be cut
        text = text[:PAGE].rpartition("\n")[0] or text[:PAGE]
        shown = text.count("\n") + 1
    last = page.start + shown - 1
    about = [
        f"lines {page.start} to {last} of {page.total}" if shown else f"no line {page.start} of {page.total}",
        f"{page.size} bytes",
        f"sha256 {page.sha256[:16]}" if page.sha256 else "",
        page.note or "",
    ]
    head = f"[{path}: {'; '.join(part for part in about if part)}]"
    rest = page.total - last
    more = f"\n[… {rest} more lines: read_file(path={path!r}, start={last + 1}) …]" if shown and rest > 0 else ""
    return ToolOutput(content=f"{head}\n{text}{more}")


async def search_files(
    query: Annotated[str, Field(description="All lower case finds any case.", min_length=1, max_length=500)],
    path: Annotated[str, Field(description="A folder or file to search in.", max_length=4096)] = "",
    regex: Annotated[bool, Field(description="The query is a regular expression (RE2: no look-around).")] = False,
    limit: Annotated[int, Field(description="At most so many lines.", ge=1, le=500)] = 100,
) -> ToolOutput:
    """Find lines with a text in files and in cells of notebooks. Binary and very large files are left out."""
    found = await _files().search(query, path=path, regex=regex, limit=limit)
    lines = [
        f"{one.path}{'' if one.cell is None else f' cell {one.cell}'}:{one.line}: {one.text}" for one in found.matches
    ]
    if found.why_incomplete:
        lines.append(f"[… stopped at {found.why_incomplete}: there may be more …]")
    return ToolOutput(content="\n".join(lines) or f"(nothing in {found.files} files)")


async def write_file(
    path: Path,
    content: Annotated[str, Field(description="All of the file's text.", max_length=10_000_000)],
    expected_sha256: Annotated[
        str | None,
        Field(description="Replace it only if it still is what read_file showed.", pattern="^[0-9A-Fa-f]{8,64}$"),
    ] = None,
    encoding: Annotated[
        Literal["utf-8"] | None, Field(description="Convert a file in another encoding. Left out: it keeps its own.")
    ] = None,
) -> Mapping[str, Any]:
    """Create a text file, or replace all of it. For notebooks use insert_cell and edit_cell.

    A file that is replaced keeps its encoding and its line ends, and has a newline at its end if it had one: write \\n.
    """
    # What the user has approved to replace; the model's own condition is one of the same file.
    shown = call_expects.get()
    expected = shown if shown is not None and _may_stand_for(shown, expected_sha256) else expected_sha256
    return await _files().write(path, content, expected_sha256=expected, encoding=encoding)


def _may_stand_for(shown: str, wanted: str | None) -> bool:
    return wanted is None or shown.startswith(wanted.lower())


async def _describe_write(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    files = available(context.jupyter.files, "files on its own disk")
    path, content = str(args.get("path")), str(args.get("content", ""))
    head = (text_part("Path", path), *argument_parts(args, ("path", "content")))
    language = path.rpartition(".")[2] if "." in path else None
    try:
        before = await files.read_bytes(path, limit=_COMPARED)
    except NotFound:
        detail = code_part("New file", content, language)
        return CallDescription(details=(*head, detail), fingerprint=fingerprint_of(path, NO_FILE), expects=NO_FILE)
    except FileRefused as error:
        page = await files.page(path, lines=1)
        note = text_part("Note", f"It replaces a file of {page.size:,} bytes, which is not compared: {error.message}")
        detail = code_part("New content of the file", content, language)
        known = fingerprint_of(path, page.sha256 or page.size)
        return CallDescription(details=(*head, note, detail), fingerprint=known, expects=page.sha256)
    digest = hashlib.sha256(before).hexdigest()
    # Line ends are kept as the file has them, whatever the content has: they are no change.
    detail = await change_part(
        "Change of the file", _text_of(before).replace("\r\n", "\n"), content.replace("\r\n", "\n")
    )
    return CallDescription(details=(*head, detail), fingerprint=fingerprint_of(path, digest), expects=digest)


def _text_of(content: bytes) -> str:
    """The text of a file for the comparison; what is no text is shown by the characters of its bytes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


TOOLS = (
    tool(list_files, Effect.READ),
    tool(read_file, Effect.READ),
    tool(search_files, Effect.READ),
    tool(write_file, Effect.WRITE, describes=_describe_write, own=True),
)
