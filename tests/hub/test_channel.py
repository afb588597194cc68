"""The two ends of a link in one process, over sockets that break and refuse as real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from navi_jupyter.errors import KernelUnavailable, LimitReached
from navi_jupyter.server.bench.calls import Calls
from navi_jupyter.server.bench.channel import LARGEST_FRAME, Channel
from navi_jupyter.server.transfers.unfinished import LARGEST_MESSAGE


class Pipe:
    """A socket of one end: what it sends is taken by the other one. Takes what a WebSocket takes."""

    def __init__(self) -> None:
        self.to: Pipe | None = None
        self.channel: Channel | None = None
        self.refused: Exception | None = None

    def emit(self, text: str) -> None:
        assert len(text.encode()) <= LARGEST_MESSAGE
        if self.to is not None:  # what was sent arrives, also where it is closed then
            asyncio.get_running_loop().call_soon(self._pass, self.to, text)

    @staticmethod
    def _pass(to: Pipe, text: str) -> None:
        if to.channel is not None:
            try:
                to.channel.take(to, text)
            except ValueError as error:
                to.refused = error

    def hang_up(self, reason: str) -> None:
        self.to = None


def connect(one: Channel, other: Channel) -> tuple[Pipe, Pipe]:
    """Both go on over a new socket."""
    here, there = Pipe(), Pipe()
    here.to, there.to, here.channel, there.channel = there, here, one, other
    one_has, other_has = one.received, other.received
    one.attach(here, other_has)
    other.attach(there, one_has)
    return here, there


async def _echo(method: str, params: Mapping[str, Any], emit: Any) -> Any:
    if method == "emit":
        emit(object())
        emit("fits")
    return "x" * LARGEST_FRAME if method == "large" else params["value"]


async def _pair() -> tuple[Calls, Calls, tuple[Pipe, Pipe]]:
    caller, server = Calls("caller", _echo), Calls("server", _echo)
    return caller, server, connect(caller.channel, server.channel)


async def test_half_a_character_comes_over_as_it_is() -> None:
    caller, server, pipes = await _pair()
    text = "half an emoji: \ud83d, a file: \udcff"
    async with asyncio.timeout(5):
        assert await caller.call("echo", {"value": text}) == text
        assert await caller.call("echo", {"value": "é 漢"}) == "é 漢"
    assert not any(one.refused for one in pipes)
    for one in (caller, server):
        one.channel.end()


async def test_what_cannot_be_sent_fails_alone() -> None:
    caller, server, pipes = await _pair()
    seen: list[Any] = []
    async with asyncio.timeout(20):
        with pytest.raises(TypeError):
            await caller.call("echo", {"value": object()})
        with pytest.raises(LimitReached):
            await caller.call("echo", {"value": "x" * LARGEST_FRAME})
        with pytest.raises(LimitReached):
            await caller.call("large", {})
        assert await caller.call("emit", {"value": 1}, seen.append) == 1
        assert await caller.call("echo", {"value": "after"}) == "after"
    assert seen == ["fits"]
    assert not any(one.refused for one in pipes)
    for one in (caller, server):
        one.channel.end()


async def test_what_was_not_sent_cannot_be_confirmed() -> None:
    channel, socket = Channel("one", on_frame=lambda _: None, on_end=lambda: None), Pipe()
    channel.attach(socket, 0)
    channel.send({"some": "thing"})
    channel.take(socket, '{"received": 1}')
    with pytest.raises(ValueError, match="not sent"):
        channel.take(socket, '{"received": 2}')
    channel.end()


async def test_an_end_in_good_order_is_one_for_the_other_side_too() -> None:
    """A server that stops is not taken for one whose link may come back."""
    caller, server, _ = await _pair()
    waiting = asyncio.create_task(caller.call("echo", {"value": 1}))
    server.channel.end("the server is stopping")
    async with asyncio.timeout(2):
        with pytest.raises(KernelUnavailable):
            await waiting
    assert caller.channel.ended
