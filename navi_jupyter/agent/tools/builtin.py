"""The built-in tools. Each module here exports ``TOOLS``: typed functions as :class:`..toolbox.Tool`.

The modules are imported at the first use, in a thread: their schemas cost some 50 ms that no server start is to pay.
Not responsible for other people's tools (``packages``, ``kernel_tools``, ``mcp``).
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from ...ports.agent import ToolContext
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


def as_text(output: ToolOutput) -> str:
    """What a model reads of an output: text as it is, the rest as JSON."""
    content = output.content
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
