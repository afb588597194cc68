"""Recalls: make one for a time or for when an expression in the kernel turns true, list them, cancel one."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from ...clock import now
from ...errors import InvalidRequest, InvalidSchedule, RecallNotFound
from ...handles import HandleError, Named, resolve
from ...model.base import Title
from ...model.recalls import Once, Policy, Recall, RecallCreate, RecallMessage, ScheduleSpec, When, WhenEvent, WhenSpec
from ...model.runs import Effect
from ...ports.agent import ToolContext, tool_context
from ...timetext.format import say, say_meaning, say_time
from ...timetext.parse import read_until, read_when
from .base import tool


def recall_info(recall: Recall, zone: str) -> dict[str, Any]:
    """A recall as a tool result."""
    at = now()
    schedule = recall.schedule
    info: dict[str, Any] = {
        "id": recall.id,
        "title": recall.title,
        "message": recall.message,
        "status": recall.status.value,
        "schedule": say(recall.schedule, reader=zone),
        "recurring": schedule.repeat == "each" if isinstance(schedule, When) else not isinstance(schedule, Once),
        "fired": recall.fired,
    }
    if recall.next_at is not None:
        info |= {
            "next_at": recall.next_at.astimezone().isoformat(),
            "next": say_time(recall.next_at, zone, at, reader=zone),
        }
    return info


async def create_recall(
    message: Annotated[
        RecallMessage,
        Field(description="What to do or say when the time has come, written for the one who will read it then."),
    ],
    when: Annotated[
        str | None,
        Field(
            description="The time in English (in 10 minutes; tomorrow at 8:30; every weekday at 9), as ISO 8601, "
            "or as five cron fields. Give either this or `schedule`.",
            max_length=300,
        ),
    ] = None,
    schedule: Annotated[
        ScheduleSpec | None, Field(description="The exact schedule, when `when` cannot express it.")
    ] = None,
    title: Annotated[Title | None, Field(description="A few words for lists.")] = None,
    until: Annotated[
        str | None, Field(description="When a recurring recall ends, as ISO 8601 or in English.", max_length=100)
    ] = None,
    max_fires: Annotated[int | None, Field(description="How often a recurring recall fires at most.", ge=1)] = None,
    notify: Annotated[
        list[str] | None,
        Field(
            description="Where else the user is notified of the result, when they ask for that: names of "
            "notification targets, or `browser`. An unknown name is refused with those that there are.",
            max_length=10,
        ),
    ] = None,
) -> dict[str, Any]:
    """Come back later: store a reminder or a task that wakes you in this session at a time, once or again and again.

    It is durable: it fires even when every browser and notebook is closed. Check the answer's `next` against what was
    meant, and give the user that time.
    """
    context = tool_context.get()
    zone = context.session.timezone
    spec, policy, note, period = schedule, Policy(), "", None
    if when is not None and schedule is None:
        timed = await asyncio.to_thread(read_when, when, now(), zone)
        spec, policy, note, period = timed.schedule, timed.policy, timed.note, timed.period
    elif spec is None or when is not None:
        raise InvalidRequest("Give either `when` or `schedule`.", field="when")
    request = RecallCreate(
        session_id=context.session.id,
        message=message,
        title=title,
        schedule=spec,
        policy=await _policy(policy, until, max_fires, notify, zone),
    )
    recall = await context.recalls.create(request, owner=context.user_id, zone=zone, by_agent=True)
    meaning = say_meaning(recall.schedule, recall.policy, zone, now(), period, reader=zone)
    result = {"recall": recall_info(recall, zone), "meaning": meaning, "timezone": zone}
    return {**result, "note": note} if note else result


async def _policy(
    policy: Policy, until: str | None, max_fires: int | None, notify: list[str] | None, zone: str
) -> Policy:
    changes: dict[str, Any] = {"notify": tuple(name.strip()[:64] for name in notify)} if notify else {}
    if until is not None:
        try:
            changes["until"] = await asyncio.to_thread(read_until, until, now(), zone)
        except InvalidSchedule as error:
            raise InvalidRequest(f"`until` needs a date and time: {error.message}", field="until") from None
    if max_fires is not None:
        changes["max_fires"] = max_fires
    return policy.model_copy(update=changes)


async def list_recalls(
    include_over: Annotated[bool, Field(description="Also those that have fired or were cancelled.")] = False,
) -> dict[str, Any]:
    """The recalls (reminders, scheduled wake-ups) of this session, the soonest first."""
    context = tool_context.get()
    zone = context.session.timezone
    recalls = await context.recalls.in_session(context.session.id)
    shown = [recall for recall in recalls if include_over or not recall.status.final]
    return {
        "recalls": [recall_info(recall, zone) for recall in shown[:100]],
        "count": len(shown),
        "over": sum(recall.status.final for recall in recalls),
        "timezone": zone,
    }


async def cancel_recall(
    recall_id: Annotated[
        str, Field(description="Its id or number in list_recalls, or the user's short id.", max_length=128)
    ],
) -> dict[str, Any]:
    """Cancel a recall of this session for good."""
    context = tool_context.get()
    chosen = await _find(context, recall_id)
    recall = await context.recalls.cancel(chosen, owner=context.user_id)
    return {"recall": recall_info(recall, context.session.timezone)}


async def _find(context: ToolContext, text: str) -> str:
    """The id of the recall that ``text`` names. A tool works in its own session only, whatever else its user has."""
    recalls = await context.recalls.in_session(context.session.id)
    named = [Named(recall.id, recall.title) for recall in recalls]
    # What is over last, as in list_recalls: a number is that of its rows, and a title means what is still planned.
    planned = [item for item, recall in zip(named, recalls, strict=True) if not recall.status.final]
    try:
        return resolve(text, planned, named)
    except HandleError as error:
        message = str(error) if error.ambiguous else f"This session has no recall {text!r}."
        raise RecallNotFound(message, field="recall_id") from None


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


TOOLS = (tool(create_recall, Effect.NOTE), tool(list_recalls, Effect.READ), tool(cancel_recall, Effect.NOTE))
# It is code that the kernel executes again and again: it needs a kernel, and asks as running code does.
CONDITION_TOOLS = (tool(recall_when_true, Effect.RUN),)
