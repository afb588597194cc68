"""A database behind the store ports, whatever its engine: units of work, gathered into few transactions.

One writer per process commits all units of work that have gathered while the last commit was in flight (group commit: a
lone unit waits for nothing, a storm costs few transactions). What a commit appended to logs is handed to listeners, on
the event loop, after it is durable and before the units' callers go on.
Not responsible for what the units mean, nor for how a transaction is performed (``sqlite``, ``postgres``).
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar

from ..errors import NaviError, StoreError
from ..log_setup import get_logger
from ..ports.jupyter import NotebookLink
from .blobs import Blobs
from .recalls import RecallReads, RecallRows
from .served_owners import ServedOwners
from .sessions import SessionReads, SessionRows
from .statements import SqlConnection

T = TypeVar("T")
log = get_logger("store")

MAX_UNITS = 500  # units per transaction, so that another process's turn comes

OnAppend = Callable[[str, list[tuple[int, str]]], None]
"""Called with what a commit stored in a session's log: (session, [(seq, frame), ...]). Must not block or raise."""
OnCommit = Callable[[float, int], None]
"""Called after each commit: the seconds from its first statement to its end, how many units it had. As above."""


class Transaction(SessionRows, RecallRows):
    """What a unit of work gets: the writer's connection within an open transaction."""

    def __init__(self, db: SqlConnection, served: ServedOwners) -> None:
        self.db = db
        self.served = served
        self.appended = []


class Unit(Generic[T]):
    """A unit of work, what became of it, and the caller that waits for it."""

    __slots__ = ("done", "durable", "error", "on", "result", "work")
    result: T

    def __init__(self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool, on: str | None) -> None:
        self.work = work
        self.durable = durable
        self.on = on
        self.error: BaseException | None = None
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        """Answer the caller, unless it was cancelled."""
        if self.done.done():
            return
        if self.error is None:
            self.done.set_result(self.result)
        else:
            self.done.set_exception(self.error)


class Database(SessionReads, RecallReads):
    """Implements the store ports, but for what an engine has to do. Ended by :meth:`close`."""

    place: str
    """Where it is, for people: a file's path, or a server and a name. Never with a password."""
    identity: str  # what distinguishes it from other databases; the same for all servers, and after a restart
    blobs: Blobs  # where the content of attachments is, unless it goes elsewhere

    def __init__(self) -> None:
        super().__init__()
        self.notice: str | None = None  # what the owner of the database should know although it opens
        self._listeners: list[OnAppend] = []
        self._observers: list[OnCommit] = []
        self._units: asyncio.Queue[Unit[Any] | None] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write_units(), name="navi-store-writer")
        self._closing = False

    @abstractmethod
    async def close(self) -> None:
        """Commit what was given so far, then close. Later writes raise StoreError."""

    @property
    @abstractmethod
    def known_failure(self) -> NaviError | None:
        """As :meth:`failure`, without an attempt to write: what the last commit found."""

    @abstractmethod
    async def failure(self) -> NaviError | None:
        """Why nothing can be written at this moment; None when it can. Tries, unless it is known from a moment ago."""

    @abstractmethod
    async def changed_elsewhere(self, *, within: float = 0.0) -> bool:
        """See :meth:`navi_jupyter.ports.store.SessionStore.changed_elsewhere`."""

    async def announce(self, server_id: str) -> None:
        """There is no database server that could know."""

    async def disconnected(self, server_ids: Iterable[str]) -> Collection[str]:  # noqa: ARG002 - the port's
        return ()

    @property
    def is_cut_off(self) -> bool:
        return False

    @abstractmethod
    def links_now(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        """See :meth:`navi_jupyter.ports.store.SessionStore.links_now`."""

    @abstractmethod
    async def _commit(self, batch: Sequence[Unit[Any]]) -> None:
        """One transaction for all of ``batch``. Never raises: each unit's caller learns what became of it."""

    async def write(
        self, unit: Callable[[Transaction], Awaitable[T]], *, durable: bool = False, on: str | None = None
    ) -> T:
        if self._closing:
            raise StoreError("The database is being closed.")
        pending = Unit(unit, durable=durable, on=on)
        self._units.put_nowait(pending)
        return await pending.done

    async def _write_units(self) -> None:
        while (first := await self._units.get()) is not None:
            batch = [first]
            while len(batch) < MAX_UNITS and not self._units.empty():
                following = self._units.get_nowait()
                if following is None:
                    self._units.put_nowait(None)
                    break
                batch.append(following)
            await self._commit(batch)

    async def _end_writer(self) -> None:
        """Commit what was given so far; nothing more is taken."""
        self._closing = True
        self._units.put_nowait(None)
        await self._writer

    def subscribe(self, listener: OnAppend) -> None:
        self._listeners.append(listener)

    def observe_commits(self, observer: OnCommit) -> None:
        self._observers.append(observer)

    @property
    def waiting_units(self) -> int:
        """How many units of work wait for the commit in progress."""
        return self._units.qsize()

    def _publish(self, units: Sequence[Unit[Any]], transaction: Transaction) -> None:
        """After a commit: first the listeners, then the units' callers."""
        by_session: dict[str, list[tuple[int, str]]] = {}
        for session_id, seq, frame in transaction.appended:
            by_session.setdefault(session_id, []).append((seq, frame))
        for session_id, frames in by_session.items():
            for listener in self._listeners:
                try:
                    listener(session_id, frames)
                except Exception:
                    # The writer serves everybody: one listener's defect must not end it.
                    log.exception("listener_failed", session_id=session_id)
        for unit in units:
            unit.settle()

    def _abandon(self, units: Sequence[Unit[Any]], error: BaseException) -> None:
        if isinstance(error, StoreError):  # what else a unit raises is for its caller to report
            log.error("store_write_failed", error=str(error), units=len(units))
        for unit in units:
            unit.error = error
            unit.settle()

    def _observe(self, seconds: float, units: int) -> None:
        """Also of what failed: a commit that waited for a lock in vain is what a slow one is looked for."""
        for observer in self._observers:
            try:
                observer(seconds, units)
            except Exception:
                log.exception("commit_observer_failed")


async def no_work(_: Transaction) -> None:
    """A unit that shows whether anything can be committed."""
