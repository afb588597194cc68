"""A real HTTP server that notifications go to, and what it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What came in, and how it is answered."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.proxied: list[str] = []
        """Requests for other hosts."""
        self.failures = 0
        """So many of the next requests are refused."""
        self.redirect: str | None = None
        self.answering = threading.Event()
        """While it is not set, requests come in and hear nothing."""
        self.answering.set()
        self.port = 0

    @property
    def titles(self) -> list[str]:
        return [body["title"] for body in self.bodies]

    def url(self, scheme: str = "json", host: str = "127.0.0.1", path: str = "/hook/k3yk3yk3y") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A server on a free loopback port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            receiver.paths.append(self.path)
            receiver.answering.wait()
            if receiver.failures:
                receiver.failures -= 1
                self.send_response(503)
            elif receiver.redirect:
                self.send_response(307)
                self.send_header("Location", receiver.redirect)
            else:
                receiver.bodies.append(json.loads(content))
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_CONNECT(self) -> None:
            receiver.proxied.append(self.path)
            self.send_error(502)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Whoever asked is gone."""

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answering.set()
        server.shutdown()
        server.server_close()
