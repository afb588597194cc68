"""Whether the user of a JupyterHub works with a server of theirs, or it runs for a recall alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jupyter_core.utils import ensure_async

from ...jupyter.kernels.jupyter_services import JupyterServices

STARTING = timedelta(seconds=5)  # after the start, in which requests are the Hub's


async def is_used_by_user(
    jupyter: JupyterServices, *, has_sockets: bool, runs_ours: Callable[[str], bool], since: datetime
) -> bool:
    """Whether a page is connected to the server, a cell runs that is no agent's, or a request came since it started
    that was none of a service's.

    ``has_sockets``: whether a page of Navi is connected; ``runs_ours``: whether a kernel executes code of an agent's
    now; ``since``: when the server was started.
    """
    settings = jupyter.settings
    kernels = await ensure_async(jupyter.kernel_manager.list_kernels())
    requests = (settings.get("api_last_activity"), settings.get("terminal_last_activity"))
    return (
        has_sockets
        or any(one.get("connections") for one in kernels)
        or any(one.get("execution_state") == "busy" and not runs_ours(one["id"]) for one in kernels)
        or any(at is not None and at > since + STARTING for at in requests)
    )
