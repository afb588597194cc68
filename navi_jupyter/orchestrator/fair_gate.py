"""Lets a few through per turn of the event loop, in the order in which they came.

A flush wakes every follower at once; without this, one turn of the loop would write to all of them, and everything else
in this process (kernels) would wait for the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque


class FairGate:
    """``await passage()`` returns at once while this turn of the loop has room, else in a later turn."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._passed = 0  # in this turn. Above zero, the next turn's opening is scheduled.
        self._line: deque[asyncio.Future[None]] = deque()

    async def passage(self) -> None:
        """Wait for room. Cancelling gives the place in the line up."""
        if self._passed < self._per_turn and not self._line:
            self._count()
            return
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        await place

    def _count(self) -> None:
        self._passed += 1
        if self._passed == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._passed = 0
        while self._line and self._passed < self._per_turn:
            place = self._line.popleft()
            if not place.done():
                self._count()
                place.set_result(None)
