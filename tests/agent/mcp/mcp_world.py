"""Pools with real servers, and runs that use them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from navi_jupyter.agent.mcp.config import ConfigFiles
from navi_jupyter.agent.mcp.connection import ServerTimeouts
from navi_jupyter.agent.mcp.pool import McpPool
from navi_jupyter.agent.mcp.run_tools import McpTools
from navi_jupyter.agent.mcp.user_servers import McpServers
from navi_jupyter.agent.profiles.definitions import Profile
from navi_jupyter.agent.tools.base import Tool, ToolOutput
from navi_jupyter.clock import now
from navi_jupyter.events import Custom, Event
from navi_jupyter.model.sessions import USER, Session
from navi_jupyter.ports.agent import AskUser, ToolContext, tool_call, tool_context
from navi_jupyter.ports.stop import StopSignal
from navi_jupyter.ports.user_configuration import UserConfiguration

SCRIPT = Path(__file__).with_name("everything.py")
STDIO: dict[str, Any] = {"command": sys.executable, "args": [str(SCRIPT)]}
SECONDS = 60.0
"""For what must happen; the machine may be slow."""


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for what somebody else does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  it happens in another process
            await asyncio.sleep(0.01)


@dataclass
class Profiles:
    """One profile for all sessions."""

    profile: Profile = field(
        default_factory=lambda: Profile(name="assistant", description="", instructions="", tools=("*",))
    )

    def get(self, name: str, own: UserConfiguration) -> Profile:
        return self.profile


class McpWorld:
    """A pool as a Jupyter server has it, its configuration file, and runs."""

    def __init__(self, directory: Path, timeouts: ServerTimeouts) -> None:
        self.file = directory / "mcp.json"
        self.directory = directory
        self.statuses: list[dict[str, Any]] = []
        self.pool = McpPool(ConfigFiles(str(self.file)), root=directory, timeouts=timeouts, on_status=self._on_status)
        self.profiles = Profiles()
        self.source = McpTools(McpServers(self.pool), self.profiles.get, first_wait=SECONDS)
        self.events: list[Event] = []
        self._versions = 0
        self.stop = StopSignal()

    async def _on_status(self, event: Custom) -> None:
        assert event.name == "navi.mcp"
        self.statuses.append(event.value)

    def configure(self, **servers: dict[str, Any]) -> None:
        """Write the file; its size and time change with every version."""
        self._versions += 1
        self.file.write_text(json.dumps({"mcpServers": servers}, indent=2) + " " * self._versions)

    def context(self, run_id: str = "r_1", ask: AskUser | None = None) -> ToolContext:
        session = Session(
            id="s_1", owner="local", title="t", profile="assistant", model="offline", created_at=now(), updated_at=now()
        )
        unused = cast("Any", None)  # MCP tools have nothing to do with recalls and the library
        return ToolContext(
            user_id="local",
            session=session,
            run_id=run_id,
            origin=USER,
            stop=self.stop,
            recalls=unused,
            library=unused,
            emit=self.events.append,
            ask=ask,
        )

    async def tools(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in await self.source.tools(self.context())}

    async def call(
        self, name: str, args: dict[str, Any] | None = None, *, run_id: str = "r_1", ask: AskUser | None = None
    ) -> ToolOutput:
        """Call a tool as a run does: in a task of its own, with its context."""
        return await self.run((await self.tools())[name], args or {}, run_id=run_id, ask=ask)

    async def run(
        self, tool: Tool, args: dict[str, Any], *, run_id: str = "r_1", ask: AskUser | None = None
    ) -> ToolOutput:
        """:meth:`call` of a tool that the run has already."""

        async def run() -> ToolOutput:
            tool_context.set(self.context(run_id, ask))
            tool_call.set(f"call_{run_id}")
            return await tool.call(args)

        return await asyncio.create_task(run())

    def status(self, server: str = "all") -> str:
        return next(state.status for state in self.pool.states if state.config.name == server)
