"""What a call that makes or changes a recall would do, in words, for the user who decides about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...clock import now, zone_or_utc
from ...model.recalls import (
    Cron,
    CronSpec,
    Every,
    EverySpec,
    NotebookJob,
    Once,
    OnceSpec,
    Policy,
    Recall,
    Schedule,
    ScheduleSpec,
    When,
    WhenSpec,
)
from ...model.runs import CallDetail
from ...ports.agent import ToolContext
from ...text import join_words
from ...timetext.format import say, say_meaning
from ...timetext.phrases import read_when
from .call_details import CallDescription, argument_parts, change_part, code_part, fingerprint_of, text_part

_SPECS: TypeAdapter[ScheduleSpec] = TypeAdapter(ScheduleSpec)
_POLICIES = TypeAdapter(Policy)


async def describe_new(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    """What ``create_recall`` would make. Raises InvalidSchedule."""
    zone = context.session.timezone
    details = [
        text_part("When", await time_words(args, zone)),
        text_part("What it does then", str(args.get("message", ""))),
        *_leave(args),
        *argument_parts(args, ("when", "schedule", "message", "allow")),
    ]
    return CallDescription(details=tuple(details))


async def describe_condition(args: Mapping[str, Any], context: ToolContext) -> CallDescription:  # noqa: ARG001
    """What ``recall_when_true`` would have the kernel evaluate."""
    details = (
        code_part("Evaluated in your kernel, again and again", str(args.get("expression", ""))),
        text_part("What it does when it is true", str(args.get("message", ""))),
        *argument_parts(args, ("expression", "message")),
    )
    return CallDescription(details=details)


def described(recall: Recall, zone: str) -> tuple[list[CallDetail], str]:
    """A recall as it is, and its fingerprint."""
    details = [
        text_part("Recall", recall.title),
        text_part("When", _schedule_words(recall.schedule, recall.policy, zone)),
        text_part("What it does then", recall.message),
    ]
    if isinstance(recall.run, NotebookJob):
        details.append(text_part("Notebook that it executes", recall.run.wire()))
    if recall.allow:
        details.append(text_part("What it may do without asking", ", ".join(recall.allow)))
    known = (recall.message, recall.schedule.wire(), recall.policy.wire(), recall.allow, recall.run.wire())
    return details, fingerprint_of(recall.id, *known)


async def describe_change(recall: Recall, args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    """What ``change_recall`` would change of a recall. Raises InvalidSchedule."""
    zone = context.session.timezone
    details, known = described(recall, zone)
    if args.get("when") is not None or args.get("schedule") is not None:
        details.append(text_part("When, from then on", await time_words(args, zone)))
    if args.get("message") is not None:
        details.append(await change_part("Change of what it does", recall.message, str(args["message"])))
    if args.get("allow") is not None:
        details += _leave(args) or [text_part("What it may do without asking, from then on", "nothing")]
    details += argument_parts(args, ("recall_id", "when", "schedule", "message", "allow"))
    return CallDescription(details=tuple(details), fingerprint=known)


def _leave(args: Mapping[str, Any]) -> list[CallDetail]:
    allow = args.get("allow")
    if not allow:
        return []
    names = [allow] if isinstance(allow, str) else allow if isinstance(allow, Sequence) else [allow]
    return [text_part("What it may do without asking, each time", ", ".join(map(str, names)))]


async def time_words(args: Mapping[str, Any], zone: str) -> str:
    """The schedule in the arguments of a call, in words and as it was written. Raises InvalidSchedule."""
    when = args.get("when")
    if when is not None:
        timed = await asyncio.to_thread(read_when, str(when), now(), zone)
        words = _spec_words(timed.schedule, timed.policy, zone)
        return f"{words} (written as: {when})"
    try:
        spec = _SPECS.validate_python(args.get("schedule"))
        policy = _POLICIES.validate_python(args.get("policy") or {})
    except ValidationError:
        return str(args.get("schedule"))  # the call reports what is wrong with it
    return _spec_words(spec, policy, zone)


def _spec_words(spec: ScheduleSpec, policy: Policy, zone: str) -> str:
    schedule = _schedule_of(spec, zone)
    return str(spec.wire()) if schedule is None else _schedule_words(schedule, policy, zone)


def _schedule_words(schedule: Schedule, policy: Policy, zone: str) -> str:
    words = say_meaning(schedule, policy, zone, now(), reader=zone)
    # What an expression of cron or of Python is in full: the words may be shorter than what counts.
    exact = schedule.expr if isinstance(schedule, Cron | When) else None
    return words if not exact or exact in words or exact == say(schedule) else f"{words} ({exact})"


def _schedule_of(spec: ScheduleSpec, zone: str) -> Schedule | None:
    """The schedule that a spec would become if it were stored now; None where it cannot be put in words."""
    match spec:
        case OnceSpec(at=at) if at is not None:
            return Once(at=at)
        case OnceSpec(in_=period) if period is not None:
            return Once(at=period.after(now(), zone_or_utc(zone)))
        case EverySpec():
            start = spec.start or now()
            return Every(every=spec.every.total, start=start, tz=(spec.tz or zone) if spec.every.days else None)
        case CronSpec():
            return Cron(expr=spec.expr, tz=spec.tz or zone)
        case WhenSpec(event=event) if event is not None:
            fields = spec.model_dump(exclude_none=True, exclude={"kind", "when"})
            return When.model_validate(fields)
        case _:
            return None


_LEAVE_WORDS = {
    "ask_user": "wait for your answers to its questions",
    "run_code": "run code in your kernel",
    "effect:run": "run code in your kernel",
    "effect:write": "change notebooks and files",
    "effect:read": "read notebooks, files and variables",
    "effect:note": "change recalls and what is remembered",
    "effect:outside": "use tools of other programs",
}


def leave_words(allow: Sequence[str]) -> str:
    """What may be done with this leave, as a part of a sentence."""
    return join_words(dict.fromkeys(_LEAVE_WORDS.get(name, f"use {name}") for name in allow))


def powers_of(recall: Recall, kept: Sequence[str]) -> str:
    """What a recall does without asking, as a part of a sentence: its notebook, what it has leave for; else empty."""
    notebook = (f"execute the notebook {recall.run.path}",) if isinstance(recall.run, NotebookJob) else ()
    return join_words([*notebook, *([leave_words(kept)] if kept else [])])
