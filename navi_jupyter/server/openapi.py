"""OpenAPI 3.1 of everything under ``navi/api/``, generated from the table that serves it and the classes of the bodies.

Not responsible for the WebSocket's frames beyond naming their schemas: OpenAPI cannot describe a socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.client import responses
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import (
    Forbidden,
    InputTimeout,
    InvalidRequest,
    LimitReached,
    NaviError,
    NotReady,
    SessionNotFound,
    StoreError,
)
from . import schema

if TYPE_CHECKING:
    from .http import Query
    from .rest.routing import Operation

_REFERENCE = "#/components/schemas/{model}"
_ALWAYS: tuple[type[NaviError], ...] = (
    Forbidden,
    InputTimeout,
    LimitReached,
    NotReady,
    StoreError,
)  # errors that any operation can answer with
_SOCKET_ERRORS = (
    InvalidRequest,
    Forbidden,
    SessionNotFound,
    LimitReached,
    NotReady,
)  # errors before the upgrade to a WebSocket


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole description; paths are relative to ``navi/api/``."""
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(f"/{operation.path}", {})[operation.method.lower()] = _operation(operation)
    paths["/sessions/{sid}/ws"] = {"get": _socket()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "navi-jupyter", "version": __version__, "license": {"name": "BSD-3-Clause"}},
        "servers": [{"url": "."}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": dict(sorted(paths.items())),
        "webhooks": {"event": {"post": _webhook()}},
        "components": {
            "schemas": schema.definitions(_REFERENCE) | {"OpenApi": {"type": "object"}},
            "securitySchemes": _SECURITY,
        },
    }


_SECURITY = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`token <Jupyter's token>`, or `navi <the token in the connection file>`",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "jupyter-login",
        "description": "Jupyter's login cookie; needs the `_xsrf` cookie's value as `X-XSRFToken`, too; a WebSocket as "
        "`_xsrf` in its query",
    },
}


def _operation(operation: Operation) -> dict[str, Any]:
    about: dict[str, Any] = {
        "operationId": operation.run.__name__,
        "summary": operation.summary,
        "description": f"Asks Jupyter's authorizer for `{operation.action}` on `navi`.",
        "parameters": [_path_parameter(name) for name in _parameters(operation.path)]
        + [_query_parameter(query) for query in operation.query],
        "responses": {str(operation.status): _success(operation)} | _errors(operation),
    }
    if operation.body:
        about["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    elif operation.upload:
        about["requestBody"] = {
            "required": True,
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    return about


def _webhook() -> dict[str, Any]:
    """What Navi sends to the webhooks of ``navi/notify.toml``."""
    text = {"type": "string"}
    about = {
        "webhook-id": "The event's id, as in the body: the same at each attempt.",
        "webhook-timestamp": "When this attempt was made, in seconds since 1970. Refuse what is older than 5 minutes.",
        "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`; several with blanks.",
    }
    return {
        "operationId": "webhook_event",
        "summary": "A firing or a run is over; or the test of a target.",
        "description": "Signed as Standard Webhooks 1.0 describes. Answer with 2xx within 15 s.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": help_text, "schema": text}
            for name, help_text in about.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference("WebhookEvent")}}},
        "responses": {
            "2XX": {"description": "It is taken, and not sent again."},
            "410": {"description": "It is given up at once; any other answer is tried again, five times in all."},
        },
    }


def _parameters(path: str) -> list[str]:
    return [segment[1:-1] for segment in path.split("/") if segment.startswith("{")]


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(query: Query) -> dict[str, Any]:
    described: dict[str, Any] = {"type": query.kind}
    if query.kind != "string":
        described |= {"minimum": query.minimum, "maximum": query.maximum}
    if query.choices:
        described["enum"] = [str(choice) for choice in query.choices]
    if query.default is not None:
        described["default"] = query.default
    return {"name": query.name, "in": "query", "required": False, "description": query.help, "schema": described}


def _success(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answers:
        content["application/json"] = {"schema": _reference(operation.answers)}
    for kind in operation.other_types:
        content[kind.partition(";")[0]] = {"schema": {"type": "string"}}
    return {"description": responses[operation.status]} | ({"content": content} if content else {})


def _errors(operation: Operation) -> dict[str, Any]:
    kinds = [*_ALWAYS, *operation.errors]
    return _error_answers([*kinds, InvalidRequest])  # of the input; an unknown query parameter can come with any


def _error_answers(kinds: Iterable[type[NaviError]]) -> dict[str, Any]:
    by_status: dict[int, set[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, set()).add(kind.code)
    return {
        str(status): {
            "description": " or ".join(f"`{code}`" for code in sorted(codes)),
            "content": {"application/json": {"schema": _reference("ErrorBody")}},
        }
        for status, codes in sorted(by_status.items())
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}


def _socket() -> dict[str, Any]:
    return {
        "operationId": "follow_session",
        "summary": "A WebSocket: the log after a cursor, live, and commands in the other direction.",
        "description": "Asks Jupyter's authorizer for `execute` on `navi`. Text frames; the server's are `ServerFrame`,"
        " the client's are `Command`. Close codes: 1001 the server stops, 1008 a message did not go on, 1009 too much"
        " of them is unfinished, 4404 the session was deleted.",
        "parameters": [
            _path_parameter("sid"),
            {
                "name": "after",
                "in": "query",
                "required": False,
                "description": "The last `seq` you have; without it, the snapshot comes first.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
            },
        ],
        "responses": {"101": {"description": responses[101]}} | _error_answers(_SOCKET_ERRORS),
    }
