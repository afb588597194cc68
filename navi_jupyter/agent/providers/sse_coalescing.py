"""What a provider streams, taken in strides: the event loop is shared with kernels, and each event costs it dearly.

A model's token is an event of its own, and on its way through HTTP, the provider's package and pydantic-ai it takes 0.3
to 0.5 ms of processor time: 50 sessions at 50 tokens a second would need more than the whole loop. So after each piece
the stream is left alone for a moment (15 ms; more when many answers stream at once, at most 100), and the events that
came meanwhile become one where they differ in their piece of text only: the same JSON, the pieces in a row. What is
not understood is passed on as it came. Nothing waits longer than the moment, and the first piece not at all.

Imports httpx2: only modules that :mod:`.driver` loads may import this one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import httpx2

_SHORTEST = 0.015
"""Seconds between two looks at one stream: what a screen shows."""
_LONGEST = 0.1
_SIP = 0.002
"""Seconds that it takes to read what has come meanwhile: some rounds of the loop."""
_LOOKS = 500
"""Looks per second that all streams of this process may take together."""
_BLANK = b"\n\n"
_DIFFERS = ("sequence_number", "obfuscation", "created")
"""Fields of an event that differ from one to the next and mean nothing for the text."""

_SIPS = 25
"""Pieces that are read without letting others at the loop."""

_open = 0
"""How many streams are being read in this process."""
_doors: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""By loop: who goes through next."""


def moment(streams: int) -> float:
    """Seconds for which a stream is left alone while ``streams`` are being read."""
    return min(_LONGEST, max(_SHORTEST, streams / _LOOKS))


def gathers(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """The client, whose streamed answers come in strides from now on."""
    hooks = client.event_hooks
    hooks["response"] = [*hooks["response"], _gather]
    client.event_hooks = hooks
    return client


async def _in_turn() -> None:
    """Return in a round of the loop in which no other stream is worked on: many that are ready at once must not add up.

    What is done between two awaits is a millisecond or two for each of them; kernels get their turn in between.
    """
    async with _doors.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)


async def _gather(response: httpx2.Response) -> None:
    kind = response.headers.get("content-type", "")
    plain = response.headers.get("content-encoding", "identity") == "identity"
    if kind.startswith("text/event-stream") and plain and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = Gathered(response.stream)


class Gathered(httpx2.AsyncByteStream):
    """A stream of server-sent events, read by a task of its own while the reader is at work or at rest.

    Iterated again, it goes on where it was: OpenAI's package leaves the first iteration at the last event, and reads
    what is left in a second one. Two readers of one connection would never end. So it ends when it is closed, not when
    an iteration is left; whoever has a response closes it.
    """

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._pieces: list[bytes] = []
        self._rest = b""
        """The beginning of an event."""
        self._news = asyncio.Event()
        """Set when there is something to take, or nothing more will come."""
        self._wanted = asyncio.Event()
        """Not set while the reader rests: then nothing is read, and one reading gets all that has come."""
        self._pump: asyncio.Task[None] | None = None
        """Set at the first iteration."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._pump is None:
            self._pump = asyncio.create_task(self._read(), name="navi-provider-stream")
        pump = self._pump
        self._wanted.set()
        while not pump.done() or self._pieces:
            await self._news.wait()
            pieces, self._pieces = self._pieces, []
            if not pump.done():
                self._news.clear()
            whole, self._rest = _split(self._rest + b"".join(pieces))
            if whole:
                await _in_turn()
                yield _joined(whole)
            if not pump.done():
                await self._pause()
        rest, self._rest = self._rest, b""
        if rest:
            yield rest
        if pump.cancelled():
            raise httpx2.ReadError("The stream was closed while it was read.")
        pump.result()

    async def _pause(self) -> None:
        self._wanted.clear()
        await asyncio.sleep(moment(_open))
        await _in_turn()
        self._wanted.set()
        await asyncio.sleep(_SIP)

    async def aclose(self) -> None:
        """Hang up."""
        await self._end()
        await self._stream.aclose()

    async def _read(self) -> None:
        global _open
        _open += 1
        try:
            async for piece in self._stream:
                self._pieces.append(piece)
                self._news.set()
                await self._wanted.wait()
                if len(self._pieces) % _SIPS == 0:
                    await asyncio.sleep(0)
        finally:
            _open -= 1
            self._news.set()

    async def _end(self) -> None:
        pump = self._pump
        if pump is None:
            return
        if not pump.done():
            pump.cancel()
            await asyncio.wait({pump})
        if pump.done() and not pump.cancelled():
            pump.exception()  # it was raised to the reader, or nobody is left to hear of it


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The complete events, and the beginning of the next one. Other line ends than LF: all of it."""
    if b"\r" in data:
        return data, b""
    end = data.rfind(_BLANK) + len(_BLANK) if _BLANK in data else 0
    return data[:end], data[end:]


def _joined(events: bytes) -> bytes:
    """Complete events, with those in a row as one that differ in their text only."""
    if events.count(_BLANK) < 2 or b"\r" in events:  # one alone can not be joined
        return events
    return b"".join(_runs(events.split(_BLANK)[:-1]))


def _runs(events: Sequence[bytes]) -> Iterator[bytes]:
    run: _Run | None = None
    for raw in events:
        event = _read_event(raw)
        if run is not None and event is not None and run.takes(event):
            continue
        if run is not None:
            yield run.written()
            run = None
        if event is None:
            yield raw + _BLANK
        else:
            run = event
    if run is not None:
        yield run.written()


class _Run:
    """One event with a piece of text in it, and those that were joined to it."""

    def __init__(self, raw: bytes, head: bytes, body: dict[str, Any], place: tuple[str | int, ...]) -> None:
        self._raw = raw
        self._head = head
        self._body = body
        self._place = place
        self._pieces = [_at(body, place)]
        _put(body, place, "")

    def takes(self, other: _Run) -> bool:
        """Join another one, if it says the same about its piece of text."""
        if (self._head, self._place) != (other._head, other._place) or _same(self._body) != _same(other._body):
            return False
        self._pieces += other._pieces
        self._body = other._body
        return True

    def written(self) -> bytes:
        """As it goes on to the reader."""
        if len(self._pieces) == 1:
            return self._raw + _BLANK
        _put(self._body, self._place, "".join(self._pieces))
        return self._head + json.dumps(self._body).encode() + _BLANK


def _read_event(raw: bytes) -> _Run | None:
    """An event that carries a piece of text; None for all others."""
    at = 0 if raw.startswith(b"data: ") else raw.find(b"\ndata: ") + 1
    head, data = raw[: at + 6], raw[at + 6 :]
    if not head.endswith(b"data: ") or b"\n" in data or (at and head.count(b"\n") != 1):
        return None
    try:
        body = json.loads(data)
    except ValueError:
        return None
    place = _place(body) if isinstance(body, dict) else None
    return None if place is None else _Run(raw, head, body, place)


def _place(body: dict[str, Any]) -> tuple[str | int, ...] | None:
    """Where the piece of text is."""
    match body:
        case {"choices": [{"delta": {"content": str(), **more}, "finish_reason": None}]} if not _says(more):
            return ("choices", 0, "delta", "content")
        case {"choices": [{"delta": {"reasoning_content": str(), **more}, "finish_reason": None}]} if not _says(more):
            return ("choices", 0, "delta", "reasoning_content")
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str()}}:
            return ("delta", "text")
        case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": str()}}:
            return ("delta", "thinking")
        case {"type": "response.output_text.delta" | "response.reasoning_summary_text.delta", "delta": str()}:
            return None if body.get("logprobs") else ("delta",)
        case _:
            return None


def _says(more: Mapping[Any, Any]) -> bool:
    return any(value for name, value in more.items() if name != "role")


def _same(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _DIFFERS}


def _at(body: Any, place: Sequence[str | int]) -> Any:
    for step in place:
        body = body[step]
    return body


def _put(body: Any, place: Sequence[str | int], text: str) -> None:
    _at(body, place[:-1])[place[-1]] = text
