"""AG-UI: a run's input as prompt and answers of a session, and the session's log as the run's stream.

The stream is a view: a client that goes away stops nothing, and one that comes back, or another one, joins what is in
progress. Not responsible for how events are shown (``agui.run_stream``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count

from ...agent.tools.client_tools import CLIENT
from ...commands import Acceptance, Answer
from ...errors import (
    AttachmentRefused,
    InterruptNotFound,
    LimitReached,
    ModelUnavailable,
    NaviError,
    SessionBusy,
    SessionNotFound,
    SessionReadOnly,
)
from ...log_setup import get_logger
from ...model.runs import Interrupt, InterruptKind, InterruptStatus
from ...model.sessions import Run, RunStatus, Session, SessionCreate, SessionPatch
from ...orchestrator.snapshot import PRELUDE_MESSAGES, agui_message, conversation
from ...ports.store import SessionSnapshot
from ..agui.run_stream import Event, RunStream
from ..agui.thread import NewMessages, PromptOfMessages, command_id, names_session, new_messages, session_id_of
from ..http import EventStream
from ..wire.agui import AguiResume, RunAgentInput
from .conversations import EVENT_STREAM
from .routing import Call, OperationTable

TABLE = OperationTable()

log = get_logger("server")


@TABLE.add(
    "POST agui",
    "execute",
    body="RunAgentInput",
    upload=True,
    errors=(SessionNotFound, SessionReadOnly, SessionBusy, LimitReached, ModelUnavailable, AttachmentRefused),
    other_types=(EVENT_STREAM,),
)
async def run_agent(call: Call) -> EventStream:
    """Prompt, answer or join a session by AG-UI 1.0: its events until the run ends or asks, as a stream."""
    body: RunAgentInput = call.body()
    thread = _Thread(call, body)
    await thread.open()
    if thread.session is not None:
        try:
            await thread.submit()
        except NaviError:
            await thread.unmake()
            raise
    return EventStream(thread.pages())


@dataclass(slots=True)
class _Thread:
    """One request: the session that it is for, what it has asked of it, and where its stream begins."""

    call: Call
    body: RunAgentInput
    session: Session | None = None
    new: NewMessages = field(default_factory=NewMessages)
    after: int | None = None  # where the stream begins; None: with the snapshot
    target: str | None = None  # the run whose end it awaits
    command: str | None = None  # the prompt that the run answers
    resumed: Run | None = None  # the run that goes on by an answer of the input, as it was before
    made: bool = False  # whether the session is new
    left_out: list[str] = field(default_factory=list)
    shown: Sequence[Event] = ()  # messages that the client lacks, for a stream that begins without a snapshot

    async def open(self) -> None:
        """Find the thread's session; make it where there is none and the input has a prompt for it.

        Raises SessionNotFound, also for a session of somebody else, SessionReadOnly, LimitReached, ModelUnavailable.
        """
        directory, owner, props = self.call.sessions.directory, self.call.owner, self.body.forwarded_props
        session_id = session_id_of(self.body.thread_id, owner)
        try:
            self.session = await directory.owned(session_id, owner)
        except SessionReadOnly:
            raise
        except SessionNotFound:
            if names_session(self.body.thread_id):
                raise
            if not new_messages(self.body, {}).fresh:
                return  # there is nothing to show, and nothing to ask
            request = SessionCreate(profile=props.profile, model=props.model, timezone=props.timezone)
            self.session = await directory.create(request, owner=owner, session_id=session_id)
            self.made = True

    async def submit(self) -> None:
        """Answer what the input answers, and send its prompt. Raises any NaviError; nothing is streamed then."""
        session = self._session
        before = await self.call.sessions.store.snapshot(session.id, last=PRELUDE_MESSAGES)
        if before is None:
            raise SessionNotFound(f"There is no session {session.id}.")
        known = {message.id: message for message in await asyncio.to_thread(conversation, before)}
        self.new = new_messages(self.body, known)
        answered, left = await self._answer(before)
        if self.new.fresh:
            await self._prompt(before, steers=bool(answered) and not left)
        else:
            run = await self._run_of_last_message()
            self.target = None if run is None else run.id
            if before.active is not None and (run is None or run.status is not RunStatus.QUEUED):
                # What is in progress, also where the client's last message was answered before it.
                self.target = before.active.id
            if answered and not left and before.active is not None and before.active.status is RunStatus.WAITING:
                self.after = answered[0].seq  # nothing is open in a run that waits, so it goes on without a snapshot
        if answered and before.active is not None:
            self.resumed = before.active

    async def unmake(self) -> None:
        """Remove a session that was made for a prompt which was refused, if nothing has come into it."""
        if not self.made:
            return
        found = await self.call.sessions.store.session(self._session.id)
        if found is not None and found.head_seq == self._session.head_seq:
            await self.call.sessions.orchestrator.delete_session(found.id, owner=self.call.owner, forever=True)

    @property
    def _session(self) -> Session:
        if self.session is None:
            raise TypeError("the thread has no session")
        return self.session

    async def _answer(self, before: SessionSnapshot) -> tuple[list[Acceptance], list[Interrupt]]:
        """Answer open questions: by ``resume``, and the calls of the client's own tools by their results.

        The acceptances, and the questions that are still open. Raises InvalidRequest for a payload that a question does
        not take.
        """
        entries = {entry.interrupt_id: entry for entry in self.body.resume or ()}
        results = {one.tool_call_id: one for one in self.body.messages if one.role == "tool"}
        questions = [one for one in before.interrupts if one.status is InterruptStatus.OPEN]
        unanswered = [one for one in questions if one.source != CLIENT and one.id not in entries]
        answers, left = list[Answer](), list[Interrupt]()
        for question in questions:
            name = command_id(self.body.run_id, question.id)
            if (entry := entries.pop(question.id, None)) is not None:
                answers.append(_answer_of(entry, question, name))
            elif question.source == CLIENT and (result := results.get(question.tool_call_id)) is not None:
                content = {"content": result.text} | ({"error": result.error} if result.error else {})
                answers.append(Answer(command_id=name, interrupt_id=question.id, status="resolved", payload=content))
            elif question.source == CLIENT and self.new.fresh and not unanswered:
                # Its client goes on without the result, so there will be none.
                answers.append(Answer(command_id=name, interrupt_id=question.id, status="cancelled"))
            else:
                left.append(question)
        self.left_out += [f"the answer to {name}: it is not open" for name in entries]
        accepted: list[Acceptance] = []
        for answer in answers:
            try:
                accepted.append(
                    await self.call.sessions.submit(
                        self._session.id, answer, owner=self.call.owner, kernel=self.call.request.kernel
                    )
                )
            except InterruptNotFound:
                self.left_out.append(f"the answer to {answer.interrupt_id}: it was answered meanwhile")
        return accepted, left

    async def _prompt(self, before: SessionSnapshot, *, steers: bool) -> None:
        """Send the new messages as a prompt. Where nothing is in its way the stream begins behind it."""
        session, props = self._session, self.body.forwarded_props
        if props.profile is not None and props.profile != session.profile:
            patch = SessionPatch(profile=props.profile)
            await self.call.sessions.directory.change(session.id, patch, owner=self.call.owner)
        made = PromptOfMessages(self.body, self.new)
        prompt = made.prompt(props.mode or ("steer" if steers else "enqueue"))
        self.left_out += made.left_out
        accepted = await self.call.sessions.submit(
            session.id, prompt, owner=self.call.owner, kernel=self.call.request.kernel
        )
        self.target, self.command = accepted.run_id, accepted.command_id
        if before.active is not None or before.queued:
            return
        self.after = accepted.seq
        finished = [agui_message(message) for message in before.finished]
        client = self._stream.client
        if client.lacks_any(finished):
            newest = [
                {"id": prompt.command_id, "role": "user", "content": prompt.text}
                if command_id(self.new.fresh[-1].id) != prompt.command_id
                else self.new.fresh[-1].model_dump(mode="json", by_alias=True, exclude_unset=True)
            ]
            self.shown = client.merged([*finished, *newest])

    @property
    def _stream(self) -> RunStream:
        session_id = None if self.session is None else self.session.id
        return RunStream(
            self.body, session_id=session_id, target=self.target, command_id=self.command, resumed=self.resumed
        )

    async def _run_of_last_message(self) -> Run | None:
        """The run that answers the client's last message; None where the session does not know it."""
        name = self.new.last
        if name is None:
            return None
        session_id = self._session.id
        accepted = await self.call.sessions.store.write(lambda tx: tx.acceptance(session_id, name))
        if accepted is None or accepted.run_id is None:
            return None
        self.command = name
        return await self.call.sessions.store.run(accepted.run_id)

    async def pages(self) -> AsyncGenerator[Sequence[tuple[int, str]]]:
        """The stream: pages of events, each with a number, which AG-UI's clients do not read."""
        numbers, stream = count(1), self._stream

        def page(events: Sequence[Event]) -> Sequence[tuple[int, str]]:
            return [(next(numbers), json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in events]

        events = stream.begin(self.left_out)
        if self.shown:
            events.append({"type": "MESSAGES_SNAPSHOT", "messages": list(self.shown)})
        yield page(events)
        try:
            if self.session is None:
                yield page(stream.finish(None))
                return
            async for events in self._followed(stream, self.session.id):
                yield page(events)
            if not stream.over:
                message = "The stream ended before the run did: send the same input again to join it."
                yield page(stream.fail(message, "stream_ended"))
        except NaviError as error:
            yield page(stream.fail(error.message, error.code))
        except Exception:
            log.exception("agui_stream_broke", session_id=self._session.id)
            yield page(stream.fail("Something went wrong inside Navi.", "internal_error"))

    async def _followed(self, stream: RunStream, session_id: str) -> AsyncGenerator[list[Event]]:
        orchestrator, joins = self.call.sessions.orchestrator, self.after is None
        async with aclosing(orchestrator.follow(session_id, after=self.after, owner=self.call.owner)) as pages:
            async for found in pages:
                events = stream.translate(json.loads(text) for _, text in found.envelopes)
                if joins and not stream.over:
                    events += await self._joined(stream, session_id)
                joins = False
                if events:
                    yield events
                if stream.over:
                    return

    async def _joined(self, stream: RunStream, session_id: str) -> list[Event]:
        """The end at once where the run that the client asks for has no end to come: it is over already, or waits."""
        store = self.call.sessions.store
        run: Run | None = None
        while stream.target is not None and stream.target != stream.active and stream.target not in stream.queued:
            run = await store.run(stream.target)
            if run is None or run.merged_into is None:
                break
            stream.target = run.merged_into
        else:
            if stream.target is not None:
                return []
        if run is not None and not run.status.final and run.status is not RunStatus.WAITING:
            return []  # it has begun since the snapshot was made
        questions = await store.open_interrupts(session_id)
        return stream.finish(run, [one.wire() for one in questions])


def _answer_of(entry: AguiResume, question: Interrupt, name: str) -> Answer:
    """The command for one entry of ``resume``. For an approval a bare ``true`` or ``false`` will do; ``option`` in its
    payload names one of those that the question offers."""
    payload, option = entry.payload, None
    if question.kind is InterruptKind.APPROVAL and isinstance(payload, bool):
        payload = {"approved": payload}
    if question.options and isinstance(payload, dict) and isinstance(payload.get("option"), str):
        option = payload["option"] or None
        payload = {key: one for key, one in payload.items() if key != "option"} or None
    return Answer(
        command_id=name,
        interrupt_id=question.id,
        status="resolved" if entry.status == "resolved" else "cancelled",
        payload=payload if entry.status == "resolved" else None,
        option=option if entry.status == "resolved" else None,
    )
