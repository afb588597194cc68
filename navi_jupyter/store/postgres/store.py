"""The store on a PostgreSQL database that several servers share.

Units that have gathered while the last transactions were in flight become new ones: those that name their one session
in several at once, by the session (``writer``), the others in one by itself. Not responsible for what a unit means.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from ...errors import NaviError, StoreBusy
from ...log_setup import get_logger
from ...ports.jupyter import NotebookLink
from ..database import Database, Unit, no_work
from ..served_owners import EVERY_OWNER, ServedOwners
from .blobs import PostgresBlobs
from .connection import (
    CONNECT_ERRORS,
    ERRORS,
    PostgresConnection,
    PostgresReaders,
    connect,
    identity_of,
    postgres_error,
    schema_of,
    shown,
    spoils_all,
)
from .full_text import PostgresFullText
from .migrations import migrate, number_of
from .reader_now import ReaderNow
from .signal import Signal
from .writer import UnitFailed, Writer

log = get_logger("store")

FRESH = 3.0  # seconds for which it is known from the last commit whether the database can be written
LANES = 3  # transactions at once, of units that name their session
ANSWER_WITHIN = 1.0  # seconds that are waited for the commit that finds it out


class PostgresStore(PostgresReaders, Database):
    """Made by :meth:`open`."""

    def __init__(self, url: str, served: ServedOwners, *, poll: bool = False) -> None:
        super().__init__()
        self.served = served
        self.place = shown(url)
        self.identity = identity_of(url)
        self.full_text = PostgresFullText()
        self.blobs = PostgresBlobs(self)
        self._signal = Signal(url, poll=poll)
        self._reader_now = ReaderNow(url, served)
        self._alone = Writer(url, served, shared=False)
        self._lanes = [Writer(url, served, shared=True) for _ in range(LANES)]
        self._writers = [self._alone, *self._lanes]
        self._trouble: NaviError | None = None  # why the last commit failed; None when it did not
        self._tried_at = time.monotonic()  # when a commit last ended, well or not

    @classmethod
    async def open(cls, url: str, *, poll: bool = False, served: ServedOwners = EVERY_OWNER) -> PostgresStore:
        """Connect, create or migrate the tables. Raises StoreError, StoreTooNew.

        ``poll``: changes of other servers are looked for, as notifications do not come through (PgBouncer).
        """
        schema = schema_of(url)
        try:
            connection = await connect(url)
            try:
                before = await migrate(connection, schema)
            finally:
                await connection.close()
        except CONNECT_ERRORS as error:
            raise postgres_error(error) from error
        log.info("database_opened", place=shown(url), schema=schema, version_before=before)
        store = cls(url, served, poll=poll)
        try:
            await store.open_readers(url)
            await store._signal.open()
            await asyncio.gather(*(writer.open() for writer in store._writers))
        except ERRORS as error:
            await store.close()
            raise postgres_error(error) from error
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        if self._closing:
            return
        await self._end_writer()
        await self._signal.close()
        self._reader_now.close()
        await self.close_readers()
        await asyncio.gather(*(writer.close() for writer in self._writers))

    @property
    def known_failure(self) -> NaviError | None:
        return self._trouble

    async def failure(self) -> NaviError | None:
        if time.monotonic() - self._tried_at > FRESH and not self._closing:
            with contextlib.suppress(NaviError, TimeoutError):
                # Shielded: a unit that is cancelled would be left out, and this one is to find out.
                await asyncio.wait_for(asyncio.shield(self.write(no_work)), ANSWER_WITHIN)
        if self._trouble is None and time.monotonic() - self._tried_at > FRESH + ANSWER_WITHIN:
            return StoreBusy("The database has not taken a change for some seconds: its server may be away.")
        return self.known_failure

    async def changed_elsewhere(self, *, within: float = 0.0) -> bool:
        return await self._signal.changed(within=within)

    async def free_pages(self) -> int:
        return 0  # PostgreSQL uses them again, or gives them back, by itself

    async def announce(self, server_id: str) -> None:
        await self._signal.announce(server_id)

    @property
    def is_cut_off(self) -> bool:
        return self._signal.is_cut_off

    async def disconnected(self, server_ids: Iterable[str]) -> Collection[str]:
        connected = await self._signal.connected()
        return () if connected is None else [one for one in server_ids if number_of(one) not in connected]

    def links_now(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        return self._reader_now.links(path, session_id)

    async def _commit(self, batch: Sequence[Unit[Any]]) -> None:
        # In their order: what comes after a unit without a session sees it, and what comes before does not.
        for is_shared, units in itertools.groupby(batch, key=lambda unit: unit.on is not None):
            if not is_shared:
                await self._commit_with(self._alone, list(units))
                continue
            by_lane: dict[int, list[Unit[Any]]] = {}
            for unit in units:
                by_lane.setdefault(zlib.crc32((unit.on or "").encode()) % LANES, []).append(unit)
            await asyncio.gather(*(self._commit_with(self._lanes[lane], some) for lane, some in by_lane.items()))

    async def _commit_with(self, writer: Writer, given: Sequence[Unit[Any]]) -> None:
        units = [unit for unit in given if not unit.done.cancelled()]
        if not units:
            return
        began = time.perf_counter()
        try:
            transaction = await writer.perform(units)
        except UnitFailed as failed:
            self._abandon(units, failed.error)
            return
        except Exception as error:
            found = error if isinstance(error, NaviError) else postgres_error(error)
            if spoils_all(error) or isinstance(error, NaviError):
                self._trouble = found
            else:
                log.error("store_write_broke", units=len(units), exc_info=error)
            self._tried_at = time.monotonic()
            self._abandon(units, found)
        else:
            self._tried_at, self._trouble = time.monotonic(), None
            if cast("PostgresConnection", transaction.db).changed:
                self._signal.committed()
            self._publish(units, transaction)
        self._observe(time.perf_counter() - began, len(units))
