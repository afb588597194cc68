"""The MCP servers that a user's runs can use: those of the configuration files, and the user's own.

The connections to a user's own servers are this user's: a pool for each user, closed after a time without use. Two
users with the same name or address have two connections. Not responsible for single connections (``pool``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from ...config_files import FileProblem
from ...errors import ToolUnavailable
from ...ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from ..tools.base import ToolOutput, refusal
from .connection import ServerConnection, ServerState
from .pool import McpPool
from .user_config import StoredServers, user_server

IDLE = 600.0  # seconds without a run or a call after which the connections of a user are closed

NewPool = Callable[[str, StoredServers], McpPool]
"""Makes the pool of a user: (owner, servers). It must not be given anything of this machine."""


@dataclass(slots=True)
class _UserPool:
    pool: McpPool
    stored: StoredServers
    used: float  # when it was last used, by the clock of the event loop
    calls: int = 0  # in progress


class McpServers:
    """See the module. One per server process."""

    def __init__(
        self, shared: McpPool, *, new_pool: NewPool | None = None, allow_private: bool = False, idle: float = IDLE
    ) -> None:
        """``new_pool``: None where users have no servers of their own."""
        self._shared = shared
        self._new_pool = new_pool
        self._allow_private = allow_private
        self._idle = idle
        self._pools: dict[str, _UserPool] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def problems(self) -> Sequence[FileProblem]:
        """Files that could not be read as a whole."""
        return self._shared.problems

    def check(self, name: str, entry: Mapping[str, Any]) -> None:
        """Whether an entry can be a user's own server. Raises InvalidRequest."""
        user_server(name, entry, allow_private=self._allow_private)

    async def states(self, configuration: UserConfiguration) -> list[ServerState]:
        """The servers as they are now: a user's own first, which take the place of others with their name."""
        await self._shared.refresh()
        return self._merged(await self._of(configuration))

    def known(self, configuration: UserConfiguration) -> list[ServerState]:
        """The servers that were in use, as :meth:`states`. Reads and starts nothing."""
        return self._merged(self._pools.get(configuration.owner))

    def _merged(self, own: _UserPool | None) -> list[ServerState]:
        states = [] if own is None else own.pool.states
        names = {state.config.name for state in states}
        return [*states, *(state for state in self._shared.states if state.config.name not in names)]

    async def use(
        self, configuration: UserConfiguration, admits: Callable[[str], bool], seconds: float
    ) -> list[ServerConnection]:
        """The servers with these names, started; waits up to ``seconds`` for those that start."""
        own = await self._of(configuration)
        names = set() if own is None else {state.config.name for state in own.pool.states}
        shared = self._shared.use(lambda name: admits(name) and name not in names, seconds)
        if own is None:
            return await shared
        mine, others = await asyncio.gather(own.pool.use(admits, seconds), shared)
        return [*mine, *others]

    async def call(
        self, configuration: UserConfiguration, server: ServerState, tool: str, arguments: Mapping[str, Any]
    ) -> ToolOutput:
        """Call a tool for the run of the present task. Errors become a failed output."""
        if not server.config.own:
            return await self._shared.call(server.config.name, tool, arguments)
        # The run may have been silent for longer than connections are kept, so that the pool is a new one.
        own = self._pools.get(configuration.owner) or await self._of(configuration)
        if own is None:
            return refusal(ToolUnavailable(f"The MCP server {server.config.name} is not configured any more."))
        own.calls += 1
        try:
            return await own.pool.call(server.config.name, tool, arguments)
        finally:
            own.calls -= 1
            own.used = asyncio.get_running_loop().time()

    async def restart(self, name: str, configuration: UserConfiguration) -> ServerState:
        """Stop a server and start it again, without waiting until it is ready. Raises NotFound."""
        own = await self._of(configuration)
        if own is not None and name in configuration.mcp_servers:
            return await own.pool.restart(name)
        return await self._shared.restart(name)

    async def stop(self) -> None:
        """Stop all servers at the same time, each within its time limit."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(self._shared.stop(), *(own.pool.stop() for own in self._pools.values()))
        self._pools.clear()

    async def _of(self, configuration: UserConfiguration) -> _UserPool | None:
        """The pool of a user with what this configuration has; None for a user without servers."""
        owner = configuration.owner
        own = self._pools.get(owner)
        if own is None:
            if not configuration.mcp_servers or self._new_pool is None or self._closed:
                return None
            stored = StoredServers(allow_private=self._allow_private)
            own = self._pools[owner] = _UserPool(self._new_pool(owner, stored), stored, 0.0)
            self._sweep_later()
        own.used = asyncio.get_running_loop().time()
        if configuration is not NOTHING_CONFIGURED:
            own.stored.take(configuration)
        await own.pool.refresh()
        return own

    def _sweep_later(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            # In an empty context: it is nothing of the run that happens to be the first.
            self._sweeper = asyncio.get_running_loop().create_task(
                self._sweep(), name="navi-mcp-idle", context=Context()
            )

    async def _sweep(self) -> None:
        """Close what has not been used for a time, until nothing is open."""
        while self._pools:
            await asyncio.sleep(self._idle / 4)
            now = asyncio.get_running_loop().time()
            idle = [owner for owner, own in self._pools.items() if not own.calls and now - own.used >= self._idle]
            # Taken out before they are closed: who needs one meanwhile gets another.
            await asyncio.gather(*(self._pools.pop(owner).pool.stop() for owner in idle))
