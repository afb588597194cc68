"""What clients have begun and not finished: messages and bodies that arrive, answers that are not read, connections.

All of it takes memory that only the client can end, so it is bounded: in bytes and connections for each user, in bytes
for all of them, in time by the least rate at which a client must go on. What is complete is not counted here.
Not responsible for reading or writing (``websocket_protocol``, ``handler``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from ...errors import InputTimeout, LimitReached, NaviError
from ...settings import Settings

if TYPE_CHECKING:
    from tornado.web import RequestHandler

PATIENCE = 30.0  # seconds that a client has for any message, body or answer
LEAST_RATE = 4096  # bytes a second that it must go on with after that: a bad network has more
LARGEST_MESSAGE = 48 * 2**20  # bytes of a frame of a loan: all the displays that one execution may leave, escaped
LEAST_ROOM = 128 * 2**20  # bytes for one user: some uploads and loans at once
USERS = 4  # how many users may take all their room at the same time
MOST_CONNECTIONS = 200  # sockets and event streams of one user: a page has one for each open session


class Unfinished:
    """The room for what is unfinished, by user. One for each server process."""

    def __init__(self, settings: Settings) -> None:
        largest = max(LARGEST_MESSAGE, settings.max_message_bytes, settings.max_attachment_bytes)
        self._most_per_owner = max(LEAST_ROOM, 2 * largest)  # a larger limit of the administrator's can be used
        self._most = USERS * self._most_per_owner
        self._total = 0
        self._by_owner: Counter[str] = Counter()
        # Weak: not all of tornado's ways to end a socket that is being opened are reported to its handler.
        self._connections: dict[str, WeakSet[RequestHandler]] = {}

    def take(self, owner: str, count: int) -> None:
        """Raises LimitReached, and takes nothing then."""
        if self._by_owner[owner] + count > self._most_per_owner:
            raise LimitReached(
                f"What you send and have not finished, and what you do not read, is more than {self._most_per_owner} "
                "bytes over all connections. Finish or close some."
            )
        if self._total + count > self._most:
            raise LimitReached("This server receives too much at once. Try again in a moment.")
        self._by_owner[owner] += count
        self._total += count

    def give_back(self, owner: str, count: int) -> None:
        """After ``take`` of as much."""
        self._total -= count
        self._by_owner[owner] -= count
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    def require_connection(self, owner: str) -> None:
        """Raises LimitReached when the user has as many sockets and streams as one user may have."""
        if len(self._connections.get(owner, ())) >= MOST_CONNECTIONS:
            raise LimitReached(f"You have {MOST_CONNECTIONS} open sockets and event streams. Close some first.")

    def connect(self, owner: str, connection: RequestHandler) -> None:
        """``connection`` is open until it is given to ``disconnect``. Call ``require_connection`` just before."""
        self._connections.setdefault(owner, WeakSet()).add(connection)

    def connections(self) -> list[RequestHandler]:
        """All sockets and event streams that are open."""
        return [one for connections in self._connections.values() for one in connections]

    def disconnect(self, owner: str, connection: RequestHandler) -> None:
        """It is closed. Also for one that was never opened."""
        connections = self._connections.get(owner)
        if connections is not None:
            connections.discard(connection)
            if not connections:
                del self._connections[owner]


class Transfer:
    """One message, body or answer on its way. Begins when it is made; to be ended by ``end``."""

    def __init__(self, unfinished: Unfinished, owner: str, give_up: Callable[[NaviError], None]) -> None:
        """``give_up`` is called once at most, when the client does not go on; not after ``end``."""
        self._unfinished = unfinished
        self._owner = owner
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._moved = 0  # bytes that came or went, for the rate
        self._held = 0  # bytes of memory
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(PATIENCE, self._check)

    def hold(self, count: int) -> None:
        """``count`` more bytes are in memory. Raises LimitReached."""
        self._unfinished.take(self._owner, count)
        self._held += count

    def hold_only(self, count: int) -> None:
        """Of what is held, ``count`` bytes are left."""
        if count < self._held:
            self._unfinished.give_back(self._owner, self._held - count)
            self._held = count

    def move(self, count: int) -> None:
        """The client went on by ``count`` bytes."""
        self._moved += count

    def complete(self) -> None:
        """Nothing more is awaited of the client. What is held stays until ``end``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Nothing is held any more. Does nothing the second time."""
        self.complete()
        self.hold_only(0)

    def _check(self) -> None:
        left = self._began + PATIENCE + self._moved / LEAST_RATE - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self._timer = None
        self._give_up(InputTimeout(f"Nothing or too little came for {PATIENCE:.0f} seconds. Send it again at once."))
