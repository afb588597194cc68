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
from contextlib import suppress
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
    r"(?:^|_)(?:KEYS?|\w*(?:API|AUTH|ACCESS|PRIVATE|SECRET|SERVICE|MASTER|SIGNING|ACCOUNT|SHARED|LICENSE)_?KEYS?"
    r"|\w*TOKENS?|\w*SECRETS?|\w*PASSWORDS?|PASS|PASSWD|\w*PASSPHRASE|CREDENTIALS?|CREDS|PAT|DSN|MNEMONIC"
    r"|BEARER|PRIVKEY|SEED_PHRASE|OTP_SEED|RECOVERY_CODES?|(?:DB|USER|ROOT|ADMIN|MAIL|SMTP|FTP|SSH|BIND)PASS"
    r"|AUTHORIZATION|COOKIE|CONNECTION_?STRING|CONN_STR)(?:_\w+)?$"
    r"|(?:^|_)(?:JWT|SAS)$|_(?:PWD|PW|AUTH|SALT|PEPPER|CERT_DATA|SERVICE_ACCOUNT|SA_JSON)$|(?:^|_)SERVICE_?ACCOUNT_(?:JSON|INFO|B64|BASE64)$"
    r"|AUTH_CONFIG$|(?:^|_)KUBE_?CONFIG_(?:DATA|JSON|B64|BASE64)$|^(?:BW|OP)_SESSION"
)
_NO_SECRET_NAME = re.compile(
    r"_(?:FILE|PATH|DIR|HOME|URL|URI|SOCK|NAME|TYPE|ID|LIMIT|MAX|COUNT|TIMEOUT|PARALLELISM|ENDPOINT|HOST|PORT"
    r"|USER|EXPIRES?\w*|TTL|METHOD|ALGORITHM|LENGTH|REGION|VERSION|HEADER|PREFIX)$|^GOOGLE_APPLICATION_CREDENTIALS$"
)
_ALWAYS_SECRET_NAME = re.compile(
    r"(?:ACCESS|APPLICATION)_KEY_ID$|(?:^|_)SECRET_ID$|(?:^|_)(?:SAS|SIGNED|PRESIGNED)_UR[LI]$|PRIVATE_KEY_ID$"
    r"|(?:^|_)HOOKS?_UR[LI]S?$|(?:^|_)WEBHOOKS?(?:_UR[LI]S?)?"
    r"(?:_(?!(?:HOST|PORT|PATH|NAME|TIMEOUT|ID|TYPE|EVENTS?|ENABLED|RETRIES|METHOD|USER)$)[A-Z0-9]+)*$"
)
"""Names that :data:`_NO_SECRET_NAME` would take for harmless ones: who has such an address or id may use it."""
_MOUNTED = "_FILE"
_IN_ADDRESSES = (
    re.compile(r"://[^/\s:@]*:([^/\s@]+)@"),
    re.compile(r"://(?=[^/\s:@]*\d)([^/\s:@]{20,})@"),  # a token in place of the user's name
    re.compile(
        r"[?&](?:sig|signature|\w*token|(?:api|access|account|secret|private|auth|function)?[-_]?key|\w*secret|\w*password|x-amz-signature|x-amz-security-token|code)=([^&\s#]+)",
        re.IGNORECASE,
    ),
)
"""Secrets in the addresses that variables of any name hold."""
_WEBHOOKS = re.compile(
    r"https://(?:hooks\.slack\.com/(?:services|workflows|triggers)|(?:ptb\.|canary\.)?discord(?:app)?\.com/api/webhooks"
    r"|[\w.-]+\.webhook\.office\.com|outlook\.office(?:365)?\.com/webhook|hooks\.zapier\.com/hooks)/\S+"
)
"""Addresses that are secret by themselves, in variables of any name."""
_IN_SETTINGS = re.compile(
    r"(?:^|[;\s])(?:account_?key|shared_?access_?key|shared_?access_?signature|password|pwd)\s*=\s*([^;\s]+)",
    re.IGNORECASE,
)
"""Secrets in connection strings: ``Name=value;Name=value``, and libpq's with blanks."""
_LINE = 24  # characters of a line of a secret of several lines (a private key) from which it is one by itself

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
    if _ALWAYS_SECRET_NAME.search(upper):
        return True
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
            found.update(_parts(value.strip(), name))
        elif name.upper().endswith(_MOUNTED) and is_secret(name[: -len(_MOUNTED)]):
            found.update(_parts(mounted(value), name))
        if "://" in value:
            found.update(part for form in _IN_ADDRESSES for part in form.findall(value))
            found.update(part for address in _WEBHOOKS.findall(value) for part in _of_webhook(address))
        if "=" in value:
            found.update(_IN_SETTINGS.findall(value))
    return {value for value in found if _can_be_hidden(value)}


def _parts(value: str, name: str) -> Iterator[str]:
    """A secret, and what of it is one by itself: lines of a key, secret fields of JSON, the path of a webhook."""
    yield value
    lines = value.replace("\\n", "\n").splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _LINE and "-----" not in line)
    if value[:1] == "{":
        with suppress(ValueError, RecursionError):
            yield from _fields(json.loads(value))
    if "://" in value and _ALWAYS_SECRET_NAME.search(name.upper()):
        yield from _of_webhook(value)


def _of_webhook(address: str) -> Iterator[str]:
    """The address, its path, and the last part of that, which is the token."""
    path = address.partition("://")[2].partition("/")[2]
    yield address
    if len(path) >= _LINE:
        yield path
    last = path.rpartition("/")[2]
    if len(last) >= _WORD:
        yield last


def _fields(content: Any) -> Iterator[str]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in pairs:
        if not isinstance(value, str):
            yield from _fields(value)
        elif name == "auth" or (isinstance(name, str) and is_secret(name)):
            yield from _parts(value, name)


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
