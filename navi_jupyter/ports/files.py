"""The user's files, as tools reach them: below the server's root, and nothing else.

Implemented by ``jupyter.files``. Every method raises a NaviError that a model and a user can act on: FileRefused
(outside the root, binary, too large), NotFound, FileConflict, InvalidRequest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

NO_FILE: Final = "none"  # In place of a file's SHA-256: only if there is no such file.


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchMatch:
    """A line that matched a search."""

    path: str
    line: int  # from one; of the cell's source in a notebook
    text: str  # the line, cut around the match when it is long
    cell: str | None = None  # id of the notebook's cell; None in other files


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search has found."""

    matches: Sequence[SearchMatch] = ()
    files: int = 0  # how many were searched
    why_incomplete: str | None = None  # the limit that it met; None when it saw everything


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPage:
    """Some lines of a text file."""

    text: str
    start: int  # number of the first line, from one
    lines: int  # how many lines `text` has
    total: int  # how many the file has
    size: int  # bytes of the file
    sha256: str | None = None  # of the file, in hex; None where it is so large that it was not reckoned
    note: str | None = None  # encoding and line ends that the text does not show, bytes that are no UTF-8, cut lines


class Files(Protocol):
    """Files under the server's root. Paths are relative to it, with ``/``. Nothing outside is read or written."""

    async def list(
        self, path: str = "", *, pattern: str | None = None, query: str | None = None, limit: int = 200
    ) -> Sequence[Mapping[str, Any]]:
        """``{"path","kind","size","modified"}`` each; recursively with a glob pattern, or with ``query``: those whose
        path has its letters in order, the best first."""

    async def page(self, path: str, *, start: int = 1, lines: int = 400) -> TextPage:
        """Some lines of a text file."""

    async def read_bytes(self, path: str, *, limit: int) -> bytes:
        """The whole of a file of at most ``limit`` bytes."""

    async def write(
        self, path: str, content: str, *, expected_sha256: str | None = None, encoding: str | None = None
    ) -> Mapping[str, Any]:
        """Create or replace a text file. With ``expected_sha256``, only if that is what it holds now.

        It keeps the encoding, the line ends and the end that it has; ``encoding``: it is converted.
        """

    async def search(self, query: str, *, path: str = "", regex: bool = False, limit: int = 100) -> SearchResult:
        """Lines that have ``query`` (in any case, when it is all lower case), in files and in cells of notebooks."""
