"""The former place of :class:`ContextProvider`. New code imports it from ``navi_jupyter.plugins``."""

from __future__ import annotations

# Packages with the entry point navi_jupyter.context import it from here: the path was documented.
from .profiles.context_providers import ContextProvider

__all__ = ["ContextProvider"]
