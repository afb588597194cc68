"""``navi db import``: what one user has in a SQLite file, brought into a database that others use."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.settings import Limits, Settings
from navi_jupyter.store.attachments import AttachmentStore
from navi_jupyter.store.database import Database
from navi_jupyter.store.engines import open_database
from navi_jupyter.store.memory import FactStore, PreferenceStore
from navi_jupyter.store.rows import to_micros
from navi_jupyter.store.session_list.index import SearchIndex
from navi_jupyter.store.sqlite import database_file
from navi_jupyter.store.sqlite.location import attachments_folder
from navi_jupyter.store.sqlite.store import SqliteStore
from navi_jupyter.store.transfer.source import reading
from navi_jupyter.store.transfer.tables import TABLES
from navi_jupyter.store.transfer.user_import import UserImport
from navi_jupyter.store.user_configuration import UserConfigurationStore
from tests.cli.test_database import fill, navi, rows
from tests.store.test_attachments import png
from tests.store.test_session_list import add, found
from tests.support.orchestrator_world import Agent, World, text_of

CONTENT = png() + bytes(1_300_000)
HIDDEN = "\x1fada"


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that another user has something in."""
    url = f"sqlite:///{tmp_path}/target/hub.db"
    if request.param == "postgres":
        url = f"{request.getfixturevalue('postgres_url')}?search_path=t_{secrets.token_hex(6)}"

    async def begin() -> None:
        async with opened(url) as store:
            await add(store, "of_grace", "a question of grace", "an answer", owner="grace")
            await SearchIndex(store).take_in(limit=10)
            await FactStore(store).add("Lives in Besançon", owner="grace", source="user")
            kept = AttachmentStore(store)
            await kept.add(CONTENT, name="g.png", media_type=None, owner="grace", session_id="of_grace")
            await PreferenceStore(store).set_model("grace", "offline")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(begin())).result()
    return url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    store = await open_database(Settings(database_url=url))
    try:
        yield store
    finally:
        await store.close()


async def source_file(path: Path) -> dict[str, str]:
    """A single user's file with rows in all tables, whose server was killed; some ids."""
    live = path.with_name("live.db")
    store = await SqliteStore.open(live)
    agent = Agent()
    orchestrator = Orchestrator(store, agent, settings=Settings(limits=Limits()))
    recalls = RecallService(store)
    await orchestrator.start(recalls)
    made = World(store, orchestrator, agent)
    ids: dict[str, str] = {}
    for name in ("said", "asks", "works"):
        ids[name] = await made.session(title=f"Session {name}", notebook_path=f"{name}.ipynb")
    ids["run"] = (await made.prompt(ids["said"], "say 3")).run_id or ""
    await made.until_end(ids["said"], ids["run"])
    ids["asking"], (ids["question"],) = await made.asking(ids["asks"])
    ids["working"] = (await made.prompt(ids["works"], "wait")).run_id or ""
    await made.streaming(ids["works"], ids["working"])
    ids["queued"] = (await made.prompt(ids["works"], "say 2")).run_id or ""
    for name, schedule in (("late", {"kind": "once", "in": "1h"}), ("daily", {"kind": "cron", "expr": "0 8 * * *"})):
        request = RecallCreate.model_validate({"session_id": ids["said"], "message": "say 1", "schedule": schedule})
        ids[name] = (await recalls.create(request, owner="local", zone="UTC")).id
    ids["fact"] = (await FactStore(store).add("Measures in Besançon", owner="local", source="user")).id
    await FactStore(store).add("Lives in Besançon", owner="local", source="user")
    attachment = await AttachmentStore(store).add(
        CONTENT, name="p.png", media_type=None, owner="local", session_id=ids["said"]
    )
    ids["attachment"] = attachment.id
    await PreferenceStore(store).set_model("local", "offline")
    await UserConfigurationStore(store).put("local", "profile", "mine", '{"instructions": "Be brief."}')
    # What it does from here on is not kept, as of a server that is killed.
    with closing(sqlite3.connect(live)) as db, closing(sqlite3.connect(path)) as copy:
        db.backup(copy)
    shutil.copytree(attachments_folder(live), attachments_folder(path))
    agent.gate.set()
    await orchestrator.stop()
    await store.close()
    changes: list[tuple[str, dict[str, object]]] = [
        (_FIRING, _values(id="f_1", slot=1, status="succeeded", run_id=ids["run"])),
        (_FIRING, _values(id="f_2", slot=2, status="missed", run_id=None)),
        ("INSERT INTO notices (firing_id, owner, target, status, due_at) VALUES ('f_1', 'local', 'm', 'sent', 1)", {}),
        (
            "INSERT INTO notices (firing_id, owner, target, due_at) VALUES ('f_2', 'local', 'm', :at + 1000000000000)",
            {},
        ),
        ("INSERT INTO results (run_id, recall_id, path, created_at) VALUES (:run, :daily, 'r.ipynb', 5)", {}),
        ("INSERT INTO reads (session_id, user_id, seq, at) VALUES (:said, 'local', 3, :at)", {}),
        ("INSERT INTO shares (session_id, user_id, at) VALUES (:said, 'grace', 4)", {}),
        ("INSERT INTO compactions (session_id, from_seq, to_seq) VALUES (:works, 1, 2)", {}),
        ("INSERT INTO absences (session_id, since, late, missed) VALUES (:said, 1, 2, 3)", {}),
        (_EDIT, {}),
        ("INSERT INTO shown_notebooks (run_id, command_id, at, notebook) VALUES (:queued, 'c', :at, '{}')", {}),
        ("UPDATE recalls SET due_at = :at - 7200000000, next_at = :at - 7200000000 WHERE id = :late", {}),
        ("DELETE FROM servers", {}),
        ("DELETE FROM ended", {}),
    ]
    with closing(sqlite3.connect(path)) as db:
        for sql, values in changes:
            db.execute(sql, {**ids, "at": to_micros(now()), **values})
        db.commit()
    return ids


_FIRING = """INSERT INTO firings (id, recall_id, session_id, slot, kind, status, command_id, run_id, not_before)
    VALUES (:id, :daily, :said, :slot, 'auto', :status, 'c_' || :id, :run_id, :slot)"""
_EDIT = """INSERT INTO notebook_edits (run_id, path, cell_id, own, number, kind, place, at)
    VALUES (:run, 'a.ipynb', 'c', 1, 7, 'code', '0', :at)"""


def _values(**values: object) -> dict[str, object]:
    return values


def comparable(table: str, found_rows: Sequence[Sequence[tuple[str, object]]], local: str) -> list[dict[str, object]]:
    """Without what is of the database that they are in."""
    numbered = next(one.numbered for one in TABLES if one.name == table)
    without = {"indexed", "indexed_title"} | ({"number"} if numbered else set())
    return [
        {name: local if value == "local" else value for name, value in row if name not in without} for row in found_rows
    ]


def of(
    found_rows: dict[str, list[list[tuple[str, object]]]], owner: str, *, local: str = "local"
) -> dict[str, list[dict[str, object]]]:
    """What belongs to that user, table by table. ``local``: the name of the user of the source."""
    plain = {table: comparable(table, each, local) for table, each in found_rows.items()}
    sessions = {row["id"] for row in plain["sessions"] if row["owner"] == owner}
    runs = {row["id"] for row in plain["runs"] if row["session_id"] in sessions}
    recalls = {row["id"] for row in plain["recalls"] if row["owner"] == owner}
    mine = {}
    for table in (one.name for one in TABLES if one.owned is not None):
        each = plain[table]
        mine[table] = sorted(
            (
                row
                for row in each
                if row.get("owner") == owner
                or row.get("session_id") in sessions
                or ("owner" not in row and row.get("run_id") in runs)
                or row.get("recall_id") in recalls
            ),
            key=repr,
        )
    return mine


async def everything(url: str) -> dict[str, list[list[tuple[str, object]]]]:
    async with opened(url) as store:
        return await rows(store)


async def test_everything_of_a_single_users_file_becomes_the_users_and_nothing_else_changes(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "source" / "navi.db"
    ids = await source_file(path)
    before, source = await everything(target), await everything(f"sqlite:///{path}")
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 0
    assert "Imported for ada: 3 sessions, 4 runs" in capsys.readouterr().out
    after = await everything(target)
    assert of(after, "grace") == of(before, "grace")
    assert after["ended"] == before["ended"]
    wanted, got = of(source, "ada", local="ada"), of(after, "ada")
    for table in wanted:
        assert wanted[table], f"the source has nothing in {table}"
        assert got[table] == wanted[table], table
    async with opened(target) as store:
        assert await AttachmentStore(store).read(ids["attachment"], owner="ada") == CONTENT
        assert await found(store, "session said", owner="ada") == [ids["said"]]
        assert {fact.text for fact in (await FactStore(store).facts("ada", query="besan"))[0]} == {
            "Measures in Besançon",
            "Lives in Besançon",
        }
        await FactStore(store).add("another", owner="ada", source="user")
        await add(store, "more", "go on", "yes", owner="ada")
        await SearchIndex(store).take_in(limit=10)
    again = await everything(target)
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 0
    assert "Imported for ada: 0 sessions" in (said := capsys.readouterr().out)
    assert "3 sessions were there already" in said
    assert await everything(target) == again


async def test_ids_that_another_user_has_refuse_the_import_before_anything_is_written(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "source" / "navi.db"
    ids = await source_file(path)
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 0
    before = await everything(target)
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "bob") == 1
    shown = capsys.readouterr().err
    assert "Nothing was imported" in shown
    assert f"session {ids['said']}" in shown
    assert await everything(target) == before


class CutOff(Exception):
    """The process ends."""


async def test_an_import_that_was_cut_off_shows_nothing_and_goes_on_when_it_is_repeated(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "source" / "navi.db"
    await source_file(path)
    monkeypatch.setattr("navi_jupyter.store.transfer.source.ROWS", 3)
    source, before = await everything(f"sqlite:///{path}"), await everything(target)
    cut = 1
    left, write = 0, UserImport._write

    async def counted(self: UserImport, *given: Any, **named: Any) -> Any:
        nonlocal left
        if left == 0:
            raise CutOff
        left -= 1
        return await write(self, *given, **named)

    monkeypatch.setattr(UserImport, "_write", counted)
    while True:  # after one transaction, after some more, …: each attempt goes on where the one before it ended
        left = cut
        async with opened(target) as store:
            with reading(path) as file:
                try:
                    await UserImport(file, store, owner="local", name="ada", report=lambda _: None).perform()
                    break
                except CutOff:
                    pass
            assert await store.sessions("ada", limit=10) == ([], None)
            assert not await store.queued_sessions()
            assert (await store.audit_recalls(now())).open == 0
            assert (await FactStore(store).facts("ada"))[0] == []
            await AttachmentStore(store).sweep(at=now() + timedelta(days=2))
        cut += 3
    after = await everything(target)
    assert cut > 10
    assert of(after, "ada") == of(source, "ada", local="ada")
    assert of(after, "grace") == of(before, "grace")
    assert not [row for row in after["sessions"] if ("owner", HIDDEN) in row]


async def test_of_several_owners_one_is_chosen(tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "source" / "navi.db"
    await source_file(path)
    store = await SqliteStore.open(path)
    await add(store, "of_ben", "ben's", "answer", owner="ben")
    await store.close()
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 1
    assert "ben, local" in capsys.readouterr().err
    words = ("db", "import", str(path), target, "--owner", "ada", "--from-owner")
    assert await asyncio.to_thread(navi, *words, "carl") == 1
    assert "ben, local" in capsys.readouterr().err
    assert await asyncio.to_thread(navi, *words, "ben") == 0
    async with opened(target) as there:
        assert [one.id for one in (await there.sessions("ada", limit=10))[0]] == ["of_ben"]


async def test_a_server_of_the_target_goes_on_with_what_has_come(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "source" / "navi.db"
    ids = await source_file(path)
    monkeypatch.setattr("tests.support.orchestrator_world.OWNER", "ada")
    async with opened(target) as store:
        agent = Agent()
        orchestrator = Orchestrator(store, agent, settings=Settings(limits=Limits()))
        recalls = RecallService(store)
        await orchestrator.start(recalls)
        scheduler = Scheduler(store, orchestrator.submit, server_id="here")
        await scheduler.start()
        try:
            there = World(store, orchestrator, agent)
            assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 0
            assert len((await store.sessions("ada", limit=10))[0]) == 3
            # What was in progress ends as after a restart, and what waited behind it is run.
            ended = await there.until_end(ids["works"], ids["working"])
            assert ended["event"]["type"] == "RUN_ERROR"
            assert await there.status(ids["works"], ids["working"]) == "interrupted"
            await there.until_end(ids["works"], ids["queued"])
            # A question that was open can be answered.
            await there.answer(ids["asks"], ids["question"], payload={"approved": True})
            await there.until_end(ids["asks"], ids["asking"])
            # A prompt continues the session, whose log goes on.
            head = (await store.frames(ids["said"], after=0, limit=500))[-1][0]
            accepted = await there.prompt(ids["said"], "say 2")
            envelopes = await there.until(
                ids["said"],
                lambda e: e["run_id"] == accepted.run_id and e["event"]["type"] == "RUN_FINISHED",
                after=head,
            )
            assert envelopes[0]["seq"] == head + 1
            assert text_of(envelopes, f"m_{accepted.run_id}") == "0 1 "
            # What was due meanwhile follows the recall's own rule.
            await scheduler.sweep()
            scheduler.wake()
            async with asyncio.timeout(20):
                while not (fired := await recalls.queries.ledger(ids["late"], owner="ada", limit=5))[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert fired[0][0].lateness_ms is None or fired[0][0].lateness_ms > 3_000_000
        finally:
            await scheduler.stop()
            agent.gate.set()
            await orchestrator.stop()


async def test_a_notebook_and_a_fact_that_the_user_has_there_stay_the_users_there(tmp_path: Path, target: str) -> None:
    path = tmp_path / "source" / "navi.db"
    ids = await source_file(path)
    async with opened(target) as store:
        await add(store, "mine", "a question", "an answer", owner="ada")
        changes = {"notebook_path": "said.ipynb", "notebook_link": "linked"}
        await store.write(lambda tx: tx.change_session("mine", changes))
        kept = await FactStore(store).add("Lives in Besançon", owner="ada", source="user")
        await PreferenceStore(store).set_model("ada", "another")
    assert await asyncio.to_thread(navi, "db", "import", str(path), target, "--owner", "ada") == 0
    async with opened(target) as store:
        links = {link.session_id: link.state for link in await store.links("ada", path="said.ipynb")}
        assert links == {"mine": "linked"}
        assert (link := await store.link(ids["said"])) is not None
        assert link.state == "earlier"
        assert (other := await store.link(ids["works"])) is not None
        assert other.state != "earlier"
        assert {fact.id for fact in (await FactStore(store).facts("ada"))[0]} == {kept.id, ids["fact"]}
        assert await PreferenceStore(store).model("ada") == "another"


async def test_a_backup_and_a_file_of_an_earlier_version_are_read_from_a_copy(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, archive = tmp_path / "source" / "navi.db", tmp_path / "navi.zip"
    ids = await source_file(path)
    assert await asyncio.to_thread(navi, "backup", str(archive), "--database", str(path)) == 0
    shutil.rmtree(path.parent)
    assert await asyncio.to_thread(navi, "db", "import", str(archive), target, "--owner", "ada") == 0
    async with opened(target) as store:
        assert await AttachmentStore(store).read(ids["attachment"], owner="ada") == CONTENT
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        database_file.migrate(db, target=12)
        db.execute(
            "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
            " VALUES ('s_old', 'local', 't', 'assistant', 'offline', 'UTC', 1, 1)"
        )
    content = old.read_bytes()
    assert await asyncio.to_thread(navi, "db", "import", str(old), target, "--owner", "ada") == 0
    assert old.read_bytes() == content
    async with opened(target) as store:
        assert await store.session("s_old") is not None
    with closing(sqlite3.connect(old)) as db:
        db.execute(f"PRAGMA user_version = {database_file.SCHEMA_VERSION + 1}")
    capsys.readouterr()
    assert await asyncio.to_thread(navi, "db", "import", str(old), target, "--owner", "ada") == 1
    assert "newer navi-jupyter" in capsys.readouterr().err


async def test_a_source_in_use_and_a_target_of_an_earlier_version_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "source.db"
    store = await SqliteStore.open(path)
    await fill(store)
    until = to_micros(now() + timedelta(seconds=20))
    await store.write(
        lambda tx: tx.change(
            "INSERT INTO servers (id, host, pid, pid_started, lease_until) VALUES ('x', 'h', 1, 1, ?)", (until,)
        )
    )
    await store.close()
    old = tmp_path / "target.db"
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        database_file.migrate(db, target=12)
    words = ("db", "import", str(path), str(old), "--owner", "ada", "--from-owner", "local")
    assert await asyncio.to_thread(navi, *words) == 1
    assert "navi db upgrade" in capsys.readouterr().err
    assert await asyncio.to_thread(navi, "db", "upgrade", str(old)) == 0
    assert await asyncio.to_thread(navi, *words) == 1
    assert "A server uses" in capsys.readouterr().err
    for name in ("", "a\x1fb", "x" * 300):
        assert await asyncio.to_thread(navi, "db", "import", str(path), str(old), "--owner", name) == 1
