"""The only way into sessions for the layers above: starts and stops them, passes commands in and events out.

Holds the live ones in a dict (looked up and inserted with no ``await`` between). Not responsible for periodic work
(``maintenance``), nor for what can be read and changed without a live session (``session_directory``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta

from ..clock import now
from ..commands import Acceptance, Command
from ..errors import NaviError, NotReady
from ..events import Draft, Event
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.runs import RunLimits
from ..model.sessions import SYSTEM, USER, Origin, Run, Session
from ..ports.agent import AgentLoop, ToolContext
from ..ports.recalls import RunEnded, SessionRecalls
from ..ports.store import SessionStore
from ..ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from ..settings import Settings
from .dependencies import IDLE_AFTER, MAX_QUEUED_PROMPTS, SessionDependencies, ToolServices
from .event_log import EventLog
from .event_writer import EventWriter
from .followers import Page, Push
from .interrupts import PendingInterrupts
from .run_slots import RunSlots
from .session_actor import Close, Poke, SessionActor, Submitted
from .session_directory import SessionDirectory, accept_any, no_model
from .session_list.retention import remove_session, set_deleted, set_removed
from .upkeep.maintenance import LOOK_ALONE, PEERS_EVERY, Maintenance
from .upkeep.servers import Trust, close_orphans, has_exited, this_server

log = get_logger("orchestrator")

STOP_SECONDS = 5.0  # seconds that runs get to unwind when the server stops


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Numbers for health and metrics."""

    sessions: int  # in memory
    runs: int  # in progress in this process
    followers: int
    delivered: int  # envelopes handed to followers since the start
    waiting: int  # sessions of this process whose run waits for a slot
    queued: int  # runs that wait in the queues of all sessions of the database, as of the last renewal
    replicas: int  # servers of the database that are alive, with this one
    lease_age: float  # seconds since the lease of this server was renewed


def _no_limits(profile: str, configuration: UserConfiguration) -> RunLimits:  # noqa: ARG001
    """Profiles have no limits of their own."""
    return RunLimits()


async def _nothing_configured(owner: str) -> UserConfiguration:  # noqa: ARG001
    """Users have nothing of their own."""
    return NOTHING_CONFIGURED


async def _ignore_run(run: Run) -> None:
    """No listener."""


class Orchestrator:
    """See the module. ``start`` before the first call, ``stop`` after the last."""

    def __init__(
        self,
        store: SessionStore,
        agent: AgentLoop,
        *,
        settings: Settings | None = None,
        idle_after: float = IDLE_AFTER,
        max_queued_prompts: int = MAX_QUEUED_PROMPTS,
        check_model: Callable[[str], object] = accept_any,
        check_profile: Callable[[str, UserConfiguration], object] = accept_any,
        model_of_profile: Callable[[str, UserConfiguration], str | None] = no_model,
        model_of_owner: Callable[[str], Awaitable[str]] | None = None,
        limits_of_profile: Callable[[str, UserConfiguration], RunLimits] = _no_limits,
        configuration_of: Callable[[str], Awaitable[UserConfiguration]] = _nothing_configured,
        tool_services: ToolServices | None = None,
        lease_renewed: Callable[[float], None] = lambda _: None,
    ) -> None:
        """``model_of_owner``: the model of new sessions; None: the default one. ``configuration_of``: what a user has
        configured; read at the beginning of each of the user's runs, from whatever server it was changed.

        ``lease_renewed``: called with the time (``boot_time``) until which this server may act."""
        self.server = this_server()
        self.settings = settings or Settings()
        self.sessions = SessionDirectory(
            store,
            self.settings,
            check_model=check_model,
            check_profile=check_profile,
            model_of_profile=model_of_profile,
            model_of_owner=model_of_owner,
            configuration_of=configuration_of,
        )
        self.log = EventLog(store, ring_events=self.settings.replay_buffer_size)
        self._store = store
        self._agent = agent
        self._idle_after = idle_after
        self._max_queued_prompts = max_queued_prompts
        self._check_model = check_model
        self._limits_of_profile = limits_of_profile
        self.configuration_of = configuration_of
        self._tool_services = tool_services or ToolServices()
        self._interrupts = PendingInterrupts()
        self._event_writer = EventWriter(store, self.server.id)
        self.trust = Trust(
            self.settings.lease, on_lost=self._lose_runs, on_renewed=lease_renewed, is_cut_off=lambda: store.is_cut_off
        )
        self._slots = RunSlots(self.settings.max_concurrent_runs, self._poke)
        self._actors: dict[str, tuple[SessionActor, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._maintenance = Maintenance(
            store,
            self.server,
            self.log,
            self._interrupts,
            actors=lambda: [actor for actor, _ in self._actors.values()],
            poke=self._poke,
            run_ended=self._run_ended,
            compact_after=timedelta(seconds=self.settings.compact_after),
            lease=self.settings.lease,
            trust=self.trust,
            flushed=self._event_writer.flushed,
        )
        self._stack = ExitStack()
        self._recalls: SessionRecalls | None = None  # set by :meth:`start`
        self._listeners: list[RunEnded] = []
        self._shared: SessionDependencies | None = None  # set by :meth:`start`; None before and after

    async def start(
        self,
        recalls: SessionRecalls,
        *listeners: RunEnded,
        run_started: RunEnded | None = None,
        server_left: Callable[[], None] = lambda: None,
    ) -> None:
        """Close what dead servers left open, start the prompts that wait; then commands are accepted.

        ``listeners`` are called with every run that ends here, ``run_started`` with every one that had waited in its
        session's queue and begins here, ``server_left`` when another server has ended.
        """
        self._maintenance.on_server_left = server_left
        lease, since = timedelta(seconds=self.settings.lease.duration), self.trust.clock()
        await self._store.announce(self.server.id)
        await self._store.write(lambda tx: tx.beat(self.server, at=now(), lease=lease))
        registered = self.trust.clock()
        # Before the first command: a client must not find a run in progress that no server works on. A process of this
        # machine that lives is left alone until its lease was observed for a while: our clock may be wrong.
        known = await self._store.known_servers()
        gone = [other.id for other in known if has_exited(other, here=self.server)]
        if gone:
            await asyncio.sleep(PEERS_EVERY)  # killed just now, perhaps: what it had begun elsewhere ends within that
        await close_orphans(
            self._store, self.server, by_lease=lambda server: server.host != self.server.host, gone=gone
        )
        self._recalls = recalls
        self._listeners = list(listeners)
        self._shared = SessionDependencies(
            server_id=self.server.id,
            trust=self.trust,
            settings=self.settings,
            idle_after=self._idle_after,
            max_queued_prompts=self._max_queued_prompts,
            store=self._store,
            event_writer=self._event_writer,
            slots=self._slots,
            interrupts=self._interrupts,
            agent=self._agent,
            recalls=recalls,
            history=self.sessions.history,
            tool_services=self._tool_services,
            run_started=run_started or _ignore_run,
            run_ended=self._run_ended,
            followed=self.log.is_followed,
            limits_of_profile=self._limits_of_profile,
            configuration_of=self.configuration_of,
        )
        if len(known) - len(gone) > 1:
            # One of them may have been alone until now, and look for commits of others less often.
            await asyncio.sleep(max(0.0, registered + LOOK_ALONE - self.trust.clock()))
        self.trust.renewed(since)
        self._stack.enter_context(self.trust.checked_on_continue())
        self._tasks = [
            asyncio.create_task(self._event_writer.work(), name="navi-event-writer"),
            *self._maintenance.tasks(),
        ]
        for session_id in await self._store.queued_sessions():
            self._poke(session_id)

    async def stop(self) -> None:
        """End runs as interrupted, followers, tasks. Everything accepted stays accepted."""
        self._shared = None
        for actor, _ in list(self._actors.values()):
            actor.put(Close())
        tasks = [task for _, task in self._actors.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self.log.close()
        self._event_writer.stop()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()  # The database refuses: what is not written yet will be marked as interrupted.
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._stack.close()
        try:
            await self._store.write(lambda tx: tx.forget_server(self.server.id))
        except NaviError as error:
            log.error("server_not_unregistered", error=str(error))

    def stats(self) -> Stats:
        """Counts of what is live in this process."""
        return Stats(
            sessions=len(self._actors),
            runs=sum(actor.current is not None for actor, _ in self._actors.values()),
            followers=self.log.followers,
            delivered=self.log.delivered,
            waiting=self._slots.waiting,
            queued=self._maintenance.queued,
            replicas=self._maintenance.replicas,
            lease_age=self.trust.age,
        )

    async def context_of(self, session: Session) -> ToolContext:
        """A tool context without a run, for listing a session's tools. Raises NotReady."""
        if self._shared is None:
            raise NotReady("Navi is stopping with this server.")
        shared, own = self._shared, await self.configuration_of(session.owner)
        return await shared.tool_context(session, session.owner, run_id="", origin=USER, configuration=own)

    async def delete_session(self, session_id: str, *, owner: str, forever: bool = False) -> None:
        """Stop its run, end its followers, cancel its recalls. It can be restored for some days, unless ``forever``.

        Raises SessionNotFound, SessionReadOnly.
        """
        await self.sessions.owned(session_id, owner)
        if self._shared is None or self._recalls is None:
            raise NotReady("Navi is stopping with this server.")
        live = self._actors.get(session_id)
        remove = set_removed if forever else set_deleted
        # First the rows, then the run: what it still writes finds no session and is dropped.
        await self._recalls.end_with_session(session_id, lambda tx: remove(tx, session_id))
        if live is not None:
            actor, task = live
            if actor.current is not None:
                actor.current.lost = True
            actor.put(Close())
            await asyncio.wait([task], timeout=self.settings.stop_deadline)
        self.log.close_session(session_id)
        if forever:
            await remove_session(self._store, session_id)

    async def submit(
        self,
        session_id: str,
        command: Command,
        *,
        user_id: str,
        origin: Origin = USER,
        attachments: Sequence[Attachment] = (),
    ) -> Acceptance:
        """Implements :class:`navi_jupyter.ports.Submit`. Only the owner may command.

        ``attachments`` are what the ``images`` and ``files`` of a prompt stand for, stored already.
        """
        await self.sessions.owned(session_id, user_id)
        model = getattr(command, "model", None)
        if model is not None:
            self._check_model(model)
        accepted: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        self._actor(session_id).put(Submitted(command, user_id, origin, accepted, tuple(attachments)))
        return await accepted

    async def emit_to_followers(self, event: Event, *, owner: str | None = None) -> None:
        """Append an event that belongs to no run to the log of every session that is followed here now; with
        ``owner`` of those that are this user's."""
        draft = Draft(event, run_id=None, origin=SYSTEM, at=now())
        followed = self.log.followed()
        if owner is not None:
            followed = [one.id for one in await self._store.sessions_of(followed) if one.owner == owner]
        batches = {session_id: [draft] for session_id in followed}
        if batches:
            await self._store.write(lambda tx: tx.append_all(batches))

    async def emit(self, session_id: str, event: Event) -> None:
        """Append an event that belongs to no run to a session's log. Raises SessionNotFound."""
        draft = Draft(event, run_id=None, origin=SYSTEM, at=now())
        await self._store.write(lambda tx: tx.append(session_id, [draft]))

    async def follow(
        self, session_id: str, *, after: int | None, owner: str, push: Push | None = None
    ) -> AsyncGenerator[Page]:
        """See :meth:`EventLog.follow`; also for who it is shared with. Raises SessionNotFound, where it is not (any
        more) at the next page."""
        session = await self.sessions.readable(session_id, owner)
        if session.owner != owner:
            push = None  # before each page is asked whether it is still shared
        # Closed with this one, at once: the log counts its followers.
        async with aclosing(self.log.follow(session_id, after=after, push=push)) as pages:
            async for page in pages:
                await self._require_shared(session, owner)
                yield page
                del page  # not kept while it waits for the next one, or has others pushed

    async def page(
        self, session_id: str, *, owner: str, after: int, limit: int, wait: float = 0
    ) -> tuple[Sequence[str], int]:
        """Envelopes after a cursor, and the head. See :meth:`EventLog.page`."""
        session = await self.sessions.readable(session_id, owner)
        found = await self.log.page(session_id, after=after, limit=limit, wait=wait)
        await self._require_shared(session, owner)
        return found

    async def _require_shared(self, session: Session, user_id: str) -> None:
        """Raises SessionNotFound where a session of somebody else is not shared with the user any more."""
        if session.owner != user_id:
            await self.sessions.readable(session.id, user_id)

    def _actor(self, session_id: str) -> SessionActor:
        if self._shared is None:
            raise NotReady("The server is starting or stopping. Try again in a moment.")
        live = self._actors.get(session_id)
        if live is not None:
            return live[0]
        actor = SessionActor(session_id, self._shared)
        task = asyncio.create_task(self._supervise(actor), name=f"navi-session-{session_id}")
        self._actors[session_id] = (actor, task)
        self.log.in_use.set()
        return actor

    async def _supervise(self, actor: SessionActor) -> None:
        try:
            await actor.live()
        finally:
            # No await between the actor's last look into its inbox and here: nothing can have come in between.
            del self._actors[actor.session_id]
            actor.refuse_all(NotReady("The session is closing. Try again."))

    def _poke(self, session_id: str) -> None:
        if self._shared is not None:
            self._actor(session_id).put(Poke())

    def _lose_runs(self) -> None:
        """Another server may have the runs by now: end them here. Called as ``Trust`` says."""
        for actor, _ in list(self._actors.values()):
            actor.lose()

    async def _run_ended(self, run: Run) -> None:
        for listener in self._listeners:
            await listener(run)
