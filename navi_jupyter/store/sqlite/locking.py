"""Whether processes exclude each other on a file system, and see what the other wrote: tried with a second process.

Two connections of one process prove nothing: SQLite excludes them by itself, whatever the file system does.
Not responsible for which file systems are refused by their type (``location``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

from ...errors import StoreLocked
from ...log_setup import get_logger
from .location import COMPANIONS

log = get_logger("store")

PATIENCE = 20.0
"""Seconds for the second process. It needs 0.02, more on a loaded machine; ten where memory is not shared, since SQLite
tries that long to recover a log that another process seems to have left; and for ever where locks hang."""

# It prints a word for each thing that it found, and reads and writes once the parent's transaction has ended.
_SECOND = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    c.execute("BEGIN IMMEDIATE")
    print("not-excluded", flush=True)
    c.execute("ROLLBACK")
except sqlite3.OperationalError:
    print("excluded", flush=True)
sys.stdin.readline()
sys.excepthook = lambda kind, error, _: print("failed", error, flush=True)
c.execute("PRAGMA busy_timeout = 5000")
c.execute("PRAGMA synchronous = OFF")
print("saw-%d" % c.execute("SELECT max(n) FROM t").fetchone()[0], flush=True)
c.execute("INSERT INTO t VALUES (2)")
c.close()
print("wrote", flush=True)
"""


def check_locking(place: Path, *, journal: str = "WAL") -> None:
    """Try in the folder of ``place`` whether a second process is excluded, sees our writes, and we see its.

    On a database of its own, which is removed: the real one may be in use by other servers. Costs some 0.02 s.
    Raises StoreLocked when it is not so, sqlite3.Error and OSError when the folder cannot be written. Where no second
    process can be started there is a line in the log, and no error.
    """
    probe = place.with_name(f".{place.name[:100]}-check-{secrets.token_hex(4)}")
    try:
        with closing(sqlite3.connect(probe, timeout=1, isolation_level=None)) as first:
            # Nothing of it has to outlive this: no waiting for the disk.
            first.execute("PRAGMA synchronous = OFF")
            first.execute(f"PRAGMA journal_mode = {journal}")
            first.execute("CREATE TABLE t (n)")
            first.execute("INSERT INTO t VALUES (1)")
            first.execute("BEGIN IMMEDIATE")  # before there is a second process
            wrong = _tried(first, probe)
    except sqlite3.OperationalError as error:
        # No other program has this file: it is a file system that has no locks (NFS without its lock service).
        if not is_busy(error):
            raise
        wrong = "refuses locks"
    finally:
        for companion in ("", *COMPANIONS):
            with contextlib.suppress(OSError):
                probe.with_name(probe.name + companion).unlink(missing_ok=True)
    if wrong is not None:
        raise StoreLocked(
            f"The file system of {place} {wrong}, so two servers would overwrite each other."
            " Set NaviExtension.database_url (NAVI_DATABASE_URL) to a file on a local disk."
        )


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program holds the database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _tried(first: sqlite3.Connection, probe: Path) -> str | None:
    """What is wrong, None when nothing is or when it cannot be known."""
    try:
        second = subprocess.Popen(  # noqa: S603 - our own interpreter and program; -I -S: it needs no more than sqlite3
            [sys.executable, "-I", "-S", "-c", _SECOND, str(probe)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=os.sep,
        )
    except (OSError, ValueError) as error:  # no interpreter (an embedded Python), no more processes allowed
        log.warning("store_locking_not_checked", why=f"no second process could be started: {error}", path=str(probe))
        return None
    watch = threading.Timer(PATIENCE, second.kill)
    watch.start()
    try:
        return _outcome(first, second, probe)
    finally:
        watch.cancel()
        second.kill()  # does nothing when it has ended
        second.communicate()


def _outcome(first: sqlite3.Connection, second: subprocess.Popen[bytes], probe: Path) -> str | None:
    stdin, stdout = second.stdin, second.stdout
    if stdin is None or stdout is None:
        return None
    excluded = stdout.readline().strip()
    first.execute("ROLLBACK")
    if excluded == b"not-excluded":
        return "does not lock files"
    with contextlib.suppress(OSError):  # it has ended
        stdin.write(b"\n")
        stdin.flush()
    saw, wrote = stdout.readline().strip(), stdout.readline().strip()
    if (failed := saw if saw.startswith(b"failed") else wrote).startswith(b"failed"):
        return f"lets no second process use a file ({failed[7:200].decode(errors='replace')})"
    if saw and saw != b"saw-1":
        return _UNSEEN
    if wrote != b"wrote":
        why = "the second process did not come to its end"
        log.warning("store_locking_not_checked", why=why, path=str(probe))
        return None
    return None if first.execute("SELECT max(n) FROM t").fetchone()[0] == 2 else _UNSEEN


_UNSEEN = "does not show one process what another wrote"
