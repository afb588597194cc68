"""The sessions of all users: created, changed, listed, and read with their runs and conversation.

Raises SessionNotFound also for other people's sessions. Not responsible for what happens in a live one
(``session_actor``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..clock import find_zone, now, zone_or_utc
from ..errors import InvalidRequest, LimitReached, RunNotFound, SessionNotFound, SessionReadOnly
from ..events import Draft, session_event
from ..model.agent_options import NOTHING_CHOSEN, AgentOffer
from ..model.base import new_id
from ..model.runs import Interrupt
from ..model.sessions import SYSTEM, USER, Run, Session, SessionCreate, SessionPatch, TitleSource, Usage, ZoneSource
from ..ports.agent import Message
from ..ports.jupyter import NO_CELL, NotebookLink, NotebookMark
from ..ports.store import SessionStore
from ..ports.tracing import caller_server
from ..ports.transactions import QueuedPrompt, SessionTx
from ..ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from ..settings import Settings
from .snapshot import TranscriptHistory

_NEVER_NULL = ("title", "profile", "model", "timezone", "timezone_source", "allowed_tools", "context", "agent_options")


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionView:
    """A session with its open runs, prompts and questions."""

    session: Session
    head_seq: int
    run: Run | None
    queue: Sequence[Run]
    prompts: Sequence[QueuedPrompt]  # the queue again, each with its prompts
    approvals: Sequence[Interrupt]  # PendingInterrupts that are open
    usage: Usage  # of all the session's runs
    agent_offer: AgentOffer | None


def accept_any(name: str, configuration: UserConfiguration = NOTHING_CONFIGURED) -> None:
    """Accepts every model or profile: the run itself fails with the reason."""


def no_model(profile: str, configuration: UserConfiguration) -> str | None:  # noqa: ARG001
    """Profiles name no models."""
    return None


class SessionDirectory:
    def __init__(
        self,
        store: SessionStore,
        settings: Settings,
        *,
        check_model: Callable[[str], object] = accept_any,
        check_profile: Callable[[str, UserConfiguration], object] = accept_any,
        model_of_profile: Callable[[str, UserConfiguration], str | None] = no_model,
        model_of_owner: Callable[[str], Awaitable[str]] | None = None,
        configuration_of: Callable[[str], Awaitable[UserConfiguration]] | None = None,
    ) -> None:
        """``model_of_owner``: the model of a user's new sessions whose profile names none; None: the default one."""
        self.history = TranscriptHistory(store)
        self._store = store
        self._settings = settings
        self._check_model = check_model
        self._check_profile = check_profile
        self._model_of_profile = model_of_profile
        self._model_of_owner = model_of_owner
        self._configuration_of = configuration_of

    async def create(self, request: SessionCreate, *, owner: str, session_id: str | None = None) -> Session:
        """A new session. ``session_id``: one that only this owner can have made; where there is such a session already,
        that one is returned, and SessionNotFound is raised for one that was deleted. Raises LimitReached,
        InvalidRequest."""
        configuration = NOTHING_CONFIGURED if self._configuration_of is None else await self._configuration_of(owner)
        self._check(request, configuration)
        at = now()
        profile = request.profile or self._settings.default_profile
        session = Session(
            id=session_id or new_id("s"),
            owner=owner,
            title=request.title or default_title(request),
            profile=profile,
            model=request.model or self._model_of_profile(profile, configuration) or await self._usual_model(owner),
            notebook_path=request.notebook_path,
            kernel_id=request.kernel_id,
            server=caller_server.get(),
            timezone=request.timezone or "UTC",
            timezone_source=request.timezone_source or (ZoneSource.KERNEL if request.timezone else ZoneSource.DEFAULT),
            created_at=at,
            updated_at=at,
            allowed_tools=request.allowed_tools or (),
            context=request.context or {},
            agent_options=request.agent_options or NOTHING_CHOSEN,
            title_source=TitleSource.USER if request.title else TitleSource.DEFAULT,
        )

        async def unit(tx: SessionTx) -> Session:
            if session_id is not None:
                if await tx.deleted_session(session_id) is not None:
                    raise SessionNotFound(f"The session {session_id} was deleted. Restore it, or begin another one.")
                if (known := await tx.session(session_id)) is not None:
                    return known
            await self.add(tx, session)
            return session

        return await self._store.write(unit, durable=True)

    async def add(self, tx: SessionTx, session: Session) -> None:
        """Store a new session. Raises LimitReached."""
        limit = self._settings.max_sessions_per_user
        if await tx.count_sessions(session.owner) >= limit:
            raise LimitReached(f"You have {limit} sessions, the most this server allows. Delete one first.")
        await tx.add_session(session)

    async def change(self, session_id: str, patch: SessionPatch, *, owner: str) -> Session:
        """Change the fields that the patch has; followers read of it. Raises SessionNotFound, InvalidRequest."""
        before = await self.owned(session_id, owner)
        configuration = NOTHING_CONFIGURED
        if patch.profile is not None and self._configuration_of is not None:
            configuration = await self._configuration_of(owner)
        self._check(patch, configuration)
        changes = patch.model_dump(exclude_unset=True)
        for name in _NEVER_NULL:
            if name in changes and changes[name] is None:
                raise InvalidRequest(f"{name}: cannot be null", field=name)
        if "timezone" in changes:
            changes.setdefault("timezone_source", ZoneSource.CHOSEN)
        if changes.get("model", before.model) != before.model:
            changes.setdefault("agent_options", {})  # they are those of the agent program that it had
        if "title" in changes:
            changes["title_source"] = TitleSource.USER

        async def unit(tx: SessionTx) -> Session:
            if changes:
                at = now()
                await tx.change_session(session_id, {**changes, "updated_at": at})
            session = await tx.session(session_id)
            if session is None:
                raise SessionNotFound(f"There is no session {session_id[:100]}.")
            if changes:
                event = session_event(session, changes)
                await tx.append(session_id, [Draft(event, run_id=None, origin=USER, at=at)])
            return session

        return await self._store.write(unit, durable=True)

    async def view(self, session_id: str, *, owner: str) -> SessionView:
        """A session with its open runs, prompts and questions."""
        session = await self.readable(session_id, owner)
        runs = await self._store.open_runs(session_id)
        return SessionView(
            session=session,
            head_seq=session.head_seq,
            run=next((run for run in runs if run.status.active), None),
            queue=[run for run in runs if not run.status.active],
            prompts=await self._store.queued_prompts(session_id),
            approvals=await self._store.open_interrupts(session_id),
            usage=await self._store.of_session(session_id),
            agent_offer=await self._store.agent_offer(session_id),
        )

    async def runs(
        self, session_id: str, *, owner: str, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[Run], str | None]:
        """A page of the session's runs, newest first."""
        await self.readable(session_id, owner)
        return await self._store.runs(session_id, limit=limit, cursor=cursor)

    async def run(self, session_id: str, run_id: str, *, owner: str) -> Run:
        """One run. Raises SessionNotFound, RunNotFound."""
        await self.readable(session_id, owner)
        run = await self._store.run(run_id)
        if run is None or run.session_id != session_id:
            raise RunNotFound(f"There is no run {run_id[:100]} in this session.")
        return run

    async def messages(self, session_id: str, *, owner: str) -> Sequence[Message]:
        """The conversation so far. Raises SessionNotFound."""
        await self.readable(session_id, owner)
        return await self.history.messages(session_id)

    async def questions(
        self, session_id: str, *, owner: str, settled_of: Iterable[str] | None = None
    ) -> Sequence[Interrupt]:
        """The questions to the user, oldest first: all, or the settled ones of these runs. Raises SessionNotFound."""
        await self.readable(session_id, owner)
        return await self._store.session_interrupts(session_id, settled_of=settled_of)

    async def usage_of(self, owner: str, *, since: datetime) -> Usage:
        """The usage of all of a user's runs that were created since then."""
        return await self._store.of_user(owner, since=since)

    async def owned(self, session_id: str, owner: str) -> Session:
        """The session alone. Raises SessionNotFound; SessionReadOnly where the user may read it."""
        session = await self._store.session(session_id)
        if session is not None and session.owner == owner:
            return session
        if session is not None and await self._store.is_shared(session_id, owner):
            raise SessionReadOnly(f"This session is shared with you by {session.owner}, to read and nothing else.")
        raise SessionNotFound(f"There is no session {session_id[:100]}.")

    async def readable(self, session_id: str, user_id: str) -> Session:
        """The session alone, the user's own or one that is shared with the user. Raises SessionNotFound."""
        session = await self._store.session(session_id)
        if session is not None and (session.owner == user_id or await self._store.is_shared(session_id, user_id)):
            return session
        raise SessionNotFound(f"There is no session {session_id[:100]}.")

    async def _usual_model(self, owner: str) -> str:
        return self._settings.default_model if self._model_of_owner is None else await self._model_of_owner(owner)

    def _check(self, request: SessionCreate, configuration: UserConfiguration) -> None:
        if request.model is not None:
            self._check_model(request.model)
        if request.profile is not None:
            self._check_profile(request.profile, configuration)
        if request.timezone is not None and find_zone(request.timezone) is None:
            message = f"timezone: {request.timezone!r} is not a known time zone; use a name like Europe/Berlin"
            raise InvalidRequest(message, field="timezone")


def default_title(request: SessionCreate) -> str:
    """The title of a session that was given none."""
    if request.notebook_path:
        return request.notebook_path.rsplit("/", 1)[-1].removesuffix(".ipynb")[:200] or "Session"
    return f"Session of {now().astimezone(zone_or_utc(request.timezone or 'UTC')):%Y-%m-%d %H:%M}"


class SessionLinks:
    """The links of sessions to notebooks, as what happens to notebooks changes them.

    Implements ``ports.jupyter.LinkStore``. A change of a path is an event of the session.
    """

    def __init__(
        self, store: SessionStore, follow_watches: Callable[[str, str, str | None, str | None], Awaitable[None]]
    ) -> None:
        """``follow_watches``: awaited with the old and new path, and the session and the owner (None: all) whose
        recalls follow."""
        self._store = store
        self._follow_watches = follow_watches
        self.link = store.link
        self.links_now = store.links_now

    async def follow(self, source: str, target: str, *, owner: str | None = None) -> None:
        """``owner``: only that user's sessions and recalls, where each user has files of their own."""

        async def unit(tx: SessionTx) -> None:
            for link in await tx.links_below(source, owner=owner):
                path = target + (link.path or "").removeprefix(source)
                await _change_link(tx, link.session_id, {"notebook_path": path})

        await self._store.write(unit, durable=True)
        await self._follow_watches(source, target, None, owner)

    async def relocate(self, session_id: str, path: str) -> None:
        async def unit(tx: SessionTx) -> str | None:
            session = await tx.session(session_id)
            before = None if session is None else session.notebook_path
            if before is not None and before != path:
                await _change_link(tx, session_id, {"notebook_path": path})
            return before

        before = await self._store.write(unit, durable=True)
        if before is not None and before != path:
            await self._follow_watches(before, path, session_id, None)

    async def forget(self, path: str, *, owner: str | None = None) -> None:
        """``owner``: as for :meth:`follow`."""

        async def unit(tx: SessionTx) -> None:
            for link in await tx.links_below(path, owner=owner):
                if link.state == "linked":
                    # It may come back, and is known by its id then; a new one at its path is not it.
                    await tx.change_session(link.session_id, {"fingerprint": NO_CELL})
                else:
                    ended = {"notebook_path": None, "notebook_link": None, "kernel_id": None}
                    await _change_link(tx, link.session_id, {**ended, "earlier_path": link.path})

        await self._store.write(unit, durable=True)

    async def saved(self, path: str, mark: NotebookMark) -> None:
        known = [link for link in self.links_now(path, None) if not _is_saved(link, mark)]
        if not known:
            return

        async def unit(tx: SessionTx) -> None:
            for link in await tx.links_below(path):
                if link.path != path or link not in known:
                    continue
                if mark.id == link.session_id:
                    changes = {"notebook_link": "linked", "fingerprint": mark.fingerprint}
                    await _change_link(tx, link.session_id, changes, announce=link.state != "linked")
                elif (mark.id is None or link.state == "earlier") and link.shares_cell(mark):
                    # Saved without the id, by a program that drops it: it is known by its cells until it has it again.
                    lost = link.state == "linked" and mark.id is None
                    changes = {"fingerprint": mark.fingerprint} | ({"notebook_link": "pending"} if lost else {})
                    await tx.change_session(link.session_id, changes)

        await self._store.write(unit)


def _is_saved(link: NotebookLink, mark: NotebookMark) -> bool:
    """Whether the save changes nothing about the link."""
    if mark.id == link.session_id:
        return link.state == "linked" and link.fingerprint == mark.fingerprint
    if not link.shares_cell(mark) or (mark.id is not None and link.state != "earlier"):
        return True
    return link.fingerprint == mark.fingerprint and (link.state != "linked" or mark.id is not None)


async def _change_link(tx: SessionTx, session_id: str, changes: dict[str, Any], *, announce: bool = True) -> None:
    at = now()
    await tx.change_session(session_id, changes)
    session = await tx.session(session_id) if announce else None
    if session is not None:
        event = session_event(session, ["notebook_path"])
        await tx.append(session_id, [Draft(event, run_id=None, origin=SYSTEM, at=at)])
