"""What happened in the session: its runs, the firings that did not run; and what time it is."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ...clock import now, zone_or_utc
from ...errors import InvalidRequest
from ...model.runs import Effect
from ...model.sessions import OriginKind
from ...ports.agent import ToolContext, tool_context
from ...timetext.dates import read_past
from ...timetext.format import say_time
from ..history_summary import SummarizedTurn, since_last_here, summarize_history
from .base import tool

if TYPE_CHECKING:
    from ...ports.agent import Unrun


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
    zone = context.session.timezone
    start = await _start(since, context, zone)
    past = await summarize_history(
        context.session.id,
        library=context.library,
        recalls=context.recalls,
        since=start,
        limit=limit,
        leave_out=context.run_id,
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


TOOLS = (tool(session_history, Effect.READ), tool(current_time, Effect.READ))
