"""Whether a tool may run: by the administrator's ceiling, the user's permission, the profiles, the tool's effect. Pure.

Not responsible for asking the user (``agent.run.approvals``) nor for a tool's effect (each tool declares its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...model.runs import Effect, Permission
from ...model.sessions import OriginKind
from ...ports.agent import ToolContext
from ..profiles.definitions import Profile
from .base import Tool, matches

# The permission where neither the user nor the profile has a rule.
BY_EFFECT: Mapping[Effect, Permission] = {
    Effect.READ: Permission.ALLOW,
    Effect.NOTE: Permission.ALLOW,
    Effect.WRITE: Permission.ASK,
    Effect.RUN: Permission.ASK,
    Effect.OUTSIDE: Permission.ASK,
}
_STRICTNESS = tuple(Permission)


def strictest(permissions: Iterable[Permission]) -> Permission:
    """The strictest of them; ``allow`` when there are none."""
    return max(permissions, key=_STRICTNESS.index, default=Permission.ALLOW)


def rule_for(tool: Tool, rules: Mapping[str, Permission]) -> tuple[str, Permission] | None:
    """The rule whose pattern matches the most exactly: the name itself, else the longest; of equals the strictest."""

    def exactness(rule: tuple[str, Permission]) -> tuple[bool, int, int]:
        pattern = rule[0].removeprefix("effect:").removeprefix("source:")
        return rule[0] == tool.name, len(pattern), _STRICTNESS.index(rule[1])

    return max((rule for rule in rules.items() if matches(rule[0], tool)), key=exactness, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a tool may run, and which rule decided it."""

    permission: Permission
    because: str  # A sentence for the model and the user. For `deny` it ends with how to allow it.
    question: str | None = None  # what the call asks the user in its own words, whatever permits the tool
    unasked: bool = False  # it is denied only because a recall's run is not to ask here


Chain = Sequence[Profile]
"""The profiles that bound an agent, from the session's own to the agent's own; never empty. An agent has what all of
them have: of what they say about a tool the strictest word counts, and what one of them does not offer is not there."""


def offered_by(chain: Chain, tool: Tool) -> bool:
    """Whether an agent that these profiles bound sees the tool."""
    return all(profile.offers(tool) for profile in chain)


def server_used_by(chain: Chain, name: str) -> bool:
    """Whether an agent that these profiles bound has the tools of the MCP server."""
    return all(profile.uses_server(name) for profile in chain)


def delegated_by(chain: Chain, name: str) -> bool:
    """Whether an agent that these profiles bound may have a subagent of the profile ``name``."""
    return all(profile.delegates_to(name) for profile in chain)


def silent_profile(chain: Chain) -> Profile | None:
    """The first of the profiles under which a run of a recall does not ask (``headless = "deny"``); None: it asks."""
    return next((profile for profile in chain if profile.headless_asks == "deny"), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolPermissions:
    """The rules for tools, with the administrator's ceiling (trait ``tool_ceiling``)."""

    # By name or pattern; the strictest that matches is the most that a tool gets.
    ceiling: Mapping[str, Permission] = field(default_factory=dict)

    def decide(self, tool: Tool, chain: Chain, context: ToolContext) -> Permission:
        """Whether this tool may be called now. For a headless run (of a recall) ``ask`` only where asks are queued."""
        return self.judge(tool, chain, context).permission

    def explain(self, tool: Tool, chain: Chain, context: ToolContext) -> str:
        """Why :meth:`decide` says so, for the model and the user; for ``deny`` with how to allow it."""
        return self.judge(tool, chain, context).because

    def judge(self, tool: Tool, chain: Chain, context: ToolContext, question: str | None = None) -> Verdict:
        """The intersection of all that has a say. Each step can only make stricter what the profiles give, but for the
        user's own word, which turns ``ask`` into ``allow``: for this session, or for this recall.

        ``question``: what this very call has to ask the user, whatever permits the tool.
        """
        verdict = self._under_ceiling(tool, _lifted(tool, _strictest_link(tool, chain), context))
        if question is not None and verdict.permission is Permission.ALLOW:
            verdict = Verdict(permission=Permission.ASK, because=question)
        verdict = replace(verdict, question=question)
        silent = silent_profile(chain) if context.origin.kind is OriginKind.RECALL else None
        if verdict.permission is Permission.ASK and silent is not None:
            return Verdict(
                permission=Permission.DENY,
                because=f"{tool.name} needs the user's approval, but a recall started this run, and the profile "
                f"{silent.name!r} denies what would need it then. To allow it, the user allows this recall "
                f'{tool.name}, or writes "{tool.name}" = "allow" under [permissions] of a profile, or headless = '
                '"queue" to be asked where they are there.',
                unasked=True,
            )
        return verdict

    def by_default(self, tool: Tool) -> Permission:
        """The permission under a profile and a session without rules."""
        return self._under_ceiling(tool, _of_effect(tool)).permission

    def _under_ceiling(self, tool: Tool, verdict: Verdict) -> Verdict:
        most = strictest(permission for pattern, permission in self.ceiling.items() if matches(pattern, tool))
        if strictest((most, verdict.permission)) is verdict.permission:
            return verdict
        because = f"requires approval of {tool.name} (setting tool_ceiling)."
        if most is Permission.DENY:
            because = f"denies {tool.name} (setting tool_ceiling). Only they can allow it."
        return Verdict(permission=most, because=f"The administrator of this server {because}")


def _strictest_link(tool: Tool, chain: Chain) -> Verdict:
    """What the strictest profile of the chain says; of equals the first, which is nearest to the session."""
    verdicts = [_of_profile(tool, profile) for profile in chain]
    verdict = max(verdicts, key=lambda one: _STRICTNESS.index(one.permission))
    if verdict.permission is Permission.DENY and verdicts[-1].permission is not Permission.DENY:
        bounded = f"It bounds this agent, too, whose own profile is {chain[-1].name!r}."
        return replace(verdict, because=f"{verdict.because} {bounded}")
    return verdict


def _of_profile(tool: Tool, profile: Profile) -> Verdict:
    """What one profile says: that it does not have the tool, its rule, or what holds for the tool's effect."""
    if not profile.offers(tool):
        return Verdict(permission=Permission.DENY, because=f"The profile {profile.name!r} has no {tool.name}.")
    rule = rule_for(tool, profile.permissions)
    if rule is None:
        return _of_effect(tool)
    pattern, permission = rule
    if permission is Permission.DENY:
        return Verdict(
            permission=permission,
            because=f"The profile {profile.name!r} denies {tool.name} ({pattern!r} under its permissions). "
            "The user can change that there, or choose another profile.",
        )
    return Verdict(permission=permission, because=f"The profile {profile.name!r} has the rule {pattern!r}.")


def _lifted(tool: Tool, verdict: Verdict, context: ToolContext) -> Verdict:
    """The user's word in place of a question: what they allowed in this session, or to this recall. Never of a deny."""
    if verdict.permission is not Permission.ASK:
        return verdict
    if any(matches(pattern, tool) for pattern in context.session.allowed_tools):
        return Verdict(permission=Permission.ALLOW, because=f"The user allowed {tool.name} for this session.")
    if any(matches(name, tool) for name in context.leave):
        return Verdict(permission=Permission.ALLOW, because=f"The user allowed this recall {tool.name} without asking.")
    return verdict


def _of_effect(tool: Tool) -> Verdict:
    permission = BY_EFFECT[tool.effect]
    return Verdict(permission=permission, because=f"It is the default for tools with the effect {tool.effect.value!r}.")
