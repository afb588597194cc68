"""Our tools as a toolset of pydantic-ai: each call approved and bounded, and no error of a tool ends the run.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.messages import BinaryContent, ToolReturn, UserContent
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from ...errors import NaviError
from ...model.runs import Effect, Interrupt, Permission
from ...ports.agent import Ask, ToolContext, call_expects, tool_call
from ...text import plural
from ..tools.ask_user import answer_output
from ..tools.base import Tool, ToolOutput, describe_call, refusal
from ..tools.result_text import render
from .approvals import ApprovalGate, approval_question, rejected_call
from .call_execution import MAX_IMAGES, changed_since_asked, execute_call, inquiry_of, note_of_change
from .event_translation import Translator

# A tool validates its arguments itself, with messages for the model: here they only have to be an object.
_ANY_OBJECT = SchemaValidator(core_schema.dict_schema())
# Corrections of a call are bounded by the run's number of requests, not by pydantic-ai's retries.
_UNLIMITED_RETRIES = 1_000_000


def _definition(tool: Tool) -> ToolDefinition:
    """A tool as pydantic-ai knows it: one object for the same words, in all runs, so that what is made of its schema
    can be kept (``with_known_schemas`` in ``providers.models``)."""
    return _definition_of(tool.name, tool.description, json.dumps(dict(tool.parameters)), tool.effect)


@lru_cache(maxsize=1_000)
def _definition_of(name: str, description: str, parameters: str, effect: Effect) -> ToolDefinition:
    return ToolDefinition(
        name=name,
        description=description,
        parameters_json_schema=json.loads(parameters),
        # What changes something waits for the calls before it, and those after it wait for it: a list that is read
        # behind it in the same answer has what it made.
        sequential=effect is not Effect.READ,
    )


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
                toolset=self, tool_def=_definition(tool), max_retries=_UNLIMITED_RETRIES, args_validator=_ANY_OBJECT
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
        return self._tool_return(await execute_call(found, args, call_id, self._context), note)

    async def _answer(self, tool: Tool, args: Mapping[str, Any], call_id: str | None) -> ToolOutput:
        """The user's answer to the question that this call is. The run pauses for it; a subagent waits in memory."""
        verdict = await self._gate.decide(tool, args)
        if verdict.permission is Permission.DENY:
            raise ToolFailed(rejected_call(verdict.because, "not_allowed"))
        answer = self.answers.pop(call_id or "", None)
        try:
            if answer is None:
                ask = await inquiry_of(tool, args, call_id, self._gate, self._context)
                if not self._gate.in_memory:
                    self.pausing = True
                    raise ApprovalRequired
                answer = await self._gate.answer(ask)
        except NaviError as error:
            return refusal(error)
        self._gate.note_call(tool)
        return (tool.answered or answer_output)(answer)

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
                return decision.args or args, note_of_change(decision.args)
            case Permission.ASK | Permission.ALLOW:
                # After a pause pydantic-ai has put the user's arguments in place already.
                return args, note_of_change(self.edited.get(call_id or ""))

    async def _check_unchanged(self, tool: Tool, args: Mapping[str, Any], call_id: str | None, *, edited: bool) -> None:
        """What the user was shown is what is done. Raises ToolFailed where it is not so any more."""
        changed = await changed_since_asked(tool, args, self.shown.get(call_id or ""), self._context, edited=edited)
        if changed is not None:
            raise ToolFailed(changed)

    async def question(self, name: str, args: dict[str, Any], call_id: str) -> Ask:
        """The question about a call that waits, with what it would do as things are now."""
        tool = self._tools[name]
        if tool.inquires is not None:  # it was made once before the call paused, so it is one
            return replace(tool.inquires(args, self._context), tool_call_id=call_id, waits=True)
        description = await describe_call(tool, args, self._context)
        own_words = self.questions.get(call_id)
        return approval_question(name, args, call_id, own_words, source=tool.source, description=description)

    def _tool_return(self, output: ToolOutput, note: str) -> ToolReturn[str]:
        """An output as pydantic-ai takes it. Images go beside the text: providers take none in a tool's result."""
        text = note + render(output.content)
        images = list(output.images)
        if output.failed and not images:
            raise ToolFailed(text)
        if images and not self._takes_images:
            text += f"\n\n({plural(len(images), 'image')}: the user sees them, this model cannot read images.)"
            images = []
        if len(images) > MAX_IMAGES:
            text += f"\n\n({len(images)} images, of which these are the first {MAX_IMAGES}.)"
        content: list[UserContent] = [
            BinaryContent(image.content, media_type=image.media_type) for image in images[:MAX_IMAGES]
        ]
        if content:
            content.insert(0, f"({plural(len(content), 'image')} from the tool call above.)")
        return ToolReturn(return_value=text, content=content or None)
