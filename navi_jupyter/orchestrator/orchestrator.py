"""Sessions: made, found, commanded, followed. The only door into them for the layers above.

Holds the live ones in a dict (looked up and inserted with no ``await`` between). Not responsible for what is done again
and again (``upkeep``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..clock import now
from ..commands import Acceptance, Command
from ..errors import InvalidRequest, LimitReached, NaviError, NotReady, RunNotFound, SessionNotFound
from ..events import Draft, Event
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.base import new_id
from ..model.runs import RunLimits
from ..model.sessions import SYSTEM, USER, Origin, Run, Session, SessionCreate, SessionPatch, Usage
from ..ports.agent import AgentLoop, Message, RecallAccess, ToolContext
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..ports.transactions import SessionTx
from ..settings import Settings
from .dependencies import IDLE_AFTER, MAX_QUEUED_PROMPTS, SessionDependencies, ToolServices
from .event_log import EventLog, Page
from .event_writer import EventWriter
from .interrupts import Questions
from .maintenance import Maintenance
from .run_endings import custom
from .run_slots import RunSlots
from .servers import close_orphans, this_server
from .session_actor import Close, Poke, SessionActor, Submitted
from .snapshot import TranscriptHistory
from .views import SessionView, Stats, default_title

log = get_logger("orchestrator")

STOP_PATIENCE = 5.0
"""Seconds that runs get to unwind when the server stops."""


def _any_name(name: str) -> None:
    """Accepts every model or profile: the run itself will tell."""


def _no_model(profile: str) -> str | None:  # noqa: ARG001
    """Profiles name no models."""
    return None


def _no_limits(profile: str) -> RunLimits:  # noqa: ARG001
    """Profiles have no limits of their own."""
    return RunLimits()


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
        check_model: Callable[[str], None] = _any_name,
        check_profile: Callable[[str], None] = _any_name,
        model_of_profile: Callable[[str], str | None] = _no_model,
        limits_of_profile: Callable[[str], RunLimits] = _no_limits,
        gear: ToolServices | None = None,
    ) -> None:
        self.server = this_server()
        self.library = TranscriptHistory(store)
        self.settings = settings or Settings()
        self.log = EventLog(store, ring_events=self.settings.replay_buffer_size)
        self._store = store
        self._agent = agent
        self._idle_after = idle_after
        self._max_queued_prompts = max_queued_prompts
        self._check_model = check_model
        self._check_profile = check_profile
        self._model_of_profile = model_of_profile
        self._limits_of_profile = limits_of_profile
        self._gear = gear or ToolServices()
        self._questions = Questions()
        self._journal = EventWriter(store, self.server.id)
        self._slots = RunSlots(self.settings.max_concurrent_runs, self._poke)
        self._actors: dict[str, tuple[SessionActor, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._upkeep = Maintenance(
            store,
            self.server,
            self.log,
            self._questions,
            actors=lambda: [actor for actor, _ in self._actors.values()],
            poke=self._poke,
            run_ended=self._run_ended,
            compact_after=timedelta(seconds=self.settings.compact_after),
        )
        self._listeners: list[RunEnded] = []
        self._shared: SessionDependencies | None = None
        """Set by :meth:`start`; None before and after."""

    # --- life

    async def start(self, recalls: RecallAccess, *listeners: RunEnded) -> None:
        """Close what dead servers left open, start owed prompts; then commands are welcome.

        ``listeners`` are told about every run that ends here.
        """
        await self._store.write(lambda tx: tx.beat(self.server, at=now()))
        await close_orphans(self._store, self.server)
        self._listeners = list(listeners)
        self._shared = SessionDependencies(
            server_id=self.server.id,
            settings=self.settings,
            idle_after=self._idle_after,
            max_queued_prompts=self._max_queued_prompts,
            store=self._store,
            journal=self._journal,
            slots=self._slots,
            questions=self._questions,
            agent=self._agent,
            recalls=recalls,
            library=self.library,
            gear=self._gear,
            run_ended=self._run_ended,
            limits_of_profile=self._limits_of_profile,
        )
        self._tasks = [
            asyncio.create_task(self._journal.work(), name="navi-journal"),
            *self._upkeep.tasks(),
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
        profile = request.profile or self.settings.default_profile
        session = Session(
            id=new_id("s"),
            owner=owner,
            title=request.title or default_title(request),
            profile=profile,
            model=request.model or self._model_of_profile(profile) or self.settings.default_model,
            notebook_path=request.notebook_path,
            kernel_id=request.kernel_id,
            timezone=request.timezone or "UTC",
            created_at=at,
            updated_at=at,
            allowed_tools=request.allowed_tools or (),
            context=request.context or {},
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
            prompts=await self._store.queued_prompts(session_id),
            approvals=await self._store.open_interrupts(session_id),
            usage=await self._store.of_session(session_id),
        )

    def context_of(self, session: Session) -> ToolContext:
        """What tools would work for in this session, for looking at what there is. Raises NotReady."""
        if self._shared is None:
            raise NotReady("Navi is stopping with this server.")
        return self._shared.tool_context(session, user_id=session.owner, run_id="", origin=USER)

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
        for name in ("title", "profile", "model", "timezone", "allowed_tools", "context"):
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
        await self._owned(session_id, user_id)
        model = getattr(command, "model", None)
        if model is not None:
            self._check_model(model)
        accepted: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        self._actor(session_id).put(Submitted(command, user_id, origin, accepted, tuple(attachments)))
        return await accepted

    async def tell_followers(self, event: Event) -> None:
        """Append an event that belongs to no run to the log of every session that somebody follows here now."""
        draft = Draft(event, run_id=None, origin=SYSTEM, at=now())
        batches = {session_id: [draft] for session_id in self.log.followed()}
        if batches:
            await self._store.write(lambda tx: tx.append_all(batches))

    async def usage_of(self, owner: str, *, since: datetime) -> Usage:
        """What all of a user's runs that were created since then have used up."""
        return await self._store.of_user(owner, since=since)

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
