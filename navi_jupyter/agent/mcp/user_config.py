"""The MCP servers that users have put into the database: an entry of ``mcpServers`` each, for that user alone.

Only servers that are reached by a URL: a program of a user's does not run in a server that others use, too. Nothing is
taken from the environment of this server, whose variables are the administrator's keys. Not responsible for connecting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...errors import InvalidRequest
from ...input.address_policy import parts_of_url, why_refused_host
from ...ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from .config import HTTP, NAME, VARIABLE, Configuration, FilledVariables, ServerConfig, longest_first

SOURCE = "your own"
MAX_HEADERS = 50
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_VALUE = re.compile(r"[\x20-\x7e\t]{0,8000}")
# Of the transport: the body's length and form, and which host is meant.
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding"})
_SETTINGS = ("disabled", "trust_hints", "protocol", "call_timeout")


def user_server(name: str, entry: Mapping[str, Any], *, allow_private: bool) -> ServerConfig:
    """The server that an entry describes. Raises InvalidRequest; no message shows its address or its headers."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "name: a server's name has at most 64 letters, digits, dots, dashes, underscores and spaces", field="name"
        )
    url, headers = entry.get("url"), entry.get("headers") or {}
    if entry.get("command") is not None or not isinstance(url, str):
        raise InvalidRequest("url: is missing; only servers that are reached by a URL can be your own", field="url")
    if entry.get("type") not in (None, *HTTP):
        raise InvalidRequest('type: must be "http"', field="type")
    if (why := why_unusable_url(url, allow_private=allow_private)) is not None:
        raise InvalidRequest(f"url: {why}", field="url")
    if len(headers) > MAX_HEADERS:
        raise InvalidRequest(f"headers: at most {MAX_HEADERS}", field="headers")
    for key, value in headers.items():
        if not _HEADER.fullmatch(key) or key.lower() in _RESERVED:
            raise InvalidRequest("headers: one has a name that cannot be sent, or is the transport's", field="headers")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidRequest("headers: a value must be ASCII text in one line", field="headers")
    if any(VARIABLE.search(text) for text in (url, *headers.values())):
        why = "variables of this server are not filled in here; write the value itself"
        raise InvalidRequest(f"url, headers: {why}", field="headers")
    hidden = _hidden_of(url, headers)
    server = ServerConfig(
        name=name,
        file=SOURCE,
        own=True,
        guarded=not allow_private,
        url=url,
        headers=dict(headers),
        secrets=longest_first(hidden.secrets),
        keys=longest_first(hidden.keys),
    )
    return replace(server, **{field: entry[field] for field in _SETTINGS if entry.get(field) is not None})


def why_unusable_url(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with the address of a user's server, without use of the network; None when nothing is."""
    parts = parts_of_url(url, allow_private=allow_private, hint="use headers")
    if isinstance(parts, str):
        return parts
    if not allow_private and (why := why_refused_host(parts.hostname or "")) is not None:
        return f"{why}: only addresses of the internet are connected to (the administrator's mcp_allow_private)"
    return None


def _hidden_of(url: str, headers: Mapping[str, str]) -> FilledVariables:
    """What messages about failures do not show, and what nothing shows."""
    found = FilledVariables()
    for key, value in headers.items():
        found.fill(value, "headers", key, secret=True)
    parts = urlsplit(url)
    for key, value in parse_qsl(parts.query):
        found.fill(value, "url", key, secret=True)
    for text in (url, f"{parts.path}?{parts.query}", parts.path, parts.query):
        found.fill(text, "url", "url", secret=True)
    return found


class StoredServers:
    """The servers of one user, as they were last read from the database. ``McpPool`` reads it like files."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._taken = NOTHING_CONFIGURED
        self._configuration = Configuration()

    def take(self, configuration: UserConfiguration) -> None:
        """Use what was read, unless something newer is in use: two runs may begin in another order than they read."""
        if configuration.order < self._taken.order:
            return
        if configuration.mcp_servers != self._taken.mcp_servers:
            servers = {name: self._server(name, text) for name, text in configuration.mcp_servers.items()}
            self._configuration = Configuration(servers=servers)
        self._taken = configuration

    def read(self) -> Configuration:
        """What is configured now. Never raises."""
        return self._configuration

    def _server(self, name: str, text: str) -> ServerConfig:
        try:
            return user_server(name, json.loads(text), allow_private=self._allow_private)
        except InvalidRequest as error:  # the administrator's rules have changed since it was stored
            return ServerConfig(name=name, file=SOURCE, own=True, wrong=error.message)
