"""What a tool is, whoever brought it: built in, a package's, a function of the user's kernel, an MCP server's.

A tool finds whom it works for in ``ports.tool_context``, and its own call in ``ports.tool_call``. A NaviError becomes a
result that the caller can read and act on; anything else that a tool raises is told to the model as its failure.
Not responsible for whether a tool may run (``permissions``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from ...model.runs import Effect
from ...ports.agent import ToolContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image that goes to a model that can see."""

    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutput:
    """What a tool gives back."""

    content: Any
    """What the model reads: text, or what JSON can say."""
    images: Sequence[Image] = ()
    failed: bool = False
    """The call did not do what was asked; the content says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """Something that a run can do."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments: an object."""
    effect: Effect
    call: Callable[[Mapping[str, Any]], Awaitable[ToolOutput]]
    """Calls it with arguments as a model gave them; validates them itself, and says what is wrong as a failed output.
    Cancelling it ends the work (a kernel's cell, an MCP request) before the cancellation is let through."""
    source: str = "builtin"
    """``builtin``, ``package:<distribution>``, ``kernel``, ``mcp:<server>``."""


_HARMLESS = (Effect.READ, Effect.NOTE)
"""What changes nothing outside Navi. ``OUTSIDE`` is not among them: it stands for what is not known."""


async def call_recorded(tool: Tool, args: Mapping[str, Any], context: ToolContext) -> ToolOutput:
    """Call the tool; if it may change something outside Navi, it is on record before it starts."""
    if tool.effect not in _HARMLESS:
        await context.record_effect(tool.name)
    return await tool.call(args)


def matches(pattern: str, tool: Tool) -> bool:
    """Whether a shell pattern means the tool: its name, or ``effect:run``, ``source:mcp:*`` (case counts)."""
    kind, colon, rest = pattern.partition(":")
    if colon and kind == "effect":
        return fnmatchcase(tool.effect.value, rest)
    if colon and kind == "source":
        return fnmatchcase(tool.source, rest)
    return fnmatchcase(tool.name, pattern)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolNote:
    """A tool as lists show it, also one that can not be called."""

    name: str
    source: str
    tool: Tool | None = None
    why: str | None = None
    """Why it can not be called; None when it can."""


class ToolSource(Protocol):
    """Brings tools. Asked at the beginning of each run; must be quick or bounded."""

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """Those that can be called now in this session. Never raises for one that can not."""
        ...


@runtime_checkable
class ListedSource(ToolSource, Protocol):
    """A source that also knows what it has when no run asks."""

    async def known(self) -> Sequence[ToolNote]:
        """For ``GET tools``. Starts nothing. Never raises."""
        ...
