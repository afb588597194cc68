"""The parts that every run of the agent works with: profiles, permissions, context providers and tool sources.

Not responsible for how each part works: ``profiles``, ``tools``, ``mcp``.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidRequest
from ..log_setup import get_logger
from ..model.runs import Effect, Permission
from ..ports.agent import ToolContext
from ..ports.user_configuration import UserConfiguration
from .profiles.context_providers import ContextProvider, RunContexts
from .profiles.files import FOLDER, ProfileBook, Profiles
from .profiles.user_profiles import UserProfiles
from .tools.base import ListedSource, Tool, ToolNote, ToolSource
from .tools.builtin import BuiltinTools
from .tools.entry_points import PackageTools
from .tools.permissions import Chain, ToolPermissions, offered_by

log = get_logger("agent")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentParts:
    """What the composition root builds once and every backend shares; :meth:`of` a run, what that run works with."""

    profiles: Profiles
    permissions: ToolPermissions
    contexts: RunContexts
    # Where tools come from; of two tools with one name, that of the earlier source counts.
    sources: Sequence[ToolSource] = ()

    def of(self, configuration: UserConfiguration) -> AgentParts:
        """The parts with the profiles that one user can choose from."""
        if not configuration.profiles or isinstance(self.profiles, UserProfiles):
            return self
        return replace(self, profiles=UserProfiles(self.profiles, configuration))

    async def tools(self, chain: Chain, context: ToolContext) -> list[Tool]:
        """The tools that an agent bound by these profiles can call, each name once.

        The context names them too: sources that start something for a profile (MCP servers) have to know.
        """
        found: dict[str, Tool] = {}
        for tools in await asyncio.gather(*(_tools_from(source, context) for source in self.sources)):
            for tool in tools:
                found.setdefault(tool.name, tool)
        # Chosen after the names are given: a name that a profile does not offer stays that of its tool.
        return [tool for tool in found.values() if offered_by(chain, tool)]

    async def known(self, context: ToolContext | None = None) -> list[ToolNote]:
        """All tools for ``GET tools``, also those that cannot be called, each with the reason.

        With the ``context`` of a session also the tools that only a run in it has (the functions of its kernel).
        """
        found: dict[str, ToolNote] = {}
        for source in self.sources:
            for note in await _notes_from(source, context):
                if note.name in found:
                    why = f"There is another tool of this name ({found[note.name].source})."
                    note = replace(note, why=note.why or why)
                found[note.name if note.name not in found else f"{note.name} {note.source}"] = note
        return list(found.values())

    async def check_leave(self, names: Sequence[str], context: ToolContext) -> None:
        """Whether a recall of the context's session can be allowed these tools and effects (``effect:run``).

        Raises InvalidRequest for a name that there is not, and for one that the administrator's ceiling, the session's
        profile or one of the context's never lets through: leave that means nothing must not look as if it did, and
        an agent gives none that it could not be given.
        """
        names_of_profiles = dict.fromkeys((context.session.profile, *context.profiles))
        profiles = self.of(context.configuration).profiles
        chain, notes = [profiles.get(name) for name in names_of_profiles], await self.known(context)
        judge = self.permissions.judge
        for name in names:
            kind, _, rest = name.partition(":")
            effect = rest if kind == "effect" else None
            found = [note for note in notes if _is_meant(note, name, effect)]
            if not found and effect not in tuple(Effect):
                known = sorted({note.name for note in notes} | set(Effect))
                near = difflib.get_close_matches(rest if effect is not None else name, known, n=1, cutoff=0.5)
                hint = f" Did you mean {str(near[0])!r}?" if near else f" Effects are {', '.join(Effect)}."
                raise InvalidRequest(f"There is no tool or effect {name!r} to be allowed.{hint}", field="allow")
            tools = [note.tool for note in found if note.tool is not None]
            offered = [tool for tool in tools if offered_by(chain, tool)]
            if tools and not offered:
                lacking = next((one for one in chain if not any(map(one.offers, tools))), chain[0])
                raise InvalidRequest(f"The profile {lacking.name!r} has no {name} to be allowed.", field="allow")
            given = replace(context, leave=(name,))
            verdicts = [judge(tool, chain, given) for tool in offered]
            if verdicts and all(verdict.permission is not Permission.ALLOW for verdict in verdicts):
                raise InvalidRequest(f"A recall cannot be allowed {name}: {verdicts[0].because}", field="allow")
            # The recall's runs have the session's profile: what only the agent's own profile denies, they would do.
            for verdict, own in ((judge(tool, chain, given), judge(tool, chain[:1], given)) for tool in tools):
                if verdict.permission is Permission.DENY and own.permission is not Permission.DENY:
                    raise InvalidRequest(f"A recall cannot be allowed {name}: {verdict.because}", field="allow")


def _is_meant(note: ToolNote, name: str, effect: str | None) -> bool:
    if effect is None:
        return note.name == name
    return note.tool is not None and note.tool.effect == effect


def default_parts(
    *,
    config_path: Sequence[str] = (),
    ceiling: Mapping[str, Permission] | None = None,
    check_model: Callable[[str], object] | None = None,
    sources: Sequence[ToolSource] = (),
    last: Sequence[ToolSource] = (),
    packages: bool = True,
    more_context: Callable[[ToolContext], Awaitable[Sequence[ContextProvider]]] | None = None,
) -> AgentParts:
    """Parts with the profiles below Jupyter's configuration path, the built-in tools, ``sources``, and packages.

    ``last``: sources whose tools take the name of no other one; ``more_context``: see ``RunContexts``.

    Reads and imports nothing yet.
    """
    folders = [Path(folder, FOLDER) for folder in config_path]
    return AgentParts(
        profiles=ProfileBook(folders, check_model=check_model) if check_model else ProfileBook(folders),
        permissions=ToolPermissions(ceiling=dict(ceiling or {})),
        contexts=RunContexts(packages=packages, more=more_context),
        # The built-in tools come first, so that no other source can replace one of them.
        sources=(BuiltinTools(), *sources, *([PackageTools()] if packages else []), *last),
    )


async def _notes_from(source: ToolSource, context: ToolContext | None) -> Sequence[ToolNote]:
    if isinstance(source, ListedSource):
        return await source.known(context)
    tools = () if context is None else await _tools_from(source, context)
    return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools]


async def _tools_from(source: ToolSource, context: ToolContext) -> Sequence[Tool]:
    try:
        return await source.tools(context)
    except Exception:
        # Sources promise not to raise. A run goes on without the tools of one that breaks the promise.
        log.exception("tool_source_failed", source=type(source).__name__, run_id=context.run_id)
        return ()
