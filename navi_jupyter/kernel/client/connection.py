"""Finds the server that this kernel belongs to. Reads the environment and files; opens no socket.

In this order: explicit argument; ``NAVI_SERVER_URL`` with ``NAVI_TOKEN``; ``NAVI_CONNECTION_FILE``; the runtime file of
the server that is this kernel's parent; JupyterHub's variables. Never "the first running server": it may be another's.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from ..errors import ServerNotFound

_APPS = ("lab", "tree", "notebooks", "doc", "navi")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
ADVICE = (
    "start this kernel from a Jupyter server that has navi-jupyter, "
    "or set NAVI_SERVER_URL and NAVI_TOKEN (`navi doctor` in a terminal shows more)"
)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The address of a server and the credentials for it."""

    url: str  # the Jupyter server's base URL; ends with a slash
    authorization: str | None = field(repr=False)
    """The value of the ``Authorization`` header; None for a server without authentication."""
    source: str  # where it was found, in words
    sock: str | None = None  # the UNIX socket that the server listens on instead of a port
    root_dir: str | None = None  # the folder that the server's notebook paths are relative to, when known
    ca_file: str | None = None  # certificates of authorities to trust instead of this machine's

    @property
    def verify(self) -> bool:
        """Whether a TLS certificate must be valid: not on loopback, where self-made ones are the rule."""
        return self.ca_file is not None or urlsplit(self.url).hostname not in _LOOPBACK


class _Unusable(Exception):
    """A place names a server that cannot be used; ``str()`` is the reason."""


def find_server(
    url: str | None = None, token: str | None = None, *, env: Mapping[str, str] | None = None
) -> Connection:
    """The first server that the places named above name and that is alive.

    Raises ServerNotFound with what was tried. ``env`` is for tests; the default is the process's environment.
    """
    env = os.environ if env is None else env
    if url:
        return _from_url(url, token, source="the argument")
    if env.get("NAVI_SERVER_URL"):
        return _from_url(env["NAVI_SERVER_URL"], env.get("NAVI_TOKEN"), source="NAVI_SERVER_URL")
    rejected: list[str] = []
    for place in (_named_file, _parents_file, _hub):
        try:
            found = place(env)
        except _Unusable as reason:
            rejected.append(str(reason))
        else:
            if found:
                return found
    tried = f" ({'; '.join(rejected)})" if rejected else ""
    raise ServerNotFound(f"No Navi server found{tried}: {ADVICE}.", rejected=rejected)


def read_connection_file(path: Path, *, source: str) -> Connection:
    """The connection in a file that the extension wrote. Raises ServerNotFound when it is stale or not private."""
    try:
        return _from_file(path, scheme="navi", source=source)
    except _Unusable as reason:
        raise ServerNotFound(f"{reason}: {ADVICE}.") from None


def _from_url(text: str, token: str | None, *, source: str) -> Connection:
    """A URL as it is pasted: with ``?token=`` and ``/lab`` or without."""
    parts = urlsplit(text.strip() if "//" in text else "http://" + text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServerNotFound(f"{source} is not the URL of a server: write it like http://127.0.0.1:8888/.")
    token = token or next(iter(parse_qs(parts.query).get("token", [])), None)
    segments = [segment for segment in parts.path.split("/") if segment]
    # `…/services/navi/` is no application's page but a service of a JupyterHub: `navi hub`.
    if segments and segments[-1] in _APPS and segments[-2:-1] != ["services"]:
        segments.pop()
    path = "/" + "".join(segment + "/" for segment in segments)
    url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Connection(url=url, authorization=_header(token, "token"), source=source)


def _named_file(env: Mapping[str, str]) -> Connection | None:
    name = env.get("NAVI_CONNECTION_FILE")
    if not name:
        return None
    found = _from_file(Path(name), scheme="navi", source="NAVI_CONNECTION_FILE")
    return _with_root(found, _server_info(env, _pid(Path(name).stem.rpartition("-")[2])))


def _parents_file(env: Mapping[str, str]) -> Connection | None:
    """``navi-<pid>.json``, else Jupyter's own ``jpserver-<pid>.json`` (which has no token under password login)."""
    pid = _pid(env.get("JPY_PARENT_PID"))
    if pid is None:
        return None
    ours = _runtime_dir(env) / f"navi-{pid}.json"
    info = _server_info(env, pid)
    if ours.exists():
        return _with_root(_from_file(ours, scheme="navi", source=f"the parent server's {ours.name}"), info)
    if info is None:
        return None
    theirs = _runtime_dir(env) / f"jpserver-{pid}.json"
    return _with_root(_from_file(theirs, scheme="token", source=f"the parent server's {theirs.name}"), info)


def _hub(env: Mapping[str, str]) -> Connection | None:
    token, url = env.get("JUPYTERHUB_API_TOKEN"), env.get("JUPYTERHUB_SERVICE_URL")
    if not token or not url:
        return None
    parts = urlsplit(url)
    # The address that it listens on; "every interface" is not an address to connect to.
    host = "127.0.0.1" if parts.hostname in (None, "", "0.0.0.0", "::") else parts.hostname  # noqa: S104
    port = f":{parts.port}" if parts.port else ""
    path = parts.path if parts.path.endswith("/") else parts.path + "/"
    return Connection(
        url=f"{parts.scheme or 'http'}://{host}{port}{path}",
        authorization=_header(token, "token"),
        source="JupyterHub's variables",
    )


def _from_file(path: Path, *, scheme: str, source: str) -> Connection:
    content = _read_private(path)
    if not _alive(_pid(content.get("pid"))):
        raise _Unusable(f"the server of {path.name} is gone")
    url, sock = str(content.get("url") or ""), str(content.get("sock") or "") or None
    if url.startswith("http+unix://"):
        parts = urlsplit(url)
        sock, url = sock or unquote(parts.netloc), "http://localhost" + (parts.path or "/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise _Unusable(f"{path.name} names no server")
    return Connection(
        url=url if url.endswith("/") else url + "/",
        authorization=_header(content.get("token"), scheme),
        source=source,
        sock=sock,
        root_dir=content.get("root_dir") if isinstance(content.get("root_dir"), str) else None,
    )


def _read_private(path: Path) -> dict[str, Any]:
    """A JSON object from a file that only this user can have written: it is theirs, and closed to others."""
    try:
        with path.open(encoding="utf-8") as file:
            about = os.fstat(file.fileno())  # of the open file: the path may be replaced in between
            content = json.load(file)
    except OSError as problem:
        raise _Unusable(f"{path.name} cannot be read: {problem.strerror}") from None
    except ValueError:
        raise _Unusable(f"{path.name} is damaged") from None
    if os.name == "posix":
        if about.st_uid != os.getuid():
            raise _Unusable(f"{path.name} belongs to another user")
        # With this variable jupyter_core itself writes such files without 0600, for file systems that have no modes.
        lax = os.environ.get("JUPYTER_ALLOW_INSECURE_WRITES", "false").lower() in ("true", "1")
        if stat.S_IMODE(about.st_mode) & 0o077 and not lax:
            raise _Unusable(f"{path.name} can be read by others (its mode must be 0600)")
    if not isinstance(content, dict):
        raise _Unusable(f"{path.name} is damaged")
    return content


def _server_info(env: Mapping[str, str], pid: int | None) -> dict[str, Any] | None:
    """Jupyter's own runtime file of that server."""
    if pid is None:
        return None
    try:
        return _read_private(_runtime_dir(env) / f"jpserver-{pid}.json")
    except _Unusable:
        return None


def _with_root(connection: Connection, info: dict[str, Any] | None) -> Connection:
    root = (info or {}).get("root_dir")
    if connection.root_dir or not isinstance(root, str):
        return connection
    return replace(connection, root_dir=root)


def connection_files(env: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Every ``navi-<pid>.json`` of the runtime directory, for ``navi doctor`` (a kernel never searches so)."""
    return _runtime_dir(os.environ if env is None else env).glob("navi-*.json")


def running_connections(env: Mapping[str, str] | None = None) -> list[Connection]:
    """Every server of this user with Navi whose process is there, for commands of the shell; by URL.

    With Jupyter's own token where its file has one: who is in a shell is the user. Else (a server with a password,
    or of JupyterHub) with the kernels' token, which may do less (docs/security.md).
    """
    env = os.environ if env is None else env
    found: dict[str, Connection] = {}
    for path in connection_files(env):
        pid = _pid(path.stem.rpartition("-")[2])
        with suppress(_Unusable):  # left behind by a server that was killed, or somebody else's
            ours = _with_root(_from_file(path, scheme="navi", source=path.name), _server_info(env, pid))
            found[ours.url + (ours.sock or "")] = _with_jupyters_token(ours, env, pid)
    return [found[key] for key in sorted(found)]


def _with_jupyters_token(ours: Connection, env: Mapping[str, str], pid: int | None) -> Connection:
    info = _server_info(env, pid) or {}
    header = _header(info.get("token"), "token")
    return ours if header is None else replace(ours, authorization=header, source=f"jpserver-{pid}.json")


def _runtime_dir(env: Mapping[str, str]) -> Path:
    if env.get("JUPYTER_RUNTIME_DIR"):
        return Path(env["JUPYTER_RUNTIME_DIR"])
    from jupyter_core.paths import jupyter_runtime_dir  # late: pulls in platformdirs, needed in this case only

    return Path(jupyter_runtime_dir())


def _header(token: object, scheme: str) -> str | None:
    if not isinstance(token, str) or not token:
        return None
    return token if token.startswith(("navi ", "token ", "Bearer ")) else f"{scheme} {token}"


def _pid(value: object) -> int | None:
    try:
        pid = int(str(value))
    except ValueError:
        return None
    return pid if pid > 0 else None


def _alive(pid: int | None) -> bool:
    if pid is None or os.name != "posix":  # on Windows signal 0 is Ctrl-C, not a test
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's, and alive
    return True
