"""Recalls: make, read, change, delete, fire, pause, resume; the ledger; what a schedule would do.

Not responsible for when anything fires (``recalls``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...clock import now
from ...errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ...model.recalls import Once, Policy, RecallCreate, RecallPatch, RecallStatus, Schedule, ScheduleSpec, When
from ...scheduling.schedules import find_zone
from ...timetext.events import read_happening
from ...timetext.format import say, say_time
from ...timetext.leading import read_leading_in_thread
from ...timetext.parse import read_when_in_thread
from .. import wire
from .routing import CURSOR, LIMIT, NOTHING, Call, Operation, Query, Reply, reply


async def create_recall(call: Call) -> Reply:
    request: RecallCreate = call.body()
    # The session must be the caller's; its zone is the user's, for a schedule that names none.
    session = await call.services.session(request.session_id, owner=call.owner)
    recall = await call.services.recalls.create(request, owner=call.owner, zone=session.timezone)
    if isinstance(recall.schedule, When):  # made in a cell, whose every output is to be seen
        await call.services.watcher.listening(recall.id)
    return reply(recall, 201, Location=f"recalls/{recall.id}")


async def list_recalls(call: Call) -> Reply:
    status = call.string("status")
    recalls, following = await call.services.recalls.list(
        call.owner,
        session_id=call.string("session_id"),
        status=None if status is None else RecallStatus(status),
        limit=call.integer("limit"),
        cursor=call.string("cursor"),
    )
    last = await call.services.recalls.last_firings(recalls)
    words = {recall.id: say(recall.schedule) for recall in recalls}
    return reply(wire.RecallPage(recalls=tuple(recalls), next=following, last=dict(last), words=words))


async def get_recall(call: Call) -> Reply:
    return reply(await call.services.recalls.get(call.parameters["id"], owner=call.owner))


async def change_recall(call: Call) -> Reply:
    patch: RecallPatch = call.body()
    recall = await call.services.recalls.get(call.parameters["id"], owner=call.owner)
    session = await call.services.session(recall.session_id, owner=call.owner)
    changed = await call.services.recalls.patch(recall.id, patch, owner=call.owner, zone=session.timezone)
    return reply(changed)


async def delete_recall(call: Call) -> Reply:
    await call.services.recalls.delete(call.parameters["id"], owner=call.owner)
    return NOTHING


async def fire_recall(call: Call) -> Reply:
    key = call.request.idempotency_key
    if key is not None and not 1 <= len(key) <= 128:
        raise InvalidRequest("Idempotency-Key must have 1 to 128 characters.", field="Idempotency-Key")
    return reply(await call.services.recalls.fire(call.parameters["id"], owner=call.owner, key=key))


async def pause_recall(call: Call) -> Reply:
    return reply(await call.services.recalls.pause(call.parameters["id"], owner=call.owner))


async def resume_recall(call: Call) -> Reply:
    return reply(await call.services.recalls.resume(call.parameters["id"], owner=call.owner))


async def list_firings(call: Call) -> Reply:
    firings, following = await call.services.recalls.ledger(
        call.parameters["id"], owner=call.owner, limit=call.integer("limit"), cursor=call.string("cursor")
    )
    return reply(wire.FiringPage(firings=tuple(firings), next=following))


async def preview(call: Call) -> Reply:
    request: wire.PreviewRequest = call.body()
    zone = request.tz or "UTC"
    wish = await _wish(request, zone)
    schedule, times, warnings = call.services.recalls.foresee(wish.spec, n=request.n, after=request.after, zone=zone)
    told = wire.Preview(
        times=tuple(times),
        warnings=(*wish.notes, *warnings),
        schedule=schedule,
        policy=wish.policy,
        meaning=_meaning(schedule, wish.policy, zone),
        message=wish.message,
        phrase=wish.phrase,
    )
    return reply(told)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """What is asked for, what bounds it, and what was assumed."""

    spec: ScheduleSpec
    policy: Policy = field(default_factory=Policy)
    notes: tuple[str, ...] = ()
    message: str = ""
    phrase: str = ""


async def _wish(request: wire.PreviewRequest, zone: str) -> _Wish:
    """Raises InvalidRequest, InvalidSchedule."""
    if request.schedule is not None and request.text is None:
        return _Wish(spec=request.schedule)
    if request.text is None or request.schedule is not None:
        wrong = "schedule" if request.text is None else "text"
        raise InvalidRequest("Give exactly one of schedule and text.", field=wrong)
    find_zone(zone)
    if not request.sentence and (happening := read_happening(request.text)) is not None:
        return _Wish(spec=happening, phrase=request.text.strip())
    timed = await (read_leading_in_thread if request.sentence else read_when_in_thread)(request.text, now(), zone)
    if timed is None:
        raise InvalidRequest(f"There is no time in {request.text[:80]!r}.", field="text")
    return _Wish(
        spec=timed.schedule,
        policy=timed.policy,
        notes=(timed.note,) if timed.note else (),
        message=timed.message if request.sentence else "",
        phrase=timed.phrase,
    )


def _meaning(schedule: Schedule, policy: Policy, zone: str) -> str:
    """The schedule and what bounds it, in words."""
    at = now()
    out = say_time(schedule.at, zone, at) if isinstance(schedule, Once) else say(schedule)
    if policy.until is not None:
        out += f", until {say_time(policy.until, zone, at)}"
    if policy.max_fires is not None:
        out += f", {policy.max_fires} times" if policy.max_fires > 1 else ", once"
    return out


OPERATIONS = (
    Operation(
        method="GET",
        path="recalls",
        run=list_recalls,
        summary="Your recalls, newest first.",
        action="read",
        answers="RecallPage",
        query=(
            LIMIT,
            CURSOR,
            Query(name="session_id", help="Only those of this session."),
            Query(name="status", choices=tuple(RecallStatus), help="Only those with this status."),
        ),
    ),
    Operation(
        method="POST",
        path="recalls",
        run=create_recall,
        summary="A new recall.",
        action="execute",
        body="RecallCreate",
        answers="Recall",
        status=201,
        errors=(InvalidSchedule, SessionNotFound, LimitReached),
    ),
    Operation(
        method="POST",
        path="recalls/preview",
        run=preview,
        summary="When a schedule, or a time in English, would fire, what it means, and what is odd. Stores nothing.",
        action="read",
        body="PreviewRequest",
        answers="Preview",
        errors=(InvalidSchedule,),
    ),
    Operation(
        method="GET",
        path="recalls/{id}",
        run=get_recall,
        summary="A recall.",
        action="read",
        answers="Recall",
        errors=(RecallNotFound,),
    ),
    Operation(
        method="PATCH",
        path="recalls/{id}",
        run=change_recall,
        summary="Change the fields that are there.",
        action="execute",
        body="RecallPatch",
        answers="Recall",
        errors=(RecallNotFound, RecallOver, InvalidSchedule),
    ),
    Operation(
        method="DELETE",
        path="recalls/{id}",
        run=delete_recall,
        summary="Cancel it if it is not over. Its ledger stays.",
        action="write",
        answers=None,
        status=204,
        errors=(RecallNotFound,),
    ),
    Operation(
        method="POST",
        path="recalls/{id}/fire",
        run=fire_recall,
        summary="Run it now, besides its schedule. The same `Idempotency-Key` header again changes nothing. "
        "Works for a one-time recall that has failed, too.",
        action="execute",
        answers="Recall",
        errors=(RecallNotFound, RecallOver),
    ),
    Operation(
        method="POST",
        path="recalls/{id}/pause",
        run=pause_recall,
        summary="Let no slot fire until it is resumed.",
        action="write",
        answers="Recall",
        errors=(RecallNotFound, RecallOver),
    ),
    Operation(
        method="POST",
        path="recalls/{id}/resume",
        run=resume_recall,
        summary="Go on with the next slot.",
        action="execute",
        answers="Recall",
        errors=(RecallNotFound, RecallOver),
    ),
    Operation(
        method="GET",
        path="recalls/{id}/firings",
        run=list_firings,
        summary="The ledger: every slot and what became of it, newest first.",
        action="read",
        answers="FiringPage",
        query=(LIMIT, CURSOR),
        errors=(RecallNotFound,),
    ),
)
