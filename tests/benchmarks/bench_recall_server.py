"""Recalls on a real Jupyter server: lateness of 1,000 due in one second, and what 10,000 pending ones cost while idle.

    python tests/benchmarks/bench_recall_server.py [--quick] [--due 1000] [--pending 10000]

Everything is made and read over HTTP; each recall has a session of its own and its run is the offline backend's.
Lateness is what the ledger says (from the slot to its prompt being durable); *run* is from the slot to RUN_STARTED,
which also waits for one of ``max_concurrent_runs`` places.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.measuring import Figures, arguments, percentile
from tests.support.server import JupyterServer

CLIENTS = 4


class Client:
    """One kept connection."""

    def __init__(self, server: JupyterServer) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"token {self._server.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        self._connection.request(method, f"/navi/api/{path}", body=content, headers=headers)
        answer = self._connection.getresponse()
        decoded = json.loads(answer.read())
        assert answer.status < 300, decoded
        return decoded


def in_parallel(server: JupyterServer, count: int, work: Any) -> list[Any]:
    """``work(client, number)`` for each number, by a few clients."""

    def share(first: int) -> list[Any]:
        client = Client(server)
        return [(number, work(client, number)) for number in range(first, count, CLIENTS)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [pair for pairs in pool.map(share, range(CLIENTS)) for pair in pairs]
    return [result for _, result in sorted(done, key=lambda pair: pair[0])]


def make_recall(client: Client, sid: str, at: datetime) -> str:
    """A recall that fires once; its id."""
    body = {"session_id": sid, "message": "count to 3 every 10 ms", "schedule": {"kind": "once", "at": at.isoformat()}}
    return str(client("POST", "recalls", body)["id"])


def burst(figures: Figures, server: JupyterServer, count: int, *, spread: bool) -> None:
    """All due at one instant, or one each millisecond."""
    sessions = in_parallel(server, count, lambda client, _: client("POST", "sessions", {})["id"])
    due = datetime.now(UTC) + timedelta(seconds=15 + count / 60)
    step = timedelta(seconds=1 / count) if spread else timedelta()
    recalls = in_parallel(
        server, count, lambda client, number: make_recall(client, sessions[number], due + number * step)
    )
    assert datetime.now(UTC) < due, "the machine is too slow to have them all before they are due"
    client, process = Client(server), psutil.Process(server.pid)
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() - 0.5))
    used = sum(process.cpu_times()[:2])
    while client("GET", "recalls?status=pending&limit=1")["recalls"]:
        time.sleep(0.1)
    while client("GET", "recalls?status=running&limit=1")["recalls"]:
        time.sleep(0.1)
    used, took = sum(process.cpu_times()[:2]) - used, (datetime.now(UTC) - due).total_seconds()
    lag = client("GET", "health")["loop_lag_ms"]

    def measured(client: Client, number: int) -> tuple[float, float]:
        (firing,) = client("GET", f"recalls/{recalls[number]}/firings")["firings"]
        assert firing["status"] == "succeeded", firing
        run = client("GET", f"sessions/{sessions[number]}/runs/{firing['run_id']}")
        started = datetime.fromisoformat(run["started_at"]) - datetime.fromisoformat(firing["slot"])
        return firing["lateness_ms"], started.total_seconds() * 1000

    lateness = in_parallel(server, count, measured)
    kind = f"{count:,} runs due {'in one second' if spread else 'at one instant'}"
    figures.add(f"{kind}: all done, s", took)
    figures.add(f"{kind}: CPU of the server for each, ms", 1000 * used / count)
    for name, column in (("lateness", 0), ("run", 1)):
        values = sorted(pair[column] for pair in lateness)
        for share in (50, 99, 100):
            figures.add(f"{kind}: {name}, p{share}, ms", percentile(values, share / 100))
    figures.add(f"{kind}: longest stall of the loop in the last 10-20 s, ms", lag)


def idle(server: JupyterServer, seconds: float) -> float:
    """Share of one processor, in percent, that the server needs with nobody asking."""
    process = psutil.Process(server.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return 100 * (sum(process.cpu_times()[:2]) - before) / seconds


def main() -> None:
    """Run all of it."""
    parser = arguments(__doc__)
    parser.add_argument("--due", type=int, help="1,000; in the short form 300")
    parser.add_argument("--pending", type=int, help="10,000; in the short form none")
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    options.due = (300 if options.quick else 1000) if options.due is None else options.due
    options.pending = (0 if options.quick else 10_000) if options.pending is None else options.pending
    options.idle = 5.0 if options.quick else options.idle
    figures = Figures()
    limits = ("--NaviExtension.max_sessions_per_user=100000", "--NaviExtension.max_recalls_per_user=100000")
    with tempfile.TemporaryDirectory() as folder, JupyterServer(Path(folder)).start(args=limits) as server:
        time.sleep(2)
        figures.add("idle with no recalls: CPU, %", idle(server, options.idle))
        if options.due:
            burst(figures, server, options.due, spread=True)
            burst(figures, server, options.due, spread=False)
        if options.pending:
            wait(figures, server, options.pending, options.idle)
    figures.write(options.json)


def wait(figures: Figures, server: JupyterServer, count: int, seconds: float) -> None:
    """So many that are due tomorrow."""
    sid = Client(server)("POST", "sessions", {})["id"]
    later = datetime.now(UTC) + timedelta(days=1)
    began = time.monotonic()
    in_parallel(server, count, lambda c, n: make_recall(c, sid, later + timedelta(seconds=n)))
    figures.add(f"{count:,} recalls made over HTTP, s", time.monotonic() - began)
    time.sleep(70)  # sessions that were busy leave memory after a minute
    figures.add(f"idle with {count:,} pending: CPU, %", idle(server, seconds))
    figures.add(f"idle with {count:,} pending: memory, MB", psutil.Process(server.pid).memory_info().rss / 2**20)


if __name__ == "__main__":
    main()
