"""The connection to one MCP server: started at first use, restarted with growing delays when it fails.

One task owns the connection from its opening to its end. Not responsible for which servers there are (``pool``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import ToolUnavailable
from ...events import Custom
from ...installation import install_command
from ...lease_file import LeaseFile
from ...log_setup import get_logger
from ...ports.agent import tool_call, tool_context
from ...text import plain_number
from ..tools.base import ToolOutput, refusal
from .calls import LeftOutTool, PendingCall, RemoteTool, SessionLost
from .config import ServerConfig, redact

if TYPE_CHECKING:
    from .client import McpClient

Status = Literal["configured", "starting", "ready", "failed", "stopped", "disabled"]
MISSING = f"The MCP client is not installed here: {install_command('navi-jupyter[mcp]')}"
Signals = asyncio.Queue[Literal["lost", "changed", "session", "stop"]]
DRAIN_SECONDS = 2.0  # that other calls of a lost session have to be refused, too, and not cut off
NEW_SESSIONS_APART = 5.0  # seconds between two new sessions that are opened without a delay
_log = get_logger("mcp")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTimeouts:
    """Time limits and delays of one server, in seconds."""

    start: float = 30.0  # to start, and to list its tools
    stop: float = 8.0  # to end
    first_delay: float = 1.0  # from a failure to the next start; doubled with each failure that follows
    longest_delay: float = 60.0
    steady: float = 60.0  # after it was ready for so long, the next delay is `first_delay` again


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """The state of a server, for lists and for runs."""

    config: ServerConfig
    status: Status
    message: str | None
    tools: tuple[RemoteTool, ...]
    protocol: str | None
    notes: tuple[LeftOutTool, ...] = ()  # tools that no run is offered, and those whose results are not checked


def installed() -> bool:
    """Whether the SDK is installed. Does not import it."""
    return find_spec("mcp") is not None


class ServerConnection:
    def __init__(
        self,
        config: ServerConfig,
        *,
        emit: Callable[[Custom], None],
        root: Path | None = None,
        timeouts: ServerTimeouts | None = None,
        lease_file: LeaseFile | None = None,
    ) -> None:
        """``emit`` gets the ``navi.mcp`` event of every change of the status. ``lease_file``: a program that serves a
        call ends with the time in it."""
        self._lease_file = lease_file
        self.config = config
        self._emit = emit
        self._root = root
        self._timeouts = timeouts or ServerTimeouts()
        self._status: Status = "disabled" if config.disabled else "configured"
        self._message: str | None = None
        if config.wrong:
            self._status, self._message = "failed", config.wrong
        self._tools: tuple[RemoteTool, ...] = ()
        self._client: McpClient | None = None  # set exactly while the server is ready
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()  # set while it is ready, or has failed and waits for its next start
        self._signals: Signals = asyncio.Queue()

    @property
    def state(self) -> ServerState:
        """The state now."""
        return ServerState(
            config=self.config,
            status=self._status,
            message=self._message,
            tools=self._tools,
            protocol=None if self._client is None else self._client.protocol,
            notes=() if self._client is None else self._notes(self._client),
        )

    @property
    def usable(self) -> bool:
        """Whether it can be started."""
        return not (self.config.disabled or self.config.wrong or self._stopping.is_set())

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor failed."""
        return self._status in ("starting", "ready")

    def emit_status(self) -> None:
        """Emit the present status: for a server that replaces another."""
        self._set_status(self._status, self._message)

    def ensure_started(self) -> None:
        """Start it, unless it runs, or has just failed and waits for its delay."""
        if not self.usable:
            return
        self._wanted.set()
        if self._task is None:
            self._settled.clear()
            # In an empty context: in that of the first run, the questions of others would be taken for its own.
            name = f"navi-mcp-{self.config.name}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name, context=Context())

    async def wait_started(self, seconds: float) -> bool:
        """Wait until its start has succeeded or failed, at most so long; whether it is ready."""
        if self._task is not None and not self._settled.is_set():
            try:
                await asyncio.wait_for(self._settled.wait(), seconds)
            except TimeoutError:
                return False
        return self._client is not None

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        """Call one of its tools for the run of the present task. A cancellation is passed on to the server.

        A server that does not know the session any more has executed nothing: the call is made once more, in a new one.
        """
        for _ in range(2):
            self.ensure_started()
            if not await self.wait_started(self._timeouts.start) or (client := self._client) is None:
                why = self._message or f"it is {self._status}"
                return refusal(ToolUnavailable(f"The MCP server {self.config.name} cannot be used now: {why}"))
            try:
                return await self._call(client, tool, arguments)
            except SessionLost:
                if self._client is client:
                    self._settled.clear()  # until the supervisor, which has the signal, has opened a new one
        refused = f"The MCP server {self.config.name} does not know the session that it has opened itself."
        return refusal(ToolUnavailable(refused))

    async def _call(self, client: McpClient, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        context = tool_context.get()
        pending = PendingCall(
            context,
            self.config.name,
            tool_call.get(),
            self.config.call_timeout,
            lambda text: redact(text, self.config.keys),
        )
        try:
            return self._redacted(await client.call(tool, arguments, pending))
        except asyncio.CancelledError:
            context.report_stop("mcp", f"The call of {tool} was cancelled at the MCP server {self.config.name}.")
            raise

    async def stop(self) -> None:
        """End it, within bounds. It is not started again."""
        self._stopping.set()
        self._wanted.set()
        self._signals.put_nowait("stop")
        if self._task is not None:
            if self._client is None:
                self._task.cancel()  # it starts, or waits to: there is no connection to close
            done, _ = await asyncio.wait({self._task}, timeout=self._timeouts.stop)
            if not done:
                _log.warning("mcp_stop_forced", server=self.config.name)
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=2.0)
        self._set_status("stopped", None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = self._timeouts.first_delay
        renewed = float("-inf")
        while True:
            await self._wanted.wait()
            if self._stopping.is_set():
                return
            self._settled.clear()
            self._set_status("starting", None)
            began = loop.time()
            why, was_ready, renew = await self._run_once()
            if self._stopping.is_set():
                return
            if renew and loop.time() - renewed >= NEW_SESSIONS_APART:
                renewed = loop.time()
                _log.info("mcp_session_renewed", server=self.config.name)
                continue
            if was_ready and loop.time() - began >= self._timeouts.steady:
                delay = self._timeouts.first_delay
            if not was_ready:
                # One that failed to start is tried again when it is next used; one that was ready, in any case.
                self._wanted.clear()
            self._set_status("failed", why)
            self._settled.set()
            _log.warning("mcp_server_failed", server=self.config.name, retry_in=delay, reason=why)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                return
            delay = min(delay * 2, self._timeouts.longest_delay)

    async def _run_once(self) -> tuple[str, bool, bool]:
        """From a start to the next end of the connection: why it ended, whether it was ready, whether to renew it."""
        client: McpClient | None = None
        ready = renew = False
        why = "The connection ended."
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeouts.start):
                    client_class = await asyncio.to_thread(_import_client)
                    self._signals = asyncio.Queue()
                    client = client_class(self.config, self._signals.put_nowait, self._root, self._lease_file)
                    await stack.enter_async_context(client.open())
                    self._tools = await client.tools()
                ready = True
                self._client = client
                self._set_ready(client)
                self._settled.set()
                renew = await self._until_lost(client)
                if renew:
                    self._client = None
                    self._settled.clear()  # calls wait for the new session
                    await client.drain(DRAIN_SECONDS)
        except TimeoutError:
            why = f"It did not {'answer' if ready else 'start'} within {plain_number(self._timeouts.start)} s."
        except ImportError as error:
            why = MISSING if not installed() else f"The MCP client cannot be imported: {error}"
        except Exception as error:  # noqa: BLE001 - the supervisor: any error of a connection ends that connection only
            why = _reason(error)
            _log.debug("mcp_connection_ended", server=self.config.name, error=type(error).__name__)
        finally:
            self._client = None
            self._tools = ()
        output = client.last_output() if client is not None else ""
        return redact(f"{why} {output}".strip(), self.config.secrets)[:3000], ready, renew

    async def _until_lost(self, client: McpClient) -> bool:
        """List the tools again when they have changed, until the connection is lost or the server is stopped.

        True when the server does not know the session any more.
        """
        while not self._stopping.is_set():
            signals = {await self._signals.get()}
            while not self._signals.empty():  # a burst of changes needs one listing
                signals.add(self._signals.get_nowait())
            if signals != {"changed"}:
                return "session" in signals and not signals & {"lost", "stop"}
            try:
                async with asyncio.timeout(self._timeouts.start):
                    self._tools = await client.tools()
            except SessionLost:
                return True
            self._set_ready(client)
        return False

    def _set_ready(self, client: McpClient) -> None:
        """Ready; its event has the tools that were left out."""
        self._status, self._message = "ready", None
        notes = [{"tool": note.name, "why": note.why} for note in self._notes(client)]
        value = {"server": self.config.name, "status": "ready"} | ({"notes": notes} if notes else {})
        self._emit(Custom(name="navi.mcp", value=value))

    def _notes(self, client: McpClient) -> tuple[LeftOutTool, ...]:
        secrets = self.config.secrets
        return tuple(
            LeftOutTool(name=redact(note.name, secrets), why=redact(note.why, secrets)) for note in client.notes
        )

    def _set_status(self, status: Status, message: str | None) -> None:
        self._status, self._message = status, message
        value = {"server": self.config.name, "status": status} | ({} if message is None else {"message": message})
        self._emit(Custom(name="navi.mcp", value=value))

    def _redacted(self, output: ToolOutput) -> ToolOutput:
        """Without keys; a failure, which may quote a request, without anything that was configured."""
        secrets = self.config.secrets if output.failed else self.config.keys
        content = output.content
        if isinstance(content, str):
            content = redact(content, secrets)
        elif any(secret in (text := json.dumps(content, ensure_ascii=False, default=str)) for secret in secrets):
            content = redact(text, secrets)
        return ToolOutput(content=content, images=output.images, failed=output.failed)


def _import_client() -> type[McpClient]:
    # Here and not above: the SDK takes more than half a second to import, so a thread does it, and only when needed.
    from .client import McpClient

    return McpClient


def _reason(error: BaseException) -> str:
    """The innermost error as a sentence."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"There is no {error.filename}."
    text = str(error) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
