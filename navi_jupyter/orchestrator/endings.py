"""How a run's end gets into the log, whoever finds it: its owner, or the next server after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import NaviError, SessionNotFound
from ..events import Custom, Draft, Event, Outcome, RunError, RunFinished, TokenUsage
from ..logs import get_logger
from ..model import Failure, Run, RunStatus, Usage, now
from ..ports import SessionTx
from .transcript import Fold

log = get_logger("session")


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    status: RunStatus
    error: Failure | None = None
    conversation: bytes | None = None
    usage: Usage = NO_USAGE


INTERRUPTED = Ending(
    RunStatus.INTERRUPTED,
    Failure(code="interrupted", message="The server ended while this run was in progress."),
)


def custom(name: str, **value: object) -> Custom:
    """One of our ``CUSTOM`` events."""
    return Custom.model_validate({"name": name, "value": value})


async def close_run(tx: SessionTx, run: Run, ending: Ending, fold: Fold, *, forced: bool = False) -> bool:
    """Close what the run left open, give it its last event and its final status. False when it had one."""
    closers = fold.closers()
    transcript = fold.partial() if ending.status is not RunStatus.COMPLETED else fold.messages()
    at = now()
    if not await tx.end_run(
        run.id,
        status=ending.status,
        at=at,
        usage=ending.usage,
        error=ending.error,
        conversation=ending.conversation,
        transcript=transcript,
    ):
        return False
    events: list[Event] = list(closers)
    if forced:
        events.append(custom("navi.stop", action="forced", command_id=None, run_id=run.id))
    events.append(_last_event(run, ending))
    await tx.append(run.session_id, [Draft(event, run_id=run.id, origin=run.origin, at=at) for event in events])
    return True


async def persist(attempt: Callable[[], Awaitable[object]]) -> None:
    """Repeat a write that must not be lost until the database takes it (a full disk, a lock held elsewhere)."""
    delay = 0.1
    while True:
        try:
            await attempt()
        except SessionNotFound:
            return
        except NaviError as error:
            log.error("write_postponed", error=str(error), again_in=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)
        else:
            return


def _last_event(run: Run, ending: Ending) -> Event:
    match ending.status:
        case RunStatus.COMPLETED:
            outcome = Outcome(type="success")
        case RunStatus.STOPPED:
            outcome = Outcome(type="cancelled")
        case _:
            error = ending.error
            code, message = (error.code, error.message) if error else ("failed", "The run failed.")
            return RunError(message=message, code=code)
    spent: Usage = ending.usage
    usage = None
    if spent.requests or spent.output_tokens:
        usage = (TokenUsage(model=run.model, input_tokens=spent.input_tokens, output_tokens=spent.output_tokens),)
    return RunFinished(thread_id=run.session_id, run_id=run.id, outcome=outcome, usage=usage)
