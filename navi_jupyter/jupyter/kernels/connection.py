"""The connection to one kernel: requests out, their replies and outputs back, what it is busy with, whether it lives.

Open while it is used; a second client beside the front end's, which it never disturbs. Not responsible for which kernel
belongs to which session (``lookup``), for what is executed (``service``) or for reading IOPub (``iopub``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from ...errors import KernelUnavailable
from .iopub import TURN, IopubReader, IopubSubscription, LoopListener
from .outputs import Outputs
from .requests import ExecuteRequest
from .running_cells import UNKNOWN, RunningCells
from .transport import (
    BUSY_PATIENCE,
    IopubMessage,
    MessageParser,
    RawMessage,
    agent_session,
    connect_to_gateway,
    is_alive,
    next_message,
    ports_of,
    process_of,
    state_of,
)

READY_WITHIN = 60.0  # seconds that a kernel may take to answer after its start
_PROBE_EVERY = 0.25

_POLL = 0.25  # seconds between polls of whether the kernel lives while a request waits; a remote one is asked over HTTP
_POLL_REMOTE = 1.5
_POLL_AT_REST = 5.0
_IDLE_MISSING = 4.0  # seconds to wait for the end on IOPub once the reply is there: a flood may have washed it away
_SETTLE_WITHIN = 0.5
_DEAD = object()


@dataclass(eq=False)
class KernelConnection:
    """See the module. ``lost`` is called when the process behind it is gone, with what is known of it."""

    kernel_id: str
    manager: Any  # Jupyter's, of this one kernel
    alive: Callable[[], bool]  # whether Jupyter still has this kernel
    context: Any  # ZMQ's
    iopub: IopubReader
    lost: Callable[[KernelConnection, str], None]
    language: Mapping[str, Any] = field(default_factory=dict)  # `language_info` of the kernel; empty until it answered
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a session executes here
    holder: str | None = None  # the session that has the lock
    guarded: object = None  # the process in which our code ends by itself when this server's lease is over

    def __post_init__(self) -> None:
        self.cells = RunningCells(at_rest=lambda: self.state == "idle")
        self._client: Any = None
        self._subscription: IopubSubscription | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._requests: dict[str, ExecuteRequest] = {}
        self._answered = asyncio.Event()  # the present process has answered us on IOPub
        self._waiting = asyncio.Event()  # a request waits: poll often
        self._settling: dict[str, asyncio.Future[None]] = {}
        self._sender = ""
        self._process: object = None
        self._ports: object = None
        self._opening = asyncio.Lock()

    @property
    def open(self) -> bool:
        """Whether it is connected, and to the ports that the kernel has now."""
        return self._client is not None and self._ports == ports_of(self.manager)

    @property
    def listening(self) -> bool:
        """Whether nothing that the kernel publishes is missed."""
        return self.open and self._answered.is_set()

    async def connect(self) -> None:
        """Connect, or again after the kernel has moved. Returns once it has answered. Raises KernelUnavailable."""
        async with self._opening:
            self.used = time.monotonic()
            if self._client is not None and process_of(self.manager) != self._process and await self.lives():
                self._on_loss("restarted")  # before we ask anything: what is asked from now on, the new one answers
            if self.listening:
                if self._ports is None or await self.lives():
                    return
                self._on_loss("dead")
            if not self.open:
                await self.close()
                await self._open_channels()
            await self._until_answered()

    async def _open_channels(self) -> None:
        self._process, self._ports = process_of(self.manager), ports_of(self.manager)
        self._answered.clear()
        if self.state == "busy":
            self.cells.add(UNKNOWN)
        if self._ports is None:
            self._client = self.manager.client()
            await asyncio.to_thread(connect_to_gateway, self._client)
            self._start(self._read("iopub", self._on_iopub), "iopub")
        else:
            self._client = self.manager.client(context=self.context, session=agent_session(self.manager.session))
            # Before anything is asked: the answer to our own probe, read here, proves that nothing is missed.
            listener = LoopListener(_wanted_by(self._client.session.session), self._on_iopub)
            self._subscription = self.iopub.subscribe(self.kernel_id, self.manager, listener)
            await ensure_async(self._client.start_channels(iopub=False, stdin=False, hb=False))
        self._start(self._read("shell", self._on_reply), "shell")
        self._start(self._read("control", self._on_control), "control")
        self._start(self._watch(), "watch")
        self.manager.add_restart_callback(self._on_autorestart, "restart")

    def _start(self, work: Awaitable[None], name: str) -> None:
        self._tasks.append(asyncio.ensure_future(work))
        self._tasks[-1].set_name(f"navi-kernel-{name}-{self.kernel_id[:8]}")

    async def _until_answered(self) -> None:
        """Probe until the answer comes on IOPub. The control channel answers while a cell runs."""
        begun = time.monotonic()
        while not self._answered.is_set():
            if not await self.lives():
                raise KernelUnavailable(
                    "The kernel is dead. Jupyter may start it again within seconds (without its variables); "
                    "else restart it."
                )
            waited = time.monotonic() - begun
            if waited > READY_WITHIN:
                raise KernelUnavailable(f"The kernel does not answer (waited {READY_WITHIN:.0f} s). Restart it.")
            if waited > BUSY_PATIENCE and self.state == "busy":
                return
            self._client.control_channel.send(self._client.session.msg("kernel_info_request"))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), _PROBE_EVERY)

    async def close(self) -> None:
        """Disconnect. Requests that wait end as if the kernel were gone."""
        current = asyncio.current_task()
        tasks, self._tasks = [task for task in self._tasks if task is not current], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end_all()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self.iopub.unsubscribe(subscription)
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # Jupyter's, of a kernel that may be gone in any way
                self.manager.remove_restart_callback(self._on_autorestart, "restart")
            await asyncio.to_thread(client.stop_channels) if self._ports is None else client.stop_channels()

    @property
    def state(self) -> str:
        """As Jupyter has it: ``starting idle busy dead …``."""
        return state_of(self.manager)

    async def settle(self) -> None:
        """Wait until all that the kernel has published so far is here: a cell that has just begun, for example."""
        message = self._client.session.msg("kernel_info_request")
        request_id = message["header"]["msg_id"]
        answer = self._settling[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._client.control_channel.send(message)
            await asyncio.wait({answer}, timeout=_SETTLE_WITHIN)
        finally:
            self._settling.pop(request_id, None)

    def send(
        self, code: str, outputs: Outputs, *, silent: bool, store_history: bool, expressions: Mapping[str, str]
    ) -> ExecuteRequest:
        """Ask the kernel to execute. It is over when ``ended`` is."""
        self.used, loop = time.monotonic(), asyncio.get_running_loop()
        request = ExecuteRequest(id="", outputs=outputs, begun=loop.create_future(), ended=loop.create_future())
        request.id = self._client.execute(
            code,
            silent=silent,
            store_history=store_history and not silent,
            user_expressions=dict(expressions),
            allow_stdin=False,
            stop_on_error=False,  # what the user has queued must not be dropped because our code failed
        )
        # Known before its first message is handled: that happens on this loop, later.
        self._requests[request.id] = request
        self._waiting.set()
        return request

    async def interrupt(self) -> None:
        """Interrupt what runs. Raises KernelUnavailable."""
        try:
            await ensure_async(self.manager.interrupt_kernel())
        except (RuntimeError, OSError, HTTPError) as error:
            raise KernelUnavailable(f"The kernel cannot be interrupted: {error}") from None
        if self._client is not None:
            # An ipykernel that awaits in a cell notes the signal and goes on sleeping until something else wakes its
            # loop (its handler uses tornado's add_callback, which writes to no self-pipe on the loop's own thread).
            self._client.shell_channel.send(self._client.session.msg("kernel_info_request"))

    async def end(self, request: ExecuteRequest, within: float, again: float = 0.7) -> bool:
        """Interrupt our code until it ends. False when it did not in time. No other client's cell is touched."""
        deadline = time.monotonic() + within
        while not request.ended.done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Again and again: code may catch the first KeyboardInterrupt. Only while ours runs, not what follows it.
            if request.begun.done() and not request.idle:
                await self.interrupt()
            await asyncio.wait({request.ended}, timeout=min(again, left))
        return True

    def abandon(self, request: ExecuteRequest) -> None:
        """It must not run: end it as soon as the kernel begins with it, in the background."""
        if not request.ended.done():
            self._start(self._end_when_begun(request), "abandoned")

    async def _end_when_begun(self, request: ExecuteRequest) -> None:
        either: set[asyncio.Future[Any]] = {request.begun, request.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        with suppress(KernelUnavailable):
            await self.end(request, within=30.0, again=0.2)

    async def _read(self, name: str, handle: Callable[[IopubMessage], None]) -> None:
        channel, parser = getattr(self._client, f"{name}_channel"), MessageParser(self._client.session)
        turn = time.monotonic()
        while True:
            message = await next_message(channel, parser)
            if message is not None:
                handle(message)
            if time.monotonic() - turn > TURN:
                # A flood is always ready to be read, and would starve everything else on the loop.
                await asyncio.sleep(0)
                turn = time.monotonic()

    def _on_control(self, message: IopubMessage) -> None:
        if message.kind == "kernel_info_reply":
            self.language = dict(message.content.get("language_info") or {})

    def _on_reply(self, message: IopubMessage) -> None:
        request = self._requests.get(message.parent.id)
        if request is None:
            return
        request.reply = message.content
        if not request.begun.done():
            request.begun.set_result(time.monotonic())
        # Shell and IOPub are two sockets without a common order: outputs may still be on their way.
        if request.idle:
            self._end(request)
        else:
            asyncio.get_running_loop().call_later(_IDLE_MISSING, self._end, request)

    def _on_iopub(self, message: IopubMessage) -> None:
        if message.sender and message.sender != self._sender:
            self._on_new_sender(message)
        parent, request = message.parent, self._requests.get(message.parent.id)
        if message.kind == "status" and parent.kind == "kernel_info_request":
            self._answered.set()
            answer = self._settling.get(parent.id)
            if answer is not None and not answer.done() and message.content.get("execution_state") == "idle":
                answer.set_result(None)
        if parent.kind != "execute_request" and request is None:
            return
        if message.kind == "status":
            self._on_status(parent.id, message.content.get("execution_state"), request)
        elif message.kind == "execute_input":
            self.cells.add(parent.id, code=str(message.content.get("code", ""))[:2000], ours=request is not None)
        elif request is not None:
            request.outputs.take(message)

    def _on_new_sender(self, message: IopubMessage) -> None:
        if self._sender and self._process is None:
            # Nothing else shows that a kernel behind a gateway was restarted. What it answers, it was asked.
            self._on_loss("restarted", but=message.parent.id)
        elif self._sender:
            # A cell that the lost process began may have been read only after the loss was noticed.
            self.cells.clear()
        self._sender = message.sender

    def _on_status(self, request_id: str, state: object, request: ExecuteRequest | None) -> None:
        if state == "busy":
            self.cells.remove(UNKNOWN)
            self.cells.add(request_id, ours=request is not None)
            if request is not None and not request.begun.done():
                request.begun.set_result(time.monotonic())
        elif state == "idle":
            self.cells.remove(request_id, UNKNOWN)
            if request is not None:
                request.idle = True
                if request.reply is not None:
                    self._end(request)

    def _end(self, request: ExecuteRequest) -> None:
        self._requests.pop(request.id, None)
        self.cells.remove(request.id)
        self.used = time.monotonic()
        if not self._requests:
            self._waiting.clear()
        if not request.ended.done():
            request.ended.set_result(request.reply)

    async def _watch(self) -> None:
        """Notice that it dies, also when nothing is asked."""
        pause = _POLL if self._ports is not None else _POLL_REMOTE
        while True:
            if not self._waiting.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._waiting.wait(), _POLL_AT_REST)
            await asyncio.sleep(pause)
            if not await self.lives():
                self._on_loss("dead")
            elif process_of(self.manager) != self._process:
                self._on_loss("restarted")

    async def lives(self) -> bool:
        """Whether its process is there, as far as Jupyter knows."""
        return self.alive() and await is_alive(self.manager)

    def _on_autorestart(self) -> None:
        """Jupyter's watchdog has found it dead and starts it again, perhaps on other ports."""
        self._on_loss("restarting")

    def restarted(self) -> None:
        """It has just been restarted through Jupyter. Of a local kernel its process id shows that anyway."""
        if self._process is None:
            self._sender = ""
            self._on_loss("restarted")

    def _on_loss(self, status: str, *, but: str = "") -> None:
        """The process that we talked to is gone: nothing that it was asked will be answered."""
        known = self._process
        self._process = process_of(self.manager)
        self._end_all(but=but)
        self._answered.clear()  # the next request waits until the new process is subscribed to
        if status == "dead":
            self._process = _DEAD
            if known is _DEAD:  # reported already; it stays dead until it is restarted
                return
        self.lost(self, status)

    def _end_all(self, *, but: str = "") -> None:
        for request in list(self._requests.values()):
            if request.id != but:
                request.reply = None
                self._end(request)
        self.cells.clear()


def _wanted_by(session_id: str) -> Callable[[RawMessage], bool]:
    """Asked in the reader's thread: all about our own requests; of other clients' only that they begin and end.

    By the session, not by the ids of our requests: an answer can be read before we have noted the id.
    """

    def wanted(message: RawMessage) -> bool:
        began_or_ended = message.parent.kind == "execute_request" and message.kind in ("status", "execute_input")
        return began_or_ended or message.parent.session == session_id

    return wanted
