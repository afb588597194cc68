"""The runtime's life in one server process: started, ready or failed, stopped.

Jupyter runs the start and the stop hook in different tasks, and a TaskGroup must be left by the task that entered it.
So one task of ours enters the runtime, reports that it is ready, and waits for the stop.
Not responsible for what the runtime is made of: that is ``runtime``, imported here in a thread because it costs a few
hundred milliseconds (pydantic models, the store) that the server's start and its event loop must not wait for.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ..errors import NaviError, NotReady, StoreBusy, StoreDamaged, StoreError, StoreTooNew
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..settings import Settings, engine_of
from .identity import KernelToken
from .metrics import Figures, NaviCollector, ProcessMeasures
from .process.garbage_collection import GarbageCollection
from .transfers.unfinished import Unfinished

if TYPE_CHECKING:
    from tornado.websocket import WebSocketHandler

    from .rest.routing import Routes
    from .runtime import NewStarter
    from .services import Services

State = Literal["starting", "ok", "failed", "stopping"]

GRACE = 10.0  # seconds that a request waits for the end of the start: on a busy machine that takes more than a moment
RETRY = 1.0  # seconds between two attempts to start while another program locks the database
IMPORTS_AFTER = 10.0  # seconds from the start until the packages of models are imported, at least
IMPORTS_AGAIN = 2.0  # seconds until it is looked again, where the loop was at work then: pauses can be short
IMPORTS_SHARE = 0.2  # of that time the loop is at work at most
FREEZE_AFTER = 2.0  # seconds without a run after which these packages are left out of garbage collection
BUSY_LOOKS = 5  # looks in a row at which runs are in progress: then these have imported what they need
LONGEST_RETRY = 30.0  # seconds between two attempts after the first ones, while the database cannot be used


class Lifecycle:
    """The runtime of one server process. Lives as long as the extension."""

    def __init__(self, settings: Settings, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self.settings = settings
        self.kernel_token = KernelToken(settings.kernel_user)
        self.sockets: set[WebSocketHandler] = set()
        self.unfinished = Unfinished(settings)
        self.process = ProcessMeasures(GarbageCollection(tuned=settings.garbage_collection == "tuned"))
        self.state: State = "starting"
        self.failure: NaviError | None = None  # why the state is ``failed``
        self.obstacle: NaviError | None = None  # what the start waits for, while it does
        self.routes: Routes  # set before the state becomes ``ok``
        self.services: Services | None = None  # set exactly while the state is ``ok``
        self._log = log
        self._settled = asyncio.Event()  # set once it is no longer starting
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._parts: JupyterServices | None = None
        self._new_starter: NewStarter | None = None

    def start(self, parts: JupyterServices | None = None, new_starter: NewStarter | None = None) -> None:
        """Begin the start, and return at once. To be called once.

        Without ``parts`` there are no kernels, notebooks and files for tools but those of users' servers, which what
        ``new_starter`` makes can start.
        """
        self._parts, self._new_starter = parts, new_starter
        self._task = asyncio.create_task(self._run(), name="navi-runtime")

    async def stop(self) -> None:
        """Close sockets and runtime, and wait for their end. Does nothing when never started."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def ready(self, grace: float = GRACE) -> Services:
        """The services, waiting up to ``grace`` seconds for the start. Raises NotReady, or why it failed."""
        if self.state == "starting":
            try:
                await asyncio.wait_for(self._settled.wait(), grace)
            except TimeoutError:
                why = f" {self.obstacle.message}" if self.obstacle else ""
                raise NotReady(f"Navi is still starting. Try again in a moment.{why}") from None
        if self.failure is not None:
            raise self.failure
        if self.services is None:
            raise NotReady("Navi is stopping, because this server is.")
        return self.services

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                probe = group.create_task(self.process.lag.watch(), name="navi-loop-lag")
                try:
                    with self._metrics, self.process.pauses.watched():
                        await self._run_until_stopped()
                finally:
                    probe.cancel()
        except* NaviError as errors:
            self._fail(_first_of(errors))
        except* Exception as errors:  # noqa: BLE001 - the supervisor: a failed start is reported and must not end the server
            self._log.exception("navi_runtime_failed", exc_info=errors)
            self._fail(NaviError("Navi could not start. The reason is in the log of the server."))
        finally:
            self.services = None
            self._settled.set()

    @property
    def _metrics(self) -> NaviCollector:
        """Also while Navi starts or has failed: that is what somebody who watches a server wants to learn."""
        return NaviCollector(
            state=self._present_state,
            process=self.process,
            figures=self._figures,
            database=engine_of(self.settings.database_url),
        )

    def _present_state(self) -> str:
        """As ``GET health`` has it, as far as it is known without trying to save something."""
        services = self.services
        return "failed" if services is not None and services.sessions.store.known_failure else self.state

    def _figures(self) -> Figures | None:
        return None if self.services is None else self.services.figures()

    async def _run_until_stopped(self) -> None:
        module = await asyncio.to_thread(import_module, "navi_jupyter.server.runtime")
        self.routes = (await asyncio.to_thread(import_module, "navi_jupyter.server.rest")).ROUTES
        if self._stop.is_set():
            return
        async with AsyncExitStack() as stack:
            services = await self._enter(stack, module)
            if services is None:
                return
            self.services = services
            self.state = "ok"  # after services: a request that sees this state finds them
            self._settled.set()
            stack.callback(self.process.collection.restore)
            self.process.collection.tune()
            idle = asyncio.create_task(self._use_idle_time(services), name="navi-idle")
            await self._stop.wait()
            idle.cancel()
            await asyncio.gather(idle, return_exceptions=True)
            self.state = "stopping"
            self.services = None
            # Before the runtime ends its followers: these clients learn that they may come back with their cursor.
            for socket in list(self.sockets):
                socket.close(1001, "the server is stopping")

    async def _use_idle_time(self, services: Services) -> None:
        """What a user would wait for later, done while none waits: imports of models' packages, full collections."""
        lag, collection = self.process.lag, self.process.collection

        def running() -> bool:
            return services.sessions.orchestrator.stats().runs > 0

        # Not at once: a server that lives for some seconds pays nothing, and a page that is opened now comes first.
        after, busy = IMPORTS_AFTER, 0
        while not await lag.idle(after, share=IMPORTS_SHARE) and (busy := busy + running()) < BUSY_LOOKS:
            after = IMPORTS_AGAIN
        try:
            await services.agent.choice.import_ahead()
        except Exception:  # noqa: BLE001 - the first run will import, and report what is wrong
            self._log.warning("navi_imports_failed", exc_info=True)
        busy = 0
        while not await lag.idle(FREEZE_AFTER, share=IMPORTS_SHARE) or running():
            # Soon, where runs never pause: what is garbage of theirs by then is kept.
            if (busy := busy + running()) >= BUSY_LOOKS:
                break
        collection.freeze()
        await collection.collect_when_idle(lag, running)

    async def _enter(self, stack: AsyncExitStack, module: Any) -> Services | None:
        """The services, once the database can be used. None when the server stops before that.

        A full or read-only disk, missing permissions, another program's lock: all of them can end without a restart.
        """
        delay = RETRY
        while not self._stop.is_set():
            try:
                runtime = module.runtime(self.settings, self.process, self._log, self._parts, self._new_starter)
                services: Services = await stack.enter_async_context(runtime)
            except StoreBusy as error:
                # Another program (a backup, a migration) may lock the file for minutes: no reason to give up.
                self.obstacle = error
                self._log.warning("navi_start_waits code=%s message=%r", error.code, error.message)
                await self._wait(RETRY)
            except (StoreDamaged, StoreTooNew):
                raise  # a damaged one was set aside: to try again would begin an empty one
            except StoreError as error:
                self._fail(error)
                self._settled.set()
                await self._wait(delay)
                delay = min(2 * delay, LONGEST_RETRY)
            else:
                self.obstacle = self.failure = None
                return services
        return None

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _fail(self, error: NaviError) -> None:
        self.state = "failed"
        known, self.failure = self.failure, error
        if known is not None and known.message == error.message:
            return  # one line in the log for as long as it lasts
        self._log.error("navi_not_available code=%s message=%r", error.code, error.message)


def _first_of(errors: ExceptionGroup[NaviError]) -> NaviError:
    inner = errors.exceptions[0]
    return _first_of(inner) if isinstance(inner, ExceptionGroup) else inner
