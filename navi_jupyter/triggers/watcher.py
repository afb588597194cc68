"""Watches exactly what open ``when`` recalls wait for; nothing when there are none.

One per server process. Not responsible for what a recall waits for (``watches``), how kernels are heard
(``ports.watching``), or what becomes of what happened (``recalls``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from ..errors import KernelUnavailable, NaviError
from ..log_setup import get_logger
from ..model.recalls import When
from ..model.sessions import Session
from ..ports.agent import Attachments
from ..ports.jupyter import CellObserver, CellSources, CellSubscription, KernelLost, KernelNotice, Kernels
from ..ports.recalls import Occurrences, RecallState
from .cell_target import CELL_EVENTS
from .delivery import TriggerDelivery
from .polling import Looking
from .watch import Occurrence, Watch

log = get_logger("watching")

SWEEP = 15.0
"""Seconds between looks for recalls of which nobody told us (made through another server)."""
LOOK_FOR_KERNEL = 1.0
"""The same while a kernel is waited for."""
BACKOFF_MOST = 30.0
GONE_AFTER = 8.0
"""Seconds that a kernel of no server must not answer to count as gone: one that is restarted does not for a while."""


class Watcher:
    """See the module. Between :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        occurrences: Occurrences,
        *,
        session: Callable[[str], Awaitable[Session | None]],
        ears: CellObserver | None = None,
        kernels: Kernels | None = None,
        attachments: Attachments | None = None,
        root: Path | None = None,
        sources: CellSources | None = None,
        elsewhere: Callable[[bool], Awaitable[bool]] | None = None,
    ) -> None:
        """``elsewhere``: whether another server may have a kernel; told whether its address is known here."""
        self._occurrences = occurrences
        self._session = session
        self._ears = ears
        self._looking = Looking(root=root, kernels=kernels, happen=self._on_happen, trouble=self._on_trouble)
        self._sources = sources
        self._elsewhere = elsewhere
        self._closed: set[str] = set()
        """Kernels that were shut down here."""
        self._unseen: dict[str, float] = {}
        """Kernels that recalls name and that are nowhere, since when."""
        self._delivery = TriggerDelivery(occurrences, attachments, taken=self._on_taken)
        self._watches: dict[str, Watch] = {}
        self._eyes: dict[str, asyncio.Task[None]] = {}
        """By recall: who looks now and then, at a file or an expression."""
        self._hearings: dict[str, CellSubscription] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """By kernel: somebody begins to listen."""
        self._wanting: dict[str, dict[str, Watch]] = {}
        """By kernel and recall: who waits to hear it."""
        self._lost: set[asyncio.Task[None]] = set()
        self._signal = asyncio.Event()
        self._refreshed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch. Returns at once: kernels are listened to as they are found."""
        self._task = asyncio.create_task(self._run(), name="navi-watcher")

    async def stop(self) -> None:
        """Watch nothing any more; what has happened is still told, for a moment."""
        self._stopping = True
        tasks = [task for task in (self._task, *self._eyes.values(), *self._attempts.values(), *self._lost) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._delivery.close()
        for watch in self._watches.values():
            watch.close()
        for hearing in list(self._hearings.values()):
            await hearing.close()
        self._looking.close()
        self._watches.clear()
        self._hearings.clear()

    def changed(self) -> None:
        """A ``when`` recall was made, changed or ended: look again."""
        self._signal.set()

    async def listening(self, recall_id: str, *, within: float = 2.0) -> bool:
        """Wait until that recall is watched, or has nothing to be watched yet. False when it took too long.

        What makes a recall from within a cell waits for this, so that nothing of the cell is missed.
        """
        self._signal.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                async with self._refreshed:
                    await self._refreshed.wait_for(lambda: recall_id in self._watches or self._stopping)
                watch = self._watches.get(recall_id)
                if watch is not None:
                    await watch.looked_for.wait()
                return True
        return False

    @property
    def watched(self) -> int:
        """How many recalls are watched."""
        return len(self._watches)

    @property
    def kernels(self) -> int:
        """How many kernels are listened to."""
        return len(self._hearings)

    # --- what is to be watched ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = LOOK_FOR_KERNEL
        while not self._stopping:
            self._signal.clear()
            try:
                waiting = await self.refresh()
                pause = LOOK_FOR_KERNEL if waiting else SWEEP
            except NaviError as error:
                log.warning("watching_not_refreshed", error=error.message)
                pause = min(pause * 2, BACKOFF_MOST)
            except Exception:
                log.exception("watching_failed")
                pause = min(pause * 2, BACKOFF_MOST)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._signal.wait(), pause)

    async def refresh(self) -> bool:
        """Watch what is to be watched now, and nothing else. Whether a kernel is waited for."""
        opens = {state.recall.id: state for state in await self._occurrences.open_whens()}
        for recall_id in [one for one, watch in self._watches.items() if _stale(watch, opens.get(one))]:
            self._end(recall_id)
        for recall_id, state in opens.items():
            if recall_id not in self._watches and isinstance(state.recall.schedule, When):
                await self._begin(state)
        async with self._refreshed:
            self._refreshed.notify_all()
        waiting = await self._find_kernels()
        await self._hang_up()
        return waiting

    async def _begin(self, state: RecallState) -> None:
        session = await self._session(state.recall.session_id)
        if session is None:
            return
        watch = Watch(
            state=state,
            session=session,
            happen=self._on_happen,
            trouble=self._on_trouble,
            narrow=self._on_narrow,
            sources=self._sources,
        )
        self._watches[watch.id] = watch
        eye = self._looking.begin(watch)
        if eye is not None:
            self._eyes[watch.id] = eye

    def _end(self, recall_id: str) -> None:
        self._watches.pop(recall_id).close()
        eye = self._eyes.pop(recall_id, None)
        if eye is not None:
            eye.cancel()
            self._keep(eye)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Own a task until it has ended."""
        self._lost.add(task)
        task.add_done_callback(self._lost.discard)

    # --- kernels -----------------------------------------------------------------------------------------------------

    async def _find_kernels(self) -> bool:
        """Have every watch hear its kernel. Whether one has none yet."""
        waiting = False
        for watch in list(self._watches.values()):
            if not watch.of_kernel or watch.over or watch.hearing is not None:
                continue
            waiting = True
            kernel_id = await self._kernel_of(watch)
            if kernel_id is None:
                watch.looked_for.set()
            elif kernel_id in self._hearings:
                watch.begin(self._hearings[kernel_id])
            else:
                self._wanting.setdefault(kernel_id, {})[watch.id] = watch
                if kernel_id not in self._attempts:
                    attempt = asyncio.create_task(self._listen(kernel_id), name=f"navi-listen-{kernel_id[:8]}")
                    self._attempts[kernel_id] = attempt
        return waiting

    async def _kernel_of(self, watch: Watch) -> str | None:
        ears, named = self._ears, watch.when.kernel_id
        if ears is None:
            return None
        session = await self._session(watch.session.id) or watch.session
        watch.session = session
        if named is None:
            return await ears.kernel_of(session)
        if ears.has(named):
            return named
        if await self._is_gone(ears, named):
            self._on_gone(watch)
        return None

    async def _is_gone(self, ears: CellObserver, kernel_id: str) -> bool:
        """Whether a kernel that this server does not have is nowhere, and not just between two processes."""
        if kernel_id in self._closed:
            return True
        lives = await ears.lives(kernel_id)
        if lives or (self._elsewhere is not None and await self._elsewhere(lives is not None)):
            self._unseen.pop(kernel_id, None)
            return False
        now = asyncio.get_running_loop().time()
        return now - self._unseen.setdefault(kernel_id, now) >= GONE_AFTER

    def _on_gone(self, watch: Watch) -> None:
        """The kernel that a recall names is gone. One for a cell to come waits for the notebook's next kernel."""
        if watch.when.event in CELL_EVENTS and not watch.aim.bound:
            self._on_narrow(watch, watch.when.model_copy(update={"kernel_id": None}))
            self._on_trouble(watch, "its kernel is gone; it waits for a cell in the notebook's next kernel")
        else:
            watch.lost_elsewhere()

    def _on_narrow(self, watch: Watch, when: When) -> None:
        self._keep(asyncio.create_task(self._narrow(watch, when), name=f"navi-narrow-{watch.id}"))

    async def _narrow(self, watch: Watch, when: When) -> None:
        try:
            if await self._occurrences.narrow(watch.id, watch.when, when):
                watch.narrowed(when)
        except NaviError as error:
            log.warning("aim_not_stored", recall_id=watch.id, error=error.message)

    async def _listen(self, kernel_id: str) -> None:
        """Begin to listen; tried again as long as somebody waits for that kernel."""
        pause = 0.2
        try:
            while (wanting := self._open(kernel_id)) and self._ears is not None:
                try:
                    hearing = await self._ears.subscribe(
                        kernel_id, lambda noticed: self._on_noticed(kernel_id, noticed)
                    )
                except KernelUnavailable as error:
                    log.warning("kernel_not_heard", kernel_id=kernel_id, reason=error.message)
                    for watch in wanting:
                        self._on_trouble(watch, error.message)
                        watch.looked_for.set()
                except Exception:
                    log.exception("kernel_not_heard", kernel_id=kernel_id)
                else:
                    self._hearings[kernel_id] = hearing
                    log.info("kernel_watched", kernel_id=kernel_id)
                    for watch in self._open(kernel_id):  # without an await between: nothing is missed
                        watch.begin(hearing)
                    return
                self._wanting.pop(kernel_id, None)  # who still means this kernel says so again meanwhile
                await asyncio.sleep(pause + LOOK_FOR_KERNEL)
                pause = min(pause * 2, BACKOFF_MOST)
        finally:
            self._wanting.pop(kernel_id, None)
            del self._attempts[kernel_id]
            self._signal.set()

    def _open(self, kernel_id: str) -> list[Watch]:
        """Those that wait to hear this kernel."""
        wanting = self._wanting.get(kernel_id, {})
        return [watch for watch in wanting.values() if not watch.over and watch.hearing is None]

    async def _hang_up(self) -> None:
        """Listen to no kernel that nobody waits for."""
        used = {watch.hearing.kernel_id for watch in self._watches.values() if watch.hearing and not watch.over}
        for kernel_id in [one for one in self._hearings if one not in used]:
            await self._hearings.pop(kernel_id).close()
            log.info("kernel_not_watched", kernel_id=kernel_id)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _on_noticed(self, kernel_id: str, noticed: KernelNotice) -> None:
        for watch in list(self._watches.values()):
            if watch.hearing is None or watch.hearing.kernel_id != kernel_id:
                continue
            try:
                watch.take(noticed)
            except Exception:
                log.exception("watch_failed", recall_id=watch.id)
        if isinstance(noticed, KernelLost) and noticed.how == "closed":
            self._on_closed(kernel_id)

    def _on_closed(self, kernel_id: str) -> None:
        self._closed.add(kernel_id)
        for watch in self._watches.values():
            if watch.hearing is not None and watch.hearing.kernel_id == kernel_id:
                watch.lose()
        self._signal.set()

    def _on_happen(self, watch: Watch, occurrence: Occurrence) -> None:
        self._delivery.add(watch, occurrence)

    def _on_taken(self, watch: Watch) -> None:
        if watch.once:
            self._signal.set()

    def _on_trouble(self, watch: Watch, reason: str) -> None:
        if reason in watch.troubles or self._stopping:
            return
        watch.troubles.add(reason)
        self._keep(asyncio.create_task(self._say(watch, reason), name=f"navi-trouble-{watch.id}"))

    async def _say(self, watch: Watch, reason: str) -> None:
        try:
            await self._occurrences.could_not_look(watch.id, reason)
        except NaviError as error:
            watch.troubles.discard(reason)
            log.warning("trouble_not_said", recall_id=watch.id, reason=reason, error=error.message)


def _stale(watch: Watch, state: RecallState | None) -> bool:
    """Whether it is to be watched no more, or in another way."""
    return state is None or state.recall.schedule != watch.when
