"""The streamable HTTP transport: the SDK's, over a client whose answers are bounded and readable.

An answer that the SDK could not read is mended on its way, as the stdio transport does it. A refusal of our session is
known by its status: the texts of servers differ.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx2
import mcp_types as types
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from pydantic_core import from_json

from ...input.address_policy import resolve, why_refused
from ...input.json_input import decoded, well_formed_json
from ..providers.sse_text import EventTooLarge, WellFormedEvents
from . import guarded_process, messages, stdio
from .config import ServerConfig

CONNECT_TIMEOUT = 15.0  # seconds
DELETE_TIMEOUT = 3.0  # seconds, for the request that ends a session
MAX_REFUSAL = 64 * 1024  # bytes of a refusal that are read for its words
_EVENTS, _JSON = "text/event-stream", "application/json"
# What servers answer with 400 to a session that they do not know; by the protocol it is 404.
_UNKNOWN_SESSION = re.compile(
    r"(?:no valid|invalid|unknown|expired|missing|stale) (?:mcp )?session|session[ -]?id|not initialized"
    r"|session[^.]{0,60}(?:not found|not exist|expired|terminated|closed|unknown|invalid)|before initialization",
    re.IGNORECASE,
)


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that fails once it is longer than a message may be; with text that the SDK can read."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = await self.whole()
        with suppress(ValueError):  # another encoding is the SDK's to refuse
            body = well_formed_json(decoded(body)).encode()
        yield body

    async def whole(self) -> bytes:
        body = bytearray()
        async for chunk in self._stream:
            body += chunk
            if len(body) > stdio.MAX_MESSAGE:
                # Of this class, because the SDK turns such errors into a failed answer to the request.
                raise httpx2.StreamError(f"the answer is too large (more than {stdio.MAX_MESSAGE // 1_000_000} MB)")
        return bytes(body)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _MendedBody(_BoundedBody):
    """The answer to one request, as JSON that the SDK reads."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: str | int) -> None:
        super().__init__(stream)
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield _answer(await self.whole(), self._request)


def _answer(content: bytes, request: str | int) -> bytes:
    """The answer in a body, under the id of the request: it is the answer to this one, whatever it says."""
    found = messages.read(content)
    answers = [one for one in found if isinstance(one, types.JSONRPCResponse | types.JSONRPCError)]
    if len(found) == 1 and answers and answers[0].id == request and content.lstrip()[:1] == b"{":
        try:
            messages.strict(content)
        except ValueError:
            pass  # it was mended
        else:
            return content
    why = types.ErrorData(code=types.PARSE_ERROR, message="The server's answer cannot be read.")
    answer = answers[0] if answers else types.JSONRPCError(jsonrpc="2.0", id=request, error=why)
    answer.id = request
    return answer.model_dump_json(by_alias=True, exclude_unset=True).encode()


class _MendedEvents(httpx2.AsyncByteStream):
    """Server-sent events of bounded size, whose messages the SDK reads."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events = WellFormedEvents(stdio.MAX_MESSAGE)
        try:
            async for chunk in self._stream:
                if complete := events.add(chunk):
                    yield _mended_events(complete)
        except EventTooLarge as error:
            # Of this class, because the SDK turns such errors into a failed answer to the request.
            raise httpx2.SSEError(f"the answer is too large ({error})") from None
        if rest := events.rest():
            yield _mended_events(rest)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _mended_events(events: bytes) -> bytes:
    return b"\n".join(_event_line(line) for line in events.split(b"\n"))


def _event_line(line: bytes) -> bytes:
    given = line[5:].strip() if line.startswith(b"data:") else b""
    data = given.removeprefix(codecs.BOM_UTF8)
    if data[:1] not in (b"{", b"["):
        return line
    line = line if data is given else b"data: " + data
    try:
        messages.strict(data)
    except ValueError:
        found = [one for one in messages.read(data) if not isinstance(one, Exception)]
        if found:
            return b"\n\n".join(
                b"data: " + one.model_dump_json(by_alias=True, exclude_unset=True).encode() for one in found
            )
    return line


class _Refused(httpx2.AsyncByteStream):
    """The body of an answer that is not read."""

    def __init__(self, stream: httpx2.AsyncByteStream, why: str) -> None:
        self._stream = stream
        self._why = why

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for why in [self._why]:
            raise httpx2.StreamError(why)
        yield b""

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _read_within_bounds(response: httpx2.Response) -> None:
    stream = response.stream
    if not isinstance(stream, httpx2.AsyncByteStream):
        return
    kind = response.headers.get("content-type", "").lower()
    request = _request_id(response.request)
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        # It was not asked for, and a few kilobytes may be gigabytes when they are unpacked.
        response.stream = _Refused(stream, "the server compressed its answer, which was not asked for")
    elif kind.startswith(_EVENTS):
        response.stream = _MendedEvents(stream)
    elif kind.startswith(_JSON) and request is not None and response.is_success:
        response.stream = _MendedBody(stream, request)
    else:
        response.stream = _BoundedBody(stream)


def _request_id(request: httpx2.Request) -> str | int | None:
    """The id of the JSON-RPC request in it; None for a notification, and for a GET."""
    if request.method != "POST":
        return None
    try:
        found = from_json(request.content).get("id")
    except (ValueError, AttributeError, httpx2.RequestNotRead):
        return None
    return found if isinstance(found, str | int) else None


async def _bound_end(request: httpx2.Request) -> None:
    """Bound the time of the request that ends a session: the server may be the reason why we leave."""
    if request.method == "DELETE":
        request.extensions = {**request.extensions, "timeout": httpx2.Timeout(DELETE_TIMEOUT).as_dict()}


async def _refuses_session(response: httpx2.Response) -> bool:
    """Whether the server does not know the session of the request, and so has not executed it."""
    if MCP_SESSION_ID not in response.request.headers:
        return False
    if response.status_code in (404, 410):
        return True
    if response.status_code != 400:
        return False
    try:
        body = (await response.aread())[:MAX_REFUSAL].decode("utf-8", "replace")
    except httpx2.StreamError:
        return False
    return str(types.INVALID_PARAMS) not in body and _UNKNOWN_SESSION.search(body) is not None


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    """Connects to addresses of the internet alone: to the very address that was looked at, since a name may resolve to
    another one a moment later. Uses no proxy, which would resolve the name itself."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host, scheme = request.url.raw_host.decode("ascii"), request.url.scheme
        try:
            found = await asyncio.to_thread(resolve, host, request.url.port or (443 if scheme == "https" else 80))
        except OSError:
            raise httpx2.ConnectError(f"All connection attempts failed: {host} is not known") from None
        # One is enough: a name that leads to the internet and inwards is meant to lead inwards.
        if (why := next((why for each in found if (why := why_refused(each)) is not None), None)) is not None:
            raise httpx2.ConnectError(f"The connection was refused here: {why} (the administrator's mcp_allow_private)")
        failure = httpx2.ConnectError("All connection attempts failed")
        for address in found:
            # The header ``Host`` is there already, with the name; the certificate is checked for the name, too.
            extensions = {**request.extensions, "sni_hostname": host}
            url = request.url.copy_with(host=address)
            guarded = httpx2.Request(
                request.method, url, headers=request.headers, stream=request.stream, extensions=extensions
            )
            try:
                return await super().handle_async_request(guarded)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = httpx2.ConnectError(str(error))
        raise failure


@asynccontextmanager
async def connect(
    config: ServerConfig, trace: guarded_process.Trace, session_gone: Callable[[str | int], None]
) -> AsyncIterator[TransportStreams]:
    """Streams to a running server. Failures of the network end them; ``trace`` gets the HTTP status of a refusal.

    ``session_gone`` is called with the id of a request that was refused because of the session, before its answer.
    """

    async def record_status(response: httpx2.Response) -> None:
        if response.request.method != "POST":
            return
        answer = f"The server answered {response.status_code} {response.reason_phrase}."
        trace.answered = answer if response.status_code >= 400 else ""
        request = _request_id(response.request)
        if request is not None and response.status_code >= 400 and await _refuses_session(response):
            session_gone(request)

    # No time-out for reading: a subscription can be silent for hours, and calls have their own.
    timeout, hooks = httpx2.Timeout(CONNECT_TIMEOUT, read=None), [_read_within_bounds, record_status]
    headers = {"Accept-Encoding": "identity"} | dict(config.headers)
    transport = await asyncio.to_thread(_GuardedTransport) if config.guarded else None  # it reads certificates
    async with (
        httpx2.AsyncClient(
            headers=headers,
            timeout=timeout,
            event_hooks={"request": [_bound_end], "response": hooks},
            transport=transport,
        ) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=stdio.MAX_MESSAGE) as streams,
    ):
        yield streams
