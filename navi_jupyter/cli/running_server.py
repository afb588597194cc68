"""The running server that a command of the shell is for: the one that is named, this kernel's, or the only one.

Where several run and none is named, none is chosen: a command must not reach another server than the one that is
meant. Not responsible for how a kernel finds its server (``kernel.client.connection``), whose rules come first here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from urllib.parse import urlsplit

from ..errors import NaviError
from ..installation import start_command
from ..kernel.client.connection import Connection, find_server, running_connections
from ..kernel.errors import ServerNotFound

_HOW = "name one with --url, or set NAVI_SERVER_URL"
_LISTENS_WITHIN = 1.0  # seconds for the connection to a server of this machine


class SeveralServers(NaviError):
    """More than one server runs here, and none was named."""

    code = "several_servers"
    status = 400


def running_server(
    url: str | None = None, token: str | None = None, *, env: Mapping[str, str] | None = None
) -> Connection:
    """The address and the credentials of the server that is meant. Opens a socket only where several servers run.

    In this order: ``url`` (with ``token``, else that of its ``?token=``, of NAVI_TOKEN or JUPYTER_TOKEN, or of the
    server's own file when it runs on this machine); the places where a kernel looks; JUPYTER_SERVER_URL, which
    Jupyter's terminals have; the only server with Navi that this user runs on this machine. ``env`` is for tests.
    Raises ServerNotFound, and SeveralServers, which lists them.
    """
    env = os.environ if env is None else env
    if url:
        return _named(url, token, env)
    try:
        found = find_server(env=env)
    except ServerNotFound as problem:
        if env.get("JUPYTER_SERVER_URL"):
            return _named(env["JUPYTER_SERVER_URL"], token, env)
        return _with_token(_only(running_connections(env), problem), token)
    if token:
        return _with_token(found, token)
    return found if found.authorization else _named(found.url, None, env)


def _named(url: str, token: str | None, env: Mapping[str, str]) -> Connection:
    named = find_server(url, token, env=env)
    if named.authorization:
        return named
    for running in running_connections(env):
        if _address(running.url) == _address(named.url) and running.sock is None:
            return running
    given = env.get("NAVI_TOKEN") or env.get("JUPYTER_TOKEN")
    return find_server(url, given, env=env) if given else named


def _address(url: str) -> tuple[str, int | None, str]:
    """What tells servers of this machine apart, whichever of its names is used."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    default = 443 if parts.scheme == "https" else 80
    return "localhost" if host in ("127.0.0.1", "::1") else host, parts.port or default, parts.path


def _with_token(found: Connection, token: str | None) -> Connection:
    if not token:
        return found
    return replace(found, authorization=find_server(found.url, token).authorization)


def _only(running: list[Connection], problem: ServerNotFound) -> Connection:
    if len(running) > 1:
        # The number of a process may be another's by now: one that does not listen is none of them.
        running = [each for each in running if _listens(each)] or running
    match running:
        case [one]:
            return one
        case []:
            reason = f" ({'; '.join(problem.rejected)})" if problem.rejected else ""
            raise ServerNotFound(
                f"No Jupyter server with Navi runs for you on this machine{reason}: start one ({start_command()}), "
                "or give --url and NAVI_TOKEN."
            )
    listed = "".join(f"\n  {each.url}{f' (notebooks in {each.root_dir})' if each.root_dir else ''}" for each in running)
    raise SeveralServers(f"Several Jupyter servers with Navi run here: {_HOW}.{listed}")


def _listens(server: Connection) -> bool:
    with suppress(OSError):
        if server.sock is not None:
            with closing(socket.socket(socket.AF_UNIX)) as probe:
                probe.settimeout(_LISTENS_WITHIN)
                probe.connect(server.sock)
                return True
        parts = urlsplit(server.url)
        address = (parts.hostname or "localhost", parts.port or (443 if parts.scheme == "https" else 80))
        with closing(socket.create_connection(address, _LISTENS_WITHIN)):
            return True
    return False
