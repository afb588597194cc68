"""What users do with the list of their sessions: archive, delete and restore, fork, share, search.

Not responsible for a session that is at work (``orchestrator``), nor for titles (``titles``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ...clock import now
from ...errors import InvalidRequest, NaviError, SessionNotFound
from ...log_setup import get_logger
from ...model.agent_options import AgentChoice
from ...model.base import new_id
from ...model.sessions import Session, TitleSource
from ...ports.session_list import SessionActivity, SessionFilter, TextHit, TextIndex
from ...ports.store import RecallsOfSession, SessionStore
from ...ports.transactions import SessionTx
from ...text import truncate
from .forks import fork_of
from .retention import remove_session, set_archived, set_restored

if TYPE_CHECKING:
    from ...model.sessions import Run
    from ..orchestrator import Orchestrator
    from ..session_directory import SessionDirectory
    from .titles import SessionTitles

log = get_logger("session_list")

KEPT_FOR = timedelta(days=7)  # how long a deleted session can be restored
MOST_READERS = 50  # users with whom one session is shared
INDEX_BATCH = 20  # runs that are taken into the search in one transaction
INDEX_PAUSE = 0.05  # seconds between two of these: others have their turn
LOOK_EVERY = 10.0  # seconds between looks for what is new to the search, where nothing says that there is
PURGE_EVERY = 3600.0  # seconds between looks for deleted sessions whose time is over
_FORK = "{title} (fork)"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSession:
    """A session as a list shows it to one user."""

    session: Session
    activity: SessionActivity
    is_own: bool
    hit: TextHit | None = None  # in a search: the newest text that was found in it


class SessionListReader:
    """What is read of the list of a user's sessions, and the search."""

    def __init__(self, store: SessionStore, directory: SessionDirectory) -> None:
        self._store = store
        self._directory = directory

    async def page(
        self,
        user_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        notebook_path: str | None = None,
        show: SessionFilter = SessionFilter.ACTIVE,
    ) -> tuple[Sequence[ListedSession], str | None]:
        """A page of the sessions that the user can see, most recently used first, and the next page's cursor."""
        found, following = await self._store.sessions(
            user_id, limit=limit, cursor=cursor, notebook_path=notebook_path, show=show
        )
        return await self._listed(found, user_id), following

    async def search(
        self, user_id: str, query: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[ListedSession], str | None]:
        """A page of the sessions, archived ones too, in which all words of ``query`` are: the newest find first."""
        hits, following = await self._store.search(user_id, query, limit=limit, cursor=cursor)
        by_session = {hit.session_id: hit for hit in hits}
        return await self._listed(await self._store.sessions_of(by_session), user_id, by_session), following

    async def search_in(
        self, session_id: str, query: str, *, user_id: str, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[TextHit], str | None]:
        """The messages of one session that have all words of ``query``, the newest first."""
        await self._directory.readable(session_id, user_id)
        return await self._store.search(user_id, query, limit=limit, cursor=cursor, session_id=session_id)

    async def is_indexed(self) -> bool:
        """Whether the search knows everything; what has just ended is known a moment later."""
        return await self._store.is_indexed()

    async def _listed(
        self, sessions: Sequence[Session], user_id: str, hits: Mapping[str, TextHit] | None = None
    ) -> Sequence[ListedSession]:
        doing = await self._store.activities(session.id for session in sessions)
        return [
            ListedSession(
                session=session,
                activity=doing.get(session.id, SessionActivity.IDLE),
                is_own=session.owner == user_id,
                hit=None if hits is None else hits.get(session.id),
            )
            for session in sessions
        ]


class SessionListService:
    """See the module. Raises SessionNotFound for what the user has not, SessionReadOnly for what is shared."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        store: SessionStore,
        recalls: RecallsOfSession,
        index: TextIndex,
        titles: SessionTitles,
    ) -> None:
        self._orchestrator = orchestrator
        self._directory = orchestrator.sessions
        self._store = store
        self._recalls = recalls
        self._index = index
        self._titles = titles
        self.reads = SessionListReader(store, orchestrator.sessions)
        self._wake = asyncio.Event()  # set when there may be something new for the search

    async def archive(self, session_id: str, *, owner: str) -> Session:
        """Take it out of the list; its recalls pause. Without effect on one that is archived."""
        await self._directory.owned(session_id, owner)

        async def change(tx: SessionTx) -> Session:
            return await set_archived(tx, session_id, archived=True)

        return await self._recalls.pause_with(session_id, change, owner=owner)

    async def unarchive(self, session_id: str, *, owner: str) -> Session:
        """Back into the list; the recalls that had paused for this resume."""
        await self._directory.owned(session_id, owner)

        async def change(tx: SessionTx) -> Session:
            return await set_archived(tx, session_id, archived=False)

        return await self._recalls.resume_with(session_id, change, owner=owner)

    async def user_wrote(self, session_id: str, *, owner: str) -> None:
        """The user goes on in a session: it is not archived any more."""
        session = await self._store.session(session_id)
        if session is not None and session.archived_at is not None:
            await self.unarchive(session_id, owner=owner)

    async def restore(self, session_id: str, *, owner: str) -> Session:
        """Bring back a session that was deleted, with the recalls that were cancelled for that."""

        async def find(tx: SessionTx) -> Session:
            session = await tx.deleted_session(session_id)
            if session is None or session.owner != owner:
                raise SessionNotFound(f"There is no deleted session {session_id[:100]} that can be restored.")
            return session

        deleted = await self._store.write(find)

        async def change(tx: SessionTx) -> Session:
            return await set_restored(tx, await find(tx))

        restored = await self._recalls.restore_with(session_id, change, since=deleted.deleted_at or now())
        log.info("session_restored", session_id=session_id)
        return restored

    async def fork(
        self, session_id: str, *, owner: str, message_id: str | None = None, title: str | None = None
    ) -> Session:
        """A new session with the conversation up to and including that message; None: all that is over.

        It has no notebook, no recalls and no readers, and asks for everything anew. Raises MessageNotFound,
        LimitReached.
        """
        source = await self._directory.owned(session_id, owner)
        runs = await self._store.finished_runs(session_id)
        at, new = now(), new_id("s")
        fork = await asyncio.to_thread(fork_of, runs, message_id, new)
        session = source.but(
            id=new,
            title=title or _FORK.format(title=truncate(source.title, 190)),
            title_source=TitleSource.USER,
            notebook_path=None,
            notebook_link=None,
            earlier_path=None,
            kernel_id=None,
            created_at=at,
            updated_at=at,
            head_seq=len(fork.frames),
            allowed_tools=(),
            agent_options=AgentChoice(model=source.agent_options.model),  # a mode may be one that asks nothing
            archived_at=None,
        )

        async def unit(tx: SessionTx) -> None:
            await self._directory.add(tx, session)
            await tx.copy_runs(session_id, new, fork.runs, fork.frames)

        await self._store.write(unit, durable=True)
        self._wake.set()
        return session

    async def share(self, session_id: str, user_id: str, *, owner: str) -> Sequence[str]:
        """Let another user of this server read the session; with whom it is shared then. Raises InvalidRequest."""
        await self._directory.owned(session_id, owner)
        if user_id == owner:
            raise InvalidRequest("user: this session is yours already", field="user")
        readers = await self._store.readers(session_id)
        if user_id not in readers and len(readers) >= MOST_READERS:
            raise InvalidRequest(f"user: a session is shared with {MOST_READERS} users at most", field="user")

        async def unit(tx: SessionTx) -> None:
            await tx.share(session_id, user_id, at=now())

        await self._store.write(unit, durable=True)
        log.info("session_shared", session_id=session_id, reader=user_id)
        return await self._store.readers(session_id)

    async def unshare(self, session_id: str, user_id: str, *, owner: str) -> Sequence[str]:
        """Take that back; who follows the session is disconnected, and comes back if that may be."""
        await self._directory.owned(session_id, owner)

        async def unit(tx: SessionTx) -> bool:
            return await tx.unshare(session_id, user_id)

        if await self._store.write(unit, durable=True):
            log.info("session_unshared", session_id=session_id, reader=user_id)
        return await self._store.readers(session_id)

    async def run_ended(self, run: Run) -> None:
        """A run is over: its session may get a title, and the search gets its texts."""
        self._titles.run_ended(run.session_id)
        self._wake.set()

    async def work(self) -> None:
        """Keep the search, give titles, remove what was deleted long ago. Goes on until it is cancelled."""
        await asyncio.gather(self._keep_index(), self._titles.work(), self._purge_forever())

    async def _keep_index(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._index_all()
            except NaviError as error:
                log.warning("search_not_kept", error=error.message)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _index_all(self) -> None:
        taken = await self._index.take_in(limit=INDEX_BATCH)
        while taken:
            await asyncio.sleep(INDEX_PAUSE)
            taken = await self._index.take_in(limit=INDEX_BATCH)

    async def _purge_forever(self) -> None:
        while True:
            try:
                await self.purge()
            except NaviError as error:
                log.warning("sessions_not_purged", error=error.message)
            await asyncio.sleep(PURGE_EVERY)

    async def purge(self) -> int:
        """Remove for good what was deleted longer ago than ``KEPT_FOR``; how many sessions."""
        removed, before = 0, now() - KEPT_FOR
        while found := await self._store.deleted_before(before, limit=1):
            for session_id in found:

                async def begin(tx: SessionTx, gone: str = session_id) -> bool:
                    return await tx.begin_removal(gone, deleted_before=before)

                if await self._store.write(begin):  # else it was restored a moment ago
                    await remove_session(self._store, session_id)
                    removed += 1
        return removed
