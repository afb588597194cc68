"""A channel between a user's server and the service: frames in order, each once, over WebSockets that break.

Either side numbers its frames, keeps them until the other one has confirmed them, and sends them again over the next
socket. A message is a JSON object: ``frame`` with its number ``n``, and ``received``, the number up to which all has
come from the other side. One without a frame is sent every :data:`PERIOD` seconds: it confirms, and shows that the
other side is there. ``over`` ends the channel; without a socket for :data:`GRACE` seconds it ends by itself.
Not responsible for what frames mean (``calls``), or for how sockets are opened. Imports nothing heavy.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import LimitReached
from ...log_setup import get_logger
from ..transfers.unfinished import LARGEST_MESSAGE

log = get_logger("bench")

PERIOD = 5.0  # seconds between messages of a side that has nothing to send
SILENT = 15.0  # seconds without a message after which a socket counts as broken
GRACE = 7.0  # seconds without a socket after which the channel ends; a server's own lease is trusted for as long
CONFIRM_AFTER = 32  # frames that are received until they are confirmed without waiting for the period
MOST_KEPT = 256 * 2**20  # characters that wait to be confirmed; more of them end the channel
LARGEST_FRAME = LARGEST_MESSAGE - 1024  # bytes; the rest is for what a message has around it

Frame = Mapping[str, Any]


class ChannelSocket(Protocol):
    """A socket as the channel uses it. Neither method blocks or raises."""

    def emit(self, text: str) -> None: ...

    def hang_up(self, reason: str) -> None: ...


class Channel:
    """One side of a channel. Belongs to the event loop."""

    def __init__(self, name: str, *, on_frame: Callable[[Frame], None], on_end: Callable[[], None]) -> None:
        """``on_frame``: called with each frame, in order; ``on_end``: once, when the channel has ended for good."""
        self.name = name
        self.received = 0  # the number of the last frame that came
        self.ended = False
        self._on_frame, self._on_end = on_frame, on_end
        self._sent = 0
        self._kept: deque[tuple[int, str]] = deque()  # what is not confirmed, as JSON
        self._size = 0  # characters of that
        self._confirmed = 0  # of what was received, the last number that the other side knows of
        self._socket: ChannelSocket | None = None
        self._heard = 0.0  # when the socket's last message came, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = self._in(GRACE, self.end)

    @property
    def attached(self) -> bool:
        """Whether it has a socket."""
        return self._socket is not None

    def send(self, frame: Frame) -> None:
        """Have the other side get it; nothing once the channel has ended.

        Raises LimitReached for more than :data:`LARGEST_FRAME`, and what ``json.dumps`` raises. It is not sent then.
        """
        if self.ended:
            return
        text = _encoded(frame)  # before it has a number: the other side takes no gap, over no socket ever
        self._sent += 1
        self._kept.append((self._sent, text))
        self._size += len(text)
        if self._size > MOST_KEPT:
            log.error("bench_channel_full", channel=self.name, size=self._size)
            self.end()
        elif self._socket is not None:
            self._emit(self._sent, text)

    def attach(self, socket: ChannelSocket, received: int) -> None:
        """Go on with this socket; ``received``: the number of the last frame that the other side has."""
        self.detach(self._socket, "there is a newer socket")
        self._cancel_grace()
        self._socket = socket
        self._heard = asyncio.get_running_loop().time()
        self._confirm(received)
        for number, text in list(self._kept):
            self._emit(number, text)
        self._tick()

    def detach(self, socket: ChannelSocket | None, reason: str = "it is closed") -> None:
        """The socket is gone. Without another one the channel ends in a moment."""
        if socket is None or self._socket is not socket:
            return
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
        socket.hang_up(reason)
        if not self.ended:
            self._grace = self._in(GRACE, self.end)

    def take(self, socket: ChannelSocket, message: str) -> None:
        """A message of the socket. Raises ValueError for one that breaks the protocol."""
        if self._socket is not socket or self.ended:
            return
        self._heard = asyncio.get_running_loop().time()
        found = json.loads(message)
        if not isinstance(found, dict) or not isinstance(found.get("received"), int):
            raise ValueError("a message is an object that says what was received")  # noqa: TRY004 - one kind for all
        if found["received"] > self._sent:
            raise ValueError("it has received what was not sent")
        self._confirm(found["received"])
        if found.get("over"):
            self.end()
            return
        number, frame = found.get("n"), found.get("frame")
        if frame is None:
            return
        if not isinstance(frame, dict) or not isinstance(number, int) or number > self.received + 1:
            raise ValueError("frames are objects, and numbered without a gap")
        if number <= self.received:
            return  # it came before the socket broke
        self.received = number
        if self.received - self._confirmed >= CONFIRM_AFTER:
            self._confirm_received()
        self._on_frame(frame)

    def end(self, reason: str = "the channel is over") -> None:
        """For good, on both sides: nothing comes and goes any more."""
        if self.ended:
            return
        self.ended = True
        self._cancel_grace()
        if self._socket is not None:
            self._socket.emit(f'{{"received":{self.received},"over":true}}')
        self.detach(self._socket, reason)
        self._kept.clear()
        self._on_end()

    def _confirm(self, received: int) -> None:
        while self._kept and self._kept[0][0] <= received:
            self._size -= len(self._kept.popleft()[1])

    def _emit(self, number: int, text: str) -> None:
        if self._socket is not None:
            self._confirmed = self.received
            self._socket.emit(f'{{"n":{number},"received":{self.received},"frame":{text}}}')

    def _confirm_received(self) -> None:
        if self._socket is not None:
            self._confirmed = self.received
            self._socket.emit(f'{{"received":{self.received}}}')

    def _tick(self) -> None:
        if asyncio.get_running_loop().time() - self._heard > SILENT:
            self.detach(self._socket, "the other side is silent")
            return
        self._confirm_received()
        self._timer = self._in(PERIOD, self._tick)

    def _cancel_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    @staticmethod
    def _in(seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, then)


def _encoded(frame: Frame) -> str:
    """As JSON that a WebSocket takes. What it does not take would be refused again over each next socket."""
    text = json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half a surrogate pair, as notebooks and the names of files have: UTF-8 has none
        text = json.dumps(frame, separators=(",", ":"))
        size = len(text)
    if size > LARGEST_FRAME:
        raise LimitReached(
            f"This is larger than {LARGEST_FRAME} bytes, the most that the link to a server takes at once."
        )
    return text
