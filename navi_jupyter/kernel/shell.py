"""IPython and the Jupyter kernel of this process, as far as they are there.

Imports neither: a program may use Navi without them, and a kernel has loaded both before.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

from ..text import printable

# As of nbclient, whose connection files are not named like a server's. The process, and no fork of it.
_OWN_NAME = f"process-{os.getpid()}-{secrets.token_hex(4)}"

_MOST_KEYS = 20  # cells that wait at the same time, at most

# An attribute of the shell rather than a global: it survives a reload of this package.
_BEGAN = "_navi_cell_began"


def current_shell() -> Any:
    """The IPython shell of this process; None where there is none."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def current_kernel() -> Any:
    """The ipykernel of this process; None in a terminal and in a program."""
    return getattr(current_shell(), "kernel", None)


def kernel_id() -> str | None:
    """The kernel's id as the server names it, which a restart keeps; None where there is no Jupyter kernel."""
    if current_kernel() is None:
        return None
    from ipykernel.connect import get_connection_file  # late: only where there is a kernel

    try:
        name = Path(get_connection_file()).name
    except (RuntimeError, OSError):  # a kernel embedded in a program may have no connection file
        return None
    matches = name.startswith("kernel-") and name.endswith(".json")
    return name.removeprefix("kernel-").removesuffix(".json") if matches else None


def lent_kernel_id() -> str | None:
    """The name under which this kernel is lent and offers functions: its id, or one of its own where it has none."""
    if current_kernel() is None:
        return None
    return kernel_id() or _OWN_NAME


def current_request() -> Mapping[str, Any]:
    """The ``execute_request`` of the running cell; empty outside of a kernel."""
    get_parent = getattr(current_kernel(), "get_parent", None)
    return (get_parent("shell") or {}) if get_parent is not None else {}


_claim: ContextVar[str | None] = ContextVar("navi_claim", default=None)  # what ``claim_as`` set


def cell_claim(key: str = "-") -> str:
    """The value of the header ``Navi-Cell``: for which cell of which kernel a request is. The server checks it."""
    if (claimed := _claim.get()) is not None:
        return claimed
    request = (current_request().get("header") or {}).get("msg_id")
    return f"{lent_kernel_id() or '-'} {request or '-'} {os.getpid()} {key}"


def claim_as(claim: str) -> None:
    """The requests of this task are for that cell from now on, whatever the kernel works on by then."""
    _claim.set(claim)


_keys: dict[str, str] = {}  # of cells that have waited, by the id of their request


def waiting_claim() -> str:
    """That of a cell that waits, with a key that it shares with the server before code of an agent runs in it."""
    request = str((current_request().get("header") or {}).get("msg_id"))
    key = _keys.setdefault(request, secrets.token_hex(16))
    while len(_keys) > _MOST_KEYS:
        del _keys[next(iter(_keys))]
    return cell_claim(key)


def install(shell: Any) -> None:
    """Note when cells begin. Does nothing for a shell that has it already."""
    if not getattr(shell, _BEGAN, None):
        shell.events.register("pre_run_cell", lambda *_: setattr(shell, _BEGAN, time.monotonic()))


@contextmanager
def keep_cell_began(shell: Any) -> Iterator[None]:
    """Code that runs inside of a cell does not count as the beginning of a cell."""
    began = getattr(shell, _BEGAN, None)
    try:
        yield
    finally:
        setattr(shell, _BEGAN, began)


def seconds_running(request: Mapping[str, Any]) -> float:
    """For how long the cell of ``request`` has been running."""
    began = getattr(current_shell(), _BEGAN, None)
    if began is not None:
        return float(time.monotonic() - began)
    # The cell that loads the extension began before it was installed: then since the request was sent.
    sent = (request.get("header") or {}).get("date")
    return max(0.0, time.time() - sent.timestamp()) if isinstance(sent, datetime) else 0.0


def show(thing: Any, *, raw: bool = False, display_id: bool | None = None, metadata: Any = None) -> Any:
    """Display ``thing``, or the MIME bundle that it is when ``raw``; a handle to update it when ``display_id``."""
    from IPython.display import display  # late: only where there is a shell

    return display(thing, raw=raw, display_id=display_id, metadata=metadata)  # type: ignore[no-untyped-call]


def print_line(text: str, *, end: str = "\n") -> None:
    """Print a line that may hold words of a model or of another program: a terminal does nothing that they say."""
    print(printable(text), end=end)
