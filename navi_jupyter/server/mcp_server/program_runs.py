"""Runs that a program waits for: one that makes its call, or one of Navi's own agent that answers its prompt.

What a run asks is answered in Navi; where the program asks its user, there as well, and the first answer counts. A
program that cancels stops its run; one whose connection breaks does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...agent.acp.run_tools import ASKS
from ...agent.program_calls import ProgramCall, ProgramCalls
from ...commands import Acceptance, Answer, Prompt, Stop, Unqueue
from ...errors import CommandNotFound, NaviError
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.runs import Interrupt, InterruptKind
from ...model.sessions import Run, RunStatus, Session
from ...ports.run_tools import CallResult, Progress
from ...text import plural
from ...visible_text import marked
from ..services import SessionServices
from .offers import CallingProgram, Elicit

log = get_logger("mcp")

QUEUED = "Waiting: the session is busy with another run."
_LOOK_EVERY = 2.0  # seconds between two looks at a run that has not reported anything
_WAIT = 20.0  # seconds for which events of a run are waited for at once
_LONGEST_QUESTION = 8_000  # characters: a longer one is shown in Navi alone, where all of it can be read
_ALLOW: Mapping[str, Any] = {
    "type": "object",
    "properties": {"allow": {"type": "boolean", "title": "Allow this call"}},
    "required": ["allow"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramRequest:
    """What a program wants, and who it is."""

    owner: str
    session: Session
    program: CallingProgram
    progress: Progress
    command_id: str = field(default_factory=lambda: new_id("c"))


class ProgramRuns:
    """One per server process."""

    def __init__(self, sessions: SessionServices, calls: ProgramCalls) -> None:
        self._sessions = sessions
        self._calls = calls
        self._tasks: set[asyncio.Task[Any]] = set()  # so that what is begun for a program that went is not collected

    async def call(self, request: ProgramRequest, tool: str, arguments: Mapping[str, Any]) -> CallResult:
        """Make a call in a run of the session. Raises NaviError where it cannot be begun."""
        asked = asyncio.Event()

        def progress(message: str) -> None:
            request.progress(message)
            if message == ASKS:
                asked.set()

        label = request.program.label
        call = ProgramCall(program=label, tool=tool, arguments=arguments, progress=progress)
        model = self._calls.add(call)
        prompt = Prompt(
            command_id=request.command_id,
            text=f"({label} calls the tool {tool}.)",
            model=model,
            traceparent=self._sessions.traceparent,
        )
        submit = self._sessions.orchestrator.submit(request.session.id, prompt, user_id=request.owner)
        try:
            return await self._following(request, submit, lambda run_id: self._called(request, run_id, call, asked))
        finally:
            self._calls.forget(model)

    async def ask(self, request: ProgramRequest, text: str) -> CallResult:
        """Have the session's agent answer a prompt. Raises NaviError where it cannot be begun."""
        prompt = Prompt(command_id=request.command_id, text=text)
        submit = self._sessions.submit(request.session.id, prompt, owner=request.owner)
        return await self._following(request, submit, lambda run_id: self._answered(request, run_id))

    async def _following(self, request: ProgramRequest, submit: Any, follow: Callable[[str], Any]) -> CallResult:
        """Submit a prompt and follow its run. A cancellation on the way ends the run, also before it has an id."""
        submitting: asyncio.Task[Acceptance] = asyncio.create_task(submit, name="navi-mcp-submit")
        try:
            await asyncio.wait({submitting})
            result: CallResult = await follow(submitting.result().run_id or "")
        except asyncio.CancelledError:
            # In a task of its own: whatever this one awaits from now on is cancelled again.
            self._keep(asyncio.create_task(self._end(request, submitting), name="navi-mcp-end"))
            raise
        return result

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, request: ProgramRequest, submitting: asyncio.Task[Acceptance]) -> None:
        """Withdraw a prompt that waits, or stop its run."""
        await asyncio.wait({submitting})
        if submitting.cancelled() or submitting.exception() is not None:
            return
        submit = self._sessions.orchestrator.submit
        try:
            try:
                await submit(request.session.id, Unqueue(target=request.command_id), user_id=request.owner)
            except CommandNotFound:  # it has begun
                stop = Stop(run_id=submitting.result().run_id)
                await submit(request.session.id, stop, user_id=request.owner)
        except NaviError as error:
            log.info("mcp_run_not_stopped", session_id=request.session.id, error=error.code)

    async def _called(
        self, request: ProgramRequest, run_id: str, call: ProgramCall, asked: asyncio.Event
    ) -> CallResult:
        asking = None
        if request.program.elicit is not None:
            asking = asyncio.create_task(
                self._ask_by_program(request, run_id, request.program.elicit, asked), name="navi-mcp-asks"
            )
        try:
            while not call.result.done():
                await asyncio.wait({call.result}, timeout=_LOOK_EVERY)
                if call.result.done():
                    break
                run = await self._run(request, run_id)
                if run is None or run.status.final:
                    call.settle(CallResult(text=_end_of(run), failed=True))
                elif run.status is RunStatus.QUEUED:
                    request.progress(QUEUED)
            return call.result.result()
        finally:
            if asking is not None:
                asking.cancel()

    async def _run(self, request: ProgramRequest, run_id: str) -> Run | None:
        """None: its session was deleted."""
        try:
            return await self._sessions.directory.run(request.session.id, run_id, owner=request.owner)
        except NaviError:
            return None

    async def _ask_by_program(self, request: ProgramRequest, run_id: str, elicit: Elicit, asked: asyncio.Event) -> None:
        """Put each question of a run through the program, too."""
        known: set[str] = set()
        while True:
            await asked.wait()
            asked.clear()
            for _ in range(50):  # the question is in the database a moment after it is announced
                fresh = [one for one in await self._open(request, run_id) if one.id not in known]
                if fresh:
                    break
                await asyncio.sleep(0.1)
            for question in fresh:
                known.add(question.id)
                self._keep(asyncio.create_task(self._put(request, question, elicit), name="navi-mcp-question"))

    async def _open(self, request: ProgramRequest, run_id: str) -> Sequence[Interrupt]:
        try:
            view = await self._sessions.directory.view(request.session.id, owner=request.owner)
        except NaviError:
            return ()
        return [one for one in view.approvals if one.run_id == run_id and one.kind is InterruptKind.APPROVAL]

    async def _put(self, request: ProgramRequest, question: Interrupt, elicit: Elicit) -> None:
        text = _question_text(question)
        if text is None:
            request.progress(f"{ASKS} It is too long to be shown here.")
            return
        try:
            answer = await elicit(text, _ALLOW)
        except RuntimeError as error:
            log.info("mcp_question_not_put", interrupt_id=question.id, reason=str(error)[:200])
            return
        if answer.cancelled:
            return  # it can still be answered in Navi
        allowed = answer.content is not None and answer.content.get("allow") is True
        by = f"by {request.program.label}"
        payload = {"approved": True} if allowed else {"approved": False, "message": f"Declined {by}."}
        reply = Answer(interrupt_id=question.id, status="resolved", payload=payload)
        with suppress(NaviError):  # it was answered in Navi meanwhile
            await self._sessions.submit(request.session.id, reply, owner=request.owner)

    async def _answered(self, request: ProgramRequest, run_id: str) -> CallResult:
        """The answer of a run to its prompt, once it is over."""
        asked, after, written = asyncio.Event(), 0, 0
        asking = None
        if request.program.elicit is not None:
            asking = asyncio.create_task(
                self._ask_by_program(request, run_id, request.program.elicit, asked), name="navi-mcp-asks"
            )
        try:
            while True:
                run = await self._run(request, run_id)
                if run is None or run.status.final:
                    return await self._answer_of(request, run)
                if run.status is RunStatus.QUEUED:
                    request.progress(QUEUED)
                if await self._open(request, run_id):
                    request.progress(ASKS)
                    asked.set()
                events, after = await self._sessions.orchestrator.page(
                    request.session.id, owner=request.owner, after=after, limit=500, wait=_WAIT
                )
                for envelope in map(json.loads, events):
                    after, event = envelope["seq"], envelope["event"]
                    if envelope["run_id"] != run_id:
                        continue
                    if event["type"] == "TEXT_MESSAGE_CONTENT":
                        written += len(event["delta"])
                        request.progress(f"Navi writes: {plural(written, 'character')} so far.")
                    elif event["type"] == "TOOL_CALL_START":
                        request.progress(f"Navi calls {event['toolCallName']}.")
        except NaviError as error:
            return CallResult(text=error.message, failed=True)
        finally:
            if asking is not None:
                asking.cancel()

    async def _answer_of(self, request: ProgramRequest, run: Run | None) -> CallResult:
        if run is None:
            return CallResult(text=_end_of(run), failed=True)
        messages = await self._sessions.directory.messages(request.session.id, owner=request.owner)
        texts = [
            one.content
            for one in messages
            if one.run_id == run.id and one.role == "assistant" and one.subagent_run_id is None and one.content
        ]
        answer = "\n\n".join(texts)
        if run.status is RunStatus.COMPLETED:
            return CallResult(text=answer or "(no answer)")
        return CallResult(text=f"{answer}\n\n({_end_of(run)})".strip(), failed=True)


def _end_of(run: Run | None) -> str:
    if run is None:
        return "The session was deleted."
    return run.error.message if run.error is not None else f"The run was {run.status.value}."


def _question_text(question: Interrupt) -> str | None:
    """A question whole, with what cannot be seen marked; None where it is too long to be read in a program's form."""
    parts = [question.message]
    for detail in question.details:
        if detail.omitted:
            return None
        parts.append(f"{detail.label}:\n{detail.text}")
    text = "\n\n".join(parts)
    return marked(text) if len(text) <= _LONGEST_QUESTION else None
