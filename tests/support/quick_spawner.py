"""A spawner of a JupyterHub whose servers start in a moment: tiny HTTP servers in the process of the Hub itself.

What the name of a user begins with decides how the start goes. Each start, end of a start and stop is a line of JSON in
the file that ``NAVI_TEST_SPAWNS`` names, so that a test knows what has happened at which time. Imported by the Hub.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

SECONDS = 0.3  # of a start
SLOW_SECONDS = 6.0  # where the user's name begins with ``slow``
_SERVERS: dict[str, HTTPServer] = {}


class _Answer(RequestHandler):
    def get(self) -> None:
        self.set_header("X-JupyterHub-Version", "6.1.1")
        self.write({"version": "quick"})


class QuickSpawner(Spawner):  # type: ignore[misc]  # JupyterHub has no types
    """``fails…``: after a moment, ``refuses…``: at once, ``slow…``: after some seconds; else it is up."""

    async def start(self) -> str:
        self._note("starting")
        name = self.user.name
        if name.startswith("refuses"):
            self._note("failed")
            raise RuntimeError("no such image")
        await asyncio.sleep(SLOW_SECONDS if name.startswith("slow") else SECONDS)
        if name.startswith("fails"):
            self._note("failed")
            raise RuntimeError("no such image")
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(Application([(r".*", _Answer)]))
        server.add_sockets(sockets)
        _SERVERS[self._log_name] = server
        self._note("up")
        return f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    async def stop(self, now: bool = False) -> None:
        if (server := _SERVERS.pop(self._log_name, None)) is not None:
            server.stop()
            self._note("stopped")

    async def poll(self) -> int | None:
        return None if self._log_name in _SERVERS else 0

    def _note(self, event: str) -> None:
        line: dict[str, Any] = {"event": event, "user": self.user.name, "server": self.name, "at": time.time()}
        line["token"] = self.api_token  # of the server: a test may open its link
        with Path(os.environ["NAVI_TEST_SPAWNS"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
