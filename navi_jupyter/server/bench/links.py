"""The links of users' servers to this process of ``navi hub``: opened by those servers, one to each process.

In memory. A link that broke goes on over the next socket of the same server, for a moment (``channel``). Several
processes share the work of a Hub, and any of them may execute a user's run; so each link carries which processes there
are, and the server opens links until it has one to each. Not responsible for starting servers.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from ...clock import boot_time
from ...errors import InvalidRequest, KernelUnavailable, LimitReached, NaviError
from ...events import Custom
from ...log_setup import get_logger
from ...ports.agent import tool_context
from ...ports.jupyter_access import ServerStarter
from ...ports.tracing import caller_server
from ...ports.transactions import Server
from ..kernel_caller import LONGEST_SERVER, KernelCaller
from ..kernel_scope import KernelProof
from .calls import Calls
from .channel import Channel, ChannelSocket
from .port_codec import Callback

log = get_logger("bench")

COMES_BACK = 30.0  # seconds in which a server whose link was lost may open another one
MOST_LINKS = 20  # servers of one user
LOOK_FOR_OTHERS = 3.0  # seconds between looks at which processes there are
SCOPE_WITHIN = 6.0  # seconds; the server itself waits three for the beginning of a cell

OFF = "Your Jupyter server is off, and with it your kernels, notebooks and files."

Key = tuple[str, str]  # a user, and the name of the server: empty for the user's usual one


@dataclass(eq=False)
class OpenLink:
    """One server's link."""

    key: Key
    bench_id: str  # of the server's process
    calls: Calls
    callbacks: dict[str, tuple[Context, Mapping[str, Callback]]] = field(default_factory=dict)  # by call, and by name

    async def call_back(self, params: Mapping[str, Any]) -> None:
        """Await a callback of a call that is in progress, with the call's context. Raises InvalidRequest."""
        context, found = self.callbacks.get(str(params.get("call")), (None, {}))
        callback = found.get(str(params.get("name")))
        if context is None or callback is None:
            raise InvalidRequest("This call is over.")
        await asyncio.create_task(_awaited(callback, params.get("value")), context=context)


async def _awaited(callback: Callback, value: Any) -> None:
    await callback(value)


class ServerLinks:
    """See the module."""

    def __init__(self, processes: Callable[[], Awaitable[Sequence[Server]]], *, serve: ServeUser | None = None) -> None:
        """``processes``: those of the service; ``serve``: what servers may ask of the service."""
        self.process_id = ""  # set at the start
        self._processes = processes
        self._serve = serve
        self._links: dict[str, dict[str, OpenLink]] = {}  # by user, and by the name of the server
        self._lost: dict[Key, float] = {}  # by when: on the clock ``boot_time``
        self._since = boot_time()
        self._changed = asyncio.Event()  # replaced whenever a link is opened or has ended
        self._known: tuple[str, ...] = ()
        self._looking: asyncio.Task[None] | None = None

    def open(self, hello: Mapping[str, Any], socket: ChannelSocket, *, owner: str) -> Channel | None:
        """A server's next socket; None: it has one to this process, and may close this. Raises InvalidRequest."""
        bench_id, server = hello.get("bench"), hello.get("server")
        has, attached = hello.get("received"), hello.get("attached")
        if not isinstance(bench_id, str) or not isinstance(server, str):
            raise InvalidRequest("The first message says which server it is.", field="hello")
        if not isinstance(has, dict) or not isinstance(attached, list):
            raise InvalidRequest("The first message says which links the server has.", field="hello")
        key = (owner, server[:LONGEST_SERVER])
        of_owner = self._links.get(owner, {})
        if key[1] not in of_owner and len(of_owner) >= MOST_LINKS:
            raise LimitReached(f"There are links to {MOST_LINKS} servers of this user already.")
        link, received = of_owner.get(key[1]), has.get(self.process_id)
        welcome: dict[str, Any] = {"process": self.process_id, "processes": list(self._known)}
        same = link is not None and link.bench_id == bench_id and isinstance(received, int)
        if link is not None and same and self.process_id in attached and link.calls.channel.attached:
            socket.emit(json.dumps({"welcome": welcome | {"duplicate": True}}))
            return None
        if link is None or not same:
            if link is not None:
                link.calls.channel.end("the server was started again")
            link = self._links.setdefault(owner, {})[key[1]] = self._new_link(key, bench_id)
            log.info("bench_linked", owner=owner, server=key[1], version=str(hello.get("version"))[:50])
        channel = link.calls.channel
        socket.emit(json.dumps({"welcome": welcome | {"resumes": same, "received": channel.received}}))
        channel.attach(socket, received if same and isinstance(received, int) else 0)
        self._note_change()
        return channel

    def _new_link(self, key: Key, bench_id: str) -> OpenLink:
        async def serve(method: str, params: Mapping[str, Any], emit: Callable[[Any], None]) -> Any:  # noqa: ARG001
            if method == "callback":
                return await link.call_back(params)
            if self._serve is None:
                raise InvalidRequest(f"There is no method {method[:50]!r}.")
            return await self._serve(key[0], method, params)

        link = OpenLink(key, bench_id, Calls(f"{key[0]}/{key[1]}", serve, on_end=lambda: self._forget(link)))
        return link

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _forget(self, link: OpenLink) -> None:
        owner, server = link.key
        if self._link(owner, server) is link:
            del self._links[owner][server]
            if not self._links[owner]:
                del self._links[owner]
            self._forget_lost()
            self._lost.pop(link.key, None)  # to the end: the latest
            self._lost[link.key] = boot_time()
            log.info("bench_lost", owner=owner, server=server)
        self._note_change()

    def linked(self, owner: str, server: str = "") -> bool:
        """Whether this process has a link to that server."""
        return self._link(owner, server) is not None

    def _link(self, owner: str, server: str) -> OpenLink | None:
        return self._links.get(owner, {}).get(server)

    def _all(self) -> Sequence[OpenLink]:
        return [link for of_owner in self._links.values() for link in of_owner.values()]

    def keys_of(self, owner: str) -> Sequence[Key]:
        """The servers of a user to which this process has a link."""
        return [(owner, server) for server in self._links.get(owner, {})]

    def may_come_back(self, owner: str, *, besides: str) -> bool:
        """Whether another server of the user may just be without its link to this process."""
        self._forget_lost()
        lost = (server for of, server in self._lost if of == owner and not self.linked(owner, server))
        return boot_time() - self._since < COMES_BACK or any(server != besides for server in lost)

    def _forget_lost(self) -> None:
        """The oldest first: they are as they were lost."""
        while self._lost and boot_time() - self._lost[first := next(iter(self._lost))] >= COMES_BACK:
            del self._lost[first]

    async def wait(self, owner: str, server: str = "") -> None:
        """Return once there is a link. To be cancelled."""
        while not self.linked(owner, server):
            await self._changed.wait()

    async def settled(self, owner: str, server: str = "") -> None:
        """Return once there is no link, or one that has its socket: one that broke has come back, or has ended."""
        while (link := self._link(owner, server)) is not None and not link.calls.channel.attached:
            await self._changed.wait()

    async def call(
        self,
        owner: str,
        method: str,
        params: Mapping[str, Any],
        on_event: Callable[[Any], None] = lambda _: None,
        *,
        callbacks: Mapping[str, Callback] | None = None,
        server: str = "",
    ) -> Any:
        """Have the user's server do it. Raises KernelUnavailable without a link, and what the method raises."""
        link = self._link(owner, server)
        if link is None:
            raise KernelUnavailable(OFF + " Start it, and try again.")
        if not callbacks:
            return await link.calls.call(method, params, on_event)
        call_id = secrets.token_hex(8)
        link.callbacks[call_id] = (copy_context(), callbacks)
        try:
            return await link.calls.call(method, {**params, "call": call_id}, on_event)
        finally:
            del link.callbacks[call_id]

    async def in_use(self, owner: str, server: str = "") -> bool:
        """Whether the user works with that server: an open page, a cell that runs, requests that were not ours. Raises
        KernelUnavailable."""
        return bool(await self.call(owner, "in_use", {}, server=server))

    # --- which processes there are ----------------------------------------------------------------------------------

    def start(self, process_id: str) -> None:
        """Take links, as this process of the service, and look for others from now on."""
        self.process_id, self._known = process_id, (process_id,)
        self._looking = asyncio.create_task(self._look_forever(), name="navi-bench-processes")

    async def _look_forever(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - the database may be away: what was known stays
                log.info("bench_processes_not_known", error=repr(error))
            await asyncio.sleep(LOOK_FOR_OTHERS)

    async def _look(self) -> None:
        if not self._links:
            return
        known = tuple(sorted({self.process_id, *(each.id for each in await self._processes())}))
        if known == self._known:
            return
        self._known = known
        calls = [link.calls.call("processes", {"ids": list(known)}) for link in self._all()]
        await asyncio.gather(*(asyncio.wait_for(each, 5.0) for each in calls), return_exceptions=True)

    async def stop(self) -> None:
        """End all links: the process stops, and with it what it has begun in servers."""
        if self._looking is not None:
            self._looking.cancel()
        for link in self._all():
            link.calls.channel.end("the service is stopping")


ServeUser = Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]
"""Serves a method that the server of a user (the first argument) calls, with its parameters. Raises NaviError."""


async def ask_scope(links: ServerLinks, owner: str, caller: KernelCaller) -> KernelProof | None:
    """What the user's server knows of a kernel's request; None: it cannot be asked."""
    server = caller_server.get()
    if not links.linked(owner, server):
        return None
    params = {"kernel_id": caller.kernel_id, "request_id": caller.request_id, "key": caller.key}
    try:
        async with asyncio.timeout(SCOPE_WITHIN):
            found = await links.call(owner, "scope", params, server=server)
        return KernelProof(touched=bool(found["touched"]), cell=bool(found["cell"]))
    except (NaviError, TimeoutError, KeyError, TypeError):
        return None


class LinkedServer:
    """The server of one user, as a part of the service calls it."""

    def __init__(
        self,
        links: ServerLinks,
        owner: str,
        server: str = "",
        starter: ServerStarter | None = None,
        *,
        may_start: bool = False,
    ) -> None:
        """``server``: its name; empty: the usual one. ``starter``: keeps it from being stopped while it is used; starts
        it, too, where it ``may_start``, else what needs it fails while it is off."""
        self._links, self._owner, self._server, self._starter = links, owner, server, starter
        self._may_start = may_start

    @property
    def linked(self) -> bool:
        return self._links.linked(self._owner, self._server)

    async def __call__(
        self,
        method: str,
        params: Mapping[str, Any],
        on_event: Callable[[Any], None],
        *,
        callbacks: Mapping[str, Callback],
        start: bool,
    ) -> Any:
        """``start``: start the server where it is off and may be. Raises KernelUnavailable, ServerUnavailable."""
        async with self._started() if start else nullcontext():
            return await self._links.call(
                self._owner, method, params, on_event, callbacks=callbacks, server=self._server
            )

    async def start(self) -> None:
        """Return once it is there. Raises KernelUnavailable, ServerUnavailable."""
        async with self._started():
            if not self.linked:
                raise KernelUnavailable(OFF)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[None]:
        if self._starter is None:
            yield
            return
        async with self._starter.using(self._owner, self._server):
            if not self._may_start:
                yield
                return
            # A server that has just been stopped has a link that is broken, and ends in a moment.
            await self._links.settled(self._owner, self._server)
            waited: list[str] = []
            await self._starter.ready(self._owner, self._server, waiting=lambda status: waited.append(_emitted(status)))
            if waited:
                _emitted("server_ready")
            yield


def _emitted(status: str) -> str:
    """Have the present run, if any, show what it waits for."""
    context = tool_context.get(None)
    if context is not None:
        context.emit(Custom(name="navi.kernel", value={"status": status}))
    return status
