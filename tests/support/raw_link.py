"""A user's server as the service of a JupyterHub sees it, without a server: it opens a link and answers what is asked.

For tests and benchmarks of many users. Used on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from navi_jupyter.server.bench.calls import Calls
from navi_jupyter.server.bench.server_end import _Socket
from navi_jupyter.server.hub_proxy.service import HubService


class RawLink:
    """One link. It lends nothing: whatever is called there is answered with null."""

    def __init__(self, service: HubService, name: str) -> None:
        """``service``: with the token of the server's user. ``name``: of this start of the server."""
        self._service, self._name = service, name
        self._reading: asyncio.Task[None] | None = None
        self.calls: Calls | None = None

    async def open(self) -> float:
        """Seconds that it took. Raises RuntimeError."""
        began = time.perf_counter()
        connection = await self._service.socket("/navi/api/bench", {})
        if connection is None:
            raise RuntimeError("the service refuses a link")
        hello = {"bench": self._name, "server": "", "version": "0", "received": {}, "attached": []}
        await connection.write_message(json.dumps({"hello": hello}))
        welcome = json.loads(await connection.read_message() or "{}")["welcome"]
        took = time.perf_counter() - began
        self.calls = Calls(self._name, self._serve)
        socket = _Socket(connection)
        self.calls.channel.attach(socket, int(welcome.get("received") or 0))
        self._reading = asyncio.create_task(self._read(socket))
        return took

    async def close(self) -> None:
        """As a server that ends."""
        if self.calls is not None and self._reading is not None:
            self.calls.channel.end("the server is stopping")
            await asyncio.sleep(0)
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _serve(self, *_: object) -> None:
        """Nothing."""

    async def _read(self, socket: _Socket) -> None:
        assert self.calls is not None
        try:
            while (message := await socket.connection.read_message()) is not None:
                self.calls.channel.take(socket, message if isinstance(message, str) else message.decode())
        finally:
            socket.connection.close()
