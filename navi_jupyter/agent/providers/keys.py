"""Keys of providers, from the server's environment and from files that are mounted there; from nowhere else.

``<NAME>`` is read when a request is made, else the file that ``<NAME>_FILE`` names (mounted secrets of JupyterHub,
Docker, Kubernetes): a key that changes needs no restart. Never taken from a cell, a notebook or a request.
A key that was read is kept out of all texts by ``redaction``, whose functions are here for the agent's modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...redaction import mounted, redact, redact_output, remember, scrub


def key(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The secret ``name``; None when it is set nowhere."""
    env = os.environ if environ is None else environ
    if value := env.get(name, "").strip():
        remember(value)
        return value
    path = env.get(f"{name}_FILE", "").strip()
    if not path or not (value := mounted(path)):
        return None
    remember(value)
    return value


def first_key(names: tuple[str, ...], environ: Mapping[str, str] | None = None) -> str | None:
    """The first of these that is set."""
    return next((value for name in names if (value := key(name, environ))), None)


__all__ = ["first_key", "key", "redact", "redact_output", "remember", "scrub"]
