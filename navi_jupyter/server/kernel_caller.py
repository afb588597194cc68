"""The kernel that sends a request with the kernels' token: as it says, and as its connection shows.

It says so in the header ``Navi-Cell: <kernel id> <id of the execute request> <process id> <key>``, each ``-`` where
there is none. All of it is a claim, which ``kernel_scope`` checks. Imported at extension load: no pydantic.
"""

from __future__ import annotations

import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HEADER = "Navi-Cell"
SERVER_HEADER = "Navi-Server"  # the name of a user's server on a JupyterHub, quoted as in a URL
LONGEST_SERVER = 200  # characters
_HEADER = re.compile(
    r"(?P<kernel>[\w.:-]{1,200}) (?P<request>[\w.:-]{1,200}) (?P<pid>\d{1,10}) (?P<key>[0-9a-f]{32}|-)", re.ASCII
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCaller:
    """Empty fields: not claimed, or not known."""

    kernel_id: str = ""
    request_id: str = ""  # the request of the front end that the kernel works on: a cell, or a message of a widget
    pid: int | None = None  # of the kernel's process
    key: str | None = None  # by which a cell that waits is known once code of an agent has run in it
    peer_pid: int | None = None  # of the process at the other end of a UNIX socket
    peer_port: int | None = None  # of the other end of a TCP connection

    @property
    def name(self) -> str:
        """As it is written down: in origins, and as who has answered."""
        return self.kernel_id or "unknown"


def read_caller(header: str, connection: Any) -> KernelCaller:
    """From a request's header and tornado's connection."""
    peer_pid, peer_port = _peer(connection)
    match = _HEADER.fullmatch(header.strip())
    if match is None:
        return KernelCaller(peer_pid=peer_pid, peer_port=peer_port)
    kernel, request, pid, key = ("" if part == "-" else part for part in match.groups())
    return KernelCaller(
        kernel_id=kernel,
        request_id=request,
        pid=int(pid) or None,
        key=key or None,
        peer_pid=peer_pid,
        peer_port=peer_port,
    )


def _peer(connection: Any) -> tuple[int | None, int | None]:
    with suppress(OSError, AttributeError, TypeError, ValueError, IndexError, struct.error):
        own: socket.socket = connection.stream.socket
        if own.family == getattr(socket, "AF_UNIX", None):
            size = struct.calcsize("3i")
            pid, _, _ = struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return pid, None
        return None, int(own.getpeername()[1])
    return None, None
