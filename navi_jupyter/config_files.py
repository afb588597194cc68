"""Where in a TOML text a key is: ``tomllib`` reads values and forgets their places.

Reads texts that ``tomllib`` has accepted; for others the answer may be wrong, never an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence

Path = tuple[str | int, ...]
"""Keys and indices, from the top."""

_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
    |(?P<text>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<newline>\n)
    |(?P<mark>[\[\]{},=.])
    |(?P<bare>[^\s\[\]{},=.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


def lines_of(text: str) -> Mapping[Path, int]:
    """The line, from one, of every table, key and array item."""
    return _Scan(text).lines


def line_of(path: Sequence[str | int], lines: Mapping[Path, int]) -> int:
    """The line of a path, or of the nearest thing above it that is there; 1 when there is none."""
    for end in range(len(path), 0, -1):
        found = lines.get(tuple(path[:end]))
        if found is not None:
            return found
    return 1


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


class _Scan:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._all = list(_tokens(text))
        self._at = 0
        self._counts: dict[Path, int] = {}
        """Items so far of each array of tables."""
        table: Path = ()
        while self._kind != "end":
            if self._kind == "newline":
                self._at += 1
            elif self._kind == "[":
                table = self._header()
            else:
                self._pair(table)

    @property
    def _kind(self) -> str:
        return self._all[self._at][0]

    def _skip(self, *kinds: str) -> None:
        while self._kind in kinds:
            self._at += 1

    def _header(self) -> Path:
        line = self._all[self._at][2]
        self._at += 1
        many = self._kind == "["
        self._skip("[")
        table = self._key()
        if many:
            self._note(table, line)
            index = self._counts.get(table, -1) + 1
            self._counts[table] = index
            table = (*table, index)
        self._note(table, line)
        self._rest_of_line()
        return table

    def _pair(self, table: Path) -> None:
        line = self._all[self._at][2]
        path = (*table, *self._key())
        for end in range(len(table) + 1, len(path) + 1):
            self._note(path[:end], line)
        if self._kind == "=":
            self._at += 1
            self._value(path)
        elif self._kind != "newline":
            self._at += self._kind != "end"  # no TOML: go on anyhow

    def _key(self) -> Path:
        parts: list[str | int] = []
        while self._kind in ("text", "bare", "."):
            kind, source, _ = self._all[self._at]
            if kind != ".":
                parts.append(_unquoted(source) if kind == "text" else source)
            self._at += 1
        return tuple(parts)

    def _value(self, path: Path) -> None:
        if self._kind == "[":
            self._array(path)
        elif self._kind == "{":
            self._inline(path)
        else:
            self._skip("text", "bare", ".")

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._kind not in ("]", "end"):
            before = self._at
            if self._kind not in ("newline", ","):
                self._note((*path, index), self._all[self._at][2])
                self._value((*path, index))
                index += 1
            self._at += self._at == before
        self._skip_one("]")

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._kind not in ("}", "end"):
            before = self._at
            if self._kind not in ("newline", ","):
                self._pair(path)
            self._at += self._at == before
        self._skip_one("}")

    def _skip_one(self, kind: str) -> None:
        self._at += self._kind == kind

    def _rest_of_line(self) -> None:
        while self._kind not in ("newline", "end"):
            self._at += 1

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)


def _unquoted(source: str) -> str:
    try:
        return str(tomllib.loads(f"key = {source}")["key"])
    except tomllib.TOMLDecodeError:
        return source
