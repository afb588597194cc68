"""Coalescing of the events that providers stream, to save time of the event loop, which kernels share.

A token is an event of its own, and on its way through HTTP, the provider's package and pydantic-ai it takes 0.3 to 0.5
ms of processor time: 50 sessions at 50 tokens a second would need more than the whole loop. So after each read a stream
is left alone for a moment (15 ms; more when many answers stream at once, at most 100), and the events that came
meanwhile become one where they differ in their piece of text only: the same JSON, the pieces joined. An event that is
not understood is passed on as it came. Nothing waits longer than the moment, and the first piece not at all.

Text goes to the log ahead of the packages (:class:`DirectText`), which get the same text as one event after three
seconds, or when anything else comes. So order stays, and what they make of the response is the same.

Touches private attributes of pydantic-ai's streams (:func:`with_coalesced_streams`), as ``http_clients`` and
``encoded_messages`` do of its clients: each with what happens where a version has them not.
Imports pydantic_ai and httpx2: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import httpx2
from pydantic_ai.models import Model

from ...errors import RunFailed
from .connection_reading import read_whole
from .sse_text import EVENT_END, EventTooLarge, TextEvent, WellFormedEvents, joined

# Seconds between two reads of one stream: about a frame of a screen, so a reader sees no difference.
_SHORTEST_PAUSE = 0.015
_LONGEST_PAUSE = 0.1
_READING = 0.002  # seconds that it takes to read what has come meanwhile: some rounds of the loop
_READS_PER_SECOND = 500  # of all streams of this process together: at 1 to 2 ms each, what the loop can afford
_LANES = 5  # moments of a long pause at which streams are read, all of a lane in one round of the loop
_LANE = 10  # streams that are read in one round; with more there are more lanes
_READ_AHEAD = 2**20  # bytes that are read before the reader has taken them
_PIECES_PER_ROUND = 25  # pieces that are read before other tasks of the loop get their turn
_HELD = 3.0  # seconds after which the packages get the text that is in the log already
# pydantic-ai may change text with a character of no width, and hold it back; also a piece of nothing but space.
_ZERO_WIDTH = re.compile("[\u200b-\u200d\u2060\ufeff]")

_open = 0  # how many streams are being read in this process


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectText:
    """Where the text of one response goes ahead of the packages that read it.

    ``given``: the packages are given events, the last of them with this text, which they never change; None: any other.
    ``write``: write the text that comes next, which they get later. Whether it was: where it belongs is known once they
    have made a text of what they were given.
    """

    given: Callable[[str | None], None]
    write: Callable[[str], bool]


direct_text: ContextVar[DirectText | None] = ContextVar("navi_direct_text", default=None)
"""Set by who reads the stream of a request, around the request."""

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


def _rest() -> float:
    """Seconds for which a stream rests now: about its pause, until many others are due, too.

    What they bring is then written by one commit, and the loop sleeps in between.
    """
    pause = pause_of(_open)
    if _open <= _LANE:
        return pause
    lane = pause / max(_LANES, _open / _LANE)
    at = asyncio.get_running_loop().time()
    return max(lane, round((at + pause) / lane) * lane - at)


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
        response.stream = CoalescedStream(response.stream, direct_text.get())


class CoalescedStream(httpx2.AsyncByteStream):
    """A stream of server-sent events, read by a task of its own beside its reader.

    Iterated again, it goes on where it was: OpenAI's package leaves the first iteration at the last event, and reads
    what is left in a second one. Two readers of one connection would never end. So it ends when it is closed, not when
    an iteration is left; the owner of a response closes it.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, direct: DirectText | None = None) -> None:
        self._stream = stream
        self._texts = _Texts(direct)
        self._pieces: list[bytes] = []
        self._size = 0  # bytes of these
        self._taken = asyncio.Event()  # set when the reader has taken them
        self._events = WellFormedEvents()
        self._changed = asyncio.Event()  # set when there is something to take, or nothing more will come
        # Not set during a pause: nothing is read then, and one read gets all that has come.
        self._reading = asyncio.Event()
        self._whole = False  # whether one read gets all that has come
        self._waits = False  # whether the reader has taken all that there was, and waits for more
        self._left = b""  # complete events that the reader has to get, in the order before the pieces
        self._task: asyncio.Task[None] | None = None  # set at the first iteration

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._task is None:
            self._whole = read_whole(self._stream)
            self._task = asyncio.create_task(self._read(), name="navi-provider-stream")
        task = self._task
        self._reading.set()
        while not task.done() or self._pieces or self._left:
            self._waits = True
            try:
                await self._changed.wait()
            finally:
                self._waits = False
            pieces, self._pieces, self._size = self._pieces, [], 0
            left, self._left = self._left, b""
            self._taken.set()
            if not task.done():
                self._changed.clear()
            if passed := self._texts.passed(left + self._complete(b"".join(pieces))):
                await _own_round()
                yield passed
            if not task.done():
                self._texts.remind(self._changed)
                if pieces or left:  # else something is due: what is read now must not wait for another pause
                    await self._pause()
        if rest := self._texts.held() + self._events.rest():
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

    def _ahead(self, piece: bytes) -> bool:
        """Write the text that a piece begins with to the log. Whether the piece needs nothing of the reader any more.

        Only while the reader waits for more: then what it was given before has passed through the packages. It sleeps
        on where there was nothing but text, or the beginning of an event.
        """
        if not self._whole or not self._waits or self._pieces or self._left or self._changed.is_set():
            return False
        try:
            self._left = self._texts.ahead(self._events.add(piece))
        except EventTooLarge:
            return False  # the reader meets it again, and raises it
        self._texts.remind(self._changed)
        return True

    async def _pause(self) -> None:
        self._reading.clear()
        await asyncio.sleep(_rest())
        if not self._whole:
            await _own_round()
        self._reading.set()
        if not self._whole:
            await asyncio.sleep(_READING)

    async def aclose(self) -> None:
        """Close the connection."""
        self._texts.close()
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
                if self._ahead(piece):
                    if not self._left:
                        await asyncio.sleep(_rest())
                        continue
                else:
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


class _Texts:
    """What the reader of a stream gets of its events, and when."""

    def __init__(self, direct: DirectText | None) -> None:
        self._direct = direct
        # The last event that the reader got, without its pieces; then with those that went to the log since.
        self._last: TextEvent | None = None
        self._ahead = False  # whether there are such pieces
        self._due: asyncio.TimerHandle | None = None  # set while there are: when the reader gets them
        self._is_due = False

    def passed(self, events: bytes) -> bytes:
        """What goes on to the reader of these complete events, and of what is held for it."""
        raws = events.split(EVENT_END)[:-1]
        if self._direct is None:
            return b"".join(_written(one) for one in joined(raws))
        raws = self._not_ahead(raws)
        if not raws:
            return self.held() if self._is_due else b""
        held = self.held()
        rest = list(joined(raws))
        self._last = rest[-1] if isinstance(rest[-1], TextEvent) else None
        text = None if self._last is None else self._last.text
        self._direct.given(None if text is None or text.isspace() or _ZERO_WIDTH.search(text) else text)
        written = held + b"".join(_written(one) for one in rest)
        if self._last is not None:
            self._last.empty()
        return written

    def ahead(self, events: bytes) -> bytes:
        """Write the text that these complete events begin with to the log. Those that are left."""
        left = self._not_ahead(events.split(EVENT_END)[:-1])
        return b"".join(raw + EVENT_END for raw in left)

    def _not_ahead(self, raws: list[bytes]) -> list[bytes]:
        """Those that are left when the first, as far as they are text, are in the log."""
        pieces = self._plain_pieces(raws)
        if not pieces or self._last is None or self._direct is None or not self._direct.write("".join(pieces)):
            return raws
        self._last.take(pieces)
        self._ahead = True
        return raws[len(pieces) :]

    def _plain_pieces(self, raws: list[bytes]) -> list[str]:
        """The text of the first of these events, as many as differ from the last one in their text only."""
        pieces: list[str] = []
        if self._last is None:
            return pieces
        for raw in raws:
            piece = self._last.piece(raw)
            if piece is None or not (piece.isascii() or _ZERO_WIDTH.search(piece) is None):
                break
            pieces.append(piece)
        return pieces

    def held(self) -> bytes:
        """The event with the text that the reader has not got; nothing where there is none."""
        self.close()
        if not self._ahead or self._last is None or self._direct is None:
            return b""
        self._direct.given(self._last.text)
        event = self._last.written()
        self._last.empty()
        self._ahead = False
        return event

    def remind(self, changed: asyncio.Event) -> None:
        """Set the event when what is held has been held for long enough."""
        if self._ahead and self._due is None:
            self._due = asyncio.get_running_loop().call_later(_HELD, self._remind, changed)

    def close(self) -> None:
        """Nothing is due any more."""
        self._is_due = False
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _remind(self, changed: asyncio.Event) -> None:
        self._is_due = True
        changed.set()


def _written(event: TextEvent | bytes) -> bytes:
    return event.written() if isinstance(event, TextEvent) else event
