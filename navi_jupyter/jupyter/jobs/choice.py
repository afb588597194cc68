"""Which notebooks there are for a job, and which one was meant by a name that none has.

Only where the server's root is a folder of this machine: elsewhere none are found. Dated copies are left out: they are
results, which are not to be executed again. Not responsible for what a notebook takes (``parameters``).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from ...errors import NaviError
from ...text import closeness
from ..files.search import walk
from ..files.tree import Tree

MAX_SEEN = 50_000  # entries of folders
SEARCH_SECONDS = 1.0  # it is asked while somebody types
MAX_COMPARED = 2000  # names that a mistyped one is compared with
ALIKE = 0.6  # of SequenceMatcher: what is less alike was not meant
_COPY = re.compile(r"-\d{4}-\d\d-\d\d-\d{4}(-\d+)?\.ipynb$", re.IGNORECASE)


class NotebookFinder:
    """Finds notebooks below the server's root."""

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
