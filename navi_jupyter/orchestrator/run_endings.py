"""Writing a run's pause and its end: by the server that owns the run, or by the next one after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..clock import now, timestamp
from ..errors import NaviError, SessionNotFound
from ..events import Custom, Draft, Event, InterruptEntry, Outcome, RunError, RunFinished, RunStarted, TokenUsage
from ..log_setup import get_logger
from ..model.runs import Interrupt, InterruptKind, InterruptStatus
from ..model.sessions import AnswerNotice, Failure, Run, RunStatus, Usage, needed_answer, needed_approval
from ..ports.agent import TurnResult
from ..ports.store import SessionStore
from ..ports.transactions import SessionTx
from .transcript import TranscriptBuilder

log = get_logger("session")
T = TypeVar("T")


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    status: RunStatus
    error: Failure | None = None
    conversation: bytes | None = None
    usage: Usage = NO_USAGE
    notice: AnswerNotice | None = None  # of a run that completed


def interrupted(tool: str | None, *, given_up: bool = False) -> Ending:
    """The end of a run whose server is gone. ``tool``: the one with an effect that the run had started last.

    ``given_up``: that server is this one, which had ended the run because it could not renew its lease.
    """
    message = "The server ended while this run was in progress."
    if given_up:
        message = (
            "The server was stopped, or could not write its database, for too long while this run was in progress."
        )
    if tool is not None:
        message += f" It had started {tool}, so it is not started again by itself."
    return Ending(RunStatus.INTERRUPTED, Failure(code="interrupted", message=message))


def unanswered(questions: Sequence[Interrupt], usage: Usage = NO_USAGE) -> Ending:
    """The end of a recall's run whose questions got no answer."""
    tools = [question.tool for question in questions if question.kind is InterruptKind.APPROVAL and question.tool]
    failure = needed_approval(tools) if tools else needed_answer(questions[0].message)
    return Ending(RunStatus.FAILED, failure, usage=usage)


def custom(name: str, **value: object) -> Custom:
    """One of our ``CUSTOM`` events."""
    return Custom.model_validate({"name": name, "value": value})


@dataclass(frozen=True, slots=True)
class Closed:
    """A run that has ended, as its row has it."""

    run: Run
    followed: bool  # whether another run of its session is in progress, or waits


async def close_run(
    tx: SessionTx, run: Run, ending: Ending, fold: TranscriptBuilder, *, forced: bool = False
) -> Closed | None:
    """Close what the run left open, give it its last event and its final status. None when it had one."""
    # Readers of AG-UI expect each message and call to be closed before the run ends.
    events = fold.closing_events()
    transcript = fold.record(partial=ending.status is not RunStatus.COMPLETED)
    at = now()
    # The usage of the result goes before that of events on the way, and that before what a pause left in the row.
    if ending.usage == NO_USAGE:
        ending = replace(ending, usage=fold.usage or run.usage)
    # First, because it decides whether this is the end: all events below belong to the end that counts.
    ended = await tx.end_run(
        run.id,
        status=ending.status,
        at=at,
        usage=ending.usage,
        error=ending.error or ending.notice,
        conversation=ending.conversation,
        transcript=transcript,
    )
    if ended is None:
        return None
    for question in await tx.open_interrupts(run.id) if ended.asks else ():
        settled = await tx.settle_interrupt(question.id, status=InterruptStatus.CANCELLED, at=at)
        events.append(interrupt_event("cancelled", settled or question))
    if forced:
        events.append(custom("navi.stop", action="forced", command_id=None, run_id=run.id))
    if run.status is RunStatus.WAITING:
        events.append(RunStarted(thread_id=run.session_id, run_id=run.id))  # its pause has finished it, for readers
    if ending.notice is not None:
        events.append(custom("navi.notice", run_id=run.id, **ending.notice.wire()))
    events.append(_last_event(run, ending))
    await tx.append(run.session_id, [Draft(event, run_id=run.id, origin=run.origin, at=at) for event in events])
    completed = ending.status is RunStatus.COMPLETED
    row = run.but(
        status=ending.status,
        ended_at=at,
        usage=ending.usage,
        error=None if completed else ending.error,
        notice=ending.notice if completed else None,
        rolled_back=ended.rolled_back,
    )
    return Closed(row, followed=ended.followed)


async def persist_end(store: SessionStore, run: Run, unit: Callable[[SessionTx], Awaitable[T]]) -> T | Closed | None:
    """Write a run's pause or end, whatever the database does meanwhile; one that cannot be written ends as failed.

    None where the session is gone.
    """
    try:
        return await persist(lambda: store.write(unit, durable=True))
    except Exception:
        # An end that cannot be written would hold the session for ever: write one that can.
        log.exception("run_end_broke", run_id=run.id)
        failure = Failure(code="internal_error", message="Something went wrong inside Navi when the run ended.")
        plain = Ending(RunStatus.FAILED, failure)
        return await persist(
            lambda: store.write(lambda tx: close_run(tx, run, plain, TranscriptBuilder()), durable=True)
        )


async def persist(attempt: Callable[[], Awaitable[T]]) -> T | None:
    """Repeat a write that must not be lost until the database takes it: the disk may be full, or the file locked.

    None where the session is gone.
    """
    delay = 0.1
    while True:
        try:
            return await attempt()
        except SessionNotFound:
            return None
        except NaviError as error:
            log.error("write_postponed", error=str(error), again_in=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)


def _last_event(run: Run, ending: Ending) -> Event:
    match ending.status:
        case RunStatus.COMPLETED:
            outcome = Outcome(type="success")
        case RunStatus.STOPPED:
            outcome = Outcome(type="cancelled")
        case _:
            error = ending.error
            code, message = (error.code, error.message) if error else ("failed", "The run failed.")
            return RunError(message=message, code=code, usage=_tokens(run, ending.usage))
    return RunFinished(thread_id=run.session_id, run_id=run.id, outcome=outcome, usage=_tokens(run, ending.usage))


def _tokens(run: Run, spent: Usage) -> tuple[TokenUsage, ...] | None:
    if not (spent.requests or spent.output_tokens):
        return None
    return (TokenUsage(model=run.model, input_tokens=spent.input_tokens, output_tokens=spent.output_tokens),)


async def pause_run(
    tx: SessionTx, run: Run, result: TurnResult, asked: Sequence[Interrupt], fold: TranscriptBuilder, *, server_id: str
) -> bool:
    """Set the run waiting for its answers. False when it was asked to stop, or is not this server's."""
    if not await tx.pause_run(run.id, server_id=server_id, usage=result.usage, conversation=result.conversation):
        return False
    events = fold.closing_events()
    at = now()
    for left in await tx.open_interrupts(run.id):
        settled = await tx.settle_interrupt(left.id, status=InterruptStatus.CANCELLED, at=at)
        events.append(interrupt_event("cancelled", settled or left))
    for question in asked:
        await tx.add_interrupt(question)
        events.append(interrupt_event("opened", question))
    events.append(pause_event(run, asked, result.usage))
    await tx.append(run.session_id, [Draft(event, run_id=run.id, origin=run.origin, at=at) for event in events])
    return True


def interrupt_event(action: str, interrupt: Interrupt) -> Custom:
    """A change of a question, for followers."""
    return custom("navi.interrupt", action=action, interrupt=interrupt.wire())


def pause_event(run: Run, asked: Sequence[Interrupt], usage: Usage = NO_USAGE) -> RunFinished:
    """The event with which a run pauses."""
    entries = tuple(
        InterruptEntry(
            id=question.id,
            reason=question.kind.value,
            message=question.message,
            tool_call_id=question.tool_call_id,
            response_schema=question.response_schema,
            expires_at=None if question.expires_at is None else timestamp(question.expires_at),
        )
        for question in asked
    )
    outcome = Outcome(type="interrupt", interrupts=entries)
    return RunFinished(thread_id=run.session_id, run_id=run.id, outcome=outcome, usage=_tokens(run, usage))
