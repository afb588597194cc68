"""What happened in the session: its runs, and what its recalls did or did not do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from ...errors import InvalidRequest, NaviError
from ...model import FiringStatus, OriginKind, Run, now
from ...ports import Message, ToolContext, tool_context
from ...work import Effect
from ..functions import tool
from ..past import read_past
from ..phrasing import say_time

_EXCERPT = 300


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
    runs = [run for run in await context.library.runs(context.session.id, limit=200) if run.id != context.run_id]
    start = await _start(since, runs, zone)
    picked = [run for run in runs if start is None or (run.ended_at or run.created_at) >= start][:limit]
    messages = await context.library.messages(context.session.id)
    turns = [_turn(run, messages, zone) for run in reversed(picked)]
    return {
        "since": say_time(start, zone, now()) if start else "the beginning",
        "turns": turns,
        "count": len(turns),
        "not_run": await _not_run(context, start, zone),
        "timezone": zone,
    }


async def _start(since: str | None, runs: Sequence[Run], zone: str) -> datetime | None:
    if since is None or not since.strip():
        return None
    if re.fullmatch(r"\W*(?:while .*)?away\W*", since, re.IGNORECASE):
        last = next((run for run in runs if run.origin.kind is OriginKind.USER), None)
        return (last.ended_at or last.created_at) + timedelta(microseconds=1) if last else None
    start = await read_past(since, now(), zone)
    if start is None:
        raise InvalidRequest(f"I do not understand {since!r} as a time in the past.", field="since")
    return start


def _turn(run: Run, messages: Sequence[Message], zone: str) -> dict[str, Any]:
    said = [one for one in messages if one.run_id == run.id and one.role == "user"]
    answers = [one.content for one in messages if one.run_id == run.id and one.role == "assistant" and one.content]
    calls = [call.name for one in messages if one.run_id == run.id for call in one.tool_calls]
    turn: dict[str, Any] = {
        "at": say_time(run.started_at or run.created_at, zone, now()),
        "from": "recall" if run.origin.kind is OriginKind.RECALL else run.origin.kind.value,
        "status": run.status.value,
        "prompt": _excerpt(said[0].content if said else ""),
        "answer": _excerpt(answers[-1] if answers else ""),
    }
    if calls:
        turn["tools"] = calls
    if run.error is not None:
        turn["error"] = f"{run.error.code}: {run.error.message}"
    return turn


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _EXCERPT else flat[: _EXCERPT - 1] + "…"


_WITHOUT_RUN = (FiringStatus.SKIPPED, FiringStatus.MISSED, FiringStatus.COALESCED, FiringStatus.EXPIRED)


async def _not_run(context: ToolContext, start: datetime | None, zone: str) -> list[dict[str, Any]]:
    """The ledger's rows of slots that did not run: what nobody would see otherwise."""
    rows: list[tuple[datetime, dict[str, Any]]] = []
    for recall in list(await context.recalls.in_session(context.session.id))[:50]:
        try:
            firings = await context.recalls.firings(recall.id, owner=context.user_id, limit=20)
        except NaviError:
            continue  # it was deleted between the two questions
        rows += [
            (
                firing.slot,
                {
                    "recall": recall.title,
                    "slot": say_time(firing.slot, zone, now()),
                    "status": firing.status.value,
                    "reason": firing.reason,
                },
            )
            for firing in firings
            if firing.status in _WITHOUT_RUN and (start is None or firing.slot >= start)
        ]
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


TOOLS = (tool(session_history, Effect.READ),)
