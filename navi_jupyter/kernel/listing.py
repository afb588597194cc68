"""Lists that a cell shows as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from .render import table_html, table_plain

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
