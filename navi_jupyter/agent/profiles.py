"""Profiles: named ways to be. For now the built-in ``assistant``; and the instructions a model gets from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import OriginKind
from ..ports import ToolContext, Turn
from .context import Wake
from .phrasing import say_schedule, say_stretch, say_time
from .tools import TOOLS, describe_tools

DEFAULT_PROFILE = "assistant"

_ASSISTANT = """\
You are Navi, an assistant that lives in the user's Jupyter server. The user talks to you from a notebook, and several \
notebooks may show this conversation at once. You answer in Markdown, to the point, code in fenced blocks.

You can come back by yourself. A *recall* wakes you in this conversation at a time, once or again and again, also when \
every browser is closed. When the user asks for a reminder, or to look again later, call `create_recall` with a \
message that tells your later self all it needs; then tell the user the exact time from the tool's answer (`next`), \
never one you reckoned yourself. Use `list_recalls` and `cancel_recall` for what is already planned, `session_history` \
for what happened earlier or while the user was away, `current_time` when minutes matter.

You have these tools and no others: you can not run code, read files or browse. Say so when that is asked of you, and \
never claim to have done what no tool confirmed. A tool result with an `error` tells you what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named way to be."""

    name: str
    description: str
    instructions: str
    tools: tuple[str, ...]


PROFILES = {
    DEFAULT_PROFILE: Profile(
        name=DEFAULT_PROFILE,
        description="A helpful assistant that can remind you, come back later, and tell what happened.",
        instructions=_ASSISTANT,
        tools=tuple(TOOLS),
    )
}


def profile_of(name: str) -> Profile:
    """A profile by name. Raises InvalidRequest."""
    profile = PROFILES.get(name)
    if profile is None:
        raise InvalidRequest(f"There is no profile {name!r}. There is: {', '.join(PROFILES)}.", field="profile")
    return profile


def instructions(profile: Profile, turn: Turn, context: ToolContext, wake: Wake | None) -> str:
    """The system prompt of one run: the profile's text, then what is so now."""
    zone = turn.session.timezone
    facts = [
        f"Now: {say_time(turn.now, zone)} {turn.now.year} ({turn.now.isoformat(timespec='seconds')}).",
        f"The user: {context.user_id}, time zone {zone}.",
    ]
    if turn.session.notebook_path:
        facts.append(f"The notebook of this conversation: {turn.session.notebook_path}.")
    facts.append(_reason(turn, wake, zone))
    return f"{profile.instructions}\n\n" + "\n".join(facts)


def _reason(turn: Turn, wake: Wake | None, zone: str) -> str:
    if turn.origin.kind is not OriginKind.RECALL or wake is None:
        return "You run because the user wrote to you."
    said = "You run because a recall woke you; the prompt is its message, and the user may not be there to answer."
    if wake.recall is not None:
        said += f" The recall: {wake.recall.title!r} ({say_schedule(wake.recall)}, id {wake.recall.id})."
    if wake.slot is not None:
        said += f" It was due {say_time(wake.slot, zone)}"
        said += (
            f", {say_stretch(wake.lateness)} ago: say so if it matters." if wake.lateness.total_seconds() > 60 else "."
        )
    if wake.coalesced:
        said += f" It stands for {wake.coalesced} earlier times that were missed, too."
    return said


def describe() -> list[dict[str, Any]]:
    """For ``GET profiles``."""
    return [
        {
            "name": profile.name,
            "description": profile.description,
            "tools": list(profile.tools),
            "builtin": True,
        }
        for profile in PROFILES.values()
    ]


def describe_mcp() -> Sequence[dict[str, Any]]:
    """For ``GET mcp``: no MCP servers can be configured yet."""
    return []


__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "Profile",
    "describe",
    "describe_mcp",
    "describe_tools",
    "instructions",
    "profile_of",
]
