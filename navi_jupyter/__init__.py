"""navi-jupyter: an agent that lives in your Jupyter server.

Importing this is cheap: kernels do it at every start. Everything heavier is imported when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .errors import NaviError
    from .kernel.api import ask, ask_async, chat, connect, forget, memory, recall, recalls, remember, session
    from .kernel.tools import tool

__all__ = [
    "NaviError",
    "__version__",
    "ask",
    "ask_async",
    "chat",
    "connect",
    "forget",
    "memory",
    "recall",
    "recalls",
    "remember",
    "session",
    "tool",
]

_API = "navi_jupyter.kernel.api"
_HOMES = {
    **dict.fromkeys(
        ("ask", "ask_async", "chat", "connect", "forget", "memory", "recall", "recalls", "remember", "session"), _API
    ),
    "NaviError": "navi_jupyter.errors",
    "tool": "navi_jupyter.kernel.tools",
}


def __getattr__(name: str) -> Any:
    """The user's API, imported when it is first touched."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _RecallsPackage(ModuleType):
    """The subpackage ``navi_jupyter.scheduling``, callable: ``navi.recalls()`` works in a server process too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module(_API).recalls(*args, **kwargs)


class _Package(ModuleType):
    """This package. Importing a submodule sets it as an attribute here; the one name that is also API is made both."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "recalls" and isinstance(value, ModuleType):
            value.__class__ = _RecallsPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter Server asks an extension package for."""
    # Not at the top: a kernel imports this package and may have no server installed.
    from .server.app import NaviExtension

    return [{"module": "navi_jupyter.server.app", "app": NaviExtension}]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext navi_jupyter``: registers ``%navi`` and ``%%navi``. Talks to no server yet."""
    from .kernel import cell_outputs, current_cell, input_transform
    from .kernel.magics import NaviMagics

    shell.register_magics(NaviMagics)
    input_transform.install(shell)
    cell_outputs.install(shell)
    current_cell.install(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext navi_jupyter``: questions end in help again; the magics stay, as IPython can not take them back."""
    from .kernel import input_transform

    input_transform.remove(shell)
