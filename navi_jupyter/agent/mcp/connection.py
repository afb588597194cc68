"""One MCP server kept alive: started when it is first wanted, started again, later and later, when it fails.

One task owns the connection from its opening to its end. Not responsible for which servers there are (``pool``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import ToolUnavailable
from ...events import Custom
from ...log_setup import get_logger
from ...ports.agent import tool_call, tool_context
from ..tools.base import ToolOutput
from ..tools.functions import refusal
from .calls import PendingCall
from .config import ServerConfig, redact

if TYPE_CHECKING:
    from .client import Connection

Status = Literal["configured", "starting", "ready", "failed", "stopped", "disabled"]
Inbox = asyncio.Queue[Literal["lost", "changed", "stop"]]
MISSING = 'The MCP client is not installed here: pip install "navi-jupyter[mcp]"'
_log = get_logger("mcp")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    reads_only: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PausableTimeout:
    """How long to wait, in seconds."""

    start: float = 30.0
    """For a server to start, and to list its tools."""
    stop: float = 8.0
    """For it to end."""
    first_delay: float = 1.0
    """From a failure to the next start; doubled with each failure that follows."""
    longest_delay: float = 60.0
    steady: float = 60.0
    """Having lived so long, it starts again with ``first_delay``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """How a server is, for those who ask."""

    config: ServerConfig
    status: Status
    message: str | None
    tools: tuple[RemoteTool, ...]
    protocol: str | None


def installed() -> bool:
    """Whether the SDK is there. Does not import it."""
    return find_spec("mcp") is not None


class ServerConnection:
    """See the module."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        tell: Callable[[Custom], None],
        root: Path | None = None,
        patience: PausableTimeout | None = None,
    ) -> None:
        self.config = config
        self._tell = tell
        self._root = root
        self._patience = patience or PausableTimeout()
        self._status: Status = "disabled" if config.disabled else "configured"
        self._message: str | None = None
        if config.wrong:
            self._status, self._message = "failed", config.wrong
        self._tools: tuple[RemoteTool, ...] = ()
        self._connection: Connection | None = None
        """Set exactly while it is ready."""
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        """Set while it neither starts nor waits to be started: ready, or failed for now."""
        self._inbox: Inbox = asyncio.Queue()

    @property
    def state(self) -> ServerState:
        """How it is now."""
        protocol = self._connection.protocol if self._connection is not None else None
        return ServerState(
            config=self.config, status=self._status, message=self._message, tools=self._tools, protocol=protocol
        )

    @property
    def usable(self) -> bool:
        """Whether it makes sense to start it."""
        return not (self.config.disabled or self.config.wrong or self._stopping.is_set())

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor failed."""
        return self._status in ("starting", "ready")

    def announce(self) -> None:
        """Tell how it is: for one that takes the place of another."""
        self._show(self._status, self._message)

    def want(self) -> None:
        """It is about to be used: start it, unless it runs, or has just failed and has to wait."""
        if not self.usable:
            return
        self._wanted.set()
        if self._task is None:
            self._settled.clear()
            # Not in the context of the run that wants it first: others' questions must not be taken for its own.
            name = f"navi-mcp-{self.config.name}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name, context=Context())

    async def settled(self, seconds: float) -> bool:
        """Wait until its start has succeeded or failed. Whether it is ready."""
        if self._task is not None and not self._settled.is_set():
            try:
                await asyncio.wait_for(self._settled.wait(), seconds)
            except TimeoutError:
                return False
        return self._connection is not None

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        """Call one of its tools for the run of the present task. Tells the server when it is cancelled."""
        self.want()
        if not await self.settled(self._patience.start) or self._connection is None:
            why = self._message or f"it is {self._status}"
            return refusal(ToolUnavailable(f"The MCP server {self.config.name} can not be used now: {why}"))
        context = tool_context.get()
        flight = PendingCall(
            context, tool_call.get(), self.config.call_timeout, lambda text: redact(text, self.config.keys)
        )
        try:
            return self._redacted(await self._connection.call(tool, arguments, flight))
        except asyncio.CancelledError:
            message = f"The MCP server {self.config.name} was told to stop {tool}."
            value = {"action": "reached", "run_id": context.run_id, "what": "mcp", "message": message}
            context.emit(Custom(name="navi.stop", value=value))
            raise

    async def stop(self) -> None:
        """End it, within bounds. It is not started again."""
        self._stopping.set()
        self._wanted.set()
        self._inbox.put_nowait("stop")
        if self._task is not None:
            if self._connection is None:
                self._task.cancel()  # it starts, or waits to: there is nothing to say good-bye to
            done, _ = await asyncio.wait({self._task}, timeout=self._patience.stop)
            if not done:
                _log.warning("mcp_stop_forced", server=self.config.name)
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=2.0)
        self._show("stopped", None)

    # --- the one task ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = self._patience.first_delay
        while True:
            await self._wanted.wait()
            if self._stopping.is_set():
                return
            self._settled.clear()
            self._show("starting", None)
            began = loop.time()
            why, was_ready = await self._live()
            if self._stopping.is_set():
                return
            if was_ready and loop.time() - began >= self._patience.steady:
                delay = self._patience.first_delay
            if not was_ready:
                self._wanted.clear()  # who failed to start is tried again when somebody wants it; who died, anyway
            self._show("failed", why)
            self._settled.set()
            _log.warning("mcp_server_failed", server=self.config.name, retry_in=delay, reason=why)
            if await self._stopped_within(delay):
                return
            delay = min(delay * 2, self._patience.longest_delay)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _live(self) -> tuple[str, bool]:
        """One life of it. Why it ended, and whether it ever was ready."""
        connection: Connection | None = None
        ready = False
        why = "The connection ended."
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._patience.start):
                    # The SDK's import takes more than half a second: not on the loop that kernels share.
                    module = await asyncio.to_thread(import_module, f"{__package__}.client")
                    inbox: Inbox = asyncio.Queue()
                    self._inbox = inbox
                    connection = module.Connection(self.config, inbox.put_nowait, self._root)
                    await stack.enter_async_context(connection.open())
                    self._tools = await connection.tools()
                ready = True
                self._connection = connection
                self._show("ready", None)
                self._settled.set()
                await self._serve(connection, inbox)
        except TimeoutError:
            why = f"It did not {'answer' if ready else 'start'} within {self._patience.start:g} s."
        except ImportError as error:
            why = MISSING if not installed() else f"The MCP client can not be imported: {error}"
        except Exception as error:  # noqa: BLE001 - the supervisor: whatever a server does to its connection ends that alone
            why = _reason(error)
            _log.debug("mcp_connection_ended", server=self.config.name, error=type(error).__name__)
        finally:
            self._connection = None
            self._tools = ()
        words = connection.last_words() if connection is not None else ""
        return redact(f"{why} {words}".strip(), self.config.secrets)[:3000], ready

    async def _serve(self, connection: Connection, inbox: Inbox) -> None:
        while not self._stopping.is_set():
            signals = {await inbox.get()}
            while not inbox.empty():  # several changes are one
                signals.add(inbox.get_nowait())
            if signals != {"changed"}:
                return
            async with asyncio.timeout(self._patience.start):
                self._tools = await connection.tools()
            self._show("ready", None)

    def _show(self, status: Status, message: str | None) -> None:
        self._status, self._message = status, message
        value: dict[str, Any] = {"server": self.config.name, "status": status}
        if message is not None:
            value["message"] = message
        self._tell(Custom(name="navi.mcp", value=value))

    def _redacted(self, output: ToolOutput) -> ToolOutput:
        """Without keys; a failure, which may quote a request, without anything that was configured."""
        secrets = self.config.secrets if output.failed else self.config.keys
        content = output.content
        if isinstance(content, str):
            content = redact(content, secrets)
        elif any(secret in (text := json.dumps(content, ensure_ascii=False, default=str)) for secret in secrets):
            content = redact(text, secrets)
        return ToolOutput(content=content, pictures=output.pictures, failed=output.failed)


def _reason(error: BaseException) -> str:
    """The innermost of what went wrong, as a sentence."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"There is no {error.filename}."
    text = str(error) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
