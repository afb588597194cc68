"""Regular expressions that somebody else wrote, matched in a time that is linear in the length of the text.

The one place where a pattern of a user, a model, an MCP server or a page is compiled and matched. ``re`` backtracks: on
``^(a+)+$`` it takes longer than the universe lasts, holds the interpreter's lock meanwhile, and cannot be interrupted.
RE2 matches in linear time within a bound of memory, compiles nothing above that bound, and releases the lock. It has no
look-around and no backreferences: such a pattern cannot be checked, and is not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

MAX_PATTERN = 2_000  # characters
# Characters of a text that a pattern is searched in, and bytes of a compiled pattern. The worst pattern takes 1.5 s for
# the worst text within both; time is their product.
MAX_TEXT = 20_000
_MEMORY = 1 << 18
# Escapes that RE2 spells in another way: ECMAScript's, in which patterns of JSON schemas are written, and Python's end.
_OTHER_ESCAPES = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|Z)")


class PatternRefused(ValueError):
    """A pattern, or a text, that cannot be matched here; the message says why, without a full stop."""


@lru_cache(maxsize=256)
def _compiled(pattern: str, ignore_case: bool) -> Any:
    if len(pattern) > MAX_PATTERN:
        raise PatternRefused(f"it has more than {MAX_PATTERN} characters")
    try:
        # Here and not above: few servers ever match such a pattern, and it is a library of half a megabyte.
        import re2
    except ImportError:  # no build of it for this platform
        raise PatternRefused("the package google-re2 is not installed") from None
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(_OTHER_ESCAPES.sub(_as_re2, pattern), options)
    except UnicodeEncodeError:
        raise PatternRefused("it has half a character (a lone surrogate)") from None
    except re2.error as error:
        raise PatternRefused(_reason(error)) from None


def _as_re2(found: re.Match[str]) -> str:
    return f"{found[1]}\\x{{{found[2] or found[3]}}}" if found[2] or found[3] else f"{found[1]}\\z"


def _reason(error: Exception) -> str:
    why = error.args[0] if error.args else ""
    text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
    if "perl operator" in text or re.search(r"invalid escape sequence: \\[1-9]", text):
        return f"look-around and backreferences cannot be matched here ({text})"
    return text or "it is no regular expression"


class Pattern:
    """One pattern, which is searched anywhere in a text. Raises PatternRefused when it cannot be matched here."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self._compiled = _compiled(pattern, ignore_case)

    def find(self, text: str) -> int:
        """Where the first match begins; -1 when there is none. Raises PatternRefused for a text that is too long."""
        if len(text) > MAX_TEXT:
            raise PatternRefused(f"a text of more than {MAX_TEXT} characters is not searched")
        try:
            found = self._compiled.search(text)
        except UnicodeEncodeError:  # half of a character: one question mark in its place, so that positions stay
            found = self._compiled.search(text.encode("utf-8", "replace").decode())
        return -1 if found is None else int(found.start())
