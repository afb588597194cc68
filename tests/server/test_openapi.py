"""The description of the routes."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

from navi_jupyter.errors import NaviError
from navi_jupyter.server.openapi import document
from navi_jupyter.server.rest import ROUTES
from tests.conftest import Api

# The contract's table.
CONTRACT = {
    "health": {"GET"},
    "sessions": {"GET", "POST"},
    "sessions/find": {"POST"},
    "sessions/{sid}": {"GET", "PATCH", "DELETE"},
    "sessions/{sid}/commands": {"POST"},
    "sessions/{sid}/events": {"GET"},
    "sessions/{sid}/messages": {"GET"},
    "sessions/{sid}/transcript": {"GET"},
    "sessions/{sid}/runs": {"GET"},
    "sessions/{sid}/runs/{rid}": {"GET"},
    "sessions/{sid}/interrupts/{iid}": {"GET"},
    "sessions/{sid}/interrupts/{iid}/drawn": {"POST"},
    "sessions/{sid}/notebook-requests/{nid}/claim": {"POST"},
    "sessions/{sid}/notebook-requests/{nid}/report": {"POST"},
    "runs/{rid}/edits": {"GET"},
    "runs/{rid}/keep": {"POST"},
    "runs/{rid}/undo": {"POST"},
    "sessions/{sid}/export": {"GET"},
    "sessions/{sid}/search": {"GET"},
    **{
        f"sessions/{{sid}}/{what}": {"POST"} for what in ("archive", "unarchive", "restore", "fork", "share", "unshare")
    },
    "recalls": {"GET", "POST"},
    "recalls/{id}": {"GET", "PATCH", "DELETE"},
    "recalls/{id}/fire": {"POST"},
    "recalls/{id}/pause": {"POST"},
    "recalls/{id}/resume": {"POST"},
    "recalls/{id}/firings": {"GET"},
    "recalls/overview": {"GET"},
    "recalls/notebooks": {"GET"},
    "recalls/notebook": {"GET"},
    "recalls/{id}/results": {"GET"},
    "recalls/{id}/results/diff": {"GET"},
    "recalls/preview": {"POST"},
    "recalls/pause": {"POST"},
    "recalls/resume": {"POST"},
    "recalls/{id}/clone": {"POST"},
    "recalls/export": {"GET"},
    "recalls/import": {"POST"},
    "sessions/{sid}/away": {"GET"},
    "sessions/{sid}/read": {"POST"},
    "providers": {"GET"},
    "providers/{name}": {"PUT", "DELETE"},
    "models/test": {"POST"},
    "models/preferred": {"GET", "PUT", "DELETE"},
    "notify": {"GET"},
    "notify/{name}": {"PUT", "DELETE"},
    "notify/{name}/test": {"POST"},
    "profiles": {"GET"},
    "profiles/{name}": {"PUT", "DELETE"},
    "prompts": {"GET"},
    "sessions/{sid}/mentions": {"GET"},
    "models": {"GET"},
    "tools": {"GET"},
    "mcp": {"GET"},
    "mcp/{name}": {"PUT", "DELETE"},
    "mcp/{server}/restart": {"POST"},
    "openapi.json": {"GET"},
    "agui": {"POST"},
    "usage": {"GET"},
    "kernels/{kid}/tools": {"GET", "POST"},
    "kernels/{kid}/tools/{name}": {"DELETE"},
    "memory": {"GET", "POST", "DELETE"},
    "memory/{id}": {"PATCH", "DELETE"},
    "attention": {"GET"},
    "attachments": {"POST"},
    "attachments/{id}": {"GET"},
    "attachments/{id}/info": {"GET"},
}


async def test_the_description_that_is_served_is_valid_openapi(api: Api) -> None:
    description = await api.ok("GET", "openapi.json")
    assert description["openapi"].startswith("3.1")
    validate(description)


def test_every_row_of_the_contract_is_a_route_and_the_other_way_round() -> None:
    routes: dict[str, set[str]] = {}
    for operation in ROUTES.operations:
        routes.setdefault(operation.path, set()).add(operation.method)
    assert routes == CONTRACT


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation.run.__name__ for operation in ROUTES.operations]
    assert len(set(names)) == len(names)


def test_every_error_that_an_operation_names_has_the_shape_of_an_error() -> None:
    description = document(ROUTES.operations)
    for path in description["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    reference = answer["content"]["application/json"]["schema"]["$ref"]
                    assert reference == "#/components/schemas/ErrorBody"


@pytest.mark.parametrize("operation", ROUTES.operations, ids=lambda op: f"{op.method} {op.path}")
def test_what_an_operation_takes_and_gives_is_described(operation: Any) -> None:
    schemas = document(ROUTES.operations)["components"]["schemas"]
    assert operation.answers is None or operation.answers in schemas
    assert operation.body is None or operation.body in schemas
    assert all(issubclass(error, NaviError) for error in operation.errors)
    assert operation.summary.endswith(".")
