"""``navi backup``: the database and its attachments as one file, made while servers run.

A backup is a ZIP archive of ``manifest.json`` (versions, sizes, checksums), ``navi.db`` and
``attachments/<owner>/<sha256>``; it is there whole or not at all. Not responsible for configuration files, which
Jupyter keeps elsewhere, nor for the way back (``restoration``).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from .. import __version__
from ..errors import NaviError, StoreDamaged, StoreError, StoreForeign, StoreTooNew
from ..installation import upgrade_command
from ..settings import Settings, is_postgres
from ..store.sqlite.damage import APPLICATION_ID, refuse_foreign
from ..store.sqlite.database_file import SCHEMA_VERSION, migrate
from ..store.sqlite.file_state import damage_of, set_closed
from ..store.sqlite.location import COMPANIONS, STATE, attachments_folder, check_place, kind_of, real_path
from ..store.sqlite.locking import is_busy
from ..text import printable

FORMAT, FORMAT_VERSION = "navi-backup", 1
PATIENCE = 30.0  # seconds for another program that has locked the database
MANIFEST, DATABASE, ATTACHMENTS = "manifest.json", "navi.db", "attachments"


def configured_settings() -> Settings:
    """The settings of a server that is started here."""
    # Late: the server's modules are the heavy ones, and other checks do not need them.
    from jupyter_server.serverapp import ServerApp

    from ..server.app import NaviExtension

    # As a server reads its configuration: jupyter_config and jupyter_server_config, then the environment's defaults.
    server = ServerApp()
    server.config_file_name = "jupyter_server_config"
    server.load_config_file()
    return NaviExtension(config=server.config).read_settings()


def configured_database() -> tuple[Path, bool]:
    """The path of the database, and whether one process alone uses it."""
    from ..store.sqlite.location import database_path  # late, as above

    settings = configured_settings()
    if is_postgres(settings.database_url):
        raise StoreError("The database is on a PostgreSQL server: use its own pg_dump and pg_restore.")
    return database_path(settings.database_url).absolute(), settings.database_single_process


def back_up(path: Path, target: Path, *, force: bool, in_bucket: bool = False) -> str:
    """Write a backup of the database ``path`` to ``target``; what was done, in a sentence.

    ``in_bucket``: attachments without a file are where ``blobs_url`` says, which is not backed up here.
    Raises StoreError and its kinds, OSError; then ``target`` is as it was.
    """
    check_place(path)
    if not path.is_file():
        raise StoreError(f"There is no database at {path}.")
    target = _checked_target(target, path, force=force)
    with private_folder(target.parent) as folder:
        copy = folder / DATABASE
        schema = copy_database_file(path, copy)
        manifest = _manifest(copy, schema)
        archive = folder / "archive"
        missing = _write_archive(archive, copy, manifest, attachments_folder(path))
        _publish(archive, target, force=force)
    why = "they are in the bucket of blobs_url" if in_bucket else "their files are gone"
    lost = f" {missing} attachments are missing: {why}." if missing else ""
    count = len(manifest["attachments"]) - missing
    return f"{path} and {count} attachments are in {target} ({target.stat().st_size / 1e6:.1f} MB).{lost}"


def _checked_target(target: Path, path: Path, *, force: bool) -> Path:
    target = target.expanduser().absolute()
    _refuse_part_of(path, target)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        raise StoreError(f"{target} is {kind_of(mode)}, not a file. Nothing was changed.")
    if not force:
        raise StoreError(f"{target} exists already. Name another file, or replace it with --force.")
    return target


def _refuse_part_of(path: Path, target: Path) -> None:
    """The backup must not take the place of the database, of what SQLite and we keep beside it, or of an attachment."""
    place, name = real_path(path), real_path(target)
    parts = {place, *(place.with_name(place.name + each) for each in (*COMPANIONS, STATE))}
    same = name in parts or (target.exists() and path.exists() and target.samefile(path))
    if same or name.is_relative_to(attachments_folder(place)):
        raise StoreError(f"{target} is the database itself or a part of it. Nothing was changed.")


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A folder of our own beside what it is for, so that a rename moves a file out of it at once."""
    folder = parent / f".navi-{secrets.token_hex(6)}.part"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_database_file(path: Path, copy: Path) -> int:
    """A whole copy as of one instant, with what is in the write-ahead log; its schema version."""
    refuse_foreign(real_path(path))
    _touch(copy)
    try:
        with closing(_opened(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return check_database(copy, path)
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be copied ({error}).") from error


def _opened(path: Path) -> sqlite3.Connection:
    """The database, never created; read without its companions where they cannot be made (a read-only disk)."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=PATIENCE)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError as error:
        connection.close()
        # In use by somebody, or with changes that are not in the file: what is in the file alone is not whole.
        if is_busy(error) or any(path.with_name(path.name + each).exists() for each in ("-wal", "-journal")):
            raise
        return sqlite3.connect(f"{uri}?immutable=1", uri=True)
    return connection


def check_database(copy: Path, shown: Path) -> int:
    """Raise unless it is a whole database of ours, of a version we know; its version."""
    with closing(sqlite3.connect(copy)) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        schema: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise StoreForeign(f"{shown} is no database of Navi. Nothing was changed.")
        if schema > SCHEMA_VERSION:
            raise StoreTooNew(
                f"{shown} was written by a newer navi-jupyter (schema {schema}; this one knows {SCHEMA_VERSION})."
                f" Upgrade with: {upgrade_command()}"
            )
        if (damage := damage_of(connection)) is not None:
            raise StoreDamaged(f"{shown} is damaged: {damage}. Nothing was changed.")
        if _statements_in(connection) - _our_statements(schema):  # of somebody else, which ours would set off
            raise StoreForeign(f"{shown} has a trigger or a view that is not Navi's. Nothing was changed.")
    with suppress(sqlite3.OperationalError):  # a version before it had a row about itself
        set_closed(copy)
    return schema


def _statements_in(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """The triggers and views: (name, SQL)."""
    return set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view')"))


def _our_statements(schema: int) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if schema:
            migrate(connection, target=schema)
        return _statements_in(connection)


def _manifest(copy: Path, schema: int) -> dict[str, Any]:
    with closing(sqlite3.connect(copy)) as connection:
        rows = connection.execute("SELECT DISTINCT owner, sha256, size FROM attachments") if schema > 1 else ()
        attachments = sorted(
            {(hashlib.sha256(owner.encode()).hexdigest()[:32], sha256, size) for owner, sha256, size in rows}
        )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "navi_jupyter": __version__,
        "schema": schema,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": {"size": copy.stat().st_size, "sha256": sha256_of(copy)},
        "attachments": [{"owner": each[0], "sha256": each[1], "size": each[2]} for each in attachments],
    }


def _write_archive(archive: Path, copy: Path, manifest: Mapping[str, Any], attachments: Path) -> int:
    """The number of attachments whose files are not there, or not what they were."""
    missing = 0
    with open(archive, "xb", opener=private) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
            packed.write(copy, DATABASE)
            kept = []
            for each in manifest["attachments"]:
                content = attachments / each["owner"] / each["sha256"]
                # Read once more when it is packed: a file's name is its checksum and it is never rewritten.
                if content.is_file() and sha256_of(content) == each["sha256"]:
                    packed.write(content, f"{ATTACHMENTS}/{each['owner']}/{each['sha256']}")
                    kept.append(each)
                else:
                    missing += 1
            packed.writestr(MANIFEST, json.dumps({**manifest, "attachments": kept}, indent=1))
        file.flush()
        os.fsync(file.fileno())
    return missing


def _publish(archive: Path, target: Path, *, force: bool) -> None:
    """Give the whole file its name; without ``force`` never over another one, also one that came meanwhile."""
    if force:
        archive.replace(target)
    else:
        try:
            target.hardlink_to(archive)
        except FileExistsError:
            raise StoreError(f"{target} exists already. Name another file, or replace it with --force.") from None
        except OSError:  # a file system without links
            if target.exists():
                raise StoreError(f"{target} exists already. Name another file, or replace it with --force.") from None
            archive.replace(target)
    sync_folder(target.parent)


# --- files


def private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make new names last through a power cut, where a folder can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reported(work: Callable[[], str]) -> int:
    """Do it, print what was done or one line with what is wrong; the exit status."""
    try:
        _say(sys.stdout, work())
    except NaviError as error:
        _say(sys.stderr, f"navi: {error.message}")
        return 1
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename
        _say(sys.stderr, f"navi: {name or 'the disk'}: {error.strerror or error}")
        return 1
    return 0


def _say(stream: TextIO, sentence: str) -> None:
    """Print it: names of files and what an archive says can have control characters, or bytes that are no UTF-8."""
    line = printable(sentence) + "\n"
    stream.write(line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"))
