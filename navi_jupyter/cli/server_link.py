"""The running server of a command that stays: its client, found again when the server has been started anew.

A server that is started again has another token, and perhaps another port; the session and its log are the same. Not
responsible for which server is meant (``running_server``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..kernel.client.client import Client, Query
from ..kernel.client.connection import Connection, running_connections
from ..kernel.errors import Refused, ServerNotFound, Unreachable
from .running_server import SeveralServers, running_server

FOUND_AGAIN_WITHIN = 30.0  # seconds for a server that is started again: JupyterLab takes ten on a slow machine
_PAUSE = 0.5  # seconds between two looks


class ServerLink:
    """The server that ``url`` and ``token`` name; without them, the one that is running."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._url = url
        self._token = token
        self._client: Client | None = None

    async def client(self) -> Client:
        """The client of the server. Raises ServerNotFound, SeveralServers."""
        if self._client is None:
            self._client = Client(await self._find())
        return self._client

    async def connection(self) -> Connection:
        """Address and credentials. Raises ServerNotFound, SeveralServers."""
        return (await self.client()).connection

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Query | None = None
    ) -> Any:
        """One request of the API; once more where the server is another one by now. Raises KernelError."""
        client = await self.client()
        try:
            return await client.request(method, path, body, query=query)
        except (Unreachable, Refused) as problem:
            if not (is_lost(problem) and await self.look_again()):
                raise
        return await (await self.client()).request(method, path, body, query=query)

    async def look_again(self) -> bool:
        """Find the server anew; whether it has another address or other credentials than before."""
        try:
            found = await self._find()
        except (ServerNotFound, SeveralServers):
            return False
        if self._client is not None and self._client.connection == found:
            return False
        self._client = Client(found)
        return True

    async def wait(self, within: float = FOUND_AGAIN_WITHIN) -> bool:
        """Wait for a server that answers; whether there is one."""
        deadline = time.monotonic() + within
        while True:
            await self.look_again()
            try:
                await (await self.client()).request("GET", "health", timeout=5)
            except (Unreachable, Refused, ServerNotFound):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(_PAUSE)
            else:
                return True

    async def _find(self) -> Connection:
        # In a thread: files are read, and a socket is opened where several servers run.
        return await asyncio.to_thread(_found, self._url, self._token)


def _found(url: str | None, token: str | None) -> Connection:
    found = running_server(url, token)
    if found.root_dir is not None:
        return found
    # Named by its URL: where it runs on this machine, its folder is known by its own file.
    roots = [each.root_dir for each in running_connections() if each.url == found.url and each.sock == found.sock]
    return replace(found, root_dir=next(iter(roots), None))


def is_lost(problem: Exception) -> bool:
    """Whether the server is not there, or does not know the token: it may be another one by now."""
    return isinstance(problem, Unreachable) or (
        isinstance(problem, Refused) and problem.server_status in (401, 403, 503)
    )
