"""A pool of MCP servers: those of the configuration files, shared by all sessions, or those of one user.

No server starts before a run begins that may use it. The files are read then, and whenever the states are asked for:
servers whose configuration changed are restarted, removed ones are stopped. Not responsible for which pool a run uses
(``user_servers``), nor for tools as runs have them (``run_tools``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

from ...config_files import FileProblem
from ...errors import NaviError, NotFound, ToolUnavailable
from ...events import Custom
from ...lease_file import LeaseFile
from ...log_setup import get_logger
from ..tools.base import ToolOutput, refusal
from .config import ConfigFiles, Configuration, ServerConfig
from .connection import ServerConnection, ServerState, ServerTimeouts
from .user_config import StoredServers

_log = get_logger("mcp")


class McpPool:
    def __init__(
        self,
        files: ConfigFiles | StoredServers,
        *,
        root: Path | None = None,
        timeouts: ServerTimeouts | None = None,
        on_status: Callable[[Custom], Awaitable[None]] | None = None,
        lease_file: LeaseFile | None = None,
    ) -> None:
        """``on_status`` gets the ``navi.mcp`` event of every change of a server's status."""
        self._files = files
        self._lease_file = lease_file  # by it the programs see until when this server may act
        self._root = root  # the directory that servers may ask for as their root
        self._timeouts = timeouts or ServerTimeouts()
        self._servers: dict[str, ServerConnection] = {}
        self.problems: Sequence[FileProblem] = ()  # files that could not be read as a whole at the last refresh
        self._refreshing = asyncio.Lock()
        self._closed = False
        self._on_status = on_status
        self._emitting = asyncio.Lock()
        self._emissions: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> list[ServerState]:
        """The servers of the last refresh, with their states of now."""
        return [server.state for server in self._servers.values()]

    async def refresh(self) -> None:
        """Read the files, and restart or stop what has changed there."""
        async with self._refreshing:
            configuration = await asyncio.to_thread(self._files.read)
            self.problems = configuration.problems
            if not self._closed:
                await self._apply(configuration)

    async def use(self, admits: Callable[[str], bool], seconds: float) -> list[ServerConnection]:
        """The servers with these names, started; waits up to ``seconds`` for those that start. In the files' order."""
        await self.refresh()
        used = [server for name, server in self._servers.items() if admits(name) and not server.config.disabled]
        for server in used:
            server.ensure_started()
        await asyncio.gather(*(server.wait_started(seconds) for server in used))
        return used

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        """Call a tool for the run of the present task. Errors become a failed output."""
        found = self._servers.get(server)
        if found is None:
            await self.refresh()  # a run that another process began, which this one continues
            found = self._servers.get(server)
        if found is None or not found.usable:
            return refusal(ToolUnavailable(f"The MCP server {server} is not configured any more, or is disabled."))
        return await found.call(tool, arguments)

    async def restart(self, name: str) -> ServerState:
        """Stop a server and start it again, without waiting until it is ready. Raises NotFound."""
        await self.refresh()
        async with self._refreshing:
            server = self._servers.get(name)
            if server is None:
                raise NotFound(f"There is no MCP server {name[:64]!r} in the configuration.")
            await server.stop()
            fresh = self._servers[name] = self._connection(server.config)
            fresh.ensure_started()
        return fresh.state

    async def stop(self) -> None:
        """Stop all servers at the same time, each within its time limit."""
        self._closed = True
        for emission in self._emissions:
            emission.cancel()
        await asyncio.gather(*self._emissions, return_exceptions=True)
        async with self._refreshing:
            await asyncio.gather(*(server.stop() for server in self._servers.values()))

    def _emit(self, event: Custom) -> None:
        """Emit an event from a task of its own: a change of status does not wait for the store."""
        if self._on_status is not None and not self._closed:
            emission = asyncio.create_task(
                self._emit_in_turn(event, self._on_status), name="navi-mcp-event", context=Context()
            )
            self._emissions.add(emission)
            emission.add_done_callback(self._emissions.discard)

    async def _emit_in_turn(self, event: Custom, emit: Callable[[Custom], Awaitable[None]]) -> None:
        async with self._emitting:  # a lock wakes in the order of waiting, so that events keep their order
            try:
                await emit(event)
            except NaviError as error:  # the store failed; GET mcp still has the status
                _log.warning("mcp_status_not_emitted", code=error.code)

    async def _apply(self, configuration: Configuration) -> None:
        configured = configuration.servers
        changed = [server for name, server in self._servers.items() if configured.get(name) != server.config]
        ran = {server.config.name for server in changed if server.running}
        if changed:
            _log.info("mcp_configuration_changed", servers=",".join(server.config.name for server in changed))
            await asyncio.gather(*(server.stop() for server in changed))
        replaced = {server.config.name for server in changed}
        old, self._servers = self._servers, {}
        for name, config in configured.items():
            if name in old and name not in replaced:
                self._servers[name] = old[name]
                continue
            fresh = self._servers[name] = self._connection(config)
            if name in replaced:
                fresh.emit_status()
            if name in ran:
                fresh.ensure_started()

    def _connection(self, config: ServerConfig) -> ServerConnection:
        return ServerConnection(
            config, emit=self._emit, root=self._root, timeouts=self._timeouts, lease_file=self._lease_file
        )
