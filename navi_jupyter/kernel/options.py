"""``--options`` of a ``%navi`` line, and what is in quotes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import UsageError

QUOTED = re.compile(r"""(["'])(.*?)\1(?=\s|$)""")
MANY = ("with-output", "attach")
"""Options that may come more than once: their values are joined by line breaks."""
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=(\S+))?(?=\s|$)\s*")


def take_options(text: str, *, flags: Mapping[str, str], values: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The options that ``text`` begins with, and the rest. ``--`` ends them."""
    options: dict[str, str] = {}
    text = text.strip()
    while match := _OPTION.match(text):
        name, given = match[1], match[2]
        text = text[match.end() :]
        if name in flags and given is None:
            options[flags[name]] = ""
        elif name.startswith("--") and name[2:] in values:
            if given is None:
                given, text = _take_value(name, text)
            before = options.get(name[2:]) if name[2:] in MANY else None
            options[name[2:]] = given if before is None else f"{before}\n{given}"
        else:
            known = ", ".join([*flags, *("--" + value for value in values)])
            raise UsageError(
                f"Unknown option {name} (there are {known}; write -- before text that begins with a dash)."
            )
    return options, re.sub(r"^--(\s+|$)", "", text)


def _take_value(name: str, text: str) -> tuple[str, str]:
    if quoted := QUOTED.match(text):
        return quoted[2], text[quoted.end() :].lstrip()
    value, _, rest = text.partition(" ")
    if not value:
        raise UsageError(f"{name} needs a value.")
    return value, rest.lstrip()
