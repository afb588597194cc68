"""Changes of files, found by polling; nothing outside the server's root is read.

Not responsible for when to poll (``polling``).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

MAX_FILES = 2_000
MAX_ENTRIES = 50_000  # entries of folders that a glob may make us list
MAX_HASHED_FILE = 2**20  # bytes up to which the content is compared: a file may be written anew without a change
MAX_HASHED_BYTES = 64 * 2**20  # bytes that are read in one poll; what comes on top is known by its time and size alone
MAX_UNSETTLED = 30.0  # seconds after which a change is reported although it goes on: a log may never be quiet
AHEAD = 2 * 10**9
"""Nanoseconds that a file's time may be ahead of our clock (network file systems); a later one is not believed."""
_MAGIC = re.compile(r"[*?\[]")


class UnreadablePath(Exception):
    """The path cannot be polled; the message is for the user."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a file."""

    mtime_ns: int
    size: int
    digest: str = ""  # of small files

    def same(self, other: FileState) -> bool:
        """Whether nothing differs but perhaps the time, as far as is known."""
        return self == other or (bool(self.digest) and (self.digest, self.size) == (other.digest, other.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChange:
    """Files that are another now, and quiet since the poll before."""

    key: str
    at: datetime
    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    goes_on: bool = False  # it was not quiet yet, for long

    def detail(self, pattern: str) -> str:
        """The text of the report."""
        count = len(self.created) + len(self.changed) + len(self.deleted)
        more = " It is still being written to." if self.goes_on else ""
        if count == 1 and self.deleted:
            return f"The file `{self.deleted[0]}` was deleted."
        if count == 1:
            (path,) = self.changed + self.created
            what = "changed" if self.changed else "was created"
            return f"The file `{path}` {what}; it has {self.sizes[path]:,} bytes now.{more}"
        lines = [f"{count} file{'s' if count != 1 else ''} that match `{pattern}` changed:", ""]
        lines += [f"- `{path}` was created ({self.sizes[path]:,} bytes)" for path in self.created]
        lines += [f"- `{path}` changed ({self.sizes[path]:,} bytes)" for path in self.changed]
        lines += [f"- `{path}` was deleted" for path in self.deleted]
        beyond = len(lines) - 102
        return "\n".join([*lines[:102], f"- … and {beyond} more"] if beyond > 0 else lines)


class FileObserver:
    """The files of one pattern. Blocks: call :meth:`poll` in a thread, one call at a time."""

    def __init__(self, root: Path, pattern: str, *, since: datetime) -> None:
        self._root = root.resolve()
        self._pattern = pattern
        self._since = since
        self._known: dict[str, FileState] | None = None
        self._before: dict[str, FileState] | None = None  # the poll before, when it differed from what is known
        self._unsettled_since: float | None = None
        self._hashed = 0  # bytes that were read in this poll

    @property
    def unsettled(self) -> bool:
        """Something changed at the last poll: poll again soon, whether it is over."""
        return self._before is not None

    def poll(self) -> FileChange | None:
        """The change, once two polls in a row have seen the same. Raises UnreadablePath.

        What was written after ``since`` (and before the first poll) counts as changed.
        """
        seen = self._marks()
        if self._known is None:
            self._known = {path: mark for path, mark in seen.items() if not self._late(mark)}
        changed = {path for path, mark in seen.items() if path in self._known and not self._known[path].same(mark)}
        created, deleted = seen.keys() - self._known.keys(), self._known.keys() - seen.keys()
        if not changed and not created and not deleted:
            # Also when only times have changed, so that a touched file is not hashed again at each poll.
            self._known, self._before, self._unsettled_since = seen, None, None
            return None
        now = time.monotonic()
        since = self._unsettled_since = self._unsettled_since or now
        # Two polls in a row must agree: a file that is being written to would be reported half written.
        goes_on = self._before != seen
        if goes_on and now - since < MAX_UNSETTLED:
            self._before = seen
            return None
        change = self._change(seen, created, changed, deleted)
        self._known, self._before, self._unsettled_since = seen, None, None
        return replace(change, goes_on=goes_on)

    def _late(self, mark: FileState) -> bool:
        return self._since.timestamp() * 1e9 < mark.mtime_ns <= time.time_ns() + AHEAD

    def _change(
        self, seen: Mapping[str, FileState], created: set[str], changed: set[str], deleted: set[str]
    ) -> FileChange:
        fresh = created | changed
        if fresh:
            last = max(fresh, key=lambda path: (seen[path].mtime_ns, path))
            key = f"file:{last}:{seen[last].mtime_ns}:{seen[last].size}"
            at = datetime.fromtimestamp(seen[last].mtime_ns / 1e9, UTC)
        else:
            known = self._known or {}
            last = max(deleted, key=lambda path: (known[path].mtime_ns, path))
            key = f"file:{last}:{known[last].mtime_ns}:deleted"
            at = datetime.now(UTC)
        return FileChange(
            key=key,
            at=min(at, datetime.now(UTC)),  # a file may claim to be of tomorrow
            created=tuple(sorted(created)),
            changed=tuple(sorted(changed)),
            deleted=tuple(sorted(deleted)),
            sizes={path: seen[path].size for path in fresh},
        )

    def _marks(self) -> dict[str, FileState]:
        """Of the files that match, by path relative to the root. Raises UnreadablePath."""
        marks: dict[str, FileState] = {}
        self._hashed = 0
        for path in matching(self._root, self._pattern):
            relative = path.relative_to(self._root).as_posix()
            if relative in marks:
                continue
            if len(marks) >= MAX_FILES:
                raise UnreadablePath(f"more than {MAX_FILES:,} files match {self._pattern!r}; use a narrower pattern")
            mark = self._mark(path, relative)
            if mark is not None:
                marks[relative] = mark
        return marks

    def _mark(self, path: Path, relative: str) -> FileState | None:
        try:
            real = path.resolve()
            if not real.is_relative_to(self._root):
                if not _MAGIC.search(self._pattern):
                    raise UnreadablePath(f"{relative} is a link that leads out of the server's root")
                return None
            stat = real.stat()
            known = (self._known or {}).get(relative)
            if known is not None and (known.mtime_ns, known.size) == (stat.st_mtime_ns, stat.st_size):
                return known
            digest = self._digest(real, stat.st_size) if real.is_file() else ""
        except OSError:
            return None  # gone between two calls, or not readable: as if it were not there
        return FileState(stat.st_mtime_ns, stat.st_size, digest)

    def _digest(self, path: Path, size: int) -> str:
        if size > MAX_HASHED_FILE or self._hashed + size > MAX_HASHED_BYTES:
            return ""
        self._hashed += size
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def matching(root: Path, pattern: str) -> Iterator[Path]:
    """Files below ``root`` that match a glob (``*``, ``?``, ``[…]``, ``**``), or all below a folder that it names.

    Links to folders are not followed. May name one twice. Raises UnreadablePath when the pattern leads outside, or to
    too many entries.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if pattern.startswith(("/", "~")) or ".." in parts or not parts:
        raise UnreadablePath(f"{pattern!r} is not a path below the server's root")
    yield from _walk(root, parts, [MAX_ENTRIES])


def _walk(folder: Path, parts: list[str], budget: list[int]) -> Iterator[Path]:
    head, rest = parts[0], parts[1:]
    if not _MAGIC.search(head):
        yield from _named(folder / head, rest, budget)
        return
    if head == "**":
        yield from _walk(folder, rest or ["*"], budget)
    for entry in _entries(folder, budget):
        if entry.name.startswith(".") and not head.startswith("."):
            continue
        into = parts if head == "**" else rest
        if head != "**" and not fnmatchcase(entry.name, head):
            continue
        if into and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), into, budget)
        elif not into and entry.is_file():
            yield Path(entry.path)


def _named(path: Path, rest: list[str], budget: list[int]) -> Iterator[Path]:
    if rest:
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, rest, budget)
    elif path.is_file():
        yield path
    elif path.is_dir() and not path.is_symlink():
        yield from _walk(path, ["**"], budget)


def _entries(folder: Path, budget: list[int]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return []
    budget[0] -= len(found)
    if budget[0] < 0:
        raise UnreadablePath(f"the pattern leads to more than {MAX_ENTRIES:,} files and folders; narrow it")
    return found
