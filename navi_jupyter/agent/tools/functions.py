"""Python functions as tools: the signature is the schema, the docstring the description.

A parameter's type is what pydantic can validate; ``Annotated[..., Field(description=...)]`` says more about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ...errors import NaviError
from ...model.runs import Effect
from .base import Tool, ToolOutput

Function = Callable[..., Awaitable[Any]]


def arguments_of(function: Function, name: str) -> type[BaseModel]:
    """The arguments of a function as a model: their validation and their JSON schema. Unknown ones are refused."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(function).parameters.values()
    }
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def refusal(error: NaviError) -> ToolOutput:
    """An error as what the caller can read and act on."""
    content: dict[str, Any] = {"error": error.code, "message": error.message}
    if error.field is not None:
        content["field"] = error.field
    return ToolOutput(content=content, failed=True)


def misfit(error: ValidationError) -> ToolOutput:
    """Arguments that do not fit, said so that they can be corrected."""
    wrong = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:5]]
    return ToolOutput(content={"error": "invalid_arguments", "message": "; ".join(wrong)}, failed=True)


def tool(function: Function, effect: Effect, *, name: str | None = None, source: str = "builtin") -> Tool:
    """``function`` as a tool. What it returns is the content, unless it returns a ToolOutput."""
    called = name or function.__name__
    arguments = arguments_of(function, called)

    async def call(given: Mapping[str, Any]) -> ToolOutput:
        try:
            valid = arguments.model_validate(dict(given))
        except ValidationError as error:
            return misfit(error)
        try:
            result = await function(**{field: getattr(valid, field) for field in valid.model_fields_set})
        except NaviError as error:
            return refusal(error)
        return result if isinstance(result, ToolOutput) else ToolOutput(content=result)

    return Tool(
        name=called,
        description=inspect.cleandoc(function.__doc__ or ""),
        parameters=arguments.model_json_schema(by_alias=True),
        effect=effect,
        call=call,
        source=source,
    )
