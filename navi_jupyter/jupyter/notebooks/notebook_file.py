"""A notebook's file: where it is, read whole, and parsed.

Not responsible for what is done with a notebook (``contents``) or whose it is (``identity``).
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import FileRefused, NotebookNotFound, NotFound
from ...input.json_input import well_formed
from ..files.tree import Tree, chunks, os_errors
from .cells import Content, clean
from .notebook_text import NotebookText

MAX_NOTEBOOK = 200 << 20
MOMENT = 0.05  # seconds between two looks at a file that is being written
SAVE_SECONDS = 10.0  # that a save of a large notebook may take


async def until_saved(tree: Tree | None, path: str) -> None:
    """Return once no file manager of Jupyter is in the middle of writing the notebook (``tree`` None: cannot be known).

    To be awaited at once before such a manager reads it: it would put the version before back. Raises FileRefused when
    a save does not end.
    """
    if tree is None or not path.endswith(".ipynb"):
        return
    place = Path(tree.root, path)
    before = place.with_name(f".~{place.name}")  # the version before, there while the notebook is written
    deadline = time.monotonic() + SAVE_SECONDS
    while before.exists():
        if await asyncio.to_thread(_is_notebook, tree, path):
            return  # the other one was left behind
        if time.monotonic() > deadline:
            raise FileRefused(f"{path} is being saved, or a save of it was cut off: open it again.", field="path")
        await asyncio.sleep(MOMENT)


def _is_notebook(tree: Tree, path: str) -> bool:
    try:
        parse_notebook(read_whole(tree, path), path)
    except FileRefused:
        return False
    except NotebookNotFound:
        return True  # the manager says it
    return True


def read_whole(tree: Tree, path: str) -> bytes:
    """The file of a notebook. Raises NotebookNotFound, FileRefused."""
    try:
        with tree.file(path) as (descriptor, status), os_errors(path):
            if status.st_size > MAX_NOTEBOOK:
                raise FileRefused(f"{path} has {status.st_size >> 20} MB: too large for a notebook.", field="path")
            return b"".join(chunks(descriptor))
    except NotFound:
        raise NotebookNotFound(f"There is no notebook {path}.", field="path") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedNotebook:
    """A notebook of any version as nbformat 4."""

    content: Content  # ``cells`` and ``metadata`` are there, and every cell is an object; it may lack anything else
    text: NotebookText | None = None  # of the file, for changing it; None where the file is older than nbformat 4
    unread: tuple[str, ...] = ()  # what of it could not be read


def parse_notebook(raw: bytes, path: str) -> ParsedNotebook:
    """What a file has, also where it breaks the format. Unlike ``nbformat.reads`` it makes no random ids.

    Raises FileRefused.
    """
    nbformat = load_nbformat()
    try:
        # Bytes that are no UTF-8 are kept as they are.
        text = NotebookText(raw.decode("utf-8", "surrogateescape"))
        if _is_of_version_4(text.content):
            return ParsedNotebook(content=text.content, text=text, unread=text.unread)
        content = nbformat.convert(nbformat.reads(raw.decode("utf-8-sig"), as_version=nbformat.NO_CONVERT), 4)
        unread = clean(content)
    except Exception as error:  # noqa: BLE001 - nbformat converts older files, and fails on odd ones in any way
        raise FileRefused(f"{path} is no notebook that can be read: {str(error)[:200]}", field="path") from None
    return ParsedNotebook(content=content, unread=unread)


def _is_of_version_4(content: Content) -> bool:
    """Its number says so; or it has none, and looks like it."""
    version = content.get("nbformat")
    if isinstance(version, int | float) and not isinstance(version, bool):
        return 4 <= version < 5
    return version == "4" or bool(content["cells"])


def as_raw(text: str) -> bytes:
    """The bytes of a file, of its text as :func:`parse_notebook` has read it."""
    return text.encode("utf-8", "surrogateescape")


def load_nbformat() -> Any:
    """Nbformat. Late: not at the start of the server, which loads it itself at the first notebook."""
    return import_module("nbformat")


def local_root(contents_manager: Any, root_dir: str) -> str | None:
    """The folder that a contents manager serves; None when its files are not on this machine."""
    from jupyter_server.services.contents.fileio import FileManagerMixin  # late: this is imported at start

    if not isinstance(contents_manager, FileManagerMixin):
        return None
    root = str(getattr(contents_manager, "root_dir", "") or root_dir)
    return root if Path(root).is_dir() else None


def as_bytes(content: Any) -> bytearray:
    """As ``nbformat.v4.writes_json``, but in pieces, so that other threads run meanwhile. Changes ``content``."""
    rwbase: Any = import_module("nbformat.v4.rwbase")  # late: as below
    encoder = json.JSONEncoder(ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": "))
    data = bytearray()
    for piece in encoder.iterencode(rwbase.strip_transient(rwbase.split_lines(content))):
        data += well_formed(piece).encode()
    data += b"\n"
    return data


def check_inside(tree: Tree, path: str) -> None:
    """Raises NotebookNotFound, FileRefused unless the path leads to a file below the root."""
    try:
        with tree.file(path):
            return
    except NotFound:
        raise NotebookNotFound(f"There is no notebook {path}.", field="path") from None
