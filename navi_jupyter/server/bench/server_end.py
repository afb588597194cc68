"""The end of the link in a user's server: what the service calls is done with the user's kernels and files.

It opens a link to each process of the service, and again when one breaks. What a process has begun goes on while its
link is broken for a moment, and is cancelled when it does not come back. Not responsible for HTTP requests and the
sockets of pages (``hub_proxy``). Imported once the extension is loaded, in a thread: it costs time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tornado.websocket import WebSocketClosedError

from ... import __version__
from ...clock import boot_time, now
from ...errors import InvalidRequest, NaviError, NotReady, ToolUnavailable
from ...events import ActivitySnapshot, Custom, Event
from ...jupyter.kernels.jupyter_services import JupyterServices
from ...jupyter.notebooks.open_pages import OpenPages
from ...log_setup import get_logger, send_to
from ...model.sessions import USER, Session
from ...ports.agent import RecallAccess, SessionHistory, ToolContext, subagent, tool_call, tool_context
from ...ports.files import Files
from ...ports.jobs import NotebookJobs
from ...ports.jupyter import Kernels, Notebooks
from ...ports.jupyter_access import PageRequests
from ...ports.stop import StopSignal
from ...settings import Settings
from ..builders import Workspace
from ..hub_proxy.service import HubService
from ..hub_proxy.user_activity import is_used_by_user
from ..kernel_caller import KernelCaller
from ..kernel_scope import KernelScope
from .call_events import PROGRESS
from .calls import Calls, EpochFence
from .channel import GRACE, PERIOD
from .port_codec import ON_OUTPUT, codec_of
from .recall_watching import RecallWatching
from .renames import Renames
from .tool_port import OwnTools
from .user_tools import FunctionRoutes, UserTools

if TYPE_CHECKING:
    from tornado.websocket import WebSocketClientConnection

log = get_logger("bench")

AGAIN_FIRST, AGAIN_MOST = 0.1, 10.0  # seconds until the next attempt to connect; doubled at each that fails
AGAIN_SOON = 1.0  # seconds, at most, while a link is broken that can still go on
WELCOME_WITHIN = 10.0  # seconds
LEASE_EVERY = 1.0  # seconds between two renewals of the lease that kernels see
LEASE = LEASE_EVERY + PERIOD + GRACE
"""Seconds from a message of the service until kernels end its code by themselves, should this process stand still: none
may come for a period, and then a link may be away for the grace."""
SPREAD = 8  # attempts in a row that reach a process which has a link, until it is tried less often


class _NotHere:
    """What the service keeps. Tools that need it run there; one of a package that tries is refused."""

    def __getattr__(self, name: str) -> Any:
        raise ToolUnavailable("Recalls and conversations are kept by navi hub: a tool of your server has none.")


NOT_HERE = _NotHere()


class _Socket:
    """A client's WebSocket as a channel uses it. Implements ``channel.ChannelSocket``."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    def emit(self, text: str) -> None:
        with suppress(Exception):  # closed: what is not confirmed is sent again over the next one
            written = asyncio.ensure_future(self.connection.write_message(text))
            written.add_done_callback(lambda future: future.cancelled() or future.exception())

    def hang_up(self, reason: str) -> None:
        self.connection.close(1000, reason[:100])


class Bench:
    """See the module. Between :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        jupyter: JupyterServices,
        service: HubService,
        settings: Settings,
        server_log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        renames: asyncio.Queue[Mapping[str, Any]],
        *,
        has_sockets: Callable[[], bool],
    ) -> None:
        """Log lines go where those of ``server_log`` go. Of the settings those count that are about this machine.
        ``renames``: events of the contents manager. ``has_sockets``: whether a page of Navi is connected."""
        send_to(server_log)
        self.pages = OpenPages()
        self.workspace = Workspace(jupyter, None, pages=self.pages)
        self.loans = self.workspace.loans
        self.kernel_scope = KernelScope(jupyter, self.workspace.cells, self.loans, _always)
        self._jupyter, self._has_sockets, self._started = jupyter, has_sockets, now()
        self._service = service
        self._id = secrets.token_hex(8)
        self._server = os.environ.get("JUPYTERHUB_SERVER_NAME", "")
        self._fence = EpochFence()
        self._renew_at = 0.0  # by ``boot_time``
        self._links: dict[str, Calls] = {}  # by process of the service
        self._processes: set[str] = set()  # of the service, as far as is known
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.watching = RecallWatching(jupyter, self.workspace, self._links, self._server)
        self._renames = Renames(jupyter, renames, self.watching.service, on_moved=self.watching.moved)
        access = self.workspace.access
        self.tools = UserTools(
            self.workspace, Path(jupyter.root_dir), mcp_config=settings.mcp_config, packages=settings.package_tools
        )
        self.functions = FunctionRoutes(self.workspace.kernel_tools, self.kernel_scope)
        self._ports: Mapping[str, tuple[type, Any]] = {
            "kernels": (Kernels, access.kernels),
            "notebooks": (Notebooks, access.notebooks),
            "files": (Files, access.files),
            "jobs": (NotebookJobs, access.jobs),
            "pages": (PageRequests, access.pages),
            "tools": (OwnTools, self.tools),
        }

    def start(self) -> None:
        """Connect, and keep connected."""
        self.workspace.start()
        self._begin(self._connect_forever(), "navi-bench")
        self._begin(self.watching.start(), "navi-bench-watching")
        self._renames.start()

    async def stop(self) -> None:
        """End all links, and what the service has begun here."""
        await self.watching.stop()  # it needs the links
        await self._renames.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for calls in list(self._links.values()):
            calls.channel.end("the server is stopping")
        await self.tools.stop()
        await self.workspace.close()

    async def settled(self, within: float) -> None:
        """Return once there is a link, an attempt that begins now has failed, or so many seconds are over."""
        if self._attached():
            return
        self._settled.clear()
        self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._settled.wait()

    # --- connecting --------------------------------------------------------------------------------------------------

    async def _connect_forever(self) -> None:
        pause, in_vain = AGAIN_FIRST, 0
        while True:
            self._changed.clear()
            settles = not self._settled.is_set()
            try:
                found_new = await self._connect()
                pause = AGAIN_FIRST
                in_vain = 0 if found_new else in_vain + 1
                if in_vain >= SPREAD:  # an address that leads to the same process again and again
                    pause = AGAIN_MOST
            except (NaviError, OSError, ValueError, TimeoutError, WebSocketClosedError) as error:
                log.info("bench_not_connected", error=str(error)[:200])
                pause = min(2 * pause, AGAIN_MOST)
            except Exception:  # the task is not awaited: it is its own supervisor
                log.exception("bench_not_connected")
                pause = AGAIN_MOST
            if settles:
                self._settled.set()
            await asyncio.sleep(AGAIN_FIRST * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the load, no secret
            if self._complete:
                await self._changed.wait()
                pause, in_vain = AGAIN_FIRST, 0
            most = AGAIN_SOON if len(self._attached()) < len(self._links) else AGAIN_MOST
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, most) * random.uniform(0.5, 1.0)):  # noqa: S311
                    await self._changed.wait()

    @property
    def _complete(self) -> bool:
        """Whether there is a link to each process of the service."""
        attached = set(self._attached())
        return bool(attached) and attached >= self._processes

    def _attached(self) -> list[str]:
        return [process for process, calls in self._links.items() if calls.channel.attached]

    async def _connect(self) -> bool:
        """One more socket. False when it reached a process that has one. Raises NaviError, ValueError, TimeoutError."""
        connection = await self._service.socket("/navi/api/bench", {})
        if connection is None:
            raise NotReady("The service refuses the link of this server.")
        hello = {
            "bench": self._id,
            "server": self._server,
            "version": __version__,
            "received": {process: calls.channel.received for process, calls in self._links.items()},
            "attached": self._attached(),
        }
        try:
            async with asyncio.timeout(WELCOME_WITHIN):
                await connection.write_message(json.dumps({"hello": hello}))
                first = await connection.read_message()
            if first is None:
                raise NotReady(f"The service closed the link of this server: {connection.close_reason or 'no reason'}.")
            welcome = json.loads(first)["welcome"]
            process, processes = str(welcome["process"]), {str(each) for each in welcome["processes"]}
        except (KeyError, TypeError, ValueError) as error:
            connection.close()
            raise ValueError("the service speaks another protocol") from error
        except BaseException:
            connection.close()
            raise
        self._processes = processes | {process}
        if welcome.get("duplicate"):
            connection.close()
            return False
        self._attach(process, connection, welcome)
        return True

    def _attach(self, process: str, connection: WebSocketClientConnection, welcome: Mapping[str, Any]) -> None:
        calls = self._links.get(process)
        if calls is None and welcome.get("resumes"):
            # The link has ended here since the hello. A new one has other numbers than that which the service has.
            connection.close()
            raise NotReady("The link ended while it was resumed.")
        if calls is None or not welcome.get("resumes"):
            if calls is not None:
                calls.channel.end("the service has begun anew")
            calls = self._links[process] = self._new_link(process)
        socket = _Socket(connection)
        calls.channel.attach(socket, int(welcome.get("received") or 0))
        self.watching.linked()
        self._begin(self._read(calls, socket), "navi-bench-link")

    def _new_link(self, process: str) -> Calls:
        def ended() -> None:
            if self._links.get(process) is calls:
                del self._links[process]
            self._changed.set()

        async def serve(method: str, params: Mapping[str, Any], emit: Callable[[Any], None]) -> Any:
            return await self._serve(calls, method, params, emit)

        calls = Calls(f"service {process}", serve, on_end=ended)
        return calls

    async def _read(self, calls: Calls, socket: _Socket) -> None:
        try:
            while (message := await socket.connection.read_message()) is not None:
                self._renew_lease()
                calls.channel.take(socket, message if isinstance(message, str) else message.decode())
        except ValueError as error:
            log.warning("bench_message_refused", error=str(error)[:200])
        finally:
            calls.channel.detach(socket)
            self._changed.set()

    def _renew_lease(self) -> None:
        if (at := boot_time()) >= self._renew_at:  # not with each message: it is a file
            self._renew_at = at + LEASE_EVERY
            self.workspace.lease_file.write(at + LEASE)

    # --- what the service calls ----------------------------------------------------------------------------------

    async def _serve(self, calls: Calls, method: str, params: Mapping[str, Any], emit: Callable[[Any], None]) -> Any:
        port, _, name = method.partition(".")
        if method == "processes":
            self._processes = {str(each) for each in params.get("ids") or ()}
            self._changed.set()
            return None
        if method == "in_use":
            return await self._in_use()
        if method == "scope":
            return await self._scope(params)
        if (watching := self.watching.methods.get(method)) is not None:
            return await watching(params)
        if port not in self._ports:
            raise InvalidRequest(f"There is no method {method[:50]!r}: this server has an earlier version of Navi.")
        return await self._call_port(calls, *self._ports[port], name, params, emit)

    async def _call_port(
        self, calls: Calls, kind: type, port: Any, name: str, params: Mapping[str, Any], emit: Callable[[Any], None]
    ) -> Any:
        codec = codec_of(kind, name)
        args = codec.decode_params(params.get("args") or {})
        subject = params.get("subject") or {}
        if codec.takes_output:
            args[ON_OUTPUT] = lambda output: emit({"output": dict(output)})
        args |= codec.callbacks(
            lambda name, value: calls.call("callback", {"call": params.get("call"), "name": name, "value": value})
        )
        stop = self._enter_run(subject, args.get("session"), emit)
        if subject.get("epoch"):
            await self._fence.enter(str(subject.get("session_id")), int(subject["epoch"]))
        try:
            return codec.encode_result(await getattr(port, name)(**args))
        finally:
            for report in stop.reports.values():
                emit({"stop": list(report)})

    def _enter_run(
        self, subject: Mapping[str, Any], session: Session | None, emit: Callable[[Any], None]
    ) -> StopSignal:
        """Have the present task work for the service's run: what it emits goes there."""
        stop = StopSignal()

        def emit_event(event: Event) -> None:
            if isinstance(event, Custom):
                emit({"custom": [event.name, event.value]})
            elif isinstance(event, ActivitySnapshot) and event.activity_type == PROGRESS:
                emit({"progress": event.content})

        tool_call.set(subject.get("tool_call"))
        subagent.set(subject.get("subagent"))
        if session is not None and subject.get("run_id"):
            tool_context.set(
                ToolContext(
                    user_id=session.owner,
                    session=session,
                    run_id=str(subject["run_id"]),
                    origin=USER,
                    stop=stop,
                    recalls=cast("RecallAccess", NOT_HERE),
                    library=cast("SessionHistory", NOT_HERE),
                    emit=emit_event,
                    ask=partial(self.tools.ask, emit=emit) if subject.get("asks") else None,
                    jupyter=self.workspace.access,
                )
            )
        return stop

    async def _in_use(self) -> bool:
        """Whether the user works with this server."""
        return await is_used_by_user(
            self._jupyter, has_sockets=self._has_sockets(), runs_ours=self.workspace.runs_ours, since=self._started
        )

    async def _scope(self, params: Mapping[str, Any]) -> dict[str, bool]:
        """Whether a kernel's request comes from a cell of the user's, as is seen here."""
        caller = KernelCaller(
            kernel_id=str(params.get("kernel_id") or ""),
            request_id=str(params.get("request_id") or ""),
            key=str(params.get("key") or "") or None,
        )
        return {"touched": self.kernel_scope.touched, "cell": await self.kernel_scope.proves(caller)}

    def _begin(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _always(_: str) -> bool:
    return True
