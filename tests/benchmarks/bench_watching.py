"""What watching a kernel costs that runs 500 cells a second: its round trips, the server's loop, CPU and memory.

Run it by itself: ``python tests/benchmarks/bench_watching.py [pairs]``. Watched and not watched, interleaved, on one
kernel of a server of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.kernels import NotebookKernel  # noqa: E402
from tests.support.server import JupyterServer  # noqa: E402

CELLS = 300
CODE = "print('line of output', 42)\nx = 1"


class Health(threading.Thread):
    """Asks the server for its health over and over: what others on its loop notice."""

    def __init__(self, server: JupyterServer) -> None:
        super().__init__(daemon=True)
        self.server, self.stop, self.took = server, threading.Event(), []  # type: ignore[var-annotated]

    def run(self) -> None:
        while not self.stop.wait(0.02):
            before = time.perf_counter()
            self.server.get("api/status")
            self.took.append(time.perf_counter() - before)


def burst(kernel: NotebookKernel) -> float:
    """Cells per second when they are all asked for at once."""
    before = time.perf_counter()
    requests = [kernel.client.execute(CODE) for _ in range(CELLS)]
    while kernel.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != requests[-1]:
        pass
    return CELLS / (time.perf_counter() - before)


def round_trips(kernel: NotebookKernel) -> list[float]:
    """Seconds of each cell, one after the other, with no pause."""
    took = []
    client = kernel.client
    for _ in range(CELLS):
        before = time.perf_counter()
        request = client.execute(CODE)
        while client.get_shell_msg(timeout=20)["parent_header"].get("msg_id") != request:
            pass
        took.append(time.perf_counter() - before)
    while True:  # what was published, so that it does not gather
        try:
            client.get_iopub_msg(timeout=0)
        except Exception:  # noqa: BLE001 - queue.Empty, or no message in time
            return took


def phase(server: JupyterServer, kernel: NotebookKernel) -> dict[str, Any]:
    """One measurement."""
    process = psutil.Process(server.pid)
    health = Health(server)
    health.start()
    took = round_trips(kernel)
    before, began = process.cpu_times(), time.perf_counter()
    rate = burst(kernel)
    elapsed = time.perf_counter() - began
    after = process.cpu_times()
    health.stop.set()
    health.join()
    return {
        "median": statistics.median(took),
        "rate": rate,
        "cpu": (after.user + after.system - before.user - before.system) / elapsed,
        "status_p50": statistics.median(health.took),
        "status_max": max(health.took),
        "rss": process.memory_info().rss / 2**20,
    }


def main(pairs: int) -> None:
    """Print what it costs."""
    with tempfile.TemporaryDirectory() as folder, JupyterServer(Path(folder)).start() as server:
        kernel = NotebookKernel(server, "bench.ipynb")
        session = server.request("POST", "navi/api/sessions", {"notebook_path": "bench.ipynb"})["id"]
        round_trips(kernel)
        results: dict[str, list[dict[str, Any]]] = {"alone": [], "watched": []}
        for _ in range(pairs):
            results["alone"].append(phase(server, kernel))
            schedule = {"kind": "when", "event": "cell_failed", "cell": "any", "repeat": "each"}
            body = {"session_id": session, "message": "x", "schedule": schedule}
            recall = server.request("POST", "navi/api/recalls", body)
            results["watched"].append(phase(server, kernel))
            server.request("DELETE", f"navi/api/recalls/{recall['id']}")
        for name, runs in results.items():
            said = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(
                f"{name:>8}: round trip {said['median'] * 1e3:.2f} ms, {said['rate']:.0f} cells/s at once,"
                f" server CPU {said['cpu']:.0%}, status p50 {said['status_p50'] * 1e3:.1f} ms"
                f" max {max(run['status_max'] for run in runs) * 1e3:.0f} ms, RSS {runs[-1]['rss']:.0f} MB"
            )
        ratios = [
            watched["median"] / alone["median"]
            for alone, watched in zip(results["alone"], results["watched"], strict=True)
        ]
        print(f"round trip watched / alone: median {statistics.median(ratios):.3f} of {len(ratios)} pairs")
        kernel.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
