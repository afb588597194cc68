"""The state of a session: as events for a follower without a cursor, and as messages for tools, REST and exports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..errors import SessionNotFound
from ..events import Custom, Draft, Event, MessagesSnapshot, RunStarted
from ..model.runs import InterruptStatus
from ..model.sessions import SYSTEM, Run, RunStatus, Session
from ..ports.agent import Message
from ..ports.store import SessionSnapshot, SessionStore, TranscriptSlice
from .run_endings import interrupt_event, pause_event
from .transcript import ACTIVITY, fold_frames

PRELUDE_MESSAGES = 150
"""Messages of finished runs that a follower gets at first: several screens. It reads earlier ones itself."""


def snapshot_events(snapshot: SessionSnapshot, at: datetime, *, since: int | None = None) -> list[Draft]:
    """The events that show the session as it is at ``snapshot.head_seq``.

    With ``since``, ``navi.gap`` comes first: what the follower asked for is not kept event by event.
    """
    session_id = snapshot.session.id
    drafts: list[Draft] = []

    def add(event: Event, run_id: str | None = None) -> None:
        drafts.append(Draft(event, run_id=run_id, origin=SYSTEM, at=at))

    if since is not None:
        value = {"since": since, "min_seq": snapshot.head_seq, "head_seq": snapshot.head_seq}
        add(Custom(name="navi.gap", value=value))
    fold = fold_frames(snapshot.frames)
    complete, reopened = fold.reopening_events(snapshot.active.id if snapshot.active else None)
    queued = {run.id for run in snapshot.queued}
    messages = [agui_message(message) for message in snapshot.finished]
    messages += [agui_message(message) for message in complete if message.run_id not in queued]
    messages += [{**agui_message(message), "queued": True} for message in complete if message.run_id in queued]
    add(MessagesSnapshot(messages=tuple(messages), earlier=snapshot.earlier))
    if snapshot.active is not None:
        run = snapshot.active
        drafts.append(Draft(RunStarted(thread_id=session_id, run_id=run.id), run_id=run.id, origin=run.origin, at=at))
        drafts += [Draft(event, run_id=run.id, origin=run.origin, at=at) for event in reopened]
    for question in snapshot.interrupts:
        if question.status is InterruptStatus.OPEN:
            add(interrupt_event("opened", question), question.run_id)
    if snapshot.active is not None and snapshot.active.status is RunStatus.WAITING:
        run = snapshot.active
        asked = [question for question in snapshot.interrupts if question.run_id == run.id and question.durable]
        drafts.append(Draft(pause_event(run, asked), run_id=run.id, origin=run.origin, at=at))
    if snapshot.agent_offer is not None:
        add(Custom(name="navi.agent_options", value=snapshot.agent_offer.wire()))
    for recall in snapshot.recalls:
        add(Custom(name="navi.recall", value={"action": "created", "status": recall.status, "recall": recall.wire()}))
    return drafts


def agui_message(message: Message) -> dict[str, Any]:
    """A message as in ``MESSAGES_SNAPSHOT``: AG-UI's, with ``runId`` and ``origin`` beside."""
    if message.role == ACTIVITY:
        return {"id": message.id, "role": ACTIVITY, "runId": message.run_id, **json.loads(message.content)}
    body: dict[str, Any] = {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "runId": message.run_id,
        "origin": message.origin.model_dump(mode="json"),
        "timestamp": message.at,
    }
    if message.tool_calls:
        body["toolCalls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.args}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["toolCallId"] = message.tool_call_id
    if message.reasoning:
        body["reasoning"] = message.reasoning
    if message.subagent_run_id is not None:
        body["subagentRunId"] = message.subagent_run_id
    if message.attachments:
        body["attachments"] = list(message.attachments)
    if message.notebook is not None:
        body["notebook"] = message.notebook
    if message.queued:
        body["queued"] = True
    if message.partial:
        body["partial"] = True
    return body


class TranscriptHistory:
    """Implements :class:`navi_jupyter.ports.SessionHistory`."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def session(self, session_id: str) -> Session | None:
        """The session as it is now; None when it was deleted."""
        return await self._store.session(session_id)

    async def messages(self, session_id: str) -> Sequence[Message]:
        """All messages, the run in progress included, then the prompts that wait."""
        snapshot = await self._store.snapshot(session_id)
        if snapshot is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        return await asyncio.to_thread(conversation, snapshot)

    async def page(self, session_id: str, *, before: str | None, limit: int) -> TranscriptSlice:
        """A page of the conversation of finished runs, which goes back in time. Raises InvalidRequest."""
        return await self._store.transcript(session_id, before=before, limit=limit)

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
