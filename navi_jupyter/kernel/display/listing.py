"""Tables in a cell, with numbered rows, and the item that a person names by such a number or another short handle.

The numbers shown last are kept for each kind of item: the list may have changed when one of them is typed, and must
then not mean another item. The rule of handles itself is in ``handles``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, TypeVar

from ...handles import HandleError, Named, is_full_id, resolve
from ...text import one_line, printable
from ..errors import NoSuchItem, UsageError

T = TypeVar("T")

_CELL = 160  # characters of a table's cell in plain text; longer ones would break the columns of a terminal
_LEFT = ' style="text-align:left"'  # Jupyter aligns the cells of tables to the right, for numbers

_shown: dict[str, tuple[str, ...]] = {}
"""By kind (``recall``): the ids of the list that was shown last in this kernel, in the order of its rows."""


class Listing(list[T]):
    """A list that a cell shows as a table; ``row`` turns an item into the texts below ``columns``.

    With ``kind``, the word for one item, and ``named`` the rows are numbered, and the numbers name the items.
    """

    def __init__(
        self,
        items: Iterable[T],
        columns: Sequence[str],
        row: Callable[[T], Sequence[str]],
        *,
        empty: str,
        kind: str = "",
        named: Callable[[T], Named] | None = None,
    ) -> None:
        super().__init__(items)
        self._columns = [*(("#",) if named else ()), *columns]
        self._row = row
        self._empty = empty
        self._kind = kind
        self._named = named

    def find(self, text: str | int) -> str:
        """The id of the item that ``text`` names. Raises UsageError, which lists the candidates."""
        return find_id(self._kind, text, lambda: [self.names])

    @property
    def names(self) -> list[Named]:
        """Id and title of each item."""
        return [self._named(item) for item in self] if self._named else []

    def _rows(self) -> list[list[str]]:
        """The rows; from now on their numbers are those that a person may type."""
        rows = [list(self._row(item)) for item in self]
        # Noted when it is displayed, not when it is made: a list that a program reads changes no number.
        if self._named is None:
            return rows
        _shown[self._kind] = tuple(name.id for name in self.names)
        return [[str(number), *row] for number, row in enumerate(rows, start=1)]

    def plain(self, *, numbered: bool = True) -> str:
        """The table as plain text. ``numbered`` False: for a shell, where no later command knows the numbers."""
        if not numbered:
            columns = self._columns[1:] if self._named else self._columns
            return table_plain(columns, [list(self._row(item)) for item in self], empty=self._empty)
        return table_plain(self._columns, self._rows(), empty=self._empty)

    def _repr_html_(self) -> str:
        return table_html(self._columns, self._rows(), empty=self._empty)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(self.plain())


def find_id(kind: str, text: str | int, scopes: Callable[[], Sequence[Sequence[Named]]], *, hint: str = "") -> str:
    """The id of the item of that kind that ``text`` names; ``scopes`` are only read where they are needed.

    ``hint`` is where the items are listed. Raises NoSuchItem, and UsageError for a text that names several.
    """
    text = str(text).strip()
    if is_full_id(text):
        return text
    try:
        return resolve(text, *scopes(), noun=kind, shown=_shown.get(kind))
    except HandleError as error:
        message = f"{error} {hint}".rstrip()
        raise (UsageError if error.ambiguous else NoSuchItem)(message, field=kind) from None


def table_plain(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> str:
    """Columns padded to their widest cell."""
    body = [[one_line(printable(cell), _CELL) for cell in row] for row in rows]
    if not body:
        return empty
    widths = [max(len(line[i]) for line in [list(columns), *body]) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *body]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table_html(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> str:
    """A plain HTML table; the front end brings the style."""
    body = "".join("<tr>" + "".join(f"<td{_LEFT}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return f"<p>{escape(empty)}</p>"
    head = "".join(f'<th scope="col"{_LEFT}>{escape(column)}</th>' for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_NUMBER = re.compile(
    r"[+\-−±~≈<>≤≥]?\s?[$€£¥]?\s?[+\-−]?(?:\d[\d,.'’_   ]*|\.\d+)(?:[eE][+\-−]?\d+)?"
    r"(?:\s?±\s?[\d.,]+)?\s?(?:[%‰]|[A-Za-zµ°]{1,3}(?:/[A-Za-z]{1,3})?)?"
)
_NO_NUMBER = frozenset({"", "-", "–", "—", "?", "n/a", "na", "nan", "none", "null"})


def is_numeric(texts: Iterable[str]) -> bool:
    """Whether the cells of a column are all numbers, or empty, and not all of them are empty."""
    found = [" ".join(text.split()) for text in texts]
    numbers = [text for text in found if text.lower() not in _NO_NUMBER]
    return bool(numbers) and all(len(text) <= 40 and _NUMBER.fullmatch(text) for text in numbers)
