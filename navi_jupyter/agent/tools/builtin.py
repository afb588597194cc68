"""The built-in tools. Each module here exports ``TOOLS``: typed functions as :class:`..toolbox.Tool`.

The modules are imported at the first use, in a thread: their schemas cost some 50 ms that no server start is to pay.
Not responsible for other people's tools (``packages``, ``kernel_tools``, ``mcp``).
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from importlib import import_module
from typing import Any

from ...errors import InvalidRequest, ToolDenied
from ...ports.agent import ToolContext, tool_context
from .base import Tool, ToolNote, ToolOutput


def _always(_: ToolContext) -> bool:
    return True


_MODULES: Mapping[str, Callable[[ToolContext], bool]] = {
    "recalls": _always,
    "history": _always,
    "clock": _always,
    "conditions": lambda context: context.jupyter.kernels is not None,
    "kernel": lambda context: context.jupyter.kernels is not None,
    "notebook": lambda context: context.jupyter.notebooks is not None,
    "files": lambda context: context.jupyter.files is not None,
    "memory": lambda context: context.memory is not None,
    "delegate": _always,
}
"""In the order they are shown; each with whether its tools can work in a run."""


@functools.cache
def _by_module() -> Mapping[str, tuple[Tool, ...]]:
    found: dict[str, tuple[Tool, ...]] = {}
    for name in _MODULES:
        try:
            found[name] = import_module(f"{__package__}.{name}").TOOLS
        except ModuleNotFoundError as error:
            if error.name != f"{__package__}.{name}":
                raise
    return found


def builtin_tools() -> dict[str, Tool]:
    """All of them, by name. The first call imports them: not on the event loop."""
    return {tool.name: tool for tools in _by_module().values() for tool in tools}


class BuiltinTools:
    """The built-in tools as a source."""

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """See ``toolbox.ToolSource``: those whose part of the server is there."""
        by_module = await asyncio.to_thread(_by_module)
        return [tool for name, tools in by_module.items() if _MODULES[name](context) for tool in tools]

    async def known(self) -> Sequence[ToolNote]:
        """See ``toolbox.ListedSource``."""
        tools = await asyncio.to_thread(builtin_tools)
        return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools.values()]


def describe_tools() -> list[dict[str, Any]]:
    """``{"name","description","parameters"}`` of each, ``parameters`` a JSON schema."""
    return [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for tool in builtin_tools().values()
    ]


def as_text(output: ToolOutput) -> str:
    """What a model reads of an output: text as it is, the rest as JSON."""
    content = output.content
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)


def _nothing(tool: Tool) -> str | None:  # noqa: ARG001
    """Speaks against it."""
    return None


async def call_tool(
    name: str,
    arguments: Mapping[str, Any],
    context: ToolContext,
    *,
    objection: Callable[[Tool], str | None] = _nothing,
) -> str:
    """Call a built-in tool as a model would; what the model would read, as JSON.

    ``objection`` says why the tool may not be called, if anything speaks against it.
    Raises InvalidRequest for arguments that do not fit and a name that is not there.
    """
    tool = (await asyncio.to_thread(builtin_tools)).get(name)
    if tool is None:
        raise InvalidRequest(f"There is no tool named {name}.", field="name")
    why = objection(tool)
    if why is not None:
        return json.dumps({"error": ToolDenied.code, "message": why}, ensure_ascii=False)
    token: Token[ToolContext] = tool_context.set(context)
    try:
        output = await tool.call(arguments)
    finally:
        tool_context.reset(token)
    if output.failed and isinstance(output.content, Mapping) and output.content.get("error") == "invalid_arguments":
        raise InvalidRequest(f"{name}: {output.content['message']}")
    return as_text(output)


__all__ = ["BuiltinTools", "as_text", "builtin_tools", "call_tool", "describe_tools"]
