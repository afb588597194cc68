"""A database of the version before: what it holds is read as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from navi_jupyter.model.sessions import Usage
from navi_jupyter.store.sqlite import database_file
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.support.database import on_sqlite

pytestmark = on_sqlite


async def test_sessions_runs_and_waiting_prompts_of_version_1_are_read_by_this_one(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        database_file.migrate(db, target=1)
        db.execute(
            "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
            " VALUES ('s1', 'me', 't', 'assistant', 'offline', 'UTC', 1, 1)"
        )
        for name, status, ended in (("r1", "completed", 3), ("r2", "queued", None)):
            db.execute(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                " created_at, started_at, ended_at, input_tokens, requests) VALUES"
                " (?, 's1', ?, ?, 'user', 'me', 'offline', 'hello', 1, 2, ?, ?, 7, 1)",
                (name, f"c-{name}", status, ended, ended),
            )
    store = await SqliteStore.open(path)
    try:
        session = await store.session("s1")
        assert session is not None
        assert (session.allowed_tools, session.context) == ((), {})
        (queued,) = await store.queued_prompts("s1")
        assert [(part.command_id, part.text) for part in queued.parts] == [("c-r2", "hello")]
        assert [turn.run_id for turn in await store.past_turns("s1")] == ["r1"]
        assert await store.of_session("s1") == Usage(input_tokens=14, requests=2)
        assert (await store.of_user("me", since=datetime(1970, 1, 1, tzinfo=UTC))).cost is None
        assert await store.open_interrupts("s1") == []
    finally:
        await store.close()


async def test_of_the_sessions_with_one_path_the_newest_is_the_notebooks_after_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        database_file.migrate(db, target=3)
        for name, owner, place, created in (
            ("s1", "me", "a.ipynb", 1),
            ("s2", "me", "a.ipynb", 2),
            ("s3", "me", None, 3),
            ("s4", "you", "a.ipynb", 1),
        ):
            db.execute(
                "INSERT INTO sessions (id, owner, title, profile, model, notebook_path, timezone, created_at,"
                " updated_at) VALUES (?, ?, 't', 'assistant', 'offline', ?, 'UTC', ?, 1)",
                (name, owner, place, created),
            )
    store = await SqliteStore.open(path)
    try:
        found = [await store.session(name) for name in ("s1", "s2", "s3", "s4")]
        assert [one and one.notebook_link for one in found] == ["earlier", "pending", None, "pending"]
        assert [link.session_id for link in await store.links("me", path="a.ipynb")] == ["s2"]
        assert [one.id for one in await store.earlier_sessions("me", "a.ipynb", without="s2", limit=9)] == ["s1"]
        assert await store.unmarked_paths(limit=9) == ["a.ipynb"]
        await store.write(lambda tx: tx.mark_notebook("a.ipynb", ("c1", "c2"), now_at="a.ipynb"))
        assert await store.unmarked_paths(limit=9) == []
        link = await store.link("s2")
        assert link is not None
        assert (link.path, link.state, link.fingerprint) == ("a.ipynb", "pending", ("c1", "c2"))
    finally:
        await store.close()


async def test_recalls_and_their_ledger_of_version_3_are_read_by_this_one(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        database_file.migrate(db, target=3)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(
            "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
            " VALUES ('s1', 'me', 't', 'assistant', 'offline', 'UTC', 1, 1)"
        )
        db.execute(
            "INSERT INTO recalls (number, id, session_id, owner, title, message, schedule, policy, status, created_at,"
            " origin) VALUES (7, 'rec1', 's1', 'me', 't', 'm', ?, '{}', 'cancelled', 1, 'user')",
            ('{"kind":"cron","expr":"0 9 * * *","tz":"UTC"}',),
        )
        db.execute(
            "INSERT INTO firings (id, recall_id, session_id, slot, kind, status, command_id, not_before)"
            " VALUES ('f1', 'rec1', 's1', 5, 'auto', 'succeeded', 'c', 5)"
        )
        db.execute("INSERT INTO notices (firing_id, owner, target, due_at) VALUES ('f1', 'me', 'phone', 5)")
    store = await SqliteStore.open(path)
    try:
        (recall,), _ = await store.recalls("me", limit=10)
        assert (recall.id, recall.allow, recall.reason) == ("rec1", (), None)
        await store.write(lambda tx: tx.delete_session("s1"))
        assert [firing.id for firing in (await store.firings("rec1", limit=10))[0]] == ["f1"]
        assert await store.fetch_all("PRAGMA foreign_key_check") == []
        (left,) = await store.fetch_all("SELECT count(*) AS n FROM notices")
        assert left["n"] == 1
    finally:
        await store.close()
