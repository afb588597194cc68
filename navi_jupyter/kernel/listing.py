"""Lists that a cell shows as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, TypeVar

from ..text import one_line

T = TypeVar("T")


class Listing(list[T]):
    """A list with a look: ``row`` turns an item into the texts below ``columns``."""

    def __init__(
        self, items: Iterable[T], columns: Sequence[str], row: Callable[[T], Sequence[str]], *, empty: str
    ) -> None:
        super().__init__(items)
        self._columns = columns
        self._row = row
        self._empty = empty

    def _repr_html_(self) -> str:
        return table_html(self._columns, map(self._row, self), empty=self._empty)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(table_plain(self._columns, map(self._row, self), empty=self._empty))


_LEFT = ' style="text-align:left"'
"""Jupyter aligns tables of numbers, to the right."""


def table_plain(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> str:
    """Columns padded to their widest cell."""
    body = [[one_line(cell, 160) for cell in row] for row in rows]
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
