"""The usual equipment: all parts that need nothing but this machine, and the sources that the caller adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..model.runs import Permission
from .profiles.context_providers import RunContexts
from .profiles.files import FOLDER, ProfileBook
from .registry import AgentParts
from .tools.base import ToolSource
from .tools.builtin import BuiltinTools
from .tools.entry_points import PackageTools
from .tools.permissions import ToolPermissions


def outfit(
    *,
    config_path: Sequence[str] = (),
    ceiling: Mapping[str, Permission] | None = None,
    check_model: Callable[[str], object] | None = None,
    sources: Sequence[ToolSource] = (),
    packages: bool = True,
) -> AgentParts:
    """Equipment with the profiles below Jupyter's configuration path, built-in tools, ``sources``, and packages.

    The built-in tools go first, so that nobody takes their names. Reads and imports nothing yet.
    """
    folders = [Path(folder, FOLDER) for folder in config_path]
    return AgentParts(
        profiles=ProfileBook(folders, check_model=check_model) if check_model else ProfileBook(folders),
        permissions=ToolPermissions(ceiling=dict(ceiling or {})),
        contexts=RunContexts(packages=packages),
        sources=(BuiltinTools(), *sources, *([PackageTools()] if packages else [])),
    )
