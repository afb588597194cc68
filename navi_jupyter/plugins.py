"""What packages import to bring tools and context (entry points ``navi_jupyter.tools`` and ``navi_jupyter.context``).

These names are stable; the modules that define them may move.
"""

from __future__ import annotations

from .agent.profiles.context_providers import ContextProvider
from .agent.tools.base import Tool, ToolOutput
from .model.runs import Effect
from .ports.agent import tool_context

__all__ = ["ContextProvider", "Effect", "Tool", "ToolOutput", "tool_context"]
