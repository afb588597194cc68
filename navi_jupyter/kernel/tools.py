"""``@navi.tool``: functions of the notebook as tools, which the agent calls in this kernel.

The signature is the schema, the docstring the description. Not responsible for whether the agent may call one: the
server asks the user, unless the function only reads.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
import re
import traceback
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints, overload

from ..errors import NaviError
from .client.client import current_service
from .errors import UsageError
from .shell import current_shell, lent_kernel_id

if TYPE_CHECKING:
    from pydantic import BaseModel

Function = TypeVar("Function", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EFFECTS = ("read", "note", "write", "run", "outside")
_TEXT = 200_000  # characters of a result. It travels in one message; the server gives the model less.
# The last frames are those of the user's code; a model needs no more to mend it.
_TRACEBACK = 2_000
_FRAMES = 6
_MAX_IMAGE = 3_000_000  # bytes


@dataclass(frozen=True)
class Offered:
    """A function that the agent can call, and the model of its arguments."""

    function: Callable[..., Any]
    arguments: type[BaseModel]


# Global, since the server calls into this module by name, and a cell that runs again replaces its function here.
_offered: dict[str, Offered] = {}


@overload
def tool(function: Function, /) -> Function: ...


@overload
def tool(*, effect: str = "outside", name: str | None = None) -> Callable[[Function], Function]: ...


def tool(function: Any = None, /, *, effect: str = "outside", name: str | None = None) -> Any:
    """Let the agent call this function (sync or async) in this kernel; run the cell again after changing it.

    ``effect``: what a call changes. ``read`` changes nothing, so the user is not asked; ``note``, ``write``, ``run``;
    ``outside``, the default, always asks. The function itself is returned unchanged. Raises UsageError.
    """
    if function is None:
        return partial(_offer, effect=effect, name=name)
    return _offer(function, effect=effect, name=name)


def _offer(function: Function, *, effect: str, name: str | None) -> Function:
    called = str(name or getattr(function, "__name__", ""))
    if not _NAME.fullmatch(called):
        raise UsageError(f"{called!r} cannot be a tool: it takes a function with a plain name.", field="name")
    if effect not in _EFFECTS:
        raise UsageError(f"The effect is one of {', '.join(_EFFECTS)}, not {effect!r}.", field="effect")
    arguments = _arguments_of(function, called)
    _offered[called] = Offered(function, arguments)
    definition = {
        "name": called,
        "description": inspect.cleandoc(function.__doc__ or f"The user's function {called}.")[:8000],
        "parameters": arguments.model_json_schema(by_alias=True),
        "effect": effect,
        "awaits": inspect.iscoroutinefunction(function),
    }
    _register_with_server(definition)
    return function


def _arguments_of(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """The arguments as a model: their schema, and their validation when it is called."""
    from pydantic import ConfigDict, create_model  # late: 0.1 s that only a notebook with tools pays
    from pydantic.errors import PydanticUserError

    try:
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise UsageError(f"{name} cannot be a tool: {parameter} has no name that the agent could use.")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be a tool: {str(error).splitlines()[0]}") from None
    return model


def _register_with_server(definition: Mapping[str, Any]) -> None:
    kernel = lent_kernel_id()
    if kernel is None:
        return  # a program outside of Jupyter, in which the decorator has no effect
    try:
        current_service().call("POST", f"kernels/{kernel}/tools", {"tools": [definition]})
    except NaviError as error:
        warnings.warn(f"{definition['name']} is not offered to Navi: {error.message}", stacklevel=4)


def call(name: str, arguments: str) -> dict[str, Any]:
    """Call the function that was offered under that name; ``arguments`` is JSON. Its result, or its error."""
    offered = _offered.get(name)
    if offered is None:
        return {"missing": True}
    try:
        return _result_of(offered.function(**_valid(offered, arguments)))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything, which is the result
        return _failed(error)


async def call_async(name: str, arguments: str) -> dict[str, Any]:
    """The same for a coroutine function."""
    offered = _offered.get(name)
    if offered is None:
        return {"missing": True}
    try:
        result = offered.function(**_valid(offered, arguments))
        return _result_of(await result if isinstance(result, Awaitable) else result)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything, which is the result
        return _failed(error)


def _valid(offered: Offered, arguments: str) -> dict[str, Any]:
    valid = offered.arguments.model_validate(json.loads(arguments))
    return {name: getattr(valid, name) for name in valid.model_fields_set}


def _failed(error: Exception) -> dict[str, Any]:
    from pydantic import ValidationError  # imported by then

    if isinstance(error, ValidationError):
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:5]]
        return {"failed": True, "content": {"error": "invalid_arguments", "message": "; ".join(wrong)}}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__][-_FRAMES:]
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(type(error), error)]
    content = {"error": type(error).__name__, "message": str(error)[:500], "traceback": "".join(lines)[-_TRACEBACK:]}
    return {"failed": True, "content": content}


def _result_of(result: Any) -> dict[str, Any]:
    """A result as JSON where it is that, else as text; with an image where it can be drawn."""
    if result is None or isinstance(result, str | int | float | bool):
        return {"content": result[:_TEXT] if isinstance(result, str) else result}
    image = _image(result)
    if isinstance(result, dict | list | tuple):
        text = json.dumps(result, default=str)
        if len(text) <= _TEXT:
            return {"content": json.loads(text), "picture": image}
    return {"content": _text(result)[:_TEXT], "picture": image}


def _text(result: Any) -> str:
    shell = current_shell()
    if shell is None:
        return str(result)
    data, _ = shell.display_formatter.format(result, include={"text/plain", "text/markdown"})
    return str(data.get("text/markdown") or data.get("text/plain") or result)


def _image(result: Any) -> dict[str, str] | None:
    """A figure as PNG. Bounded, because it travels as base64 in JSON."""
    content: Any = None
    if callable(getattr(type(result), "savefig", None)):
        sink = io.BytesIO()
        result.savefig(sink, format="png", bbox_inches="tight")
        content = sink.getvalue()
    elif callable(getattr(type(result), "_repr_png_", None)):
        content = result._repr_png_()
    if isinstance(content, tuple):
        content = content[0]
    if isinstance(content, bytes):
        content = base64.b64encode(content).decode()
    return {"image/png": content} if isinstance(content, str) and len(content) <= _MAX_IMAGE else None
