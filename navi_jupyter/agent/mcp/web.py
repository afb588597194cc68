"""The HTTP client of the streamable HTTP transport: the configured headers, and answers that are bounded in size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from .config import ServerConfig
from .stdio import MAX_MESSAGE, Trace

CONNECT_TIMEOUT = 15.0


class _TooLarge(httpx2.StreamError):
    """The SDK makes an answer of this kind of error."""


class _Bounded(httpx2.AsyncByteStream):
    """A body that fails once it is longer than a message may be."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_MESSAGE:
                raise _TooLarge(f"the answer is too large (more than {MAX_MESSAGE // 1_000_000} MB)")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Streams of events have their bound per event, from the SDK."""
    kind = response.headers.get("content-type", "").lower()
    if not kind.startswith("text/event-stream") and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


def _client(headers: Mapping[str, str], trace: Trace) -> httpx2.AsyncClient:
    async def note(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            told = f"The server answered {response.status_code} {response.reason_phrase}."
            trace.answered = told if response.status_code >= 400 else ""

    # No time-out for reading: a listening stream is silent for hours, and calls have their own.
    timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=None)
    return httpx2.AsyncClient(headers=dict(headers), timeout=timeout, event_hooks={"response": [_bound, note]})


@asynccontextmanager
async def connect(config: ServerConfig, trace: Trace) -> AsyncIterator[TransportStreams]:
    """Streams to a server that runs already. Failures of the network end them; ``trace`` gets what it answers then."""
    async with (
        _client(config.headers, trace) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=MAX_MESSAGE) as streams,
    ):
        yield streams
