"""IPython's display, typed, and the shell, if there is one."""

from __future__ import annotations

import sys
from typing import Any


def current_shell() -> Any:
    """The IPython shell of this process; None where there is none. Imports nothing."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def show(thing: Any, *, raw: bool = False, display_id: bool | None = None) -> Any:
    """Display ``thing``, or the MIME bundle that it is when ``raw``; a handle to update it when ``display_id``."""
    from IPython.display import display  # late: only where there is a shell

    return display(thing, raw=raw, display_id=display_id)  # type: ignore[no-untyped-call]
