"""What an operation is, how a path finds it, how its input is checked.

One :class:`Operation` is all there is to know of a route: ``Routes`` serves by it, ``openapi`` describes by it, so the
description can not rot. Not responsible for what operations do.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from ...errors import InvalidRequest, InvalidSchedule, NaviError
from ..handler import Action, MethodNotAllowed, Request, no_such_route
from ..wire import INPUTS

if TYPE_CHECKING:
    from ..runtime import Services

Method = Literal["GET", "POST", "PATCH", "DELETE"]
JSON = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer, ready to be written."""

    content: str | bytes | None
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    filename: str | None = None
    """Set for a download."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer that goes on: pages of ``(seq, envelope as JSON)``."""

    pages: AsyncGenerator[Sequence[tuple[int, str]]]


def reply(value: BaseModel, status: int = 200, **headers: str) -> Reply:
    """``value`` as JSON."""
    return Reply(content=value.model_dump_json(by_alias=True), status=status, headers=headers)


NOTHING = Reply(content=None, status=204)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One parameter of the query string."""

    name: str
    help: str
    kind: Literal["integer", "number", "string"] = "string"
    default: float | str | None = None
    minimum: float = 0
    maximum: float = 2**53
    """The default: what JSON readers hold exactly, and far from the end of SQLite's integers."""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> float | str:
        """The value of ``text``. Raises InvalidRequest."""
        if self.kind == "string":
            return self._read_string(text)
        value = self._read_number(text)
        if not self.minimum <= value <= self.maximum:
            limits = f"from {self.minimum:g} to {self.maximum:g}"
            raise InvalidRequest(f"{self.name} must be {limits}.", field=self.name)
        return value

    def _read_string(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise InvalidRequest(f"{self.name} must be one of: {', '.join(self.choices)}.", field=self.name)
        if len(text) > 500:
            raise InvalidRequest(f"{self.name} is too long.", field=self.name)
        return text

    def _read_number(self, text: str) -> float:
        try:
            # Longer than any number in range: int() of very long texts is slow, or refused.
            if len(text) > 40 or not text.isascii() or "_" in text:
                raise ValueError
            value = int(text) if self.kind == "integer" else float(text)
        except ValueError:
            raise InvalidRequest(f"{self.name} must be a {self.kind}.", field=self.name) from None
        if not math.isfinite(value):
            raise InvalidRequest(f"{self.name} must be a {self.kind}.", field=self.name)
        return value


LIMIT = Query(name="limit", kind="integer", default=50, minimum=1, maximum=1000, help="How many at most.")
AFTER = Query(name="after", kind="integer", help="The last `seq` you have.")
CURSOR = Query(name="cursor", help="`next` of the page before.")


def read_cursor(text: str, name: str = "after") -> int:
    """A ``seq``. Raises InvalidRequest."""
    return int(replace(AFTER, name=name).read(text))


class Call:
    """One call of an operation: its input, checked when it is taken."""

    __slots__ = ("_query", "operation", "parameters", "request", "services")

    def __init__(
        self, operation: Operation, request: Request, services: Services, parameters: Mapping[str, str]
    ) -> None:
        self.operation = operation
        self.request = request
        self.services = services
        self.parameters = parameters
        """What the braces in the path stand for."""
        self._query = {
            query.name: query.read(request.query[query.name]) if request.query.get(query.name) else query.default
            for query in operation.query
        }

    @property
    def owner(self) -> str:
        return self.request.owner

    def integer(self, name: str) -> int:
        """A query parameter that has a default."""
        return int(self.number(name))

    def number(self, name: str) -> float:
        """A query parameter that has a default."""
        return float(self._query[name] or 0)

    def optional_integer(self, name: str) -> int | None:
        """A query parameter that has none."""
        return None if self._query[name] is None else self.integer(name)

    def string(self, name: str) -> str | None:
        """A query parameter; None when it is missing."""
        value = self._query[name]
        return value if isinstance(value, str) else None

    def body(self) -> Any:
        """The request's body as the operation's input: the type that its ``body`` names in ``wire.INPUTS``.

        Raises InvalidRequest, InvalidSchedule.
        """
        _check_content_type(self.request.content_type)
        return parse(self.operation.body or "", self.request.body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path."""

    method: Method
    path: str
    """Under ``navi/api/``; what is in braces stands for one segment."""
    run: Callable[[Call], Awaitable[Reply | EventStream]]
    summary: str
    action: Action
    """What Jupyter's authorizer is asked for. ``execute`` is what makes the agent work, now or later."""
    answers: str | None
    """The name of the answer's schema; None for no content."""
    status: int = 200
    body: str | None = None
    """The name of the input's schema."""
    upload: bool = False
    """The body is a file's content, and may be as large as attachments may be."""
    query: tuple[Query, ...] = ()
    errors: tuple[type[NaviError], ...] = ()
    """Beyond those that every operation has."""
    other_types: tuple[str, ...] = ()
    """Content types of the answer besides (or, when ``answers`` is None, instead of) JSON."""

    async def call(self, request: Request, services: Services, parameters: Mapping[str, str]) -> Reply | EventStream:
        """Run it. Raises any NaviError."""
        return await self.run(Call(self, request, services, parameters))

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.split("/"))


class Routes:
    """All operations, by path and method."""

    stream = EventStream

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._by_length: dict[int, list[Operation]] = {}
        for operation in self.operations:
            self._by_length.setdefault(len(operation.segments), []).append(operation)

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """The operation for a request and what its path parameters are. Raises NotFound, MethodNotAllowed.

        A literal segment (``recalls/preview``) goes before a parameter (``recalls/{id}``).
        """
        segments = path.split("/")
        candidates = self._by_length.get(len(segments), ())
        found = [(op, got) for op in candidates if (got := _match(op, segments)) is not None]
        if not found:
            raise no_such_route(path)
        fewest = min(len(got) for _, got in found)
        best = [(operation, got) for operation, got in found if len(got) == fewest]
        for operation, got in best:
            if operation.method == method:
                return operation, got
        allowed = ", ".join(sorted(operation.method for operation, _ in best))
        raise MethodNotAllowed(f"{method} is not possible here; this path knows: {allowed}.")


def _match(operation: Operation, segments: Sequence[str]) -> dict[str, str] | None:
    got = {}
    for pattern, segment in zip(operation.segments, segments, strict=True):
        if pattern.startswith("{"):
            if not segment:
                return None
            got[pattern[1:-1]] = segment
        elif pattern != segment:
            return None
    return got


# --- bodies ----------------------------------------------------------------------------------------------------------

_ADAPTERS: dict[str, TypeAdapter[Any]] = {}
_FOREIGN_TYPES = ("text/", "multipart/", "image/", "audio/", "video/", "application/xml", "application/octet-stream")


def _check_content_type(content_type: str) -> None:
    """JSON is meant also where nobody says so (tornado and curl then claim a form); not where another kind is said."""
    if content_type.lower().lstrip().startswith(_FOREIGN_TYPES):
        raise InvalidRequest("The body must be JSON: send Content-Type: application/json.", field="Content-Type")


def parse(name: str, text: bytes | str) -> Any:
    """JSON text as the input type of that name. Raises InvalidRequest, InvalidSchedule, naming the field."""
    if not text.strip():
        raise InvalidRequest("There is no body; it must be a JSON object.", field="body")
    adapter = _ADAPTERS.get(name)
    if adapter is None:
        adapter = _ADAPTERS[name] = TypeAdapter(INPUTS[name])
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise _explained(error, text) from None
    except (RecursionError, UnicodeError):
        raise InvalidRequest("The body is not JSON that can be read.", field="body") from None


def _explained(error: ValidationError, text: bytes | str) -> NaviError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = _field_path(first["loc"], text)
    message = first["msg"].removeprefix("Value error, ")[:300]
    if first["type"] == "union_tag_invalid":
        message = f"not one of the kinds that are known here: {first['msg'].rpartition('expected tags: ')[2]}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    kind = InvalidSchedule if path.startswith("schedule") and first["type"] == "value_error" else InvalidRequest
    return kind(f"{path}: {message}{more}"[:600], field=path[:200])


def _field_path(location: tuple[int | str, ...], text: bytes | str) -> str:
    """Where in the input: ``schedule.at``. pydantic also names the variant of a union it was in; that is no field."""
    if not location:
        return "body"
    try:
        here: Any = json.loads(text)
    except (ValueError, RecursionError):
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
    """Whether a part of a location names the kind of the object that we are in (a field may have the same name)."""
    return isinstance(here, dict) and part in (here.get("kind"), here.get("type"), *({part} - set(here)))


def _has(container: Any, part: int | str) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container
