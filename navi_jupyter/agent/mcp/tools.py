"""The tools of MCP servers as tools of a run: their names, and which of them a profile has.

Not responsible for calling them (``connection``).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import NaviError
from ...model.runs import Effect
from ...ports.agent import ToolContext
from ..profiles.definitions import Profile
from ..tools.base import Tool, ToolNote, ToolOutput
from .calls import RemoteTool
from .connection import ServerState
from .pool import McpPool

MAX_NAME = 64  # characters of a tool's name that every provider takes
# Seconds that a run waits for servers that start; the tools of one that takes longer are there for the next run.
FIRST_WAIT = 15.0
SOURCE = "mcp:"
MISSING_TOOL = "mcp_unavailable"


class McpTools:
    """The tools of the servers that a session's profile admits, as a ToolSource."""

    def __init__(self, pool: McpPool, profile_of: Callable[[str], Profile], *, first_wait: float = FIRST_WAIT) -> None:
        self._pool = pool
        self._profile_of = profile_of
        self._first_wait = first_wait

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """The tools of the servers that are ready within ``first_wait`` seconds; one more tool explains the others."""
        try:
            profile = self._profile_of(context.session.profile)
        except NaviError:
            return ()  # the run fails with the same error
        servers = await self._pool.use(profile.uses_server, self._first_wait)
        states = [server.state for server in servers]
        tools = self._tools(states)
        missing = [state for state in states if state.status != "ready"]
        if missing:
            tools.append(_unavailable(missing))
        return tools

    async def known(self) -> Sequence[ToolNote]:
        """The tools of all servers that are ready now, whatever the profile: for ``GET tools``."""
        return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in self._tools(self._pool.states)]

    def _tools(self, states: Sequence[ServerState]) -> list[Tool]:
        offered = [(state.config.name, tool) for state in states if state.status == "ready" for tool in state.tools]
        names = names_of([(server, tool.name) for server, tool in offered])
        return [self._tool(server, tool, name) for (server, tool), name in zip(offered, names, strict=True)]

    def _tool(self, server: str, remote: RemoteTool, name: str) -> Tool:
        async def call(given: Mapping[str, Any]) -> ToolOutput:
            return await self._pool.call(server, remote.name, given)

        return Tool(
            name=name,
            description=remote.description,
            parameters=remote.parameters,
            # The server's own hint counts: the user who configured it trusts it. A profile can overrule it.
            effect=Effect.READ if remote.reads_only else Effect.OUTSIDE,
            call=call,
            source=f"{SOURCE}{server}",
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

    async def call(_given: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(
            content=[
                {"server": state.config.name, "status": state.status, "message": state.message} for state in missing
            ]
        )

    return Tool(
        name=MISSING_TOOL,
        description="Why some MCP servers cannot be used in this turn; their tools may be there in the next one. "
        f"Inform the user when one of them is needed. They are: {listed[:1000]}",
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
        effect=Effect.READ,
        call=call,
    )
