"""An open connection to an MCP server, with the official SDK's client.

Imports the SDK, which takes more than half a second: imported by ``server`` in a thread, at first use. Opened and
closed by the one task that owns it (anyio's cancel scopes want that); called from any task of the loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import mcp_types as types
from mcp.client._transport import TransportStreams
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from pydantic import FileUrl, ValidationError

from ...log_setup import get_logger
from ...model.runs import InterruptStatus
from ..tools.base import ToolOutput
from . import stdio, web
from .calls import PendingCall, PendingCalls
from .config import ServerConfig, environment
from .connection import RemoteTool
from .results import cut, output_of

Signal = Literal["lost", "changed"]
MAX_PAGES = 50
MAX_TOOLS = 500
LISTEN_AGAIN = 5.0
"""Seconds until a lost subscription is made anew."""
_log = get_logger("mcp")


class Connection:
    """See the module."""

    def __init__(self, config: ServerConfig, signal: Callable[[Signal], None], root: Path | None) -> None:
        self._config = config
        self._signal = signal
        self._root = root
        self._flights = PendingCalls()
        self._trace = stdio.Trace()
        self._client = Client(
            self._transport(),
            mode=config.protocol,
            client_info=types.Implementation(name="navi-jupyter", version=_version()),
            elicitation_callback=self._elicit,
            list_roots_callback=self._roots if root is not None else None,
            message_handler=self._hear,
            cache=None,  # lists are asked for when they have changed
        )

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        if self._config.url:
            return web.connect(self._config, self._trace)
        if sys.platform == "win32":
            # Its job object ends with us and takes the server along: what the guard does elsewhere.
            program, *arguments = self._config.command
            env = environment(self._config.env)
            return stdio_client(StdioServerParameters(command=program, args=arguments, env=env, cwd=self._config.cwd))
        return stdio.connect(self._config, self._trace, lambda: self._signal("lost"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connected and agreed on a protocol, until left."""
        async with self._client:
            listener = asyncio.create_task(self._listen(), name=f"navi-mcp-listen-{self._config.name}")
            try:
                yield
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    @property
    def protocol(self) -> str:
        return self._client.protocol_version

    def last_words(self) -> str:
        """What the server left behind, for a message about its failure."""
        if self._trace.answered:
            return self._trace.answered
        code = self._trace.exit_code
        ended = "" if code is None else f"It ended with code {code}. "
        tail = self._trace.tail
        return f"{ended}It wrote: {tail}" if tail else ended.strip()

    async def tools(self) -> tuple[RemoteTool, ...]:
        """What it offers now."""
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) >= MAX_TOOLS:
                break
        return tuple(_remote(tool) for tool in found[:MAX_TOOLS])

    async def call(self, tool: str, arguments: Mapping[str, Any], flight: PendingCall) -> ToolOutput:
        """Call a tool. What goes wrong is a failed output; cancelling tells the server."""
        try:
            async with self._flights.track(flight), flight.running_calls():
                result = await self._client.call_tool(tool, dict(arguments), progress_callback=flight.progress)
        except MCPError as error:
            return self._failed(error)
        except TimeoutError:
            seconds = f"{self._config.call_timeout:g}"
            return ToolOutput(content=f"It did not answer within {seconds} s, and was told to stop.", failed=True)
        except (ValidationError, RuntimeError, ValueError, OSError, ExceptionGroup) as error:
            # Whatever a server sends that is not what it promised.
            _log.warning("mcp_bad_answer", server=self._config.name, tool=tool, error=type(error).__name__)
            return ToolOutput(content=cut(f"The server's answer can not be used: {error}", 1000), failed=True)
        return output_of(result)

    def _failed(self, error: MCPError) -> ToolOutput:
        told = error.message
        if (error.code, told) == (types.CONNECTION_CLOSED, "Connection closed") or told == "Session terminated":
            self._signal("lost")
            told = (
                "The MCP server went away during the call; it is restarted. Whether it did what was asked is not known."
            )
        return ToolOutput(content=cut(told, 4000), failed=True)

    # --- what the server wants from us -------------------------------------------------------------------------------

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._signal("changed")
        elif isinstance(message, Exception):
            _log.debug("mcp_noise", server=self._config.name, error=type(message).__name__)

    async def _listen(self) -> None:
        """With the newer protocol, changes are only told to those who ask for them."""
        capability = self._client.server_capabilities.tools
        if capability is None or not capability.list_changed:
            return
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._signal("changed")
            except (ListenNotSupportedError, MCPError):
                return
            except SubscriptionLost:
                pass
            await asyncio.sleep(LISTEN_AGAIN)
            self._signal("changed")  # what we have missed meanwhile

    async def _roots(self, context: ClientRequestContext) -> types.ListRootsResult:  # noqa: ARG002  the SDK's signature
        roots = [] if self._root is None else [types.Root(uri=FileUrl(self._root.as_uri()), name="Jupyter")]
        return types.ListRootsResult(roots=roots)

    async def _elicit(
        self,
        context: ClientRequestContext,  # noqa: ARG002  the SDK's signature
        params: types.ElicitRequestParams,
    ) -> types.ElicitResult | types.ErrorData:
        flight = self._flights.asked()
        if flight is None:
            _log.warning("mcp_question_cancelled", server=self._config.name, reason="not clear whose call asks")
            return types.ElicitResult(action="cancel")
        message = f"{self._config.name}: {params.message[:4000]}"
        schema: dict[str, Any] | None = None
        if isinstance(params, types.ElicitRequestURLParams):
            message += f"\n\nOpen {params.url[:2000]} in your browser, then confirm here."
        else:
            schema = dict(params.requested_schema)
        answer = await flight.ask(message, schema)
        if answer is None or answer.status is InterruptStatus.EXPIRED:
            return types.ElicitResult(action="cancel")
        if answer.status is not InterruptStatus.RESOLVED:
            return types.ElicitResult(action="decline")
        if schema is None:
            return types.ElicitResult(action="accept")
        return _accepted(answer.payload, schema)


def _accepted(payload: Any, schema: Mapping[str, Any]) -> types.ElicitResult:
    """The user's answer as the form that the server wants; a lone value fills a form with a single field."""
    fields = list(schema.get("properties") or {})
    if not isinstance(payload, Mapping):
        payload = {fields[0]: payload} if len(fields) == 1 and payload is not None else {}
    try:
        return types.ElicitResult(action="accept", content=dict(payload))
    except ValidationError:
        return types.ElicitResult(action="cancel")


def _version() -> str:
    try:
        return metadata.version("navi-jupyter")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0"


def _remote(tool: types.Tool) -> RemoteTool:
    hints = tool.annotations
    parameters = dict(tool.input_schema)
    parameters.setdefault("type", "object")
    return RemoteTool(
        name=tool.name,
        description=cut(tool.description or (hints.title if hints and hints.title else "") or tool.name, 4000),
        parameters=parameters,
        reads_only=bool(hints and hints.read_only_hint),
    )
