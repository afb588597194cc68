"""The loop for real models: ``AgentLoop`` over pydantic-ai.

pydantic-ai takes 0.6 s to import, so nothing here imports it: :mod:`.driver` and what it needs are loaded at the first
run, in a thread. Not responsible for which model answers a turn (``backends``) nor for the run's deadline.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, cast

from ..errors import InvalidRequest, RunFailed
from ..events import Event
from ..logs import get_logger
from ..ports import ToolContext, Turn, TurnResult
from .catalog import provider_of
from .profiles import DEFAULT_PROFILE, PROFILES, Profile

log = get_logger("agent")

_LINGER = 5.0
"""Seconds that a cancelled provider call may take to close its connection before it is left behind."""


class _Driver(Protocol):
    """The part of :mod:`.driver` that is used here."""

    def drive(
        self, turn: Turn, context: ToolContext, profile: Profile, emit: Callable[[Event], None]
    ) -> Coroutine[Any, Any, TurnResult]: ...


def check_model(model: str) -> None:
    """Raise RunFailed ``model_unavailable``, with the one thing to do, when a model string can not work here."""
    try:
        missing = provider_of(model).missing()
    except InvalidRequest as error:
        raise RunFailed(error.message, run_code="model_unavailable") from None
    if missing is not None:
        raise RunFailed(f"{model} can not be used here. {missing}", run_code="model_unavailable")


class ModelLoop:
    """Answers with a model. Stateless: everything of a run is in its turn."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``.

        The provider is driven by a task of its own into an unbounded queue: its stream has no buffer, so a slow
        consumer would stall it; the deadline of the run and the model's own limits bound the queue. Leaving this
        generator in any way cancels that task and waits until its connection is closed. When the run's stop signal is
        set the turn ends early, without a conversation: the transcript serves the next one.
        """
        check_model(turn.model)
        profile = PROFILES.get(turn.session.profile, PROFILES[DEFAULT_PROFILE])
        driver = cast("_Driver", await asyncio.to_thread(importlib.import_module, f"{__package__}.driver"))
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.create_task(
            driver.drive(turn, context, profile, queue.put_nowait), name=f"navi-model-{turn.run_id}"
        )
        task.add_done_callback(lambda _: queue.put_nowait(None))
        stopper = asyncio.create_task(_cancel_on_stop(context, task), name=f"navi-model-stop-{turn.run_id}")
        try:
            while (event := await queue.get()) is not None:
                yield event
            if task.cancelled() and context.stop.stopping:
                yield TurnResult(conversation=b"")
                return
            yield task.result()
        finally:
            stopper.cancel()
            await _end(task, turn.run_id)


async def _cancel_on_stop(context: ToolContext, task: asyncio.Task[TurnResult]) -> None:
    await context.stop.wait()
    task.cancel()


async def _end(task: asyncio.Task[TurnResult], run_id: str) -> None:
    """Cancel and await the driver, so that no connection outlives its run."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_LINGER)
    if not task.done():
        log.warning("model_call_lingers", run_id=run_id, seconds=_LINGER)
    elif not task.cancelled():
        task.exception()  # it was raised to the consumer, or nobody is left to hear of it
