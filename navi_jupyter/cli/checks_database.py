"""Can the database be used: where it is, whether it is ours and whole, whether its disk can lock and hold a new one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ..errors import NaviError
from .finding import Finding

MOVE = "set NAVI_DATABASE_URL (or c.NaviExtension.database_url) to sqlite:////<a file on a local disk>"


def database() -> Iterator[Finding]:
    """The database that a server started here would use."""
    path = _path()
    if path.exists():
        yield _present(path)
    else:
        yield Finding("database", "ok", f"{path} will be made by the first server start")
    yield _place(path)


def _path() -> Path:
    # Late: the server's modules are the heavy ones, and other checks do not need them.
    from jupyter_server.serverapp import ServerApp

    from ..server.app import NaviExtension
    from ..server.builders import database_path

    # As a server reads its configuration: jupyter_config and jupyter_server_config, then the environment's defaults.
    server = ServerApp()
    server.config_file_name = "jupyter_server_config"
    server.load_config_file()
    return database_path(NaviExtension(config=server.config).read_settings().database_url).resolve()


def _present(path: Path) -> Finding:
    """The file that is there, read only."""
    from ..store.database_file import APPLICATION_ID, SCHEMA_VERSION, damage_of, notice

    # Reading makes companion files; where nobody has the database open, SQLite is told that nobody will.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=5)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            damage = damage_of(connection)
    except sqlite3.Error as problem:
        return Finding(
            "database", "fail", f"{path} can not be read: {problem}", "check its permissions, or restore a backup"
        )
    if application != APPLICATION_ID and version:
        return Finding("database", "fail", f"{path} is another program's database", MOVE)
    if damage is not None:
        return Finding(
            "database", "fail", f"{path} is damaged: {damage}", "restore a backup; `sqlite3 … .recover` may help"
        )
    if version > SCHEMA_VERSION:
        text = f"{path} is of a newer navi-jupyter (schema {version}, here {SCHEMA_VERSION})"
        return Finding("database", "fail", text, "pip install -U navi-jupyter")
    if (kept := notice(path)) is not None:
        return Finding("database", "warn", f"{path} opens. {kept}", "move the damaged file away once it is dealt with")
    size = path.stat().st_size / 1e6
    older = "" if version == SCHEMA_VERSION else f", will be migrated from {version} to {SCHEMA_VERSION}"
    return Finding("database", "ok", f"{path} opens, is whole ({size:.1f} MB, schema {version}{older})")


def _place(path: Path) -> Finding:
    """The folder, tried with a database of our own: can it be written, locked, and brought to the present schema?"""
    from ..store.database_file import prepare

    folder = next(parent for parent in path.parents if parent.exists())
    probe = folder / f".navi-doctor-{os.getpid()}.db"
    try:
        asyncio.run(prepare(probe))
    except NaviError as problem:
        return Finding("database", "fail", f"{folder} can not hold a database: {problem.message}", MOVE)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            probe.with_name(probe.name + suffix).unlink(missing_ok=True)
    return Finding("database", "ok", f"{folder} can be written, and its files can be locked")
