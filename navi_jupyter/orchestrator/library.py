"""The conversation as tools, REST and exports read it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ..errors import SessionNotFound
from ..model.sessions import Run
from ..ports.agent import Message
from ..ports.store import SessionSnapshot, SessionStore
from .transcript import ACTIVITY, fold_frames


class TranscriptHistory:
    """Implements :class:`navi_jupyter.ports.SessionHistory`."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def messages(self, session_id: str) -> Sequence[Message]:
        """Everything that was said, the run in progress included, then the prompts that wait."""
        snapshot = await self._store.snapshot(session_id)
        if snapshot is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        return await asyncio.to_thread(conversation, snapshot)

    async def runs(self, session_id: str, *, limit: int = 50) -> Sequence[Run]:
        """Newest first."""
        runs, _ = await self._store.runs(session_id, limit=limit)
        return runs


def conversation(snapshot: SessionSnapshot) -> list[Message]:
    """A snapshot folded: finished runs, the present one, waiting prompts."""
    queued = {run.id for run in snapshot.queued}
    present = fold_frames(snapshot.frames).messages()
    messages = [message for message in snapshot.finished if message.role != ACTIVITY]
    messages += [message for message in present if message.run_id not in queued]
    messages += [replace(message, queued=True) for message in present if message.run_id in queued]
    return messages
