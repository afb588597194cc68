"""The loop for real models: ``AgentLoop`` over pydantic-ai.

pydantic-ai takes 0.6 s to import, so nothing here imports it: :mod:`.driver` and what it needs are loaded at the first
run, in a thread. Not responsible for which model answers a turn (``backends``) nor for the run's deadline.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, cast

from ...errors import InvalidRequest, RunFailed
from ...events import Event
from ...log_setup import get_logger
from ...ports.agent import ToolContext, Turn, TurnResult
from ..providers.catalog import provider_of
from ..registry import AgentParts

log = get_logger("agent")

_LINGER = 5.0
"""Seconds that a cancelled provider call may take to close its connection before it is left behind."""


class _Driver(Protocol):
    """The part of :mod:`.driver` that is used here."""

    def run_agent(
        self, turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Callable[[Event], None]
    ) -> Coroutine[Any, Any, TurnResult]: ...


def check_model(model: str) -> None:
    """Raise RunFailed ``model_unavailable``, with the one thing to do, when a model string can not work here."""
    try:
        missing = provider_of(model).missing()
    except InvalidRequest as error:
        raise RunFailed(error.message, run_code="model_unavailable") from None
    if missing is not None:
        raise RunFailed(f"{model} can not be used here. {missing}", run_code="model_unavailable")


class PydanticAIBackend:
    """Answers with a model. Stateless: everything of a run is in its turn."""

    def __init__(self, agent_parts: AgentParts) -> None:
        self._agent_parts = agent_parts

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``.

        The provider is driven by a task of its own into an unbounded queue: its stream has no buffer, so a slow
        consumer would stall it; the deadline of the run and the model's own limits bound the queue. Leaving this
        generator in any way cancels that task and waits until its connection is closed and its tools have ended. When
        the run's stop signal is set the turn ends early, without a conversation: the transcript serves the next one.
        """
        check_model(turn.model)
        driver = cast("_Driver", await asyncio.to_thread(importlib.import_module, f"{__package__}.runner"))
        outlet = _Outlet(context.emit)
        # What tools say goes the way of what the model says, or it would overtake the call that it is about.
        inside = replace(context, emit=outlet.put)
        task = asyncio.create_task(
            driver.run_agent(turn, inside, self._agent_parts, outlet.put), name=f"navi-model-{turn.run_id}"
        )
        task.add_done_callback(lambda _: outlet.end())
        stopper = asyncio.create_task(_cancel_on_stop(context, task), name=f"navi-model-stop-{turn.run_id}")
        try:
            while (event := await outlet.get()) is not None:
                yield event
            if task.cancelled() and context.stop.stopping:
                yield TurnResult(conversation=b"")
                return
            yield task.result()
        finally:
            stopper.cancel()
            outlet.leave()
            await _end(task, turn.run_id)


class _Outlet:
    """From the driver to whoever consumes the turn, in order. Once nobody does, straight into the log.

    So that a run that is stopped keeps what was said until then, and how its tools were ended.
    """

    def __init__(self, straight: Callable[[Event], None]) -> None:
        self._straight = straight
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._left = False
        """Set when the consumer has gone."""

    def put(self, event: Event) -> None:
        """Never blocks."""
        if self._left:
            self._straight(event)
        else:
            self._queue.put_nowait(event)

    def end(self) -> None:
        """Nothing more comes."""
        self._queue.put_nowait(None)

    async def get(self) -> Event | None:
        """The next one; None at the end."""
        return await self._queue.get()

    def leave(self) -> None:
        """The consumer goes: what it has not taken is written by ourselves."""
        self._left = True
        while not self._queue.empty():
            if (event := self._queue.get_nowait()) is not None:
                self._straight(event)


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
