"""The backend for real models: ``AgentLoop`` over pydantic-ai.

Not responsible for which model answers a turn (``router``) nor for the run's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from ...errors import InvalidRequest, RunFailed
from ...events import Event
from ...log_setup import get_logger
from ...model.sessions import Usage
from ...ports.agent import ToolContext, Turn, TurnResult
from ..providers.catalog import provider_of
from ..registry import AgentParts

log = get_logger("agent")

_LINGER = 5.0  # seconds that a cancelled provider call may take to close its connection before it is left behind

RunAgent = Callable[[Turn, ToolContext, AgentParts, Callable[[Event], None]], Coroutine[Any, Any, TurnResult]]


def check_model(model: str) -> None:
    """Raise RunFailed ``model_unavailable``, with the one thing to do, when a model string cannot work here."""
    try:
        missing = provider_of(model).missing()
    except InvalidRequest as error:
        raise RunFailed(error.message, run_code="model_unavailable") from None
    if missing is not None:
        raise RunFailed(f"{model} cannot be used here. {missing}", run_code="model_unavailable")


class PydanticAIBackend:
    """Answers with a model. Stateless: everything of a run is in its turn."""

    def __init__(self, agent_parts: AgentParts) -> None:
        self._agent_parts = agent_parts

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``.

        The agent runs in a task of its own that fills an unbounded queue: a provider's stream has no buffer, so a slow
        consumer would stall it; the deadline of the run and the model's own limits bound the queue. Leaving this
        generator in any way cancels that task and waits until its connection is closed and its tools have ended. When
        the run's stop signal is set the turn ends early, without a conversation: the next run uses the transcript.
        """
        check_model(turn.model)
        run_agent = await asyncio.to_thread(_import_runner)
        queue = EventQueue(context.emit)
        # The events of tools go through the same queue as the model's, or they would overtake the call they belong to.
        inside = replace(context, emit=queue.put)
        task = asyncio.create_task(
            run_agent(turn, inside, self._agent_parts, queue.put), name=f"navi-model-{turn.run_id}"
        )
        task.add_done_callback(lambda _: queue.close())
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
            queue.detach()
            await _end(task, turn.run_id)

    @staticmethod
    async def write_title(model: str, prompt: str, answer: str) -> tuple[str, Usage]:
        """A title for a conversation that begins with this exchange: one short request. Raises what a provider does."""
        build, write = await asyncio.to_thread(_import_title_writer)
        return await write(await build(model), prompt, answer)


def _import_title_writer() -> tuple[Callable[[str], Awaitable[Any]], Callable[..., Awaitable[tuple[str, Usage]]]]:
    """As for :func:`_import_runner`; a run of the same model has imported it already."""
    from ..providers.models import build_model
    from .summarizer import write_title

    return build_model, write_title


def _import_runner() -> RunAgent:
    """The function that runs an agent. Called in a thread at the first run: pydantic-ai takes 0.6 s to import, which
    no start of the server has to wait for, and no server without a model ever pays."""
    from .runner import run_agent

    return run_agent


class EventQueue:
    """The events on their way to the consumer of the turn, in order.

    After the consumer has left, events go straight into the log: a run that is stopped keeps what was emitted until
    then, and how its tools were ended.
    """

    def __init__(self, log_event: Callable[[Event], None]) -> None:
        self._log_event = log_event
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._detached = False
        self._taken = asyncio.Event()

    def put(self, event: Event) -> None:
        """Never blocks."""
        if self._detached:
            self._log_event(event)
        else:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """No event follows."""
        self._queue.put_nowait(None)

    async def get(self) -> Event | None:
        """The next one; None at the end."""
        event = await self._queue.get()
        self._taken.set()
        return event

    async def room(self, most: int) -> None:
        """Wait until at most so many are on their way: for a source that can be made to wait."""
        while self._queue.qsize() > most and not self._detached:
            self._taken.clear()
            await self._taken.wait()

    def detach(self) -> None:
        """The consumer leaves: log what it has not taken."""
        self._detached = True
        self._taken.set()
        while not self._queue.empty():
            if (event := self._queue.get_nowait()) is not None:
                self._log_event(event)


async def _cancel_on_stop(context: ToolContext, task: asyncio.Task[TurnResult]) -> None:
    await context.stop.wait()
    task.cancel()


async def _end(task: asyncio.Task[TurnResult], run_id: str) -> None:
    """Cancel the agent's task and wait for it, so that no connection outlives its run."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_LINGER)
    if not task.done():
        log.warning("model_call_lingers", run_id=run_id, seconds=_LINGER)
    elif not task.cancelled():
        task.exception()  # retrieved, or asyncio warns of it: the consumer has got it, or has left
