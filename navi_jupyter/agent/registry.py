"""What a run of the agent works with, put together by the composition root and handed to every loop.

Not responsible for how each part is made: ``profiles``, ``permissions``, ``contexts``, ``tools``, ``mcp``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..log_setup import get_logger
from ..model.runs import Permission, RunLimits
from ..ports.agent import ToolContext, Turn
from .profiles.definitions import Profile
from .tools.base import ListedSource, Tool, ToolNote, ToolSource

log = get_logger("agent")


class Profiles(Protocol):
    """Built-in profiles and the user's own."""

    def get(self, name: str) -> Profile:
        """Raises InvalidRequest with the file and line for one that is broken, and the known names for an unknown."""
        ...

    def model_of(self, name: str) -> str | None:
        """The model of new sessions with this profile; None when it names none or is none."""
        ...

    def limits_of(self, name: str) -> RunLimits:
        """The profile's own limits. Raises InvalidRequest as :meth:`get` does."""
        ...

    def describe(self) -> list[dict[str, Any]]:
        """For ``GET profiles``: ``wire.ProfileInfo`` each."""
        ...


class Permissions(Protocol):
    """Who may let a tool run: the administrator's ceiling, the session, the profile, the tool's effect."""

    def decide(self, tool: Tool, profile: Profile, context: ToolContext) -> Permission:
        """Whether this tool may be called now. For a headless run (of a recall) ``ask`` only where asks are queued."""
        ...

    def explain(self, tool: Tool, profile: Profile, context: ToolContext) -> str:
        """Why :meth:`decide` says so, for the model and the user; for ``deny`` with how to allow it."""
        ...

    def by_default(self, tool: Tool) -> Permission:
        """What holds with a profile and a session that say nothing."""
        ...


class Contexts(Protocol):
    """What a model is told besides the conversation: time, notebook, kernel, recalls due, memory."""

    async def gather(self, profile: Profile, turn: Turn, context: ToolContext) -> str:
        """The text for this run's instructions, each provider within its bound of tokens. Never raises."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentParts:
    """See the module."""

    profiles: Profiles
    permissions: Permissions
    contexts: Contexts
    sources: Sequence[ToolSource] = ()

    async def tools(self, profile: Profile, context: ToolContext) -> list[Tool]:
        """What this profile lets a run see, by name; the first source that brings a name wins."""
        if context.session.profile != profile.name:
            # A worker's: sources that start something for a profile (MCP servers) have to know whose.
            context = replace(context, session=context.session.but(profile=profile.name))
        found: dict[str, Tool] = {}
        for tools in await asyncio.gather(*(_asked(source, context) for source in self.sources)):
            for tool in tools:
                if profile.offers(tool):
                    found.setdefault(tool.name, tool)
        return list(found.values())

    def objection(self, tool: Tool, context: ToolContext) -> str | None:
        """Why a loop that can not ask the user may not call the tool; None when it may. Raises InvalidRequest."""
        profile = self.profiles.get(context.session.profile)
        if not profile.offers(tool):
            return f"The profile {profile.name!r} has no {tool.name}."
        match self.permissions.decide(tool, profile, context):
            case Permission.ALLOW:
                return None
            case Permission.ASK:
                return f"{tool.name} needs your approval, and this backend can not ask for it: allow it in the session."
            case Permission.DENY:
                return self.permissions.explain(tool, profile, context)

    async def known(self, context: ToolContext | None = None) -> list[ToolNote]:
        """For ``GET tools``: what the sources have when no run asks, those too that can not be called.

        With the ``context`` of a session, what only a run in it could have (its kernel's functions), too.
        """
        found: dict[str, ToolNote] = {}
        for source in self.sources:
            for note in await _noted(source, context):
                if note.name in found:
                    why = f"There is another tool of this name ({found[note.name].source})."
                    note = replace(note, why=note.why or why)
                found[note.name if note.name not in found else f"{note.name} {note.source}"] = note
        return list(found.values())


async def _noted(source: ToolSource, context: ToolContext | None) -> Sequence[ToolNote]:
    if isinstance(source, ListedSource):
        return await source.known()
    tools = () if context is None else await _asked(source, context)
    return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools]


async def _asked(source: ToolSource, context: ToolContext) -> Sequence[Tool]:
    try:
        return await source.tools(context)
    except Exception:
        # The supervisor of sources: a run goes on without the tools of one that broke its promise not to raise.
        log.exception("tool_source_failed", source=type(source).__name__, run_id=context.run_id)
        return ()
