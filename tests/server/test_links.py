"""Links of users' servers without sockets: which of two processes may work there, and what tools a server offers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from navi_jupyter.agent.profiles.definitions import PROFILES
from navi_jupyter.clock import now
from navi_jupyter.errors import InvalidRequest, LeaseLost, LimitReached
from navi_jupyter.model.sessions import USER, Session
from navi_jupyter.ports.agent import ToolContext
from navi_jupyter.ports.jupyter_access import JupyterAccess
from navi_jupyter.ports.stop import StopSignal
from navi_jupyter.server.bench import server_tools
from navi_jupyter.server.bench.calls import Calls, EpochFence
from navi_jupyter.server.bench.links import MOST_LINKS, ServerLinks
from navi_jupyter.server.bench.server_tools import ServerTools


class Pipe:
    """A socket whose other end is in this process. Implements ``channel.ChannelSocket``."""

    def __init__(self) -> None:
        self.other: Callable[[str], None] = lambda _: None

    def emit(self, text: str) -> None:
        asyncio.get_running_loop().call_soon(lambda: self.other(text))

    def hang_up(self, reason: str) -> None:
        """Nothing to close."""


def linked(serve: Callable[[Mapping[str, Any]], Any]) -> Calls:
    """The service's end of a link to a server that serves ``serve``."""

    async def at_server(_: str, params: Mapping[str, Any], emit: Callable[[Any], None]) -> Any:
        return await serve(params)

    async def at_service(*_: Any) -> None:
        raise AssertionError

    near, far = Calls("service", at_service), Calls("server", at_server)
    one, two = Pipe(), Pipe()
    one.other = lambda text: far.channel.take(two, text)
    two.other = lambda text: near.channel.take(one, text)
    far.channel.attach(two, 0)
    near.channel.attach(one, 0)
    return near


class FencedServer:
    """Does what it is called for, behind a fence; one for all links."""

    def __init__(self) -> None:
        self.fence = EpochFence()
        self.done: list[str] = []
        self.begun = asyncio.Event()

    async def serve(self, params: Mapping[str, Any]) -> str:
        await self.fence.enter(params["session"], params["epoch"])
        self.done.append(f"begins {params['epoch']}")
        self.begun.set()
        try:
            await asyncio.sleep(params["seconds"])
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # as a kernel takes a moment to come back
            self.done.append(f"cut {params['epoch']}")
            raise
        self.done.append(f"ends {params['epoch']}")
        return "done"


def about(epoch: int, seconds: float = 0.0, session: str = "s_1") -> dict[str, Any]:
    return {"session": session, "epoch": epoch, "seconds": seconds}


async def test_a_later_epoch_ends_what_an_earlier_one_has_begun_before_it_begins() -> None:
    server = FencedServer()
    first, second = linked(server.serve), linked(server.serve)
    cut = asyncio.create_task(first.call("work", about(1, 60.0)))
    await server.begun.wait()
    assert await second.call("work", about(2)) == "done"
    assert server.done == ["begins 1", "cut 1", "begins 2", "ends 2"]
    with pytest.raises(Exception, match="cancelled"):
        await cut
    first.channel.end()
    second.channel.end()


async def test_an_earlier_epoch_is_refused_after_a_later_one_and_only_in_its_session() -> None:
    server = FencedServer()
    first, second = linked(server.serve), linked(server.serve)
    await second.call("work", about(2))
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await first.call("work", about(1))
    assert await first.call("work", about(1, session="s_2")) == "done"
    assert await first.call("work", about(2)) == "done", "the same epoch goes on"
    assert server.done == ["begins 2", "ends 2", "begins 1", "ends 1", "begins 2", "ends 2"]
    first.channel.end()
    second.channel.end()


# --- tools -----------------------------------------------------------------------------------------------------------


class RawServer:
    """A server's end of a link, which says of its tools what a test wants."""

    def __init__(self, links: ServerLinks, owner: str) -> None:
        self.tools: list[dict[str, Any]] = []
        self.digest = "d1"
        self.delay = 0.0
        self.sent = 0
        """Lists that were sent as a whole."""
        self.called: list[Mapping[str, Any]] = []
        to_server, to_service = Pipe(), Pipe()
        self.calls = Calls(owner, self._serve)
        to_server.other = lambda text: None if "welcome" in text else self.calls.channel.take(to_service, text)
        self.calls.channel.attach(to_service, 0)
        hello = {"bench": "b", "server": "", "received": {}, "attached": []}
        self.channel = links.open(hello, to_server, owner=owner)
        assert self.channel is not None
        to_service.other = lambda text: self.channel.take(to_server, text)  # type: ignore[union-attr]

    async def _serve(self, method: str, params: Mapping[str, Any], emit: Callable[[Any], None]) -> Any:
        await asyncio.sleep(self.delay)
        if method == "tools.call":
            self.called.append(params)
            return {"content": "done", "images": [], "failed": False}
        if method != "tools.offered":
            raise InvalidRequest("an earlier version")
        known = params["args"]["have"] == self.digest
        self.sent += not known
        return {"digest": self.digest, "tools": None if known else self.tools}


def tool(name: str, source: str = "kernel", **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}}
    return {"name": name, "description": "d", "parameters": schema, "effect": "read", "source": source} | fields


def context_of(owner: str, *, needs_server: bool = True) -> ToolContext:
    session = Session(
        id="s_1", owner=owner, title="t", profile="assistant", model="offline", created_at=now(), updated_at=now()
    )
    unused = cast("Any", None)
    context = ToolContext(
        user_id=owner, session=session, run_id="r_1", origin=USER, stop=StopSignal(), recalls=unused, library=unused
    )
    return replace(context, jupyter=JupyterAccess(files=cast("Any", object()))) if needs_server else context


@asynccontextmanager
async def linked_server() -> AsyncIterator[tuple[RawServer, ServerTools]]:
    """Alice's server and the source of its tools; the link ends with the test."""

    async def processes() -> list[Any]:
        return []

    links = ServerLinks(processes)
    links.process_id = "p"
    server = RawServer(links, "alice")
    try:
        yield server, ServerTools(links, lambda name, _: PROFILES[name])
    finally:
        server.calls.channel.end()
        await links.stop()


async def test_what_a_server_offers_is_checked_before_a_model_has_it() -> None:
    async with linked_server() as (server, source):
        server.tools = [
            tool("good"),
            tool("as_if", "builtin"),
            tool("bad name"),
            tool("odd", "mcp:all", parameters={"type": "array"}),
            tool("long", "package:p", description="x" * 3_000_000),
        ]
        assert [one.name for one in await source.tools(context_of("alice"))] == ["good"]
        why = {one.name: one.why for one in await source.known(context_of("alice")) if one.tool is None}
        assert set(why) == {"as_if", "bad name", "odd", "long"}
        assert all(text.startswith("It cannot be used: ") for text in why.values())


async def test_a_list_that_is_known_is_not_sent_again_and_is_there_while_the_server_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked_server() as (server, source):
        server.tools = [tool("one")]
        context = context_of("alice")
        for _ in range(3):
            assert [one.name for one in await source.tools(context)] == ["one"]
        assert server.sent == 1
        server.digest, server.tools = "d2", [tool("two")]
        assert [one.name for one in await source.tools(context)] == ["two"]
        monkeypatch.setattr(server_tools, "LIST_WITHIN", 0.2)
        server.delay = 5.0
        began = asyncio.get_running_loop().time()
        assert [one.name for one in await source.tools(context)] == ["two"]
        assert asyncio.get_running_loop().time() - began < 4, "no run waits for it"


async def test_another_user_is_offered_nothing_and_a_call_names_tool_and_source() -> None:
    async with linked_server() as (server, source):
        server.tools = [tool("one", "package:p")]
        assert await source.tools(context_of("bob")) == ()
        assert await source.tools(context_of("alice", needs_server=False)) == ()
        assert await source.known(context_of("bob")) == ()
        (one,) = await source.tools(context_of("alice"))
        assert (await one.call({"n": 1})).content == "done"
        args = server.called[0]["args"]
        assert (args["name"], args["source"], args["arguments"]) == ("one", "package:p", {"n": 1})


async def test_a_server_of_an_earlier_version_has_none() -> None:
    async with linked_server() as (server, source):
        server.digest = None
        assert await source.tools(context_of("alice")) == ()


async def test_a_user_has_so_many_links_at_most() -> None:
    async def processes() -> list[Any]:
        return []

    links = ServerLinks(processes)
    links.process_id = "p"
    hello = {"bench": "b", "received": {}, "attached": []}
    for number in range(MOST_LINKS):
        links.open({**hello, "server": f"s{number}"}, Pipe(), owner="alice")
    with pytest.raises(LimitReached):
        links.open({**hello, "server": "one more"}, Pipe(), owner="alice")
    links.open({**hello, "server": "s0"}, Pipe(), owner="alice")  # it has one
    links.open({**hello, "server": "s0"}, Pipe(), owner="bob")
    assert [links.keys_of(name) for name in ("bob", "carol")] == [[("bob", "s0")], []]
    await links.stop()
    assert not links.linked("alice", "s0")
