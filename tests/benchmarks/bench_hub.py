"""What ``navi hub`` costs while nothing happens: two replicas on PostgreSQL, 10,000 users with ten waiting recalls.

    python tests/benchmarks/bench_hub.py [--users 10000] [--seconds 60]

Goals: at most five statements a second and 1 % of a core for each replica.

Starts a private PostgreSQL from the installed programs. Prints for each replica the statements a second, as PostgreSQL
has counted its transactions (one for each read), and the share of a core that its process has used.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.cli.database_checks import with_connection
from navi_jupyter.clock import now
from navi_jupyter.model.recalls import Once, Recall
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.settings import Settings
from navi_jupyter.store.engines import open_database
from navi_jupyter.store.postgres import connection as pg
from tests.benchmarks.measuring import Figures, arguments
from tests.support.postgres import MISSING, PrivatePostgres, find_programs
from tests.support.server import ROOT, free_port

SETTLED_AFTER = 30.0  # seconds from the start until nothing of it goes on

_USERS = """
INSERT INTO sessions SELECT (jsonb_populate_record(s, jsonb_build_object('id', 's_u' || g, 'owner', 'user' || g))).*
FROM sessions s, generate_series(1, $1::int) g WHERE s.id = $2
"""
_RECALLS = """
INSERT INTO recalls SELECT (jsonb_populate_record(r, jsonb_build_object('id', 'rc_u' || g || '_' || n,
    'owner', 'user' || g, 'session_id', 's_u' || g, 'number', 10 * g + n))).*
FROM recalls r, generate_series(1, $1::int) g, generate_series(1, 10) n WHERE r.id = $2
"""


async def populate(url: str, users: int) -> None:
    """Users, each with a session and ten recalls that are due in some days."""
    database = await open_database(Settings(database_url=url))
    at = now()
    due = at + timedelta(days=3)
    session = Session(
        id="s_0", owner="first", title="t", profile="assistant", model="offline", created_at=at, updated_at=at
    )
    recall = Recall(
        id="rc_0", session_id="s_0", title="t", message="look", schedule=Once(at=due),
        policy={}, status="pending", next_at=due, created_at=at,
    )  # fmt: skip

    async def unit(tx: Any) -> None:
        await tx.add_session(session)
        await tx.add_recalls([RecallState(recall=recall, owner="first", due_at=due)])

    await database.write(unit)
    await database.close()

    async def multiply(connection: Any) -> None:
        await connection.execute(f"SET search_path = {pg.schema_of(url)}")
        await connection.execute(_USERS, users, "s_0")
        await connection.execute(_RECALLS, users, "rc_0")
        await connection.execute("ANALYZE")

    await with_connection(url, multiply)


def replica(url: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """One process of the service, as an administrator starts it."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "NAVI_"))} | {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "JUPYTERHUB_API_TOKEN": secrets.token_hex(8),
        "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",  # nothing is asked of the Hub: no user comes
        "JUPYTERHUB_SERVICE_NAME": "navi",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        "NAVI_DATABASE_URL": url,
    }
    command = [sys.executable, "-m", "navi_jupyter.cli", "hub", "--allow-root"]
    with (folder / f"{port}.log").open("wb") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT), port


def transactions(url: str) -> int:
    """How many this database has ended."""

    async def count(connection: Any) -> int:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        return int(await connection.fetchval(sql))

    return int(asyncio.run(with_connection(url, count)))


def ready(port: int) -> bool:
    """Whether a replica answers: 403, without a login."""
    with suppress(OSError):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/services/navi/navi/api/health", timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 403
    return False


def measure(url: str, seconds: float, folder: Path, figures: Figures) -> None:
    replicas = [replica(url, folder) for _ in range(2)]
    try:
        while not all(ready(port) for _, port in replicas):
            time.sleep(0.2)
        time.sleep(SETTLED_AFTER)
        processes = [psutil.Process(process.pid) for process, _ in replicas]
        before, used = transactions(url), [sum(each.cpu_times()[:2]) for each in processes]
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        spent = [sum(each.cpu_times()[:2]) - was for each, was in zip(processes, used, strict=True)]
        counted = transactions(url) - before
        figures.add("hub at rest: transactions of each replica, 1/s", counted / took / len(replicas))
        for number, cpu in enumerate(spent, start=1):
            memory = processes[number - 1].memory_info().rss / 2**20
            figures.add(f"hub at rest: replica {number}, % of a core", 100 * cpu / took)
            figures.add(f"hub at rest: replica {number}, MB", memory)
    finally:
        for process, _ in replicas:
            process.kill()
            process.wait(20)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, help="60; in the short form 15")
    given = parser.parse_args()
    figures = Figures()
    programs = find_programs()
    if programs is None:
        sys.exit(f"needs {MISSING}")
    server = PrivatePostgres(programs, durable=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(populate(server.url(), given.users))
            measure(server.url(), given.seconds or (15.0 if given.quick else 60.0), Path(folder), figures)
    finally:
        server.remove()
    figures.write(given.json)


if __name__ == "__main__":
    main()
