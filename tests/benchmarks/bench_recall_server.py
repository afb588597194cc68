"""Recalls on a real Jupyter server: lateness of 1,000 due in one second, and what 10,000 pending ones cost while idle.

    python tests/benchmarks/bench_recall_server.py [--due 1000] [--pending 10000] [--idle 20]

Everything is made and read over HTTP; each recall has a session of its own and its run is the offline backend's.
Lateness is what the ledger says (from the slot to its prompt being durable); *run* is from the slot to RUN_STARTED,
which also waits for one of ``max_concurrent_runs`` places.
"""

from __future__ import annotations

import argparse
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


def burst(server: JupyterServer, count: int, *, spread: bool) -> None:
    """All due at one instant, or one each millisecond."""
    sessions = in_parallel(server, count, lambda client, _: client("POST", "sessions", {})["id"])
    due = datetime.now(UTC) + timedelta(seconds=15 + count / 60)
    step = timedelta(seconds=1 / count) if spread else timedelta()
    recalls = in_parallel(
        server, count, lambda client, number: make_recall(client, sessions[number], due + number * step)
    )
    assert datetime.now(UTC) < due, "the machine is too slow to have them all before they are due"
    client = Client(server)
    while client("GET", "recalls?status=pending&limit=1")["recalls"]:
        time.sleep(0.5)
    while client("GET", "recalls?status=running&limit=1")["recalls"]:
        time.sleep(0.5)
    lag = client("GET", "health")["loop_lag_ms"]

    def measured(client: Client, number: int) -> tuple[float, float]:
        (firing,) = client("GET", f"recalls/{recalls[number]}/firings")["firings"]
        assert firing["status"] == "succeeded", firing
        run = client("GET", f"sessions/{sessions[number]}/runs/{firing['run_id']}")
        started = datetime.fromisoformat(run["started_at"]) - datetime.fromisoformat(firing["slot"])
        return firing["lateness_ms"], started.total_seconds() * 1000

    lateness = in_parallel(server, count, measured)
    kind = "spread over one second" if spread else "due at one instant"
    for name, column in (("lateness", 0), ("run", 1)):
        values = sorted(pair[column] for pair in lateness)
        print(
            f"{count} {kind}: {name:8} p50 {values[count // 2]:.0f} ms, p99 {values[int(count * 0.99)]:.0f} ms,"
            f" max {values[-1]:.0f} ms"
        )
    print(f"{count} {kind}: longest stall of the server's event loop in the last 10-20 s: {lag:.0f} ms")


def idle(server: JupyterServer, seconds: float) -> float:
    """Share of one processor, in percent, that the server needs with nobody asking."""
    process = psutil.Process(server.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return 100 * (sum(process.cpu_times()[:2]) - before) / seconds


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--due", type=int, default=1000)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    limits = ("--NaviExtension.max_sessions_per_user=100000", "--NaviExtension.max_recalls_per_user=100000")
    with tempfile.TemporaryDirectory() as folder, JupyterServer(Path(folder)).start(args=limits) as server:
        time.sleep(2)
        print(f"idle with no recalls: {idle(server, options.idle):.2f} % of one processor", flush=True)
        if options.due:
            burst(server, options.due, spread=True)
            burst(server, options.due, spread=False)
        sid = Client(server)("POST", "sessions", {})["id"]
        later = datetime.now(UTC) + timedelta(days=1)
        began = time.monotonic()
        in_parallel(server, options.pending, lambda c, n: make_recall(c, sid, later + timedelta(seconds=n)))
        print(f"{options.pending} recalls were made over HTTP in {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(70)  # sessions that were busy leave memory after a minute
        used = idle(server, options.idle)
        weight = psutil.Process(server.pid).memory_info().rss / 2**20
        print(f"idle with {options.pending} pending: {used:.2f} % of one processor, {weight:.0f} MB")


if __name__ == "__main__":
    main()
