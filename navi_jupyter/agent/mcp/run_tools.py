"""The tools of MCP servers as tools of a run.

Not responsible for the connections (``user_servers``, ``pool``), nor for how a call is made (``calls``).
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
from ...ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from ..profiles.definitions import Profile
from ..tools.base import Tool, ToolNote, ToolOutput
from ..tools.permissions import server_used_by
from .calls import RemoteTool
from .connection import ServerState
from .user_servers import McpServers

MAX_NAME = 64  # characters of a tool's name that every provider takes
# Seconds that a run waits for servers that start; the tools of one that takes longer are there for the next run.
FIRST_WAIT = 15.0
SOURCE = "mcp:"
MISSING_TOOL = "mcp_unavailable"

ProfileOf = Callable[[str, UserConfiguration], Profile]
"""A profile by its name, as a user can choose it. Raises a NaviError for one that cannot be used."""


class McpTools:
    """The tools of the servers that all profiles of an agent admit, as a ToolSource."""

    def __init__(
        self, servers: McpServers, profile_of: ProfileOf | None = None, *, first_wait: float = FIRST_WAIT
    ) -> None:
        """``profile_of``: None where it is only asked for what is admitted by others (:meth:`admitted`)."""
        self._servers = servers
        self._profile_of = profile_of
        self._first_wait = first_wait

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """The tools of the servers that are ready within ``first_wait`` seconds; one more tool explains the others."""
        own = context.configuration
        if self._profile_of is None:
            return ()
        try:
            chain = [self._profile_of(name, own) for name in context.profiles or (context.session.profile,)]
        except NaviError:
            return ()  # the run fails with the same error
        tools, missing = await self.admitted(own, lambda name: server_used_by(chain, name), self._first_wait)
        if missing:
            reasons = [{"server": one.config.name, "status": one.status, "message": one.message} for one in missing]
            tools.append(explanation_of(reasons))
        return tools

    async def admitted(
        self, own: UserConfiguration, admits: Callable[[str], bool], seconds: float
    ) -> tuple[list[Tool], list[ServerState]]:
        """The tools of the servers with these names that are ready within so many seconds; and those that are not."""
        states = [server.state for server in await self._servers.use(own, admits, seconds)]
        return self._tools(states, own), [state for state in states if state.status != "ready"]

    async def known(self, context: ToolContext | None = None) -> Sequence[ToolNote]:
        """The tools of all servers that are ready now, whatever the profile: for ``GET tools``."""
        own = NOTHING_CONFIGURED if context is None else context.configuration
        tools = self._tools(self._servers.known(own), own)
        return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools]

    def _tools(self, states: Sequence[ServerState], own: UserConfiguration) -> list[Tool]:
        offered = [(state, tool) for state in states if state.status == "ready" for tool in state.tools]
        names = names_of([(state.config.name, tool.name) for state, tool in offered])
        return [self._tool(state, tool, name, own) for (state, tool), name in zip(offered, names, strict=True)]

    def _tool(self, server: ServerState, remote: RemoteTool, name: str, own: UserConfiguration) -> Tool:
        config = server.config

        async def call(given: Mapping[str, Any]) -> ToolOutput:
            return await self._servers.call(own, server, remote.name, given)

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


def explanation_of(reasons: Sequence[Mapping[str, Any]], *, name: str = MISSING_TOOL) -> Tool:
    """A tool that explains to the model which servers it cannot use in this run, and why.

    ``reasons``: the ``server``, its ``status``, and a ``message`` or None, of each.
    """
    listed = "; ".join(f"{reason['server']} ({reason['status']})" for reason in reasons)

    async def call(_given: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(content=list(reasons))

    return Tool(
        name=name,
        description="Why some MCP servers cannot be used in this turn; their tools may be there in the next one. "
        f"Inform the user when one of them is needed. They are: {listed[:1000]}",
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
        effect=Effect.READ,
        call=call,
    )
