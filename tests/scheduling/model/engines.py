"""The database of a house of servers: one file of SQLite on inline connections, or a schema of PostgreSQL.

On PostgreSQL transactions of several servers are really under way at once. One can be stopped between two of its
statements (``Contention.pause``) while others go on until they end or wait for its locks; and connections are lost:
before a COMMIT reaches the server, or before its answer reaches the client (``Contention.losses``).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from navi_jupyter.errors import StoreError
from navi_jupyter.store.postgres import writer as writers
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.postgres.writer import Writer
from tests.scheduling.model.inline import open_inline
from tests.support.database import URL, database_url

Patch = Callable[[object, str, object], None]
WATCHED = {
    "sqlite": """
CREATE TABLE watched (
    number INTEGER PRIMARY KEY, firing TEXT, was TEXT, status TEXT,
    old_fence INTEGER, fence INTEGER,
    old_owner TEXT, old_lease INTEGER, attempt INTEGER, crashes INTEGER, rescued INTEGER, moved INTEGER,
    recall TEXT, kind TEXT, slot INTEGER, not_before INTEGER, wait_until INTEGER, reason TEXT, run TEXT, by TEXT);
CREATE TRIGGER watch_made AFTER INSERT ON firings BEGIN
    INSERT INTO watched (firing, status, fence, attempt, crashes, rescued, moved,
                         recall, kind, slot, not_before, wait_until, reason)
    VALUES (new.id, new.status, new.fence, new.attempt, new.crashes, 0, 0,
            new.recall_id, new.kind, new.slot, new.not_before, new.wait_until, new.reason);
END;
CREATE TRIGGER watch_changed AFTER UPDATE ON firings BEGIN
    INSERT INTO watched
        (firing, was, status, old_fence, fence, old_owner, old_lease, attempt, crashes, rescued, moved, run)
    VALUES (new.id, old.status, new.status, old.fence, new.fence, old.lease_owner, old.lease_until,
            new.attempt, new.crashes, new.crashes > old.crashes AND new.run_id IS old.run_id,
            old.slot <> new.slot OR old.recall_id <> new.recall_id, new.run_id);
END;
CREATE TABLE takes (number INTEGER PRIMARY KEY, notice INTEGER, taken_by TEXT, begins INTEGER);
CREATE TRIGGER watch_takes AFTER UPDATE ON notices BEGIN
    INSERT INTO takes (notice, taken_by, begins) VALUES
        (new.number, iif(new.status = 'pending', new.taken_by, NULL), new.attempts > old.attempts);
END;
""",
    "postgres": """
CREATE TABLE watched (
    number BIGSERIAL PRIMARY KEY, firing TEXT, was TEXT, status TEXT,
    old_fence BIGINT, fence BIGINT,
    old_owner TEXT, old_lease BIGINT, attempt BIGINT, crashes BIGINT, rescued BOOLEAN, moved BOOLEAN,
    recall TEXT, kind TEXT, slot BIGINT, not_before BIGINT, wait_until BIGINT, reason TEXT, run TEXT, by TEXT);
CREATE FUNCTION watch_made() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO watched (firing, status, fence, attempt, crashes, rescued, moved,
                         recall, kind, slot, not_before, wait_until, reason, by)
    VALUES (NEW.id, NEW.status, NEW.fence, NEW.attempt, NEW.crashes, false, false, NEW.recall_id, NEW.kind, NEW.slot,
            NEW.not_before, NEW.wait_until, NEW.reason, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER watch_made AFTER INSERT ON firings FOR EACH ROW EXECUTE FUNCTION watch_made();
CREATE FUNCTION watch_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO watched
        (firing, was, status, old_fence, fence, old_owner, old_lease, attempt, crashes, rescued, moved, run, by)
    VALUES (NEW.id, OLD.status, NEW.status, OLD.fence, NEW.fence, OLD.lease_owner, OLD.lease_until,
            NEW.attempt, NEW.crashes, NEW.crashes > OLD.crashes AND NEW.run_id IS NOT DISTINCT FROM OLD.run_id,
            OLD.slot <> NEW.slot OR OLD.recall_id <> NEW.recall_id, NEW.run_id, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER watch_changed AFTER UPDATE ON firings FOR EACH ROW EXECUTE FUNCTION watch_changed();
CREATE TABLE takes (number BIGSERIAL PRIMARY KEY, notice BIGINT, taken_by TEXT, begins BOOLEAN);
CREATE FUNCTION watch_takes() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO takes (notice, taken_by, begins) VALUES
        (NEW.number, CASE WHEN NEW.status = 'pending' THEN NEW.taken_by END, NEW.attempts > OLD.attempts);
    RETURN NULL;
END $$;
CREATE TRIGGER watch_takes AFTER UPDATE ON notices FOR EACH ROW EXECUTE FUNCTION watch_takes();
""",
}
"""The database itself notes every transition that was committed, who has taken which notice, and on PostgreSQL whose
store wrote it. ``rescued``: from a server that died delivering it."""

LOSSES = ("statement", "answer")


class Pause:
    """A point in a transaction, after so many of its statements, at which it stops until it is released."""

    def __init__(self, statements: int) -> None:
        self._left = statements
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    async def before_statement(self) -> None:
        self._left -= 1
        if self._left < 0 and not self._released.is_set():
            self.reached.set()
            await self._released.wait()

    def release(self) -> None:
        self._released.set()


class _Paused:
    """A connection whose statements wait at a pause."""

    def __init__(self, connection: Any, pause: Pause) -> None:
        self._connection = connection
        self._pause = pause

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._connection, name)

        async def call(*args: Any) -> Any:
            await self._pause.before_statement()
            return await method(*args)

        return call

    async def change_many(self, sql: str, rows: Any) -> Any:  # found by its name (``ChangeMany``)
        await self._pause.before_statement()
        return await self._connection.change_many(sql, rows)


class Contention:
    """What PostgreSQL adds to histories. Drawn by a lot of its own: a seed's history is else the one on SQLite."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.lot = random.Random(0)
        self.overlaps = False
        """Whether in this history several transactions are under way at once."""
        self.losses = 0.0
        """How often a server's connection is lost at a COMMIT."""
        self.lost = 0
        self.refusals: list[str] = []
        """Errors of the database: that nothing of what a server does is refused is an invariant."""
        self.stores: list[PostgresStore] = []
        self._pauses: dict[Writer, Pause] = {}
        self._losses: dict[Writer, str] = {}
        self._looks: Any = None

    def begin(self, seed: int, *, overlaps: bool) -> None:
        """A history, with transactions that overlap and lost connections or else the same as on SQLite."""
        self.lot = random.Random(f"contention {seed}")
        self.overlaps = overlaps
        self.losses, self.lost = 0.03 if self.overlaps else 0.0, 0
        self.refusals.clear()

    def end(self) -> None:
        """What follows is not part of a history."""
        self.losses = 0.0

    async def open(self, patch: Patch, stores: int) -> list[PostgresStore]:
        """Stores of so many servers, and behind them one of the users."""
        self.stores = [
            # Without notifications: that servers have died is known by their leases here, not by their connections.
            await PostgresStore.open(f"{self._url}&application_name=store{n}", poll=True)
            for n in range(stores + 1)
        ]
        self._looks = await asyncpg.connect(self._url)
        commit, perform, write = Writer._commit, writers._perform_all, PostgresStore.write

        async def losing(writer: Writer) -> None:
            loss = self._losses.pop(writer, None)
            is_server = any(writer in store._writers for store in self.stores[:-1])
            if loss is None and is_server and self.losses and self.lot.random() < self.losses:
                loss = self.lot.choice(LOSSES)
            if loss == "statement":
                self._lose(writer)
            await commit(writer)
            if loss == "answer":
                self._lose(writer)

        async def paused(units: Any, transaction: Any, **given: Any) -> None:
            for writer, pause in self._pauses.items():
                if transaction.db._connection is writer._connection:
                    transaction.db = _Paused(transaction.db, pause)
            await perform(units, transaction, **given)

        async def noting(store: PostgresStore, unit: Any, **given: Any) -> Any:
            try:
                return await write(store, unit, **given)
            except StoreError as error:
                self.refusals.append(str(error))
                raise

        patch(Writer, "_commit", losing)
        patch(writers, "_perform_all", paused)
        patch(PostgresStore, "write", noting)
        patch(writers, "RETRY_EVERY", 0.0)
        await self.execute(WATCHED["postgres"])
        return self.stores

    def _lose(self, writer: Writer) -> None:
        self.lost += 1
        writer._connection.terminate()
        raise ConnectionResetError("cut by the test")

    async def execute(self, script: str) -> None:
        """Statements, as a person who looks after the database performs them."""
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def close(self) -> None:
        await self._looks.close()
        for store in self.stores:
            await store.close()

    def name_of(self, store: object) -> str:
        return f"store{self.stores.index(store)}"  # type: ignore[arg-type]

    def pause(self, store: PostgresStore, statements: int) -> Pause:
        """Its next transaction stops before the statement after so many."""
        pause = Pause(statements)
        self._pauses |= dict.fromkeys(store._writers, pause)
        return pause

    def cut(self, store: PostgresStore) -> None:
        """Its next COMMIT, or the answer to it, is lost."""
        self._losses |= dict.fromkeys(store._writers, self.lot.choice(LOSSES))

    def disarm(self) -> None:
        self._losses.clear()
        for pause in self._pauses.values():
            pause.release()
        self._pauses.clear()

    async def until_done_or_blocked(self, task: asyncio.Future[Any]) -> bool:
        """Whether ``task`` is over; False once a transaction waits for a lock of another one."""
        while True:
            done, _ = await asyncio.wait({task}, timeout=0.005)
            if done:
                return True
            if await self._is_blocked():
                return False

    async def _is_blocked(self) -> bool:
        connections = [writer._connection for store in self.stores for writer in store._writers]
        backends = [one.get_server_pid() for one in connections if one is not None and not one.is_closed()]
        asked = "SELECT bool_or(cardinality(pg_blocking_pids(pid)) > 0) FROM unnest($1::int[]) AS pid"
        return bool(await self._looks.fetchval(asked, backends))


async def open_stores(path: Path, patch: Patch, count: int) -> tuple[Sequence[Any], Any, Contention | None]:
    """The servers' stores, the users' one, and what is special to PostgreSQL."""
    if URL in os.environ:
        contention = Contention(database_url(path / "navi.db"))
        *stores, users = await contention.open(patch, count)
        return stores, users, contention
    stores = [await open_inline(path / "navi.db", patch) for _ in range(count)]
    stores[0]._db._db.executescript(WATCHED["sqlite"])
    return stores, stores[0], None
