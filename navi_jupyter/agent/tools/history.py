"""What happened in the session, what is remembered about the user over all sessions, and what time it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from ...clock import now, zone_or_utc
from ...errors import InvalidRequest
from ...model.attachments import Fact
from ...model.runs import Effect
from ...model.sessions import OriginKind
from ...ports.agent import Memory, ToolContext, Unrun, tool_context
from ...text import truncate
from ...timetext.days import read_past
from ...timetext.format import say_time
from ...visible_text import marked_line
from ..history_summary import SummarizedTurn, since_last_here, summarize_history
from .base import available, tool
from .call_details import CallDescription, argument_parts, text_part


async def session_history(
    since: Annotated[
        str | None,
        Field(
            description="From when on: ISO 8601, English (yesterday; 2 hours ago; last hour), or `away` for everything "
            "since the user's last message before this one. Default: from the beginning.",
            max_length=100,
        ),
    ] = None,
    limit: Annotated[int, Field(description="At most so many turns, the latest.", ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """What happened in this session: its turns (question, start of the answer, outcome), and what did not run."""
    context = tool_context.get()
    session, library, recalls = context.session, context.library, context.recalls
    zone = session.timezone
    start = await _start(since, context, zone)
    past = await summarize_history(
        session.id, library=library, recalls=recalls, since=start, limit=limit, leave_out=context.run_id
    )
    return {
        "since": say_time(start, zone, now(), reader=zone) if start else "the beginning",
        "turns": [_turn(turn, zone) for turn in past.turns],
        "count": len(past.turns),
        "not_run": [_unrun(row, zone) for row in past.unrun],
        "missed": past.missed,
        "timezone": zone,
    }


async def _start(since: str | None, context: ToolContext, zone: str) -> datetime | None:
    if since is None or not since.strip():
        return None
    if re.fullmatch(r"\W*(?:while .*)?away\W*", since, re.IGNORECASE):
        return await since_last_here(context.session.id, context.library, leave_out=context.run_id)
    start = await read_past(since, now(), zone)
    if start is None:
        raise InvalidRequest(f"I do not understand {since!r} as a time in the past.", field="since")
    return start


def _turn(turn: SummarizedTurn, zone: str) -> dict[str, Any]:
    run = turn.run
    described: dict[str, Any] = {
        "at": say_time(run.started_at or run.created_at, zone, now(), reader=zone),
        "from": "recall" if run.origin.kind is OriginKind.RECALL else run.origin.kind.value,
        "status": run.status.value,
        "prompt": turn.prompt,
        "answer": turn.answer,
    }
    if turn.tools:
        described["tools"] = list(turn.tools)
    if run.error is not None:
        described["error"] = f"{run.error.code}: {run.error.message}"
    return described


def _unrun(row: Unrun, zone: str) -> dict[str, Any]:
    """A firing without a run, which the transcript does not show."""
    described: dict[str, Any] = {
        "recall": row.title,
        "slot": say_time(row.firing.slot, zone, now(), reader=zone),
        "status": row.firing.status.value,
        "reason": row.firing.reason,
    }
    if row.firing.coalesced:
        described["and_earlier_slots"] = row.firing.coalesced
    return described


async def current_time(
    timezone: Annotated[
        str | None, Field(description="IANA name, e.g. Asia/Tokyo. Default: the user's zone.", max_length=64)
    ] = None,
) -> dict[str, Any]:
    """The current date and time, in the user's time zone or a given one."""
    reader = tool_context.get().session.timezone
    zone = zone_or_utc(timezone or reader)
    if timezone is not None and str(zone) != timezone:
        raise InvalidRequest(f"{timezone!r} is not a known time zone; name one like Europe/Berlin.", field="timezone")
    at = now().astimezone(zone)
    words = say_time(at, str(zone), reader=reader)
    return {"now": at.isoformat(timespec="seconds"), "timezone": str(zone), "said": words}


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
    facts, more = await memory.facts(context.user_id, query=query, limit=20)
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


async def _describe_remember(args: Mapping[str, Any], context: ToolContext) -> CallDescription:  # noqa: ARG001
    return CallDescription(details=(text_part("Remembered for all your later conversations", args.get("text", "")),))


async def _describe_forget(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    facts, _ = await available(context.memory, "memory").facts(context.user_id, limit=200)
    found = next((fact.text for fact in facts if fact.id == args.get("id")), None)
    details = argument_parts(args) if found is None else [text_part("Forgotten", found)]
    return CallDescription(details=tuple(details))


async def _asks_to_remember(args: Mapping[str, Any], context: ToolContext) -> str | None:
    """What remembering asks where a text may have asked for it that neither the user nor Navi wrote: a fact is read by
    all later conversations, and would carry the wish of that text into each of them."""
    text = args.get("text")
    if not context.foreign or not isinstance(text, str) or not text.strip():
        return None
    fact = truncate(marked_line(text), _SHOWN)
    return (
        f"May Navi remember “{fact}” for all later conversations? It has read text here that is not yours, such as "
        "files, outputs or pages."
    )


_SHOWN = 4_000  # characters of a fact in a question; longer facts are refused

# What earlier runs answered may quote what they read: the history is not Navi's own text.
TOOLS = (tool(session_history, Effect.READ), tool(current_time, Effect.READ, own=True))
MEMORY_TOOLS = (
    tool(remember, Effect.NOTE, asks=_asks_to_remember, describes=_describe_remember, own=True),
    tool(search_memory, Effect.READ, own=True),
    tool(forget, Effect.NOTE, describes=_describe_forget, own=True),
)
