"""Search for text in the files below a folder, within limits of files, bytes and time.

Blocks: call it in a thread. A regular expression cannot hold up the server: ``patterns`` matches it in linear time and
without the interpreter's lock. The time and the stop are looked at before each line that an expression is searched in.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ...errors import InvalidRequest, NaviError
from ...input.json_input import JsonTooDeep, check_depth
from ...input.patterns import MAX_TEXT, Pattern, PatternRefused
from ...ports.files import SearchMatch, SearchResult
from ...text import plain_number
from .text_form import NoText, TextForm
from .tree import Folder, Tree, chunks, close, normal, open_folder, open_regular, os_errors

SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", ".ipynb_checkpoints", "__pycache__", ".venv", ".tox"})
"""Folders that are entered only when they are named."""
MAX_TEXT_FILE = 5 << 20
MAX_NOTEBOOK = 32 << 20
MAX_QUERY = 500
MAX_LINE = MAX_TEXT  # characters of a line that an expression is matched against
SHOWN = 240  # characters of a line that are shown


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchLimits:
    """The limits of a search."""

    matches: int = 100
    files: int = 20_000
    size: int = 400 << 20  # bytes read in all
    seconds: float = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchQuery:
    """The text or expression to find."""

    text: str
    any_case: bool
    expression: Pattern | None = None  # None for plain text

    @classmethod
    def of(cls, query: str, *, regex: bool) -> SearchQuery:
        """Raises InvalidRequest."""
        if not query or len(query) > MAX_QUERY:
            raise InvalidRequest(f"A query has 1 to {MAX_QUERY} characters.", field="query")
        any_case = query == query.lower()
        if not regex:
            return cls(text=query, any_case=any_case)
        try:
            return cls(text=query, any_case=any_case, expression=Pattern(query, ignore_case=any_case))
        except PatternRefused as refused:
            raise InvalidRequest(
                f"That is no regular expression that can be used here: {refused}.", field="query"
            ) from None

    def find(self, line: str) -> int:
        """Where it begins in the line; -1 when it is not there, or only beyond ``MAX_LINE``."""
        if self.expression is None:
            return (line.lower() if self.any_case else line).find(self.text)
        return self.expression.find(line[:MAX_LINE])


def search(
    tree: Tree, query: SearchQuery, path: str, limits: SearchLimits, stop: threading.Event, *, hide: Sequence[str] = ()
) -> SearchResult:
    """Search below ``path``, or in that one file. Raises as ``Tree.place``."""
    scan = _Scan(tree, query, limits, stop, hide)
    with tree.place(path) as place, os_errors(path):
        if not place.is_folder:
            with tree.file(path) as (descriptor, status):
                scan.read(descriptor, status, normal(path))
        else:
            with tree.folder(path) as folder:
                scan.below(folder, normal(path))
    return SearchResult(matches=tuple(scan.found), files=scan.files, why_incomplete=scan.limit_met)


@dataclass(slots=True)
class _Scan:
    """A search that is going on."""

    tree: Tree
    query: SearchQuery
    limits: SearchLimits
    stop: threading.Event
    hide: Sequence[str]
    found: list[SearchMatch] = field(default_factory=list)
    files: int = 0
    size: int = 0
    limit_met: str | None = None  # the limit that ended it
    until: float = 0.0

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.limits.seconds

    def over(self) -> bool:
        """Whether a limit is met."""
        if self.limit_met is None:
            if len(self.found) >= self.limits.matches:
                self.limit_met = f"{self.limits.matches} matches"
            elif self.files >= self.limits.files:
                self.limit_met = f"{self.limits.files} files"
            elif self.size >= self.limits.size:
                self.limit_met = f"{self.limits.size >> 20} MB"
            elif time.monotonic() > self.until or self.stop.is_set():
                self.limit_met = f"{plain_number(self.limits.seconds)} seconds"
        return self.limit_met is not None

    def below(self, folder: Folder, prefix: str) -> None:
        """The files of a folder and of the folders in it. Links are not followed: what they lead to is found under
        its own path, or lies outside."""
        with closing(walk(self.tree, folder, prefix, hide=self.hide)) as entries:
            for parent, entry, path in entries:
                if self.over():
                    return
                if entry.is_file(follow_symlinks=False):
                    self._file(parent, entry, path)

    def _file(self, folder: Folder, entry: os.DirEntry[str], path: str) -> None:
        try:
            descriptor, status = open_regular(folder, entry.name, path, entry.stat(follow_symlinks=False))
        except (OSError, NaviError):  # gone, or not ours to read
            return
        try:
            self.read(descriptor, status, path)
        finally:
            os.close(descriptor)

    def read(self, descriptor: int, status: os.stat_result, path: str) -> None:
        """One open file."""
        notebook = path.endswith(".ipynb")
        if status.st_size > (MAX_NOTEBOOK if notebook else MAX_TEXT_FILE):
            return
        content = b"".join(chunks(descriptor))
        self.files += 1
        self.size += len(content)
        if notebook:
            for cell, source in _sources(content):
                self._lines(path, source, cell)
            return
        text = _as_text(content)
        # Plain text that is nowhere in the file is in none of its lines, which then need no search.
        if text is not None and (self.query.expression is not None or self.query.find(text) >= 0):
            self._lines(path, text, None)

    def _lines(self, path: str, text: str, cell: str | None) -> None:
        # An expression can take a second for a long line; plain text takes nothing, and looking at the clock does.
        often = 1 if self.query.expression is not None else 256
        for number, line in enumerate(text.split("\n"), 1):
            if number % often == 0 and self.over():
                return
            at = self.query.find(line)
            if at >= 0:
                self.found.append(SearchMatch(path=path, line=number, text=_around(line, at), cell=cell))
                if self.over():
                    return


def _around(line: str, at: int) -> str:
    if len(line) <= SHOWN:
        return line.rstrip("\r")
    begin = max(0, min(at - SHOWN // 3, len(line) - SHOWN))
    end = begin + SHOWN
    return ("…" if begin else "") + line[begin:end].rstrip("\r") + ("…" if end < len(line) else "")


def _as_text(content: bytes) -> str | None:
    try:
        text = TextForm.of(content).decode(content)
    except NoText:
        return None
    return text.replace("\r", "\n") if "\n" not in text else text


def load_notebook_json(content: bytes | str) -> Any:
    """As ``json.loads``, but other threads run meanwhile: each object calls Python, where the interpreter switches.

    Raises ValueError, JsonTooDeep among them.
    """
    try:
        value = json.loads(content, object_pairs_hook=lambda pairs: dict(pairs))
    except RecursionError:
        raise JsonTooDeep from None
    check_depth(value)
    return value


def _sources(content: bytes) -> Iterator[tuple[str, str]]:
    """Id and source of each cell; nothing for what is no notebook."""
    try:
        document = load_notebook_json(content)
    except (ValueError, RecursionError):
        return
    cells = document.get("cells") if isinstance(document, dict) else None
    for index, cell in enumerate(cells if isinstance(cells, list) else []):
        source = cell.get("source") if isinstance(cell, dict) else None
        if isinstance(source, list):
            source = "".join(part for part in source if isinstance(part, str))
        if isinstance(source, str):
            yield str(cell.get("id") or index), source


def walk(
    tree: Tree, folder: Folder, prefix: str, *, hide: Sequence[str] = (), recursive: bool = True
) -> Generator[tuple[Folder, os.DirEntry[str], str], None, None]:
    """The entries of an open folder, folders first, then those below it: their folder, themselves, and their path.

    Left out is what the server hides; not entered are links and ``SKIPPED`` folders. To be closed.
    """
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: (not entry.is_dir(follow_symlinks=False), entry.name))
    shown = [entry for entry in entries if tree.shown(entry.name) and not any(fnmatchcase(entry.name, p) for p in hide)]
    paths = {entry.name: f"{prefix}/{entry.name}" if prefix else entry.name for entry in shown}
    for entry in shown:
        yield folder, entry, paths[entry.name]
    for entry in shown if recursive else ():
        if not entry.is_dir(follow_symlinks=False) or entry.name in SKIPPED:
            continue
        try:
            opened = open_folder(folder, entry.name)
        except OSError:  # gone, replaced by a link, or not ours to read
            continue
        try:
            yield from walk(tree, opened, paths[entry.name], hide=hide)
        finally:
            close(opened)


def glob_matches(pattern: str, path: str) -> bool:
    """Whether a path fits a shell pattern; ``**`` is any number of folders. Without a slash: the name, at any depth."""
    wanted = [part for part in pattern.split("/") if part not in ("", ".")]
    if len(wanted) == 1 and "/" not in pattern:
        return fnmatchcase(path.rsplit("/", 1)[-1], pattern)
    # Positions in the pattern that the names so far may have led to: no backtracking, so no pattern is slow.
    reached = _skip_stars(wanted, {0})
    for name in path.split("/"):
        stepped = {
            place if wanted[place] == "**" else place + 1
            for place in reached
            if place < len(wanted) and (wanted[place] == "**" or fnmatchcase(name, wanted[place]))
        }
        reached = _skip_stars(wanted, stepped)
    return len(wanted) in reached


def _skip_stars(wanted: Sequence[str], places: set[int]) -> set[int]:
    out = set(places)
    for place in places:
        while place < len(wanted) and wanted[place] == "**":
            place += 1
            out.add(place)
    return out
