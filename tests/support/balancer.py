"""A load balancer of TCP connections, as it stands before several processes of one service."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from itertools import cycle
from threading import Thread

from tests.support.server import free_port


class InTurns:
    """A load balancer: each connection goes to the next replica that answers."""

    def __init__(self, ports: list[int]) -> None:
        self.port = free_port()
        self.taken: list[int] = []
        """The port of each connection."""
        self._open: list[socket.socket] = []
        self._refuses_until = 0.0
        self._ports = cycle(ports)
        self._count = len(ports)
        self._server = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                Thread(target=self._serve, args=(self._server.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if time.monotonic() < self._refuses_until:
            client.close()
            return
        for _ in range(self._count):
            port = next(self._ports)
            with suppress(OSError):
                replica = socket.create_connection(("127.0.0.1", port))
                break
        else:
            client.close()
            return
        self.taken.append(port)
        self._open += [client, replica]
        back = Thread(target=_pump, args=(replica, client), daemon=True)
        back.start()
        _pump(client, replica)
        back.join()
        client.close()
        replica.close()

    def cut(self, *, refusing: float = 0.0) -> None:
        """Break all connections, and close new ones at once for so many seconds."""
        self._refuses_until = time.monotonic() + refusing
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
