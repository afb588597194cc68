"""Tools: built-in ones, those of packages, functions of users' kernels, tools of MCP servers; and functions as tools.

A tool finds the run that calls it in ``ports.agent.tool_context``, and the id of its call in ``ports.agent.tool_call``.
A NaviError becomes a result that the caller can read and act on; any other exception reaches the model as a failure.
Not responsible for whether a tool may run (``permissions``).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar, get_type_hints, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ...errors import NaviError, ToolUnavailable
from ...log_setup import get_logger
from ...model.runs import CallDetail, Effect, Interrupt
from ...output_text import OutputImage
from ...ports.agent import Ask, ToolContext, subagent, tool_call
from ...ports.jupyter_access import starting_server
from ...ports.tracing import Attributes, tracing
from ...text import truncate
from .call_details import CallDescription, argument_parts, fingerprint_of, text_part

T = TypeVar("T")

log = get_logger("agent")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutput:
    """The result of a tool."""

    content: Any  # what the model reads: text, or a JSON value
    images: Sequence[OutputImage] = ()  # for a model that takes images
    failed: bool = False  # the call did not do what was asked; the content has the reason


Question = Callable[[Mapping[str, Any], ToolContext], Awaitable[str | None]]
"""From the arguments of a call, as the model gave them, to a question for the user; None: this call has none. Raises
NaviError, such as ToolDenied, for a call that is not to be made at all."""


Inquiry = Callable[[Mapping[str, Any], ToolContext], Ask]
"""From the arguments of a call, as the model gave them, to a question whose answer is the result of the call. Raises
NaviError where they make none."""


Describes = Callable[[Mapping[str, Any], ToolContext], Awaitable[CallDescription]]
"""From the arguments of a call, as the model gave them, to what it would do. Raises NaviError where it would fail."""
BUILTIN = "builtin"  # the source of the tools that come with Navi


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A function that a model can call in a run."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON schema of the arguments: an object
    effect: Effect
    # Takes the arguments as the model gave them, validates them, and reports a mistake in them as a failed output. When
    # it is cancelled, it ends its work (a kernel's cell, an MCP request) before it raises CancelledError.
    call: Callable[[Mapping[str, Any]], Awaitable[ToolOutput]]
    source: str = BUILTIN  # or `package:<distribution>`, `kernel`, `mcp:<server>`
    asks: Question | None = None  # what a call of it asks the user first, whatever permits it
    describes: Describes | None = None  # what the user sees of a call; None: its arguments
    inquires: Inquiry | None = None  # what a call of it is: a question to the user, whose answer is its result
    answered: Callable[[Interrupt], ToolOutput] | None = None  # the result of a settled question; None: as ask_user has
    # Of a built-in tool: its results hold only what Navi itself knows or has made, no text of files, outputs or pages.
    own: bool = False


# What changes nothing outside Navi. `OUTSIDE` is not among them: it stands for what is not known.
_HARMLESS = (Effect.READ, Effect.NOTE)
# Of Navi's own things these are not the same when they are done twice: a run that is started again must not.
_NOT_REPEATABLE = ("create_recall",)


async def call_recorded(tool: Tool, args: Mapping[str, Any], context: ToolContext) -> ToolOutput:
    """Call the tool; if it must not be called a second time after a crash, it is on record before it starts."""
    if tool.effect not in _HARMLESS or tool.name in _NOT_REPEATABLE:
        await context.record_effect(tool.name)
    with (
        starting_server(),
        context.stop.ends_call(),
        tracing.get().span(f"execute_tool {tool.name}", _about_call(tool)) as span,
    ):
        output = await tool.call(args)
        if output.failed:
            span.fail("tool_failed")
        if tracing.get().content:
            span.set(
                {
                    "gen_ai.tool.call.arguments": _as_content(args),
                    "gen_ai.tool.call.result": _as_content(output.content),
                }
            )
        return output


_MOST_CONTENT = 16 * 1024  # characters of arguments and of a result, where spans have content at all


def _as_content(value: object) -> str:
    return truncate(json.dumps(value, ensure_ascii=False, default=str), _MOST_CONTENT)


def _about_call(tool: Tool) -> Attributes:
    """By the semantic conventions for generative AI. Neither arguments nor descriptions: these are content."""
    if not tracing.get().on:
        return {}
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool.name,
        "gen_ai.tool.call.id": tool_call.get(),
        "gen_ai.tool.type": "function",
        "navi.tool.source": tool.source,
        "navi.subagent": subagent.get(),
    }


async def describe_call(tool: Tool, args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    """What a call of the tool would do, for the user who decides about it. Never raises."""
    try:
        if tool.describes is None:
            described = CallDescription(details=tuple(argument_parts(args)))
        else:
            with starting_server():
                described = await tool.describes(args, context)
    except NaviError as error:
        described = _undescribed(args, f"As things are now the call would fail: {error.message}")
    except Exception as error:  # arguments are a model's, and tools are other people's code: asked about all the same
        log.warning("call_not_described", tool=tool.name, error=type(error).__name__, exc_info=True)
        described = _undescribed(args, f"This call could not be described ({type(error).__name__}).")
    return replace(described, details=(*_whose(tool), *described.details))


def _undescribed(args: Mapping[str, Any], why: str) -> CallDescription:
    # It has a fingerprint, so that it is asked about again once it can be described.
    parts = (*argument_parts(args), text_part("Note", why))
    return CallDescription(details=parts, fingerprint=fingerprint_of("undescribed", why))


def _whose(tool: Tool) -> Sequence[CallDetail]:
    """Whose tool it is, where it is not Navi's own; what another program writes about it is labelled as such."""
    kind, _, name = tool.source.partition(":")
    label = {"mcp": "Tool of the MCP server", "package": "Tool of the package", "kernel": "Function in your kernel"}
    if kind not in label:
        return ()
    parts = [text_part(label[kind], name or tool.name)]
    if tool.description:
        parts.append(text_part("What it says about itself", tool.description, foreign=True))
    return parts


def available(part: T | None, name: str) -> T:
    """A part of the server that a tool needs. Raises ToolUnavailable where this server does not have it."""
    if part is None:
        raise ToolUnavailable(f"This server has no {name}.")
    return part


def matches(pattern: str, tool: Tool) -> bool:
    """Whether a shell pattern matches the name, or as ``effect:run`` or ``source:mcp:*`` the effect or the source."""
    kind, colon, rest = pattern.partition(":")
    text = {"effect": tool.effect.value, "source": tool.source}.get(kind) if colon else None
    return fnmatchcase(tool.name, pattern) if text is None else fnmatchcase(text, rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolNote:
    """A tool in a list, also one that cannot be called."""

    name: str
    source: str
    tool: Tool | None = None
    why: str | None = None  # why it cannot be called; None when it can


class ToolSource(Protocol):
    """Provides tools. Asked at the beginning of each run; must be quick, or bound its own time."""

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """Those that can be called now in this session. Never raises for one that cannot."""


@runtime_checkable
class ListedSource(ToolSource, Protocol):
    """A source that can also list its tools without a run."""

    async def known(self, context: ToolContext | None = None) -> Sequence[ToolNote]:
        """For ``GET tools``; with the context of a session also those of its user alone. Starts nothing. Never
        raises."""


def as_text(output: ToolOutput) -> str:
    """The whole content of an output: text as it is, else JSON."""
    content = output.content
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)


Function = Callable[..., Awaitable[Any]]


def arguments_of(function: Function, name: str) -> type[BaseModel]:
    """The arguments of a function as a model: their validation and JSON schema. Unknown arguments are refused."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        one.name: (hints.get(one.name, Any), ... if one.default is inspect.Parameter.empty else one.default)
        for one in inspect.signature(function).parameters.values()
    }
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def mistakes_in(error: ValidationError) -> str:
    """What is wrong with arguments, for the model: the first five mistakes, each with its place."""
    wrong = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:5]]
    return "; ".join(wrong)


def refusal(error: NaviError) -> ToolOutput:
    """An error as an output that the model can read and act on."""
    content: dict[str, Any] = {"error": error.code, "message": error.message}
    if error.field is not None:
        content["field"] = error.field
    return ToolOutput(content=content, failed=True)


def tool(
    function: Function,
    effect: Effect,
    *,
    name: str | None = None,
    source: str = BUILTIN,
    asks: Question | None = None,
    describes: Describes | None = None,
    own: bool = False,
) -> Tool:
    """``function`` as a tool: its signature is the schema, its docstring the description, its result the content.

    A parameter's type is what pydantic can validate; ``Annotated[..., Field(description=...)]`` describes it to the
    model. A ToolOutput is passed on as it is.
    """
    tool_name = name or function.__name__
    arguments = arguments_of(function, tool_name)

    async def call(given: Mapping[str, Any]) -> ToolOutput:
        try:
            valid = arguments.model_validate(dict(given))
        except ValidationError as error:  # as an output from which the model can correct them
            return ToolOutput(content={"error": "invalid_arguments", "message": mistakes_in(error)}, failed=True)
        try:
            result = await function(**{field: getattr(valid, field) for field in valid.model_fields_set})
        except NaviError as error:
            return refusal(error)
        return result if isinstance(result, ToolOutput) else ToolOutput(content=result)

    return Tool(
        name=tool_name,
        description=inspect.cleandoc(function.__doc__ or ""),
        parameters=arguments.model_json_schema(by_alias=True),
        effect=effect,
        call=call,
        source=source,
        asks=asks,
        describes=describes,
        own=own,
    )
