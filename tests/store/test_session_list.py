"""The list of sessions in the database: search that finds every language and takes every query, copies, old files."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.sessions import USER, Run, RunStatus, Session, TitleSource
from navi_jupyter.orchestrator.session_list.retention import remove_session
from navi_jupyter.ports.agent import Message
from navi_jupyter.ports.session_list import SessionFilter
from navi_jupyter.store.database import Database, Transaction
from navi_jupyter.store.session_list.index import SearchIndex
from navi_jupyter.store.session_list.listing import PIECE_ROWS
from navi_jupyter.store.sqlite import database_file
from navi_jupyter.store.sqlite.full_text import match_expression
from tests.support.database import URL, on_sqlite, open_store

START = datetime(2026, 11, 20, 9, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Database]:
    store = await open_store(folder / "navi.db")
    try:
        yield store
    finally:
        await store.close()


async def add(store: Database, name: str, *texts: str, owner: str = "ada", title: str = "untitled") -> None:
    """A session with one finished run, whose messages have these texts: a prompt, an answer, a prompt ..."""
    await store.write(lambda tx: _add(tx, name, texts, owner, title))


async def _add(tx: Transaction, name: str, texts: Sequence[str], owner: str, title: str) -> None:
    at = START + timedelta(minutes=await tx.count_sessions(owner))
    session = Session(
        id=name, owner=owner, title=title, profile="assistant", model="offline", created_at=at, updated_at=at
    )
    await tx.add_session(session)
    run = Run(
        id=f"r_{name}",
        session_id=name,
        command_id=f"c_{name}",
        status=RunStatus.QUEUED,
        origin=USER,
        model="offline",
        created_at=at,
    )
    await tx.add_run(run, prompt=texts[0] if texts else "", user_id=owner, first_seq=1)
    await tx.start_run(run.id, server_id="server", at=at, lease_until=at)
    messages = [
        Message(
            id=f"{name}{number}",
            role="assistant" if number % 2 else "user",
            content=text,
            run_id=run.id,
            origin=USER,
            at=at.isoformat(),
        )
        for number, text in enumerate(texts)
    ]
    await tx.end_run(run.id, status=RunStatus.COMPLETED, at=at, transcript=messages)


async def indexed(store: Database) -> None:
    while await SearchIndex(store).take_in(limit=5):
        pass


async def found(store: Database, query: str, *, owner: str = "ada") -> list[str]:
    hits, _ = await store.search(owner, query, limit=50)
    return [hit.session_id for hit in hits]


async def test_all_words_have_to_be_in_one_message_and_the_last_one_may_be_a_beginning(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "why is the loss flat?", "The learning rate is too low.")
        await add(store, "s2", "plot the learning curve", "Here it is.")
        await indexed(store)
        assert await found(store, "learning rate") == ["s1"]
        assert await found(store, "learn") == ["s2", "s1"], "the newest find first"
        assert await found(store, "learn ") == [], "a word that is finished is meant as it is"
        assert await found(store, '"learning rate is"') == ["s1"]
        assert await found(store, '"rate learning"') == []
        assert await found(store, "loss rate") == [], "they are in two messages"
        assert await found(store, "LOSS") == ["s1"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Lives in Besançon", "besancon"),
        ("Les élèves étudient", "ELEVES"),
        ("Größe und Maße", "GRÖßE"),
        ("明天的会议记录在哪里", "会议"),
        ("明天的会议记录在哪里", "会议记录"),
        ("明天的会议记录在哪里", "记"),
        ("用pandas读取数据", "pandas"),
        ("用pandas读取数据", "读取"),
        ("データを可視化する", "可視化"),
        ("회의를 준비했다", "회의"),
        ("รายงานประจำวัน", "ประจำ"),
        ("the file utils.py has run_code()", "run_code"),
        ("C++ and C#", "c++"),
        ("50 % of 1,000", "1,000"),
        ("ΩΜΈΓΑ", "ωμέγα"),
    ],
)
async def test_it_finds_texts_of_every_script(tmp_path: Path, text: str, query: str) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", text)
        await add(store, "s2", "something else")
        await indexed(store)
        assert await found(store, query) == ["s1"]


async def test_letters_that_do_not_follow_one_another_are_no_find_in_chinese(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "会计说明天议论")
        await indexed(store)
        assert await found(store, "会议") == []


async def test_a_find_says_where_it_is_with_marks_and_without_what_the_index_needs(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "hello", "We have 会议记录 of the \x02meeting\x03.", title="Notes")
        await indexed(store)
        (hit,), more = await store.search("ada", "会议", limit=10)
        assert more is None
        assert (hit.message_id, hit.role, hit.run_id, hit.at) == ("s11", "assistant", "r_s1", START)
        assert "".join(part.text for part in hit.snippet) == "We have 会议记录 of the meeting."
        assert [part.text for part in hit.snippet if part.match] == ["会议"]


async def test_titles_are_found_as_they_are_now(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "hello", title="Quarterly report")
        await indexed(store)
        assert await found(store, "quarterly") == ["s1"]
        await store.write(lambda tx: tx.change_session("s1", {"title": "Yearly report"}))
        await indexed(store)
        assert await found(store, "quarterly") == []
        (hit,), _ = await store.search("ada", "yearly", limit=10)
        assert (hit.role, hit.message_id, hit.run_id) == ("title", "", None)


async def test_search_finds_what_the_user_can_read_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "secret plan")
        await add(store, "s2", "secret plan", owner="bob")
        await indexed(store)
        assert await found(store, "secret") == ["s1"]
        await store.write(lambda tx: tx.share("s2", "ada", at=START))
        assert sorted(await found(store, "secret")) == ["s1", "s2"]
        await store.write(lambda tx: tx.change_session("s2", {"deleted_at": START}))
        await store.write(lambda tx: tx.change_session("s1", {"archived_at": START}))
        assert await found(store, "secret") == ["s1"], "archived ones are found, deleted ones are not"


async def test_what_is_removed_for_good_is_gone_from_the_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "secret plan", "an answer")
        await indexed(store)
        await store.write(lambda tx: tx.delete_session("s1"))
        match = "" if URL in os.environ else " WHERE message_index MATCH 'secret'"
        rows = await store.fetch_all(f"SELECT count(*) AS n FROM message_index{match}")
        assert rows[0]["n"] == 0
        assert (await store.fetch_all("SELECT count(*) AS n FROM message_texts"))[0]["n"] == 0


async def test_finds_come_in_pages_in_all_sessions_and_in_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(7):
            await add(store, f"s{number}", "apple", "apple pie", "apple tree")
        await indexed(store)
        for session_id, expected in ((None, [f"s{number}" for number in range(6, -1, -1)]), ("s3", ["s3"] * 3)):
            seen, cursor = [], None
            while True:
                hits, cursor = await store.search("ada", "apple", limit=2, cursor=cursor, session_id=session_id)
                seen += [(hit.session_id, hit.message_id, hit.count) for hit in hits]
                if cursor is None:
                    break
            assert [session for session, _, _ in seen] == expected
            assert len(set(seen)) == len(seen)
            assert {count for _, _, count in seen} == {3 if session_id is None else 1}


hostile = st.one_of(
    st.text(),
    st.text(alphabet="\"*()^:+-{}[]\\ 'ANDORNEARab会\u200b\x00\ud800"),
    st.lists(st.sampled_from(["AND", "OR", "NOT", "NEAR(", '"', "*", "text:", "^", "-", "a", "会", "(", ")", " "])).map(
        "".join
    ),
)


@on_sqlite  # of PostgreSQL: test_text_index
def test_no_query_is_an_error(tmp_path: Path) -> None:
    async def prepare() -> None:
        async with opened(tmp_path) as store:
            await add(store, "s1", 'a AND b OR "c" NEAR text: 会议', "(x) * ^ - AND")
            await indexed(store)

    asyncio.run(prepare())
    with closing(sqlite3.connect(tmp_path / "navi.db")) as db:

        @settings(max_examples=500, deadline=None)
        @given(hostile)
        def holds(query: str) -> None:
            expression = match_expression(query)
            if expression is not None:
                db.execute("SELECT rowid FROM message_index WHERE message_index MATCH ?", (expression,)).fetchall()

        holds()


async def test_what_is_typed_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "s1", "word " * 30)
        await indexed(store)
        assert await found(store, "word " * 90) == ["s1"]
        assert await found(store, " - ... '' \"\" ") == []


@on_sqlite
async def test_the_runs_of_an_earlier_version_are_taken_in_afterwards_and_until_then_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        database_file.migrate(db, target=12)
        db.execute(
            "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
            " VALUES ('s1', 'ada', 'Old title', 'assistant', 'offline', 'UTC', 1, 1)"
        )
        for number in range(12):
            message = {"id": f"m{number}", "role": "user", "content": f"old prompt {number}", "run_id": "r", "at": "x"}
            db.execute(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                "  created_at, started_at, ended_at, transcript) VALUES"
                " (?, 's1', ?, 'completed', 'user', 'ada', 'offline', 'x', 1, 2, 3, 4, ?)",
                (f"r{number}", f"c{number}", json.dumps([message | {"origin": {"kind": "user"}, "tool_calls": []}])),
            )
    async with opened(tmp_path) as store:
        assert not await store.is_indexed()
        assert await found(store, "prompt") == []
        assert await SearchIndex(store).take_in(limit=5) == 6, "five runs and a title"
        assert await found(store, '"prompt 11"') == ["s1"], "the newest come first"
        assert not await store.is_indexed()
        await indexed(store)
        assert await store.is_indexed()
        hits, _ = await store.search("ada", "prompt", limit=5)
        assert hits[0].count == 12
        assert await found(store, "old title") == ["s1"]
        session = await store.session("s1")
        assert session is not None
        assert session.title_source is TitleSource.USER, "whose title it is is not known: it stays"


async def test_two_servers_that_take_in_the_same_runs_have_them_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        for number in range(10):
            await add(one, f"s{number}", "apple", "pie")
        while sum(await asyncio.gather(*(SearchIndex(store).take_in(limit=3) for store in (one, two)))):
            pass
        rows = await one.fetch_all("SELECT count(*) AS n FROM message_texts WHERE run_id IS NOT NULL")
        assert rows[0]["n"] == 20
        assert len(await found(two, "apple")) == 10


async def test_a_list_has_ones_own_sessions_and_those_that_are_shared_in_one_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name, owner in (("a1", "ada"), ("b1", "bob"), ("a2", "ada"), ("b2", "bob"), ("a3", "ada")):
            await add(store, name, "hello", owner=owner)
        await store.write(lambda tx: tx.share("b2", "ada", at=START))
        await store.write(lambda tx: tx.change_session("a2", {"archived_at": START}))
        await store.write(lambda tx: tx.change_session("a3", {"deleted_at": START}))

        async def shown(show: SessionFilter, user: str = "ada") -> list[str]:
            seen, cursor = [], None
            while True:
                page, cursor = await store.sessions(user, limit=1, cursor=cursor, show=show)
                seen += [session.id for session in page]
                if cursor is None:
                    return seen

        assert await shown(SessionFilter.ACTIVE) == ["b2", "a1"]
        assert await shown(SessionFilter.ARCHIVED) == ["a2"]
        assert await shown(SessionFilter.DELETED) == ["a3"]
        assert await shown(SessionFilter.SHARED) == ["b2"]
        assert sorted(await shown(SessionFilter.ALL)) == ["a1", "a2", "b2"]
        assert sorted(await shown(SessionFilter.ACTIVE, "bob")) == ["b1", "b2"]
        assert await shown(SessionFilter.ACTIVE, "carl") == []


async def fill(store: Database, session_id: str, runs: int, events: int) -> None:
    """Finished runs with a log, questions and texts in the search."""
    await store.write(lambda tx: _add(tx, session_id, ["a prompt", "an answer"], "ada", "untitled"))
    await indexed(store)

    async def unit(tx: Transaction) -> None:
        for number in range(runs):
            name = f"{session_id}{number}"
            await tx.change(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                " created_at, ended_at, transcript) VALUES"
                " (?, ?, ?, 'completed', 'user', 'ada', 'm', 'p', 1, 1, 2, '[]')",
                (name, session_id, name),
            )
            await tx.change(
                "INSERT INTO interrupts (id, session_id, run_id, kind, message, durable, created_at, status)"
                " VALUES (?, ?, ?, 'approval', 'May I?', 1, 1, 'resolved')",
                (name, session_id, name),
            )
        draft = Draft(Custom(name="navi.kernel", value={"pad": "x" * 20_000}), run_id=None, origin=USER, at=START)
        await tx.append(session_id, [draft] * events)

    await store.write(unit)


async def rows_of(store: Database, session_id: str) -> int:
    """In all tables that have rows of a session."""
    tables = ("runs", "events", "commands", "interrupts", "message_texts", "compactions")
    sums = " + ".join(f"(SELECT count(*) FROM {table} WHERE session_id = :s)" for table in tables)
    return int((await store.fetch_all(f"SELECT {sums} AS n", {"s": session_id}))[0]["n"])


async def test_the_edits_of_a_removed_session_are_removed_in_pieces_before_their_runs(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store, "gone", runs=6, events=0)
        await fill(store, "kept", runs=2, events=0)

        async def unit(tx: Transaction) -> None:
            for run in await tx.all("SELECT id FROM runs"):
                for cell in range(3):
                    await tx.change(
                        "INSERT INTO notebook_edits (run_id, path, cell_id, own, number, kind, before, place, at)"
                        " VALUES (?, 'a.ipynb', ?, 1, ?, 'change', ?, 'p', 1)",
                        (run["id"], f"c{cell}", cell, "x" * 400_000),
                    )

        await store.write(unit)
        await store.write(lambda tx: tx.change_session("gone", {"deleted_at": START}))
        assert await store.write(lambda tx: tx.begin_removal("gone"))
        left = [30]  # each session has a run more
        while left[-1] > 9 and await store.write(lambda tx: tx.remove_piece("gone")):
            left.append((await store.fetch_all("SELECT count(*) AS n FROM notebook_edits"))[0]["n"])
            assert await rows_of(store, "gone") >= 6, "the runs go after their edits"
        assert left == [30, 27, 24, 21, 18, 15, 12, 9]
        await remove_session(store, "gone")
        assert await rows_of(store, "gone") == 0
        assert (await store.fetch_all("SELECT count(*) AS n FROM notebook_edits"))[0]["n"] == 9


async def test_a_session_is_removed_in_pieces_and_a_removal_that_was_cut_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await fill(store, "gone", runs=450, events=300)
        await fill(store, "kept", runs=3, events=3)
        kept = await rows_of(store, "kept")
        await store.write(lambda tx: tx.change_session("gone", {"deleted_at": START}))
        assert not await store.write(lambda tx: tx.begin_removal("gone", deleted_before=START))
        assert not await store.write(lambda tx: tx.begin_removal("kept"))
        assert await store.write(lambda tx: tx.begin_removal("gone", deleted_before=START + timedelta(seconds=1)))
        # From then on it cannot come back: there may be half of it.
        assert await store.write(lambda tx: tx.deleted_session("gone")) is None
        assert await store.sessions("ada", limit=9, show=SessionFilter.DELETED) == ([], None)

        write, sizes = store.write, list[int]()

        async def counted(unit: Any, **more: Any) -> Any:
            if len(sizes) == 4:
                raise KeyboardInterrupt  # the process ends here
            before = await rows_of(store, "gone")
            result = await write(unit, **more)
            sizes.append(before - await rows_of(store, "gone"))
            return result

        monkeypatch.setattr(store, "write", counted)
        with pytest.raises(KeyboardInterrupt):
            await remove_session(store, "gone")
        assert max(sizes) <= PIECE_ROWS
        assert await store.deleted_before(START, limit=9) == ["gone"]  # found at the next look, by any server
        sizes.clear()
        sizes += [0] * 5
        await remove_session(store, "gone")
        assert max(sizes) <= PIECE_ROWS
        assert sum(1 for size in sizes if 45 <= size <= 60) >= 4  # of events: by their size, a megabyte
        assert await rows_of(store, "gone") == 0
        assert await store.deleted_before(START, limit=9) == []
        assert await rows_of(store, "kept") == kept
        if URL not in os.environ:  # PostgreSQL has none that is broken
            assert await store.fetch_all("PRAGMA foreign_key_check") == []
        left = await store.fetch_all("SELECT count(*) AS n FROM message_index")
        assert left[0]["n"] == (await store.fetch_all("SELECT count(*) AS n FROM message_texts"))[0]["n"]
