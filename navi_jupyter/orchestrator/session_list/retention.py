"""Sessions that leave the list, and come back: archived, deleted, restored, removed for good. Each in a transaction,
but for the removal.

What can be restored is whole: its run is ended as one that was stopped, its questions are withdrawn, its waiting
prompts are taken out of the queue. Not responsible for its recalls (``scheduling``) or for what works in memory
(``orchestrator``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...clock import now
from ...errors import SessionNotFound
from ...events import Draft, session_event
from ...model.sessions import USER, NotebookLinkState, RunStatus, Session
from ...ports.store import SessionStore
from ...ports.transactions import SessionTx
from ..prompts import queue_event
from ..run_endings import Ending, close_run
from ..transcript import fold_frames
from ..upkeep.compaction import give_way


async def set_removed(tx: SessionTx, session_id: str) -> None:
    """As :func:`set_deleted`, with no way back. Its rows are then removed by :func:`remove_session`."""
    await set_deleted(tx, session_id)
    await tx.begin_removal(session_id)


async def remove_session(store: SessionStore, session_id: str) -> None:
    """Remove what :meth:`SessionTx.begin_removal` has marked, a piece at a time: others write in between. Killed within
    it, it goes on at the next look for deleted sessions, of any server."""

    async def piece(tx: SessionTx) -> bool:
        if await tx.remove_piece(session_id):
            return True
        await tx.delete_session(session_id)
        return False

    while await give_way(store, piece):
        pass


async def set_deleted(tx: SessionTx, session_id: str) -> None:
    """End what is open in it, and mark it. From then on there is no such session for anything but its way back."""
    at = now()
    for queued in await tx.queued_prompts(session_id):
        await tx.end_run(queued.run.id, status=RunStatus.STOPPED, at=at)
        events = [queue_event("cancelled", part.command_id, queued.run.id) for part in queued.parts]
        drafts = [Draft(event, run_id=queued.run.id, origin=queued.run.origin, at=at) for event in events]
        await tx.append(session_id, drafts)
    active = await tx.active_run(session_id)
    if active is not None:
        fold = fold_frames(await tx.run_frames(session_id, active.id))
        await close_run(tx, active, Ending(RunStatus.STOPPED), fold)
    await tx.change_session(session_id, {"deleted_at": at})


async def set_restored(tx: SessionTx, session: Session) -> Session:
    """Back from deletion, as it is then. Its notebook may have another session by now, and keeps that one."""
    changes: dict[str, object] = {"deleted_at": None}
    if session.notebook_path is not None and await _has_other(tx, session):
        changes["notebook_link"] = NotebookLinkState.EARLIER
    await tx.change_session(session.id, changes)
    restored = await _read(tx, session.id)
    await _announce(tx, restored, ["deleted_at"])
    return restored


async def set_archived(tx: SessionTx, session_id: str, *, archived: bool) -> Session:
    """Out of the list, or into it again; as it is then."""
    session = await _read(tx, session_id)
    if (session.archived_at is not None) is archived:
        return session
    changed = session.but(archived_at=now() if archived else None)
    await tx.change_session(session_id, {"archived_at": changed.archived_at})
    await _announce(tx, changed, ["archived_at"])
    return changed


async def _announce(tx: SessionTx, session: Session, changed: Sequence[str]) -> None:
    event = session_event(session, changed)
    await tx.append(session.id, [Draft(event, run_id=None, origin=USER, at=now())])


async def _has_other(tx: SessionTx, session: Session) -> bool:
    """Whether its notebook has another session now."""
    links = await tx.links_below(session.notebook_path or "", owner=session.owner)
    return any(
        link.session_id != session.id
        and link.owner == session.owner
        and link.path == session.notebook_path
        and link.state != "earlier"
        for link in links
    )


async def _read(tx: SessionTx, session_id: str) -> Session:
    session = await tx.session(session_id)
    if session is None:
        raise SessionNotFound(f"There is no session {session_id[:100]}.")
    return session
