"""The configured MCP servers: the usual ``mcpServers`` JSON, from ``navi/mcp.json`` in Jupyter's config path.

A mistake in one server's entry disables that server alone; its message names the file, the line and the key.
Not responsible for starting anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from jupyter_core.paths import jupyter_config_path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ...config_files import ConfigError, Document, FileProblem, WatchedFiles

FILE_NAME = "navi/mcp.json"
MAX_FILE = 1_000_000
MAX_SERVERS = 100
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# What variables and headers are called that hold a secret.
_KEY = re.compile(r"key|token|secret|passw|passphrase|auth|credential|cookie|session|private|dsn", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
HTTP = ("http", "streamable-http", "streamable_http", "streamableHttp")

Text = Annotated[str, StringConstraints(max_length=10_000)]


class _Entry(BaseModel):
    """A server as the file has it. Keys of other programs (``autoApprove``, …) are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)
    type: Text | None = None
    command: Text | None = None
    args: list[Text] = Field(default_factory=list)
    env: dict[str, Text] = Field(default_factory=dict)
    cwd: Text | None = None
    url: Text | None = None
    headers: dict[str, Text] = Field(default_factory=dict)
    disabled: bool = False
    trust_hints: bool = False
    protocol: Literal["auto", "legacy"] = "auto"
    call_timeout: Annotated[float, Field(gt=0, le=86_400)] = 300.0

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> _Entry:
        if self.type == "sse":
            raise ValueError('type "sse" (the old transport) is not supported; use the server\'s streamable HTTP URL')
        if self.type not in (None, "stdio", *HTTP):
            raise ValueError(f'type must be "stdio" or "http"; it is {self.type!r}')
        if (self.command is None) == (self.url is None):
            raise ValueError('give either "command" (a program to start) or "url" (a server that runs)')
        if self.url is not None and self.type == "stdio":
            raise ValueError('type "stdio" needs "command", not "url"')
        if self.command is not None and self.type in HTTP:
            raise ValueError(f'type "{self.type}" needs "url", not "command"')
        if self.command is not None and not self.command.strip():
            raise ValueError("command is empty")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """One configured server, with all variables filled in. Two that are equal need no restart."""

    name: str
    file: str  # where it is configured, for people
    command: tuple[str, ...] = ()  # the program and its arguments; empty for a server that is reached over HTTP
    env: Mapping[str, str] = field(default_factory=dict)  # besides the few variables that every server gets
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    own: bool = False  # whether it is one user's, and for that user alone
    guarded: bool = False  # whether only addresses of the internet may be connected to
    disabled: bool = False
    trust_hints: bool = False  # whether what it says of its own tools (that one only reads) decides what asks
    # `legacy`: the handshake of 2025-11-25 and before, without asking for a newer one first.
    protocol: Literal["auto", "legacy"] = "auto"
    call_timeout: float = 300.0  # seconds without an answer or progress until a call is given up
    wrong: str | None = None  # why it cannot be used: what is wrong in the file
    # Values that messages about failures do not show: of `env`, of `headers`, and what variables stood for.
    secrets: tuple[str, ...] = ()
    # Those of them that are shown nowhere, not even in results: by the names of their variables and headers.
    keys: tuple[str, ...] = ()

    @property
    def transport(self) -> Literal["stdio", "http"]:
        return "http" if self.url else "stdio"


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """All files together: of servers with the same name the first file's counts."""

    servers: Mapping[str, ServerConfig] = field(default_factory=dict)
    problems: Sequence[FileProblem] = ()  # files that cannot be read as a whole


class ConfigFiles:
    """The files, read again when one of them has changed. Blocks on the disk: call it in a thread."""

    def __init__(self, explicit: str = "") -> None:
        """``explicit`` goes before those of Jupyter's config path; that it is missing is a problem."""
        self._explicit = Path(explicit).expanduser() if explicit else None
        self._watched = WatchedFiles(_servers, max_bytes=MAX_FILE)
        self._configuration: Configuration | None = None

    @property
    def paths(self) -> list[Path]:
        """Where the files may be, in order: the user's own directory comes first, as Jupyter sorts them."""
        found = [Path(directory, FILE_NAME) for directory in jupyter_config_path()]
        return list(dict.fromkeys(([self._explicit] if self._explicit else []) + found))

    def read(self) -> Configuration:
        """What is configured now. Never raises."""
        if self._watched.refresh(self.paths) or self._configuration is None:
            servers: dict[str, ServerConfig] = {}
            for file in self._watched.files.values():
                for server in file.content or ():
                    servers.setdefault(server.name, server)
            problems = self._watched.problems
            if self._explicit is not None and self._explicit not in self._watched.files:
                message = f"{self._explicit}: there is no such file (setting mcp_config)"
                problems.insert(0, FileProblem(file=str(self._explicit), message=message))
            self._configuration = Configuration(servers=servers, problems=problems)
        return self._configuration


def _servers(document: Document) -> Sequence[ServerConfig]:
    """The servers of one file. Raises ConfigError."""
    content = document.content
    if content is None:
        return ()
    entries = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        wanted = '{"mcpServers": {"name": {"command": …}}}'
        raise ConfigError(f"{document.at('mcpServers')}: must be an object like {wanted}")
    return [_server(name, entry, document) for name, entry in list(entries.items())[:MAX_SERVERS]]


def _server(name: str, raw: Any, document: Document) -> ServerConfig:
    file = str(document.path)

    def broken(why: str, *key: str) -> ServerConfig:
        where = f"{document.at('mcpServers', name, *key)}: {'.'.join(('mcpServers', name[:64], *key))}"
        return ServerConfig(name=name[:64], file=file, wrong=f"{where}: {why}")

    if not NAME.fullmatch(name):
        return broken("a server's name has at most 64 letters, digits, dots, dashes, underscores and spaces")
    try:
        entry = _Entry.model_validate(raw)
    except ValidationError as error:
        return ServerConfig(name=name, file=file, wrong=document.mistakes(error, "mcpServers", name)[0])
    variables = FilledVariables()
    fill = variables.fill
    try:
        program = [fill(entry.command, "command")] if entry.command else []
        config = ServerConfig(
            name=name,
            file=file,
            command=(*program, *(fill(arg, "args") for arg in entry.args if program)),
            env={key: fill(value, "env", key, secret=True) for key, value in entry.env.items()},
            cwd=fill(entry.cwd, "cwd") if entry.cwd else None,
            url=fill(entry.url, "url") if entry.url else "",
            headers={key: fill(value, "headers", key, secret=True) for key, value in entry.headers.items()},
            disabled=entry.disabled,
            trust_hints=entry.trust_hints,
            protocol=entry.protocol,
            call_timeout=entry.call_timeout,
            secrets=longest_first(variables.secrets),
            keys=longest_first(variables.keys),
        )
    except UnsetVariable as error:
        variable, key = error.args
        return broken(f"the environment variable {variable} is not set in the Jupyter server", *key)
    if config.url and not re.match(r"https?://[^/\s]+", config.url):
        return broken("must begin with http:// or https://", "url")
    return config


class UnsetVariable(Exception):
    """Its arguments: the environment variable, the key whose value names it."""


class FilledVariables:
    """Fills ``${NAME}`` and ``${NAME:-default}`` in, and collects what must not be shown."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.keys: set[str] = set()

    def fill(self, text: str, *key: str, secret: bool = False) -> str:
        """``text`` of the entry's ``key`` with its variables filled in. Raises UnsetVariable."""

        def value(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None and match[2] is None:
                raise UnsetVariable(match[1], key)
            if found:
                self._collect(found, match[1])
            return found if found is not None else match[2]

        filled = VARIABLE.sub(value, text)
        if secret:
            self._collect(filled, key[-1])
            self._collect(filled.rpartition(" ")[2], key[-1])  # of "Bearer …"
        return filled

    def _collect(self, secret: str, name: str) -> None:
        # Shorter ones ("1", "true", "/tmp") are not secrets, and hiding them would garble the message.
        if len(secret) >= 6:
            self.secrets.add(secret)
            if _KEY.search(name):
                self.keys.add(secret)


def longest_first(secrets: set[str]) -> tuple[str, ...]:
    """The longest first, so that one that contains another is hidden whole."""
    return tuple(sorted(secrets, key=lambda secret: (-len(secret), secret)))


def redact(text: str, secrets: Sequence[str]) -> str:
    """``text`` without what must not be shown."""
    for secret in secrets:
        text = text.replace(secret, "[hidden]")
    return text


_INHERITED = (
    (
        *("APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE"),
        *("PROGRAMDATA", "PROGRAMFILES", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
    )
    if os.name == "nt"
    else (
        *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CONDA_PREFIX", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    )
)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a server's program finds in its environment: enough to work, none of our keys, and what is configured."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    return kept | dict(extra)
