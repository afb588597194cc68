"""Sessions: made, found, commanded, followed. The only door into them for the layers above.

Holds the live ones in a dict (looked up and inserted with no ``await`` between) and the process's few periodic tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..commands import Acceptance, Command
from ..errors import InvalidRequest, LimitReached, NaviError, NotReady, RunNotFound, SessionNotFound
from ..events import Draft
from ..logs import get_logger
from ..model import USER, Origin, Run, Session, SessionCreate, SessionPatch, new_id, now
from ..ports import AgentLoop, Message, RecallDesk, RunEnded, SessionStore, SessionTx
from .compaction import compact
from .endings import custom
from .eventlog import EventLog, Page
from .inbox import Close, Poke, Submitted
from .journal import Journal
from .library import SessionLibrary
from .peers import close_orphans, has_exited, this_server
from .session import SessionActor, Settings, Surroundings
from .slots import Slots

log = get_logger("orchestrator")

LOOK_EVERY = 0.05
"""Seconds between looks for another process's commits, while somebody follows or a run goes on."""
BEAT_EVERY = 10.0
"""Seconds between renewals of our claims; a third of the lease."""
PEERS_EVERY = 1.0
"""Seconds between looks for other servers of this machine that have exited: a read of a few rows."""
COMPACT_EVERY = 3600.0
STOP_PATIENCE = 5.0
"""Seconds that runs get to unwind when the server stops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionView:
    """A session with what goes on in it."""

    session: Session
    head_seq: int
    run: Run | None
    queue: Sequence[Run]
    approvals: Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Numbers for health and metrics."""

    sessions: int
    """In memory."""
    runs: int
    """In progress in this process."""
    followers: int
    delivered: int
    """Envelopes handed to followers since the start."""


def _any_name(name: str) -> None:
    """Accepts every model or profile: the run itself will tell."""


class Orchestrator:
    """See the module. ``start`` before the first call, ``stop`` after the last."""

    def __init__(
        self,
        store: SessionStore,
        agent: AgentLoop,
        *,
        settings: Settings | None = None,
        default_model: str = "offline",
        default_profile: str = "assistant",
        replay_buffer_size: int = 1000,
        compact_after: timedelta = timedelta(days=1),
        check_model: Callable[[str], None] = _any_name,
        check_profile: Callable[[str], None] = _any_name,
    ) -> None:
        self.server = this_server()
        self.log = EventLog(store, ring_events=replay_buffer_size)
        self.library = SessionLibrary(store)
        self.settings = settings or Settings()
        self._store = store
        self._agent = agent
        self._default_model = default_model
        self._default_profile = default_profile
        self._compact_after = compact_after
        self._check_model = check_model
        self._check_profile = check_profile
        self._journal = Journal(store, self.server.id)
        self._slots = Slots(self.settings.max_concurrent_runs, self._poke)
        self._actors: dict[str, tuple[SessionActor, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[RunEnded] = []
        self._shared: Surroundings | None = None
        """Set by :meth:`start`; None before and after."""
        self._stale = False
        """Another process has committed what we have not looked at yet."""
        self._beaten_at = now()

    # --- life

    async def start(self, recalls: RecallDesk, *listeners: RunEnded) -> None:
        """Close what dead servers left open, start owed prompts; then commands are welcome.

        ``listeners`` are told about every run that ends here. The store's ``on_append`` must be ``self.log.appended``.
        """
        await self._store.write(lambda tx: tx.beat(self.server, at=now()))
        await close_orphans(self._store, self.server)
        self._listeners = list(listeners)
        self._shared = Surroundings(
            server_id=self.server.id,
            settings=self.settings,
            store=self._store,
            journal=self._journal,
            slots=self._slots,
            agent=self._agent,
            recalls=recalls,
            library=self.library,
            run_ended=self._run_ended,
        )
        self._tasks = [
            asyncio.create_task(self._journal.work(), name="navi-journal"),
            asyncio.create_task(self._repeat("navi-look", LOOK_EVERY, self._look), name="navi-look"),
            asyncio.create_task(self._repeat("navi-beat", BEAT_EVERY, self._beat), name="navi-beat"),
            asyncio.create_task(self._repeat("navi-peers", PEERS_EVERY, self._look_for_dead), name="navi-peers"),
            asyncio.create_task(self._repeat("navi-compact", COMPACT_EVERY, self._compact), name="navi-compact"),
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
            _, late = await asyncio.wait(tasks, timeout=STOP_PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self.log.close()
        self._journal.stop()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_PATIENCE)
            for task in late:
                task.cancel()  # The database refuses: what is not written yet will be marked as interrupted.
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        try:
            await self._store.write(lambda tx: tx.forget_server(self.server.id))
        except NaviError as error:
            log.error("good_bye_failed", error=str(error))

    def stats(self) -> Stats:
        """What goes on in this process."""
        return Stats(
            sessions=len(self._actors),
            runs=sum(actor.current is not None for actor, _ in self._actors.values()),
            followers=self.log.followers,
            delivered=self.log.delivered,
        )

    # --- sessions

    async def create_session(self, request: SessionCreate, *, owner: str) -> Session:
        """A new session. Raises LimitReached, InvalidRequest."""
        self._check(request)
        at = now()
        session = Session(
            id=new_id("s"),
            owner=owner,
            title=request.title or _default_title(request),
            profile=request.profile or self._default_profile,
            model=request.model or self._default_model,
            notebook_path=request.notebook_path,
            kernel_id=request.kernel_id,
            timezone=request.timezone or "UTC",
            created_at=at,
            updated_at=at,
        )

        async def unit(tx: SessionTx) -> None:
            if await tx.count_sessions(owner) >= self.settings.max_sessions_per_user:
                limit = self.settings.max_sessions_per_user
                raise LimitReached(f"You have {limit} sessions, the most this server allows. Delete one first.")
            await tx.add_session(session)

        await self._store.write(unit, durable=True)
        return session

    async def session(self, session_id: str, *, owner: str) -> SessionView:
        """A session and what goes on in it. Raises SessionNotFound, also for other people's."""
        session = await self._owned(session_id, owner)
        runs = await self._store.open_runs(session_id)
        return SessionView(
            session=session,
            head_seq=session.head_seq,
            run=next((run for run in runs if run.status.active), None),
            queue=[run for run in runs if not run.status.active],
            approvals=(),
        )

    async def sessions(
        self, owner: str, *, limit: int, cursor: str | None = None, notebook_path: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        """A page of the owner's sessions, most recently used first, and the next page's cursor."""
        return await self._store.sessions(owner, limit=limit, cursor=cursor, notebook_path=notebook_path)

    async def change_session(self, session_id: str, patch: SessionPatch, *, owner: str) -> Session:
        """Change the fields that the patch has; followers are told. Raises SessionNotFound, InvalidRequest."""
        await self._owned(session_id, owner)
        self._check(patch)
        changes = patch.model_dump(exclude_unset=True)
        for name in ("title", "profile", "model", "timezone"):
            if name in changes and changes[name] is None:
                raise InvalidRequest(f"{name}: can not be null", field=name)

        async def unit(tx: SessionTx) -> Session:
            if changes:
                at = now()
                await tx.change_session(session_id, {**changes, "updated_at": at})
            session = await tx.session(session_id)
            if session is None:
                raise SessionNotFound(f"There is no session {session_id[:100]}.")
            if changes:
                shown = {"title": session.title, "profile": session.profile, "model": session.model}
                event = custom("navi.session", changed=sorted(changes), session=shown)
                await tx.append(session_id, [Draft(event, run_id=None, origin=USER, at=at)])
            return session

        return await self._store.write(unit, durable=True)

    async def delete_session(self, session_id: str, *, owner: str) -> None:
        """Stop its run, end its followers, remove it with its log and recalls. Raises SessionNotFound."""
        await self._owned(session_id, owner)
        live = self._actors.get(session_id)
        await self._store.write(lambda tx: tx.delete_session(session_id), durable=True)
        if live is not None:
            actor, task = live
            if actor.current is not None:
                actor.current.lost = True
            actor.put(Close())
            await asyncio.wait([task], timeout=self.settings.stop_deadline)
        self.log.close_session(session_id)

    async def runs(
        self, session_id: str, *, owner: str, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[Run], str | None]:
        """A page of the session's runs, newest first."""
        await self._owned(session_id, owner)
        return await self._store.runs(session_id, limit=limit, cursor=cursor)

    async def run(self, session_id: str, run_id: str, *, owner: str) -> Run:
        """One run. Raises SessionNotFound, RunNotFound."""
        await self._owned(session_id, owner)
        run = await self._store.run(run_id)
        if run is None or run.session_id != session_id:
            raise RunNotFound(f"There is no run {run_id[:100]} in this session.")
        return run

    async def messages(self, session_id: str, *, owner: str) -> Sequence[Message]:
        """The conversation so far. Raises SessionNotFound."""
        await self._owned(session_id, owner)
        return await self.library.messages(session_id)

    # --- commands and following

    async def submit(self, session_id: str, command: Command, *, user_id: str, origin: Origin = USER) -> Acceptance:
        """Implements :class:`navi_jupyter.ports.Submit`. Only the owner may command."""
        await self._owned(session_id, user_id)
        model = getattr(command, "model", None)
        if model is not None:
            self._check_model(model)
        accepted: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        self._actor(session_id).put(Submitted(command, user_id, origin, accepted))
        return await accepted

    async def follow(self, session_id: str, *, after: int | None, owner: str) -> AsyncGenerator[Page]:
        """See :meth:`EventLog.follow`. Raises SessionNotFound at the first step, also for other people's."""
        await self._owned(session_id, owner)
        # Closed with this one, at once: the log counts its followers.
        async with aclosing(self.log.follow(session_id, after=after)) as pages:
            async for page in pages:
                yield page

    async def page(
        self, session_id: str, *, owner: str, after: int, limit: int, wait: float = 0
    ) -> tuple[Sequence[str], int]:
        """Envelopes after a cursor, and the head. See :meth:`EventLog.page`."""
        await self._owned(session_id, owner)
        return await self.log.page(session_id, after=after, limit=limit, wait=wait)

    async def _owned(self, session_id: str, owner: str) -> Session:
        session = await self._store.session(session_id)
        if session is None or session.owner != owner:
            raise SessionNotFound(f"There is no session {session_id[:100]}.")
        return session

    def _check(self, request: SessionCreate) -> None:
        if request.model is not None:
            self._check_model(request.model)
        if request.profile is not None:
            self._check_profile(request.profile)
        if request.timezone is not None:
            try:
                ZoneInfo(request.timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise InvalidRequest(f"timezone: unknown zone {request.timezone!r}", field="timezone") from error

    # --- live sessions

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

    async def _run_ended(self, run: Run) -> None:
        for listener in self._listeners:
            await listener(run)

    # --- periodic work

    async def _repeat(self, name: str, every: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await work()
            except NaviError as error:
                log.error("periodic_work_failed", work=name, error=str(error))
            except Exception:
                log.exception("periodic_work_broke", work=name)

    async def _look(self) -> None:
        """Has another process committed? Then followers may have more to read, or a run of ours is to stop."""
        if not self._actors and not self.log.followers:
            self.log.in_use.clear()
            await self.log.in_use.wait()  # An idle server sleeps; a follower begins at a head that it reads itself.
        if await self._store.changed_elsewhere():
            self._stale = True
        if not self._stale:
            return
        # Stale until all of it was done: a failure in between, or a run that is being launched, wants another look.
        await self.log.refresh()
        stops = await self._store.stops_for(self.server.id)
        actors = [actor for actor, _ in self._actors.values()]
        self._stale = not all(any(actor.stop_requested(run_id) for actor in actors) for run_id in stops)

    async def _beat(self) -> None:
        """Renew our claims; end what servers that died meanwhile left open, and start what waits behind it."""
        at = now()
        slept = at - self._beaten_at > 2 * timedelta(seconds=BEAT_EVERY)
        self._beaten_at = at
        await self._store.write(lambda tx: tx.beat(self.server, at=at))
        if slept:
            return  # The whole machine may have: the others' claims look old too, and get one beat to renew them.
        await self._take_over()

    async def _look_for_dead(self) -> None:
        """A server of this machine that has exited is seen at once, without waiting for its lease."""
        if any(has_exited(server, here=self.server) for server in await self._store.known_servers()):
            await self._take_over()

    async def _take_over(self) -> None:
        """End what dead servers left open, and start what waits behind it."""
        for owner in await close_orphans(self._store, self.server):
            run = await self._store.run(owner.run_id)
            if run is not None:
                await self._run_ended(run)
        for session_id in await self._store.queued_sessions():
            self._poke(session_id)

    async def _compact(self) -> None:
        await compact(self._store, older_than=self._compact_after)


def _default_title(request: SessionCreate) -> str:
    if request.notebook_path:
        return request.notebook_path.rsplit("/", 1)[-1].removesuffix(".ipynb")[:200] or "Session"
    return f"Session of {now():%Y-%m-%d %H:%M}"
