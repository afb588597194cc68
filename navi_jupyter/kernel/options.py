"""``--options`` of a ``%navi`` line, and what is in quotes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import UsageError

QUOTED = re.compile(r"""(["'])(.*?)\1(?=\s|$)""")
MANY = ("with-output", "attach")
"""Options that may come more than once: their values are joined by line breaks."""
_SEPARATORS = {"with-output": "\n", "attach": "\n", "notify": ",", "cancel-on": ","}
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=|(?=\s|$))")
_END = re.compile(r"--(?:\s+|$)")


def take_options(text: str, *, flags: Mapping[str, str], values: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The options that ``text`` begins with, and the rest. ``--`` ends them. Raises UsageError for an unknown one."""
    options: dict[str, str] = {}
    text = text.strip()
    while match := _OPTION.match(text):
        rest = _take_one(match, text, options, flags, values)
        if rest is None:
            raise unknown_option(match[1], flags, values)
        text = rest
    return options, _END.sub("", text, count=1) if _END.match(text) else text


def take_options_anywhere(
    text: str, *, flags: Mapping[str, str], values: tuple[str, ...]
) -> tuple[dict[str, str], str, str]:
    """The options that stand anywhere in ``text``, the text without them, and what follows a ``--``, as it stands.

    What is in quotes is left alone, and so are words that only look like options.
    """
    options: dict[str, str] = {}
    kept, text = "", text.strip()
    while text:
        if end := _END.match(text):
            return options, kept.strip(), text[end.end() :]
        match = _OPTION.match(text)
        rest = _take_one(match, text, options, flags, values) if match else None
        if rest is None:
            word = QUOTED.match(text) or re.match(r"\S+", text)
            gap = re.match(r"\s*", text[word.end() :]) if word else None
            length = word.end() + gap.end() if word and gap else len(text)
            kept, rest = kept + text[:length], text[length:]
        text = rest
    return options, kept.strip(), ""


def unknown_option(name: str, flags: Mapping[str, str], values: tuple[str, ...]) -> UsageError:
    """The error about an option that is not there."""
    known = ", ".join([*flags, *("--" + value for value in values)])
    return UsageError(f"Unknown option {name} (there are {known}; write -- before text that begins with a dash).")


def _take_one(
    match: re.Match[str], text: str, options: dict[str, str], flags: Mapping[str, str], values: tuple[str, ...]
) -> str | None:
    """The text behind the option that it begins with, which goes into ``options``; None for an unknown one."""
    name, has_value, rest = match[1], match[0].endswith("="), text[match.end() :]
    if name in flags and not has_value:
        options[flags[name]] = ""
        return rest.lstrip()
    key = name.removeprefix("--")
    if not name.startswith("--") or key not in values:
        return None
    rest = rest if has_value else rest.lstrip()
    value = QUOTED.match(rest) or re.match(r"()(\S+)", rest)
    if value is None:
        raise UsageError(f"{name} needs a value.")
    is_more = key in options and key in _SEPARATORS
    options[key] = f"{options[key]}{_SEPARATORS[key]}{value[2]}" if is_more else value[2]
    return rest[value.end() :].lstrip()
