"""Whether a tool may run: by the administrator's ceiling, the user's permission, the profile, the tool's effect. Pure.

Not responsible for asking the user (``agent.run.approvals``) nor for a tool's effect (each tool declares its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolPermissions:
    """The rules for tools, with the administrator's ceiling (trait ``tool_ceiling``)."""

    # By name or pattern; the strictest that matches is the most that a tool gets.
    ceiling: Mapping[str, Permission] = field(default_factory=dict)

    def decide(self, tool: Tool, profile: Profile, context: ToolContext) -> Permission:
        """Whether this tool may be called now. For a headless run (of a recall) ``ask`` only where asks are queued."""
        return self.judge(tool, profile, context).permission

    def explain(self, tool: Tool, profile: Profile, context: ToolContext) -> str:
        """Why :meth:`decide` says so, for the model and the user; for ``deny`` with how to allow it."""
        return self.judge(tool, profile, context).because

    def judge(self, tool: Tool, profile: Profile, context: ToolContext, question: str | None = None) -> Verdict:
        """The administrator's ceiling can only make stricter what the profile, the user and the effect give.

        ``question``: what this very call has to ask the user, whatever permits the tool.
        """
        verdict = self._under_ceiling(tool, self._before_ceiling(tool, profile, context))
        if question is not None and verdict.permission is Permission.ALLOW:
            verdict = Verdict(permission=Permission.ASK, because=question)
        verdict = replace(verdict, question=question)
        headless = context.origin.kind is OriginKind.RECALL
        if verdict.permission is Permission.ASK and headless and profile.headless_asks == "deny":
            return Verdict(
                permission=Permission.DENY,
                because=f"{tool.name} needs the user's approval, but a recall started this run, and the profile "
                f"{profile.name!r} denies what would need it then. To allow it, the user allows this recall "
                f'{tool.name}, or writes "{tool.name}" = "allow" under [permissions] of a profile, or headless = '
                '"queue" to be asked where they are there.',
                unasked=True,
            )
        return verdict

    def by_default(self, tool: Tool) -> Permission:
        """The permission under a profile and a session without rules."""
        return self._under_ceiling(tool, _of_effect(tool)).permission

    def _before_ceiling(self, tool: Tool, profile: Profile, context: ToolContext) -> Verdict:
        """A deny of the profile wins; then what the user allowed in this session or to this recall; then the profile's
        rules; then the effect."""
        rule = rule_for(tool, profile.permissions)
        if rule is not None and rule[1] is Permission.DENY:
            return Verdict(
                permission=Permission.DENY,
                because=f"The profile {profile.name!r} denies {tool.name} ({rule[0]!r} under its permissions). "
                "The user can change that there, or choose another profile.",
            )
        if any(matches(pattern, tool) for pattern in context.session.allowed_tools):
            return Verdict(permission=Permission.ALLOW, because=f"The user allowed {tool.name} for this session.")
        if any(matches(name, tool) for name in context.leave):
            return Verdict(
                permission=Permission.ALLOW, because=f"The user allowed this recall {tool.name} without asking."
            )
        if rule is not None:
            return Verdict(permission=rule[1], because=f"The profile {profile.name!r} has the rule {rule[0]!r}.")
        return _of_effect(tool)

    def _under_ceiling(self, tool: Tool, verdict: Verdict) -> Verdict:
        most = strictest(permission for pattern, permission in self.ceiling.items() if matches(pattern, tool))
        if strictest((most, verdict.permission)) is verdict.permission:
            return verdict
        because = f"requires approval of {tool.name} (setting tool_ceiling)."
        if most is Permission.DENY:
            because = f"denies {tool.name} (setting tool_ceiling). Only they can allow it."
        return Verdict(permission=most, because=f"The administrator of this server {because}")


def _of_effect(tool: Tool) -> Verdict:
    permission = BY_EFFECT[tool.effect]
    return Verdict(permission=permission, because=f"It is the default for tools with the effect {tool.effect.value!r}.")
