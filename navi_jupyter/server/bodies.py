"""JSON bodies and commands, checked: from text to the input types of ``wire.INPUTS``, naming the field of a mistake."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import InvalidRequest, InvalidSchedule, NaviError
from ..input.json_input import decoded, load_json, well_formed_json
from .wire import INPUTS

_ADAPTERS: dict[str, TypeAdapter[Any]] = {}
_NOT_JSON = ("text/", "multipart/", "image/", "audio/", "video/", "application/xml", "application/octet-stream")


def check_content_type(content_type: str) -> None:
    """Refuse a body that is declared as something else than JSON.

    A missing type, and the form type that curl sends unless asked otherwise, are taken as JSON.
    """
    if content_type.lower().lstrip().startswith(_NOT_JSON):
        raise InvalidRequest("The body must be JSON: send Content-Type: application/json.", field="Content-Type")


def parse(name: str, text: bytes | str) -> Any:
    """JSON text as the input type of that name. Raises InvalidRequest, InvalidSchedule, naming the field."""
    if not text.strip():
        raise InvalidRequest("The body is missing; send a JSON object.", field="body")
    adapter = _ADAPTERS.get(name)
    if adapter is None:  # built at first use: an adapter of a union costs milliseconds
        adapter = _ADAPTERS[name] = TypeAdapter(INPUTS[name])
    try:
        text = well_formed_json(decoded(text))
        # Strict: "5" for 5, or 1 for true, is a mistake of the client that would else show up later.
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise _error_of(error, text) from None
    except UnicodeError:
        raise InvalidRequest("The body is not valid JSON.", field="body") from None


def valid_name(kind: Any, name: str) -> str:
    """A name in a path, as values of this type. Raises InvalidRequest."""
    try:
        return str(TypeAdapter(kind).validate_python(name))
    except ValidationError as error:
        raise InvalidRequest(f"name: {error.errors(include_url=False)[0]['msg']}", field="name") from None


def _error_of(error: ValidationError, text: bytes | str) -> NaviError:
    # The first mistake is explained and the others are counted: a client mends one field at a time.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = _field_path(first["loc"], text)
    message = first["msg"].removeprefix("Value error, ")[:300]
    if first["type"] == "union_tag_invalid":
        message = f"unknown kind; use one of {first['msg'].rpartition('expected tags: ')[2]}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    kind = InvalidSchedule if path.startswith("schedule") and first["type"] == "value_error" else InvalidRequest
    return kind(f"{path}: {message}{more}"[:600], field=path[:200])


def _field_path(location: tuple[int | str, ...], text: bytes | str) -> str:
    """Where in the input: ``schedule.at``. pydantic also names the variant of a union, which is not a field."""
    if not location:
        return "body"
    try:
        here: Any = load_json(text)
    except ValueError:
        return "body"
    path: list[str] = []
    for place, part in enumerate(location):
        last = place == len(location) - 1
        if not last and _is_variant(here, part):
            continue
        if _has(here, part):
            here = here[part]
        path.append(str(part))
    return ".".join(path)


def _is_variant(here: Any, part: int | str) -> bool:
    """Whether a part of a location names the kind of the present object; a field may have the same name."""
    return isinstance(here, dict) and part in (here.get("kind"), here.get("type"), *({part} - set(here)))


def _has(container: Any, part: int | str) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container
