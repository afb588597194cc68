"""Observation of kernels: which cells begin and end in them, and whether they live. One subscription for each kernel.

Messages are folded into cells in the reader's thread (``iopub``), so that a kernel that floods does not hold the event
loop. Opens nothing until something is observed. Not responsible for what a cell is (``cell_executions``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jupyter_server.gateway.managers import GatewayMappingKernelManager

from ...errors import KernelUnavailable
from ...log_setup import get_logger
from ...model.recalls import When, WhenEvent
from ...model.sessions import Session
from ...ports.jupyter import CellEnded, CellRun, KernelLost, KernelNotice, LostHow, OnKernelNotice
from .cell_executions import CellExecutions
from .iopub import IopubReader, IopubSubscription
from .jupyter_services import JupyterServices
from .lookup import KernelLookup, Locate, cell_source
from .transport import BUSY_PATIENCE, DecodeLimits, RawMessage, is_alive, process_of, state_of

log = get_logger("kernels")

POLL = 0.5  # seconds between polls of whether a kernel lives
ESTABLISHED_WITHIN = 30.0  # seconds that a kernel may take to publish something; one that starts takes a while
_PROBE_EVERY = 0.1
_IDLE_MISSING = 4.0  # seconds after which a cell has ended of which only Jupyter saw the end

_LIMITS = DecodeLimits(cut=64 * 1024, end=24 * 1024, largest=4 * 2**20)
"""Less than for our own requests: a report of a cell is short, and every cell of the user's passes here."""


class KernelObserver:
    """Implements ``ports.jupyter.CellObserver``."""

    def __init__(self, parts: JupyterServices, iopub: IopubReader, locate: Locate | None = None) -> None:
        self._parts, self._iopub, self._locate = parts, iopub, locate
        self._lookup = KernelLookup(parts, locate)
        self._subscriptions: set[KernelSubscription] = set()

    async def kernel_of(self, session: Session) -> str | None:
        return await self._lookup.find(session)

    async def source_of(self, session: Session, cell_id: str) -> str | None:
        return await cell_source(self._parts, session, cell_id, self._locate)

    def has(self, kernel_id: str) -> bool:
        return self._lookup.known(kernel_id)

    async def lives(self, kernel_id: str) -> bool | None:
        return await self._lookup.lives(kernel_id)

    async def subscribe(self, kernel_id: str, on_notice: OnKernelNotice) -> KernelSubscription:
        if not self._lookup.known(kernel_id):
            raise KernelUnavailable("This server has no such kernel (any more).")
        manager = self._parts.kernel_manager.get_kernel(kernel_id)
        if not getattr(manager, "iopub_port", 0):
            raise KernelUnavailable("Kernels behind a gateway cannot be watched.")
        subscription = KernelSubscription(
            kernel_id, manager, self._lookup, self._iopub, on_notice, on_close=self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.open()
        except BaseException:  # cancelled, too
            await subscription.close()
            raise
        return subscription

    async def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            await subscription.close()


class KernelSubscription:
    """Implements ``ports.jupyter.CellSubscription``, and the reader's ``IopubListener``."""

    def __init__(
        self,
        kernel_id: str,
        manager: Any,
        lookup: KernelLookup,
        iopub: IopubReader,
        on_notice: OnKernelNotice,
        on_close: Callable[[KernelSubscription], None],
    ) -> None:
        self._kernel_id, self._manager = kernel_id, manager
        self._lookup, self._iopub = lookup, iopub
        self._on_notice, self._on_close = on_notice, on_close
        self._loop = asyncio.get_running_loop()
        self._cells = CellExecutions(kernel_id)
        self._lock = threading.Lock()  # of the cells: they are fed in the reader's thread, and asked on the loop
        self._place: IopubSubscription | None = None
        self._address: Mapping[str, Any] = {}
        self._process = process_of(manager)
        self._loss_noticed = False  # the loss of the present process was notified
        self._crashed = False  # Jupyter's watchdog found it dead
        self._idle_since: float | None = None  # since when Jupyter takes the kernel for idle while we do not
        self._notices: deque[KernelNotice] = deque()  # from the thread, for the loop
        self._poll_now = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def kernel_id(self) -> str:
        return self._kernel_id

    @property
    def process(self) -> str:
        return str(self._process)

    @property
    def busy(self) -> bool:
        return state_of(self._manager) == "busy" or self._cells.busy

    @property
    def ending(self) -> bool:
        return bool(getattr(self._manager, "shutting_down", False))

    def running(self) -> Sequence[CellRun]:
        self._flush()  # a cell that began but was not notified yet would be seen twice
        with self._lock:
            return self._cells.running()

    async def close(self) -> None:
        self._on_close(self)
        with suppress(Exception):  # Jupyter's, of a kernel that may be gone in any way
            for event in ("restart", "dead"):
                self._manager.remove_restart_callback(self._on_watchdog, event)
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._unsubscribe()
        self._notices.clear()

    async def open(self) -> None:
        """Subscribe; returns once nothing is missed any more. Raises KernelUnavailable."""
        self._subscribe()
        await self._until_established()
        if state_of(self._manager) == "idle":
            # Jupyter, which listens for longer, knows that nothing runs: what comes of other cells is their remains.
            with self._lock:
                self._cells.settle()
        for event in ("restart", "dead"):
            self._manager.add_restart_callback(self._on_watchdog, event)
        self._watching = asyncio.create_task(self._watch(), name=f"navi-observe-{self._kernel_id[:8]}")

    def _subscribe(self) -> None:
        self._address = dict(self._manager.get_connection_info())
        self._cells = CellExecutions(self._kernel_id)
        self._place = self._iopub.subscribe(self._kernel_id, self._manager, self)

    async def _unsubscribe(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            await self._iopub.unsubscribe(place)

    async def _until_established(self) -> None:
        """Probe until something comes on IOPub: from then on nothing is missed."""
        begun = time.monotonic()
        while self._place is not None and not self._place.established:
            waited = time.monotonic() - begun
            if not self._lookup.known(self._kernel_id):
                raise KernelUnavailable("The kernel was shut down.")
            if waited > ESTABLISHED_WITHIN:
                raise KernelUnavailable(f"The kernel did not answer within {ESTABLISHED_WITHIN:.0f} s.")
            if waited > BUSY_PATIENCE and state_of(self._manager) == "busy":
                return
            self._iopub.probe(self._place)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._place.wait_established(), _PROBE_EVERY)

    def take(self, messages: Sequence[RawMessage]) -> bool:
        """See ``IopubListener``. Always takes more: what cells show is bounded as it comes."""
        notices: list[KernelNotice] = []
        with self._lock:
            for message in messages:
                if message.parent.kind != "execute_request":
                    continue
                with suppress(ValueError, TypeError, KeyError):  # content that breaks the protocol
                    notice = self._cells.take(message.decode(_LIMITS))
                    notices += [] if notice is None else [notice]
            replaced = self._cells.replaced
        if notices:
            self._notices.extend(notices)
            with suppress(RuntimeError):  # the loop is closed
                # Of another process: notified only after the loss of the one before it.
                self._loop.call_soon_threadsafe(self._poll_now.set if replaced else self._flush)
        return True

    def _flush(self) -> None:
        while self._notices:
            self._on_notice(self._notices.popleft())

    def _on_watchdog(self) -> None:
        self._crashed = True
        self._poll_now.set()

    async def _watch(self) -> None:
        """Notice that the kernel dies, restarts or is shut down. Its own supervisor."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poll_now.wait(), POLL)
            self._poll_now.clear()
            try:
                if not await self._poll():
                    return
            except Exception:
                log.exception("kernel_watch_failed", kernel_id=self._kernel_id)
                await asyncio.sleep(POLL)

    async def _poll(self) -> bool:
        """Whether the kernel is still one of this server's."""
        if not self._lookup.known(self._kernel_id):
            self._notify_loss("closed")
            return False
        lives = await is_alive(self._manager)
        process = process_of(self._manager)
        # Either may be seen first: the manager's new process, or a message of it.
        if process != self._process or self._cells.replaced:
            if self._crashed and not self._loss_noticed:
                self._notify_loss("died")  # and restarted by Jupyter's watchdog
            self._notify_loss("restarted")
            self._process, self._loss_noticed, self._crashed = process, False, False
        # While Jupyter ends a kernel it is dead for a moment: what comes of that is a restart or a shutdown.
        elif not lives and not self._loss_noticed and (self._crashed or not self.ending):
            self._notify_loss("died")
        self._flush()
        self._end_silent_cells()
        # Jupyter's watchdog gives new ports to a kernel that dies while it starts.
        if lives and dict(self._manager.get_connection_info()) != self._address:
            await self._unsubscribe()
            self._subscribe()
        return True

    def _end_silent_cells(self) -> None:
        """A flood can wash the end of a cell away; Jupyter, which listens too, then takes the kernel for idle."""
        if not self._cells.busy or state_of(self._manager) != "idle":
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _IDLE_MISSING:
            self._idle_since = None
            with self._lock:
                ended = self._cells.end_all()
            for run in ended:
                self._on_notice(CellEnded(run=run))

    def _notify_loss(self, how: LostHow) -> None:
        """Notified after all that the process itself has published, and before what its successor publishes."""
        running: Sequence[CellRun] = ()
        if not self._cells.replaced:
            self._flush()
        if not self._loss_noticed:
            with self._lock:
                running = self._cells.lose(how)
        self._loss_noticed = True
        # That a lost cell began is void now: its end comes with the loss.
        lost = {run.id for run in running}
        later = [one for one in self._notices if isinstance(one, KernelLost) or one.run.id not in lost]
        self._notices.clear()
        log.info("kernel_lost", kernel_id=self._kernel_id, status=how)
        process = str(self._process)
        self._on_notice(KernelLost(kernel_id=self._kernel_id, how=how, process=process, running=tuple(running)))
        self._notices.extend(later)


def why_not_watched(jupyter: JupyterServices | None) -> Callable[[When], str | None]:
    """Why an event can never be noticed on this server, as a sentence for the user; None where it can."""
    if jupyter is None or not isinstance(jupyter.kernel_manager, GatewayMappingKernelManager):
        return lambda _: None

    def why(when: When) -> str | None:
        if when.event is WhenEvent.FILE_CHANGED:
            return None
        return (
            "the kernels of this server run behind a gateway, which does not pass on what they do. Wait for a time"
            " (in 20m) or for a file that the cell writes (when changed result.csv)"
        )

    return why
