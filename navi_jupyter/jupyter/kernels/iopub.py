"""The one reader of IOPub: a thread that reads what kernels publish, for all that listen to them.

Each kernel has one socket, opened for its first listener and closed after the last; the thread sleeps in ``poll`` while
kernels are quiet, and ends with the last socket. Not responsible for whether a kernel lives, or for what its messages
mean to a listener (``connection``, ``observer``). Kernels behind a gateway are not reached by ZMQ, and not read here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ...log_setup import get_logger
from .transport import DecodeLimits, IopubMessage, MessageParser, RawMessage, agent_session

log = get_logger("kernels")

BATCH = 200  # messages of one kernel until the next kernel's turn
QUEUED = 20_000  # messages that ZMQ keeps for us; a kernel drops those that find no room
MAX_PENDING = 2_000
"""Messages that wait for the event loop until their kernel's socket is not read any more: ZMQ's queue is bounded."""
TURN = 0.004  # seconds of handling messages until others on the loop get their turn
_PARKED_POLL_MS = 10  # between looks at whether a listener that had enough takes more
_RECONNECT_MS = 20
_REQUESTS = (b"execute_request", b"kernel_info_request")
"""The kinds of request that listeners know; what is about others (comms, completions) is dropped unread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IopubSelection:
    """Which messages of a kernel a listener gets."""

    topic: bytes = b""
    """The beginning of their ZMQ topic: the kernel sends no others to the socket. Empty: all."""
    about: tuple[bytes, ...] = _REQUESTS  # the kinds of request that they are about


EVERYTHING = IopubSelection()


class IopubListener(Protocol):
    """Takes the messages of one kernel. Called in the reader's thread; must not block."""

    def take(self, messages: Sequence[RawMessage]) -> bool:
        """The next messages about executions and ``kernel_info``. False: enough for now (they are taken all the same).

        Called with none to ask whether it takes more again.
        """
        ...


class LoopListener:
    """Hands messages over to the event loop, in order. Bounded: a flood waits in ZMQ, where the kernel drops it."""

    def __init__(self, wanted: Callable[[RawMessage], bool], take: Callable[[IopubMessage], None]) -> None:
        """``wanted`` is asked in the thread; ``take`` is called on this loop."""
        self._wanted = wanted
        self._take = take
        self._limits = DecodeLimits()
        self._loop = asyncio.get_running_loop()
        self._pending: deque[IopubMessage] = deque()
        self._scheduled = False

    def take(self, messages: Sequence[RawMessage]) -> bool:
        """See ``IopubListener``. Decodes here, in the thread, so that the loop has only folding to do."""
        for message in messages:
            if self._wanted(message):
                with suppress(ValueError):  # no JSON
                    self._pending.append(message.decode(self._limits))
        # ``_drain`` clears the flag before it looks, so what is appended while it is set is never left lying.
        if self._pending and not self._scheduled:
            self._scheduled = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._drain)
        return len(self._pending) < MAX_PENDING

    def _drain(self) -> None:
        self._scheduled = False
        until = time.monotonic() + TURN
        while self._pending:
            try:
                self._take(self._pending.popleft())
            except Exception:
                log.exception("kernel_message_not_handled")
            if time.monotonic() > until and self._pending:
                # A flood always has more, and would starve everything else on the loop.
                self._scheduled = True
                self._loop.call_soon(self._drain)
                return


class _Channel:
    """IOPub of one kernel process's ports, and a control socket to make it say something."""

    def __init__(self, kernel_id: str, address: Mapping[str, Any], session: Any, selection: IopubSelection) -> None:
        self.kernel_id = kernel_id
        self.address = address
        self.selection = selection
        self.listeners: tuple[IopubListener, ...] = ()
        """Replaced as a whole, on the loop: the thread sees the old ones or the new ones."""
        self.established = asyncio.Event()
        """A message has come, so ZMQ's subscription has reached the kernel, and none is missed from then on."""
        # The sockets. Used in the thread only.
        self.iopub: Any = None
        self.control: Any = None
        self._loop = asyncio.get_running_loop()
        self._session = agent_session(session)
        self._parser = MessageParser(self._session)
        self._any_message = False

    def probe(self) -> list[bytes]:
        """The frames of a request that is answered on IOPub, also while a cell runs."""
        frames: list[bytes] = self._session.serialize(self._session.msg("kernel_info_request"))
        return frames

    def dispatch(self, batch: Sequence[Sequence[bytes]]) -> bool:
        """Hand messages to all listeners. Whether they take more."""
        about = self.selection.about if self._any_message or self.selection.topic else ()
        parsed = [message for frames in batch if (message := self._parser.parse(frames, about)) is not None]
        if parsed and not self._any_message:
            self._any_message = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.established.set)
        more = True
        for listener in self.listeners:
            try:
                more &= listener.take(parsed)
            except Exception:  # one listener's mistake is not another's
                log.exception("kernel_messages_not_taken", kernel_id=self.kernel_id)
        return more


class IopubSubscription:
    """A listener's place at a kernel. Given back with ``IopubReader.unsubscribe``."""

    def __init__(self, channel: _Channel, listener: IopubListener) -> None:
        self.channel, self.listener = channel, listener

    @property
    def address(self) -> Mapping[str, Any]:
        """Where it listens."""
        return self.channel.address

    @property
    def established(self) -> bool:
        """Whether a message has come: none is missed from then on."""
        return self.channel.established.is_set()

    async def wait_established(self) -> None:
        """Return once a message has come."""
        await self.channel.established.wait()


class IopubReader:
    """See the module. Used on the event loop; costs nothing while there is no subscription."""

    def __init__(self) -> None:
        self._channels: list[_Channel] = []
        self._thread: _ReaderThread | None = None

    def subscribe(
        self, kernel_id: str, manager: Any, listener: IopubListener, selection: IopubSelection = EVERYTHING
    ) -> IopubSubscription:
        """Listen to a kernel where it is now (a restart can move it to other ports: then subscribe again).

        Nothing is missed once the subscription is established, or once a request that was sent after this is answered.
        """
        address = dict(manager.get_connection_info())
        wanted = (kernel_id, address, selection)
        at = (each for each in self._channels if (each.kernel_id, each.address, each.selection) == wanted)
        channel = next(at, None)
        if channel is None:
            channel = _Channel(kernel_id, address, manager.session, selection)
            self._channels.append(channel)
            if self._thread is None:
                self._thread = _ReaderThread()
            self._thread.order(self._thread.open, channel)
        # Not by an order to the thread: what comes from now on is for this listener, too.
        channel.listeners += (listener,)
        return IopubSubscription(channel, listener)

    def probe(self, subscription: IopubSubscription) -> None:
        """Make the kernel publish something, so that the subscription is established."""
        if self._thread is not None and subscription.channel in self._channels:
            self._thread.order(self._thread.ask, subscription.channel)

    async def unsubscribe(self, subscription: IopubSubscription) -> None:
        """Listen no more; the socket is closed after its last listener, the thread ends with the last socket."""
        channel = subscription.channel
        channel.listeners = tuple(one for one in channel.listeners if one is not subscription.listener)
        if channel.listeners or channel not in self._channels:
            return
        self._channels.remove(channel)
        thread = self._thread
        if thread is None:
            return
        thread.order(thread.close, channel)
        if not self._channels:
            self._thread = None  # before the await: who subscribes meanwhile gets a new one
            await asyncio.to_thread(thread.stop)


class _ReaderThread:
    """ZMQ's side. Sockets belong to the thread: the loop sends it orders, and rings a bell so that ``poll`` returns."""

    def __init__(self) -> None:
        import zmq  # late: a server that uses no kernel needs none

        self._zmq = zmq
        self._context = zmq.Context()
        self._orders: deque[tuple[Callable[[_Channel], None], _Channel] | None] = deque()
        self._poller = zmq.Poller()
        self._channels: dict[Any, _Channel] = {}  # by their IOPub socket
        self._parked: set[_Channel] = set()  # not polled: a listener had enough
        self._bell, bell = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        bell.bind("inproc://bell")
        self._bell.connect("inproc://bell")
        self._poller.register(bell, zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, args=(bell,), name="navi-iopub", daemon=True)
        self._thread.start()

    def order(self, work: Callable[[_Channel], None], channel: _Channel) -> None:
        """Have the thread call one of the methods below."""
        self._orders.append((work, channel))
        self._bell.send(b"")

    def stop(self) -> None:
        """End the thread after what was ordered. Blocks for a moment."""
        self._orders.append(None)
        self._bell.send(b"")
        self._thread.join(5)
        self._bell.close(0)
        self._context.destroy(linger=0)

    def _run(self, bell: Any) -> None:
        going = True
        while going:
            for socket, _ in self._poller.poll(_PARKED_POLL_MS if self._parked else None):
                try:
                    if socket is bell:
                        bell.recv()
                        order = self._orders.popleft()
                        going = order is not None
                        if order is not None:
                            order[0](order[1])
                    else:
                        self._read(socket)
                except Exception:
                    log.exception("kernel_reading_failed")
            for channel in [one for one in self._parked if one.dispatch(())]:
                self._parked.discard(channel)
                self._poller.register(channel.iopub, self._zmq.POLLIN)
        for channel in list(self._channels.values()):
            self.close(channel)
        bell.close(0)

    def _read(self, socket: Any) -> None:
        channel = self._channels.get(socket)
        batch: list[list[bytes]] = []
        while len(batch) < BATCH:
            try:
                batch.append(socket.recv_multipart(self._zmq.NOBLOCK))
            except self._zmq.Again:
                break
        if channel is not None and batch and not channel.dispatch(batch):
            self._parked.add(channel)
            self._poller.unregister(socket)

    def open(self, channel: _Channel) -> None:
        """Connect its sockets."""
        channel.iopub = self._connected(self._zmq.SUB, channel.address, "iopub_port", channel.selection.topic)
        self._channels[channel.iopub] = channel
        self._poller.register(channel.iopub, self._zmq.POLLIN)

    def _connected(self, kind: int, address: Mapping[str, Any], port: str, topic: bytes = b"") -> Any:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = _RECONNECT_MS  # a kernel that restarts listens at the same ports again
        if kind == self._zmq.SUB:
            socket.rcvhwm = QUEUED
            socket.setsockopt(self._zmq.SUBSCRIBE, topic)
        public = address.get("curve_publickey")
        if public is not None:
            socket.curve_publickey = socket.curve_serverkey = public.encode()
            socket.curve_secretkey = address["curve_secretkey"].encode()
        separator = ":" if address["transport"] == "tcp" else "-"
        socket.connect(f"{address['transport']}://{address['ip']}{separator}{address[port]}")
        return socket

    def ask(self, channel: _Channel) -> None:
        """Send it a probe."""
        if channel.iopub is None:
            return
        if channel.control is None:
            channel.control = self._connected(self._zmq.DEALER, channel.address, "control_port")
        channel.control.send_multipart(channel.probe(), self._zmq.NOBLOCK)

    def close(self, channel: _Channel) -> None:
        """Close its sockets."""
        if channel.iopub is None:
            return
        del self._channels[channel.iopub]
        if channel not in self._parked:
            self._poller.unregister(channel.iopub)
        self._parked.discard(channel)
        channel.iopub.close(0)
        if channel.control is not None:
            channel.control.close(0)
        channel.iopub = channel.control = None
