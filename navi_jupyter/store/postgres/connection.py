"""Connections to PostgreSQL: how they are opened, how they perform the shared SQL, and what their errors mean.

Not responsible for what is written or when (``store``), nor for the dialect (``dialect``).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ...errors import NaviError, StoreBusy, StoreError
from ..runs import RENEWALS
from ..statements import Parameters, Readers, Row, Statements, statements_on
from .dialect import in_bulk, storable, translated

SCHEMA = "navi"  # of the tables, where the URL names no ``search_path``
READERS = 4  # connections that read
CONNECT_WITHIN = 5.0  # seconds
COMMAND_TIMEOUT = 15.0  # seconds for one statement, more than a lock is waited for (``lock_timeout``)
PATIENCE = 10.0  # seconds for which a lost connection is made again before the caller is given an error
RETRY_EVERY = 0.1  # seconds between two attempts
_SETTINGS = {
    "application_name": "navi",
    "jit": "off",  # the statements are short: compiling them costs more than performing them
    "timezone": "UTC",
    # A server that is stopped or cut off in the middle of a transaction must not hold up the others.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "10s",
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "4000",
}
_SOCKET = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 4_000}
_VIEW = {"isolation": "repeatable_read", "readonly": True}  # one consistent view for several statements
T = TypeVar("T")

ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What the driver raises."""
CONNECT_ERRORS: tuple[type[Exception], ...] = (ValueError, *ERRORS)
"""The same while it connects: also for a URL that it cannot read."""
_GOING_DOWN = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25006", "53300")
"""SQLSTATEs after which another connection may succeed: the server stops, starts, is a standby or has no free place."""
_AGAIN = ("40001", "40P01")  # serialization failure, deadlock: the transaction may be performed again
_SPOILS_ALL = ("53", "55P03", "57", "58", "XX", "25006")  # what the database suffers from, and not one unit's statement


async def connect(url: str, *, within: float = COMMAND_TIMEOUT, **settings: str) -> asyncpg.Connection:
    """A connection that performs the shared SQL: each statement in ``within`` seconds, with these settings of the
    server besides those of all. Raises what the driver raises."""
    options = _options(url)
    options["server_settings"] |= settings
    connection = await asyncpg.connect(url, **options | {"command_timeout": within})
    try:
        await prepare(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


def schema_of(url: str) -> str:
    """The schema that has the tables. Raises StoreError for a name that would have to be quoted."""
    schema = parse_qs(urlsplit(url).query).get("search_path", [SCHEMA])[0]
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise StoreError("database_url: search_path must name one schema, in small letters, digits and underscores")
    return schema


def shown(url: str) -> str:
    """Where the database is, without user and password."""
    parts = urlsplit(url)
    if "@" in parts.path + parts.query + parts.fragment:  # a password that is not written as a URL has it
        return "PostgreSQL database of a URL that cannot be read"
    return f"PostgreSQL database {parts.path.lstrip('/') or 'of that name'} at {parts.hostname or 'the local socket'}"


def identity_of(url: str) -> str:
    """What distinguishes the database from others: the schema is one of several, perhaps."""
    return f"{shown(url)}, schema {schema_of(url)}"


def _options(url: str) -> dict[str, Any]:
    given = parse_qs(urlsplit(url).query)
    settings = {name: value for name, value in _SETTINGS.items() if name not in given}
    options: dict[str, Any] = {
        "server_settings": settings | {"search_path": schema_of(url)},
        "timeout": CONNECT_WITHIN,
        "command_timeout": COMMAND_TIMEOUT,
        "statement_cache_size": 1_000,
        "max_cached_statement_lifetime": 0,
    }
    if "target_session_attrs" not in given:
        options["target_session_attrs"] = "read-write"  # of several hosts, the one that is no standby
    return options


async def _as_it_is(_: asyncpg.Connection) -> None:
    """What a reading leaves behind: nothing. The driver's own cleaning would be one more statement for each of them."""


async def prepare(connection: asyncpg.Connection) -> None:
    """Have a new connection return sums as integers (those of BIGINT columns are NUMERIC), and end when the other side
    has not answered for some seconds."""
    # The driver has no public way to its socket. Without, a connection that is cut off is noticed by a time limit.
    transport = getattr(connection, "_transport", None)
    one = None if transport is None else transport.get_extra_info("socket")
    if one is not None and one.family != getattr(socket, "AF_UNIX", None):
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _SOCKET.items():
                if hasattr(socket, name):
                    one.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")


def _number(text: str) -> int | float:
    return float(text) if "." in text or "e" in text.lower() or "n" in text.lower() else int(text)


class _Changed:
    __slots__ = ("rowcount",)

    def __init__(self, status: str | None) -> None:
        count = (status or "").rpartition(" ")[2]
        self.rowcount = int(count) if count.isdigit() else 0


class PostgresConnection:
    """What performs statements on one connection. Implements :class:`navi_jupyter.store.statements.SqlConnection`."""

    __slots__ = ("_connection", "changed")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.changed = False
        """Whether something was changed that other servers have to look for: leases are not."""

    async def execute(self, sql: str, parameters: Parameters = (), /) -> _Changed:
        statement = translated(sql)
        done = _Changed(await self._connection.execute(statement.sql, *statement.values(parameters)))
        self.changed |= done.rowcount > 0 and sql not in RENEWALS
        return done

    async def execute_fetchall(self, sql: str, parameters: Parameters = (), /) -> list[Row]:
        statement = translated(sql)
        rows: list[Row] = await self._connection.fetch(statement.sql, *statement.values(parameters))
        self.changed |= not sql.lstrip().startswith("SELECT")
        return rows

    async def change_many(self, sql: str, rows: Sequence[Sequence[object]], /) -> int:
        self.changed = True
        columns = [list(map(storable, column)) for column in zip(*rows, strict=True)]
        return _Changed(await self._connection.execute(in_bulk(sql, len(columns)), *columns)).rowcount

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]], /) -> _Changed:
        self.changed = True
        statement = translated(sql)
        await self._connection.executemany(statement.sql, [statement.values(row) for row in rows])
        return _Changed(None)


class PostgresReaders(Readers):
    """A pool of connections that read. A read whose connection is lost is begun again for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._pool: Any = None

    async def open_readers(self, url: str) -> None:
        """Open the pool. Raises StoreError."""
        try:
            self._pool = await asyncpg.create_pool(
                url, min_size=1, max_size=READERS, init=prepare, reset=_as_it_is, **_options(url)
            )
        except ERRORS as error:
            raise postgres_error(error) from error

    async def close_readers(self) -> None:
        """Close the pool. Statements in progress end first."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), PATIENCE)
            except TimeoutError:  # one that is cut off
                self._pool.terminate()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Statements]:
        connection = await self._patiently(self._begin_reading)
        try:
            yield statements_on(PostgresConnection(connection))
        except ERRORS as error:
            raise postgres_error(error) from error
        finally:
            with contextlib.suppress(*ERRORS):
                await connection.execute("ROLLBACK")
            await self._pool.release(connection)

    async def _begin_reading(self, _: Any) -> Any:
        """A connection of its own, which the caller releases."""
        connection = await self._pool.acquire(timeout=PATIENCE)
        try:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        except BaseException:
            await self._pool.release(connection)
            raise
        return connection

    async def read(self, view: Callable[[Statements], Awaitable[T]]) -> T:
        async def work(pool: Any) -> T:
            async with pool.acquire(timeout=PATIENCE) as connection, connection.transaction(**_VIEW):
                return await view(statements_on(PostgresConnection(connection)))

        return await self._patiently(work)

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        async def work(pool: Any) -> list[Row]:
            async with pool.acquire(timeout=PATIENCE) as connection:
                return await PostgresConnection(connection).execute_fetchall(sql, parameters)

        return await self._patiently(work)

    async def _patiently(self, work: Callable[[Any], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                return await work(self._pool)
            except ERRORS as error:
                again = is_lost(error) or may_repeat(error)
                if not again or loop.time() > until or self._pool.is_closing():
                    raise postgres_error(error) from error
            await asyncio.sleep(RETRY_EVERY)


def is_lost(error: BaseException) -> bool:
    """Whether another connection, a moment later, may succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "08").startswith(_GOING_DOWN)
    if isinstance(error, asyncpg.InterfaceError):  # also of a wrong argument
        return "clos" in str(error)
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def shuts_down(report: Any) -> bool:
    """Whether an error or a notice is PostgreSQL's own report that it ends or does not take connections yet."""
    return getattr(report, "sqlstate", None) in ("57P01", "57P02", "57P03")


def may_repeat(error: BaseException) -> bool:
    """Whether the transaction was undone because of what others did at the same time, also to the tables."""
    return isinstance(error, asyncpg.InvalidCachedStatementError) or (
        isinstance(error, asyncpg.PostgresError) and error.sqlstate in _AGAIN
    )


def spoils_all(error: BaseException) -> bool:
    """Whether it is the database that fails, not the unit that asked something wrong."""
    if is_lost(error) or may_repeat(error):
        return True
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_SPOILS_ALL)


def unit_error(error: BaseException) -> BaseException:
    """What the caller of a unit that failed is answered: a value that no text can have is no fault of the database."""
    wrong_value = "22"  # the class of its SQLSTATEs
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(wrong_value):
        return ValueError(str(error))
    if isinstance(error, ERRORS) and not isinstance(error, ValueError):  # which the driver makes of one before it sends
        return postgres_error(error)
    return error


def postgres_error(error: BaseException) -> NaviError:
    """An error of PostgreSQL as one a user can act on."""
    if isinstance(error, asyncpg.LockNotAvailableError):
        return StoreBusy("The database was locked by another server for too long. Try again.")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(f"The database server refuses the user or the password ({error}).")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"The database server has no such database ({error}).")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreError(f"The database user may not do that ({error}).")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith("53"):
        return StoreError(f"The database server is out of space or of connections; nothing was saved ({error}).")
    if isinstance(error, ValueError) and not isinstance(error, asyncpg.InterfaceError):  # its text has parts of the URL
        return StoreError("database_url cannot be read: write /, ?, # and @ in a password as %2F, %3F, %23 and %40.")
    if is_lost(error):
        return StoreError(f"The database server cannot be reached ({str(error) or type(error).__name__}). Try again.")
    return StoreError(f"The database refused the change ({error}).")
