"""Recalls: make one for a time or for when an expression in the kernel turns true, list, change, pause, cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from ...clock import Period, now, zone_or_utc
from ...errors import InvalidRequest, InvalidSchedule, RecallNotFound, ToolDenied
from ...handles import HandleError, Named, resolve
from ...model.base import Title
from ...model.recalls import (
    NotebookJob,
    Once,
    Policy,
    Recall,
    RecallCreate,
    RecallMessage,
    RecallPatch,
    ScheduleSpec,
    When,
    WhenEvent,
    WhenSpec,
    leave,
)
from ...model.runs import Effect
from ...model.sessions import OriginKind
from ...ports.agent import ToolContext, tool_context
from ...timetext.format import say, say_meaning, say_time
from ...timetext.phrases import read_until, read_when
from .base import tool
from .call_details import CallDescription
from .recall_details import describe_change, describe_condition, describe_new, described, leave_words, powers_of


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
        "allow": list(recall.allow),
    }
    if isinstance(recall.run, NotebookJob):
        info |= {"runs": recall.run.path, "last_result": recall.last_result}
    if recall.reason is not None:
        info["reason"] = recall.reason
    if recall.next_at is not None:
        info |= {
            "next_at": recall.next_at.astimezone(zone_or_utc(zone)).isoformat(),
            "next": say_time(recall.next_at, zone, at, reader=zone),
        }
    return info


_ALLOW_FIELD = Field(
    description="What it may do then without asking: names of tools (`run_code`) or effects (`run`, `write`). The user "
    "is asked whether to allow it. Without it, a recall that needs approval while the user is away fails.",
    max_length=20,
)
POLICY_FIELD = Field(
    description="What happens when it cannot simply run on time: only the fields that are given count."
)


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
    policy: Annotated[Policy | None, POLICY_FIELD] = None,
    allow: Annotated[list[str] | None, _ALLOW_FIELD] = None,
) -> dict[str, Any]:
    """Come back later: store a reminder or a task that wakes you in this session at a time, once or again and again.

    It is durable: it fires even when every browser and notebook is closed. Check the answer's `next` against what was
    meant, and give the user that time.
    """
    context = tool_context.get()
    zone = context.session.timezone
    spec, bounds, note, period = await schedule_in(when, schedule, zone)
    if spec is None:
        raise InvalidRequest("Give either `when` or `schedule`.", field="when")
    request = RecallCreate(
        session_id=context.session.id,
        message=message,
        title=title,
        schedule=spec,
        policy=await policy_in(Policy(), policy, bounds, until, max_fires, notify, zone),
        allow=tuple(allow or ()),
    )
    recall = await context.recalls.create(request, owner=context.user_id, zone=zone, by_agent=True)
    return changed_result(recall, zone, period, note)


def changed_result(recall: Recall, zone: str, period: Period | None, note: str) -> dict[str, Any]:
    meaning = say_meaning(recall.schedule, recall.policy, zone, now(), period, reader=zone)
    result = {"recall": recall_info(recall, zone), "meaning": meaning, "timezone": zone}
    return {**result, "note": note} if note else result


async def schedule_in(
    when: str | None, schedule: ScheduleSpec | None, zone: str
) -> tuple[ScheduleSpec | None, Policy, str, Period | None]:
    """The schedule, with the bounds, the note and the period of one in English; None where neither is given.

    Raises InvalidRequest for both.
    """
    if when is not None and schedule is not None:
        raise InvalidRequest("Give either `when` or `schedule`.", field="when")
    if when is None:
        return schedule, Policy(), "", None
    timed = await asyncio.to_thread(read_when, when, now(), zone)
    return timed.schedule, timed.policy, timed.note, timed.period


async def policy_in(
    before: Policy,
    given: Policy | None,
    bounds: Policy,
    until: str | None,
    max_fires: int | None,
    notify: list[str] | None,
    zone: str,
) -> Policy:
    """``before`` with the fields that were given; ``bounds`` are those within a time in English."""
    changes = {name: getattr(each, name) for each in (given, bounds) if each for name in each.model_fields_set}
    if notify is not None:
        changes["notify"] = tuple(name.strip()[:64] for name in notify)
    if until is not None:
        try:
            changes["until"] = await asyncio.to_thread(read_until, until, now(), zone)
        except InvalidSchedule as error:
            raise InvalidRequest(f"`until` needs a date and time: {error.message}", field="until") from None
    if max_fires is not None:
        changes["max_fires"] = max_fires
    return before.model_copy(update=changes)


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


_WHICH_FIELD = Field(description="Its id or number in list_recalls, or the user's short id.", max_length=128)


async def cancel_recall(recall_id: Annotated[str, _WHICH_FIELD]) -> dict[str, Any]:
    """Cancel a recall of this session for good."""
    context = tool_context.get()
    chosen = await _find(context, recall_id)
    recall = await context.recalls.cancel(chosen, owner=context.user_id)
    return {"recall": recall_info(recall, context.session.timezone)}


async def change_recall(
    recall_id: Annotated[str, _WHICH_FIELD],
    message: Annotated[RecallMessage | None, Field(description="In place of its message.")] = None,
    when: Annotated[
        str | None, Field(description="In place of its schedule: a time as `create_recall` takes it.", max_length=300)
    ] = None,
    schedule: Annotated[ScheduleSpec | None, Field(description="The exact schedule, instead of `when`.")] = None,
    title: Annotated[Title | None, Field(description="In place of its title.")] = None,
    until: Annotated[str | None, Field(description="When it ends.", max_length=100)] = None,
    max_fires: Annotated[int | None, Field(description="How often it fires at most.", ge=1)] = None,
    notify: Annotated[
        list[str] | None, Field(description="The notification targets; empty: none.", max_length=10)
    ] = None,
    policy: Annotated[Policy | None, POLICY_FIELD] = None,
    allow: Annotated[list[str] | None, _ALLOW_FIELD] = None,
) -> dict[str, Any]:
    """Change a recall of this session: what is given, in place of what it has. A new schedule counts from now."""
    context = tool_context.get()
    zone = context.session.timezone
    chosen = await _recall_named(context, recall_id)
    spec, bounds, note, period = await schedule_in(when, schedule, zone)
    merged = await policy_in(chosen.policy, policy, bounds, until, max_fires, notify, zone)
    given: dict[str, Any] = {"message": message, "title": title, "schedule": spec}
    if merged != chosen.policy:
        given["policy"] = merged
    if allow is not None:
        given["allow"] = tuple(allow)
    patch = RecallPatch(**{name: value for name, value in given.items() if value is not None})
    recall = await context.recalls.patch(chosen.id, patch, owner=context.user_id, zone=zone, by_agent=True)
    return changed_result(recall, zone, period, note)


async def pause_recall(recall_id: Annotated[str, _WHICH_FIELD]) -> dict[str, Any]:
    """Pause a recall of this session: nothing starts until it is resumed."""
    context = tool_context.get()
    recall = await context.recalls.pause(await _find(context, recall_id), owner=context.user_id)
    return {"recall": recall_info(recall, context.session.timezone)}


async def resume_recall(recall_id: Annotated[str, _WHICH_FIELD]) -> dict[str, Any]:
    """Let a paused recall of this session go on."""
    context = tool_context.get()
    recall = await context.recalls.resume(await _find(context, recall_id), owner=context.user_id)
    return {"recall": recall_info(recall, context.session.timezone)}


async def _asks_for_new(args: Mapping[str, Any], context: ToolContext) -> str | None:
    """What making a recall asks: whether it may have the leave that it is to have."""
    return await _asks_for_leave(_leave_in(args), context) or _asks_beyond_profile("make a recall", context)


async def _asks_for_change(args: Mapping[str, Any], context: ToolContext) -> str | None:
    """What a change asks: whether to give leave; and, of a recall that has some, whether it may do something else then.

    Else an agent could turn a recall that the user has trusted into another one.
    """
    try:
        chosen = await _recall_named(context, str(args.get("recall_id")))
    except RecallNotFound:
        return None  # the call reports it
    more = [name for name in _leave_in(args) if name not in chosen.allow]
    if more:
        return await _asks_for_leave(more, context)
    kept = chosen.allow if args.get("allow") is None else _leave_in(args)
    if set(args) <= {"recall_id", "allow", "title"}:
        return None
    if not (powers := powers_of(chosen, kept)):
        return _asks_beyond_profile(f"change the recall “{chosen.title}”", context)
    return f"May Navi change the recall “{chosen.title}”, which may {powers} without asking?"


async def _asks_to_resume(args: Mapping[str, Any], context: ToolContext) -> str | None:
    try:
        chosen = await _recall_named(context, str(args.get("recall_id")))
    except RecallNotFound:
        return None
    if not (powers := powers_of(chosen, chosen.allow)):
        return _asks_beyond_profile(f"let the recall “{chosen.title}” go on", context)
    return f"May the recall “{chosen.title}” go on, which may {powers} without asking?"


async def _asks_for_condition(_args: Mapping[str, Any], context: ToolContext) -> str | None:
    return _asks_beyond_profile("make a recall", context)


def _asks_beyond_profile(what: str, context: ToolContext) -> str | None:
    """The question of an agent that more profiles bound than the session's, as a subagent: the recall's runs have the
    session's alone, and might do what this agent may not."""
    others = [name for name in context.profiles if name != context.session.profile]
    if not others:
        return None
    return (
        f"May a subagent of the profile {others[-1]} {what}? It runs with the permissions of this session's profile, "
        f"{context.session.profile}, which may be more than the subagent has."
    )


def _leave_in(args: Mapping[str, Any]) -> tuple[str, ...]:
    """The leave in the arguments of a call, which are not validated yet."""
    given = args.get("allow")
    names = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else ()
    return leave(name.strip() for name in names if isinstance(name, str))


async def _asks_for_leave(wanted: Sequence[str], context: ToolContext) -> str | None:
    """The question whether a recall may have this leave. Raises ToolDenied, InvalidRequest where it cannot have it."""
    if not wanted:
        return None
    if context.origin.kind is OriginKind.RECALL and (more := [name for name in wanted if name not in context.leave]):
        own = f"may {leave_words(context.leave)} without asking" if context.leave else "may do nothing without asking"
        raise ToolDenied(
            f"A recall started this run. It {own}, and cannot give a recall leave to {leave_words(more)}: only the user"
            " can, when they are there."
        )
    await context.recalls.check_leave(
        wanted, session_id=context.session.id, owner=context.user_id, profiles=context.profiles
    )
    return f"May this recall {leave_words(wanted)} without asking?"


async def _find(context: ToolContext, text: str) -> str:
    """The id of the recall that ``text`` names. A tool works in its own session only, whatever else its user has."""
    return (await _recall_named(context, text)).id


async def _recall_named(context: ToolContext, text: str) -> Recall:
    """The recall that ``text`` names. Raises RecallNotFound."""
    recalls = await context.recalls.in_session(context.session.id)
    named = [Named(recall.id, recall.title) for recall in recalls]
    # What is over last, as in list_recalls: a number is that of its rows, and a title means what is still planned.
    planned = [item for item, recall in zip(named, recalls, strict=True) if not recall.status.final]
    try:
        chosen = resolve(text, planned, named)
    except HandleError as error:
        message = str(error) if error.ambiguous else f"This session has no recall {text!r}."
        raise RecallNotFound(message, field="recall_id") from None
    return next(recall for recall in recalls if recall.id == chosen)


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


async def _describe_change(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    return await describe_change(await _recall_named(context, str(args.get("recall_id"))), args, context)


async def _describe_named(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    recall = await _recall_named(context, str(args.get("recall_id")))
    details, known = described(recall, context.session.timezone)
    return CallDescription(details=tuple(details), fingerprint=known)


TOOLS = (
    tool(create_recall, Effect.NOTE, asks=_asks_for_new, describes=describe_new, own=True),
    tool(list_recalls, Effect.READ, own=True),
    tool(change_recall, Effect.NOTE, asks=_asks_for_change, describes=_describe_change, own=True),
    tool(pause_recall, Effect.NOTE, describes=_describe_named, own=True),
    tool(resume_recall, Effect.NOTE, asks=_asks_to_resume, describes=_describe_named, own=True),
    tool(cancel_recall, Effect.NOTE, describes=_describe_named, own=True),
)
# It is code that the kernel executes again and again: it needs a kernel, and asks as running code does.
CONDITION_TOOLS = (
    tool(recall_when_true, Effect.RUN, asks=_asks_for_condition, describes=describe_condition, own=True),
)
