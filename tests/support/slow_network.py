"""A network in front of a server of this machine whose way takes a while, in a process of its own.

    with slow_network(port, round_trip=0.0005) as slow: ...        # connect to the port `slow`

Threads that sleep, not an event loop: its timers are of whole milliseconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def slow_network(port: int, *, round_trip: float) -> Iterator[int]:
    """The port of a way to the port that adds so many seconds there and back, a bit more as threads are woken late."""
    command = [sys.executable, "-m", "tests.support.slow_network", str(port), str(round_trip)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _pass_on(source: socket.socket, target: socket.socket, one_way: float) -> None:
    """What comes from one side leaves to the other one so much later, and its end as well. One piece after the other,
    as of a protocol of requests and answers: a thread less for each way, on a machine with few cores."""
    with suppress(OSError):
        while data := source.recv(1 << 18):
            time.sleep(one_way)
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _main(port: int, round_trip: float) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    while True:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ways in ((client, server), (server, client)):
            threading.Thread(target=_pass_on, args=(*ways, round_trip / 2), daemon=True).start()


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
