"""Keeps this process's secrets out of everything that is written down: logs, events, tool results, error messages.

A secret is the value of an environment variable with such a name, the password in one that holds a URL, the content
of a mounted ``<NAME>_FILE``, and whatever was given to :func:`remember`. The lowest layer: imports nothing of ours.
Not responsible for where keys come from (``agent.secrets``).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

MARK = "…"  # what stands where a secret was
_SHORTEST = 8  # characters. Replacing shorter values would spoil texts, and they hide nothing.
_WORD = 12
"""Characters. Below that, letters or digits alone are words and numbers (``production``, ``20261123``), not keys."""
_LARGEST_FILE = 64 * 1024
_RECHECK = 1.0  # seconds for which :func:`scrub` trusts what it knows of the environment

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEYS?|KEYS?|APIKEY|\w*TOKENS?|SECRETS?|\w*PASSWORDS?|PASS|PASSWD|PASSPHRASE|CREDENTIALS?|PAT|DSN"
    r"|AUTHORIZATION|COOKIE|CONNECTION_STRING)(?:_\w+)?$"
)
_NO_SECRET_NAME = re.compile(
    r"_(?:FILE|PATH|DIR|HOME|URL|URI|SOCK|NAME|TYPE|ID|LIMIT|MAX|COUNT|TIMEOUT|PARALLELISM|ENDPOINT|HOST|PORT"
    r"|USER|EXPIRES?\w*|TTL)$|^GOOGLE_APPLICATION_CREDENTIALS$"
)
_MOUNTED = "_FILE"
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")

_FORMS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|AIza|ghp|glpat)[-_]?[A-Za-z0-9_*.-]{8,}"
    r"|\bBearer\s+[^\s\"',;]{6,}|(?<=[?&])(?:api[-_]?key|key|token)=[^\s&\"']+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
"""What looks like a secret, of this process or not."""

_remembered: set[str] = set()


def remember(secret: str) -> None:
    """Replace this value, too, from now on. For secrets that are not in the environment; short ones are not taken."""
    value = secret.strip()
    if _can_be_hidden(value) and value not in _remembered:
        _remembered.add(value)
        _known.forget()


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    upper = name.upper()
    return bool(_SECRET_NAME.search(upper)) and not _NO_SECRET_NAME.search(upper)


def mounted(path: str) -> str:
    """What a mounted secret's file holds, stripped; empty when it cannot be read. A few µs: these files are small."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST_FILE).decode("utf-8", "replace").strip()
    except (OSError, ValueError):
        return ""


def values_in(environ: Mapping[str, str]) -> set[str]:
    """The secrets that an environment holds or names."""
    found: set[str] = set()
    for name, value in environ.items():
        if is_secret(name):
            found.add(value.strip())
        elif name.upper().endswith(_MOUNTED) and is_secret(name[: -len(_MOUNTED)]):
            found.add(mounted(value))
        if "://" in value:
            found.update(part for part in _URL_PASSWORD.findall(value))
    return {value for value in found if _can_be_hidden(value)}


def _can_be_hidden(value: str) -> bool:
    return len(value) >= (_WORD if value.isalpha() or value.isdigit() else _SHORTEST)


def _spellings(value: str) -> set[str]:
    """A value as it is, as JSON has it, as URLs have it."""
    escaped = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    return {value, *escaped, quote(value, safe=""), quote(value), unquote(value)}


class _Known:
    """The values to replace, the longest first, as of some state of the environment."""

    def __init__(self) -> None:
        self._environ: dict[str, str] | None = None
        self._looked = 0.0
        self._values: tuple[str, ...] = ()
        self.beginnings: frozenset[str] = frozenset()  # every proper beginning of every value
        self.longest = 0

    def forget(self) -> None:
        self._environ = None
        self._looked = 0.0

    def now(self) -> tuple[str, ...]:
        """As the environment is now: some 50 µs when it has not changed."""
        environ = dict(os.environ)
        if environ != self._environ:
            secrets = values_in(environ) | _remembered
            spelled = {spelling for value in secrets for spelling in _spellings(value)}
            self._values = tuple(sorted((one for one in spelled if len(one) >= _SHORTEST), key=len, reverse=True))
            self.beginnings = frozenset(value[:end] for value in self._values for end in range(1, len(value)))
            self.longest = max(map(len, self._values), default=0)
            self._environ = environ
        self._looked = time.monotonic()
        return self._values

    def lately(self) -> tuple[str, ...]:
        """As it was a moment ago: free."""
        return self._values if self._looked and time.monotonic() - self._looked < _RECHECK else self.now()


_known = _Known()


def _without(text: str, values: tuple[str, ...]) -> str:
    # `in` is a memory search and far faster than one regex of all values: tools may return megabytes.
    for value in values:
        if value in text:
            text = text.replace(value, MARK)
    return text


def redact(text: str) -> str:
    """``text`` without this process's secrets and without what looks like anybody's. For errors and log lines."""
    return _FORMS.sub(MARK, _without(text, _known.now()))


def scrub(text: str) -> str:
    """``text`` without this process's secrets. For the hot path: some hundred ns for a short text without any."""
    return _without(text, _known.lately())


def open_end(text: str) -> int:
    """How many of the last characters may be the beginning of a secret whose rest is still to come. Mostly 0."""
    _known.lately()
    for length in range(min(_known.longest - 1, len(text)), 0, -1):
        if text[-length:] in _known.beginnings:
            return length
    return 0


def redact_output(content: Any) -> Any:
    """What a tool returned (text, bytes, or what JSON can say, nested) without this process's secrets.

    Gives back the very same object when there is nothing to replace.
    """
    values = _known.now()
    return _clean(content, values) if values else content


def _clean(content: Any, values: tuple[str, ...]) -> Any:
    match content:
        case str():
            return _without(content, values)
        case bytes() | bytearray():
            return _clean_bytes(bytes(content), values)
        case Mapping():
            pairs = [(_clean(key, values), _clean(value, values)) for key, value in content.items()]
            if all(key is old_key and value is old for (key, value), (old_key, old) in _beside(pairs, content)):
                return content
            return dict(pairs)
        case list() | tuple():
            items = [_clean(item, values) for item in content]
            if all(new is old for new, old in zip(items, content, strict=True)):
                return content
            return items if isinstance(content, list) else tuple(items)
        case _:
            return content


def _beside(pairs: list[tuple[Any, Any]], content: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    return zip(pairs, content.items(), strict=True)


def _clean_bytes(content: bytes, values: tuple[str, ...]) -> bytes:
    for value in values:
        encoded = value.encode()
        if encoded in content:
            content = content.replace(encoded, MARK.encode())
    return content


def redact_log(_logger: Any, _method: str, event: Any) -> Any:
    """A structlog processor, after exceptions were formatted and before rendering: no secret in any text of a line."""
    return {key: _for_log(value) for key, value in event.items()}


def _for_log(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _FORMS.sub(MARK, scrub(value if isinstance(value, str) else str(value)))
