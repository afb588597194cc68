"""A run as a program follows it: sent or joined, its events in order across reconnects, its questions, its end.

Not responsible for showing a run (``display``) or for a cell that waits for one (``ask``).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Literal, Self, TypeVar

from ..client.client import Client, Envelope, new_command_id
from ..client.io_thread import io_thread
from ..display.run_view import QuestionPart, RunView
from ..errors import KernelError, Refused, UsageError
from ..grammar.answers import UserAnswer
from ..reply import Reply, RunDidNotComplete
from .session_events import SessionEvents, on_io

T = TypeVar("T")

Question = QuestionPart
Decision = bool | None | UserAnswer | Mapping[str, Any] | str | float | list[Any]
"""An answer to a question: whether a call is allowed, or the value that is asked for. None: another client answers."""
OnQuestion = Literal["wait"] | Callable[[Question], Decision | Awaitable[Decision]] | None


class AnswerNeeded(KernelError):
    """The run that was waited for asks the user. It waits: ``run.answer`` or any chat of the session answers."""

    code = "answer_needed"

    def __init__(self, message: str, *, reply: Reply, questions: list[Question]) -> None:
        super().__init__(message)
        self.reply = reply
        self.questions = questions


class WaitTimedOut(KernelError):
    """The time that a program gave the run is over. The run goes on, and can be joined or stopped by its id."""

    code = "wait_timed_out"

    def __init__(self, message: str, *, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply


async def pages_of_run(
    client: Client, session_id: str, view: RunView, after: int | None
) -> AsyncGenerator[list[Envelope], None]:
    """The session's events from ``after`` on, frame by frame, each applied to ``view``, until that run is over."""
    async with aclosing(client.follow(session_id, after)) as pages:
        async for page in pages:
            for envelope in page:
                view.apply(envelope)
            if view.reset:
                await read_ending(client, session_id, view)
            yield page
            if view.over:
                return


async def read_ending(client: Client, session_id: str, view: RunView) -> None:
    """Take the ending from the run's record, or from that of the run which took the prompt over."""
    while True:
        run = await client.request("GET", f"sessions/{session_id}/runs/{view.run_id}")
        if not run.get("merged_into"):
            break
        view.run_id = str(run["merged_into"])
    view.end(run)


class FollowedRun(SessionEvents):
    """A run of a session: iterate over its events, or wait for its end. Leaving it does not stop it."""

    def __init__(self, client: Client, session_id: str, view: RunView, after: int | None) -> None:
        super().__init__(pages_of_run(client, session_id, view, after), after)
        self._client = client
        self.session_id = session_id
        self.view = view
        """Its state by the events that were received so far: a frame may have several."""

    @property
    def run_id(self) -> str:
        """The id of the run. It becomes another one when a run in progress takes the prompt over."""
        return self.view.run_id

    @property
    def reply(self) -> Reply:
        """The reply as far as it was read: ``.text``, ``.status``, ``.tool_calls``."""
        return Reply(self.session_id, self.view, shown=False)

    @property
    def questions(self) -> list[Question]:
        """The open questions of the run."""
        return self.view.questions

    def _concerns(self, envelope: Envelope) -> bool:
        if envelope.get("run_id") == self.view.run_id or envelope.get("snapshot"):
            return True
        value = envelope["event"].get("value") or {}
        about = (value.get("run_id"), (value.get("interrupt") or {}).get("run_id"))
        return self.view.run_id in about or value.get("command_id") == self.view.command_id is not None

    async def texts(self) -> AsyncIterator[str]:
        """The agent's words as they come; joined they are ``reply.text``."""
        sent = 0
        async for _ in self:
            if self._ready:
                continue  # the view is ahead of events that came in the same frame
            text = self.view.text
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)

    async def wait(self, *, timeout: float | None = None, on_question: OnQuestion = None) -> Reply:
        """Read to the end of the run; its reply.

        ``on_question``: None raises AnswerNeeded when it asks; ``"wait"`` leaves questions to other clients; a function
        (also an async one) gets the question and returns the answer. ``timeout`` is in seconds. Raises
        RunDidNotComplete, WaitTimedOut; Unreachable when there was no server for two minutes.
        """
        asked: set[str] = set()
        try:
            async with asyncio.timeout(timeout) as limit:
                while True:
                    await self._settle(on_question, asked)
                    if await anext(self, None) is None:
                        break
        except TimeoutError:
            if not limit.expired():
                raise
            raise WaitTimedOut(
                f"The run {self.run_id} has not ended within {timeout:g} seconds; it goes on.", reply=self.reply
            ) from None
        return finished(self.reply, self.view)

    async def _settle(self, on_question: OnQuestion, asked: set[str]) -> None:
        questions = [each for each in self.questions if each.id not in asked]
        if not questions or on_question == "wait":
            return
        if on_question is None:
            words = "; ".join(each.message for each in questions)
            raise AnswerNeeded(f"The run waits for an answer: {words}", reply=self.reply, questions=questions)
        for question in questions:
            asked.add(question.id)
            decision = on_question(question)
            if inspect.isawaitable(decision):
                decision = await decision
            if decision is not None:
                with suppress(Refused):  # another client was first
                    await self.answer(question.id, decision)

    async def answer(self, question_id: str, decision: Decision) -> None:
        """Answer a question of this run: True or False for a call, else what it asks for; False declines.

        A mapping is sent as it is: ``{"approved": False, "message": "not today"}``. Raises Refused.
        """
        asks_for_value = any(each.id == question_id and each.kind != "approval" for each in self.questions)
        if isinstance(decision, UserAnswer):
            given = decision
        elif isinstance(decision, bool):
            payload = {} if asks_for_value else {"approved": decision}
            given = UserAnswer("cancelled") if asks_for_value and not decision else UserAnswer("resolved", payload)
        else:
            given = UserAnswer("resolved", decision)
        await on_io(self._client.command(self.session_id, given.command(question_id)))

    async def stop(self) -> None:
        """Stop the run, or withdraw its prompt where it has not begun. Does nothing when it is over."""
        stop = {"type": "stop", "run_id": self.run_id}
        with suppress(Refused):
            if self.view.status == "queued" and self.view.command_id:
                try:
                    await on_io(
                        self._client.command(self.session_id, {"type": "unqueue", "target": self.view.command_id})
                    )
                except Refused:  # it has begun in the meantime
                    await on_io(self._client.command(self.session_id, stop))
            else:
                await on_io(self._client.command(self.session_id, stop))


async def send(client: Client, session_id: str, prompt: Mapping[str, Any]) -> FollowedRun:
    """Send a prompt; its run, once the prompt is durable. Raises UsageError, Refused, Unreachable."""
    if not str(prompt["text"]).strip():
        raise UsageError("There is nothing to ask: the text is empty.", field="text")
    command = {"type": "prompt", "command_id": new_command_id(), **prompt}
    acceptance = await on_io(client.command(session_id, command))
    view = RunView(str(acceptance["run_id"]), str(command["command_id"]), session_id=session_id)
    return FollowedRun(client, session_id, view, int(acceptance["seq"]))


def join(client: Client, session_id: str, run_id: str, after: int | None) -> FollowedRun:
    """A run that exists, from the event ``after`` on; without it, all of the run as a snapshot, then what comes."""
    return FollowedRun(client, session_id, RunView(run_id, session_id=session_id), after)


def finished(reply: Reply, view: RunView) -> Reply:
    """The reply to a run that is over. Raises RunDidNotComplete."""
    if view.error is not None:
        code, message = view.error
        raise RunDidNotComplete(f"The run failed ({code}): {message}", run_code=code, reply=reply)
    return reply


class SyncRun:
    """The same for a program that does not await. Ctrl-C ends any wait at once and leaves the run in progress."""

    def __init__(self, run: FollowedRun) -> None:
        self.run = run
        """The run itself: ``run_id``, ``reply``, ``questions``, ``cursor``."""

    def __iter__(self) -> Iterator[Envelope]:
        """Its events, each once."""
        while (envelope := io_thread().wait(_after(self.run))) is not None:
            yield envelope

    def texts(self) -> Iterator[str]:
        """The agent's words as they come."""
        pieces = self.run.texts()
        while (piece := io_thread().wait(_after(pieces))) is not None:
            yield piece

    def wait(self, *, timeout: float | None = None, on_question: OnQuestion = None) -> Reply:
        """See :meth:`FollowedRun.wait`. ``on_question`` is called on the io thread: it must not call Navi."""
        return io_thread().wait(self.run.wait(timeout=timeout, on_question=on_question))

    def answer(self, question_id: str, decision: Decision) -> None:
        """See :meth:`FollowedRun.answer`."""
        io_thread().wait(self.run.answer(question_id, decision))

    def stop(self) -> None:
        """See :meth:`FollowedRun.stop`."""
        io_thread().wait(self.run.stop())

    def close(self) -> None:
        """Read no more. The run goes on."""
        io_thread().wait(self.run.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _after(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
