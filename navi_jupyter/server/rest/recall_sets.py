"""Recalls as a whole: pause and resume all, copy, export and import, and what happened while somebody was away.

Not responsible for one recall at a time (``recalls``).
"""

from __future__ import annotations

from datetime import datetime

from ...agent.history_summary import since_last_here, summarize_history
from ...clock import now
from ...errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, SessionNotFound
from ...model.recalls import RecallPatch
from ...model.sessions import RunStatus
from ...timetext.format import say
from ..bodies import parse
from ..http import LIMIT, Query, Reply
from ..wire import recalls as wire
from ..wire import sessions as session_wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()

TOML = "text/toml"
_SESSION = Query(name="session_id", help="Only those of this session.")


@TABLE.add(
    "POST recalls/pause",
    "Pause all of your recalls, or those of a session.",
    action="write",
    answers="RecallsChanged",
    query=(_SESSION,),
)
async def pause_all(call: Call) -> Reply:
    changed = await call.recalls.service.bulk.pause_all(owner=call.owner, session_id=call.string("session_id"))
    return reply(wire.RecallsChanged(changed=changed))


@TABLE.add(
    "POST recalls/resume",
    "Resume all of your recalls, or those of a session.",
    action="execute",
    answers="RecallsChanged",
    query=(_SESSION,),
)
async def resume_all(call: Call) -> Reply:
    changed = await call.recalls.service.bulk.resume_all(owner=call.owner, session_id=call.string("session_id"))
    return reply(wire.RecallsChanged(changed=changed))


@TABLE.add(
    "POST recalls/{id}/clone",
    "A new recall like this one, also when it is over; the fields of a body take the place of its own.",
    action="execute",
    body="RecallPatch",
    answers="Recall",
    status=201,
    errors=(RecallNotFound, InvalidSchedule, LimitReached),
)
async def clone_recall(call: Call) -> Reply:
    patch: RecallPatch = call.body() if call.request.body.strip() else RecallPatch()
    recall = await call.recalls.service.clone(call.parameters["id"], patch, owner=call.owner)
    return reply(recall, 201, Location=f"recalls/{recall.id}")


@TABLE.add(
    "GET recalls/export",
    "Your recalls that are not over, as TOML.",
    action="read",
    answers=None,
    query=(_SESSION,),
    other_types=(TOML,),
)
async def export_recalls(call: Call) -> Reply:
    text = await call.recalls.service.bulk.export(owner=call.owner, session_id=call.string("session_id"))
    return Reply(content=text, content_type=f"{TOML}; charset=UTF-8", filename="recalls.toml")


@TABLE.add(
    "POST recalls/import",
    "Make the recalls of a TOML file, all or none. The body is the TOML, or JSON that has it.",
    action="execute",
    body="RecallImport",
    answers="Imported",
    status=201,
    query=(
        Query(name="session_id", help="Make all of them in this session, whatever the file says."),
        Query(name="dry_run", choices=("true", "false"), help="`true`: only check it, and answer with 200."),
    ),
    errors=(InvalidSchedule, SessionNotFound, LimitReached),
)
async def import_recalls(call: Call) -> Reply:
    dry_run = call.string("dry_run") == "true"
    recalls = await call.recalls.service.bulk.take_in(
        _toml(call), owner=call.owner, session_id=call.string("session_id"), dry_run=dry_run
    )
    words = {recall.id: say(recall.schedule) for recall in recalls}
    return reply(wire.Imported(recalls=tuple(recalls), dry_run=dry_run, words=words), 200 if dry_run else 201)


def _toml(call: Call) -> str:
    """The TOML of a body that is TOML, or JSON that has it: no TOML text begins with a brace."""
    body = call.request.body.strip()
    if not body:
        raise InvalidRequest("There is no body; it must be TOML, or JSON with a field toml.", field="body")
    if body.startswith(b"{"):
        wrapped: wire.RecallImport = parse("RecallImport", body)
        return wrapped.toml
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The body must be UTF-8.", field="body") from None


@TABLE.add(
    "GET sessions/{sid}/away",
    "What happened in a session since you were last there: what ran, and what did not and why.",
    action="read",
    answers="Away",
    query=(LIMIT, Query(name="since", help="ISO 8601. Default: your last prompt, or when you last read in it.")),
    errors=(SessionNotFound,),
)
async def away(call: Call) -> Reply:
    session_id = call.parameters["sid"]
    session = await call.sessions.find(session_id, owner=call.owner)
    library = call.sessions.orchestrator.sessions.history
    since = _instant(call.string("since"))
    if since is None:
        read_at = (await call.sessions.store.seen(session_id, call.owner)).read_at
        since = await since_last_here(session_id, library, read_at=read_at) or session.created_at
    past = await summarize_history(
        session_id, library=library, recalls=call.recalls.service, since=since, limit=call.integer("limit")
    )
    return reply(
        session_wire.Away(
            since=since,
            runs=tuple(
                session_wire.AwayRun(
                    run_id=turn.run.id,
                    at=turn.run.started_at or turn.run.created_at,
                    status=turn.run.status,
                    origin=turn.run.origin,
                    prompt=turn.prompt,
                    answer=turn.answer,
                    error=turn.run.error.code if turn.run.error else None,
                )
                for turn in past.turns
            ),
            not_run=tuple(
                session_wire.AwaySlot(
                    recall_id=row.firing.recall_id,
                    title=row.title,
                    slot=row.firing.slot,
                    status=row.firing.status.value,
                    reason=row.firing.reason,
                    coalesced=row.firing.coalesced,
                )
                for row in past.unrun
            ),
            missed=past.missed,
            failed=sum(turn.run.status in (RunStatus.FAILED, RunStatus.TIMED_OUT) for turn in past.turns),
        )
    )


def _instant(text: str | None) -> datetime | None:
    """An ISO 8601 instant of the query string, where a plus may have become a space. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at > now():
        raise InvalidRequest("since must be a past time in ISO 8601 with an offset.", field="since")
    return at
