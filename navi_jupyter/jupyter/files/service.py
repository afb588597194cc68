"""Files under the server's root, for tools: listed, read in pages of lines, searched, replaced as a whole.

Only where the root is a folder of this machine. Everything that touches the disk runs in a thread.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import mimetypes
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from ...errors import FileConflict, FileRefused, InvalidRequest, NaviError, NotFound
from ...ports.files import SearchResult, TextPage
from ...text import closeness
from .search import SearchLimits, SearchQuery, glob_matches, load_notebook_json, search, walk
from .text_form import WIDE_MARKS, CannotEncode, NoText, TextForm, describe_ends, rewritten, split
from .tree import Tree, chunks, normal, os_errors

T = TypeVar("T")
MAX_PAGED = 1 << 30  # bytes of a file that is read by lines; all of it has to be counted
MAX_DECODED = 16 << 20  # bytes of a file whose form (encoding, line ends) is looked at; larger ones are taken for UTF-8
MAX_DIGESTED = 64 << 20
MAX_WRITTEN = 10 << 20
MAX_LINE = 4000  # bytes of one line that are given
MAX_PAGE = 400_000  # bytes of one page
MAX_LISTED = 50_000  # entries that one listing reads
LISTING_SECONDS = 10.0
FINDING_SECONDS = 1.0
MAX_FOUND = 200  # of which the best are given
WRITE_ATTEMPTS = 5  # how often a file is written again because another program changed it meanwhile


class LocalFiles:
    """Implements ``ports.jupyter.Files``."""

    def __init__(self, root: str, *, allow_hidden: bool = False, hide: Sequence[str] = ()) -> None:
        self.tree = Tree(root, allow_hidden=allow_hidden)
        self._hide = tuple(hide)  # shell patterns of names that are not listed

    async def list(
        self, path: str = "", *, pattern: str | None = None, query: str | None = None, limit: int = 200
    ) -> Sequence[Mapping[str, Any]]:
        """``{"path","kind","size","modified"}`` each; ``kind`` is ``file``, ``notebook``, ``folder`` or ``other``.

        ``query``: those whose path has its letters in order, the best first, of what is seen in a second: it is asked
        while somebody types.
        """
        if query is not None:
            return await _cancellable(partial(self._find, path, query, limit))
        if pattern is not None and len(pattern) > 256:
            raise InvalidRequest("The pattern is longer than 256 characters.", field="pattern")
        return await asyncio.to_thread(self._list, path, pattern, limit)

    async def page(self, path: str, *, start: int = 1, lines: int = 400) -> TextPage:
        """Raises FileRefused for what is no text, or larger than a gigabyte."""
        if start < 1 or not 1 <= lines <= 10_000:
            raise InvalidRequest("start counts from one, and a page has 1 to 10000 lines.", field="start")
        return await _cancellable(partial(self._page, path, start, lines))

    async def read_bytes(self, path: str, *, limit: int) -> bytes:
        """Raises FileRefused for a larger one."""
        return await asyncio.to_thread(self._read_bytes, path, limit)

    async def write(
        self, path: str, content: str, *, expected_sha256: str | None = None, encoding: str | None = None
    ) -> Mapping[str, Any]:
        """``{"path","size","sha256","created","kept"}``. Folders on the way are made.

        A file that is replaced keeps its form (``text_form``), which ``kept`` describes; ``encoding`` converts it.
        Raises FileConflict when it is not as expected, FileRefused for what must not be written so.
        """
        return await asyncio.to_thread(self._write, path, content, expected_sha256, encoding)

    async def search(self, query: str, *, path: str = "", regex: bool = False, limit: int = 100) -> SearchResult:
        """Raises InvalidRequest for an expression that is none, or that cannot be matched in linear time."""
        limits = SearchLimits(matches=limit)

        def work(stop: threading.Event) -> SearchResult:
            # In the thread, because compiling an expression can take long, too.
            return search(self.tree, SearchQuery.of(query, regex=regex), path, limits, stop, hide=self._hide)

        return await _cancellable(work)

    def _list(self, path: str, pattern: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """The entries of a folder, and with a pattern those below it that match, within limits."""
        prefix, until = normal(path), time.monotonic() + LISTING_SECONDS
        found: list[Mapping[str, Any]] = []
        with self.tree.folder(path) as folder:
            walked = walk(self.tree, folder, prefix, hide=self._hide, recursive=pattern is not None)
            with closing(walked) as entries:
                for number, (_, entry, where) in enumerate(entries):
                    if number >= MAX_LISTED or time.monotonic() > until or len(found) >= limit:
                        break
                    if pattern is None or glob_matches(pattern, where.removeprefix(f"{prefix}/")):
                        found.append(self._describe(entry, where))
        return found

    def _find(self, path: str, query: str, limit: int, stop: threading.Event) -> Sequence[Mapping[str, Any]]:
        prefix, until = normal(path), time.monotonic() + FINDING_SECONDS
        found: list[tuple[tuple[int, int], str, Mapping[str, Any]]] = []
        with self.tree.folder(path) as folder, closing(walk(self.tree, folder, prefix, hide=self._hide)) as entries:
            for number, (_, entry, where) in enumerate(entries):
                if number >= MAX_LISTED or stop.is_set() or time.monotonic() > until:
                    break
                if (close := closeness(query, where)) is not None:
                    # Described at once: the folder of the entry is open only now.
                    found.append((close, where, self._describe(entry, where)))
                if len(found) >= 2 * MAX_FOUND:
                    found = sorted(found, key=lambda one: one[:2])[:MAX_FOUND]
        return [described for _, _, described in sorted(found, key=lambda one: one[:2])[:limit]]

    def _describe(self, entry: os.DirEntry[str], path: str) -> Mapping[str, Any]:
        try:
            status: os.stat_result | None = entry.stat(follow_symlinks=False)
        except OSError:
            status = None
        if status is not None and stat.S_ISLNK(status.st_mode):
            try:
                with self.tree.place(path) as place:
                    status = place.status
            except NaviError:  # it leads out, or nowhere
                status = None
        if status is None:
            return {"path": path, "kind": "other", "size": None, "modified": None}
        kind = "other"
        if stat.S_ISDIR(status.st_mode):
            kind = "folder"
        elif stat.S_ISREG(status.st_mode):
            kind = "notebook" if entry.name.endswith(".ipynb") else "file"
        modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
        return {"path": path, "kind": kind, "size": status.st_size if kind != "folder" else None, "modified": modified}

    def _page(self, path: str, start: int, lines: int, stop: threading.Event) -> TextPage:
        with self.tree.file(path) as (descriptor, status), os_errors(path):
            if status.st_size > MAX_PAGED:
                raise FileRefused(f"{path} has {status.st_size >> 20} MB; up to {MAX_PAGED >> 20} MB are read.")
            reader = _PageReader(path, start, lines)
            if status.st_size <= MAX_DECODED:
                whole = b"".join(chunks(descriptor))
                form, text = _decoded(whole, path)
                reader.feed(text.replace("\r", "\n").encode() if "\n" not in text else text.encode())
                ends = describe_ends(Counter(end for _, end in split(text)), ends=text.endswith(("\n", "\r")))
                digest = hashlib.sha256(whole).hexdigest()
                return reader.page(len(whole), digest, "; ".join(filter(None, (form.describe(), ends))))
            return self._page_of_large(path, descriptor, status, reader, stop)

    def _page_of_large(
        self, path: str, descriptor: int, status: os.stat_result, reader: _PageReader, stop: threading.Event
    ) -> TextPage:
        digest = hashlib.sha256() if status.st_size <= MAX_DIGESTED else None
        for number, chunk in enumerate(chunks(descriptor)):
            if stop.is_set():
                break
            if number == 0 and chunk.startswith(WIDE_MARKS):
                raise FileRefused(f"{path} is in UTF-16 and larger than {MAX_DECODED >> 20} MB.", field="path")
            if number == 0 and b"\0" in chunk[:8192]:
                raise _binary(path, status.st_size)
            reader.feed(chunk.removeprefix(codecs.BOM_UTF8) if number == 0 else chunk)
            if digest is not None:
                digest.update(chunk)
        return reader.page(status.st_size, None if digest is None else digest.hexdigest(), "")

    def _read_bytes(self, path: str, limit: int) -> bytes:
        with self.tree.file(path) as (descriptor, status), os_errors(path):
            if status.st_size > limit:
                raise FileRefused(f"{path} has {status.st_size} bytes; {limit} are allowed here.", field="path")
            parts: list[bytes] = []
            size = 0
            for chunk in chunks(descriptor):  # it may grow meanwhile
                size += len(chunk)
                if size > limit:
                    raise FileRefused(f"{path} has more than {limit} bytes.", field="path")
                parts.append(chunk)
            return b"".join(parts)

    def _write(self, path: str, content: str, expected: str | None, encoding: str | None) -> Mapping[str, Any]:
        data, kept, created = _encoded(content), "", not self._exists(path)
        if path.lower().endswith(".ipynb"):
            _check_notebook(path, content, created=created)
        for _ in range(WRITE_ATTEMPTS):
            before = None if created else self._before(path)
            base = expected
            if before is not None:
                data, kept = _in_form_of(before, content, path, encoding)
                # Made of these very bytes, so it must not replace others.
                digest = hashlib.sha256(before).hexdigest()
                base = digest if expected is None else expected
            try:
                status = self.tree.write(path, data, expected_sha256=base, make_folders=True)
                break
            except FileConflict:
                if expected is not None:
                    raise
        else:
            raise FileConflict(f"{path} is being changed all the time; try again later.", field="path")
        return {
            "path": normal(path),
            "size": status.st_size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "created": created,
            **({"kept": kept} if kept else {}),
        }

    def _before(self, path: str) -> bytes | None:
        """What a file has that is to be replaced; None where nothing of it is to be kept."""
        try:
            with self.tree.file(path) as (descriptor, status), os_errors(path):
                return None if status.st_size > MAX_DECODED else b"".join(chunks(descriptor))
        except NotFound:
            return None

    def _exists(self, path: str) -> bool:
        try:
            with self.tree.place(path) as place:
                return place.status is not None
        except NotFound:
            return False


class _PageReader:
    """Takes some lines out of a stream of bytes and counts the rest."""

    def __init__(self, path: str, start: int, lines: int) -> None:
        self._path = path
        self._start = start
        self._end = start + lines
        self._line = 1  # the number of the line that the next byte belongs to
        self._kept: list[bytearray] = []
        self._size = 0
        self._cut = 0  # bytes of kept lines that were left out
        self._last = b"\n"  # the last byte of all

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        if not chunk:
            return
        self._last = chunk[-1:]
        breaks = chunk.count(b"\n")
        if self._line >= self._end or self._line + breaks < self._start:
            self._line += breaks
            return
        for number, piece in enumerate(chunk.split(b"\n")):
            if number:
                self._line += 1
            if self._start <= self._line < self._end and (piece or number < breaks):
                self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        index = self._line - self._start
        if index > len(self._kept):
            return  # the page is full
        if index == len(self._kept):
            if self._size >= MAX_PAGE:
                return
            self._kept.append(bytearray())
        line = self._kept[index]
        taken = piece[: MAX_LINE - len(line)]
        self._cut += len(piece) - len(taken)
        line += taken
        self._size += len(taken) + 1

    def page(self, size: int, sha256: str | None, form: str) -> TextPage:
        """The page; ``form``: of the file, in words. Raises FileRefused when it is no text."""
        raw = b"\n".join(bytes(line.removesuffix(b"\r")) for line in self._kept)
        if b"\0" in raw:
            raise _binary(self._path, size)
        text = raw.decode("utf-8", errors="replace")
        mark = "\N{REPLACEMENT CHARACTER}"
        damaged = text.count(mark) != raw.count(mark.encode())
        notes = [
            form,
            f"has bytes that are no UTF-8, shown as {mark}" if damaged else "",
            f"lines are cut after {MAX_LINE} bytes" if self._cut else "",
        ]
        return TextPage(
            text=text,
            start=self._start,
            lines=len(self._kept),
            total=self._line - (1 if self._last == b"\n" else 0),
            size=size,
            sha256=sha256,
            note="; ".join(note for note in notes if note) or None,
        )


def _decoded(whole: bytes, path: str) -> tuple[TextForm, str]:
    try:
        form = TextForm.of(whole)
    except NoText:
        raise _binary(path, len(whole)) from None
    return form, form.decode(whole)


def _in_form_of(before: bytes, content: str, path: str, encoding: str | None) -> tuple[bytes, str]:
    try:
        new = rewritten(before, content, encoding=encoding)
    except NoText:  # another kind of file takes its place
        return _encoded(content), ""
    except CannotEncode as error:
        raise FileRefused(
            f"{path} is in {error.encoding}, which has no {error.character!r} (line {error.line}). Write it without"
            ' that, or convert the file with encoding="utf-8".',
            field="content",
        ) from None
    return new.data, new.kept


def _binary(path: str, size: int) -> FileRefused:
    kind = mimetypes.guess_type(path)[0]
    return FileRefused(
        f"{path} is binary ({size} bytes{f', {kind}' if kind else ''}), not text. Code in the kernel can read it.",
        field="path",
    )


def _encoded(content: str) -> bytes:
    try:
        data = content.encode()
    except UnicodeError:
        raise InvalidRequest("The content has characters that no text file can have.", field="content") from None
    if len(data) > MAX_WRITTEN:
        raise FileRefused(f"That is more than {MAX_WRITTEN >> 20} MB.", field="content")
    return data


def _check_notebook(path: str, content: str, *, created: bool) -> None:
    """Refuse to replace a notebook (changes of its cells can be merged with others); a new one must be valid."""
    if not created:
        raise FileRefused(f"{path} is a notebook: change its cells instead of the file.", field="path")
    import nbformat  # late: only here

    try:
        nbformat.validate(load_notebook_json(content))
    except (nbformat.ValidationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidRequest(f"The content is no valid notebook: {reason}", field="content") from None


async def _cancellable(work: Callable[[threading.Event], T]) -> T:
    """Run it in a thread; when we are cancelled, its event is set, so that it ends soon."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    except asyncio.CancelledError:
        stop.set()
        raise
