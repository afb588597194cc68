"""Event streams: pages of a log as server-sent events, for as long as the client reads them.

Not responsible for what the pages hold (``orchestrator``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from ..http import EventStream

KEEP_ALIVE = 15.0  # seconds of silence after which a comment is sent: proxies close a silent connection after 60

_SNAPSHOT = ',"snapshot":true}'  # only the text of a snapshot's envelope ends like this


def encode(envelopes: Sequence[tuple[int, str]]) -> str:
    """The envelopes ``(seq, JSON text)`` as events.

    The events of a snapshot all have the same ``seq``. Only the last one has an id: a client whose connection broke in
    the middle of a snapshot must not come back with a cursor that skips the rest of it.
    """
    last = len(envelopes) - 1
    return "".join(
        f"data: {text}\n\n" if index != last and text.endswith(_SNAPSHOT) else f"id: {seq}\ndata: {text}\n\n"
        for index, (seq, text) in enumerate(envelopes)
    )


async def stream_events(handler: RequestHandler, stream: EventStream, gone: asyncio.Event) -> None:
    """Write pages as they come, until the client goes (``gone`` is set), the session is deleted or the server stops.

    A client that does not read blocks only its own loop here: there is no queue that could grow.
    """
    handler.set_header("Content-Type", "text/event-stream; charset=utf-8")
    handler.set_header("Cache-Control", "no-cache, no-transform")
    handler.set_header("X-Accel-Buffering", "no")
    if handler.request.method == "HEAD":
        return
    with suppress(StreamClosedError):
        await handler.flush()
        async with aclosing(with_silences(stream.pages, KEEP_ALIVE, gone)) as pages:
            async for envelopes in pages:
                handler.write(encode(envelopes) if envelopes else ": keep-alive\n\n")
                await handler.flush()


async def with_silences(
    pages: AsyncGenerator[Sequence[tuple[int, str]]], period: float, gone: asyncio.Event
) -> AsyncGenerator[Sequence[tuple[int, str]]]:
    """The pages, and an empty one after each ``period`` seconds without, until ``gone`` is set. Closes ``pages``."""
    leaving: asyncio.Future[Any] = asyncio.ensure_future(gone.wait())
    coming: asyncio.Future[Any] | None = None
    try:
        while not gone.is_set():
            coming = coming or asyncio.ensure_future(anext(pages))
            # wait, not wait_for, which would cancel a page that takes longer than the period.
            await asyncio.wait((coming, leaving), timeout=period, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield ()
                continue
            try:
                page: Sequence[tuple[int, str]] = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield page
    finally:
        leaving.cancel()
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await pages.aclose()
