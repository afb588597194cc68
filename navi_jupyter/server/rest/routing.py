"""Operations of the REST API: how they are declared, found by a path, and called with checked input.

One :class:`Operation` is all there is to know of a route: ``Routes`` serves from it and ``openapi`` describes from it,
so that the description is always true. Not responsible for what operations do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ...errors import MethodNotAllowed, NaviError, NotFound
from ..bodies import check_content_type, parse
from ..http import RESOURCE, Action, EventStream, HttpReply, Query, Request, check_query

if TYPE_CHECKING:
    from ..services import AgentServices, RecallServices, Services, SessionServices


def reply(value: BaseModel, status: int = 200, **headers: str) -> HttpReply:
    """``value`` as JSON."""
    return HttpReply(content=value.model_dump_json(by_alias=True), status=status, headers=headers)


def fields_of(noun: BaseModel) -> dict[str, Any]:
    """The fields of a value, for one that has them and more."""
    return {name: getattr(noun, name) for name in type(noun).model_fields}


class Call:
    """One call of an operation. Its input is checked when it is read."""

    __slots__ = ("_body", "_query", "operation", "parameters", "request", "services")

    def __init__(
        self, operation: Operation, request: Request, services: Services, parameters: Mapping[str, str]
    ) -> None:
        self.operation = operation
        self.request = request
        self.services = services
        self.parameters = parameters  # the values of the braces in the path
        self._body: Any = None
        check_query(request.query, [query.name for query in operation.query])
        self._query = {
            query.name: query.read(request.query[query.name]) if request.query.get(query.name) else query.default
            for query in operation.query
        }

    @property
    def sessions(self) -> SessionServices:
        return self.services.sessions

    @property
    def recalls(self) -> RecallServices:
        return self.services.recalls

    @property
    def agent(self) -> AgentServices:
        return self.services.agent

    @property
    def owner(self) -> str:
        return self.request.owner

    def integer(self, name: str) -> int:
        """A query parameter with a default."""
        return int(self.number(name))

    def number(self, name: str) -> float:
        """A query parameter with a default."""
        return float(self._query[name] or 0)

    def optional_integer(self, name: str) -> int | None:
        """A query parameter without a default."""
        return None if self._query[name] is None else self.integer(name)

    def string(self, name: str) -> str | None:
        """A query parameter; None when it is missing."""
        value = self._query[name]
        return value if isinstance(value, str) else None

    def body(self) -> Any:
        """The request's body as the operation's input: the type that its ``body`` names in ``wire.INPUTS``.

        Raises InvalidRequest, InvalidSchedule.
        """
        if self._body is None:
            check_content_type(self.request.content_type)
            self._body = parse(self.operation.body or "", self.request.body)
        return self._body


Run = Callable[[Call], Awaitable[HttpReply | EventStream]]
InCell = Callable[[Call], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str  # relative to ``navi/api/``; a name in braces matches one segment
    run: Run
    summary: str
    action: Action  # what Jupyter's authorizer is asked for. ``execute``: whatever makes the agent work, now or later.
    answers: str | None  # the name of the answer's schema; None for no content
    in_cell: bool | InCell
    """Whether a kernel does this only for a cell of the user's, while an agent works (``kernel_scope``)."""
    status: int = 200
    body: str | None = None  # the name of the input's schema
    upload: bool = False  # the body may be as large as an attachment; without ``body`` it is the content of a file
    resources: tuple[str, ...] = (RESOURCE,)  # what Jupyter's authorizer is asked for: each must be allowed
    query: tuple[Query, ...] = ()
    errors: tuple[type[NaviError], ...] = ()  # beyond those that every operation has
    other_types: tuple[str, ...] = ()
    """Content types of the answer besides (or, when ``answers`` is None, instead of) JSON."""

    async def call(
        self, request: Request, services: Services, parameters: Mapping[str, str]
    ) -> HttpReply | EventStream:
        """Run it. Raises any NaviError."""
        call = Call(self, request, services, parameters)
        if request.kernel is not None:
            needs_cell = self.in_cell if isinstance(self.in_cell, bool) else await self.in_cell(call)
            if needs_cell:
                await services.kernel_scope.require_cell(request.kernel, owner=request.owner)
        return await self.run(call)

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.split("/"))


class OperationTable:
    """The operations of one module, each added by a decorator of the function that runs it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(
        self,
        route: str,
        action: Action,
        *,
        answers: str | None = None,
        body: str | None = None,
        status: int = 200,
        upload: bool = False,
        query: tuple[Query, ...] = (),
        errors: tuple[type[NaviError], ...] = (),
        other_types: tuple[str, ...] = (),
        in_cell: bool | InCell = True,
        resource: str | None = None,
    ) -> Callable[[Run], Run]:
        """``route`` is the method and the path; the docstring is the summary. See :class:`Operation` for the rest.

        ``in_cell``: of what reads it is never asked; what is not declared harmless needs a cell.
        """
        method, _, path = route.partition(" ")

        def register(run: Run) -> Run:
            operation = Operation(
                method=method,
                path=path,
                run=run,
                summary=" ".join((run.__doc__ or "").split()),
                action=action,
                in_cell=in_cell if action != "read" else False,
                answers=answers,
                body=body,
                status=status,
                upload=upload,
                resources=(RESOURCE,) if resource is None else (RESOURCE, resource),
                query=query,
                errors=errors,
                other_types=other_types,
            )
            self.operations.append(operation)
            return run

        return register


class Routes:
    """All operations, by path and method."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        # By the number of segments first, so that few patterns are tried for a request.
        self._by_length: dict[int, list[Operation]] = {}
        for operation in self.operations:
            self._by_length.setdefault(len(operation.segments), []).append(operation)

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """The operation of a request, and its path parameters. Raises NotFound, MethodNotAllowed.

        A literal segment (``recalls/preview``) takes precedence over a parameter (``recalls/{id}``).
        """
        segments = path.split("/")
        candidates = self._by_length.get(len(segments), ())
        found = [(op, got) for op in candidates if (got := _match(op, segments)) is not None]
        if not found:
            raise NotFound(f"There is no navi/api/{path[:200]}; GET navi/api/openapi.json lists all routes.")
        # Fewer parameters means more literal segments.
        fewest = min(len(got) for _, got in found)
        best = [(operation, got) for operation, got in found if len(got) == fewest]
        for operation, got in best:
            if operation.method == method:
                return operation, got
        allowed = ", ".join(sorted(operation.method for operation, _ in best))
        raise MethodNotAllowed(f"{method} is not possible on this path; use one of: {allowed}.")


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
