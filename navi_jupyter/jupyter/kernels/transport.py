"""What is different between kernels of this machine, reached by ZMQ, and those behind a gateway.

Not responsible for what is said over it (``line``).
"""

from __future__ import annotations

import asyncio
from queue import Empty
from typing import Any

from jupyter_client.session import Session as JupyterSession
from jupyter_core.utils import ensure_async

from . import frames
from .cell_executions import OURS
from .frames import IopubMessage

_POLL = 0.02
"""Seconds between looks at a channel that can only be polled (a gateway's)."""


def process_of(manager: Any) -> object:
    """What tells a kernel's process from its successor; None where only somebody else knows (a gateway)."""
    return getattr(getattr(manager, "provisioner", None), "pid", None)


def ports_of(manager: Any) -> object:
    """Where it listens; None for a kernel that is reached through a gateway."""
    if getattr(manager, "provisioner", None) is None and not getattr(manager, "shell_port", 0):
        return None
    return tuple(getattr(manager, "ports", ()))


def own_session(theirs: Any) -> JupyterSession:
    """A session with the manager's key and a name of its own: it is our address, and two with one lose messages.

    The user name tells whoever listens that it is an agent who asks (``cellruns``).
    """
    return JupyterSession(config=theirs.config, key=theirs.key, signature_scheme=theirs.signature_scheme, username=OURS)


async def next_said(channel: Any, session: Any) -> IopubMessage | None:
    socket = getattr(channel, "socket", None)
    if socket is not None:
        return await frames.of_frames(await socket.recv_multipart(), session)
    while True:  # its own waiting spins the loop
        try:
            return frames.of_message(await channel.get_msg(timeout=0))
        except Empty:
            await asyncio.sleep(_POLL)


def start_elsewhere(client: Any) -> None:
    """In a thread with a loop of its own: connecting blocks."""
    asyncio.run(ensure_async(client.start_channels(stdin=False, hb=False)))
