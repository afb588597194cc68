"""A notebook's file as text: where its cells stand in it, and the same text with some of them changed.

Jupyter opens notebooks that break the format's rules, and so do we: what is no cell stays where it is, and what is
missing is taken for empty. A change replaces the text of the cells that it changes and leaves every other byte as it
is, so it cannot fail on a cell, or lose a part of one, that it has nothing to do with. Pure.

Not responsible for reading the parts of a cell (``cells``), nor for files before nbformat 4 (``notebook_file``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from json.decoder import JSONDecoder
from typing import Any

from .cells import Content

_BLANK = re.compile(r"[ \t\r\n]*")
_ESCAPED = re.compile(r"\\u(?:00[89a-fA-F]|0[1-9a-fA-F]|[1-9a-fA-F])")  # of a character that is not ASCII
_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT_TYPES = ("application/javascript", "image/svg+xml")  # stored as lines, besides ``text/*``


@dataclass(frozen=True, slots=True)
class Span:
    """A JSON value in the text."""

    start: int
    end: int
    value: Any


class NotebookText:
    """The text of a notebook of nbformat 4. Raises ValueError, TypeError, RecursionError for what is none."""

    def __init__(self, text: str) -> None:
        self._text = text
        # A call of Python for each object, so that other threads run meanwhile.
        self._decoder = JSONDecoder(object_pairs_hook=lambda pairs: dict(pairs))
        self._fields: dict[str, Span] = {}
        self._elements: list[Span] = []  # of the list of cells
        self._read()
        self.unread = tuple(
            f"cells[{place}] is no cell" for place, one in enumerate(self._elements) if not isinstance(one.value, dict)
        )
        """What of the notebook could not be read."""
        metadata = self._value("metadata")
        self._metadata: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.content: Content = {
            **{name: span.value for name, span in self._fields.items()},
            "cells": [one.value for one in self._elements if isinstance(one.value, dict)],
            "metadata": deepcopy(self._metadata),
        }
        """The notebook, to be changed in place. ``cells`` and ``metadata`` are there and are what they should be."""

    def _value(self, name: str) -> Any:
        return self._fields[name].value if name in self._fields else None

    def _read(self) -> None:
        text = self._text
        at = self._blank(len("\ufeff") if text.startswith("\ufeff") else 0)
        if text[at : at + 1] != "{":
            raise ValueError("it is no JSON object")
        at = self._blank(at + 1)
        while text[at : at + 1] != "}":
            name, at = self._decoder.raw_decode(text, at)
            at = self._blank(at)
            if not isinstance(name, str) or text[at : at + 1] != ":":
                raise ValueError(f"a name and a colon are missing at character {at}")
            start = self._blank(at + 1)
            if name == "cells" and text[start : start + 1] == "[":
                at = self._read_cells(start)
                self._fields[name] = Span(start, at, None)
            else:
                value, at = self._decoder.raw_decode(text, start)
                self._fields[name] = Span(start, at, value)
            at = self._after(at, "}")
        if self._blank(at + 1) != len(text):
            raise ValueError(f"there is more after its end, at character {at + 1}")

    def _read_cells(self, at: int) -> int:
        self._elements = []
        at = self._blank(at + 1)
        while self._text[at : at + 1] != "]":
            value, end = self._decoder.raw_decode(self._text, at)
            self._elements.append(Span(at, end, value))
            at = self._after(end, "]")
        return at + 1

    def _after(self, at: int, close: str) -> int:
        """The place after the comma that follows a value, or of the bracket that ends the object or list."""
        at = self._blank(at)
        mark = self._text[at : at + 1]
        if mark == ",":
            at = self._blank(at + 1)
            if self._text[at : at + 1] != close:
                return at
        if mark != close:
            raise ValueError(f"a comma or the end is missing at character {at}")
        return at

    def _blank(self, at: int) -> int:
        match = _BLANK.match(self._text, at)
        return at if match is None else match.end()

    def changed(self) -> str:
        """The text with what was changed in :attr:`content`."""
        parts: list[tuple[int, int, str]] = []
        for name in ("metadata", "nbformat", "nbformat_minor"):
            before = self._metadata if name == "metadata" else self._value(name)
            if self.content.get(name) != before:
                parts.append(self._field(name, self.content[name]))
        if "cells" in self._fields:
            parts += self._cell_parts(self._fields["cells"])
        elif self.content["cells"]:
            parts.append(self._field("cells", [as_stored(cell, None) for cell in self.content["cells"]]))
        pieces, at = [], 0
        for start, end, new in sorted(parts):
            pieces += [self._text[at:start], new]
            at = end
        return "".join([*pieces, self._text[at:]])

    def _field(self, name: str, value: Any) -> tuple[int, int, str]:
        style = self._style
        if name in self._fields:
            span = self._fields[name]
            return span.start, span.end, style.dump(value, self._margin(span.start))
        first = self._text.index("{") + 1  # before the others: there is a place, whatever the file has
        rest = "" if not self._fields else ","
        margin = style.new_line + style.unit if style.unit is not None else ""
        return first, first, f"{margin}{json.dumps(name)}{style.colon}{style.dump(value, style.unit or '')}{rest}"

    def _cell_parts(self, whole: Span) -> list[tuple[int, int, str]]:
        """What takes the place of which part of the list of cells."""
        known = {id(one.value): place for place, one in enumerate(self._elements)}
        order = self._order(known)
        margin = self._margin(self._elements[0].start) if self._elements else (self._style.unit or "") * 2
        texts = [self._cell(one, margin) for one in order]
        if [one if isinstance(one, int) else None for one in order] == [*range(len(self._elements))]:
            spans = zip(self._elements, texts, strict=True)
            return [(one.start, one.end, text) for one, text in spans if text != self._text[one.start : one.end]]
        if not texts:
            return [(whole.start, whole.end, "[]")]
        head, between, tail = self._gaps(whole)
        return [(whole.start, whole.end, f"[{head}{between.join(texts)}{tail}]")]

    def _order(self, known: Mapping[int, int]) -> list[int | dict[str, Any]]:
        """The list of cells as it is to be: indexes of elements, and new cells. What is no cell stays in its place."""
        order: list[int | dict[str, Any]] = []
        last = max((at for at, cell in enumerate(self.content["cells"]) if id(cell) in known), default=-1)
        behind = {id(cell) for cell in self.content["cells"][last + 1 :]}  # new ones at the end, after what is no cell
        odd = [place for place, one in enumerate(self._elements) if not isinstance(one.value, dict)]
        for cell in self.content["cells"]:
            place = known.get(id(cell))
            if place is None:
                if id(cell) in behind:
                    order, odd = [*order, *odd], []
                order.append(cell)
                continue
            order += [one for one in odd if one < place]
            odd = [one for one in odd if one > place]
            order.append(place)
        return [*order, *odd]

    def _cell(self, one: int | dict[str, Any], margin: str) -> str:
        if not isinstance(one, int):
            return self._style.dump(as_stored(one, None), margin)
        span = self._elements[one]
        text = self._text[span.start : span.end]
        if not isinstance(span.value, dict):
            return text
        before = self._decoder.decode(text)
        stored = as_stored(span.value, before)
        # Compared as text: NaN does not equal itself.
        was = json.dumps(before, sort_keys=True)
        if json.dumps(stored, sort_keys=True) == was:
            return text
        return self._style.dump(stored, margin, ordered=json.dumps(before) == was)

    def _gaps(self, whole: Span) -> tuple[str, str, str]:
        """What stands before the first cell, between two, and after the last."""
        text, found = self._text, self._elements
        if not found:
            unit, line = self._style.unit, self._style.new_line
            return ("", ", ", "") if unit is None else (line + unit * 2, f",{line}{unit * 2}", line + unit)
        head, tail = text[whole.start + 1 : found[0].start], text[found[-1].end : whole.end - 1]
        return head, text[found[0].end : found[1].start] if len(found) > 1 else f",{head or ' '}", tail

    def _margin(self, at: int) -> str:
        """The blanks at the beginning of the line of a value; empty where it is not at the beginning."""
        line = self._text.rfind("\n", 0, at) + 1
        return self._text[line : line + len(self._text[line:at]) - len(self._text[line:at].lstrip(" \t"))]

    @cached_property
    def _style(self) -> JsonStyle:
        return JsonStyle.of(self._text)


@dataclass(frozen=True, slots=True)
class JsonStyle:
    """How a JSON file is laid out."""

    unit: str | None  # of indentation; None: all on one line
    new_line: str
    colon: str
    comma: str  # on one line
    ascii: bool  # other characters are escaped

    @classmethod
    def of(cls, text: str) -> JsonStyle:
        """Of a JSON object, by its first line break and its first name."""
        start = re.match(r'\ufeff?\s*\{(\r?\n)?([ \t]*)(?:"[^"\\]*"(\s*:[ \t]*))?', text)
        line, unit, colon = start.groups() if start else (None, "", None)
        return cls(
            unit=None if line is None else unit,
            new_line=line or "\n",
            colon=colon or ": ",
            comma="," if colon == ":" else ", ",
            ascii=text.isascii() and _ESCAPED.search(text) is not None,
        )

    def dump(self, value: Any, margin: str, *, ordered: bool = True) -> str:
        """A value as text; ``margin``: the blanks before its lines. ``ordered``: names in alphabetical order."""
        comma = self.comma if self.unit is None else ","
        text = json.dumps(
            value, ensure_ascii=self.ascii, indent=self.unit, sort_keys=ordered, separators=(comma, self.colon)
        )
        # Halves of a pair cannot be encoded; escaped they are what they were.
        text = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        return text.replace("\n", self.new_line + margin) if self.unit is not None else text


def as_stored(cell: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """A cell as files have it: texts as lists of lines, except where the file has them whole; no mark of trust.

    ``before``: the cell in the file; None for a new one. Its outputs are left alone when they are the same.
    """
    stored = dict(cell)
    metadata = stored.get("metadata")
    if isinstance(metadata, dict) and "trusted" in metadata and not (before and _trusts(before)):
        stored["metadata"] = {name: value for name, value in metadata.items() if name != "trusted"}
    whole = before is not None and isinstance(before.get("source"), str)
    if isinstance(stored.get("source"), str) and not whole:
        stored["source"] = stored["source"].splitlines(keepends=True)
    outputs = stored.get("outputs")
    if isinstance(outputs, list) and (before is None or json.dumps(outputs) != json.dumps(before.get("outputs"))):
        stored["outputs"] = [_output_as_stored(output) for output in outputs]
    return stored


def _trusts(cell: Mapping[str, Any]) -> bool:
    metadata = cell.get("metadata")
    return isinstance(metadata, dict) and "trusted" in metadata


def _output_as_stored(output: Any) -> Any:
    if not isinstance(output, Mapping):
        return output
    stored = dict(output)
    if isinstance(stored.get("text"), str):
        stored["text"] = stored["text"].splitlines(keepends=True)
    if isinstance(stored.get("data"), Mapping):
        stored["data"] = {
            kind: _lines(value) if kind.startswith("text/") or kind in _TEXT_TYPES else value
            for kind, value in stored["data"].items()
        }
    return stored


def _lines(value: Any) -> Sequence[str] | Any:
    return value.splitlines(keepends=True) if isinstance(value, str) else value
