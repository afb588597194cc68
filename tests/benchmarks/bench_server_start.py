"""What the extension adds to the start of a Jupyter server, measured against a bare one, interleaved.

    python tests/benchmarks/bench_server_start.py [--quick] [--rounds 10]

Start = from the start of the process to the first answer of ``/api/status``. Also: until Navi says that it is ok.
The budget is 0.3 s for the first: exits 1 when it is over that.
"""

from __future__ import annotations

import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import Figures, arguments

BUDGET = 0.3


def main(rounds: int, path: Path | None) -> int:
    """Measure in turns, so that both see the same machine."""
    bare: list[float] = []
    extended: list[float] = []
    ready: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder), extended=True)  # writes caches and the database; not counted
        for _ in range(rounds):
            bare.append(start(Path(folder), extended=False)[0])
            first, navi = start(Path(folder), extended=True)
            extended.append(first)
            ready.append(navi)
    added = statistics.median(with_ - without for with_, without in zip(extended, bare, strict=True))
    figures = Figures()
    figures.add("server start: bare, s", statistics.median(bare))
    figures.add("server start: with Navi, s", statistics.median(extended))
    figures.add("server start: added, s", added)
    figures.add("server start: until Navi is ready, s", statistics.median(ready))
    figures.write(path)
    return 0 if added < BUDGET else 1


def start(folder: Path, *, extended: bool) -> tuple[float, float]:
    """One server, started and stopped: seconds to its first answer, and to Navi's (0 when bare)."""
    port, token = free_port(), secrets.token_hex(8)
    command = [
        *(sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--ServerApp.port_retries=0"),
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.jpserver_extensions={{'navi_jupyter': {extended}}}",
    ]
    base = f"http://127.0.0.1:{port}/"
    begun = time.perf_counter()
    server = subprocess.Popen(command, env=environment(folder), stderr=subprocess.DEVNULL)
    try:
        until(base + "api/status", token, server)
        first = time.perf_counter() - begun
        if extended:
            until(base + "navi/api/health", token, server)
        return first, time.perf_counter() - begun if extended else 0.0
    finally:
        server.terminate()
        server.wait(timeout=30)


def environment(folder: Path) -> dict[str, str]:
    """No configuration, data or runtime files but our own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_", "NAVI_"))}
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    return kept | places | {"HOME": str(folder), "JUPYTER_NO_CONFIG": "1"}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(url: str, token: str, server: subprocess.Popen[Any]) -> None:
    """Ask until it answers with success."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    while server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
    raise SystemExit(f"the server ended with {server.returncode}")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="10; in the short form 3")
    options = parser.parse_args()
    sys.exit(main(options.rounds or (3 if options.quick else 10), options.json))
