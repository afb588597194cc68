"""``navi hub --wake-only``: starts users' servers that keep their own Navi shortly before their recalls; no agent."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """The extension of the service's own server: no other one loads it."""
    from .service import WakeExtension  # late: it needs JupyterHub

    return [{"module": "navi_jupyter.hub.wake.service", "app": WakeExtension}]
