"""Recalls that wait until an expression in the kernel turns true.

It is code that the kernel executes again and again, so it asks as running code does, and ``create_recall`` takes none.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ...model.base import Title
from ...model.recalls import RecallCreate, RecallMessage, WhenEvent, WhenSpec
from ...model.runs import Effect
from ...ports.agent import tool_context
from .base import tool
from .recalls import recall_info


async def recall_when_true(
    message: Annotated[
        RecallMessage,
        Field(description="What to do or say when it is true, written for the one who will read it then."),
    ],
    expression: Annotated[
        str,
        Field(
            description="A Python expression over the notebook's variables, cheap and without side effects, like "
            "`loss < 0.1`. The kernel evaluates it after each cell and every few seconds while it is idle.",
            min_length=1,
            max_length=2000,
        ),
    ],
    each_time: Annotated[bool, Field(description="Each time that it turns true, not only the first.")] = False,
    title: Annotated[Title | None, Field(description="A few words for lists.")] = None,
) -> dict[str, Any]:
    """Come back when an expression in the kernel turns true. It is code, which the kernel executes until then."""
    context = tool_context.get()
    zone = context.session.timezone
    spec = WhenSpec(kind="when", event=WhenEvent.EXPRESSION, expr=expression, repeat="each" if each_time else "once")
    request = RecallCreate(session_id=context.session.id, message=message, title=title, schedule=spec)
    recall = await context.recalls.create(request, owner=context.user_id, zone=zone, by_agent=True, code=True)
    return {"recall": recall_info(recall, zone), "timezone": zone}


TOOLS = (tool(recall_when_true, Effect.RUN),)
