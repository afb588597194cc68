"""What can be used here (profiles, models, tools, MCP), whether all is well (health), and what there is (OpenAPI)."""

from __future__ import annotations

import json

from ... import __version__
from .. import openapi, wire
from .table import JSON, Call, Operation, Reply, reply


async def health(call: Call) -> Reply:
    services = call.services
    stats = services.orchestrator.stats()
    return reply(
        wire.Health(
            status="ok",
            version=__version__,
            sessions=stats.sessions,
            runs=stats.runs,
            recalls=await services.recalls.open_recalls(),
            followers=stats.followers,
            loop_lag_ms=services.lag.milliseconds,
            message=services.store.notice,
        )
    )


async def list_profiles(call: Call) -> Reply:
    return reply(wire.ProfilePage(profiles=call.services.profiles(), next=None))


async def list_models(call: Call) -> Reply:
    return reply(wire.ModelPage(models=call.services.models(), next=None))


async def list_tools(call: Call) -> Reply:
    return reply(wire.ToolPage(tools=call.services.tools(), next=None))


async def list_mcp(call: Call) -> Reply:
    return reply(wire.McpPage(mcp=call.services.mcp(), next=None))


async def describe(call: Call) -> Reply:
    return Reply(content=json.dumps(openapi.document(call.services.routes.operations)), content_type=JSON)


OPERATIONS = (
    Operation(
        method="GET",
        path="health",
        run=health,
        summary="Whether Navi works here. 503 while it starts, and where it could not.",
        action="read",
        answers="Health",
    ),
    Operation(
        method="GET",
        path="profiles",
        run=list_profiles,
        summary="The named ways to be.",
        action="read",
        answers="ProfilePage",
    ),
    Operation(
        method="GET",
        path="models",
        run=list_models,
        summary="The models, which of them can be used here, and what the others need.",
        action="read",
        answers="ModelPage",
    ),
    Operation(
        method="GET",
        path="tools",
        run=list_tools,
        summary="What runs can do.",
        action="read",
        answers="ToolPage",
    ),
    Operation(
        method="GET",
        path="mcp",
        run=list_mcp,
        summary="The MCP servers.",
        action="read",
        answers="McpPage",
    ),
    Operation(
        method="GET",
        path="openapi.json",
        run=describe,
        summary="This description.",
        action="read",
        answers="OpenApi",
    ),
)
