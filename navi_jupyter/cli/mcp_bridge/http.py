"""HTTP of ``navi mcp``: where its messages go, and the messages in an answer, within bounds.

They go to the running server for its user, or to the tools of one run of an agent program: a program that Navi starts
is given ``NAVI_MCP_URL`` and ``NAVI_MCP_SECRET``, and the secret leads to the tools of the run that works in its
session, and to nothing else. Server-sent events are read here because a line of the library's readers has no bound.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, of which MCP uses ``data``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from ...input.json_input import load_json
from ...kernel.client.connection import Connection
from ...text import one_line
from ..server_link import ServerLink
from ..stdio_lines import MAX_MESSAGE

Message = dict[str, Any]
_LARGE = 256 * 1024  # bytes from which on a message is parsed in a thread
_INTERNAL = -32603
_CONNECT = 10.0  # seconds
_TIMES = httpx2.Timeout(_CONNECT, read=None, pool=None)
"""No limit for an answer: a tool may wait for its user's approval, and the client can cancel it at any time."""


def _client(*, verify: bool, sock: str | None = None) -> httpx2.AsyncClient:
    # One for all requests, since making one reads all certificates of the system. Each request has its own connection:
    # on one that is used again it is not known whether a request that gets no answer was read.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx2.AsyncHTTPTransport(uds=sock, verify=verify, limits=limits)
    return httpx2.AsyncClient(timeout=_TIMES, trust_env=False, transport=transport)


class ServerEndpoint:
    """The endpoint of the running server, for its user."""

    def __init__(self, url: str | None, token: str | None) -> None:
        self._link = ServerLink(url, token)
        self._connection: Connection | None = None
        self._client: tuple[Connection | None, httpx2.AsyncClient] | None = None

    async def url(self) -> str:
        """Its URL. Raises ServerNotFound, SeveralServers."""
        self._connection = await self._link.connection()
        return f"{self._connection.url}navi/mcp"

    async def authorization(self) -> dict[str, str]:
        """The user's own token: the kernels' is refused there."""
        authorization = (await self._link.connection()).authorization
        return {"Authorization": authorization} if authorization else {}

    def client(self) -> httpx2.AsyncClient:
        """The client for the URL that was given out last."""
        connection = self._connection
        if self._client is None or self._client[0] != connection:
            sock, verify = (connection.sock, connection.verify) if connection else (None, True)
            self._client = connection, _client(verify=verify, sock=sock)
        return self._client[1]

    async def look_again(self) -> bool:
        """Find the server anew."""
        return await self._link.look_again()

    async def wait(self) -> bool:
        """Wait for a server that answers."""
        return await self._link.wait()


class RunEndpoint:
    """The endpoint of the server that has started this program's client, with the secret of its run."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._client = _client(verify=Connection(url=url, authorization=None, source="NAVI_MCP_URL").verify)

    async def url(self) -> str:
        """As given."""
        return self._url

    async def authorization(self) -> dict[str, str]:
        """The secret."""
        return {"Authorization": f"Bearer {self._secret}"}

    def client(self) -> httpx2.AsyncClient:
        """The client for the URL."""
        return self._client

    async def look_again(self) -> bool:
        """There is no other: the secret ends with its server."""
        return False

    async def wait(self) -> bool:
        """As above."""
        return False


Endpoint = ServerEndpoint | RunEndpoint


class AnswerTooLarge(Exception):
    """A message of the server is larger than what is passed on."""

    def __init__(self) -> None:
        super().__init__(f"A message of the server is larger than {MAX_MESSAGE} bytes.")


async def answers_of(response: httpx2.Response) -> AsyncIterator[Message]:
    """The messages. One that is not JSON-RPC becomes an error without an id, with what it says.

    Raises AnswerTooLarge, and httpx2's errors.
    """
    if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        async for data in _events(response):
            yield await _message(data, response)
        return
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_MESSAGE:
            raise AnswerTooLarge
    if body.strip():
        yield await _message(body, response)
    elif response.status_code >= 300:
        yield _error(f"The server answered {response.status_code} {response.reason_phrase}.")


async def _events(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The data of each event that has some."""
    data: list[bytes] = []
    size = 0
    async for line in _lines(response):
        if not line:
            if any(data):
                yield b"\n".join(data)
            data, size = [], 0
        elif line.startswith(b"data:"):
            size += len(line)
            if size > MAX_MESSAGE:
                raise AnswerTooLarge
            data.append(line[5:].removeprefix(b" "))


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end]).rstrip(b"\r")
            parts, size = [], 0
        size += len(rest)
        if size > MAX_MESSAGE:
            raise AnswerTooLarge
        parts.append(rest)


async def _message(text: bytes, response: httpx2.Response) -> Message:
    try:
        message = load_json(text) if len(text) < _LARGE else await asyncio.to_thread(load_json, text)
    except ValueError:
        message = None
    if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
        return message
    # Jupyter's own errors, and a proxy's: their words, where they have some.
    words = message.get("message") if isinstance(message, dict) else None
    if not isinstance(words, str) or not words:
        words = json.dumps(one_line(text.decode("utf-8", "replace"), 200))
    return _error(f"The server answered {response.status_code}: {words[:2000]}")


def _error(words: str) -> Message:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": _INTERNAL, "message": words}}
