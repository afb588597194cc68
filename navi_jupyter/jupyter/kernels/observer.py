"""Listening to kernels: one subscription for each, whoever wants to know, and whether they live.

What they say is read and folded in a thread of its own (``hub``), so that a kernel that floods does not hold the event
loop. Opens nothing until somebody listens. Not responsible for what a cell is (``cellruns``).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from ...errors import KernelUnavailable
from ...log_setup import get_logger
from ...model.sessions import Session
from ...ports.jupyter import CellEnded, CellRun, KernelLost, LostHow, Noticed, Told
from .iopub import IopubReader, Subscription
from .jupyter_services import JupyterServices
from .lookup import KernelLookup
from .transport import process_of

log = get_logger("kernels")

LOOK_EVERY = 0.5
"""Seconds between looks at whether a kernel lives."""
HEARD_WITHIN = 30.0
"""Seconds that a kernel may take until it is heard; one that starts takes a while."""
_ASK_EVERY = 0.1
_IDLE_MISSING = 4.0
"""Seconds after which a cell has ended of which only Jupyter heard the end."""
_ANSWER_WITHIN = 2.0
_PATIENT = 3.0
"""Seconds to wait for a kernel that is busy: an old one answers nothing meanwhile."""


class KernelObserver:
    """Implements ``ports.watching.CellObserver``."""

    def __init__(self, parts: JupyterServices) -> None:
        self._parts = parts
        self._finder = KernelLookup(parts)
        self._hub: IopubReader | None = None
        self._hearings: set[KernelSubscription] = set()

    async def kernel_of(self, session: Session) -> str | None:
        """See the port."""
        return await self._finder.find(session)

    def has(self, kernel_id: str) -> bool:
        """See the port."""
        return self._finder.known(kernel_id)

    async def lives(self, kernel_id: str) -> bool | None:
        """See the port. By the file in which each kernel's server writes how to reach it."""
        folder = getattr(self._parts.kernel_manager, "connection_dir", "") or jupyter_runtime_dir()
        if PurePath(kernel_id).name != kernel_id:
            return None
        return await answers(Path(folder) / f"kernel-{kernel_id}.json")

    async def listen(self, kernel_id: str, told: Told) -> KernelSubscription:
        """See the port."""
        if not self._finder.known(kernel_id):
            raise KernelUnavailable("This server has no such kernel (any more).")
        manager = self._parts.kernel_manager.get_kernel(kernel_id)
        if not getattr(manager, "iopub_port", 0):
            raise KernelUnavailable("Kernels behind a gateway can not be watched.")
        if self._hub is None:
            self._hub = IopubReader()
        hearing = KernelSubscription(kernel_id, manager, self._finder, self._hub, told)
        self._hearings.add(hearing)
        try:
            await hearing.open()
        except BaseException:
            await self.forget(hearing)
            raise
        hearing.on_close = self.forget
        return hearing

    async def forget(self, hearing: KernelSubscription) -> None:
        """Listen no more; the thread ends with the last one."""
        if hearing not in self._hearings:
            return
        self._hearings.discard(hearing)
        await hearing.shut()
        if not self._hearings and self._hub is not None:
            hub, self._hub = self._hub, None
            await asyncio.to_thread(hub.stop)

    async def close(self) -> None:
        """Listen to nothing any more."""
        for hearing in list(self._hearings):
            await self.forget(hearing)


class KernelSubscription:
    """Implements ``ports.watching.CellSubscription``."""

    def __init__(self, kernel_id: str, manager: Any, finder: KernelLookup, hub: IopubReader, told: Told) -> None:
        self._kernel_id = kernel_id
        self._manager = manager
        self._finder = finder
        self._hub = hub
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._ear: Subscription | None = None
        self._address: Mapping[str, Any] = {}
        self._process = process_of(manager)
        self._dead = False
        """The loss of the present process was told."""
        self._crashed = False
        """Jupyter's watchdog said that it is dead."""
        self._idle_since: float | None = None
        """Since when Jupyter takes the kernel for idle while we do not."""
        self._said: deque[Noticed] = deque()
        """From the thread, for the loop."""
        self._look_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.on_close: Callable[[KernelSubscription], Awaitable[None]] = _nothing

    # --- the port ----------------------------------------------------------------------------------------------------

    @property
    def kernel_id(self) -> str:
        """See the port."""
        return self._kernel_id

    @property
    def process(self) -> str:
        """See the port."""
        return str(self._process)

    @property
    def busy(self) -> bool:
        """See the port."""
        return self._state == "busy" or (self._ear is not None and self._ear.busy)

    @property
    def ending(self) -> bool:
        """See the port."""
        return bool(getattr(self._manager, "shutting_down", False))

    def running(self) -> Sequence[CellRun]:
        """See the port."""
        self._flush()
        return () if self._ear is None else self._ear.running()

    async def close(self) -> None:
        """See the port."""
        await self.on_close(self)

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen; returns once the kernel was heard. Raises KernelUnavailable."""
        self._tune_in()
        await self._until_heard()
        if self._state == "idle" and self._ear is not None:
            self._ear.settle()
        for event in ("restart", "dead"):
            self._manager.add_restart_callback(self._on_watchdog, event)
        self._tasks.append(asyncio.create_task(self._watch(), name=f"navi-watch-{self._kernel_id[:8]}"))

    async def shut(self) -> None:
        """Listen no more."""
        for event in ("restart", "dead"):
            with suppress(Exception):  # Jupyter's, of a kernel that may be gone in any way
                self._manager.remove_restart_callback(self._on_watchdog, event)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ear is not None:
            self._hub.remove(self._ear)
            self._ear = None
        self._said.clear()

    def _tune_in(self) -> None:
        """Connect to where the kernel is now."""
        if self._ear is not None:
            self._hub.remove(self._ear)
        self._address = dict(self._manager.get_connection_info())
        self._ear = Subscription(self._kernel_id, self._address, self._manager.session, self._on_news)
        self._hub.add(self._ear)

    async def _until_heard(self) -> None:
        """Ask until the answer comes on IOPub: from then on nothing is missed."""
        begun = time.monotonic()
        while self._ear is not None and not self._ear.heard.is_set():
            waited = time.monotonic() - begun
            if not self._finder.known(self._kernel_id):
                raise KernelUnavailable("The kernel was shut down.")
            if waited > HEARD_WITHIN:
                raise KernelUnavailable(f"The kernel was not heard within {HEARD_WITHIN:.0f} s.")
            if waited > _PATIENT and self._state == "busy":
                return
            self._hub.ask(self._ear)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ear.on_heard(), _ASK_EVERY)

    @property
    def _state(self) -> str:
        return str(getattr(self._manager, "execution_state", None) or "starting")

    # --- what it says: called in the thread --------------------------------------------------------------------------

    def _on_news(self, news: Sequence[Noticed], *, replaced: bool) -> None:
        self._said.extend(news)
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(self._on_replaced if replaced else self._flush)

    # --- on the loop -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._said:
            self._told(self._said.popleft())

    def _on_replaced(self) -> None:
        """Another process speaks: what it says is told after the loss of the one before it."""
        self._look_now.set()

    def _on_watchdog(self) -> None:
        self._crashed = True
        self._look_now.set()

    async def _watch(self) -> None:
        """See that it dies, restarts or is shut down. Its own supervisor."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_EVERY)
            self._look_now.clear()
            try:
                if not await self._look():
                    return
            except Exception:
                log.exception("kernel_watch_failed", kernel_id=self._kernel_id)
                await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> bool:
        """Whether there is still something to look at."""
        if not self._finder.known(self._kernel_id):
            self._tell_loss("closed")
            return False
        lives = await self._lives()
        process = process_of(self._manager)
        if process != self._process or (self._ear is not None and self._ear.replaced):
            if self._crashed and not self._dead:
                self._tell_loss("died")
            self._tell_loss("restarted")
            self._process, self._dead, self._crashed = process, False, False
        elif not lives and not self._dead and (self._crashed or not getattr(self._manager, "shutting_down", False)):
            self._tell_loss("died")
        self._flush()
        self._end_the_unheard()
        if lives and dict(self._manager.get_connection_info()) != self._address:
            self._tune_in()
        return True

    def _end_the_unheard(self) -> None:
        """A flood can wash the end of a cell away; Jupyter, which listens too, says that the kernel is idle."""
        ear = self._ear
        if ear is None or not ear.busy or self._state != "idle":
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _IDLE_MISSING:
            self._idle_since = None
            for run in ear.end_all():
                self._told(CellEnded(run=run))

    async def _lives(self) -> bool:
        try:
            return bool(await ensure_async(self._manager.is_alive()))
        except (RuntimeError, OSError, HTTPError) as error:
            log.warning("kernel_not_reachable", kernel_id=self._kernel_id, error=str(error))
            return False

    def _tell_loss(self, how: LostHow) -> None:
        """Told after all that the process itself has said, and before what its successor says."""
        running: Sequence[CellRun] = ()
        if self._ear is None or not self._ear.replaced:
            self._flush()
        if not self._dead and self._ear is not None:
            running = self._ear.lose(how)
        self._dead = True
        successors = [one for one in self._said if not _of(one, running)]
        self._said.clear()
        log.info("kernel_lost", kernel_id=self._kernel_id, status=how)
        self._told(KernelLost(kernel_id=self._kernel_id, how=how, process=str(self._process), running=tuple(running)))
        self._said.extend(successors)


def _of(noticed: Noticed, running: Sequence[CellRun]) -> bool:
    """Whether it is about one of those cells (that it began, which their end makes void)."""
    return not isinstance(noticed, KernelLost) and any(noticed.run.id == run.id for run in running)


async def answers(file: Path) -> bool | None:
    """Whether somebody listens at the address in a connection file; None when there is no such file."""
    try:
        address = json.loads(await asyncio.to_thread(file.read_text))
        host, port = str(address["ip"]), int(address["shell_port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            if address.get("transport") == "ipc":
                _, writer = await asyncio.open_unix_connection(f"{host}-{port}")
            else:
                _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _nothing(_: KernelSubscription) -> None:
    return None
