"""``navi hub``: Navi as a service of a JupyterHub, for all its users, whether their servers run or not."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """The extension of the service's own server: no other one loads it."""
    from .service import HubExtension  # late: it needs JupyterHub

    return [{"module": "navi_jupyter.hub.service", "app": HubExtension}]
