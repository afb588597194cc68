"""Statements on a database: what the SQL of this package is given, whatever the engine is.

The SQL is written once, in a dialect that both engines have or are taught (``postgres.dialect``): ``?`` for parameters,
``ON CONFLICT``, ``json_each`` of a list that is one parameter. Not responsible for connections (``sqlite.connection``,
``postgres.connection``).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from ..input.json_input import well_formed
from .served_owners import EVERY_OWNER, ServedOwners

POWERS_OF_TWO = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement: it stays well below SQLite's limit of 32766 parameters."""
T = TypeVar("T")
Parameters = Sequence[object] | Mapping[str, object]  # of a statement: for its ``?``, or by their names


ChangeMany = Callable[[str, Sequence[Sequence[object]]], Awaitable[int]]
"""A method ``change_many`` of a connection that takes any number of rows in one statement."""


class Row(Protocol):
    """A row of a result: its values by name, or by position."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def keys(self) -> Iterable[str]: ...


class Changed(Protocol):
    """What a statement did that is no query."""

    @property
    def rowcount(self) -> int: ...


class SqlConnection(Protocol):
    """What performs statements."""

    async def execute(self, sql: str, parameters: Any = (), /) -> Changed: ...

    async def execute_fetchall(self, sql: str, parameters: Any = (), /) -> Iterable[Any]: ...

    async def executemany(self, sql: str, rows: Any, /) -> Changed: ...


class Statements:
    """Statements on one connection inside a transaction that its owner has begun."""

    db: SqlConnection
    served: ServedOwners = EVERY_OWNER  # see there which statements have the condition

    async def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Every row."""
        return list(await self.db.execute_fetchall(sql, parameters))

    async def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, if any."""
        rows = await self.all(sql, parameters)
        return rows[0] if rows else None

    async def change(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Execute; how many rows it touched."""
        return int((await self.db.execute(sql, parameters)).rowcount)

    async def change_many(
        self, sql: str, rows: Sequence[Sequence[object]], *, sizes: Sequence[int] = POWERS_OF_TWO
    ) -> int:
        """Execute ``sql`` with its ``{rows}`` standing for all of ``rows``; how many rows it touched.

        Unlike ``executemany`` it gives Python's lock back once per statement, not once per row: beside a busy event
        loop that is the difference between milliseconds and seconds. ``sizes``: of the rows of one statement, the
        largest first; few, so that few statements are ever prepared.
        """
        # By name: ``isinstance`` of a protocol costs more than the statement.
        at_once: ChangeMany | None = getattr(self.db, "change_many", None)
        if at_once is not None:
            return await at_once(sql, rows) if rows else 0
        changed = low = 0
        while low < len(rows):
            size = next(size for size in sizes if size <= len(rows) - low)
            values = [value for row in rows[low : low + size] for value in row]
            changed += await self.change(_with_rows(sql, len(rows[0]), size), values)
            low += size
        return changed


@lru_cache(maxsize=256)
def _with_rows(sql: str, width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.replace("{rows}", ", ".join([row] * size))


def statements_on(db: SqlConnection) -> Statements:
    """Statements on that connection."""
    statements = Statements()
    statements.db = db
    return statements


class Readers(ABC):
    """Reads, each of one consistent view of the database. Implemented by each engine."""

    served: ServedOwners = EVERY_OWNER

    @abstractmethod
    def reading(self) -> AbstractAsyncContextManager[Statements]:
        """One consistent view of the database for several statements. Raises StoreError."""

    @abstractmethod
    async def read(self, view: Callable[[Statements], Awaitable[T]]) -> T:
        """What ``view`` reads of one consistent view of the database. It awaits nothing but its statements.

        Raises StoreError.
        """

    @abstractmethod
    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Every row of one statement. Raises StoreError."""

    async def fetch_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row of one statement, if any."""
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None


def json_list(texts: Iterable[str]) -> str:
    """Many texts as one parameter: ``IN (SELECT value FROM json_each(?))`` has no limit on their number.

    What no text can have (lone surrogates, NUL) is replaced, and so equals nothing that is stored: PostgreSQL would
    refuse the statement, also for the other texts.
    """
    return json.dumps(list(map(well_formed, texts)))


def marks(values: Collection[object]) -> str:
    """Placeholders for the values of an ``IN``. For none NULL, which nothing equals: PostgreSQL has no ``IN ()``."""
    return ", ".join("?" * len(values)) or "NULL"
