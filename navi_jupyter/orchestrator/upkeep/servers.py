"""The servers that share the database: how long this one may rely on its lease, which others are dead, and closing what
those left open.

A server that has not renewed its lease for a while may have been replaced: it was stopped, the machine slept, or the
database cannot be reached. Only the database knows, and that may not answer. So it relies on its lease for less than
the lease's own time (:class:`Trust`), by a clock that cannot be set; then it ends its runs by itself, before another
server starts others in their sessions.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType

from ...clock import boot_time, now
from ...errors import LeaseLost
from ...log_setup import get_logger
from ...model.sessions import RunStatus
from ...ports.store import SessionStore
from ...ports.transactions import RunOwner, Server, SessionTx
from ...settings import ServerLease
from ..run_endings import Ending, close_run, interrupted
from ..transcript import fold_frames

log = get_logger("peers")

DIED_WITHIN = timedelta(seconds=3.5)
"""Since its last renewal, for a server whose connection has ended to be taken for dead: less than the time after which
the database's server gives up a connection that is cut off (``store.postgres.connection``)."""
_PROC = Path("/proc/self/stat").exists()


TRUST_POLL = 0.1  # seconds between looks at the trust while a run works: timers stand still while the machine sleeps
BEGINS_WITHIN = 1.0  # seconds for which it is looked at after it was required: the run that asked is not seen yet


class Trust:
    """Whether this server may act for its runs and claims now. Belongs to the event loop's thread.

    ``on_lost`` is called once each time that it ends. It may be called in the handler of a signal, between any two
    instructions of the main thread: it must not block, log or raise.
    """

    def __init__(
        self,
        lease: ServerLease,
        *,
        on_lost: Callable[[], None],
        on_renewed: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = boot_time,
        is_cut_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_cut_off``: whether others may take this server for gone, whatever its lease."""
        self.clock = clock
        self.until = float("-inf")  # by the clock
        self.given_up: dict[str, str] = {}
        """Runs, and their sessions, that were ended here because it was lost, and not in the database yet."""
        self._is_cut_off = is_cut_off
        self._window = lease.trust
        self._on_lost = on_lost
        self._on_renewed = on_renewed  # with the time until which it is held
        self._lost = True
        self._required = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the lease was last renewed."""
        return self.clock() - (self.until - self._window)

    @property
    def held(self) -> bool:
        """Whether the lease can be relied on at this instant."""
        return self.clock() < self.until and not self._is_cut_off()

    def renewed(self, since: float) -> None:
        """The lease was renewed in the database; ``since``: the time on the clock before that was begun."""
        self.until = max(self.until, since + self._window)
        if self.held:
            self._lost = False
            self._on_renewed(self.until)

    def check(self) -> bool:
        """:attr:`held`; where it has ended, what runs here is ended first."""
        if self.held:
            return True
        if not self._lost:
            self._lost = True
            self._on_lost()
        return False

    def require(self) -> None:
        """Raises LeaseLost unless it is held. Called right before what must not happen on two servers."""
        self._required.set()
        if not self.check():
            raise LeaseLost(
                "This server could not renew its lease in time, so that another one may have taken over the run."
            )

    async def watch(self, works: Callable[[], bool]) -> None:
        """Notice its end without being asked, while a run ``works`` that is then to be ended. A task of its own."""
        while True:
            looks = 1
            if not works():
                self._required.clear()
                await self._required.wait()  # each run asks right before it begins
                looks = round(BEGINS_WITHIN / TRUST_POLL)
            for _ in range(looks):
                self.check()
                await asyncio.sleep(TRUST_POLL)

    @contextmanager
    def checked_on_continue(self) -> Iterator[None]:
        """Check it first when this process goes on after it was stopped, before the timers that have come meanwhile.

        A handler of ``asyncio`` would come behind them. Without effect outside of the main thread, and on Windows.
        """
        if not hasattr(signal, "SIGCONT") or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGCONT)

        def on_continue(number: int, frame: FrameType | None) -> None:
            self.check()
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGCONT, on_continue)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGCONT) is on_continue:
                signal.signal(signal.SIGCONT, before if before is not None else signal.SIG_DFL)


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


JudgedByLease = Callable[[Server], bool]
"""Whether the end of a server's lease, as this server's clock has it, shows that it is dead."""


def always(_: Server) -> bool:
    """The clock of this server, and the others with it, have gone on evenly for longer than a lease."""
    return True


def never(_: Server) -> bool:
    """The clock was set, or this server did not look for a while: every lease may seem to be over."""
    return False


def is_dead(
    server: Server,
    lease_until: datetime,
    *,
    here: Server,
    at: datetime,
    by_lease: JudgedByLease = always,
    gone: Collection[str] | None = None,
) -> bool:
    """Whether a server is gone: known soon for processes of this machine, by its lease for others.

    ``gone``: those of this machine whose process is no more; without it that is looked at now.
    """
    if server.id == here.id:
        return False
    # A stopped or stuck process keeps its pid; its lease ends when it is to be given up.
    exited = has_exited(server, here=here) if gone is None else server.id in gone
    return exited or (lease_until < at and by_lease(server))


def has_exited(server: Server, *, here: Server) -> bool:
    """Whether a server is certainly gone: its process was on this machine and is no more."""
    if server.host != here.host or server.id == here.id:
        return False
    try:
        started = process_started(server.pid)
    except PermissionError:
        return False
    return started is None or abs(started - server.pid_started) > 1.0


async def disconnected(
    store: SessionStore, known: Sequence[Server], *, here: Server, before: Mapping[str, datetime], lease: ServerLease
) -> dict[str, datetime]:
    """Those that have died a moment ago, as the database's server has seen by the end of their connection; each with
    the end of its lease. ``before``: what the last look found.

    One that is cut off from the network loses its connection as well, some seconds later, and may still act: its lease
    must end. A process that dies loses it at once, so soon after a renewal, and renews nothing any more.
    """
    others = [server.id for server in known if server.id != here.id]
    gone = await store.disconnected(others) if others else ()
    if not gone:
        return {}
    at, leases = now() + timedelta(seconds=lease.duration) - DIED_WITHIN, await store.leases()
    return {
        one: leases[one]
        for one in gone
        if one in leases and (leases[one] == before[one] if one in before else leases[one] > at)
    }


async def close_orphans(
    store: SessionStore,
    here: Server,
    *,
    by_lease: JudgedByLease = always,
    gone: Collection[str] | None = None,
    given_up: Collection[str] = (),
) -> Sequence[RunOwner]:
    """End every run whose server is dead, with its partial text kept. Returns those that this call ended.

    ``gone``: as in :func:`is_dead`. ``given_up``: runs of this server that it has ended without being able to write
    that, when its lease was over.
    """

    async def unit(tx: SessionTx) -> list[RunOwner]:
        # One transaction: who is alive and what they own cannot change in between, and two servers that take over at
        # the same time end each run once.
        at = now()
        known = await tx.servers()
        dead = {
            server.id
            for server, until in known
            if is_dead(server, until, here=here, at=at, by_lease=by_lease, gone=gone)
        }
        alive = {server.id for server, _ in known} - dead | {here.id}
        ended = []
        for owner in await tx.active_runs():
            ours = owner.server_id == here.id and owner.run_id in given_up
            if owner.server_id in alive and not ours:
                continue
            run = await tx.run(owner.run_id)
            if run is None:
                continue
            fold = fold_frames(await tx.run_frames(owner.session_id, owner.run_id))
            # What the user stopped has ended as asked, and is not started again as an interrupted recall is.
            ending = (
                Ending(RunStatus.STOPPED)
                if owner.stop_requested
                else interrupted(await tx.last_effect(run), given_up=ours)
            )
            if await close_run(tx, run, ending, fold):
                ended.append(owner)
        for server_id in dead:
            await tx.forget_server(server_id)
        return ended

    ended = await store.write(unit, durable=True)
    for owner in ended:
        log.warning("run_interrupted", run_id=owner.run_id, session_id=owner.session_id, server=owner.server_id)
    return ended


class OtherServers:
    """Other servers on the same database, which may have kernels that this one does not know."""

    def __init__(self, known: Callable[[], Awaitable[Sequence[Server]]], here: Server) -> None:
        self._known = known
        self._here = here

    async def __call__(self, address_known: bool) -> bool:
        """Whether a kernel may be theirs. ``address_known``: this machine's file of its address was read."""
        # a kernel of another machine, or one whose connection file is gone here, can only be known elsewhere.
        others = [one for one in await self._known() if one.id != self._here.id]
        return any(
            other.host != self._here.host or not address_known
            for other in others
            if not has_exited(other, here=self._here)
        )
