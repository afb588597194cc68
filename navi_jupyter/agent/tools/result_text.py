"""Results of tools as the text that a model reads: of bounded size, without secrets, for any content.

Cheap for any size: 50 MB of text cost a slice, a structure of a million items costs the part of it that is shown.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from ...errors import NotFound
from ...input.json_input import well_formed
from ...model.base import new_id
from ...redaction import redact_output, scrub
from ...text import truncate_middle

LIMIT = 40_000  # characters of a tool's result that a model is shown
_HEAD = 0.75  # the share of the beginning in what is shown; the rest is the end
_MARGIN = 4_096  # characters beyond a cut that are searched for secrets, too
_ITEMS = 5_000  # values of a structure that are shown
HEAD, TAIL = 6_000, 4_000  # characters that a model reads of a kernel's output at once, of its beginning and of its end
PAGE = 10_000  # characters that `read_output` returns
_STORED = 16_000_000  # characters of long outputs that this process keeps, the latest ones


def render(content: Any, *, limit: int = LIMIT) -> str:
    """``content`` as text of about ``limit`` characters at most: text as it is, bytes as their size, else JSON."""
    if isinstance(content, bytes | bytearray | memoryview):
        content = _decoded(bytes(content), limit)
    if not isinstance(content, str):
        # The default is for what JSON does not have (a date, an array).
        content = json.dumps(
            _Pruning(limit).value(content), ensure_ascii=False, default=lambda value: cut(str(value), limit=1000)
        )
    return well_formed(str(redact_output(cut(content, limit=limit))))


def cut(text: str, *, limit: int = LIMIT) -> str:
    """``text``, or where it is longer than ``limit`` its two ends without secrets, and how to get the rest."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD)
    tail = limit - head
    note = (
        f"\n\n[… {len(text) - limit:,} of {len(text):,} characters left out. "
        "Ask for a part of it: fewer rows, a slice, a range of lines, a search.]\n\n"
    )
    # Secrets are removed before the cut: half of one at the cut would not be recognized.
    return scrub(text[: head + _MARGIN])[:head] + note + scrub(text[-tail - _MARGIN :])[-tail:]


def _decoded(content: bytes, limit: int) -> str:
    """UTF-8 as text, else the size. Only as much is decoded as can be shown."""
    shown = content if len(content) <= 4 * limit else content[: 4 * limit]
    try:
        text = shown.decode()
    except UnicodeDecodeError as error:
        # An error in the last bytes of a part is a character that the slice has cut.
        if error.start < len(shown) - 4 or shown is content:
            return f"(binary data, {len(content):,} bytes)"
        text = shown[: error.start].decode()
    if "\x00" in text:
        return f"(binary data, {len(content):,} bytes)"
    return text if shown is content else f"{text}\n\n[… of {len(content):,} bytes, the beginning.]"


class _Pruning:
    """Bounds a structure before it is encoded, so that encoding never blocks the event loop for long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = _ITEMS
        self._room = 2 * limit  # characters of strings that may still be added

    def value(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(_decoded(bytes(value), self._limit))
        if depth > 50:
            return "…"
        if isinstance(value, Mapping):
            kept = self._pruned(value.values(), depth)
            more = {"…": f"{len(value) - len(kept):,} more"} if len(kept) < len(value) else {}
            return dict(zip(map(str, value), kept, strict=False)) | more
        if isinstance(value, Sequence | AbstractSet):
            kept = self._pruned(value, depth)
            return [*kept, f"… {len(value) - len(kept):,} more"] if len(kept) < len(value) else kept
        return value

    def _text(self, text: str) -> str:
        kept = cut(text, limit=max(min(self._limit, self._room), 100))
        self._room -= len(kept)
        return kept

    def _pruned(self, values: Iterable[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for value in values:
            if self._left <= 0 or self._room <= 0:
                break
            kept.append(self.value(value, depth + 1))
        return kept


class LongOutputs:
    """Outputs of which a model got only a part, kept in memory so that it can read more; the latest ones."""

    def __init__(self, limit: int = _STORED) -> None:
        self._limit = limit
        self._size = 0
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def excerpt(self, text: str, session_id: str) -> str:
        """The text, or its two ends and how to read the rest."""
        if len(text) <= HEAD + TAIL + 500:  # not worth a second call
            return text
        key = new_id("o")
        self._texts[session_id, key] = text
        self._size += len(text)
        while self._size > self._limit and len(self._texts) > 1:
            self._size -= len(self._texts.popitem(last=False)[1])
        note = f'read_output(id="{key}", start={HEAD}) has them'
        return truncate_middle(text, HEAD + TAIL, head=HEAD / (HEAD + TAIL), note=note)

    def page(self, key: str, session_id: str, start: int) -> dict[str, Any]:
        """A part of an output of this session, from the character ``start`` on. Raises NotFound."""
        text = self._texts.get((session_id, key))
        if text is None:
            raise NotFound(f"The output {key[:100]} is not kept any more. Run the code again, and print less.")
        page = text[start : start + PAGE]
        after = start + len(page)
        return {"text": page, "start": start, "of": len(text), "next": after if after < len(text) else None}
