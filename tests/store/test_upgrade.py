"""A database of the version before: what it holds is read as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from navi_jupyter.model.sessions import Usage
from navi_jupyter.store import database_file
from navi_jupyter.store.sqlite import SqliteStore


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
