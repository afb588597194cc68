"""The store on PostgreSQL by itself: connections that are lost, answers that are lost, other servers, and its clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

import asyncpg
import pytest

from navi_jupyter import clock
from navi_jupyter.errors import NaviError, SessionNotFound, StoreError, StoreTooNew
from navi_jupyter.orchestrator.upkeep.servers import this_server
from navi_jupyter.settings import Settings
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.engines import open_database
from navi_jupyter.store.postgres import connection, migrations, reader_now
from navi_jupyter.store.postgres.dialect import in_bulk, translated
from navi_jupyter.store.postgres.migrations import all_scripts
from navi_jupyter.store.postgres.signal import Signal
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.served_owners import EVERY_OWNER
from tests.support.cut_proxy import CutProxy, proxied
from tests.support.needs import postgres_programs
from tests.support.postgres import PrivatePostgres

from .test_database_file import session
from .test_writer import draft


def in_schema(url: str) -> str:
    return f"{url}?search_path=t_{secrets.token_hex(6)}"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    """With one session, ``s_1``."""
    store = await PostgresStore.open(url, **options)
    try:
        if await store.session("s_1") is None:
            await store.write(lambda tx: tx.add_session(session()))
        yield store
    finally:
        await store.close()


async def logged(store: PostgresStore) -> list[int]:
    return [seq for seq, _ in await store.frames("s_1", after=0, limit=10_000)]


async def test_a_unit_that_fails_is_undone_alone_and_the_others_run_again(postgres_url: str) -> None:
    async with opened(in_schema(postgres_url)) as store:
        runs: list[int] = []

        async def unit(tx: Transaction, number: int) -> int:
            runs.append(number)
            seq = await tx.append("s_1", [draft(number)])
            if number % 3 == 1:
                raise SessionNotFound(str(number))
            if number % 3 == 2:
                await tx.change("INSERT INTO sessions (id) VALUES (?)", ("s_1",))
            return seq

        results = await asyncio.gather(
            *(store.write(lambda tx, n=n: unit(tx, n)) for n in range(9)), return_exceptions=True
        )
        kinds = [type(result) for result in results]
        assert kinds == [int, SessionNotFound, StoreError] * 3
        assert [result for result in results if isinstance(result, int)] == [1, 2, 3]
        assert await logged(store) == [1, 2, 3]
        assert len(runs) > 9, "all of a transaction were performed again, each with a savepoint"


async def test_a_connection_that_ends_within_a_unit_costs_nothing(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as store:
        tries = 0

        async def unit(tx: Transaction) -> int:
            nonlocal tries
            tries += 1
            seq = await tx.append("s_1", [draft(1)])
            if tries == 1:
                number = await tx.one("SELECT pg_backend_pid() AS pid")
                other = await asyncpg.connect(postgres_url)
                await other.execute("SELECT pg_terminate_backend($1)", number["pid"])
                await other.close()
            return seq

        assert await store.write(unit) == 1
        assert tries == 2
        assert await logged(store) == [1]
        assert store.known_failure is None


@pytest.mark.parametrize("reaches", [True, False], ids=["committed", "not committed"])
async def test_a_commit_whose_answer_is_lost_counts_once(postgres_server: PrivatePostgres, *, reaches: bool) -> None:
    proxy = CutProxy()
    async with proxy.to(postgres_server.port):
        url = in_schema(f"postgresql://navi@127.0.0.1:{proxy.port}/postgres")
        async with opened(url) as store:
            lost = 0

            def loses(data: bytes) -> Literal["nothing", "statement", "answer"]:
                nonlocal lost
                if b"COMMIT\0" not in data or lost:
                    return "nothing"
                lost += 1
                return "answer" if reaches else "statement"

            tries = 0

            async def unit(tx: Transaction) -> int:
                nonlocal tries
                tries += 1
                return await tx.append("s_1", [draft(1)])

            shown: list[int] = []
            store.subscribe(lambda _, frames: shown.extend(seq for seq, _ in frames))
            proxy.loses = loses
            assert await store.write(unit, durable=True) == 1
            assert lost == 1
            assert (tries, shown, await logged(store)) == (1 if reaches else 2, [1], [1])


async def test_a_server_that_is_restarted_loses_nothing_and_interrupts_nobody(postgres: PrivatePostgres) -> None:
    async with opened(in_schema(postgres.url())) as store:
        accepted: list[int] = []

        async def write() -> None:
            while len(accepted) < 60:
                accepted.append(await store.write(lambda tx: tx.append("s_1", [draft(1)]), durable=True))

        async def read() -> None:
            while len(accepted) < 60:
                assert await store.session("s_1") is not None
                await asyncio.sleep(0.01)

        work = [asyncio.create_task(write()), asyncio.create_task(read())]
        while len(accepted) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.stop, how=signal.SIGQUIT)
        await asyncio.to_thread(postgres.start)
        await asyncio.wait_for(asyncio.gather(*work), 30)
        assert accepted == list(range(1, 61))
        assert await logged(store) == accepted


async def test_a_server_that_stays_away_is_an_error_in_words_and_a_new_one_is_found(
    postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.store.postgres.writer.PATIENCE", 0.5)
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    async with opened(in_schema(postgres.url())) as store:
        await asyncio.to_thread(postgres.stop)
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.write(lambda tx: tx.append("s_1", [draft(1)]))
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.session("s_1")
        assert store.known_failure is not None
        await asyncio.to_thread(postgres.start)
        assert await store.write(lambda tx: tx.append("s_1", [draft(1)])) == 1
        assert await store.failure() is None


async def test_other_servers_hear_of_commits_and_a_server_does_not_hear_itself(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as one, opened(url) as other:
        await asyncio.sleep(0.1)
        await one.changed_elsewhere(), await other.changed_elsewhere()
        await one.write(lambda tx: tx.append("s_1", [draft(1)]))
        assert await other.changed_elsewhere(within=5)
        assert not await other.changed_elsewhere()
        assert not await one.changed_elsewhere(within=0.1)


async def test_a_signal_that_was_cut_off_counts_as_a_change(postgres_server: PrivatePostgres) -> None:
    proxy = CutProxy()
    async with proxy.to(postgres_server.port):
        url = in_schema(f"postgresql://navi@127.0.0.1:{proxy.port}/postgres")
        async with opened(url) as store:
            await store.announce("server")
            await store.changed_elsewhere()
            proxy.cut()
            assert await store.changed_elsewhere(within=5)
            proxy.refuses = True
            proxy.cut()
            until = time.monotonic() + 10
            while not store.is_cut_off:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            proxy.refuses = False
            while store.is_cut_off:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)


async def test_a_connection_that_is_silent_is_made_again_once_and_its_lock_is_taken_again(
    postgres_server: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.store.postgres.signal.SETTLED", 0.0)
    proxy = CutProxy()
    async with proxy.to(postgres_server.port):
        schema = f"?search_path=t_{secrets.token_hex(6)}"
        through = f"postgresql://navi@127.0.0.1:{proxy.port}/postgres{schema}"
        async with opened(through) as store, opened(postgres_server.url() + schema) as other:
            await store.announce("server")
            made: list[object] = []
            really = Signal._connect

            async def counted(self: Signal) -> None:
                made.append(self)
                await really(self)

            monkeypatch.setattr(Signal, "_connect", counted)
            proxy.silent = True
            until = time.monotonic() + 20
            while not store.is_cut_off:
                assert time.monotonic() < until
                assert list(await other.disconnected(["server"])) == [], "PostgreSQL notices later"
                await asyncio.sleep(0.05)
            proxy.silent = False
            while store.is_cut_off:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            made.clear()
            await asyncio.sleep(6)
            assert len(made) <= 1, "it stays connected"
            assert list(await other.disconnected(["server"])) == []
            assert not store.is_cut_off


async def test_a_unit_that_goes_on_after_a_statement_has_failed_is_refused(postgres_url: str) -> None:
    async with opened(in_schema(postgres_url)) as store:

        async def unit(tx: Transaction) -> str:
            try:
                await tx.change("INSERT INTO sessions (id) VALUES (?)", ("s_1",))
            except Exception:  # noqa: BLE001
                return "accepted"
            return "inserted"

        with pytest.raises(StoreError, match="has failed within the unit"):
            await store.write(unit)
        results = await asyncio.gather(
            store.write(unit), store.write(lambda tx: tx.append("s_1", [draft(1)])), return_exceptions=True
        )
        assert isinstance(results[0], StoreError)
        assert results[1] == 1
        assert await logged(store) == [1]


async def test_units_are_serial_whatever_isolation_the_database_has(postgres_url: str) -> None:
    url = f"{in_schema(postgres_url)}&default_transaction_isolation=serializable"
    async with opened(url) as one, opened(url) as other:

        async def unit(tx: Transaction) -> int:
            row = await tx.one("SELECT count(*) AS n FROM facts")
            number = 0 if row is None else int(row["n"])
            await tx.change(
                "INSERT INTO facts (id, owner, text, source, created_at, updated_at) VALUES (?, ?, ?, ?, 0, 0)",
                (secrets.token_hex(8), "o", secrets.token_hex(8), "user"),
            )
            return number

        found = await asyncio.gather(*(store.write(unit) for _ in range(30) for store in (one, other)))
        assert sorted(found) == list(range(60))


async def test_tables_that_another_server_has_changed_are_no_error(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as store:
        assert await store.known_servers() == []
        assert await store.write(lambda tx: tx.servers()) == []
        assert await store.read(lambda view: view.all("SELECT * FROM servers")) == []
        db = await connection.connect(url)
        await db.execute("ALTER TABLE servers ADD COLUMN of_the_next_version BIGINT")
        await db.close()
        assert await store.known_servers() == []
        assert await store.write(lambda tx: tx.servers()) == []
        assert await store.read(lambda view: view.all("SELECT * FROM servers")) == []


async def test_no_transaction_that_writes_sends_a_notification(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    execute = connection.PostgresConnection.execute
    fetch = connection.PostgresConnection.execute_fetchall

    async def seen(self: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return await execute(self, sql, *rest)

    async def fetched(self: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return await fetch(self, sql, *rest)

    monkeypatch.setattr(connection.PostgresConnection, "execute", seen)
    monkeypatch.setattr(connection.PostgresConnection, "execute_fetchall", fetched)
    async with opened(in_schema(postgres_url)) as store:
        await store.write(lambda tx: tx.append("s_1", [draft(1)]))
    assert statements
    assert not [sql for sql in statements if "notify" in sql.lower()]


async def test_a_server_is_seen_as_gone_when_its_connection_ends(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.store.postgres.signal.SETTLED", 0.0)
    url = in_schema(postgres_url)
    async with opened(url) as one:
        async with opened(url) as other:
            await one.announce("one")
            await other.announce("other")
            assert list(await one.disconnected(["one", "other"])) == []
        await asyncio.sleep(0.1)
        assert list(await one.disconnected(["one", "other"])) == ["other"]


async def test_times_are_those_of_the_database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_database_offset", timedelta(0))
    really = clock.datetime

    class Behind(really):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return really.now(tz) - timedelta(seconds=5)

    monkeypatch.setattr(clock, "datetime", Behind)
    async with opened(in_schema(postgres_url)):
        assert abs(clock.database_offset() - timedelta(seconds=5)) < timedelta(seconds=0.2)
        assert abs(clock.now() - really.now(clock.UTC)) < timedelta(seconds=0.2)


async def test_a_clock_that_is_far_off_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_database_offset", timedelta(0))
    really = clock.datetime

    class Behind(really):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return really.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(clock, "datetime", Behind)
    with pytest.raises(StoreError, match="NTP"):
        await PostgresStore.open(in_schema(postgres_url))


async def test_two_servers_that_start_at_once_make_the_tables_once_and_a_newer_one_is_refused(
    postgres_url: str,
) -> None:
    url = in_schema(postgres_url)
    stores = await asyncio.gather(*(PostgresStore.open(url) for _ in range(3)))
    for store in stores:
        await store.close()
    db = await connection.connect(url)
    try:
        assert await migrations.version_of(db) == migrations.SCHEMA_VERSION
        # A server works with the tables of the next version, and not with those after it.
        await db.execute("UPDATE navi_schema SET version = version + 1")
        await (await PostgresStore.open(url)).close()
        await db.execute("UPDATE navi_schema SET version = version + 1")
        with pytest.raises(StoreTooNew):
            await PostgresStore.open(url)
    finally:
        await db.close()


async def test_text_with_a_nul_is_stored_without_it(postgres_url: str) -> None:
    async with opened(in_schema(postgres_url)) as store:
        await store.write(lambda tx: tx.change_session("s_1", {"title": "a\x00b"}))
        found = await store.session("s_1")
        assert found is not None
        assert found.title == "a\ufffdb"


async def test_an_id_with_a_nul_is_of_nothing(postgres_url: str) -> None:
    async with opened(in_schema(postgres_url)) as store:
        assert [one.id for one in await store.sessions_of(["a\x00b", "s_1"])] == ["s_1"]
        rows = await store.fetch_all("SELECT key, value FROM json_each(?)", ('["a\\u0000b", 2, null]',))
        assert [tuple(row) for row in rows] == [("0", "a\ufffdb"), ("1", "2"), ("2", None)]
        given = json.dumps(["\\u0000", "\x00\x00", "\\\x00"])
        rows = await store.fetch_all("SELECT value FROM json_each(?)", (given,))
        assert [row["value"] for row in rows] == ["\\u0000", "\ufffd\ufffd", "\\\ufffd"]


async def test_a_read_that_is_not_awaited(postgres_url: str) -> None:
    async with opened(in_schema(postgres_url)) as store:
        await store.write(lambda tx: tx.change_session("s_1", {"notebook_path": "a.ipynb"}))
        assert [link.session_id for link in store.links_now("a.ipynb", None)] == ["s_1"]
        assert store.links_now("b.ipynb", None) == []


def test_a_read_that_is_not_awaited_holds_up_the_event_loop_but_shortly_while_there_is_no_answer(
    postgres_server: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"t_{secrets.token_hex(6)}"
    postgres_server.create_database(database)
    asyncio.run(_made(postgres_server.url(database)))
    monkeypatch.setattr(reader_now, "RESTS", 1.0)
    with proxied(postgres_server.port) as proxy:
        reader = reader_now.ReaderNow(f"postgresql://navi@127.0.0.1:{proxy.port}/{database}", EVERY_OWNER)
        try:
            assert reader.links("a.ipynb", None) == []
            proxy.silent = True
            began = time.monotonic()
            with pytest.raises(StoreError):
                reader.links("a.ipynb", None)
            assert time.monotonic() - began < 0.6
            began = time.monotonic()
            with pytest.raises(StoreError, match="a moment ago"):
                reader.links("a.ipynb", None)
            assert time.monotonic() - began < 0.1, "and not for each of many that are saved"
            proxy.silent = False
            time.sleep(1.1)
            found = None
            for _ in range(10):  # the first makes a connection, for which it waits as shortly
                with contextlib.suppress(StoreError):
                    found = reader.links("a.ipynb", None)
                    break
                time.sleep(0.5)
            assert found == []
        finally:
            reader.close()


async def _made(url: str) -> None:
    await (await PostgresStore.open(url)).close()


async def test_a_users_own_server_on_a_hub_does_not_get_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    with pytest.raises(StoreError, match="all users"):
        await open_database(Settings(database_url=postgres_url))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://navi@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql://navi@127.0.0.1:1/x?search_path=A;b", "search_path"),
        ("postgresql://navi@127.0.0.1:port/x", "cannot be read"),
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        await PostgresStore.open(url)


async def test_an_error_never_shows_the_password() -> None:
    for password in ("hunter2", "hun/ter2", "hun?ter2", "hun#ter2", "hun@ter2", "hun:ter2"):
        with pytest.raises(NaviError) as caught:
            await PostgresStore.open(f"postgresql://navi:{password}@127.0.0.1:1/x")
        assert "hun" not in str(caught.value)
        assert "ter2" not in str(caught.value)
        assert "ter2" not in connection.shown(f"postgresql://navi:{password}@127.0.0.1:1/x")


async def test_in_poll_mode_every_look_finds_something(postgres_url: str) -> None:
    signal_ = Signal(in_schema(postgres_url), poll=True)
    await signal_.open()
    assert await signal_.changed(within=0.01)
    assert await signal_.changed(within=0.01)
    await signal_.close()


@pytest.mark.parametrize(
    ("sql", "expected", "order"),
    [
        ("a = ? AND b = ?", "a = $1 AND b = $2", (0, 1)),
        ("a = ?2 AND b = ?1 AND c = ?", "a = $1 AND b = $2 AND c = $3", (1, 0, 2)),
        ("a = :x OR b = :x OR c = :y", "a = $1 OR b = $1 OR c = $2", ("x", "y")),
        ("a = '? :x' AND b = ?", "a = '? :x' AND b = $1", (0,)),
        ("a IS b AND c IS NOT d", "a IS NOT DISTINCT FROM b AND c IS DISTINCT FROM d", ()),
        ("a IS NULL AND b IS NOT NULL", "a IS NULL AND b IS NOT NULL", ()),
        ("f INDEXED BY f_open CROSS JOIN g x ON y", "f JOIN g x ON y", ()),
    ],
)
def test_the_shared_sql_as_postgresql_takes_it(sql: str, expected: str, order: tuple[object, ...]) -> None:
    statement = translated(sql)
    assert (statement.sql, statement.order) == (expected, order)


@pytest.mark.parametrize(
    ("sql", "width", "expected"),
    [
        (
            "INSERT INTO t (title, at) VALUES {rows} ON CONFLICT DO NOTHING",
            2,
            (
                "INSERT INTO t (title, at) SELECT * FROM unnest(CAST($1 AS TEXT[]), CAST($2 AS BIGINT[]))"
                " ON CONFLICT DO NOTHING"
            ),
        ),
        (
            "UPDATE t SET at = v.column1 FROM (VALUES {rows}) AS v WHERE t.id = v.column2 AND t.fence <= v.column3",
            3,
            (
                "UPDATE t SET at = v.column1 FROM unnest(CAST($1 AS BIGINT[]), CAST($2 AS TEXT[]), CAST($3 AS"
                " BIGINT[]))"
                " AS v (column1, column2, column3) WHERE t.id = v.column2 AND t.fence <= v.column3"
            ),
        ),
    ],
)
def test_many_rows_are_one_statement(sql: str, width: int, expected: str) -> None:
    assert in_bulk(sql, width) == expected


def test_columns_of_one_name_have_one_type() -> None:
    found: dict[str, set[str]] = {}
    for script in all_scripts():
        for name, kind in re.findall(r"^    (\w+) (TEXT|BIGINT|BYTEA|DOUBLE PRECISION)\b", script, re.MULTILINE):
            found.setdefault(name, set()).add(kind)
    assert {name: kinds for name, kinds in found.items() if len(kinds) > 1} == {}
    assert len(found) > 80


async def test_units_of_other_sessions_are_performed_at_the_same_time_and_no_others(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as one, opened(url) as other:
        for number in range(2, 9):
            await one.write(lambda tx, number=number: tx.add_session(session(f"s_{number}")))
        inside: set[str] = set()
        together: set[frozenset[str]] = set()

        async def unit(tx: Transaction, name: str) -> None:
            assert name not in inside
            inside.add(name)
            together.add(frozenset(inside))
            await asyncio.sleep(0.02)
            inside.discard(name)

        async def on(store: PostgresStore, name: str) -> None:
            await store.write(lambda tx: unit(tx, name), on=name if name != "all" else None)

        names = [f"s_{n}" for n in range(1, 9)] * 4 + ["all"] * 3
        await asyncio.gather(*(on(store, name) for store in (one, other) for name in names))
        assert any(len(names) > 1 for names in together)
        assert not [names for names in together if "all" in names and len(names) > 1]


async def test_many_units_of_two_servers_number_each_log_without_gaps_and_show_it_in_order(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as one, opened(url) as other:
        for number in range(2, 6):
            await one.write(lambda tx, number=number: tx.add_session(session(f"s_{number}")))
        ids = [f"s_{number}" for number in range(1, 6)]
        shown: dict[tuple[int, str], list[int]] = {}
        for store in (one, other):
            store.subscribe(
                lambda sid, frames, store=store: shown.setdefault((id(store), sid), []).extend(seq for seq, _ in frames)
            )

        async def work(store: PostgresStore, seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(40):
                sid = chance.choice(ids)
                if chance.random() < 0.7:
                    await store.write(lambda tx, sid=sid: tx.append(sid, [draft(1)]), durable=True, on=sid)
                else:
                    batches = {one: [draft(1), draft(2)] for one in chance.sample(ids, 2)}
                    await store.write(lambda tx, batches=batches: tx.append_all(batches))

        await asyncio.gather(*(work(store, n) for n in range(4) for store in (one, other)))
        for sid in ids:
            stored = [seq for seq, _ in await one.frames(sid, after=0, limit=10_000)]
            assert stored == list(range(1, len(stored) + 1))
            both = [shown.get((id(store), sid), []) for store in (one, other)]
            assert sorted(both[0] + both[1]) == stored
            assert all(numbers == sorted(numbers) for numbers in both)


async def test_a_process_that_is_killed_gives_the_writers_turn_back(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    async with opened(url) as store:
        child = await asyncio.create_subprocess_exec(
            *_python("""
import asyncio, sys
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.served_owners import EVERY_OWNER
async def main():
    store = await PostgresStore.open(sys.argv[1])
    async def unit(tx):
        await tx.change("UPDATE sessions SET title = 'half'")
        print("in it", flush=True)
        await asyncio.sleep(60)
    await store.write(unit)
asyncio.run(main())
"""),
            url,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"in it\n"
        waiting = asyncio.create_task(store.write(lambda tx: tx.append("s_1", [draft(1)])))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "all transactions that write take turns"
        os.kill(child.pid, signal.SIGKILL)
        assert await asyncio.wait_for(waiting, 5) == 1
        await child.wait()
        found = await store.session("s_1")
        assert found is not None
        assert found.title != "half"


def _python(program: str) -> tuple[str, ...]:
    import sys

    return sys.executable, "-c", program


@pytest.mark.slow
async def test_a_synchronous_standby_that_is_promoted_has_all_that_was_accepted(postgres: PrivatePostgres) -> None:
    standby = await asyncio.to_thread(lambda: PrivatePostgres(postgres_programs(), durable=True, copy_of=postgres))
    try:
        db = await asyncpg.connect(postgres.url())
        await db.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await db.execute("SELECT pg_reload_conf()")
        await db.close()
        url = f"postgresql://navi@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
        async with opened(in_schema(url)) as store:
            accepted: list[int] = []
            over = asyncio.Event()

            async def write() -> None:
                while not over.is_set():
                    accepted.append(await store.write(lambda tx: tx.append("s_1", [draft(1)]), durable=True))

            writer = asyncio.create_task(write())
            while len(accepted) < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.to_thread(postgres.stop, how=signal.SIGKILL)
            await asyncio.to_thread(standby.promote)
            had = len(accepted)
            while len(accepted) < had + 20:
                assert not writer.done()
                await asyncio.sleep(0.01)
            over.set()
            await writer
            assert accepted == list(range(1, len(accepted) + 1))
            assert await logged(store) == accepted
            assert store.known_failure is None
    finally:
        await asyncio.to_thread(standby.remove)


async def test_a_renewed_lease_is_no_news_for_other_servers(postgres_url: str) -> None:
    url, here = in_schema(postgres_url), this_server()
    async with opened(url) as one, opened(url) as other:
        while await other.changed_elsewhere(within=0.5):
            pass
        await one.write(lambda tx: tx.beat(here, at=clock.now()))
        assert not await other.changed_elsewhere(within=0.5)
        await one.write(lambda tx: tx.forget_server(here.id))
        assert await other.changed_elsewhere(within=5.0)
