"""What watching a kernel costs that runs 500 cells a second: its round trips, the server's loop, CPU and memory.

    python tests/benchmarks/bench_watching.py [--quick] [--pairs 4]

Watched and not watched, interleaved, on one kernel of a server of its own.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import Figures, arguments
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

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


def main(pairs: int) -> Figures:
    """What it costs."""
    figures = Figures()
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
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            figures.add(f"kernel {name}: round trip, ms", middle["median"] * 1e3)
            figures.add(f"kernel {name}: cells at once, 1/s", middle["rate"])
            figures.add(f"kernel {name}: CPU of the server, %", middle["cpu"] * 100)
            figures.add(f"kernel {name}: status, p50, ms", middle["status_p50"] * 1e3)
            figures.add(f"kernel {name}: status, max, ms", max(run["status_max"] for run in runs) * 1e3)
            figures.add(f"kernel {name}: memory, MB", runs[-1]["rss"])
        ratios = [
            watched["median"] / alone["median"]
            for alone, watched in zip(results["alone"], results["watched"], strict=True)
        ]
        figures.add("kernel watched / alone: round trip, of it", statistics.median(ratios))
        kernel.close()
    return figures


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, help="4; in the short form 1")
    options = parser.parse_args()
    main(options.pairs or (1 if options.quick else 4)).write(options.json)
