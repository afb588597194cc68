"""No statement of the store reads a whole table that grows with use, whatever the planner knows about the tables.

Every method of the store is called, with what a database of some hundred sessions has. All statements that it executes
are recorded as they are written, and SQLite is asked how it would execute them.
"""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Acceptance
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.notebooks import ClientNotebook, ShownNotebook
from navi_jupyter.model.runs import Interrupt, InterruptKind, InterruptStatus
from navi_jupyter.model.sessions import USER, RunStatus, Usage
from navi_jupyter.ports.edits import CellEdit
from navi_jupyter.ports.recalls import Absence, Claimed, FiringState, RecallState
from navi_jupyter.ports.session_list import SessionFilter
from navi_jupyter.ports.transactions import Foldable, Server
from navi_jupyter.store.attachments import AttachmentStore
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.memory import FactStore, PreferenceStore
from navi_jupyter.store.notebooks.edits import NotebookEditStore
from navi_jupyter.store.notices import ResultStore, StoredNotices
from navi_jupyter.store.rows import RECALL_COLUMNS
from navi_jupyter.store.served_owners import ServedOwners
from navi_jupyter.store.session_list.index import SearchIndex
from navi_jupyter.store.session_list.read_marks import ReadMarks
from navi_jupyter.store.sqlite.store import SqliteStore
from navi_jupyter.store.user_configuration import UserConfigurationStore
from tests.support.database import on_sqlite

pytestmark = on_sqlite

SMALL = {
    "servers": "a row for each server that is running",
    "database_state": "one row",
    "preferences": "a row for each user",
    "absences": "filled and emptied at a start",
    "ended": "emptied as soon as it is read",
}
"""Tables that do not grow with use."""
WHOLE = {
    "SELECT model FROM preferences": "the last twenty runs, from the end",
    "SELECT DISTINCT owner, sha256 FROM attachments": "an hourly look for files that are of no attachment",
    "DELETE FROM attachments": "the same look: what is old and in no session",
    "SELECT id, edge FROM (SELECT id,": "an hourly look for what a ledger has too much of; in each it goes by key",
    f"SELECT {RECALL_COLUMNS} FROM recalls WHERE status = 'expired'": "after the clock was set back",
}
"""What statements that read a whole table begin with, and why that may be."""
NOT_CALLED = {"all", "one", "change", "change_many", "fetch_all", "fetch_one", "read", "write", "open", "close"}
NOT_CALLED |= {
    "open_readers",
    "close_readers",
    "failure",
    "changed_elsewhere",
    "announce",
    "disconnected",
}  # of a connection, not of rows
AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
COUNT = 300


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is executed on all connections that are opened from now on, with its placeholders."""
    executed = Counter[str]()

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
            executed[sql] += 1
            return super().execute(sql, *more)

        def executemany(self, sql: str, *more: Any) -> sqlite3.Cursor:
            executed[sql] += 1
            return super().executemany(sql, *more)

    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Recording, **named))
    return executed


def fill(path: Path) -> None:
    """Rows of every kind, most of them of what is over."""
    count = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT - 1})"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at, head_seq)"
            f" {count} SELECT 's' || i, 'u' || i % 9, 't', 'p', 'm', 'UTC', i, i, 9 FROM n"
        )
        for status, ended in (("completed", 5), ("queued", None), ("running", None)):
            db.execute(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                f" created_at, started_at, ended_at, transcript, lease_until) {count} SELECT ? || i, 's' || i,"
                " ? || i, ?, 'user', 'u' || i % 9, 'm', 'p', 1, i, iif(?4 = 'queued', NULL, i), ?5, '[]', 9 FROM n"
                " WHERE ?4 <> 'running' OR i < 9",
                (status[0], status, status, status, ended),
            )
        db.execute(f"INSERT INTO events {count} SELECT 's' || i % 50, i, 'c' || i % 50, '{{}}' FROM n")
        db.execute(
            "INSERT INTO recalls (id, session_id, owner, title, message, schedule, policy, status, created_at, origin,"
            f" due_at, next_at) {count} SELECT 'k' || i, 's' || i, 'u' || i % 9, 't', 'm', ?, ?,"
            " iif(i % 9, 'completed', 'pending'), i, 'user', i, i FROM n",
            ('{"kind":"cron","expr":"0 9 * * *","tz":"UTC"}', "{}"),
        )
        db.execute(
            "INSERT INTO firings (id, recall_id, session_id, slot, kind, status, command_id, not_before)"
            f" {count} SELECT 'f' || i, 'k' || i, 's' || i, i, 'auto', 'succeeded', 'c' || i, i FROM n"
        )
        db.execute(
            "INSERT INTO interrupts (id, session_id, run_id, kind, message, durable, created_at, status)"
            f" {count} SELECT 'q' || i, 's' || i, 'c' || i, 'approval', 'm', 1, i, 'resolved' FROM n"
        )
        db.execute(
            "INSERT INTO results (run_id, recall_id, path, created_at)"
            f" {count} SELECT 'c' || i, 'k' || i, 'p', i FROM n"
        )
        db.execute(
            "INSERT INTO notices (firing_id, owner, target, status, due_at)"
            f" {count} SELECT 'f' || i, 'u' || i % 9, 't', 'sent', i FROM n"
        )
        db.execute(
            "INSERT INTO user_entries (owner, kind, name, entry)"
            f" {count} SELECT 'u' || i % 9, iif(i % 2, 'notify', 'mcp'), 'n' || i, '{{}}' FROM n"
        )
        for kind, name in (("run", "c"), ("firing", "f")):
            db.execute(f"INSERT INTO ended (kind, id) {count} SELECT '{kind}', '{name}' || i FROM n WHERE i < 9")


def values(state: RecallState, firing_state: FiringState) -> dict[str, Any]:
    """What the methods take, by the names of their parameters."""
    question = Interrupt(id="q9", session_id="s9", run_id="c9", kind=InterruptKind.APPROVAL, message="m", created_at=AT)
    edit = CellEdit(run_id="c9", path="a", own=True, cell="c", kind="code", before="", after="", at=AT)
    return {
        **dict.fromkeys(("session_id", "source_id"), "s9"),
        **dict.fromkeys(("run_id", "interrupted_id", "into"), "c9"),
        **dict.fromkeys(("owner", "user_id", "without"), "u1"),
        **dict.fromkeys(("recall_id",), "k9"),
        **dict.fromkeys(("firing_id",), "f9"),
        **dict.fromkeys(("attachment_id", "interrupt_id", "fact_id"), "q9"),
        **dict.fromkeys(("command_id", "kind", "reason", "path", "key", "prompt", "why", "error", "now_at"), "c9"),
        **dict.fromkeys(("name", "by", "target", "message_id", "text", "query", "source", "server_id", "model"), "c9"),
        **dict.fromkeys(("at", "now", "until", "since", "after", "before", "lease_until", "deleted_before"), AT),
        **dict.fromkeys(("ended_before", "until_after", "again_at"), AT),
        **dict.fromkeys(("lease", "within", "back"), timedelta(seconds=9)),
        **dict.fromkeys(("limit", "first_seq", "pages", "keep", "coming", "waiting", "per_day", "seq", "most"), 9),
        **dict.fromkeys(("up_to",), 9),
        "session_ids": ["s8", "s9"],
        **{name: ["c8", "c9"] for name in ("run_ids", "command_ids", "interrupt_ids", "attachment_ids")},
        "recall_ids": ["k8", "k9"],
        "firing_ids": ["f8", "f9"],
        "acceptance": Acceptance(command_id="c", seq=1, run_id=None),
        "numbers": [1, 2],
        "seqs": [1, 2],
        "usage": Usage(),
        "edit": edit,
        "edits": [edit],
        "state": "kept",
        "done": True,
        "content": b"x",
        "media_type": "text/plain",
        "conversation": b"",
        "parts": (),
        "transcript": (),
        "changes": {"title": "t"},
        "fingerprint": ["x"],
        "drafts": [Draft(Custom(name="navi.kernel", value={}), run_id=None, origin=USER, at=AT)],
        "server": Server(id="x", host="h", pid=1, pid_started=1.0),
        "foldable": Foldable(run_id="c9", session_id="s9", after=0, last=9),
        "folded": {1: "{}"},
        "dropped": [2],
        "stretches": [(1, 2)],
        "interrupt": question,
        "status": None,
        "shown": ShownNotebook(notebook=ClientNotebook(path="a.ipynb"), at=AT),
        "found": {"s9": Absence(since=AT)},
        "days": [(AT, AT)],
        "copies": (),
        "frames": [("c9", "{}")],
        "claimed": [(Claimed(firing=firing_state, recall=state), ["t"])],
        "wanted": {"run": ["t"], "firing": ["t"]},
        "own": lambda _: {"run": ["t"], "firing": ["t"]},
        "entry": "{}",
        "recall states": [state],
        "firing states": [firing_state],
    }


async def call(owner: object, name: str, known: dict[str, Any], **more: Any) -> None:
    """A method with what is known for its parameters. What it raises does not matter: its statements do."""
    method, known = getattr(owner, name), {**known, **more}
    if name in ("head", "gap", "frames", "mark"):
        known["after"] = 0
    if name == "transcript":
        known["before"] = None
    if "states" in inspect.signature(method).parameters:
        known["states"] = known["firing states" if "firing" in name else "recall states"]
    if name == "add":
        known["source"] = "user"
    if name == "end_run":
        known |= {"status": RunStatus.COMPLETED, "error": None}
    if name == "settle_interrupt":
        known["status"] = InterruptStatus.RESOLVED
    if name == "append_all":
        known["batches"] = {"s9": known["drafts"]}
    wanted = inspect.signature(method).parameters.values()
    given = {one.name: known[one.name] for one in wanted if one.name in known or one.default is one.empty}
    await method(**{key: value for key, value in given.items() if key != "cursor"})


def methods(kind: type) -> list[str]:
    """Of a class: those that have statements."""
    names = [name for name, _ in inspect.getmembers(kind, inspect.iscoroutinefunction)]
    return [name for name in names if not name.startswith("_") and name not in NOT_CALLED]


def scans(db: sqlite3.Connection, statement: str) -> list[str]:
    """The tables that it reads whole: by no key, or in the order of an index that has all of their rows."""
    # Joined or nested, a table has the name that the statement gives it.
    names = {alias: table for table, alias in re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO) (\w+) (?:AS )?(\w+)", statement)}
    partial = {
        name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%WHERE%'")
    }
    tables = {
        name
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'")
    }
    found = []
    for *_, step in db.execute(f"EXPLAIN QUERY PLAN {statement}", defaults(statement)):
        scanned = re.fullmatch(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?.*", step)
        if scanned and scanned[2] not in partial:
            table = scanned[1] if scanned[1] in tables else names.get(scanned[1])
            if table in tables - SMALL.keys():
                found.append(table)
    return found


def defaults(statement: str) -> Any:
    """Nothing for each placeholder."""
    names = re.findall(r":([a-z_]+)", statement)
    if names and "?" not in statement:
        return dict.fromkeys(names)
    count = 0  # as SQLite does: one without a number is one after the largest so far
    for number in re.findall(r"\?(\d*)", statement):
        count = max(count, int(number)) if number else count + 1
    return (None,) * count


@pytest.mark.parametrize("serves", ["*", "u1", "u1, u2"])
async def test_no_statement_reads_a_whole_table_that_grows(
    tmp_path: Path, statements: Counter[str], serves: str
) -> None:
    path = tmp_path / "navi.db"
    store, silent = await SqliteStore.open(path, served=ServedOwners.of(serves)), []
    fill(path)
    statements.clear()
    try:
        state, run = await store.recall_state("k9"), await store.run("c9")
        firings = await store.write(lambda tx: tx.firing_states(["f9"]))
        assert state is not None
        known = {**values(state, firings["f9"]), "run": run, "session": await store.session("s9")}
        for name in methods(Transaction):

            async def unit(tx: Transaction, name: str = name) -> None:
                before = statements.total()
                try:
                    await call(tx, name, known)
                finally:
                    if statements.total() == before:
                        silent.append(name)
                raise ValueError("undone")

            with suppress(Exception):
                await store.write(unit)
        makers = (AttachmentStore, FactStore, PreferenceStore, NotebookEditStore, ResultStore, StoredNotices, ReadMarks)
        for owner in [*(make(store) for make in makers), UserConfigurationStore(store), SearchIndex(store), store]:
            for name in methods(type(owner)):
                before = statements.total()
                with suppress(Exception):
                    await call(owner, name, known)
                if statements.total() == before:
                    silent.append(name)
        for show in SessionFilter:
            await store.sessions("u1", limit=9, show=show)
        await store.snapshot("s9")
        await store.when_recalls(paused=True)
        await store.when_recalls(owner="u1")
    finally:
        await store.close()
    assert silent == []  # a new parameter needs a value above
    wanted = [each for each in statements if each.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"))]
    assert len(wanted) > 200
    with closing(sqlite3.connect(path)) as db:
        db.create_function("navi_look_at_files", 2, lambda *_: None)
        whole = {each: scans(db, each) for each in wanted}
        db.execute("ANALYZE")  # as `PRAGMA optimize` does in time: then it knows how many rows there are
        found = {each: tables for each in wanted if (tables := whole[each] + scans(db, each))}
        allowed = {begin for begin in WHOLE for each in found if each.startswith(begin)}
        assert {each: found[each] for each in found if not each.startswith(tuple(WHOLE))} == {}
        # With some owners even some of these go by key.
        assert allowed == WHOLE.keys() if serves == "*" else allowed <= WHOLE.keys()
        # The rows of a session, a run or a recall that is removed are found by a key, too.
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            for _, _, parent, column, *_ in db.execute(f"PRAGMA foreign_key_list({table})").fetchall():
                plan = db.execute(f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE {column} = ?", (None,)).fetchall()
                assert table in SMALL or all(step[-1].startswith("SEARCH") for step in plan), (table, parent)
