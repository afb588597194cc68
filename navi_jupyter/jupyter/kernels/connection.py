"""The connection to one kernel: requests out, what it says back, what it is busy with, and whether it still lives.

Open while somebody uses it; a second client beside the front end's, which it never disturbs. Not responsible for which
kernel belongs to whom (``kernels``) or for what is executed.
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
from ...log_setup import get_logger
from .frames import IopubMessage
from .outputs import Outputs
from .transport import next_said, own_session, ports_of, process_of, start_elsewhere

log = get_logger("kernels")

READY_WITHIN = 60.0
"""Seconds that a kernel may take to answer after its start."""
_ASK_EVERY = 0.25
_LOOK_EVERY = 0.25
"""Seconds between looks at whether a kernel lives while we wait for it; a remote one is asked over HTTP."""
_LOOK_EVERY_REMOTE = 1.5
_REST_EVERY = 5.0
"""The same while nobody waits."""
_IDLE_MISSING = 4.0
"""Seconds to wait for the end on IOPub once the reply is there: a flood may have washed it away."""
_ECHO_WITHIN = 0.5
"""Seconds to wait for an answer on the control channel, which old kernels serve only between cells."""
_DEAD = object()
_FAIR = 0.004
"""Seconds of reading until others on the loop get their turn."""


@dataclass(eq=False)
class Request:
    """Something that we asked the kernel to execute."""

    id: str
    outputs: Outputs
    begun: asyncio.Future[float]
    """The loop's time when the kernel began with it."""
    ended: asyncio.Future[Mapping[str, Any] | None]
    """Its reply, once all that it says is here; None when the kernel died over it."""
    reply: Mapping[str, Any] | None = None
    idle: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """An execution that is going on, ours or somebody else's."""

    since: float
    """``time.monotonic()``, when we saw it."""
    code: str | None = None
    ours: bool = False


@dataclass(eq=False)
class KernelConnection:
    """See the module. ``lost`` is called when the process behind it is gone, with what is known of it."""

    kernel_id: str
    manager: Any
    """Jupyter's, of this one kernel."""
    alive: Callable[[], bool]
    """Whether Jupyter still has this kernel."""
    context: Any
    """ZMQ's."""
    lost: Callable[[KernelConnection, str], None]
    language: Mapping[str, Any] = field(default_factory=dict)
    """``language_info`` as the kernel says it; empty until it answered."""
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever executes here."""
    holder: str | None = None
    """The session that has the lock."""

    def __post_init__(self) -> None:
        self._client: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._requests: dict[str, Request] = {}
        self._cells: dict[str, Cell] = {}
        self._heard = asyncio.Event()  # the kernel has answered us on IOPub
        self._waiting = asyncio.Event()  # somebody waits: look often
        self._echoes: dict[str, asyncio.Future[None]] = {}
        self._sender = ""
        self._process: object = None
        self._ports: object = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._changed = asyncio.Event()  # set and replaced whenever a cell begins or ends

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether it is connected, and to the ports that the kernel has now."""
        return self._client is not None and self._ports == ports_of(self.manager)

    @property
    def listening(self) -> bool:
        """Whether nothing that the kernel says is missed."""
        return self.open and self._heard.is_set()

    async def connect(self) -> None:
        """Connect, or again after the kernel has moved. Returns once it was heard. Raises KernelUnavailable."""
        async with self._opening:
            self.used = time.monotonic()
            if self._client is not None and process_of(self.manager) != self._process:
                self._gone("restarted")  # before we ask anything: what is asked from now on, the new one answers
            if self.listening:
                if self._ports is None or await self.lives():
                    return
                self._gone("dead")
            if not self.open:
                await self.close()
                await self._dial()
            await self._until_heard()

    async def _dial(self) -> None:
        self._process, self._ports = process_of(self.manager), ports_of(self.manager)
        if self._ports is None:  # a gateway's client connects synchronously
            self._client = self.manager.client()
            await asyncio.to_thread(start_elsewhere, self._client)
        else:
            self._client = self.manager.client(context=self.context, session=own_session(self.manager.session))
            await ensure_async(self._client.start_channels(stdin=False, hb=False))
        self._heard.clear()
        if self.state == "busy":
            self._cells["?"] = Cell(since=time.monotonic())
        readers = {"iopub": self._on_iopub, "shell": self._on_reply, "control": self._on_control}
        for channel, take in readers.items():
            self._start(self._read(getattr(self._client, f"{channel}_channel"), take), channel)
        self._start(self._watch(), "watch")
        self.manager.add_restart_callback(self._on_autorestart, "restart")

    def _start(self, work: Awaitable[None], name: str) -> None:
        self._tasks.append(asyncio.ensure_future(work))
        self._tasks[-1].set_name(f"navi-kernel-{name}-{self.kernel_id[:8]}")

    async def _until_heard(self) -> None:
        """Ask until the answer comes on IOPub: from then on nothing is missed. Control answers while a cell runs."""
        deadline = time.monotonic() + READY_WITHIN
        patient = time.monotonic() + 3.0
        while not self._heard.is_set():
            if not await self.lives():
                raise KernelUnavailable(
                    "The kernel is dead. Jupyter may start it again within seconds (without its variables); "
                    "else restart it."
                )
            if time.monotonic() > deadline:
                raise KernelUnavailable(f"The kernel does not answer (waited {READY_WITHIN:.0f} s). Restart it.")
            if time.monotonic() > patient and self.state == "busy":
                return  # an old kernel that answers nothing while a cell runs
            session = self._client.session
            self._client.control_channel.send(session.msg("kernel_info_request"))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), _ASK_EVERY)

    async def close(self) -> None:
        """Disconnect. Whoever waits for the kernel is told that it is gone."""
        tasks, self._tasks = self._tasks, []
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        self._drop_all()
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # Jupyter's, of a kernel that may be gone in any way
                self.manager.remove_restart_callback(self._on_autorestart, "restart")
            await asyncio.to_thread(client.stop_channels) if self._ports is None else client.stop_channels()

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """As Jupyter has it: ``starting idle busy dead …``."""
        return str(getattr(self.manager, "execution_state", None) or "starting")

    @property
    def cell(self) -> Cell | None:
        """What runs for the longest time, if anything."""
        self._forget_the_unknown()
        return next(iter(self._cells.values()), None)

    def _forget_the_unknown(self) -> None:
        if self.state == "idle":
            self._cells.pop("?", None)

    @property
    def ours(self) -> bool:
        """Whether what runs is something of ours."""
        return any(cell.ours for cell in self._cells.values())

    async def settle(self) -> None:
        """Wait until everything is here that the kernel has said so far: a cell that has just begun, for example."""
        message = self._client.session.msg("kernel_info_request")
        echo = self._echoes[message["header"]["msg_id"]] = asyncio.get_running_loop().create_future()
        try:
            self._client.control_channel.send(message)
            await asyncio.wait({echo}, timeout=_ECHO_WITHIN)
        finally:
            self._echoes.pop(message["header"]["msg_id"], None)

    async def until_idle(self, timeout: float) -> bool:
        """Wait until no cell runs."""
        deadline = time.monotonic() + timeout
        while self.cell is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # The unknown cell's end may be seen only by Jupyter, so look now and then.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.1))
        return True

    # --- requests ----------------------------------------------------------------------------------------------------

    def send(
        self, code: str, outputs: Outputs, *, silent: bool, store_history: bool, expressions: Mapping[str, str]
    ) -> Request:
        """Ask the kernel to execute. It is over when ``ended`` is."""
        loop = asyncio.get_running_loop()
        self.used = time.monotonic()
        request = Request(id="", outputs=outputs, begun=loop.create_future(), ended=loop.create_future())
        request.id = self._client.execute(
            code,
            silent=silent,
            store_history=store_history and not silent,
            user_expressions=dict(expressions),
            allow_stdin=False,
            stop_on_error=False,  # what the user has queued must not be dropped because our code failed
        )
        self._requests[request.id] = request
        self._waiting.set()
        return request

    async def interrupt(self) -> None:
        """Interrupt whatever runs. Raises KernelUnavailable."""
        try:
            await ensure_async(self.manager.interrupt_kernel())
        except (RuntimeError, OSError, HTTPError) as error:
            raise KernelUnavailable(f"The kernel can not be interrupted: {error}") from None
        if self._client is not None:
            # An ipykernel that awaits in a cell notes the signal and goes on sleeping until something else wakes its
            # loop (its handler uses tornado's add_callback, which writes to no self-pipe on the loop's own thread).
            self._client.shell_channel.send(self._client.session.msg("kernel_info_request"))

    async def end(self, request: Request, within: float, again: float = 0.7) -> bool:
        """Interrupt our code until it ends. False when it did not in time. Nobody else's cell is touched."""
        deadline = time.monotonic() + within
        while not request.ended.done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if request.begun.done() and not request.idle:
                await self.interrupt()
            await asyncio.wait({request.ended}, timeout=min(again, left))
        return True

    def abandon(self, request: Request) -> None:
        """It must not run: end it as soon as the kernel begins with it, in the background."""
        if not request.ended.done():
            self._start(self._end_when_begun(request), "abandoned")

    async def _end_when_begun(self, request: Request) -> None:
        either: set[asyncio.Future[Any]] = {request.begun, request.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        with suppress(KernelUnavailable):
            await self.end(request, within=30.0, again=0.2)

    # --- what the kernel says ----------------------------------------------------------------------------------------

    async def _read(self, channel: Any, take: Callable[[IopubMessage], None]) -> None:
        session = self._client.session
        turn = time.monotonic()
        while True:
            said = await next_said(channel, session)
            if said is not None:
                take(said)
            if time.monotonic() - turn > _FAIR:
                # A flood is always ready to be read, and would starve everybody else on the loop.
                await asyncio.sleep(0)
                turn = time.monotonic()

    def _on_control(self, said: IopubMessage) -> None:
        if said.kind == "kernel_info_reply":
            self.language = dict(said.content.get("language_info") or {})

    def _on_reply(self, said: IopubMessage) -> None:
        request = self._requests.get(said.parent_id)
        if request is None:
            return
        request.reply = said.content
        if not request.begun.done():
            request.begun.set_result(time.monotonic())
        if request.idle:
            self._end(request)
        else:
            asyncio.get_running_loop().call_later(_IDLE_MISSING, self._end, request)

    def _on_iopub(self, said: IopubMessage) -> None:
        if said.sender and said.sender != self._sender:
            if self._sender and self._process is None:  # nothing else tells us of a kernel behind a gateway
                self._gone("restarted", but=said.parent_id)  # what it answers, it was asked
            self._sender = said.sender
        if said.parent_kind == "kernel_info_request" and said.kind == "status":
            self._heard.set()
            echo = self._echoes.get(said.parent_id)
            if echo is not None and not echo.done() and said.content.get("execution_state") == "idle":
                echo.set_result(None)
        if said.parent_kind != "execute_request" and said.parent_id not in self._requests:
            return
        request = self._requests.get(said.parent_id)
        if said.kind == "status":
            self._on_status(said, request)
        elif said.kind == "execute_input":
            cell = self._cells.get(said.parent_id)
            since = cell.since if cell else time.monotonic()
            self._cells[said.parent_id] = Cell(
                since=since, code=str(said.content.get("code", ""))[:2000], ours=request is not None
            )
        elif request is not None:
            request.outputs.take(said)

    def _on_status(self, said: IopubMessage, request: Request | None) -> None:
        state = said.content.get("execution_state")
        if state == "busy":
            self._cells.pop("?", None)
            self._cells.setdefault(said.parent_id, Cell(since=time.monotonic(), ours=request is not None))
            if request is not None and not request.begun.done():
                request.begun.set_result(time.monotonic())
        elif state == "idle":
            self._cells.pop(said.parent_id, None)
            self._cells.pop("?", None)
            if request is not None:
                request.idle = True
                if request.reply is not None:
                    self._end(request)
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(self, request: Request) -> None:
        self._requests.pop(request.id, None)
        self._cells.pop(request.id, None)
        self.used = time.monotonic()
        if not self._requests:
            self._waiting.clear()
        if not request.ended.done():
            request.ended.set_result(request.reply)

    # --- its death ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """See that it dies, also when nobody asks."""
        while True:
            pace = _LOOK_EVERY if self._ports is not None else _LOOK_EVERY_REMOTE
            if not self._waiting.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._waiting.wait(), _REST_EVERY)
            await asyncio.sleep(pace)
            if not await self.lives():
                self._gone("dead")
            elif process_of(self.manager) != self._process:
                self._gone("restarted")

    async def lives(self) -> bool:
        """Whether its process is there, as far as Jupyter can tell."""
        if not self.alive():
            return False
        try:
            return bool(await ensure_async(self.manager.is_alive()))
        except (RuntimeError, OSError, HTTPError) as error:
            log.warning("kernel_not_reachable", kernel_id=self.kernel_id, error=str(error))
            return False

    def _on_autorestart(self) -> None:
        """Jupyter's watchdog has found it dead and starts it again, perhaps on other ports."""
        self._gone("restarting")

    def restarted(self) -> None:
        """Somebody has just restarted it. Local ones tell of it themselves."""
        if self._process is None:
            self._sender = ""
            self._gone("restarted")

    def _gone(self, status: str, *, but: str = "") -> None:
        """The process that we talked to is no more: nothing that it was asked will be answered."""
        known = self._process
        self._process = process_of(self.manager)
        self._drop_all(but=but)
        self._heard.clear()
        if status == "dead" and known is _DEAD:
            return
        if status == "dead":
            self._process = _DEAD
        self.lost(self, status)

    def _drop_all(self, *, but: str = "") -> None:
        for request in list(self._requests.values()):
            if request.id != but:
                request.reply = None
                self._end(request)
        self._cells.clear()
        self._changed.set()
        self._changed = asyncio.Event()
