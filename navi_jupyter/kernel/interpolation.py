"""``{name}`` in a prompt takes the value of a variable of the notebook.

Only plain names: nothing is evaluated. Unknown names stay as they are, so JSON and code in a prompt survive;
``{{name}}`` gives ``{name}``. A value is cut to a size that a prompt can carry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 4000
"""Characters that one value may contribute."""

_SLOT = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


def interpolate(text: str, names: Mapping[str, Any], show: Callable[[Any], str] = repr) -> str:
    """``text`` with the values in; ``show`` is how a value that is no text is written out."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "{" + match[1] + "}"
        if match[2] not in names:
            return match[0]
        return _cut(_written(names[match[2]], show))

    return _SLOT.sub(value, text)


def _written(value: Any, show: Callable[[Any], str]) -> str:
    if isinstance(value, str):
        return value
    try:
        return str(show(value))
    except Exception as problem:  # noqa: BLE001 - the value's own code runs here, and may do anything
        return f"<{type(value).__name__} that can not be shown: {type(problem).__name__}>"


def _cut(text: str) -> str:
    if len(text) <= LARGEST:
        return text
    return f"{text[:LARGEST]}… (cut: {len(text):,} characters in all)"
