"""The built-in tools. Each module here has ``TOOLS``: typed functions as :class:`.base.Tool`.

Not responsible for the tools of others (``entry_points``, ``kernel_functions``, ``agent.mcp``).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence

from ...ports.agent import ToolContext
from .base import Tool, ToolNote


@functools.cache
def _groups() -> Sequence[tuple[Sequence[Tool], Callable[[ToolContext], bool]]]:
    """The tools in the order in which they are shown, each group with whether it works in a run."""
    # Imported here: making the schemas takes some 50 ms, which would delay the start of every server.
    from . import ask_user, delegate, files, history, kernel, notebook_recalls, recalls
    from .notebook import tools as notebook

    return (
        (recalls.TOOLS, lambda _: True),
        (history.TOOLS, lambda _: True),
        (recalls.CONDITION_TOOLS, lambda context: context.jupyter.kernels is not None),
        (notebook_recalls.TOOLS, lambda context: context.jupyter.jobs is not None),
        (kernel.TOOLS, lambda context: context.jupyter.kernels is not None),
        (notebook.TOOLS, lambda context: context.jupyter.notebooks is not None),
        (files.TOOLS, lambda context: context.jupyter.files is not None),
        (history.MEMORY_TOOLS, lambda context: context.memory is not None),
        (delegate.TOOLS, lambda _: True),
        (ask_user.TOOLS, lambda _: True),
    )


def builtin_tools() -> dict[str, Tool]:
    """All built-in tools by name. The first call imports them: not on the event loop."""
    return {tool.name: tool for tools, _ in _groups() for tool in tools}


class BuiltinTools:
    """The built-in tools as a ListedSource."""

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """Those that work in this session: without a kernel, for example, no tool of the kernel."""
        groups = await asyncio.to_thread(_groups)
        return [tool for tools, works in groups if works(context) for tool in tools]

    async def known(self, context: ToolContext | None = None) -> Sequence[ToolNote]:  # noqa: ARG002 - the same for all
        """All of them."""
        tools = await asyncio.to_thread(builtin_tools)
        return [ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools.values()]
