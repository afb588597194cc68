"""``navi restore``: a backup put in the place of the database, which is kept under another name.

Not responsible for making backups (``backup``). An archive is taken for hostile: only the names that its manifest may
list are read, into files of our own naming, each of the declared size and checksum.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ..errors import StoreBusy, StoreDamaged, StoreError, StoreTooNew
from ..installation import upgrade_command
from ..store.sqlite.damage import refuse_foreign
from ..store.sqlite.database_file import SCHEMA_VERSION
from ..store.sqlite.location import STATE, attachments_folder, check_place, kind_of, real_path
from .backup import (
    ATTACHMENTS,
    DATABASE,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    check_database,
    private,
    private_folder,
    sync_folder,
)

_MOST_MANIFEST = 64 * 2**20  # bytes: some 400,000 attachments
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 2**20
_ATTACHMENT = re.compile(r"attachments/([0-9a-f]{32})/([0-9a-f]{64})")


def restore(source: Path, path: Path) -> str:
    """Put the backup ``source`` in the place of the database ``path``; what was done, in a sentence.

    The present database is kept under another name. Killed at any instant, either it or the restored one is there,
    whole. Raises StoreError and its kinds, OSError; then nothing was changed.
    """
    check_place(path)
    path = real_path(path)
    source = source.expanduser()
    if not stat.S_ISREG(mode := source.stat().st_mode):  # a pipe or a device would be waited for, or read for ever
        raise StoreError(f"{source} is {kind_of(mode)}, not a file. Nothing was changed.")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign(path)
    with private_folder(path.parent) as folder:
        manifest = unpack(source, folder)
        with _alone(path):
            aside = _keep_aside(path)
            _put_in_place(folder, path)
    kept = f" What was there before is kept as {aside}." if aside else ""
    made = datetime.fromisoformat(manifest["made_at"]).isoformat(timespec="seconds")
    return f"{path} and {len(manifest['attachments'])} attachments are as of {made}.{kept}"


def unpack(source: Path, folder: Path) -> Mapping[str, Any]:
    """The database and the attachments of a backup, checked, below an empty folder; its manifest.

    Raises StoreError and its kinds, OSError.
    """
    try:
        with zipfile.ZipFile(source) as packed:
            manifest = _read_manifest(packed, source)
            _check_room(manifest, folder.parent)
            _unpack(packed, manifest, folder, source)
            return manifest
    except _UNREADABLE as error:
        raise StoreDamaged(f"{source} is no whole backup ({error}). Nothing was changed.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # what reading raises where the archive names a place before its beginning
            raise
        raise StoreDamaged(f"{source} is no whole backup ({error}). Nothing was changed.") from error


_UNREADABLE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError),
)
"""What reading an archive raises that was cut, changed or made by somebody else."""


def _read_manifest(packed: zipfile.ZipFile, source: Path) -> Mapping[str, Any]:
    """The manifest, checked against the names and sizes in the archive: nothing else may be in it."""
    wrong = StoreDamaged(f"{source} is no backup of Navi, or was changed. Nothing was changed.")
    infos = {info.filename: info for info in packed.infolist()}
    if len(infos) != len(packed.infolist()) or not {MANIFEST, DATABASE} <= set(infos):
        raise wrong
    if infos[MANIFEST].file_size > _MOST_MANIFEST or any(each.compress_type not in _KINDS for each in infos.values()):
        raise wrong
    try:
        manifest = json.loads(packed.read(MANIFEST))
        if manifest["format"] != FORMAT:
            raise wrong
        version, schema = manifest["format_version"], manifest["schema"]
        expected = {DATABASE: manifest["database"]["size"]}
        for each in manifest["attachments"]:
            expected[f"{ATTACHMENTS}/{each['owner']}/{each['sha256']}"] = each["size"]
        made = datetime.fromisoformat(manifest["made_at"])
        checksums = [each["sha256"] for each in (manifest["database"], *manifest["attachments"])]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    numbers = [version, schema, *expected.values()]
    if any(type(each) is not int for each in numbers) or any(type(each) is not str for each in checksums):
        raise wrong
    if version > FORMAT_VERSION or schema > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{source} was made by a newer navi-jupyter ({str(manifest.get('navi_jupyter'))[:40]}, schema {schema};"
            f" this one knows {SCHEMA_VERSION}). Upgrade with: {upgrade_command()}"
        )
    names = expected.keys() - {DATABASE}
    sizes = {name: info.file_size for name, info in infos.items() if name != MANIFEST}
    twice = len(expected) != len(checksums)
    if twice or made.tzinfo is None or sizes != expected or not all(_ATTACHMENT.fullmatch(name) for name in names):
        raise wrong
    result: Mapping[str, Any] = manifest
    return result


def _check_room(manifest: Mapping[str, Any], folder: Path) -> None:
    needed = manifest["database"]["size"] + sum(each["size"] for each in manifest["attachments"])
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StoreError(f"{folder} has {free / 1e6:.0f} MB of free space; {needed / 1e6:.0f} MB are needed.")


def _unpack(packed: zipfile.ZipFile, manifest: Mapping[str, Any], folder: Path, source: Path) -> None:
    """The files below ``folder``, by names of our own making, each with its checksum compared."""
    database = manifest["database"]
    wanted = [(DATABASE, folder / DATABASE, database["size"], database["sha256"])]
    for each in manifest["attachments"]:
        name = f"{ATTACHMENTS}/{each['owner']}/{each['sha256']}"
        wanted.append((name, folder / ATTACHMENTS / each["owner"] / each["sha256"], each["size"], each["sha256"]))
    for name, place, size, sha256 in wanted:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with packed.open(name) as content, open(place, "xb", opener=private) as file:
            if _copy(content, file, most=size) != sha256:
                raise StoreDamaged(f"{source} is damaged: {name} is not what was backed up. Nothing was changed.")
            file.flush()
            os.fsync(file.fileno())
    try:
        schema = check_database(folder / DATABASE, source)
    except sqlite3.Error as error:
        raise StoreDamaged(
            f"{source} is damaged: its database cannot be read ({error}). Nothing was changed."
        ) from error
    if schema != manifest["schema"]:
        raise StoreDamaged(f"{source} was changed: its database is of another version. Nothing was changed.")


def _copy(content: IO[bytes], file: IO[bytes], *, most: int) -> str:
    """The checksum of what was copied; never more than a chunk above ``most``, whatever the archive expands to."""
    digest, size = hashlib.sha256(), 0
    while (chunk := content.read(_CHUNK)) and size <= most:
        file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest() if size == most else ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No server uses the database, and none begins to while this lasts. Raises StoreBusy."""
    busy = StoreBusy(f"A server uses the database {path}. Stop it, and restore again. Nothing was changed.")
    record = os.open(path.with_name(path.name + STATE), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            import fcntl  # late: not on Windows

            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # no such locks there: SQLite's decide
        if path.exists():
            with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
                try:
                    # Possible only while no other process has it open; what is in its log is then in the file.
                    db.execute("PRAGMA journal_mode = DELETE")
                    db.execute("BEGIN EXCLUSIVE")
                    db.execute("ROLLBACK")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                        raise busy from error
        yield
        # The record was about the former database: this one begins its own.
        os.ftruncate(record, 0)
    finally:
        os.close(record)
        if not path.exists():
            path.with_name(path.name + STATE).unlink(missing_ok=True)


def _keep_aside(path: Path) -> Path | None:
    """A second name for the present database and its attachments: nothing is missing at any instant."""
    if not path.exists():
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.stem}.before-restore-{stamp}{path.suffix}")
    attachments, kept = attachments_folder(path), attachments_folder(aside)
    for content in sorted(attachments.glob("*/*")):
        place = kept / content.parent.name / content.name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _link(content, place)
    _link(path, aside)
    for companion in ("-wal", "-journal"):  # of a damaged database, which could not be opened
        if path.with_name(path.name + companion).exists():
            path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    sync_folder(path.parent)
    return aside


def _link(content: Path, place: Path) -> None:
    try:
        place.hardlink_to(content)
    except OSError:  # a file system without links
        shutil.copy2(content, place)


def _put_in_place(folder: Path, path: Path) -> None:
    """Attachments first: a row in the database never names a file that is not there."""
    for content in sorted((folder / ATTACHMENTS).glob("*/*")):
        place = attachments_folder(path) / content.parent.name / content.name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content.replace(place)
        sync_folder(place.parent)
    (folder / DATABASE).replace(path)
    sync_folder(path.parent)
