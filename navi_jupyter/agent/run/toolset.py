"""Our tools as a toolset of pydantic-ai: each call approved and bounded, and no error of a tool ends the run.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.messages import BinaryContent, ToolReturn, UserContent
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from ...errors import NaviError, ToolUnavailable
from ...input.json_input import well_formed
from ...log_setup import get_logger
from ...model.runs import Effect, Interrupt, Permission
from ...ports.agent import Ask, ToolContext, call_expects, tool_call
from ...ports.stop import stop_reached
from ...redaction import redact
from ...text import plural
from ..tools.ask_user import NO_ONE_TO_ASK, answer_output
from ..tools.base import Tool, ToolOutput, call_recorded, describe_call, refusal
from ..tools.result_text import cut, render
from .approvals import ApprovalGate, approval_question, rejected_call
from .event_translation import Translator

log = get_logger("agent")

# A tool validates its arguments itself, with messages for the model: here they only have to be an object.
_ANY_OBJECT = SchemaValidator(core_schema.dict_schema())
# Corrections of a call are bounded by the run's number of requests, not by pydantic-ai's retries.
_UNLIMITED_RETRIES = 1_000_000
_CHANGED = (
    "What this call works on was changed after the user was asked about it, so it was not made. Look at it as it is "
    "now and call again if it is still right: the user is asked again, with what is there then."
)
_EDITED = (
    "The user changed the arguments to {args}. What is there was not shown to them, or was changed since, so the call "
    "was not made. Call with exactly these arguments: the user is asked again, with what is there then."
)
_MAX_IMAGES = 8  # of one call that a model is given


class AgentToolset(AbstractToolset[None]):
    """The tools of one agent in one run."""

    def __init__(
        self,
        tools: Sequence[Tool],
        *,
        gate: ApprovalGate,
        context: ToolContext,
        translator: Translator,
        takes_images: bool,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._gate = gate
        self._context = context
        self._translator = translator
        self._takes_images = takes_images  # whether the model does
        # By our id of the call: the arguments that the user put in place of the model's.
        self.edited: dict[str, dict[str, Any]] = {}
        self.questions: dict[str, str | None] = {}  # by our id of a call that waits: its question in its own words
        self.shown: dict[str, str | None] = {}
        """By our id of a call that the user has approved: the fingerprint of what they were shown."""
        self.answers: dict[str, Interrupt] = {}  # by our id of a call that asked the user something: what they answered
        self.pausing = False  # set when a call of the present response waits for the user in the database

    @property
    def id(self) -> str | None:
        return None

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:  # noqa: ARG002  pydantic-ai's
        return {
            tool.name: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=tool.name,
                    description=tool.description,
                    parameters_json_schema=dict(tool.parameters),
                    # What changes something waits for the calls before it, and those after it wait for it: a list
                    # that is read behind it in the same answer has what it made.
                    sequential=tool.effect is not Effect.READ,
                ),
                max_retries=_UNLIMITED_RETRIES,
                args_validator=_ANY_OBJECT,
            )
            for tool in self._tools.values()
        }

    async def call_tool(
        self,
        name: str,
        tool_args: dict[str, Any],
        ctx: RunContext[None],
        tool: ToolsetTool[None],  # noqa: ARG002  pydantic-ai's
    ) -> ToolReturn[str]:
        """Execute one call, in a task of its own. Raises ApprovalRequired, and ToolFailed for the model to read."""
        call_id = self._translator.our_id(ctx.tool_call_id or "")
        tool_call.set(call_id)
        call_expects.set(None)
        found = self._tools[name]
        if found.inquires is not None:
            return self._tool_return(await self._answer(found, tool_args, call_id), "")
        args, note = await self._approved_args(found, tool_args, call_id, answered=ctx.tool_call_approved)
        await self._check_unchanged(found, args, call_id, edited=bool(note))
        self._gate.note_call(found)
        return self._tool_return(await self._output(found, args, call_id), note)

    async def _answer(self, tool: Tool, args: Mapping[str, Any], call_id: str | None) -> ToolOutput:
        """The user's answer to the question that this call is. The run pauses for it; a subagent waits in memory."""
        verdict = await self._gate.decide(tool, args)
        if verdict.permission is Permission.DENY:
            raise ToolFailed(rejected_call(verdict.because, "not_allowed"))
        answer = self.answers.pop(call_id or "", None)
        try:
            if answer is None:
                ask = await self._inquiry(tool, args, call_id)
                if not self._gate.in_memory:
                    self.pausing = True
                    raise ApprovalRequired
                answer = await self._gate.answer(ask)
        except NaviError as error:
            return refusal(error)
        return answer_output(answer)

    async def _inquiry(self, tool: Tool, args: Mapping[str, Any], call_id: str | None) -> Ask:
        """The question that a call is. Raises NaviError where it is none, or the run must not ask."""
        if tool.inquires is None:
            raise TypeError(f"{tool.name} asks the user nothing")
        if not await self._gate.may_wait(tool):
            raise ToolUnavailable(NO_ONE_TO_ASK)
        return replace(tool.inquires(args, self._context), tool_call_id=call_id, waits=True)

    async def _approved_args(
        self, tool: Tool, args: dict[str, Any], call_id: str | None, *, answered: bool
    ) -> tuple[dict[str, Any], str]:
        """The arguments to call it with, and a note for the model where the user has changed them."""
        verdict = await self._gate.decide(tool, args)
        match verdict.permission:
            case Permission.DENY:
                raise ToolFailed(rejected_call(verdict.because, "not_allowed"))
            case Permission.ASK if not answered and not self._gate.in_memory:
                self.pausing = True
                self.questions[call_id or ""] = verdict.question
                raise ApprovalRequired
            case Permission.ASK if not answered:
                description = await describe_call(tool, args, self._context)
                decision = await self._gate.ask(tool, args, call_id, verdict.question, description)
                self.shown[call_id or ""] = description.fingerprint
                if not decision.approved:
                    raise ToolFailed(rejected_call(decision.message))
                return decision.args or args, _note_of_change(decision.args)
            case Permission.ASK | Permission.ALLOW:
                # After a pause pydantic-ai has put the user's arguments in place already.
                return args, _note_of_change(self.edited.get(call_id or ""))

    async def _check_unchanged(self, tool: Tool, args: Mapping[str, Any], call_id: str | None, *, edited: bool) -> None:
        """What the user was shown is what is done. Raises ToolFailed where it is not so any more."""
        shown = self.shown.get(call_id or "")
        if shown is None:
            return
        now = await describe_call(tool, args, self._context)
        if now.fingerprint != shown:
            message = _EDITED.format(args=_written(args)) if edited else _CHANGED
            raise ToolFailed(rejected_call(message, "changed_since_asked"))
        # Between here and the work there is time for one more change: the tool looks once more.
        call_expects.set(now.expects)

    async def question(self, name: str, args: dict[str, Any], call_id: str) -> Ask:
        """The question about a call that waits, with what it would do as things are now."""
        tool = self._tools[name]
        if tool.inquires is not None:  # it was made once before the call paused, so it is one
            return replace(tool.inquires(args, self._context), tool_call_id=call_id, waits=True)
        description = await describe_call(tool, args, self._context)
        own_words = self.questions.get(call_id)
        return approval_question(name, args, call_id, own_words, source=tool.source, description=description)

    async def _output(self, tool: Tool, args: Mapping[str, Any], call_id: str | None) -> ToolOutput:
        """The output of the tool. What it raises becomes a failed output: the run goes on."""
        try:
            return await call_recorded(tool, args, self._context)
        except NaviError as error:
            return refusal(error)
        except asyncio.CancelledError:
            # A tool may let a cancellation of something of its own through: only one of this task ends the call.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._emit_stop(tool, call_id)
                raise
            return _failed_output(tool, "it was cancelled from within")
        except Exception as error:  # tools are other people's code, too: none of them may end the run
            log.warning("tool_failed", tool=tool.name, source=tool.source, error=type(error).__name__, exc_info=True)
            return _failed_output(tool, f"{type(error).__name__}: {error}")

    def _emit_stop(self, tool: Tool, call_id: str | None) -> None:
        """Emit how a stop has ended this call: what the tool has reported, else that it was cancelled."""
        stop = self._context.stop
        report = stop.reports.pop(call_id or "", None)
        if report is None and stop.stopping:
            report = ("tool", f"{tool.name} was cancelled.")
        if report is not None:
            self._context.emit(stop_reached(self._context.run_id, *report))

    def _tool_return(self, output: ToolOutput, note: str) -> ToolReturn[str]:
        """An output as pydantic-ai takes it. Images go beside the text: providers take none in a tool's result."""
        text = note + render(output.content)
        images = list(output.images)
        if output.failed and not images:
            raise ToolFailed(text)
        if images and not self._takes_images:
            text += f"\n\n({plural(len(images), 'image')}: the user sees them, this model cannot read images.)"
            images = []
        if len(images) > _MAX_IMAGES:
            text += f"\n\n({len(images)} images, of which these are the first {_MAX_IMAGES}.)"
        content: list[UserContent] = [
            BinaryContent(image.content, media_type=image.media_type) for image in images[:_MAX_IMAGES]
        ]
        if content:
            content.insert(0, f"({plural(len(content), 'image')} from the tool call above.)")
        return ToolReturn(return_value=text, content=content or None)


def _note_of_change(args: Mapping[str, Any] | None) -> str:
    """For the transcript and for the model: the call was not made as the model wrote it."""
    if args is None:
        return ""
    return f"(The user changed the arguments. It was called with {_written(args)}.)\n"


def _written(args: Mapping[str, Any]) -> str:
    return cut(json.dumps(args, ensure_ascii=False, default=str), limit=10_000)


def _failed_output(tool: Tool, why: str) -> ToolOutput:
    message = redact(well_formed(cut(f"{tool.name} failed: {why}", limit=2000)))
    return ToolOutput(content={"error": "tool_failed", "message": message}, failed=True)
