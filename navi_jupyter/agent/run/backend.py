"""The backend for real models: ``AgentLoop`` over pydantic-ai.

Not responsible for which model answers a turn (``router``) nor for the run's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from ...errors import InvalidRequest, RunFailed
from ...events import Event
from ...log_setup import get_logger
from ...model.runs import Interrupt
from ...model.sessions import Usage
from ...ports.agent import Ask, AskUser, ToolContext, Turn, TurnResult
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
        self.packages = ModelPackages()

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``.

        The agent runs in a task of its own that fills an unbounded queue: a provider's stream has no buffer, so a slow
        consumer would stall it; the deadline of the run and the model's own limits bound the queue. Leaving this
        generator in any way cancels that task and waits until its connection is closed and its tools have ended. When
        the run's stop signal is set the turn ends early, without a conversation: the next run uses the transcript.
        """
        check_model(turn.model)
        run_agent = await self.packages.runner()
        queue = EventQueue(context.emit)
        # The events of tools go through the same queue as the model's, or they would overtake the call they belong to.
        inside = queue.within(context)
        run_id = turn.run_id
        task = asyncio.create_task(run_agent(turn, inside, self._agent_parts, queue.put), name=f"navi-model-{run_id}")
        del turn  # with the history, which the task needs only at its beginning
        task.add_done_callback(lambda _: queue.close())
        stopper = asyncio.create_task(_cancel_on_stop(context, task), name=f"navi-model-stop-{run_id}")
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
            await _end(task, run_id)

    async def write_title(self, model: str, prompt: str, answer: str) -> tuple[str, Usage]:
        """A title for a conversation that begins with this exchange: one short request. Raises what a provider does."""
        build, write = await self.packages.title_writer()
        return await write(await build(model), prompt, answer)


TitleWriter = tuple[Callable[[str], Awaitable[Any]], Callable[..., Awaitable[tuple[str, Usage]]]]


class ModelPackages:
    """The packages that runs with a model need, imported in a thread: at the first run, or before it.

    pydantic-ai and a provider's package take one to two seconds of a core, which no start of the server has to wait
    for, and no server without a model ever pays. One import at a time: a run waits for the step that is in progress,
    and takes over from there. So two threads never import from two ends what imports each other.
    """

    PAUSE = 0.2  # seconds between two steps, so that what waits for the interpreter gets it

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._runner: RunAgent | None = None
        self._wanted = False  # a run has asked: nothing is imported ahead any more

    async def runner(self) -> RunAgent:
        """The function that runs an agent."""
        if self._runner is None:
            self._wanted = True
            async with self._one_at_a_time:
                self._runner = await asyncio.to_thread(_import_runner)
        return self._runner

    async def title_writer(self) -> TitleWriter:
        """The functions that build a model and have it write a title; a run of this model has imported them already."""
        self._wanted = True
        async with self._one_at_a_time:
            return await asyncio.to_thread(_import_title_writer)

    async def import_ahead(self, models: Iterable[str]) -> None:
        """Import what runs with these models need, step by step, until a run does. To be called when all is quiet."""
        steps: list[Callable[[], object]] = [partial(_try_to_import, name) for name in _NEEDED]
        steps += [partial(_try_to_build, name) for name in models]
        for step in steps:
            async with self._one_at_a_time:
                if self._wanted:
                    return
                await asyncio.to_thread(step)
            await asyncio.sleep(self.PAUSE)


_NEEDED = ("httpx", "pydantic_graph", "genai_prices", "pydantic_ai", "..providers.models", ".runner", ".summarizer")
"""What runs with any model import, each after what it needs itself: so the steps are short."""


def _try_to_import(name: str) -> None:
    with suppress(ImportError):  # the run will report it
        import_module(name, __package__)


def _try_to_build(model: str) -> None:
    """Build it and forget it: the provider's package is imported, and nothing is asked of the network."""
    # As in _import_runner.
    from ..providers.models import prepare

    prepare(model)


def _import_title_writer() -> TitleWriter:
    # As in _import_runner.
    from ..providers.models import build_model
    from .summarizer import write_title

    return build_model, write_title


def _import_runner() -> RunAgent:
    from .runner import run_agent  # pydantic-ai: never at the start, see ModelPackages

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

    def within(self, context: ToolContext) -> ToolContext:
        """The context of what emits to this queue: its questions come after the events, too."""
        if context.ask is None:
            return replace(context, emit=self.put)
        return replace(context, emit=self.put, ask=partial(self._ask, context.ask))

    async def _ask(self, ask: AskUser, asked: Ask) -> Interrupt:
        await self.room(0)
        return await ask(asked)

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
