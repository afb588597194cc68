"""Coalescing of the events that providers stream, to save time of the event loop, which kernels share.

A token is an event of its own, and on its way through HTTP, the provider's package and pydantic-ai it takes 0.3 to 0.5
ms of processor time: 50 sessions at 50 tokens a second would need more than the whole loop. So after each read a stream
is left alone for a moment (15 ms; more when many answers stream at once, at most 100), and the events that came
meanwhile become one where they differ in their piece of text only: the same JSON, the pieces joined. An event that is
not understood is passed on as it came. Nothing waits longer than the moment, and the first piece not at all.

The one module that touches private attributes of pydantic-ai: :func:`with_coalesced_streams`.
Imports pydantic_ai and httpx2: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import httpx2
from pydantic_ai.models import Model

from ...errors import RunFailed
from .connection_reading import read_whole
from .sse_text import EVENT_END, EventTooLarge, WellFormedEvents

# Seconds between two reads of one stream: about a frame of a screen, so a reader sees no difference.
_SHORTEST_PAUSE = 0.015
_LONGEST_PAUSE = 0.1
_READING = 0.002  # seconds that it takes to read what has come meanwhile: some rounds of the loop
_READS_PER_SECOND = 500  # of all streams of this process together: at 1 to 2 ms each, what the loop can afford
_READ_AHEAD = 2**20  # bytes that are read before the reader has taken them
_PIECES_PER_ROUND = 25  # pieces that are read before other tasks of the loop get their turn
# Fields of an event that differ from one to the next and mean nothing for the text.
_VARYING = ("sequence_number", "obfuscation", "created")

_open = 0  # how many streams are being read in this process
# By loop: the stream that is worked on in the present round.
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def with_coalesced_streams(model: Model) -> Model:
    """The model, whose connections deliver streams coalesced.

    pydantic-ai has no public way to its HTTP client. Where a version does not have these private attributes, the model
    works as it is, only at a higher cost.
    """
    provider = model.provider
    client, factory = getattr(provider, "_own_http_client", None), getattr(provider, "_http_client_factory", None)
    if provider is not None and isinstance(client, httpx2.AsyncClient) and factory is not None:
        coalesce_streams(client)
        # The factory, too: pydantic-ai makes a new client after it closed the first.
        provider._http_client_factory = lambda: coalesce_streams(factory())  # noqa: SLF001
    return model


def coalesce_streams(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """The client, changed so that it delivers server-sent events coalesced."""
    hooks = client.event_hooks
    hooks["response"] = [*hooks["response"], _coalesce]
    client.event_hooks = hooks
    return client


def pause_of(streams: int) -> float:
    """Seconds for which a stream is left alone while ``streams`` are being read."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, streams / _READS_PER_SECOND))


async def _own_round() -> None:
    """Return in a round of the loop in which no other stream is worked on.

    A read costs a millisecond or two between two awaits. Many streams that are ready at once must not add up: kernels
    get their turn in between.
    """
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)


async def _coalesce(response: httpx2.Response) -> None:
    kind = response.headers.get("content-type", "")
    plain = response.headers.get("content-encoding", "identity") == "identity"
    if kind.startswith("text/event-stream") and plain and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = CoalescedStream(response.stream)


class CoalescedStream(httpx2.AsyncByteStream):
    """A stream of server-sent events, read by a task of its own beside its reader.

    Iterated again, it goes on where it was: OpenAI's package leaves the first iteration at the last event, and reads
    what is left in a second one. Two readers of one connection would never end. So it ends when it is closed, not when
    an iteration is left; the owner of a response closes it.
    """

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0  # bytes of these
        self._taken = asyncio.Event()  # set when the reader has taken them
        self._events = WellFormedEvents()
        self._changed = asyncio.Event()  # set when there is something to take, or nothing more will come
        # Not set during a pause: nothing is read then, and one read gets all that has come.
        self._reading = asyncio.Event()
        self._whole = False  # whether one read gets all that has come
        self._task: asyncio.Task[None] | None = None  # set at the first iteration

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._task is None:
            self._whole = read_whole(self._stream)
            self._task = asyncio.create_task(self._read(), name="navi-provider-stream")
        task = self._task
        self._reading.set()
        while not task.done() or self._pieces:
            await self._changed.wait()
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._taken.set()
            if not task.done():
                self._changed.clear()
            if complete := self._complete(b"".join(pieces)):
                await _own_round()
                yield _coalesced(complete)
            if not task.done():
                await self._pause()
        if rest := self._events.rest():
            yield rest
        if task.cancelled():
            raise httpx2.ReadError("The stream was closed while it was read.")
        task.result()

    def _complete(self, data: bytes) -> bytes:
        try:
            return self._events.add(data)
        except EventTooLarge as error:
            # No package knows this error, so it passes through all of them, and a run has its code.
            message = f"The provider's answer cannot be read: {error}. Try again, or switch to another model."
            raise RunFailed(message, run_code="answer_too_long") from None

    async def _pause(self) -> None:
        self._reading.clear()
        await asyncio.sleep(pause_of(_open))
        if not self._whole:
            await _own_round()
        self._reading.set()
        if not self._whole:
            await asyncio.sleep(_READING)

    async def aclose(self) -> None:
        """Close the connection."""
        if (task := self._task) is not None:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio warns of it: the reader has got it, or has left
        await self._stream.aclose()

    async def _read(self) -> None:
        global _open
        _open += 1
        try:
            async for piece in self._stream:
                self._pieces.append(piece)
                self._size += len(piece)
                self._changed.set()
                if self._whole:
                    self._reading.clear()
                await self._reading.wait()
                while self._size > _READ_AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
                if len(self._pieces) % _PIECES_PER_ROUND == 0:
                    await asyncio.sleep(0)
        finally:
            _open -= 1
            self._changed.set()


def _coalesced(events: bytes) -> bytes:
    """Complete events, where those in a row that differ in their text only have become one."""
    if events.count(EVENT_END) < 2:
        return events
    return b"".join(_groups(events.split(EVENT_END)[:-1]))


def _groups(events: Sequence[bytes]) -> Iterator[bytes]:
    group: _TextEvent | None = None
    for raw in events:
        event = _text_event(raw)
        if group is not None and event is not None and group.join(event):
            continue
        if group is not None:
            yield group.written()
        group = event
        if event is None:
            yield raw + EVENT_END
    if group is not None:
        yield group.written()


class _TextEvent:
    """One event with a piece of text in it, and the pieces of those that were joined to it."""

    def __init__(self, raw: bytes, head: bytes, body: dict[str, Any], path: tuple[str | int, ...]) -> None:
        self._raw = raw
        self._head = head
        self._body = body
        self._path = path
        self._pieces = [_get(body, path)]
        _put(body, path, "")

    def join(self, other: _TextEvent) -> bool:
        """Take the piece of another one, if all else in it is the same. Whether it was."""
        if (self._head, self._path) != (other._head, other._path) or _fixed(self._body) != _fixed(other._body):
            return False
        self._pieces += other._pieces
        self._body = other._body
        return True

    def written(self) -> bytes:
        """As it goes on to the reader."""
        if len(self._pieces) == 1:
            return self._raw + EVENT_END
        _put(self._body, self._path, "".join(self._pieces))
        return self._head + json.dumps(self._body).encode() + EVENT_END


def _text_event(raw: bytes) -> _TextEvent | None:
    """The event, if it carries a piece of text; else None."""
    at = 0 if raw.startswith(b"data: ") else raw.find(b"\ndata: ") + 1
    head, data = raw[: at + 6], raw[at + 6 :]
    if not head.endswith(b"data: ") or b"\n" in data or (at and head.count(b"\n") != 1):
        return None
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    path = _text_path(body) if isinstance(body, dict) else None
    return None if path is None else _TextEvent(raw, head, body, path)


def _text_path(body: dict[str, Any]) -> tuple[str | int, ...] | None:
    """Where the piece of text is, in the formats of OpenAI (both protocols) and Anthropic."""
    match body:
        case {"choices": [{"delta": {"content": str(), **more}, "finish_reason": None}]} if not _has_more(more):
            return ("choices", 0, "delta", "content")
        case {"choices": [{"delta": {"reasoning_content": str(), **more}, "finish_reason": None}]} if not _has_more(
            more
        ):
            return ("choices", 0, "delta", "reasoning_content")
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str()}}:
            return ("delta", "text")
        case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": str()}}:
            return ("delta", "thinking")
        case {"type": "response.output_text.delta" | "response.reasoning_summary_text.delta", "delta": str()}:
            return None if body.get("logprobs") else ("delta",)
        case _:
            return None


def _has_more(more: Mapping[Any, Any]) -> bool:
    """Whether a delta has anything besides its text."""
    return any(value for name, value in more.items() if name != "role")


def _fixed(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _VARYING}


def _get(body: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        body = body[step]
    return body


def _put(body: Any, path: Sequence[str | int], text: str) -> None:
    _get(body, path[:-1])[path[-1]] = text
