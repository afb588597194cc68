"""Recalls: make, read, change, delete, fire, pause, resume; the ledger; what a schedule would do.

Not responsible for when anything fires (``recalls``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ...clock import Period, now
from ...errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ...model.recalls import OnceSpec, Policy, RecallCreate, RecallPatch, RecallStatus, ScheduleSpec, When
from ...scheduling.schedules import checked_zone
from ...scheduling.service import RecallService
from ...timetext.events import read_happening
from ...timetext.format import say, say_meaning
from ...timetext.parse import read_leading_in_thread, read_when_in_thread
from ..http import CURSOR, LIMIT, NOTHING, Query, Reply
from ..wire import recalls as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add(
    "POST recalls",
    "A new recall.",
    action="execute",
    body="RecallCreate",
    answers="Recall",
    status=201,
    errors=(InvalidSchedule, SessionNotFound, LimitReached),
)
async def create_recall(call: Call) -> Reply:
    request: RecallCreate = call.body()
    # The session must be the caller's; its zone is the user's, for a schedule that names none.
    session = await call.sessions.find(request.session_id, owner=call.owner)
    recall = await call.recalls.service.create(request, owner=call.owner, zone=session.timezone)
    if isinstance(recall.schedule, When):  # made in a cell, whose every output is to be seen
        await call.recalls.watcher.listening(recall.id)
    return reply(recall, 201, Location=f"recalls/{recall.id}")


@TABLE.add(
    "GET recalls",
    "Your recalls, newest first.",
    action="read",
    answers="RecallPage",
    query=(
        LIMIT,
        CURSOR,
        Query(name="session_id", help="Only those of this session."),
        Query(name="status", choices=tuple(RecallStatus), help="Only those with this status."),
    ),
)
async def list_recalls(call: Call) -> Reply:
    status = call.string("status")
    recalls, following = await call.recalls.service.queries.list(
        call.owner,
        session_id=call.string("session_id"),
        status=None if status is None else RecallStatus(status),
        limit=call.integer("limit"),
        cursor=call.string("cursor"),
    )
    last = await call.recalls.service.queries.last_firings(recalls)
    words = {recall.id: say(recall.schedule) for recall in recalls}
    return reply(wire.RecallPage(recalls=tuple(recalls), next=following, last=dict(last), words=words))


@TABLE.add("GET recalls/{id}", "A recall.", action="read", answers="Recall", errors=(RecallNotFound,))
async def get_recall(call: Call) -> Reply:
    return reply(await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner))


@TABLE.add(
    "PATCH recalls/{id}",
    "Change the fields that are there.",
    action="execute",
    body="RecallPatch",
    answers="Recall",
    errors=(RecallNotFound, RecallOver, InvalidSchedule),
)
async def change_recall(call: Call) -> Reply:
    patch: RecallPatch = call.body()
    recall = await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner)
    session = await call.sessions.find(recall.session_id, owner=call.owner)
    changed = await call.recalls.service.patch(recall.id, patch, owner=call.owner, zone=session.timezone)
    return reply(changed)


@TABLE.add(
    "DELETE recalls/{id}",
    "Cancel it if it is not over. Its ledger stays.",
    action="write",
    answers=None,
    status=204,
    errors=(RecallNotFound,),
)
async def delete_recall(call: Call) -> Reply:
    await call.recalls.service.delete(call.parameters["id"], owner=call.owner)
    return NOTHING


@TABLE.add(
    "POST recalls/{id}/fire",
    "Run it now, besides its schedule. The same `Idempotency-Key` header again changes nothing. "
    "Works for a one-time recall that has failed, too.",
    action="execute",
    answers="Recall",
    errors=(RecallNotFound, RecallOver),
)
async def fire_recall(call: Call) -> Reply:
    key = call.request.idempotency_key
    if key is not None and not 1 <= len(key) <= 128:
        raise InvalidRequest("Idempotency-Key must have 1 to 128 characters.", field="Idempotency-Key")
    return reply(await call.recalls.service.fire(call.parameters["id"], owner=call.owner, key=key))


@TABLE.add(
    "POST recalls/{id}/pause",
    "Let no slot fire until it is resumed.",
    action="write",
    answers="Recall",
    errors=(RecallNotFound, RecallOver),
)
async def pause_recall(call: Call) -> Reply:
    return reply(await call.recalls.service.pause(call.parameters["id"], owner=call.owner))


@TABLE.add(
    "POST recalls/{id}/resume",
    "Go on with the next slot.",
    action="execute",
    answers="Recall",
    errors=(RecallNotFound, RecallOver),
)
async def resume_recall(call: Call) -> Reply:
    return reply(await call.recalls.service.resume(call.parameters["id"], owner=call.owner))


@TABLE.add(
    "GET recalls/{id}/firings",
    "The ledger: every slot and what became of it, newest first.",
    action="read",
    answers="FiringPage",
    query=(LIMIT, CURSOR),
    errors=(RecallNotFound,),
)
async def list_firings(call: Call) -> Reply:
    firings, following = await call.recalls.service.queries.ledger(
        call.parameters["id"], owner=call.owner, limit=call.integer("limit"), cursor=call.string("cursor")
    )
    return reply(wire.FiringPage(firings=tuple(firings), next=following))


@TABLE.add(
    "POST recalls/preview",
    "When a schedule, or a time in English, would fire, what it means, and what is odd. Stores nothing.",
    action="read",
    body="PreviewRequest",
    answers="Preview",
    errors=(InvalidSchedule,),
)
async def preview(call: Call) -> Reply:
    request: wire.PreviewRequest = call.body()
    return reply(await previewed(request, call.recalls.service, now()))


async def previewed(request: wire.PreviewRequest, recalls: RecallService, at: datetime) -> wire.Preview:
    """What a schedule or a text would do, as of the request's ``after``, else ``at``.

    Raises InvalidRequest, InvalidSchedule.
    """
    zone, at = request.tz or "UTC", request.after or at
    checked_zone(zone)
    if request.schedule is not None and request.text is None:
        read = _Read(spec=request.schedule)
    elif request.text is not None and request.schedule is None:
        read = await _read(request.text, at, zone, sentence=request.sentence)
    else:
        wrong = "schedule" if request.text is None else "text"
        raise InvalidRequest("Give exactly one of schedule and text.", field=wrong)
    # An instant that a client names is past or not by the clock on the wall; what counts from now counts from ``at``.
    is_instant = isinstance(request.schedule, OnceSpec) and request.schedule.at is not None
    schedule, times, warnings = recalls.foresee(
        read.spec, n=request.n, after=request.after, as_of=None if is_instant else at, zone=zone
    )
    period = read.period or (read.spec.in_ if isinstance(read.spec, OnceSpec) else None)
    return wire.Preview(
        times=tuple(times),
        warnings=(*read.notes, *warnings),
        schedule=schedule,
        policy=read.policy,
        meaning=say_meaning(schedule, read.policy, zone, at, period),
        message=read.message,
        phrase=read.phrase,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """A schedule, what bounds it, what was assumed, and the words that it was read from."""

    spec: ScheduleSpec
    policy: Policy = field(default_factory=Policy)
    notes: tuple[str, ...] = ()
    message: str = ""
    phrase: str = ""
    period: Period | None = None


async def _read(text: str, at: datetime, zone: str, *, sentence: bool) -> _Read:
    if not sentence and (happening := read_happening(text)) is not None:
        return _Read(spec=happening, phrase=text.strip())
    timed = await (read_leading_in_thread if sentence else read_when_in_thread)(text, at, zone)
    if timed is None:
        raise InvalidRequest(f"There is no time in {text[:80]!r}.", field="text")
    return _Read(
        spec=timed.schedule,
        policy=timed.policy,
        notes=(timed.note,) if timed.note else (),
        message=timed.message if sentence else "",
        phrase=timed.phrase,
        period=timed.period,
    )
