"""The parameters and results of a port's methods as JSON, by their type hints: for calls over a link.

A callback (``on_…``) is no value. ``on_output`` is called with events of the call; others are awaited at the other end:
each call of one is a call over the link in return. Bytes are base64. Of a session,
fields that this version does not know are left out, since both sides may be of different versions.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from ...errors import InvalidRequest
from ...model.sessions import Session
from ...ports.jupyter import OnOutput

ON_OUTPUT = "on_output"
Callback = Callable[[Any], Awaitable[None]]
_BYTES = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", arbitrary_types_allowed=True)


class MethodCodec:
    """One method of a port."""

    def __init__(self, function: Any) -> None:
        hints = get_type_hints(function)
        result = hints.pop("return")
        self._signature = inspect.signature(function)
        self._params = {name: _adapter(hint) for name, hint in hints.items() if not name.startswith("on_")}
        self.takes_output = ON_OUTPUT in hints
        awaited = [name for name in hints if name.startswith("on_") and name != ON_OUTPUT]
        self._callbacks = {name: _adapter(get_args(hints[name])[0][0]) for name in awaited}
        self._result = _adapter(result)

    def encode_params(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], OnOutput | None, dict[str, Callback]]:
        """What is sent, what is called with outputs, and what is awaited with values as they come, by name."""
        bound = self._signature.bind(None, *args, **kwargs).arguments
        values = {name: value for name, value in bound.items() if name in self._params}
        callbacks = {name: self._decoding(name, bound[name]) for name in self._callbacks if name in bound}
        sent = {name: _dump(self._params[name], value) for name, value in values.items()}
        return sent, bound.get(ON_OUTPUT), callbacks

    def _decoding(self, name: str, callback: Callback) -> Callback:
        async def call(given: Any) -> None:
            await callback(self._callbacks[name].validate_python(given))

        return call

    def callbacks(self, call: Callable[[str, Any], Awaitable[Any]]) -> dict[str, Callback]:
        """What is awaited in place of the callbacks at the other end: ``call`` with the name and the encoded value."""

        def encoding(name: str) -> Callback:
            async def callback(value: Any) -> None:
                await call(name, _dump(self._callbacks[name], value))

            return callback

        return {name: encoding(name) for name in self._callbacks}

    def decode_params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Raises InvalidRequest."""
        try:
            return {
                name: self._params[name].validate_python(_known(name, value), strict=False)
                for name, value in given.items()
                if name in self._params
            }
        except ValidationError as error:
            raise InvalidRequest(f"The call does not fit this version of Navi: {error.errors()[0]['msg']}") from error

    def encode_result(self, value: Any) -> Any:
        return _dump(self._result, value)

    def decode_result(self, given: Any) -> Any:
        """Raises InvalidRequest."""
        try:
            return self._result.validate_python(given)
        except ValidationError as error:
            raise InvalidRequest(f"The answer of your server does not fit: {error.errors()[0]['msg']}") from error


@lru_cache(maxsize=256)
def codec_of(port: type, method: str) -> MethodCodec:
    """The codec of a port's method. Raises InvalidRequest where the port has none of that name."""
    function = None if method.startswith("_") else vars(port).get(method)
    if function is None or not inspect.iscoroutinefunction(function):
        raise InvalidRequest(f"There is no method {method[:50]!r}.")
    return MethodCodec(function)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=_BYTES)
    except PydanticUserError:  # a type with a configuration of its own
        return TypeAdapter(hint)


def _dump(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.dump_python(value, mode="json", by_alias=True)


def _known(name: str, value: Any) -> Any:
    return known_fields(Session, value) if name == "session" else value


def known_fields(kind: type[BaseModel], value: Any) -> Any:
    """A value's JSON object without fields that this version does not know: the other side may have a later one."""
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if name in kind.model_fields}
