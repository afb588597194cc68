"""Recalls: create, read, change, delete, fire, pause, resume; the ledger; previews; copy, export and import.

Not responsible for when anything fires (``scheduling``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from ...clock import now
from ...errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ...model.recalls import (
    NotebookJob,
    OnceSpec,
    Policy,
    RecallCreate,
    RecallFire,
    RecallPatch,
    RecallRun,
    RecallStatus,
    When,
)
from ...scheduling.schedules import checked_zone
from ...scheduling.service import RecallService
from ...timetext.events import read_event
from ...timetext.format import say, say_meaning
from ...timetext.instants import Timed
from ...timetext.notebook_jobs import read_job
from ...timetext.parse import read_leading
from ...timetext.phrases import read_until, read_when
from ..bodies import parse
from ..http import CURSOR, LIMIT, NOTHING, HttpReply, Query
from ..wire import recalls as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()
TOML = "text/toml"
_YEARS = range(1970, 2201)
"""Of ``after``: calendars end at the year 9999, and zones have no rules before the clocks of computers."""
_SESSION = Query(name="session_id", help="Only those of this session.")


async def _asks_leave(call: Call) -> bool:
    """Whether the body gives leave to do something without asking, as the execution of a notebook does."""
    request: RecallCreate | RecallFire | None = call.body() if call.request.body.strip() else None
    return bool(request and (request.allow or (isinstance(request, RecallCreate) and _executes(request.run))))


def _executes(run: RecallRun | None) -> bool:
    return isinstance(run, NotebookJob)


async def _has_leave(call: Call) -> bool:
    """Whether the recall has leave, or executes a notebook, when it is made to run."""
    recall = await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner)
    return bool(recall.allow) or _executes(recall.run)


async def _fires_with_leave(call: Call) -> bool:
    """Whether a recall that is run now has leave, or is given some."""
    return await _asks_leave(call) or await _has_leave(call)


async def _uses_leave(call: Call) -> bool:
    """Whether a change gives leave, or changes what is done with the leave that a recall has."""
    patch: RecallPatch = call.body() if call.request.body.strip() else RecallPatch()
    if patch.allow or _executes(patch.run):
        return True
    if patch.allow is None:
        return await _has_leave(call)
    recall = await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner)
    return _executes(recall.run)


@TABLE.add(
    "POST recalls",
    "execute",
    body="RecallCreate",
    answers="Recall",
    status=201,
    errors=(InvalidSchedule, SessionNotFound, LimitReached),
    in_cell=_asks_leave,
)
async def create_recall(call: Call) -> HttpReply:
    """A new recall."""
    request: RecallCreate = call.body()
    # The session must be the caller's; its zone is the user's, for a schedule that names none.
    session = (await call.sessions.find(request.session_id, owner=call.owner)).seen_from(request.client)
    recall = await call.recalls.service.create(request, owner=call.owner, zone=session.timezone)
    if isinstance(recall.schedule, When):  # created in a cell, whose next output may already be the event
        await call.recalls.watcher.listening(recall.id, owner=call.owner)
    return reply(recall, 201, Location=f"recalls/{recall.id}")


@TABLE.add(
    "GET recalls",
    "read",
    answers="RecallPage",
    query=(
        LIMIT,
        CURSOR,
        Query(name="session_id", help="Only those of this session."),
        Query(name="status", choices=(*RecallStatus, "all"), help="Only those with this status; `all`, the default."),
    ),
)
async def list_recalls(call: Call) -> HttpReply:
    """Your recalls, newest first."""
    status = call.string("status")
    recalls, following = await call.recalls.service.queries.list(
        call.owner,
        session_id=call.string("session_id"),
        status=None if status in (None, "all") else RecallStatus(status),
        limit=call.integer("limit"),
        cursor=call.string("cursor"),
    )
    last = await call.recalls.service.queries.last_firings(recalls)
    words = {recall.id: say(recall.schedule) for recall in recalls}
    return reply(wire.RecallPage(recalls=tuple(recalls), next=following, last=dict(last), words=words))


@TABLE.add("GET recalls/{id}", "read", answers="Recall", errors=(RecallNotFound,))
async def get_recall(call: Call) -> HttpReply:
    """A recall."""
    return reply(await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner))


@TABLE.add(
    "PATCH recalls/{id}",
    "execute",
    body="RecallPatch",
    answers="Recall",
    errors=(RecallNotFound, RecallOver, InvalidSchedule),
    in_cell=_uses_leave,
)
async def change_recall(call: Call) -> HttpReply:
    """Change the fields in the body."""
    patch: RecallPatch = call.body()
    return reply(await call.recalls.service.patch(call.parameters["id"], patch, owner=call.owner))


@TABLE.add("DELETE recalls/{id}", "write", status=204, errors=(RecallNotFound,), in_cell=False)
async def delete_recall(call: Call) -> HttpReply:
    """Cancel a recall if it is not over. Its ledger is kept."""
    await call.recalls.service.delete(call.parameters["id"], owner=call.owner)
    return NOTHING


@TABLE.add(
    "POST recalls/{id}/fire",
    "execute",
    body="RecallFire",
    answers="Recall",
    errors=(RecallNotFound, RecallOver, SessionNotFound),
    in_cell=_fires_with_leave,
)
async def fire_recall(call: Call) -> HttpReply:
    """Run a recall now, besides its schedule; with `allow` in the body, with leave to do that without asking.

    The same `Idempotency-Key` header again changes nothing. Works for a one-time recall that has failed, too.
    """
    key = call.request.idempotency_key
    if key is not None and not 1 <= len(key) <= 128:
        raise InvalidRequest("Idempotency-Key must have 1 to 128 characters.", field="Idempotency-Key")
    asked: RecallFire = call.body() if call.request.body.strip() else RecallFire()
    fired = await call.recalls.service.fire(call.parameters["id"], owner=call.owner, key=key, allow=asked.allow)
    return reply(fired)


@TABLE.add("POST recalls/{id}/pause", "write", answers="Recall", errors=(RecallNotFound, RecallOver), in_cell=False)
async def pause_recall(call: Call) -> HttpReply:
    """Pause a recall: nothing fires until it is resumed."""
    return reply(await call.recalls.service.pause(call.parameters["id"], owner=call.owner))


@TABLE.add(
    "POST recalls/{id}/resume", "execute", answers="Recall", errors=(RecallNotFound, RecallOver), in_cell=_has_leave
)
async def resume_recall(call: Call) -> HttpReply:
    """Resume a recall: it goes on with the next slot."""
    return reply(await call.recalls.service.resume(call.parameters["id"], owner=call.owner))


@TABLE.add("GET recalls/{id}/firings", "read", answers="FiringPage", query=(LIMIT, CURSOR), errors=(RecallNotFound,))
async def list_firings(call: Call) -> HttpReply:
    """The ledger: every slot, its outcome and its runs (`attempts`, with those that were interrupted or failed),
    newest first.
    """
    firings, following = await call.recalls.service.queries.ledger(
        call.parameters["id"], owner=call.owner, limit=call.integer("limit"), cursor=call.string("cursor")
    )
    return reply(wire.FiringPage(firings=tuple(firings), next=following))


@TABLE.add(
    "POST recalls/preview", "read", body="PreviewRequest", answers="Preview", errors=(InvalidSchedule, SessionNotFound)
)
async def preview(call: Call) -> HttpReply:
    """When a schedule, or a time in English, would fire, what it means, and what is odd. Stores nothing."""
    request: wire.PreviewRequest = call.body()
    if request.tz is None and request.session_id is not None:
        session = await call.sessions.find(request.session_id, owner=call.owner)
        request = request.but(tz=session.seen_from(request.client).timezone)
    return reply(await previewed(request, call.recalls.service, now()))


async def previewed(request: wire.PreviewRequest, recalls: RecallService, at: datetime) -> wire.Preview:
    """What a schedule or a text would do, as of the request's ``after``, else ``at``.

    Raises InvalidRequest, InvalidSchedule.
    """
    zone = request.tz or (request.client.tz if request.client else "UTC")
    at = request.after or at
    checked_zone(zone)
    if at.year not in _YEARS:
        raise InvalidRequest(f"after: {at.year} is not within {_YEARS[0]} to {_YEARS[-1]}", field="after")
    if request.schedule is not None and request.text is None:
        read = Timed(schedule=request.schedule, phrase="")
    elif request.text is not None and request.schedule is None and request.end:
        end = await asyncio.to_thread(read_until, request.text, at, zone)
        read = Timed(schedule=OnceSpec(kind="once", at=end), phrase=request.text.strip())
    elif request.text is not None and request.schedule is None:
        read = await _read(request.text, at, zone, sentence=request.sentence)
    else:
        wrong = "schedule" if request.text is None else "text"
        raise InvalidRequest("Give exactly one of schedule and text.", field=wrong)
    # An instant that a client names is past or not by the clock on the wall; what counts from now counts from ``at``.
    is_instant = isinstance(request.schedule, OnceSpec) and request.schedule.at is not None
    schedule, times, warnings = await recalls.foresee(
        read.schedule, n=request.n, after=request.after, as_of=None if is_instant else at, zone=zone
    )
    times = _within(read.policy, times)
    period = read.period or (read.schedule.in_ if isinstance(read.schedule, OnceSpec) else None)
    return wire.Preview(
        times=tuple(times),
        warnings=(*filter(None, [read.note]), *warnings),
        schedule=schedule,
        policy=read.policy,
        meaning=say_meaning(schedule, read.policy, zone, at, period),
        message=read.message,
        phrase=read.phrase,
        timezone=zone,
        run=_job_in(read.message) if request.sentence else None,
    )


def _job_in(message: str) -> NotebookJob | None:
    """The notebook that the message of a sentence asks to execute. Raises InvalidRequest for an odd path."""
    written = read_job(message)
    if written is None:
        return None
    try:
        return NotebookJob.model_validate(written)
    except ValidationError as error:
        raise InvalidRequest(f"{error.errors()[0]['msg'].removeprefix('Value error, ')}.", field="text") from None


def _within(policy: Policy, times: Sequence[datetime]) -> Sequence[datetime]:
    """Those that the text's own bounds leave. Raises InvalidSchedule where they leave none."""
    until = policy.until
    inside = [each for each in times if until is None or each <= until][: policy.max_fires]
    if times and not inside:
        raise InvalidSchedule(f"That ends before its first time, which would be {times[0]:%a %d %b %Y %H:%M}.")
    return inside


async def _read(text: str, at: datetime, zone: str, *, sentence: bool) -> Timed:
    if not sentence and (event := read_event(text)) is not None:
        return Timed(schedule=event, phrase=text.strip())
    timed = await asyncio.to_thread(read_leading if sentence else read_when, text, at, zone)
    if timed is None:
        raise InvalidRequest(f"There is no time in {text[:80]!r}.", field="text")
    return timed if sentence else replace(timed, message="")


@TABLE.add("POST recalls/pause", "write", answers="RecallsChanged", query=(_SESSION,), in_cell=False)
async def pause_all(call: Call) -> HttpReply:
    """Pause all of your recalls, or those of a session."""
    changed = await call.recalls.service.bulk.pause_all(owner=call.owner, session_id=call.string("session_id"))
    return reply(wire.RecallsChanged(changed=changed))


@TABLE.add("POST recalls/resume", "execute", answers="RecallsChanged", query=(_SESSION,))  # some may have leave
async def resume_all(call: Call) -> HttpReply:
    """Resume all of your recalls, or those of a session."""
    changed = await call.recalls.service.bulk.resume_all(owner=call.owner, session_id=call.string("session_id"))
    return reply(wire.RecallsChanged(changed=changed))


@TABLE.add(
    "POST recalls/{id}/clone",
    "execute",
    body="RecallPatch",
    answers="Recall",
    status=201,
    errors=(RecallNotFound, InvalidSchedule, LimitReached),
    in_cell=_uses_leave,
)
async def clone_recall(call: Call) -> HttpReply:
    """A copy of a recall, also of one that is over; the fields of the body replace its own."""
    patch: RecallPatch = call.body() if call.request.body.strip() else RecallPatch()
    recall = await call.recalls.service.clone(call.parameters["id"], patch, owner=call.owner)
    return reply(recall, 201, Location=f"recalls/{recall.id}")


@TABLE.add("GET recalls/export", "read", query=(_SESSION,), other_types=(TOML,))
async def export_recalls(call: Call) -> HttpReply:
    """Your recalls that are not over, as TOML."""
    text = await call.recalls.service.bulk.export(owner=call.owner, session_id=call.string("session_id"))
    return HttpReply(content=text, content_type=f"{TOML}; charset=UTF-8", filename="recalls.toml")


@TABLE.add(
    "POST recalls/import",
    "execute",
    body="RecallImport",
    answers="Imported",
    status=201,
    query=(
        Query(name="session_id", help="Create all of them in this session, also where the file names another."),
        Query(name="dry_run", choices=("true", "false"), help="`true`: only check it, and answer with 200."),
    ),
    errors=(InvalidSchedule, SessionNotFound, LimitReached),
)
async def import_recalls(call: Call) -> HttpReply:
    """Create the recalls of a TOML file, all or none. The body is the TOML, or JSON that contains it."""
    dry_run = call.string("dry_run") == "true"
    recalls = await call.recalls.service.bulk.take_in(
        _toml(call), owner=call.owner, session_id=call.string("session_id"), dry_run=dry_run
    )
    words = {recall.id: say(recall.schedule) for recall in recalls}
    return reply(wire.Imported(recalls=tuple(recalls), dry_run=dry_run, words=words), 200 if dry_run else 201)


def _toml(call: Call) -> str:
    """The TOML of a body that is TOML, or JSON that contains it: no TOML text begins with a brace."""
    body = call.request.body.strip()
    if not body:
        raise InvalidRequest("The body is missing; send TOML, or JSON with a field toml.", field="body")
    if body.startswith(b"{"):
        wrapped: wire.RecallImport = parse("RecallImport", body)
        return wrapped.toml
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The body must be UTF-8.", field="body") from None
