"""Recalls: make, read, change, delete, fire, pause, resume; the ledger; what a schedule would do.

Not responsible for when anything fires (``recalls``).
"""

from __future__ import annotations

from ...errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ...model import RecallCreate, RecallPatch, RecallStatus
from .. import wire
from .table import CURSOR, LIMIT, NOTHING, Call, Operation, Query, Reply, reply


async def create_recall(call: Call) -> Reply:
    request: RecallCreate = call.body()
    # The session must be the caller's; its zone is the user's, for a schedule that names none.
    session = await call.services.session(request.session_id, owner=call.owner)
    recall = await call.services.recalls.create(request, owner=call.owner, zone=session.timezone)
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
    return reply(wire.RecallPage(recalls=tuple(recalls), next=following))


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
    times, warnings = call.services.recalls.preview(
        request.schedule, n=request.n, after=request.after, zone=request.tz or "UTC"
    )
    return reply(wire.Preview(times=tuple(times), warnings=tuple(warnings)))


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
        summary="When a schedule would fire, and what is odd about it. Stores nothing.",
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
        summary="Run it now, besides its schedule. The same `Idempotency-Key` header again changes nothing.",
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
