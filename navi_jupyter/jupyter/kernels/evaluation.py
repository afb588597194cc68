"""Expressions that make a kernel evaluate something with nothing left behind, and reading what they gave.

What runs in there is in ``injected/evaluate.py`` and ``injected/inspect.py``, which are sent as source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import InvalidRequest
from ...injected import source
from .outputs import error_of

_RESULT = "application/vnd.navi.result"


def value_of(reply: Mapping[str, Any]) -> Any:
    """The value that the harness left in a reply. Raises InvalidRequest with the error when there is none."""
    shown = (reply.get("user_expressions") or {}).get("navi") or {}
    if reply.get("status") != "ok" or shown.get("status") != "ok":
        failed = error_of(shown if shown.get("status") == "error" else reply)
        raise InvalidRequest(f"{failed['ename'] or 'Error'}: {failed['evalue']}"[:2000])
    # NaN and the infinities are Python's, not JSON's.
    return json.loads(shown["data"][_RESULT], parse_constant=lambda _: None)


def look(call: str) -> str:
    return f"{source('time_limit', 'inspect')}\n{call}\n"


def calling(function: str, *given: Any) -> str:
    """An expression that calls a function of the harness, whatever the user has named like a builtin."""
    arguments = ", ".join(map(repr, given))
    run = f"(b.exec({source('evaluate')!r}, g), g[{function!r}]({arguments}))[1]"
    return f"(lambda b, g: {run})(__import__('builtins'), {{'__name__': 'navi'}})"
