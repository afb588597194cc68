"""PendingInterrupts to the user: made from what a run asks, checked against what is answered, waited for.

A question that a run pauses for waits in the database (``run_endings.pause_run``); one that is asked from within a run
waits here, in memory (``durable`` is False in its row). Not responsible for who may answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from ..clock import now
from ..commands import Answer
from ..errors import InvalidRequest
from ..events import Draft
from ..input.json_schema import check
from ..log_setup import get_logger
from ..model.base import new_id
from ..model.runs import Approval, Interrupt, InterruptKind, InterruptStatus
from ..model.sessions import SYSTEM, OriginKind, Run
from ..ports.agent import Ask
from ..ports.store import SessionStore
from ..ports.transactions import SessionTx
from .event_writer import EventWriter
from .run_endings import close_run, interrupt_event, unanswered
from .transcript import fold_frames

log = get_logger("orchestrator")

RECALL_PATIENCE = 60.0  # seconds for which a recall's run waits for its user, who may have left the view open and gone


def opened(ask: Ask, run: Run, at: datetime, *, approval_timeout: float, durable: bool) -> Interrupt:
    """The open question for what a run asks."""
    if run.origin.kind is OriginKind.RECALL and not ask.waits:
        approval_timeout = min(approval_timeout, RECALL_PATIENCE)
    return Interrupt(
        id=new_id("i"),
        session_id=run.session_id,
        run_id=run.id,
        kind=ask.kind,
        message=ask.message,
        tool_call_id=ask.tool_call_id,
        tool=ask.tool,
        args=ask.args,
        source=ask.source,
        details=ask.details,
        fingerprint=ask.fingerprint,
        response_schema=ask.response_schema,
        options=ask.options,
        subagent_run_id=ask.subagent_run_id,
        durable=durable,
        created_at=at,
        expires_at=at + (timedelta(seconds=approval_timeout) if ask.expires_in is None else ask.expires_in),
    )


async def settle(
    tx: SessionTx, question: Interrupt, status: InterruptStatus, *, draft: Callable[[Interrupt], Draft]
) -> Interrupt | None:
    """Close an open question without an answer, with its event. None when it was closed before."""
    settled = await tx.settle_interrupt(question.id, status=status, at=now())
    if settled is not None:
        await tx.append(settled.session_id, [draft(settled)])
    return settled


async def expire(tx: SessionTx) -> list[str]:
    """Settle the questions of waiting runs whose time has passed; the ids of the runs that end by it.

    A user's run goes on without the answer. A recall's ends: its model would make do without what it was woken for,
    and that would look like success.
    """
    at, ended = now(), list[str]()

    def draft(settled: Interrupt) -> Draft:
        return Draft(interrupt_event("expired", settled), run_id=settled.run_id, origin=SYSTEM, at=at)

    for question in await tx.expired_interrupts(at=at):
        settled = await settle(tx, question, InterruptStatus.EXPIRED, draft=draft)
        run = await tx.run(question.run_id)
        if settled is None or run is None or run.origin.kind is not OriginKind.RECALL:
            continue
        left = [question, *await tx.open_interrupts(run.id)]
        fold = fold_frames(await tx.run_frames(run.session_id, run.id))
        if await close_run(tx, run, unanswered(left), fold):
            ended.append(run.id)
    return ended


async def withdraw(tx: SessionTx, interrupt_id: str) -> None:
    """Cancel a question that is not wanted any more. When its run has ended, the end has closed it."""
    question = await tx.interrupt(interrupt_id)
    run = None if question is None else await tx.run(question.run_id)
    if question is None or run is None:
        return

    def draft(settled: Interrupt) -> Draft:
        return Draft(interrupt_event("cancelled", settled), run_id=run.id, origin=run.origin, at=now())

    await settle(tx, question, InterruptStatus.CANCELLED, draft=draft)


async def checked_payload(question: Interrupt, answer: Answer) -> Any:
    """The payload as it is to be stored. Raises InvalidRequest when the question does not take it."""
    if answer.option is not None and not question.options:
        raise InvalidRequest("option: this question offers no options.", field="option")
    if answer.status == "cancelled":
        return None
    if question.kind is InterruptKind.APPROVAL:
        return _chosen(question, answer).wire()
    if question.response_schema is not None:
        # In a thread: the schema is a stranger's, and checking it may take a second.
        found = await asyncio.to_thread(check, question.response_schema, answer.payload)
        if found.unchecked is not None:
            log.warning("answer_not_checked", interrupt=question.id, reason=found.unchecked)
        if found.error is not None:
            raise InvalidRequest(f"payload: {found.error}"[:500], field="payload")
    return answer.payload


def _chosen(question: Interrupt, answer: Answer) -> Approval:
    """The approval in an answer; of a question with options, with the one that is chosen. Raises InvalidRequest."""
    approval = _approval(question, answer)
    if not question.options:
        if approval.option is not None:
            raise InvalidRequest("payload.option: this question offers no options.", field="payload.option")
        return approval
    if approval.args is not None:
        raise InvalidRequest("payload.args: this call cannot be changed, only allowed or not.", field="payload.args")
    option = question.option(approval)
    if approval.option is not None and (option is None or option.allows is not approval.approved):
        offered = ", ".join(option.id for option in question.options)
        raise InvalidRequest(f"option: not one that is offered and means this answer: {offered}.", field="option")
    # Stored with it, so that each view of the answer says which one it was.
    return approval if option is None else approval.but(option=option.id)


def _approval(question: Interrupt, answer: Answer) -> Approval:
    named = next((option for option in question.options if option.id == answer.option), None)
    approved = named is None or named.allows
    if answer.payload is None:
        return Approval(approved=approved, option=answer.option)
    try:
        approval = Approval.model_validate(answer.payload, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(["payload", *map(str, first["loc"])])
        raise InvalidRequest(f"{field}: {first['msg']}", field=field) from error
    if answer.option is None or approval.option == answer.option:
        return approval
    if approval.option is not None:
        raise InvalidRequest("option: payload.option names another one.", field="option")
    return approval.but(option=answer.option)


class PendingInterrupts:
    """The questions of this process's runs that wait in memory."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Interrupt]] = {}

    def expect(self, interrupt_id: str) -> asyncio.Future[Interrupt]:
        """The future of the settled question."""
        future: asyncio.Future[Interrupt] = asyncio.get_running_loop().create_future()
        self._waiting[interrupt_id] = future
        return future

    def forget(self, interrupt_id: str) -> None:
        """It is not waited for any more."""
        self._waiting.pop(interrupt_id, None)

    def settled(self, interrupt: Interrupt) -> None:
        """It was answered, here or elsewhere."""
        future = self._waiting.get(interrupt.id)
        if future is not None and not future.done():
            future.set_result(interrupt)

    async def refresh(self, store: SessionStore) -> None:
        """Another process has committed: it may have taken answers."""
        if not self._waiting:
            return
        for interrupt in await store.interrupts(tuple(self._waiting)):
            if interrupt.status is not InterruptStatus.OPEN:
                self.settled(interrupt)


class PausableTimeout:
    """How long a run may take; the time in which it waits for the user does not count."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._holders = 0
        self._timeout: asyncio.Timeout | None = None  # set while the run works

    def limit(self) -> asyncio.Timeout:
        """The time-out to work under. Call it once."""
        self._timeout = asyncio.timeout(self._left)
        return self._timeout

    def end(self, _: object = None) -> None:
        """The run's task is done. The time-out has it, and with it all that the run had."""
        self._left = self.left
        self._timeout = None

    @property
    def left(self) -> float:
        """Seconds; also while nothing is counted."""
        due = self._timeout.when() if self._timeout is not None else None
        return self._left if due is None else due - asyncio.get_running_loop().time()

    @property
    def held(self) -> bool:
        """Whether the user is being waited for."""
        return self._holders > 0

    async def not_counting(self, work: Awaitable[None]) -> None:
        """Wait for something whose time is not the run's: a server that starts."""
        self.hold()
        try:
            await work
        finally:
            self.release()

    def hold(self) -> None:
        """The user is asked."""
        if self._holders == 0:
            self._left = self.left
            self._reschedule(None)
        self._holders += 1

    def release(self) -> None:
        """The user has answered, or is not waited for any more."""
        self._holders -= 1
        if self._holders == 0:
            self._reschedule(asyncio.get_running_loop().time() + self._left)

    def _reschedule(self, when: float | None) -> None:
        if self._timeout is not None:
            with suppress(RuntimeError):  # it is over already, or the run is
                self._timeout.reschedule(when)


class RunInterrupts:
    """Implements :class:`navi_jupyter.ports.agent.AskUser` for one run."""

    def __init__(
        self,
        run: Run,
        *,
        server_id: str,
        store: SessionStore,
        event_writer: EventWriter,
        interrupts: PendingInterrupts,
        approval_timeout: float,
        time_limit: PausableTimeout,
        withdrawn: Callable[[str], None],
        followed: Callable[[str], bool],
        unanswered: Callable[[Sequence[Interrupt]], None],
    ) -> None:
        self.open: dict[str, Interrupt] = {}  # what it asks now, by id
        self._run = run
        self._server_id = server_id
        self._store = store
        self._event_writer = event_writer
        self._interrupts = interrupts
        self._approval_timeout = approval_timeout
        self._time_limit = time_limit
        self._followed = followed  # whether a view is open on the session
        self._unanswered = unanswered
        """Called with the questions of a recall's run that get no answer: it ends the run, and does not wait."""
        self._withdrawn = withdrawn  # called with the id of a question that is not wanted any more; does not wait

    async def __call__(self, ask: Ask) -> Interrupt:
        await self._event_writer.flushed(self._run.session_id)  # what it asks about is in the log before it
        question = opened(ask, self._run, now(), approval_timeout=self._approval_timeout, durable=False)
        if self._run.origin.kind is OriginKind.RECALL and not (ask.waits or self._followed(self._run.session_id)):
            self._unanswered([question])
            return question.but(status=InterruptStatus.EXPIRED)
        # Before the question is in the database: an answer may come the moment it is committed.
        answer = self._interrupts.expect(question.id)
        self._time_limit.hold()
        self.open[question.id] = question
        try:
            if not await self._open(question):
                return question.but(status=InterruptStatus.CANCELLED)
            return await self._answered(question, answer)
        except asyncio.CancelledError:
            self._withdrawn(question.id)
            raise
        finally:
            del self.open[question.id]
            self._time_limit.release()
            self._interrupts.forget(question.id)

    async def _open(self, question: Interrupt) -> bool:
        async def unit(tx: SessionTx) -> bool:
            if not await tx.held_runs([self._run.id], server_id=self._server_id):
                return False
            await tx.add_interrupt(question)
            await tx.append(self._run.session_id, [self._draft("opened", question)])
            return True

        return await self._store.write(unit)

    async def _answered(self, question: Interrupt, answer: asyncio.Future[Interrupt]) -> Interrupt:
        seconds = None if question.expires_at is None else (question.expires_at - now()).total_seconds()
        await asyncio.wait({answer}, timeout=seconds)
        if answer.done():
            return answer.result()

        async def unit(tx: SessionTx) -> Interrupt | None:
            expired = InterruptStatus.EXPIRED
            return await settle(tx, question, expired, draft=lambda settled: self._draft("expired", settled))

        expired = await self._store.write(unit)
        if expired is not None:
            if self._run.origin.kind is OriginKind.RECALL:
                self._unanswered([question])
            return expired
        known: Sequence[Interrupt] = await self._store.interrupts([question.id])  # answered at the last moment
        return known[0] if known else question.but(status=InterruptStatus.CANCELLED)

    def _draft(self, action: str, question: Interrupt) -> Draft:
        return Draft(interrupt_event(action, question), run_id=self._run.id, origin=self._run.origin, at=now())
