"""navi-jupyter: an agent in your Jupyter server.

Kernels import this at every start, so everything heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .errors import NaviError
    from .kernel.api import ask, ask_async, chat, forget, memory, recall, recalls, remember, session
    from .kernel.programs.server import connect
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
# No module of this package may have one of these names: importing it would replace the function here.
_HOMES = {
    **dict.fromkeys(("ask", "ask_async", "chat", "forget", "memory", "recall", "recalls", "remember", "session"), _API),
    "NaviError": "navi_jupyter.errors",
    "connect": "navi_jupyter.kernel.programs.server",
    "tool": "navi_jupyter.kernel.tools",
}


def __getattr__(name: str) -> Any:
    """The user's API, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where Jupyter Server finds the extension of this package."""
    # Imported here, because a kernel imports this package and may have no server installed.
    from .server.app import NaviExtension

    return [{"module": "navi_jupyter.server.app", "app": NaviExtension}]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext navi_jupyter``: registers ``%navi`` and ``%%navi``. Sends nothing to a server yet."""
    from .kernel import input_transform
    from .kernel.display import cell_outputs
    from .kernel.magics import NaviMagics
    from .kernel.shell import install

    shell.register_magics(NaviMagics)
    input_transform.install(shell)
    cell_outputs.install(shell)
    install(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext navi_jupyter``: a question mark asks for help again. IPython cannot unregister the magics."""
    from .kernel import input_transform

    input_transform.remove(shell)
