"""The MCP servers of this Jupyter server process, shared by all its sessions; and their tools as tools of a run.

No server starts before a run begins that may use it. The files are read then, and whenever the states are asked for:
servers whose configuration changed are restarted, removed ones are stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

from ...config_files import FileProblem
from ...errors import NaviError, NotFound, ToolUnavailable
from ...events import Custom
from ...lease_file import LeaseFile
from ...log_setup import get_logger
from ...model.runs import Effect
from ...ports.agent import ToolContext
from ..profiles.definitions import Profile
from ..tools.base import Tool, ToolNote, ToolOutput, refusal
from ..tools.permissions import server_used_by
from .calls import RemoteTool
from .config import ConfigFiles, Configuration, ServerConfig
from .connection import ServerConnection, ServerState, ServerTimeouts

_log = get_logger("mcp")
MAX_NAME = 64  # characters of a tool's name that every provider takes
# Seconds that a run waits for servers that start; the tools of one that takes longer are there for the next run.
FIRST_WAIT = 15.0
SOURCE = "mcp:"
MISSING_TOOL = "mcp_unavailable"


class McpPool:
    def __init__(
        self,
        files: ConfigFiles,
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


class McpTools:
    """The tools of the servers that all profiles of an agent admit, as a ToolSource."""

    def __init__(self, pool: McpPool, profile_of: Callable[[str], Profile], *, first_wait: float = FIRST_WAIT) -> None:
        self._pool = pool
        self._profile_of = profile_of
        self._first_wait = first_wait

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """The tools of the servers that are ready within ``first_wait`` seconds; one more tool explains the others."""
        try:
            chain = [self._profile_of(name) for name in context.profiles or (context.session.profile,)]
        except NaviError:
            return ()  # the run fails with the same error
        used = await self._pool.use(lambda name: server_used_by(chain, name), self._first_wait)
        states = [server.state for server in used]
        missing = [state for state in states if state.status != "ready"]
        return [*self._tools(states), *([_unavailable(missing)] if missing else ())]

    async def known(self) -> Sequence[ToolNote]:
        """The tools of all servers that are ready now, whatever the profile: for ``GET tools``."""
        return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in self._tools(self._pool.states)]

    def _tools(self, states: Sequence[ServerState]) -> list[Tool]:
        offered = [(state.config, tool) for state in states if state.status == "ready" for tool in state.tools]
        names = names_of([(config.name, tool.name) for config, tool in offered])
        return [self._tool(config, tool, name) for (config, tool), name in zip(offered, names, strict=True)]

    def _tool(self, config: ServerConfig, remote: RemoteTool, name: str) -> Tool:
        async def call(given: Mapping[str, Any]) -> ToolOutput:
            return await self._pool.call(config.name, remote.name, given)

        return Tool(
            name=name,
            description=remote.description,
            parameters=remote.parameters,
            # A hint is the word of the server about itself: it counts where the configuration says that it is trusted.
            effect=Effect.READ if remote.reads_only and config.trust_hints else Effect.OUTSIDE,
            call=call,
            source=f"{SOURCE}{config.name}",
        )


def names_of(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """``<server>__<tool>`` for each, of the characters and the length that providers take, all different.

    The same pair has the same name in every process, as long as no other one collides with it: a run that another
    process continues finds its tools again.
    """
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}__{tool}") for server, tool in pairs]
    plain = [name if name[0].isalpha() or name[0] == "_" else f"_{name}" for name in plain]
    often = Counter(plain)
    return [
        name if often[name] == 1 and len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}_{_digest(pair)}"
        for pair, name in zip(pairs, plain, strict=True)
    ]


def _digest(pair: tuple[str, str]) -> str:
    return hashlib.sha256("\0".join(pair).encode()).hexdigest()[:8]


def _unavailable(missing: Sequence[ServerState]) -> Tool:
    """A tool that explains to the model which servers it cannot use in this run, and why."""
    listed = "; ".join(f"{state.config.name} ({state.status})" for state in missing)

    reasons = [{"server": state.config.name, "status": state.status, "message": state.message} for state in missing]

    async def call(_given: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(content=reasons)

    return Tool(
        name=MISSING_TOOL,
        description="Why some MCP servers cannot be used in this turn; their tools may be there in the next one. "
        f"Inform the user when one of them is needed. They are: {listed[:1000]}",
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
        effect=Effect.READ,
        call=call,
    )
