"""Our tools for pydantic-ai: each call cleared, bounded, and survived whatever the tool does.

Imports pydantic_ai: only :mod:`.driver` and what it loads may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.messages import BinaryContent, ToolReturn, UserContent
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from ...errors import NaviError
from ...events import Custom, Event
from ...log_setup import get_logger
from ...model.runs import Effect, Permission
from ...ports.agent import ToolContext, tool_call
from ...redaction import redact
from ..tools.base import Tool, ToolOutput, call_recorded
from ..tools.functions import refusal
from ..tools.rendering import cut, readable, render
from .approvals import ApprovalGate, rejected_call
from .event_translation import Translator

log = get_logger("agent")

_ANY_OBJECT = SchemaValidator(core_schema.dict_schema())
"""A tool validates its arguments itself; here they must only be an object."""
_ONE_AFTER_ANOTHER = (Effect.RUN, Effect.WRITE)
"""What changes a kernel or a file waits for the calls before it, and those after it wait for it."""
_UNBOUNDED = 1_000_000
"""Corrections of a call are bounded by the run's requests, not by pydantic-ai."""
_MOST_PICTURES = 8
"""Of one call."""


class Calls(AbstractToolset[None]):
    """The tools of one agent in one run."""

    def __init__(
        self,
        tools: Sequence[Tool],
        *,
        gate: ApprovalGate,
        context: ToolContext,
        translator: Translator,
        sees: bool,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._gate = gate
        self._context = context
        self._translator = translator
        self._sees = sees
        """Whether the model takes images."""
        self.edited: dict[str, dict[str, Any]] = {}
        """By our id of the call: the arguments that the user put in place of the model's."""
        self.pausing = False
        """Set when a call of the present response waits for the user in the database."""

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
                    sequential=tool.effect in _ONE_AFTER_ANOTHER,
                ),
                max_retries=_UNBOUNDED,
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
        """One call, in a task of its own. Raises ApprovalRequired, and ToolFailed for the model to read."""
        ours = self._translator.ours(ctx.tool_call_id or "")
        tool_call.set(ours)
        found = self._tools[name]
        args, note = await self._cleared(found, tool_args, ours, asked=ctx.tool_call_approved)
        output = await self._outcome(found, args)
        return self._told(output, note)

    async def _cleared(
        self, tool: Tool, args: dict[str, Any], ours: str | None, *, asked: bool
    ) -> tuple[dict[str, Any], str]:
        """The arguments to call it with, and what to say about them."""
        match self._gate.decide(tool):
            case Permission.DENY:
                raise ToolFailed(rejected_call(self._gate.explain(tool), "not_allowed"))
            case Permission.ASK if asked:
                edited = self.edited.get(ours or "")
                return args, _changed(edited)
            case Permission.ASK if not self._gate.in_memory:
                self.pausing = True
                raise ApprovalRequired
            case Permission.ASK:
                decision = await self._gate.ask(tool, args, ours)
                if not decision.approved:
                    raise ToolFailed(rejected_call(decision.message))
                return decision.args or args, _changed(decision.args)
            case Permission.ALLOW:
                return args, _changed(self.edited.get(ours or ""))

    async def _outcome(self, tool: Tool, args: Mapping[str, Any]) -> ToolOutput:
        """What the tool gives back; what it raises is told to the model, never the end of the run."""
        try:
            return await call_recorded(tool, args, self._context)
        except NaviError as error:
            return refusal(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._reached(tool)
                raise
            return _broken(tool, "it was cancelled from within")
        except Exception as error:  # a supervisor: whatever a tool does, the run goes on
            log.warning("tool_failed", tool=tool.name, source=tool.source, error=type(error).__name__, exc_info=True)
            return _broken(tool, f"{type(error).__name__}: {error}")

    def _reached(self, tool: Tool) -> None:
        """Say that a stop has ended this call, unless the tool has said so itself, and better."""
        ours = tool_call.get()
        if self._context.stop.stopping and ours not in self._translator.reached:
            self._context.emit(reached(self._context.run_id, "tool", f"{tool.name} was cancelled."))

    def _told(self, output: ToolOutput, note: str) -> ToolReturn[str]:
        text = note + render(output.content)
        pictures = list(output.pictures)
        if output.failed and not pictures:
            raise ToolFailed(text)
        if pictures and not self._sees:
            text += f"\n\n({_count(len(pictures))}: the user sees them, this model can not read images.)"
            pictures = []
        if len(pictures) > _MOST_PICTURES:
            text += f"\n\n({len(pictures)} images, of which these are the first {_MOST_PICTURES}.)"
        shown: list[UserContent] = [
            BinaryContent(picture.content, media_type=picture.media_type) for picture in pictures[:_MOST_PICTURES]
        ]
        if shown:
            shown.insert(0, f"({_count(len(shown))} from the tool call above.)")
        return ToolReturn(return_value=text, content=shown or None)


def reached(run_id: str, what: str, message: str) -> Event:
    """A stop has ended this work."""
    value = {"action": "reached", "run_id": run_id, "what": what, "message": message}
    return Custom(name="navi.stop", value=value)


def _changed(args: Mapping[str, Any] | None) -> str:
    """For the transcript and for the model: the call was not made as the model wrote it."""
    if args is None:
        return ""
    said = cut(json.dumps(args, ensure_ascii=False, default=str), limit=10_000)
    return f"(The user changed the arguments. It was called with {said}.)\n"


def _broken(tool: Tool, why: str) -> ToolOutput:
    message = redact(readable(cut(f"{tool.name} failed: {why}", limit=2000)))
    return ToolOutput(content={"error": "tool_failed", "message": message}, failed=True)


def _count(pictures: int) -> str:
    return "1 image" if pictures == 1 else f"{pictures} images"
