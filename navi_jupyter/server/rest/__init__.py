"""The REST API: the table of every operation there is, one module for each noun, and the table's own description.

Imported by the start task, never at extension load: the operations' modules build pydantic models.
"""

from __future__ import annotations

import json

from ..http import JSON, Reply
from ..openapi import document
from . import about, attachments, kernels, memory, notifications, recall_sets, recalls, sessions
from .routing import Call, Operation, Routes


async def describe(call: Call) -> Reply:  # noqa: ARG001
    return Reply(content=json.dumps(document(ROUTES.operations)), content_type=JSON)


ROUTES = Routes(
    (
        *about.OPERATIONS,
        Operation(
            method="GET",
            path="openapi.json",
            run=describe,
            summary="This description.",
            action="read",
            answers="OpenApi",
        ),
        *sessions.OPERATIONS,
        *recalls.OPERATIONS,
        *recall_sets.OPERATIONS,
        *memory.OPERATIONS,
        *attachments.OPERATIONS,
        *kernels.OPERATIONS,
        *notifications.OPERATIONS,
    )
)
