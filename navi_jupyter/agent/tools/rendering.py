"""What a tool gave back, as text that a model can read: bounded, without secrets, whatever it was.

Pure, and cheap for any size: 50 MB of text cost a slice, a structure of a million items costs what is shown of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from ...redaction import redact_output, scrub

LIMIT = 40_000
"""Characters of a tool's result that a model is shown."""
_HEAD = 0.75
"""How much of what is shown is the beginning; the rest is the end."""
_MARGIN = 4_096
"""Characters beyond a cut that are searched for secrets, too."""
_ITEMS = 5_000
"""Values of a structure that are looked at."""


def render(content: Any, *, limit: int = LIMIT) -> str:
    """``content`` as text of about ``limit`` characters at most: text as it is, bytes as their size, else JSON."""
    if isinstance(content, bytes | bytearray | memoryview):
        content = _decoded(bytes(content), limit)
    if not isinstance(content, str):
        pruned = _Pruning(limit).value(content)
        content = json.dumps(pruned, ensure_ascii=False, default=_foreign)
    return readable(str(redact_output(cut(content, limit=limit))))


def cut(text: str, *, limit: int = LIMIT) -> str:
    """``text`` with its middle left out when it is longer than ``limit``, and a word about how to get it."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD)
    tail = limit - head
    note = (
        f"\n\n[… {len(text) - limit:,} of {len(text):,} characters left out. "
        "Ask for a part of it: fewer rows, a slice, a range of lines, a search.]\n\n"
    )
    # Cleaned before it is cut, or a piece of a secret could be left at the cut.
    return scrub(text[: head + _MARGIN])[:head] + note + scrub(text[-tail - _MARGIN :])[-tail:]


def readable(text: str) -> str:
    """``text`` without what no JSON parser, database or model takes: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _decoded(content: bytes, limit: int) -> str:
    """Text when it is some, else how much it is. Only what can be shown is decoded."""
    shown = content if len(content) <= 4 * limit else content[: 4 * limit]
    try:
        text = shown.decode()
    except UnicodeDecodeError as error:
        if error.start < len(shown) - 4 or shown is content:
            return f"(binary data, {len(content):,} bytes)"
        text = shown[: error.start].decode()
    if "\x00" in text:
        return f"(binary data, {len(content):,} bytes)"
    return text if shown is content else f"{text}\n\n[… of {len(content):,} bytes, the beginning.]"


def _foreign(value: Any) -> str:
    """What JSON has no word for."""
    return cut(str(value), limit=1000)


class _Pruning:
    """Bounds a structure before it is encoded, so that the encoder never holds the loop for long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = _ITEMS
        self._room = 2 * limit
        """Characters of strings that are still taken whole or in part."""

    def value(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(_decoded(bytes(value), self._limit))
        if depth > 50:
            return "…"
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence | AbstractSet):
            return self._items(value, depth)
        return value

    def _text(self, text: str) -> str:
        kept = cut(text, limit=max(min(self._limit, self._room), 100))
        self._room -= len(kept)
        return kept

    def _mapping(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in mapping.items():
            if self._left <= 0 or self._room <= 0:
                kept["…"] = f"{len(mapping) - len(kept):,} more"
                break
            kept[str(key)] = self.value(value, depth + 1)
        return kept

    def _items(self, items: Sequence[Any] | AbstractSet[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for value in items:
            if self._left <= 0 or self._room <= 0:
                kept.append(f"… {len(items) - len(kept):,} more")
                break
            kept.append(self.value(value, depth + 1))
        return kept
