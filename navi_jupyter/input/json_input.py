"""Text and JSON from outside: text made well-formed, JSON read within a bound of depth.

Well-formed text has no lone surrogate, which UTF-8 cannot encode (so no database, file or provider takes it), and no
NUL, which PostgreSQL and many terminals refuse. Either becomes U+FFFD; the two halves of a pair become their character.
Programs and models do write such text: JSON can express it (``"\\ud83d"``), and most JSON writers do not check.

Where text comes in: docs/design.md, "Text from outside". Not responsible for sizes: those are the readers' own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting of a JSON text from outside. pydantic reads 200, Python's recursion ends at about 300 levels of our
own walks over values; what people and programs write has fewer than 30."""

REPLACEMENT = "\ufffd"

# In JSON text: an escape after an even number of backslashes. A pair is found first, so that it is left as it is.
_BAD_ESCAPE = re.compile(
    r"(?<!\\)((?:\\\\)*)(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000))"
)
_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
# The end of JSON text that the next piece may go on with: a begun escape, or the first half of a pair.
_OPEN_ESCAPE = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?))?\Z"
)


class JsonTooDeep(ValueError):
    """JSON that is nested deeper than :data:`MAX_DEPTH`."""

    def __init__(self) -> None:
        super().__init__(f"it is nested deeper than {MAX_DEPTH} levels")


def load_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """A JSON text from outside as a value of well-formed text. ``parse_constant``: as ``json.loads`` has it.

    Raises ValueError for what is no JSON, JsonTooDeep (a ValueError) for what is nested too deeply.
    """
    try:
        value = json.loads(well_formed_json(decoded(text)), parse_constant=parse_constant)
    except RecursionError:
        raise JsonTooDeep from None
    check_depth(value)
    return value


def decoded(text: str | bytes) -> str:
    """UTF-8 as text, which need not be well-formed. Raises UnicodeDecodeError, a ValueError, for other bytes."""
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError:
        # Surrogates as UTF-8 would encode them: what Python writes with ``surrogatepass``, and other languages always.
        return text.decode("utf-8", "surrogatepass")


def check_depth(value: object) -> None:
    """Raises JsonTooDeep for a value of more than :data:`MAX_DEPTH` levels. Without recursion, whatever its depth."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise JsonTooDeep


def well_formed(text: str) -> str:
    """``text`` with U+FFFD for each lone surrogate and each NUL; the very same text when it has none."""
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def well_formed_value(value: Any) -> Any:
    """A JSON value with all of its texts well-formed, keys too; the very same object when they are.

    Raises JsonTooDeep.
    """
    check_depth(value)
    return _well_formed_value(value)


def _well_formed_value(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        pairs = [
            (well_formed(key) if isinstance(key, str) else key, _well_formed_value(one)) for key, one in value.items()
        ]
        same = all(key is old for (key, _), old in zip(pairs, value, strict=True))
        same = same and all(one is old for (_, one), old in zip(pairs, value.values(), strict=True))
        return value if same else dict(pairs)
    if isinstance(value, list | tuple):
        items = [_well_formed_value(one) for one in value]
        return value if all(one is old for one, old in zip(items, value, strict=True)) else type(value)(items)
    return value


def well_formed_json(text: str) -> str:
    """JSON text (or a part of it) whose texts are well-formed once it is read; the very same when they are."""
    text = well_formed(text)
    return _BAD_ESCAPE.sub(_repaired, text) if _SUSPECT.search(text) else text


def _repaired(found: re.Match[str]) -> str:
    return found[0] if found[2] else f"{found[1]}\\ufffd"


class JsonPieces:
    """JSON text that comes in pieces, each returned as :func:`well_formed_json` would have it in the whole text."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open = ""  # the end of the last piece, with which an escape may begin

    def add(self, piece: str) -> str:
        """What is known by now; empty where the next piece decides."""
        if not self._open and "\\" not in piece and piece.isascii():
            return piece if "\x00" not in piece else well_formed(piece)
        text = self._open + piece
        length = _open_length(text)
        self._open = text[len(text) - length :]
        return well_formed_json(text[: len(text) - length])

    def rest(self) -> str:
        """What is left when nothing more comes."""
        text, self._open = self._open, ""
        return well_formed_json(text)


def _open_length(text: str) -> int:
    """How many characters at the end may belong to a character that the next piece completes."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return 1
    found = _OPEN_ESCAPE.search(text, max(0, len(text) - 11))
    if found is None:
        return 0
    backslashes = found.start()
    while backslashes and text[backslashes - 1] == "\\":
        backslashes -= 1
    # After an odd number of backslashes this one is escaped itself, and begins nothing.
    return 0 if (found.start() - backslashes) % 2 else len(text) - found.start()
