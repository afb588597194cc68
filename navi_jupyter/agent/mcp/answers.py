"""The answers of one MCP server, made such that the SDK takes them: it refuses a whole answer for one odd part of it.

Between transport and SDK. A listing loses the tools that cannot be used, each with its reason, and every
``outputSchema``: the SDK would match their patterns on the event loop, without a bound. A result keeps what is in it.
Not responsible for bytes (``messages``) nor for what a model reads (``results``).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types as types
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import methods
from pydantic import ValidationError

from ...input.json_schema import BoundMet, measure
from ...log_setup import get_logger
from ...text import truncate
from ..tools.argument_schemas import SchemaRefused, argument_schema
from .calls import LeftOutTool

MAX_TOOLS = 500
MAX_NAME = 1000  # characters of a tool's name at its server
LISTING_SECONDS = 10.0  # in which the tools of one page are looked at
_log = get_logger("mcp")


class SessionGone:
    """Marks an error that says that the server does not know our session any more, so that nothing was executed."""


SESSION_GONE = SessionGone()


class Answers:
    """What is known of a server's answers on one connection."""

    def __init__(self, server: str, version: Callable[[], str | None]) -> None:
        """``version`` gives the protocol agreed on; None before that."""
        self._server = server
        self._version = version
        self._asked: dict[str | int, tuple[str, dict[str, Any]]] = {}  # by id: method and parameters of open requests
        self._gone: set[str | int] = set()  # ids of requests that the server refused because of the session
        self._names: set[str] = set()  # of the present listing
        self.left_out: list[LeftOutTool] = []
        self.output_schemas: dict[str, dict[str, Any]] = {}  # by tool

    def mending(
        self, transport: AbstractAsyncContextManager[TransportStreams]
    ) -> AbstractAsyncContextManager[TransportStreams]:
        """The transport, whose messages go through here."""

        @asynccontextmanager
        async def streams() -> AsyncIterator[TransportStreams]:
            async with transport as (read, write):
                yield _Incoming(read, self), _Outgoing(write, self)

        return streams()

    def session_gone(self, request: str | int) -> None:
        """The answer to this request will be an error, because the server does not know the session."""
        self._gone.add(request)

    def sent(self, message: Any) -> None:
        """A message goes to the server."""
        if isinstance(message, types.JSONRPCRequest):
            params = message.params or {}
            self._asked[message.id] = (message.method, params)
            if message.method == "tools/list" and params.get("cursor") is None:
                self._names, self.left_out, self.output_schemas = set(), [], {}
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self._asked.pop((message.params or {}).get("requestId", ""), None)

    async def received(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        """A message of the server, as the SDK takes it."""
        if not isinstance(item, SessionMessage):
            return item
        try:
            await self._mend(item.message)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            # An unexpected form ends one request, and not the connection, whose reader awaits this.
            _log.warning("mcp_bad_answer", server=self._server, error=type(error).__name__)
            failure = types.ErrorData(code=types.INTERNAL_ERROR, message=f"The server's answer cannot be used: {error}")
            answer = getattr(item.message, "id", None)
            item.message = types.JSONRPCError(jsonrpc="2.0", id=answer, error=failure)
        return item

    async def _mend(self, message: Any) -> None:
        if isinstance(message, types.JSONRPCError):
            if message.id is None and len(self._asked) == 1:
                message.id = next(iter(self._asked))  # it could not read the id, and only one request is open
            self._asked.pop(_key(message.id), None)
            if message.id in self._gone:
                self._gone.discard(message.id)
                message.error.data = SESSION_GONE
        elif isinstance(message, types.JSONRPCResponse):
            method, _ = self._asked.pop(_key(message.id), self._asked.pop(message.id, ("", {})))
            if method == "tools/list":
                # In a thread: hundreds of schemas take a second, and kernels share the loop.
                message.result = await asyncio.to_thread(self._listing, message.result)
            elif method == "tools/call":
                message.result = self._result(message.result)
            elif method == "initialize":
                message.result = _initialized(message.result)

    def _listing(self, result: dict[str, Any]) -> dict[str, Any]:
        listed = result.get("tools")
        kept, until = [], time.monotonic() + LISTING_SECONDS
        for raw in listed if isinstance(listed, list) else ():
            try:
                if len(self._names) >= MAX_TOOLS or time.monotonic() > until:
                    raise SchemaRefused(f"the server has more than {MAX_TOOLS} tools, or their schemas take too long")
                kept.append(self._tool(raw))
            except SchemaRefused as refused:
                self._leave_out(raw, str(refused))
        cursor = result.get("nextCursor")
        more = {"nextCursor": cursor} if isinstance(cursor, str) and cursor and len(self._names) < MAX_TOOLS else {}
        rest = {name: one for name, one in result.items() if name not in ("tools", "nextCursor")}
        return {**rest, "tools": kept, **more}

    def _tool(self, raw: Any) -> dict[str, Any]:
        """A tool as the SDK takes it. Raises SchemaRefused for one that cannot be used."""
        if not isinstance(raw, dict):
            raise SchemaRefused("it is no object")
        name = raw.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise SchemaRefused(f"its name is no text of 1 to {MAX_NAME} characters")
        if name in self._names:
            raise SchemaRefused("another tool of this server has the same name")
        tool = dict(raw)
        for optional in ("title", "description"):
            if not isinstance(tool.get(optional, ""), str):
                del tool[optional]
        for optional in ("annotations", "icons", "execution", "_meta"):
            if tool.get(optional, 0) is None:
                del tool[optional]
        output = tool.pop("outputSchema", None)
        tool["inputSchema"] = argument_schema(tool.get("inputSchema"))
        if output is not None:
            self._check_output(output)
        try:
            self._validate("tools/list", {"tools": [tool]})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"][2:]))
            raise SchemaRefused(f"it is not as the protocol says: {where}: {first['msg']}") from None
        self._names.add(name)
        if output is not None:
            self.output_schemas[name] = output
        return tool

    def _check_output(self, schema: Any) -> None:
        """Raise SchemaRefused for a schema of results that the protocol does not allow."""
        modern = (self._version() or "") >= "2026"
        if not isinstance(schema, dict) or (not modern and schema.get("type") != "object"):
            raise SchemaRefused('its outputSchema does not have "type": "object"')
        try:
            measure(schema)
        except BoundMet as met:
            raise SchemaRefused(f"its outputSchema cannot be used: {met}") from None

    def _leave_out(self, raw: Any, why: str) -> None:
        name = raw.get("name") if isinstance(raw, dict) else None
        shown = truncate(name, 100) if isinstance(name, str) and name else "(without a name)"
        if len(self.left_out) < MAX_TOOLS:
            self.left_out.append(LeftOutTool(name=shown, why=truncate(why, 500)))
        _log.warning("mcp_tool_left_out", server=self._server, tool=shown, reason=truncate(why, 500))

    def _validate(self, method: str, result: Mapping[str, Any]) -> None:
        """Raises ValidationError for what the protocol in use does not allow."""
        methods.validate_server_result(method, self._version() or "2025-11-25", {**self._envelope(), **result})

    def _envelope(self) -> dict[str, Any]:
        """What every result has in the newer protocol."""
        return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}

    def _result(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result of a call, in which content that the protocol does not know is text."""
        if result.get("resultType", "complete") != "complete":
            return result  # a question
        mended = dict(result)
        content = mended.get("content", mended.pop("toolResult", None))  # `toolResult`: the protocol of 2024-10-07
        blocks = content if isinstance(content, list) else [] if content is None else [content]
        mended["content"] = [self._block(block) for block in blocks]
        if not isinstance(mended.get("isError", False), bool):
            mended["isError"] = mended["isError"] in (1, "true", "True")
        if not isinstance(mended.get("_meta", {}), dict):
            del mended["_meta"]
        structure = mended.get("structuredContent")
        if structure is not None and not isinstance(structure, dict) and (self._version() or "") < "2026":
            mended["structuredContent"] = {"result": structure}  # only objects may be there
        return mended

    def _block(self, block: Any) -> dict[str, Any]:
        if isinstance(block, dict):
            try:
                self._validate("tools/call", {"content": [block]})
            except ValidationError:
                kind = block.get("type")
                if kind == "text" and isinstance(block.get("text"), str):
                    return {"type": "text", "text": block["text"]}  # its annotations are odd
                name = f"content of type {truncate(str(kind), 60)!r}" if kind is not None else "content without a type"
                return {"type": "text", "text": f"[{name}: {_shown(block)}]"}
            return block
        return {"type": "text", "text": block if isinstance(block, str) else _shown(block)}


def _key(request: Any) -> Any:
    """The id under which a request is kept: some servers answer with the text of a number."""
    return int(request) if isinstance(request, str) and request.isdecimal() and len(request) < 16 else request


def _shown(value: Any) -> str:
    try:
        return truncate(json.dumps(value, ensure_ascii=False), 4000)
    except (ValueError, RecursionError):
        return "it cannot be shown"


def _initialized(result: dict[str, Any]) -> dict[str, Any]:
    """The answer to the first request, with what some servers leave out."""
    mended = dict(result)
    capabilities = mended.get("capabilities")
    known = capabilities.items() if isinstance(capabilities, dict) else ()
    # `"tools": true` and `"tools": null` are written for `{}` and for nothing.
    mended["capabilities"] = {name: {} if one is True else one for name, one in known if one not in (None, False)}
    info = mended.get("serverInfo")
    mended["serverInfo"] = {"name": "unknown", "version": "unknown"} | (info if isinstance(info, dict) else {})
    if not isinstance(mended.get("instructions", ""), str):
        del mended["instructions"]
    return mended


class _Incoming:
    """A read stream of the SDK's kind."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], answers: Answers) -> None:
        self._inner = inner
        self._answers = answers

    @property
    def last_context(self) -> Any:
        """The SDK's streams over HTTP carry the context of a message's sender: of the call that it belongs to."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return await self._answers.received(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Outgoing:
    """A write stream of the SDK's kind."""

    def __init__(self, inner: WriteStream[SessionMessage], answers: Answers) -> None:
        self._inner = inner
        self._answers = answers

    async def send(self, item: SessionMessage, /) -> None:
        self._answers.sent(item.message)
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
