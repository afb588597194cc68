"""The tools that a model and the offline backend both call. One function each; its signature is the schema.

A tool finds whom it works for in ``ports.tool_context``. A :class:`NaviError` becomes a result that the caller can read
and act on (``{"error": code, "message": …}``); anything else is a bug and ends the run.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ...errors import InvalidRequest, NaviError
from ...ports import ToolContext, tool_context
from .clock import current_time
from .history import session_history
from .recalls import cancel_recall, create_recall, list_recalls

Tool = Callable[..., Awaitable[Mapping[str, Any]]]


def _guarded(function: Tool) -> Tool:
    """``function`` with its NaviErrors as results."""

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
        try:
            return await function(*args, **kwargs)
        except NaviError as error:
            result = {"error": error.code, "message": error.message}
            return result if error.field is None else {**result, "field": error.field}

    return guarded


TOOLS: Mapping[str, Tool] = {
    function.__name__: _guarded(function)
    for function in (create_recall, list_recalls, cancel_recall, session_history, current_time)
}
"""By name, in the order they are shown."""


@functools.cache
def _arguments(name: str) -> type[BaseModel]:
    """The arguments of a tool as a model: their validation and their JSON schema."""
    function = inspect.unwrap(TOOLS[name])
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(function).parameters.values()
    }
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def describe_tools() -> list[dict[str, Any]]:
    """For ``GET tools``: ``{"name","description","parameters"}`` each, ``parameters`` a JSON schema."""
    return [
        {
            "name": name,
            "description": inspect.cleandoc(tool.__doc__ or ""),
            "parameters": _arguments(name).model_json_schema(by_alias=True),
        }
        for name, tool in TOOLS.items()
    ]


async def call_tool(name: str, arguments: Mapping[str, Any], context: ToolContext) -> str:
    """Call a tool as a model would; what the model would read, as JSON. Raises InvalidRequest on bad arguments."""
    try:
        valid = _arguments(name).model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRequest(f"{name}: {first['msg']}", field=".".join(map(str, first["loc"]))) from None
    except KeyError:
        raise InvalidRequest(f"There is no tool named {name}.", field="name") from None
    values = {field: getattr(valid, field) for field in valid.model_fields_set}
    token: Token[ToolContext] = tool_context.set(context)
    try:
        result = await TOOLS[name](**values)
    finally:
        tool_context.reset(token)
    return json.dumps(result, ensure_ascii=False)


__all__ = ["TOOLS", "Tool", "call_tool", "describe_tools"]
