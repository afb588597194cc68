"""Tools for the memory: facts about the user, over all sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ...model.attachments import Fact
from ...model.runs import Effect
from ...ports.agent import Memory, ToolContext, tool_context
from .base import available, tool

_SHOWN = 20


def _memory() -> tuple[Memory, ToolContext]:
    context = tool_context.get()
    return available(context.memory, "memory"), context


async def remember(
    text: Annotated[
        str, Field(description="One fact, in one sentence that will be understood without this conversation.")
    ],
) -> Mapping[str, Any]:
    """Remember a lasting fact about the user or their work, for all later conversations. Not for secrets."""
    memory, context = _memory()
    fact = await memory.add(text, owner=context.user_id, source="agent", session_id=context.session.id)
    return {"remembered": _described(fact)}


async def search_memory(
    query: Annotated[
        str | None, Field(description="Words to look for, any of them; none: the newest facts.", max_length=500)
    ] = None,
) -> Mapping[str, Any]:
    """What is remembered about the user, from all conversations."""
    memory, context = _memory()
    facts, more = await memory.facts(context.user_id, query=query, limit=_SHOWN)
    return {"facts": [_described(fact) for fact in facts], "more": more is not None}


async def forget(
    id: Annotated[str, Field(description="Of the fact, from search_memory.", max_length=64)],  # noqa: A002
) -> Mapping[str, Any]:
    """Forget a fact that is wrong, out of date, or that the user wants forgotten."""
    memory, context = _memory()
    await memory.forget(id, owner=context.user_id)
    return {"forgotten": id}


def _described(fact: Fact) -> dict[str, Any]:
    return {"id": fact.id, "text": fact.text, "since": fact.created_at.date().isoformat(), "source": fact.source}


TOOLS = (tool(remember, Effect.NOTE), tool(search_memory, Effect.READ), tool(forget, Effect.NOTE))
