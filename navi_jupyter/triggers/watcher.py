"""The watcher: watches exactly what open ``when`` recalls wait for; nothing when there are none.

One per server process. Not responsible for what a recall waits for (``watch``), how kernels are observed
(``ports.jupyter``), or what becomes of occurrences (``scheduling``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path

from ..errors import KernelUnavailable, NaviError, NotebookNotFound
from ..log_setup import get_logger
from ..model.recalls import When
from ..model.sessions import Session
from ..ports.agent import Attachments
from ..ports.jupyter import CellObserver, CellSubscription, KernelLost, KernelNotice, Kernels
from ..ports.recalls import Occurrences, RecallState
from .cell_target import CELL_EVENTS
from .delivery import TriggerDelivery
from .file_changes import FileChange
from .polling import Poller
from .watch import Watch

log = get_logger("watching")

SWEEP = 15.0  # seconds between reads of the open recalls: those made through another server notify nothing here
FIND_KERNEL_EVERY = 1.0  # the same while a recall waits for a kernel to be started
MAX_BACKOFF = 30.0
GONE_AFTER = 8.0
"""Seconds that a kernel of no server must not answer to count as gone: one that restarts is silent for a while."""


class Watcher:
    """See the module. Between :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        occurrences: Occurrences,
        *,
        session: Callable[[str], Awaitable[Session | None]],
        observer: CellObserver | None = None,
        kernels: Kernels | None = None,
        attachments: Attachments | None = None,
        root: Path | None = None,
        elsewhere: Callable[[str, bool], Awaitable[bool]] | None = None,
        locate: Callable[[Session], Awaitable[str | None]] | None = None,
    ) -> None:
        """``elsewhere``: whether another server may have a kernel, given its id, and whether its address is known here.

        ``locate``: the verified path of a session's notebook; raises NotebookNotFound. None: paths are not verified.
        """
        self._occurrences = occurrences
        self._session = session
        self._observer = observer
        self._delivery = TriggerDelivery(occurrences, attachments, taken=self._on_taken)
        self._locate = locate
        self._poller = Poller(
            root=root, kernels=kernels, emit=self._delivery.add, on_problem=self._on_problem, is_meant=self._is_meant
        )
        self._elsewhere = elsewhere
        self._closed: set[str] = set()  # kernels that were shut down here
        self._missing_since: dict[str, float] = {}
        """Kernels that recalls name and that no server has, by when that was first seen."""
        self._watches: dict[str, Watch] = {}
        self._polls: dict[str, asyncio.Task[None]] = {}  # by recall: the task that polls its file or expression
        self._subscriptions: dict[str, CellSubscription] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}  # by kernel: the task that subscribes to it
        self._waiting: dict[str, dict[str, Watch]] = {}
        """By kernel and recall: the watches that wait for that subscription."""
        self._background: set[asyncio.Task[None]] = set()
        self._signal = asyncio.Event()
        self._refreshed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to watch. Returns at once: kernels are observed as they are found."""
        self._task = asyncio.create_task(self._run(), name="navi-watcher")

    async def stop(self) -> None:
        """Watch nothing any more; what has happened is still delivered, for a moment."""
        self._stopping = True
        tasks = [
            task for task in (self._task, *self._polls.values(), *self._attempts.values(), *self._background) if task
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._delivery.close()
        for watch in self._watches.values():
            watch.close()
        for subscription in list(self._subscriptions.values()):
            await subscription.close()
        self._poller.close()
        self._watches.clear()
        self._subscriptions.clear()

    def changed(self, owners: Collection[str] = ()) -> None:  # noqa: ARG002 - it watches those of all
        """A ``when`` recall was made, changed or ended: read them again."""
        self._signal.set()

    async def listening(self, recall_id: str, *, owner: str = "", within: float = 2.0) -> bool:  # noqa: ARG002
        """Wait until that recall is watched, or there is nothing to watch yet. False when it took too long.

        A request that makes a recall from within a cell waits for this, so that nothing of the cell is missed.
        """
        self._signal.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                async with self._refreshed:
                    await self._refreshed.wait_for(lambda: recall_id in self._watches or self._stopping)
                watch = self._watches.get(recall_id)
                if watch is not None:
                    await watch.ready.wait()
                return True
        return False

    @property
    def watched(self) -> int:
        """How many recalls are watched."""
        return len(self._watches)

    @property
    def kernels(self) -> int:
        """How many kernels are observed."""
        return len(self._subscriptions)

    async def _run(self) -> None:
        pause = FIND_KERNEL_EVERY
        while not self._stopping:
            self._signal.clear()
            try:
                waiting = await self.refresh()
                pause = FIND_KERNEL_EVERY if waiting else SWEEP
            except NaviError as error:
                log.warning("watching_not_refreshed", error=error.message)
                pause = min(pause * 2, MAX_BACKOFF)
            except Exception:
                log.exception("watching_failed")
                pause = min(pause * 2, MAX_BACKOFF)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._signal.wait(), pause)

    async def refresh(self) -> bool:
        """Watch what open recalls wait for, and nothing else. Whether one of them has no kernel yet."""
        opens = {state.recall.id: state for state in await self._occurrences.open_whens()}
        for recall_id in [one for one, watch in self._watches.items() if _stale(watch, opens.get(one))]:
            self._end(recall_id)
        for recall_id, state in opens.items():
            if recall_id not in self._watches and isinstance(state.recall.schedule, When):
                await self._begin(state)
        async with self._refreshed:
            self._refreshed.notify_all()
        unsubscribed = await self._find_kernels()
        await self._close_unused()
        return unsubscribed

    async def _begin(self, state: RecallState) -> None:
        session = await self._session(state.recall.session_id)
        if session is None:
            return
        watch = Watch(
            state=state,
            session=session,
            on_occurrence=self._delivery.add,
            on_problem=self._on_problem,
            on_target_known=self._on_target_known,
            observer=self._observer,
        )
        if _of_own_notebook(watch) and self._locate is not None:
            with suppress(NotebookNotFound):  # it may come back
                if await self._locate(session) != watch.when.path:
                    return  # the recall waits for it at its new path from now on
        self._watches[watch.id] = watch
        polling = self._poller.start(watch)
        if polling is not None:
            self._polls[watch.id] = polling

    async def _is_meant(self, watch: Watch, change: FileChange) -> bool:
        """Whether a change is of what the recall waits for: another notebook in the place of its own is not."""
        if not _of_own_notebook(watch) or self._locate is None:
            return True
        try:
            return await self._locate(watch.session) == watch.when.path
        except NotebookNotFound as error:
            if change.created or change.changed:
                self._on_problem(watch, error.message)
                return False
            return True  # it is gone, which is what happened

    def _end(self, recall_id: str) -> None:
        self._watches.pop(recall_id).close()
        polling = self._polls.pop(recall_id, None)
        if polling is not None:
            polling.cancel()
            self._own(polling)

    def _own(self, task: asyncio.Task[None]) -> None:
        """Keep a reference to a task until it has ended: the loop itself keeps only a weak one."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _find_kernels(self) -> bool:
        """Have every watch subscribed to its kernel. Whether one is not yet."""
        unsubscribed = False
        for watch in list(self._watches.values()):
            if not watch.of_kernel or watch.over or watch.subscription is not None:
                continue
            unsubscribed = True
            kernel_id = await self._kernel_of(watch)
            if kernel_id is None:
                watch.ready.set()
            elif kernel_id in self._subscriptions:  # one for all recalls about a kernel
                watch.subscribed(self._subscriptions[kernel_id])
            else:
                self._waiting.setdefault(kernel_id, {})[watch.id] = watch
                if kernel_id not in self._attempts:
                    attempt = asyncio.create_task(self._subscribe(kernel_id), name=f"navi-subscribe-{kernel_id[:8]}")
                    self._attempts[kernel_id] = attempt
        return unsubscribed

    async def _kernel_of(self, watch: Watch) -> str | None:
        observer, named = self._observer, watch.when.kernel_id
        if observer is None:
            return None
        # Read anew: the notebook may have been moved since, or have another kernel.
        session = await self._session(watch.session.id) or watch.session
        watch.session = session
        if named is None:
            return await observer.kernel_of(session)
        if observer.has(named):
            return named
        if await self._is_gone(observer, named):
            self._on_gone(watch)
        return None

    async def _is_gone(self, observer: CellObserver, kernel_id: str) -> bool:
        """Whether a kernel that this server does not have is on no server, and not just between two processes."""
        if kernel_id in self._closed:
            return True
        lives = await observer.lives(kernel_id)
        if lives or (self._elsewhere is not None and await self._elsewhere(kernel_id, lives is not None)):
            self._missing_since.pop(kernel_id, None)
            return False
        now = asyncio.get_running_loop().time()
        return now - self._missing_since.setdefault(kernel_id, now) >= GONE_AFTER

    def _on_gone(self, watch: Watch) -> None:
        """The kernel that a recall names is gone. One for a cell to come waits for the notebook's next kernel."""
        if watch.when.event in CELL_EVENTS and not watch.target.bound:
            self._on_target_known(watch, watch.when.model_copy(update={"kernel_id": None}))
            self._on_problem(watch, "its kernel is gone; it waits for a cell in the notebook's next kernel")
        else:
            watch.lost_elsewhere()

    def _on_target_known(self, watch: Watch, when: When) -> None:
        self._own(asyncio.create_task(self._store_target(watch, when), name=f"navi-target-{watch.id}"))

    async def _store_target(self, watch: Watch, when: When) -> None:
        try:
            if await self._occurrences.narrow(watch.id, watch.when, when):
                watch.target_stored(when)
        except NaviError as error:
            log.warning("target_not_stored", recall_id=watch.id, error=error.message)

    async def _subscribe(self, kernel_id: str) -> None:
        """Subscribe to a kernel; tried again as long as a watch waits for it."""
        pause = 0.2
        try:
            while (waiting := self._open(kernel_id)) and self._observer is not None:
                try:
                    subscription = await self._observer.subscribe(
                        kernel_id, lambda notice: self._on_notice(kernel_id, notice)
                    )
                except KernelUnavailable as error:
                    log.warning("kernel_not_observed", kernel_id=kernel_id, reason=error.message)
                    for watch in waiting:
                        self._on_problem(watch, error.message)
                        watch.ready.set()
                except Exception:
                    log.exception("kernel_not_observed", kernel_id=kernel_id)
                else:
                    self._subscriptions[kernel_id] = subscription
                    log.info("kernel_watched", kernel_id=kernel_id)
                    for watch in self._open(kernel_id):  # without an await between: nothing is missed
                        watch.subscribed(subscription)
                    return
                # Refreshed meanwhile: a watch whose notebook has another kernel now does not come back.
                self._waiting.pop(kernel_id, None)
                await asyncio.sleep(pause + FIND_KERNEL_EVERY)
                pause = min(pause * 2, MAX_BACKOFF)
        finally:
            self._waiting.pop(kernel_id, None)
            del self._attempts[kernel_id]
            self._signal.set()

    def _open(self, kernel_id: str) -> list[Watch]:
        """The watches that still wait for a subscription to this kernel."""
        waiting = self._waiting.get(kernel_id, {})
        return [watch for watch in waiting.values() if not watch.over and watch.subscription is None]

    async def _close_unused(self) -> None:
        watches = [watch for watch in self._watches.values() if not watch.over]
        used = {watch.subscription.kernel_id for watch in watches if watch.subscription is not None}
        for kernel_id in [one for one in self._subscriptions if one not in used]:
            await self._subscriptions.pop(kernel_id).close()
            log.info("kernel_not_watched", kernel_id=kernel_id)

    def _on_notice(self, kernel_id: str, notice: KernelNotice) -> None:
        for watch in list(self._watches.values()):
            if watch.subscription is None or watch.subscription.kernel_id != kernel_id:
                continue
            try:
                watch.on_notice(notice)
            except Exception:
                log.exception("watch_failed", recall_id=watch.id)
        if isinstance(notice, KernelLost) and notice.how == "closed":
            self._on_closed(kernel_id)

    def _on_closed(self, kernel_id: str) -> None:
        # So that a recall that names it need not wait GONE_AFTER for what is known.
        self._closed.add(kernel_id)
        for watch in self._watches.values():
            if watch.subscription is not None and watch.subscription.kernel_id == kernel_id:
                watch.unsubscribed()
        self._signal.set()

    def _on_taken(self, watch: Watch) -> None:
        if watch.over:  # it is not open any more: its kernel may not need to be observed
            self._signal.set()

    def _on_problem(self, watch: Watch, reason: str) -> None:
        if reason in watch.problems or self._stopping:
            return
        watch.problems.add(reason)
        self._own(asyncio.create_task(self._report_problem(watch, reason), name=f"navi-on_problem-{watch.id}"))

    async def _report_problem(self, watch: Watch, reason: str) -> None:
        try:
            await self._occurrences.report_failure(watch.id, reason)
        except NaviError as error:
            watch.problems.discard(reason)
            log.warning("problem_not_reported", recall_id=watch.id, reason=reason, error=error.message)


def _of_own_notebook(watch: Watch) -> bool:
    """Whether it waits for a change of the file of its session's notebook."""
    return watch.when.path is not None and watch.when.path == watch.session.notebook_path


def _stale(watch: Watch, state: RecallState | None) -> bool:
    """Whether the recall is not open any more, or waits for something else."""
    return state is None or state.recall.schedule != watch.when
