"""Configuration files of users (TOML, JSON, Markdown): read again when they changed, each mistake with file and line.

A file with a mistake leaves its last good content in use. Not responsible for what a file means: the reader that is
given to :class:`WatchedFiles` is. Blocks on the disk: a few ``stat`` calls unless something has changed.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .input.json_input import load_json

T = TypeVar("T")
KeyPath = tuple[str | int, ...]  # keys and indices, from the top
Stamp = tuple[int, ...]  # changes when the file does

STILL_USED = "Until this is corrected, the last good version of the file is used."
_MAX_MISTAKES = 5


class ConfigError(ValueError):
    """A mistake in a file, as ``file:line: what is wrong``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileProblem:
    """What is wrong with a file as a whole, or with a setting in it."""

    file: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """The content of a file, with the line of each key."""

    path: Path
    text: str
    content: Any  # None for an empty JSON file, and for Markdown, whose reader reads ``text``

    @cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """Found when a mistake is reported: most files have none."""
        return lines_of(self.text)

    def at(self, *key: str | int) -> str:
        """``file:line`` of a key, or of the nearest thing above it that is there."""
        return f"{self.path}:{line_of(key, self.lines)}"

    def mistakes(
        self, error: ValidationError, *under: str | int, describe: Callable[[ErrorDetails], str] | None = None
    ) -> list[str]:
        """``file:line: key: what is wrong`` for each error, in file order; ``under`` leads to what was validated."""
        found = []
        for one in error.errors(include_url=False)[:50]:
            # pydantic adds "[key]" for what is wrong with a key itself; the file has no such level.
            key = (*under, *(part for part in one["loc"] if part != "[key]"))
            what = describe(one) if describe else one["msg"].removeprefix("Value error, ")
            found.append((line_of(key, self.lines), f"{self.at(*key)}: {'.'.join(map(str, key))}: {what}"))
        messages = [message for _, message in sorted(found, key=lambda each: each[0])]
        if len(messages) > _MAX_MISTAKES:
            messages[_MAX_MISTAKES:] = [f"{self.path}: and {len(messages) - _MAX_MISTAKES} more."]
        return messages


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigFile(Generic[T]):
    """A file as it was last read."""

    document: Document | None  # of the content; None where it never was without a mistake
    content: T | None  # what the reader made of the file when it last was without a mistake
    problem: str | None  # what is wrong with the file now; None when nothing is


class WatchedFiles(Generic[T]):
    """Files that are read again when they have changed. Not thread-safe."""

    def __init__(self, read: Callable[[Document], T], *, max_bytes: int) -> None:
        """``read`` makes of a document what is kept of it; it raises ConfigError for a mistake."""
        self._read = read
        self._max_bytes = max_bytes
        self._stamps: dict[Path, Stamp] = {}
        self.files: Mapping[Path, ConfigFile[T]] = {}  # those that exist, in the order of the paths given last

    def refresh(self, paths: Iterable[Path]) -> bool:
        """Read those of ``paths`` that are new or changed, forget the others; whether there is any difference."""
        stamps = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
        if list(stamps.items()) == list(self._stamps.items()):
            return False
        self.files = {
            path: self.files[path] if self._stamps.get(path) == stamp else self._file(path, self.files.get(path))
            for path, stamp in stamps.items()
        }
        self._stamps = stamps
        return True

    @property
    def problems(self) -> list[FileProblem]:
        """Of the files that have a mistake now."""
        return [
            FileProblem(file=str(path), message=f"{file.problem}\n{STILL_USED}" if file.document else file.problem)
            for path, file in self.files.items()
            if file.problem is not None
        ]

    def _file(self, path: Path, before: ConfigFile[T] | None) -> ConfigFile[T]:
        try:
            document = _parse(path, self._max_bytes)
            return ConfigFile(document=document, content=self._read(document), problem=None)
        except ConfigError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{path}: {error.strerror or type(error).__name__}"
        if before is None:
            return ConfigFile(document=None, content=None, problem=problem)
        return ConfigFile(document=before.document, content=before.content, problem=problem)


def _stamp(path: Path) -> Stamp | None:
    """None for a file that does not exist."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno or 0,)
    # The size and the inode for file systems with coarse times; the mode because a reader may ask for it.
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)


def _parse(path: Path, max_bytes: int) -> Document:
    """The content of a ``.toml``, ``.json`` or ``.md`` file. Raises ConfigError, OSError."""
    if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
        # Opening a pipe would wait for somebody who writes to it.
        raise ConfigError(f"{path}: a device, a pipe or a socket, not a file")
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise ConfigError(f"{path}: the file is larger than {max_bytes:,} bytes")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the file is not UTF-8 text") from None
    if path.suffix == ".md":
        return Document(path=path, text=text, content=None)
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        content = tomllib.loads(text) if kind == "TOML" else load_json(text) if text.strip() else None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}:{_toml_line(error)}: not TOML: {error}") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise ConfigError(f"{path}:1: not {kind}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}:1: not {kind}: nested too deeply") from None
    return Document(path=path, text=text, content=content)


def _toml_line(error: tomllib.TOMLDecodeError) -> int:
    """Before Python 3.14 the line is in the message only."""
    found = re.search(r"\(at line (\d+)", str(error))
    line: int = getattr(error, "lineno", None) or (int(found[1]) if found else 1)
    return line


_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
    |(?P<text>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<newline>\n)
    |(?P<mark>[\[\]{},=.:])
    |(?P<bare>[^\s\[\]{},=.:\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


def lines_of(text: str) -> Mapping[KeyPath, int]:
    """The line, from one, of every table, key and array item of a TOML or JSON text; never an error for another."""
    try:
        return _LineScanner(text).lines
    except RecursionError:  # json reads deeper structures than the scanner
        return {}


def line_of(key: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of a key, or of the nearest thing above it that is there; 1 when there is none."""
    return next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """``(kind, source, line)``; a mark's kind is the mark."""
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        kind = str(match.lastgroup)
        if kind != "comment":
            yield (match[0] if kind == "mark" else kind), match[0], line
    yield "end", "", line


class _LineScanner:
    """Finds the line of each key. JSON is read as an inline table of TOML whose keys end with a colon."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._all = list(_tokens(text))
        self._at = 0
        self._counts: dict[KeyPath, int] = {}  # items so far of each array of tables
        table: KeyPath = ()
        while self._kind != "end":
            if self._kind == "newline":
                self._at += 1
            elif self._kind == "[":
                table = self._header()
            elif self._kind == "{":  # only JSON begins like this
                self._inline(table)
            else:
                self._pair(table)

    @property
    def _kind(self) -> str:
        return self._all[self._at][0]

    def _skip(self, *kinds: str) -> None:
        while self._kind in kinds:
            self._at += 1

    def _header(self) -> KeyPath:
        line = self._all[self._at][2]
        self._at += 1
        many = self._kind == "["
        self._skip("[")
        table = self._key()
        if many:
            self.lines.setdefault(table, line)
            index = self._counts.get(table, -1) + 1
            self._counts[table] = index
            table = (*table, index)
        self.lines.setdefault(table, line)
        while self._kind not in ("newline", "end"):
            self._at += 1
        return table

    def _pair(self, table: KeyPath) -> None:
        line = self._all[self._at][2]
        path = (*table, *self._key())
        for end in range(len(table) + 1, len(path) + 1):
            self.lines.setdefault(path[:end], line)
        if self._kind in ("=", ":"):
            self._at += 1
            self._skip("newline")  # JSON allows one here
            self._value(path)
        elif self._kind != "newline":
            self._at += self._kind != "end"  # not TOML: continue with the next token

    def _key(self) -> KeyPath:
        parts: list[str | int] = []
        while self._kind in ("text", "bare", "."):
            kind, source, _ = self._all[self._at]
            if kind != ".":
                parts.append(_unquoted(source) if kind == "text" else source)
            self._at += 1
        return tuple(parts)

    def _value(self, path: KeyPath) -> None:
        if self._kind in ("[", "{"):
            self._inline(path)
        else:
            self._skip("text", "bare", ".", ":")  # a time of TOML has colons

    def _inline(self, path: KeyPath) -> None:
        """The items of an array, or the pairs of an inline table."""
        end = "]" if self._kind == "[" else "}"
        self._at += 1
        index = 0
        while self._kind not in (end, "end"):
            before = self._at
            if self._kind not in ("newline", ",") and end == "]":
                self.lines.setdefault((*path, index), self._all[self._at][2])
                self._value((*path, index))
                index += 1
            elif self._kind not in ("newline", ","):
                self._pair(path)
            self._at += self._at == before
        self._at += self._kind == end


def _unquoted(source: str) -> str:
    try:
        return str(tomllib.loads(f"key = {source}")["key"])
    except tomllib.TOMLDecodeError:
        return source
