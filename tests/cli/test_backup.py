"""``navi backup`` and ``navi restore``: whole or nothing, beside servers, killed at any instant, hostile archives."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.cli import backup
from navi_jupyter.cli.backup import back_up
from navi_jupyter.cli.restoration import _alone, restore
from navi_jupyter.clock import now
from navi_jupyter.errors import NaviError, StoreDamaged, StoreError, StoreForeign, StoreTooNew
from navi_jupyter.server.builders import build_store
from navi_jupyter.settings import Settings
from navi_jupyter.store.attachments import AttachmentStore
from navi_jupyter.store.sqlite.database_file import SCHEMA_VERSION
from navi_jupyter.store.sqlite.location import database_path
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.store.test_attachments import png
from tests.store.test_database_file import session
from tests.support.s3 import BUCKET, PrivateS3
from tests.support.server import ROOT, JupyterServer


async def fill(path: Path, first: int, last: int) -> None:
    """Sessions with those numbers, each with an attachment; closed afterwards."""
    store = await SqliteStore.open(path)
    attachments = AttachmentStore(store)
    for number in range(first, last):
        await store.write(lambda tx, number=number: tx.add_session(session(f"s_{number}")))
        await attachments.add(png(number), name="p.png", media_type=None, owner="ada", session_id=f"s_{number}")
    await store.close()


async def read(path: Path) -> tuple[set[str], set[bytes]]:
    """The sessions, and the contents of all attachments that the database names."""
    store = await SqliteStore.open(path)
    assert store.notice is None
    attachments = AttachmentStore(store)
    sessions = {row["id"] for row in await store.fetch_all("SELECT id FROM sessions")}
    ids = [row["id"] for row in await store.fetch_all("SELECT id FROM attachments")]
    contents = {await attachments.read(each, owner="ada") for each in ids}
    await store.close()
    return sessions, contents


def names(first: int, last: int) -> tuple[set[str], set[bytes]]:
    return {f"s_{number}" for number in range(first, last)}, {png(number) for number in range(first, last)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


async def test_what_was_backed_up_is_there_again_and_what_was_there_is_kept(tmp_path: Path) -> None:
    path, archive = tmp_path / "data" / "navi.db", tmp_path / "backup.zip"
    await fill(path, 0, 5)
    assert "5 attachments" in back_up(path, archive, force=False)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"data", "backup.zip"}
    await fill(path, 5, 9)
    said = restore(archive, path)
    assert await read(path) == names(0, 5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (aside,) = path.parent.glob("navi.before-restore-*.db")
    assert str(aside) in said
    assert await read(aside) == names(0, 9)


async def test_keys_that_are_stored_beside_the_database_are_not_in_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "navi" / "navi.db"
    await fill(path, 0, 2)
    key = "sk-planted-0123456789abcdef"
    (path.parent / "providers.json").write_text(json.dumps({"OPENAI_API_KEY": key}))
    back_up(path, tmp_path / "it.navi", force=False)
    with zipfile.ZipFile(tmp_path / "it.navi") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert not [one for one in contents if key.encode() in one or b"providers.json" in one]


async def test_a_backup_is_restored_at_another_path_and_in_an_empty_place(tmp_path: Path) -> None:
    await fill(tmp_path / "navi.db", 0, 3)
    back_up(tmp_path / "navi.db", tmp_path / "b", force=False)
    restore(tmp_path / "b", tmp_path / "new" / "other.db")
    assert await read(tmp_path / "new" / "other.db") == names(0, 3)
    assert {each.name for each in (tmp_path / "new").iterdir()} <= {"other.db", "other-attachments", "other.db.state"}


async def test_attachments_in_a_bucket_are_not_in_a_backup_which_says_so(tmp_path: Path, s3: PrivateS3) -> None:
    path, url = tmp_path / "navi.db", f"s3://{BUCKET}/{secrets.token_hex(6)}"
    await fill(path, 0, 2)
    stores = await build_store(Settings(database_url=f"sqlite:///{path}", blobs_url=url))
    added = await stores.attachments.add(png(7), name="q.png", media_type=None, owner="ada")
    await stores.sessions.close()
    text = back_up(path, tmp_path / "b", force=False, in_bucket=True)
    assert "2 attachments are in" in text
    assert "1 attachments are missing: they are in the bucket" in text
    restore(tmp_path / "b", tmp_path / "new" / "navi.db")
    # The restored database is the same one for the bucket.
    stores = await build_store(Settings(database_url=f"sqlite:///{tmp_path}/new/navi.db", blobs_url=url))
    assert await stores.attachments.read(added.id, owner="ada") == png(7)
    await stores.attachments.sweep(at=now() + timedelta(days=2))
    assert s3.objects(url.rpartition("/")[2]) == ["navi-database"]
    await stores.sessions.close()


async def test_a_backup_in_mid_work_has_all_that_was_accepted_before_it_began(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    attachments = AttachmentStore(store)
    stop, accepted = asyncio.Event(), 0

    async def work() -> None:
        nonlocal accepted
        while not stop.is_set():
            await store.write(lambda tx, number=accepted: tx.add_session(session(f"s_{number}")), durable=True)
            content = b"text %d" % accepted
            await attachments.add(content, name="t.txt", media_type=None, owner="ada", session_id=f"s_{accepted}")
            accepted += 1

    working = asyncio.create_task(work())
    for number in range(5):
        await asyncio.sleep(0.05)
        before = accepted
        await asyncio.to_thread(back_up, path, tmp_path / f"b{number}", force=False)
        place = tmp_path / f"r{number}" / "navi.db"
        restore(tmp_path / f"b{number}", place)
        sessions, contents = await read(place)
        assert {f"s_{each}" for each in range(before)} <= sessions
        assert {b"text %d" % each for each in range(before)} <= contents
    stop.set()
    await working
    await store.close()


async def test_a_backup_of_a_server_that_was_killed_has_what_is_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    work = (
        "import asyncio, os, sys; from pathlib import Path; from tests.cli.test_backup import *\n"
        "async def main():\n"
        "    store = await SqliteStore.open(Path(sys.argv[1]))\n"
        "    for number in range(3):\n"
        "        await store.write(lambda tx: tx.add_session(session(f's_{number}')))\n"
        "    os._exit(0)\n"
        "asyncio.run(main())"
    )
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", work, str(path)], check=True, cwd=ROOT)
    back_up(path, tmp_path / "b", force=False)
    restore(tmp_path / "b", tmp_path / "r" / "navi.db")
    assert (await read(tmp_path / "r" / "navi.db"))[0] == names(0, 3)[0]


# --- the file of a backup


async def test_a_file_that_exists_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    await fill(tmp_path / "navi.db", 0, 1)
    target = tmp_path / "b"
    target.write_text("precious")
    with pytest.raises(StoreError, match="--force"):
        back_up(tmp_path / "navi.db", target, force=False)
    assert target.read_text() == "precious"
    back_up(tmp_path / "navi.db", target, force=True)
    assert zipfile.is_zipfile(target)


@pytest.mark.parametrize("force", [False, True])
async def test_a_target_that_is_a_part_of_the_database_is_refused(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "navi.db"
    await fill(path, 0, 1)
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    (attachment,) = [each for each in (tmp_path / "navi-attachments").rglob("*") if each.is_file()]
    companions = [tmp_path / f"navi.db{each}" for each in ("-wal", "-shm", "-journal", ".state")]
    before = tree(tmp_path)
    for target in (*companions, tmp_path / "link", tmp_path / "hard", attachment, attachment.with_name("new")):
        with pytest.raises(StoreError, match="a part of it"):
            back_up(path, target, force=force)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
async def test_a_target_that_is_no_file_or_the_database_itself_is_refused(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "navi.db"
    await fill(path, 0, 1)
    os.mkfifo(tmp_path / "pipe")
    before = path.read_bytes()
    for target in (tmp_path / "pipe", tmp_path, Path("/dev/null"), path):
        mode = target.stat().st_mode
        with pytest.raises(StoreError):
            back_up(path, target, force=force)
        assert target.stat().st_mode == mode
    assert path.read_bytes() == before


async def test_what_is_no_database_of_ours_is_not_backed_up_and_not_touched(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE t (x)")
    (tmp_path / "text").write_text("hello" * 1000)
    before = tree(tmp_path)
    for name in ("other.db", "text", "none"):
        with pytest.raises(StoreError):
            back_up(tmp_path / name, tmp_path / "b", force=False)
    assert tree(tmp_path) == before


async def test_a_database_that_another_program_holds_is_not_read_past_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PATIENCE", 0.1)
    path = tmp_path / "navi.db"
    await fill(path, 0, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            back_up(path, tmp_path / "b", force=False)
    assert not (tmp_path / "b").exists()


async def test_an_attachment_whose_file_is_gone_or_changed_is_counted_and_keeps_no_other_from_being_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "navi.db"
    await fill(path, 0, 3)
    files = sorted((tmp_path / "navi-attachments").glob("*/*"))
    files[0].unlink()
    files[1].write_bytes(b"changed")
    assert "2 attachments are missing" in back_up(path, tmp_path / "b", force=False)
    assert "1 attachments" in restore(tmp_path / "b", tmp_path / "r" / "navi.db")


# --- a restore that must not be


async def test_a_restore_is_refused_while_a_server_uses_the_database(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    await fill(path, 0, 2)
    back_up(path, tmp_path / "b", force=False)
    store = await SqliteStore.open(path)
    command = [sys.executable, "-c", _COMMAND, "restore", str(tmp_path / "b"), "--database", str(path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("navi: A server uses the database")
    await store.write(lambda tx: tx.add_session(session("s_2")))
    await store.close()
    assert (await read(path))[0] == {"s_0", "s_1", "s_2"}


async def test_a_server_that_starts_during_a_restore_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    await fill(path, 0, 2)
    # In the time in which files are renamed.
    with _alone(path), pytest.raises(NaviError):
        await SqliteStore.open(path)
    assert await read(path) == names(0, 2)


def changed(archive: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Path:
    """The archive with other members."""
    with zipfile.ZipFile(archive) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(members, manifest)
    if "manifest.json" in members:
        members["manifest.json"] = json.dumps(manifest).encode()
    target = archive.with_name("changed")
    with zipfile.ZipFile(target, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return target


Members, Manifest = dict[str, bytes], dict[str, Any]


def traversal(members: Members, _: Manifest) -> None:
    members["../../evil"] = b"x"


def absolute(members: Members, _: Manifest) -> None:
    members["/tmp/evil"] = b"x"


def traversal_in_the_manifest(members: Members, manifest: Manifest) -> None:
    content = b"x"
    sha256 = hashlib.sha256(content).hexdigest()
    manifest["attachments"].append({"owner": "../../..", "sha256": sha256, "size": 1})
    members[f"attachments/../../../{sha256}"] = content


def another_file(members: Members, _: Manifest) -> None:
    members["navi.db-wal"] = b"x"


def without_a_manifest(members: Members, _: Manifest) -> None:
    del members["manifest.json"]


def without_the_database(members: Members, _: Manifest) -> None:
    del members["navi.db"]


def a_changed_attachment(members: Members, _: Manifest) -> None:
    name = next(name for name in members if name.startswith("attachments"))
    members[name] = members[name][:-1] + b"x"


def a_changed_database(members: Members, _: Manifest) -> None:
    members["navi.db"] = members["navi.db"][:-10] + b"x" * 10


def a_database_that_is_none(members: Members, manifest: Manifest) -> None:
    members["navi.db"] = b"x" * 5000
    manifest["database"] = {"size": 5000, "sha256": hashlib.sha256(b"x" * 5000).hexdigest()}


def another_programs_database(members: Members, manifest: Manifest) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t (x)")
        members["navi.db"] = db.serialize()
    _resealed(members, manifest)


def a_trigger(members: Members, manifest: Manifest) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(members["navi.db"])
        db.execute("CREATE TRIGGER evil AFTER INSERT ON sessions BEGIN DELETE FROM sessions; END")
        members["navi.db"] = db.serialize()
    _resealed(members, manifest)


def _resealed(members: Members, manifest: Manifest) -> None:
    content = members["navi.db"]
    manifest["database"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def a_wrong_size(_: Members, manifest: Manifest) -> None:
    manifest["database"]["size"] += 1


def odd_values(_: Members, manifest: Manifest) -> None:
    manifest["attachments"] = {"owner": 1}


def no_schema(_: Members, manifest: Manifest) -> None:
    manifest["schema"] = None


def another_schema(_: Members, manifest: Manifest) -> None:
    manifest["schema"] = SCHEMA_VERSION - 1


def with_value(*keys: str | int, value: object) -> Callable[[Members, Manifest], None]:
    """The manifest with another value at a place in it; None stands for a key that is missing."""

    def change(_: Members, manifest: Manifest) -> None:
        *before, last = keys
        inner: Any = manifest
        for key in before:
            inner = inner[key]
        if value is None:
            del inner[last]
        else:
            inner[last] = value(inner[last]) if callable(value) else value

    return change


def an_attachment_twice(_: Members, manifest: Manifest) -> None:
    manifest["attachments"].append(manifest["attachments"][0])


ODD = [
    *(with_value(key, value=value) for key in ("format_version", "schema") for value in (float("inf"), "1", True, [])),
    *(with_value("database", "size", value=value) for value in (str, float, None, float("nan"))),
    *(with_value("attachments", 0, "size", value=value) for value in (str, float, None)),
    *(with_value("database", "sha256", value=value) for value in (None, 1, {})),
    *(with_value("made_at", value=value) for value in (None, 1, "\x1b[2J", "\ud83d", "2026-12-01", "x" * 9999)),
    *(with_value("attachments", 0, "owner", value=value) for value in (None, {}, "\ud83d")),
    an_attachment_twice,
]
HOSTILE = [
    *ODD,
    *(traversal, absolute, traversal_in_the_manifest, another_file, without_a_manifest, without_the_database),
    *(a_changed_attachment, a_changed_database, a_database_that_is_none, another_programs_database, a_trigger),
    *(a_wrong_size, odd_values, no_schema, another_schema),
]


async def furnished(tmp_path: Path) -> Path:
    """A folder with a backup ``b`` and, in ``data``, a database with other things."""
    await fill(tmp_path / "old" / "navi.db", 0, 3)
    back_up(tmp_path / "old" / "navi.db", tmp_path / "b", force=False)
    await fill(tmp_path / "data" / "navi.db", 3, 5)
    return tmp_path


@pytest.mark.parametrize("change", HOSTILE)
async def test_an_archive_that_is_not_what_was_written_is_refused_and_nothing_is_changed(
    tmp_path: Path, change: Callable[[Members, Manifest], None]
) -> None:
    place = await furnished(tmp_path)
    hostile = changed(place / "b", change)
    before = tree(place)
    with pytest.raises((StoreDamaged, StoreForeign), match="Nothing was changed"):
        restore(hostile, place / "data" / "navi.db")
    assert tree(place) == before
    assert not Path("/tmp/evil").exists()


def navi(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """The command as a user gives it."""
    command = [sys.executable, "-c", _COMMAND, *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
async def test_a_source_that_is_no_file_is_refused_at_once_and_nothing_is_made(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = {"pipe": tmp_path / "pipe", "device": "/dev/zero", "folder": tmp_path, "nothing": tmp_path / "nothing"}[
        kind
    ]
    ended = navi("restore", source, "--database", tmp_path / "new" / "navi.db")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"navi: ")
    assert ended.stderr.count(b"\n") == 1
    assert not (tmp_path / "new").exists()


async def test_names_that_are_no_utf_8_or_have_control_characters_are_taken_and_shown(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[2J\x1b]52;c;AA\x07"))
    odd.mkdir()
    path, archive = odd / "d\udcff.db", odd / "backup.zip"
    with pytest.raises(StoreError, match="control character"):
        back_up(database_path(str(path)), archive, force=False)
    await fill(tmp_path / "navi.db", 0, 2)
    for arguments in (
        ("backup", archive, "--database", tmp_path / "navi.db"),
        ("backup", archive, "--database", tmp_path / "navi.db"),
        ("restore", archive, "--database", os.fsdecode(os.fsencode(tmp_path) + b"/\xfe/n\xfe.db")),
        ("backup", tmp_path / "b", "--database", os.fsdecode(os.fsencode(tmp_path) + b"/\xfe/n\xfe.db")),
        ("restore", odd / "nothing", "--database", tmp_path / "navi.db"),
    ):
        ended = navi(*arguments)
        said = ended.stdout + ended.stderr
        assert said.count(b"\n") == 1, said
        assert b"\x1b" not in said
    assert zipfile.is_zipfile(tmp_path / "b")


async def test_a_newer_backup_shows_no_control_characters_of_its_version(tmp_path: Path) -> None:
    def newer(_: Members, manifest: Manifest) -> None:
        manifest |= {"schema": 999, "navi_jupyter": "\x1b]52;c;AAAA\x07\x1b[2J\ud83d"}

    place = await furnished(tmp_path)
    ended = navi("restore", changed(place / "b", newer), "--database", place / "data" / "navi.db")
    assert ended.returncode == 1
    assert b"Upgrade with" in ended.stderr
    assert b"\x1b" not in ended.stderr
    assert ended.stderr.count(b"\n") == 1


async def test_an_archive_that_was_cut_anywhere_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    place = await furnished(tmp_path)
    whole = (place / "b").read_bytes()
    before = tree(place / "data")
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        (place / "cut").write_bytes(whole[:size])
        with pytest.raises(StoreDamaged):
            restore(place / "cut", place / "data" / "navi.db")
        assert tree(place / "data") == before


async def test_an_archive_with_a_flipped_byte_is_restored_whole_or_refused(tmp_path: Path) -> None:
    place = await furnished(tmp_path)
    whole = bytearray((place / "b").read_bytes())
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        whole[at] ^= 0x55
        (place / "flipped").write_bytes(whole)
        whole[at] ^= 0x55
        target = place / f"r{at}" / "navi.db"
        try:
            restore(place / "flipped", target)
        except NaviError:
            assert not target.exists()
        else:
            assert await read(target) == names(0, 3)


async def test_an_archive_that_names_a_place_before_its_beginning_is_refused(tmp_path: Path) -> None:
    place = await furnished(tmp_path)
    packed = bytearray((place / "b").read_bytes())
    directory = packed.rindex(b"PK\x05\x06") + 16  # where the end of a ZIP file says that its directory begins
    (begins,) = struct.unpack_from("<I", packed, directory)
    struct.pack_into("<I", packed, directory, begins + 1000)
    (place / "moved").write_bytes(packed)
    with pytest.raises(StoreDamaged):
        restore(place / "moved", place / "r" / "navi.db")
    assert not (place / "r" / "navi.db").exists()


async def test_an_archive_that_expands_to_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    place = await furnished(tmp_path)

    def bomb(members: Members, manifest: Manifest) -> None:
        members["navi.db"] = bytes(30_000_000)
        manifest["database"]["size"] = 30_000_000_000_000

    with pytest.raises(NaviError):
        restore(changed(place / "b", bomb), place / "data" / "navi.db")
    assert await read(place / "data" / "navi.db") == names(3, 5)


async def test_a_backup_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    place = await furnished(tmp_path)
    newer = changed(place / "b", lambda _, manifest: manifest.update(schema=SCHEMA_VERSION + 1, navi_jupyter="9.9"))
    before = tree(place / "data")
    with pytest.raises(StoreTooNew, match=r"9\.9.*Upgrade"):
        restore(newer, place / "data" / "navi.db")
    assert tree(place / "data") == before


async def test_a_database_that_is_damaged_is_kept_with_its_log_and_restored(tmp_path: Path) -> None:
    place = await furnished(tmp_path)
    path = place / "data" / "navi.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    damaged = path.read_bytes()
    restore(place / "b", path)
    assert await read(path) == names(0, 3)
    (aside,) = path.parent.glob("navi.before-restore-*.db")
    assert aside.read_bytes() == damaged


# --- killed

_COMMAND = "import sys; from navi_jupyter.cli import main; main(sys.argv[1:])"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_killed_at_any_instant_there_is_all_or_nothing(tmp_path: Path, command: str) -> None:
    await fill(tmp_path / "old" / "navi.db", 0, 3)
    back_up(tmp_path / "old" / "navi.db", tmp_path / "b", force=False)
    await fill(tmp_path / "data" / "navi.db", 3, 8)
    seen = set()
    for attempt in range(14):
        place = tmp_path / f"try{attempt}"
        shutil.copytree(tmp_path / "data", place)
        target = place / "made.zip"
        words = ["backup", str(target)] if command == "backup" else ["restore", str(tmp_path / "b")]
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *words, "--database", str(place / "navi.db")],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        # From its first file on, a moment longer each time.
        while process.poll() is None and not list(place.glob(".navi-*")):
            time.sleep(0.0005)  # noqa: ASYNC251
        time.sleep(0.004 * attempt)  # noqa: ASYNC251
        process.kill()
        process.wait()
        if command == "backup":
            if target.exists():
                restore(target, place / "r" / "navi.db")
                assert await read(place / "r" / "navi.db") == names(3, 8)
            seen.add(target.exists())
            assert await read(place / "navi.db") == names(3, 8)
        else:
            store = await SqliteStore.open(place / "navi.db")
            await store.close()
            found = await read(place / "navi.db")
            assert found in (names(0, 3), names(3, 8))
            seen.add(found == names(0, 3))
    assert False in seen


# --- real servers


@pytest.mark.timeout(180)
def test_a_server_is_backed_up_while_it_runs_and_comes_back_on_another_machine(tmp_path: Path) -> None:
    server, other = JupyterServer(tmp_path / "one"), JupyterServer(tmp_path / "two")
    stop = threading.Event()

    def navi(machine: JupyterServer, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "navi_jupyter.cli", *words],
            env=machine.env(),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )

    try:
        server.start()
        made = [server.request("POST", "navi/api/sessions", {"title": title}) for title in ("one", "two")]

        def go_on() -> None:
            while not stop.wait(0.01):
                server.request("POST", "navi/api/sessions", {"title": "later"})

        working = threading.Thread(target=go_on)
        working.start()
        done = navi(server, "backup", str(tmp_path / "b"))
        assert done.returncode == 0, done.stderr
        refused = navi(server, "restore", str(tmp_path / "b"))
        assert refused.returncode == 1
        assert "Stop it" in refused.stderr
        stop.set()
        working.join()
        done = navi(other, "restore", str(tmp_path / "b"))
        assert done.returncode == 0, done.stderr
        other.start()
        for each in made:
            assert other.get(f"navi/api/sessions/{each['id']}")["title"] == each["title"]
        assert other.get("navi/api/health")["message"] is None
    finally:
        stop.set()
        server.stop()
        other.stop()
