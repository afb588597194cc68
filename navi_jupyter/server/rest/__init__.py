"""The REST API: the table of every operation there is, one module for each noun, and the table's own description.

Imported by the start task, never at extension load: the operations' modules build pydantic models.
"""

from __future__ import annotations

import json

from ..http import JSON, HttpReply
from ..openapi import document
from . import (
    about,
    agui,
    configuration,
    conversations,
    edits,
    overview,
    providers,
    recall_results,
    recalls,
    session_list,
    sessions,
    user,
)
from .routing import Call, OperationTable, Routes

TABLE = OperationTable()


@TABLE.add("GET openapi.json", "read", answers="OpenApi")
async def describe(call: Call) -> HttpReply:  # noqa: ARG001
    """This description."""
    return HttpReply(content=json.dumps(document(ROUTES.operations)), content_type=JSON)


_TABLES = (
    about.TABLE,
    providers.TABLE,
    TABLE,
    sessions.TABLE,
    session_list.TABLE,
    conversations.TABLE,
    edits.TABLE,
    recalls.TABLE,
    recall_results.TABLE,
    overview.TABLE,
    user.TABLE,
    configuration.TABLE,
    agui.TABLE,
)
ROUTES = Routes(operation for table in _TABLES for operation in table.operations)
