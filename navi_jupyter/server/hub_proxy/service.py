"""The way to the service: its address, the token of this server, and requests whose answers are streamed.

The token is JupyterHub's for this server (``JUPYTERHUB_API_TOKEN``): a request with it is its user's at the service.
Imported at extension load: httpx only when it is used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from ...errors import NotReady
from ..transfers.unfinished import LARGEST_MESSAGE

if TYPE_CHECKING:
    import httpx

CONNECTED_WITHIN = 10.0  # seconds
ANSWER_WITHIN = 120.0  # seconds without a byte of an answer; an event stream has a comment every 15 s
UNREACHABLE = "The Navi service of this JupyterHub does not answer. Try again in a moment, or tell the administrator."


class HubService:
    """The service as this server reaches it. One per process; opens nothing before the first request."""

    def __init__(self, url: str, token: str) -> None:
        """``url``: of the service itself, such as ``https://hub/services/navi/``."""
        self.url = url.rstrip("/")
        self._token = token
        self._client: httpx.AsyncClient | None = None
        self._errors: type[Exception] = Exception  # what the client raises; httpx is not imported yet
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send one request below the service's address; its answer, not read yet. Raises NotReady."""
        client = await self._opened()
        # An answer goes on as it comes: in no encoding that was not asked for, as httpx would by itself.
        all_headers = {"Accept-Encoding": "identity", **headers, **self._authorization}
        sent = client.build_request(method, self.url + path, headers=all_headers, content=body)
        try:
            answer = await client.send(sent, stream=True)
        except self._errors as error:
            raise NotReady(UNREACHABLE) from error
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _opened(self) -> httpx.AsyncClient:
        async with self._making:  # the import, and reading the certificates, take a thread some time
            if (client := self._client) is None:
                library = await asyncio.to_thread(import_module, "httpx")
                self._errors = library.HTTPError
                # The environment's proxies are for the world outside; the service is a neighbour.
                made = await asyncio.to_thread(
                    library.AsyncClient,
                    trust_env=False,
                    timeout=library.Timeout(ANSWER_WITHIN, connect=CONNECTED_WITHIN, pool=None),
                    limits=library.Limits(max_connections=None, max_keepalive_connections=20),
                )
                client = self._client = cast("httpx.AsyncClient", made)
            return client

    async def socket(self, path: str, headers: Mapping[str, str]) -> WebSocketClientConnection | None:
        """A WebSocket to the service; None where it refuses one, and says why to a plain request. Raises NotReady."""
        request = HTTPRequest(
            "ws" + self.url.removeprefix("http") + path,
            headers={**headers, **self._authorization},
            connect_timeout=CONNECTED_WITHIN,
            request_timeout=CONNECTED_WITHIN,
        )
        try:
            return await websocket_connect(request, max_message_size=LARGEST_MESSAGE)
        except (HTTPTimeoutError, OSError, socket.gaierror) as error:
            raise NotReady(UNREACHABLE) from error
        except (HTTPClientError, WebSocketError):
            return None

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"token {self._token}"}

    async def close(self) -> None:
        """Close what is kept open between requests."""
        if self._client is not None:
            await self._client.aclose()
