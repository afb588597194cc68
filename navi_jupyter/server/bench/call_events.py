"""What happens during a call at a user's server, for the run that has made it: outputs, progress, stops, questions.

A server may emit only what is named here: the log of a run is the service's. Not responsible for how it travels
(``calls``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from typing import Any

from ...errors import NaviError
from ...events import ActivitySnapshot, Custom
from ...input.json_input import well_formed
from ...log_setup import get_logger
from ...model.runs import Interrupt, InterruptKind
from ...ports.agent import Ask, subagent, tool_call, tool_context
from ...ports.jupyter import OnOutput
from ...text import truncate

log = get_logger("bench")

PROGRESS = "navi.progress"
MOST_QUESTIONS = 10  # of one call at once
LONGEST = 8000  # characters of a question

Answer = Callable[[str, Interrupt | None], Awaitable[None]]
"""Sends the end of a question to the server; None: it could not be asked."""


class CallEvents:
    """The events of one call of the present task. They come in the task that reads the link."""

    def __init__(self, on_output: OnOutput | None, answer: Answer) -> None:
        self._on_output = on_output
        self._answer = answer
        self._context = tool_context.get(None)
        self._here = copy_context()  # of the call: what is emitted belongs to it
        self._questions: dict[str, asyncio.Task[None]] = {}

    def take(self, event: Any) -> None:
        """One event. Raises what malformed ones make."""
        self._here.run(self._take, event)

    def close(self) -> None:
        """The call is over: withdraw what it has asked."""
        for task in self._questions.values():
            task.cancel()

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, value = next(iter(event.items()))
        context = self._context
        if kind == "output" and self._on_output is not None:
            self._on_output(value)
        elif context is None:
            return
        elif kind == "custom":
            name, content = value
            context.emit(Custom(name=name, value=content))
        elif kind == "progress" and (call := tool_call.get()) is not None:
            content = {**value, "toolCallId": call}
            context.emit(
                ActivitySnapshot(
                    message_id=f"progress_{call}",
                    activity_type=PROGRESS,
                    content=content,
                    replace=True,
                    subagent_run_id=subagent.get(),
                )
            )
        elif kind == "stop":
            what, message = value
            context.report_stop(str(what), str(message))
        elif kind == "ask" and len(self._questions) < MOST_QUESTIONS:
            question = str(value["id"])
            task = asyncio.create_task(self._ask(question, value), name="navi-bench-question")
            self._questions[question] = task
            task.add_done_callback(lambda _: self._questions.pop(question, None))
        elif kind == "withdraw" and (asking := self._questions.get(str(value))) is not None:
            asking.cancel()

    async def _ask(self, question: str, value: Mapping[str, Any]) -> None:
        context, schema = self._context, value.get("schema")
        interrupt = None
        try:
            if context is not None and context.ask is not None:
                ask = Ask(
                    kind=InterruptKind.QUESTION,
                    message=truncate(well_formed(str(value["message"])), LONGEST),
                    source=truncate(well_formed(str(value.get("source") or "package")), 200),
                    tool_call_id=tool_call.get(),
                    response_schema=schema if isinstance(schema, dict) else None,
                    subagent_run_id=subagent.get(),
                )
                interrupt = await context.ask(ask)
        except NaviError as error:
            log.info("bench_question_not_asked", error=error.message)
        try:
            await self._answer(question, interrupt)
        except NaviError as error:  # the link has ended, and the call with it
            log.info("bench_answer_not_sent", error=error.message)
