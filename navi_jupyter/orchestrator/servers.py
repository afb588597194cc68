"""The servers that share the database: which of them are dead, and closing what those left open."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..clock import now
from ..log_setup import get_logger
from ..model.sessions import RunStatus
from ..ports.store import SessionStore
from ..ports.transactions import RunOwner, Server, SessionTx
from .run_endings import Ending, close_run, interrupted
from .transcript import fold_frames

log = get_logger("peers")

_PROC = Path("/proc/self/stat").exists()


def this_server() -> Server:
    """This process, under an identity that no other process ever has."""
    pid = os.getpid()
    started = process_started(pid)
    return Server(id=f"{pid}-{secrets.token_hex(6)}", host=_host(), pid=pid, pid_started=started or 0.0)


def process_started(pid: int) -> float | None:
    """When a process started, which distinguishes it from a later one with its pid; None when there is none.

    Raises PermissionError.

    On Linux in ticks since the machine started: as a time of day it would change whenever somebody sets the clock.
    """
    if _PROC:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else float(rest[18])
    import psutil  # late: 15 ms, and only other systems need it

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from error


def _host() -> str:
    """The machine, as far as process ids mean the same on it: containers with one host name have their own."""
    namespace = Path("/proc/self/ns/pid")
    suffix = f"/{namespace.stat().st_ino}" if namespace.exists() else ""
    return socket.gethostname() + suffix


def is_dead(server: Server, lease_until: datetime, *, here: Server, at: datetime) -> bool:
    """Whether a server is gone: known at once for processes of this machine, by its lease for others."""
    if server.id == here.id:
        return False
    # A stopped or stuck process keeps its pid; its lease ends when it is to be given up.
    return has_exited(server, here=here) or lease_until < at


def has_exited(server: Server, *, here: Server) -> bool:
    """Whether a server is certainly gone: its process was on this machine and is no more."""
    if server.host != here.host or server.id == here.id:
        return False
    try:
        started = process_started(server.pid)
    except PermissionError:
        return False
    return started is None or abs(started - server.pid_started) > 1.0


async def close_orphans(store: SessionStore, here: Server) -> Sequence[RunOwner]:
    """End every run whose server is dead, with its partial text kept. Returns those that this call ended."""

    async def unit(tx: SessionTx) -> list[RunOwner]:
        # One transaction: who is alive and what they own cannot change in between, and two servers that take over at
        # the same time end each run once.
        at = now()
        known = await tx.servers()
        alive = {server.id for server, until in known if not is_dead(server, until, here=here, at=at)} | {here.id}
        ended = []
        for owner in await tx.active_runs():
            if owner.server_id in alive:
                continue
            run = await tx.run(owner.run_id)
            if run is None:
                continue
            fold = fold_frames(await tx.run_frames(owner.session_id, owner.run_id))
            # What the user stopped has ended as asked, and is not started again as an interrupted recall is.
            ending = Ending(RunStatus.STOPPED) if owner.stop_requested else interrupted(await tx.last_effect(run))
            if await close_run(tx, run, ending, fold):
                log.warning("run_interrupted", run_id=run.id, session_id=run.session_id, server=owner.server_id)
                ended.append(owner)
        for server, _ in known:
            if server.id not in alive:
                await tx.forget_server(server.id)
        return ended

    return await store.write(unit, durable=True)
