"""The MCP servers of this Jupyter server process, shared by all its sessions: as the files have them now.

Nothing starts before a run that may use a server begins. The files are looked at then, and whenever somebody asks how
the servers are; what changed there is restarted, what is gone is stopped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

from ...config_files import FileProblem
from ...errors import NaviError, NotFound, ToolUnavailable
from ...events import Custom
from ...log_setup import get_logger
from ..tools.base import ToolOutput
from ..tools.functions import refusal
from .config import ConfigFiles, Configuration
from .connection import PausableTimeout, ServerConnection, ServerState

_log = get_logger("mcp")


async def ignore(event: Custom) -> None:
    """Drops it."""


class _News:
    """Tells what has happened in its order, without anybody waiting for it."""

    def __init__(self) -> None:
        self.tell: Callable[[Custom], Awaitable[None]] = ignore
        self._waiting: deque[Custom] = deque()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def add(self, event: Custom) -> None:
        if self._over:
            return
        self._waiting.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._tell(), name="navi-mcp-news", context=Context())

    async def stop(self) -> None:
        self._over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _tell(self) -> None:
        while self._waiting:
            try:
                await self.tell(self._waiting.popleft())
            except NaviError as error:  # the store is away; GET mcp still knows
                _log.warning("mcp_status_not_told", code=error.code)


class McpPool:
    """See the module."""

    def __init__(
        self, files: ConfigFiles, *, root: Path | None = None, patience: PausableTimeout | None = None
    ) -> None:
        """``root``: the directory that servers may ask for as their root. Does nothing until it is used."""
        self._files = files
        self._root = root
        self._patience = patience or PausableTimeout()
        self._servers: dict[str, ServerConnection] = {}
        self._problems: Sequence[FileProblem] = ()
        self._refreshing = asyncio.Lock()
        self._closed = False
        self._news = _News()

    def on_status(self, tell: Callable[[Custom], Awaitable[None]]) -> None:
        """Let ``tell`` have every change of a server's status, as the ``navi.mcp`` event for all open clients."""
        self._news.tell = tell

    @property
    def problems(self) -> Sequence[FileProblem]:
        """Files that can not be read as a whole, as of the last look."""
        return self._problems

    @property
    def states(self) -> list[ServerState]:
        """How the servers are, as of the last look at the files."""
        return [server.state for server in self._servers.values()]

    async def refresh(self) -> None:
        """Look at the files, and do what has changed there."""
        async with self._refreshing:
            configuration = await asyncio.to_thread(self._files.read)
            self._problems = configuration.problems
            if not self._closed:
                await self._follow(configuration)

    async def use(self, admits: Callable[[str], bool], seconds: float) -> list[ServerConnection]:
        """The servers with these names, started; waits up to ``seconds`` for those that start. In the files' order."""
        await self.refresh()
        wanted = [server for name, server in self._servers.items() if admits(name) and not server.config.disabled]
        for server in wanted:
            server.want()
        if wanted:
            await asyncio.gather(*(server.settled(seconds) for server in wanted))
        return wanted

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        """Call a tool for the run of the present task. What goes wrong is a failed output."""
        found = self._servers.get(server)
        if found is None:
            await self.refresh()  # a run that goes on after this server process was started
            found = self._servers.get(server)
        if found is None or not found.usable:
            return refusal(ToolUnavailable(f"The MCP server {server} is not configured any more, or is disabled."))
        return await found.call(tool, arguments)

    async def restart(self, name: str) -> ServerState:
        """Stop a server and start it anew, without waiting for its being ready. Raises NotFound."""
        await self.refresh()
        async with self._refreshing:
            server = self._servers.get(name)
            if server is None:
                raise NotFound(f"There is no MCP server {name[:64]!r} in the configuration.")
            await server.stop()
            fresh = self._servers[name] = self._make(server)
            fresh.want()
        return fresh.state

    async def stop(self) -> None:
        """End all of them at once; each within its bound."""
        self._closed = True
        await self._news.stop()
        async with self._refreshing:
            await asyncio.gather(*(server.stop() for server in self._servers.values()))

    async def _follow(self, configuration: Configuration) -> None:
        changed = [
            server
            for name, server in self._servers.items()
            if name not in configuration.servers or configuration.servers[name] != server.config
        ]
        ran = {server.config.name for server in changed if server.running}
        if changed:
            _log.info("mcp_configuration_changed", servers=",".join(server.config.name for server in changed))
            await asyncio.gather(*(server.stop() for server in changed))
        replaced = {server.config.name for server in changed}
        old, self._servers = self._servers, {}
        for name, config in configuration.servers.items():
            if name in old and name not in replaced:
                self._servers[name] = old[name]
                continue
            fresh = ServerConnection(config, tell=self._news.add, root=self._root, patience=self._patience)
            self._servers[name] = fresh
            if name in replaced:
                fresh.announce()
            if name in ran:
                fresh.want()

    def _make(self, server: ServerConnection) -> ServerConnection:
        return ServerConnection(server.config, tell=self._news.add, root=self._root, patience=self._patience)
