"""``navi mcp``: the server's MCP endpoint for clients that speak stdio, and the configuration of such clients.

Each message goes to ``<base_url>navi/mcp`` as the protocol's streamable HTTP has it, each answer comes back as a line;
of their content only what the transport needs is read. When the server is started again, the MCP session is made anew
with the client's own ``initialize``. Source: https://modelcontextprotocol.io/specification, basic/transports (with a
session, and from version 2026-07-28 on without). Not responsible for tools (``server.mcp_server``).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import httpx2

from ...errors import NaviError
from ...installation import navi_command
from ...kernel.errors import Unreachable
from ..stdio_lines import Message, StdioLines, error_message
from .http import AnswerTooLarge, Endpoint, RunEndpoint, ServerEndpoint, answers_of

log = logging.getLogger(__name__)

INTERNAL = -32603  # of JSON-RPC
_SESSION, _VERSION = "Mcp-Session-Id", "MCP-Protocol-Version"
_META_VERSION = "io.modelcontextprotocol/protocolVersion"  # in ``_meta`` of a request of the era without sessions
_NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}  # what the header Mcp-Name repeats
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ONCE = ("tools/call",)  # what is not sent again once the server may have begun it
_GOODBYE = 2.0  # seconds for the end of the MCP session when the client has gone
_BEGINS_WITHIN = 2.0  # seconds that a message which cancels a request waits for the server to have that request
_PAUSE = 1.0  # seconds before the server's own stream is opened again


class _Gone(Exception):
    """The server does not know the MCP session: it was started again."""


class _Lost(Exception):
    """The connection could not be made, or broke."""

    def __init__(self, problem: Exception, *, was_sent: bool) -> None:
        super().__init__(str(problem) or type(problem).__name__)
        self.was_sent = was_sent


class _Sent:
    """A request of the client that has no answer yet."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.began = asyncio.Event()  # the server has begun to answer


class McpBridge:
    """One client on stdio, and its MCP session on the server."""

    def __init__(self, lines: StdioLines, endpoint: Endpoint) -> None:
        self._lines = lines
        self._endpoint = endpoint
        self._session: str | None = None
        self._version: str | None = None
        self._initialize: Message | None = None  # as the client sent it
        self._has_connected = False
        self._in_order = asyncio.Lock()  # notifications reach the server before the requests that come after them
        self._renewing = asyncio.Lock()
        self._requests: dict[str | int | None, _Sent] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._stream: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Carry messages until the client closes stdin."""
        try:
            while (message := await self._lines.receive()) is not None:
                if "id" in message and "method" in message:
                    self._start(message)
                else:
                    self._keep(asyncio.create_task(self._notify(message)))
                await asyncio.sleep(0)  # what was started takes its place in the order
        finally:
            await self._end()

    def _start(self, message: Message) -> None:
        key = message["id"]
        sent = self._requests[key] = _Sent(asyncio.create_task(self._request(message)))
        sent.task.add_done_callback(lambda _: self._requests.pop(key) if self._requests.get(key) is sent else None)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _cancelled(self, message: Message) -> _Sent | None:
        """The request that a message cancels."""
        params = message.get("params")
        if message.get("method") != "notifications/cancelled" or not isinstance(params, dict):
            return None
        request_id = params.get("requestId")
        return self._requests.get(request_id) if isinstance(request_id, str | int) else None

    async def _end(self) -> None:
        tasks = [
            *(sent.task for sent in self._requests.values()),
            *self._others,
            *([self._stream] if self._stream else []),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            with suppress(httpx2.HTTPError, NaviError, TimeoutError):
                async with asyncio.timeout(_GOODBYE):
                    url, headers = await self._endpoint.url(), await self._headers(None)
                    await self._endpoint.client().delete(url, headers=headers)

    # --- messages of the client --------------------------------------------------------------------------------------

    async def _request(self, message: Message) -> None:
        """One request, to its answer: without one its client would wait for good."""
        try:
            async with self._in_order:  # after the notifications before it
                pass
            if message["method"] == "initialize":
                self._initialize, self._session, self._version = message, None, None
            await self._carry(message)
        except asyncio.CancelledError:
            self._lines.give_up_request()  # the client has cancelled it, and expects no answer
            raise
        except ConnectionError:
            pass  # the client is gone
        except Exception as problem:  # noqa: BLE001 - the supervisor: whatever went wrong is the answer
            words = problem.message if isinstance(problem, NaviError) else str(problem) or type(problem).__name__
            log.warning("%s: %s", str(message["method"])[:60], words)
            with suppress(ConnectionError):
                await self._lines.send(error_message(message["id"], INTERNAL, words))

    async def _notify(self, message: Message) -> None:
        cancelled = self._cancelled(message)
        if cancelled is not None and self._session is None:
            # Without a session the end of a request's connection is what cancels it: nothing else is sent.
            cancelled.task.cancel()
            return
        async with self._in_order:
            if cancelled is not None:  # the server must know the request before it is cancelled
                with suppress(TimeoutError):
                    await asyncio.wait_for(cancelled.began.wait(), _BEGINS_WITHIN)
            try:
                await self._post(message, self._forward)
            except (_Gone, _Lost, AnswerTooLarge, NaviError) as problem:
                log.warning("a notification was not delivered: %s", problem)
                return
        if cancelled is not None:  # servers send no answer to it, and keep its connection
            cancelled.task.cancel()
        if message.get("method") == "notifications/initialized" and self._stream is None:
            self._stream = asyncio.create_task(self._listen())

    async def _carry(self, message: Message) -> None:
        """Send a request and write its answer; again where the server has not begun it. Raises what went wrong."""
        for attempt in (1, 2, 3):
            try:
                await self._post(message, self._forward)
            except _Gone:
                if attempt == 3:
                    raise Unreachable("The server does not know this MCP session any more.") from None
                await self._renew()
            except _Lost as problem:
                began = problem.was_sent and message["method"] in _ONCE
                if began or attempt == 3 or not await self._is_back():
                    words = " It had begun; what it has done by then stays." if began else ""
                    raise Unreachable(f"The Jupyter server does not answer ({problem}).{words}") from None
            else:
                return

    async def _is_back(self) -> bool:
        """Wait for the server, if it was there before: a client that is started without one learns of that at once."""
        return self._has_connected and await self._endpoint.wait()

    async def _renew(self) -> None:
        """Make the MCP session anew, as the client has begun it."""
        gone = self._session
        async with self._renewing:
            if self._session != gone or self._initialize is None:
                return  # another request has made it
            self._session = None

            async def drop(answer: Message) -> None:
                """The client has had the answer to its `initialize`."""

            log.warning("the server was started again: the MCP session is made anew")
            await self._post({**self._initialize, "id": "navi-bridge"}, drop)
            await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, drop)

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def _post(self, message: Message, deliver: Callable[[Message], Awaitable[None]]) -> None:
        """Send one message, and deliver what comes back until its answer. Raises _Gone, _Lost, NaviError."""
        session, was_sent = self._session, False
        is_request = "id" in message and "method" in message
        try:
            url, headers = await self._endpoint.url(), await self._headers(message)
            async with self._endpoint.client().stream("POST", url, json=message, headers=headers) as answer:
                was_sent = self._has_connected = True
                if is_request and (sent := self._requests.get(message["id"])) is not None:
                    sent.began.set()
                if answer.status_code == 503:
                    raise _Lost(RuntimeError("it is starting"), was_sent=False)
                if answer.status_code == 404 and session is not None:
                    raise _Gone
                if answer.status_code in (401, 403) and await self._endpoint.look_again():
                    raise _Lost(RuntimeError("it has another token now"), was_sent=False)
                if message.get("method") == "initialize" and answer.status_code == 200:
                    self._session = answer.headers.get(_SESSION)
                async for received in answers_of(answer):
                    if message.get("method") == "initialize" and isinstance(received.get("result"), dict):
                        self._version = str(received["result"].get("protocolVersion", ""))[:40] or None
                    if is_request and "method" not in received:
                        # An error of a request that could not be read has no id; here it is known which one it was.
                        await deliver(received | {"id": message["id"]})
                        return
                    await deliver(received)
                if is_request:
                    raise Unreachable(f"The server answered {answer.status_code} without a message.")
        except httpx2.ConnectError as problem:
            raise _Lost(problem, was_sent=False) from None
        except (httpx2.HTTPError, OSError) as problem:
            raise _Lost(problem, was_sent=was_sent or isinstance(problem, httpx2.ReadError)) from None

    async def _headers(self, message: Message | None) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream", **await self._endpoint.authorization()}
        params = (message or {}).get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        version = meta.get(_META_VERSION) if isinstance(meta, dict) else None
        if message is not None and isinstance(version, str) and "method" in message:
            name = params.get(_NAMES.get(message["method"], "")) if isinstance(params, dict) else None
            headers |= {_VERSION: _header(version), "Mcp-Method": _header(message["method"])}
            return headers | ({"Mcp-Name": _header(name)} if isinstance(name, str) else {})
        if self._session is not None:
            headers[_SESSION] = self._session
        if self._version is not None:
            headers[_VERSION] = self._version
        return headers

    async def _forward(self, message: Message) -> None:
        await self._lines.send(message, counts="id" in message and "method" not in message)

    async def _listen(self) -> None:
        """What the server sends by itself, until the client has gone or the server says that it sends nothing."""
        while True:
            with suppress(httpx2.HTTPError, OSError, AnswerTooLarge, NaviError, _Gone, _Lost):
                if self._session is None and not await self._is_back():
                    return
                url, headers = await self._endpoint.url(), await self._headers(None)
                async with self._endpoint.client().stream("GET", url, headers=headers) as answer:
                    if answer.status_code == 405:
                        return
                    if answer.status_code == 404:
                        await self._renew()
                    elif answer.status_code == 200:
                        async for received in answers_of(answer):
                            await self._forward(received)
                    else:
                        await self._endpoint.look_again()
            await asyncio.sleep(_PAUSE)


def _header(text: str) -> str:
    """A value as the protocol writes it into a header: what is not plain ASCII as base64."""
    if _PLAIN.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


async def _serve(url: str | None, token: str | None) -> None:
    lines = StdioLines()
    secret = None if url else os.environ.get("NAVI_MCP_SECRET")
    named = os.environ.get("NAVI_MCP_URL")
    endpoint = RunEndpoint(named, secret) if named and secret else ServerEndpoint(url, token)
    try:
        await McpBridge(lines, endpoint).run()
    finally:
        await lines.close()


def serve(*, url: str | None, token: str | None) -> int:
    """Carry messages until the client closes stdin."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="navi mcp: %(message)s")
    asyncio.run(_serve(url, token))
    return 0


class ClientForm(NamedTuple):
    """How one client is configured."""

    place: str  # where the text belongs, as a sentence
    text: Callable[[dict[str, object]], str]  # of ``command``, ``args``, ``env``


def _json(outer: dict[str, object]) -> str:
    return json.dumps(outer, indent=2)


FORMS = {
    "claude-desktop": ClientForm(
        "Put it into the file that Settings > Developer > Edit Config opens (claude_desktop_config.json).",
        lambda server: _json({"mcpServers": {"navi": server}}),
    ),
    "cursor": ClientForm(
        "Put it into ~/.cursor/mcp.json, or .cursor/mcp.json of a project.",
        lambda server: _json({"mcpServers": {"navi": server}}),
    ),
    "vscode": ClientForm(
        "Put it into .vscode/mcp.json of a folder, or into what MCP: Open User Configuration opens.",
        lambda server: _json({"servers": {"navi": {"type": "stdio", **server}}}),
    ),
    "claude-code": ClientForm(
        "Run it in a terminal.", lambda server: shlex.join(["claude", "mcp", "add-json", "navi", json.dumps(server)])
    ),
}
"""The clients' own forms, by the name after ``--config``. Nothing is written into files of other programs."""


def print_configuration(client: str, *, url: str | None, token: str | None) -> int:
    """Print the configuration of one client for the server that is meant; without a URL, the one that runs then."""
    command, *args = navi_command("mcp", *(["--url", url] if url else []))
    # Not an argument: other users of the machine see those.
    form, env = FORMS[client], {"NAVI_TOKEN": token} if token else {}
    print(form.text({"command": command, "args": args, "env": env}))
    print(f"\n{form.place}", file=sys.stderr)
    if url is not None and token is None:
        print("A server of another machine needs its token: put NAVI_TOKEN into env.", file=sys.stderr)
    return 0
