"""The former place of :class:`Tool`. New code imports it from ``navi_jupyter.plugins``."""

from __future__ import annotations

# Packages with the entry point navi_jupyter.tools import these from here: the path was documented.
from .tools.base import Tool, ToolOutput

__all__ = ["Tool", "ToolOutput"]
