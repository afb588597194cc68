"""Sessions: create, read, change, delete; submit commands; read the log, the messages, the runs; download.

Not responsible for what a session does (``orchestrator``) or for how the log is streamed (``handler``, ``websocket``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ...agent.history_summary import SummarizedTurn, since_last_here, summarize_history
from ...clock import find_zone, now
from ...commands import Command
from ...errors import (
    CommandNotFound,
    InterruptNotFound,
    InvalidRequest,
    LimitReached,
    ModelUnavailable,
    RunNotFound,
    SessionBusy,
    SessionNotFound,
)
from ...model.sessions import Run, RunStatus, SessionCreate, SessionPatch, Usage
from ...orchestrator.prompts import infos
from ...ports.agent import Unrun
from ..http import CURSOR, LIMIT, NOTHING, HttpReply, Query
from ..kernel_scope import widens
from ..wire import sessions as wire
from .routing import Call, OperationTable, fields_of, reply

if TYPE_CHECKING:
    from ...orchestrator.session_directory import SessionView
    from ...ports.transactions import QueuedPrompt

TABLE = OperationTable()


async def _widens_new(call: Call) -> bool:
    settings = call.services.settings
    return widens(call.body(), profile=settings.default_profile, model=settings.default_model)


async def _widens(call: Call) -> bool:
    now = await call.sessions.find(call.parameters["sid"], owner=call.owner)
    patch: SessionPatch = call.body()
    return widens(
        patch,
        profile=now.profile,
        model=now.model,
        allowed=now.allowed_tools,
        context=now.context,
        agent_options=now.agent_options,
    )


@TABLE.add(
    "POST sessions",
    "write",
    body="SessionCreate",
    answers="SessionDetail",
    status=201,
    errors=(LimitReached, ModelUnavailable),
    in_cell=_widens_new,
)
async def create_session(call: Call) -> HttpReply:
    """A new session. With `notebook_path` it becomes that notebook's, which carries its id from then on."""
    request: SessionCreate = call.body()
    session = await call.sessions.notebooks.create(request, owner=call.owner)
    detail = wire.SessionDetail(**fields_of(session), run=None, queue=(), approvals=(), usage=Usage())
    return reply(detail, 201, Location=f"sessions/{session.id}")


@TABLE.add(
    "POST sessions/find",
    "write",
    body="SessionFind",
    answers="FoundSession",
    errors=(LimitReached, ModelUnavailable),
    in_cell=_widens_new,
)
async def find_session(call: Call) -> HttpReply:
    """The session of a notebook, known by what the notebook carries, or of a kernel without one; made where asked."""
    request: wire.SessionFind = call.body()
    found = await call.sessions.notebooks.find(request, owner=call.owner)
    if found.how == "created" and found.session is not None:
        note = await call.agent.choice.note(call.owner, found.session.model)
        found = found.but(note=" ".join(filter(None, [note, found.note])) or None)
    return reply(found)


@TABLE.add("GET sessions/{sid}", "read", answers="SessionDetail", errors=(SessionNotFound,))
async def get_session(call: Call) -> HttpReply:
    """A session, with its run, its waiting prompts and its open questions."""
    return reply(await detail(call, call.parameters["sid"]))


@TABLE.add(
    "PATCH sessions/{sid}",
    "write",
    body="SessionPatch",
    answers="SessionDetail",
    errors=(SessionNotFound, ModelUnavailable),
    in_cell=_widens,
)
async def change_session(call: Call) -> HttpReply:
    """Change the fields in the body. `notebook_path`: null links it to none. `model` counts for new sessions, too."""
    patch: SessionPatch = call.body()
    await call.sessions.notebooks.change(call.parameters["sid"], patch, owner=call.owner)
    if patch.model is not None:
        await call.agent.choice.remember(call.owner, patch.model)
    return reply(await detail(call, call.parameters["sid"]))


@TABLE.add(
    "POST sessions/{sid}/commands",
    "execute",
    body="Command",
    answers="Acceptance",
    status=202,
    errors=(SessionNotFound, SessionBusy, CommandNotFound, InterruptNotFound, LimitReached, ModelUnavailable),
    in_cell=False,  # decided by the kind of command, as over the socket: ``kernel_scope.needs_cell``
)
async def submit(call: Call) -> HttpReply:
    """Submit a command. The same `command_id` again changes nothing and gets the same answer."""
    command: Command = call.body()
    acceptance = await call.sessions.submit(
        call.parameters["sid"], command, owner=call.owner, kernel=call.request.kernel
    )
    return reply(acceptance, 202)


@TABLE.add("GET sessions/{sid}/runs", "read", answers="RunPage", query=(LIMIT, CURSOR), errors=(SessionNotFound,))
async def list_runs(call: Call) -> HttpReply:
    """The session's runs, newest first."""
    runs, following = await call.sessions.directory.runs(
        call.parameters["sid"], owner=call.owner, limit=call.integer("limit"), cursor=call.string("cursor")
    )
    questions = await settled_questions(call, runs)
    return reply(wire.RunPage(runs=tuple(runs), questions=questions, next=following))


async def settled_questions(call: Call, runs: Sequence[Run]) -> tuple[wire.SettledQuestion, ...]:
    """The questions of runs of the session that were settled."""
    found = await call.sessions.directory.questions(
        call.parameters["sid"], owner=call.owner, settled_of=[run.id for run in runs]
    )
    names = wire.SettledQuestion.model_fields
    return tuple(wire.SettledQuestion(**{name: getattr(one, name) for name in names}) for one in found)


@TABLE.add("GET sessions/{sid}/runs/{rid}", "read", answers="Run", errors=(SessionNotFound, RunNotFound))
async def get_run(call: Call) -> HttpReply:
    """One run."""
    run = await call.sessions.directory.run(call.parameters["sid"], call.parameters["rid"], owner=call.owner)
    return reply(run)


@TABLE.add(
    "GET sessions/{sid}/interrupts/{iid}", "read", answers="Question", errors=(SessionNotFound, InterruptNotFound)
)
async def get_question(call: Call) -> HttpReply:
    """A question to the user, open or settled."""
    interrupt_id = call.parameters["iid"]
    found = await call.sessions.question(call.parameters["sid"], interrupt_id, owner=call.owner)
    return reply(wire.Question(**fields_of(found), drawn=interrupt_id in call.sessions.drawn))


@TABLE.add(
    "POST sessions/{sid}/interrupts/{iid}/drawn", "write", status=204, errors=(SessionNotFound, InterruptNotFound)
)
async def mark_drawn(call: Call) -> HttpReply:
    """A page shows buttons for this question: the cell that waits need not ask for it at a prompt."""
    found = await call.sessions.question(call.parameters["sid"], call.parameters["iid"], owner=call.owner)
    call.sessions.drawn.add(found.id)
    return NOTHING


async def detail(call: Call, session_id: str) -> wire.SessionDetail:
    """A session with what it is doing, as its owner or a reader of it may see it."""
    view: SessionView = await call.sessions.directory.view(session_id, owner=call.owner)
    is_own = view.session.owner == call.owner
    unread = await call.sessions.read_marks.unread([session_id], owner=call.owner) if is_own else {}
    return wire.SessionDetail(
        **fields_of(view.session) | {"head_seq": view.head_seq},
        run=view.run,
        queue=tuple(_queued(queued) for queued in view.prompts),
        approvals=tuple(view.approvals),
        usage=view.usage,
        agent_offer=view.agent_offer,
        unread=unread.get(session_id, 0),
        access="owner" if is_own else "reader",
        readers=tuple(await call.sessions.store.readers(session_id)) if is_own else (),
    )


def _queued(queued: QueuedPrompt) -> wire.QueuedRun:
    prompts = [
        {
            "command_id": part.command_id,
            "text": part.text,
            "display": part.display,
            "attachments": infos(part.attachments),
        }
        for part in queued.parts
    ]
    return wire.QueuedRun.model_validate({**queued.run.model_dump(), "mode": queued.mode, "prompts": prompts})


@TABLE.add(
    "GET usage",
    "read",
    answers="UsageReport",
    query=(Query(name="tz", default="UTC", help="The zone in which today begins at midnight."),),
)
async def report_usage(call: Call) -> HttpReply:
    """Tokens and, where known, US dollars of your runs: of today, of the last 30 days, of all."""
    name = call.string("tz") or "UTC"
    zone = find_zone(name)
    if zone is None:
        raise InvalidRequest(f"tz: {name!r} is not a known time zone. Use a name like Europe/Berlin.", field="tz")
    at = now().astimezone(zone)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    since = (midnight, at - timedelta(days=30), datetime.fromtimestamp(0, UTC))
    usage_of = call.sessions.directory.usage_of
    today, month, total = [await usage_of(call.owner, since=start.astimezone(UTC)) for start in since]
    return reply(wire.UsageReport(today=today, last_30_days=month, total=total))


@TABLE.add(
    "GET sessions/{sid}/away",
    "read",
    answers="Away",
    query=(LIMIT, Query(name="since", help="ISO 8601. Default: your last prompt, or when you last read in it.")),
    errors=(SessionNotFound,),
)
async def away(call: Call) -> HttpReply:
    """What happened in a session since you were last there: what ran, and what did not and why."""
    session = await call.sessions.find(call.parameters["sid"], owner=call.owner)
    library = call.sessions.directory.history
    since = _past_instant(call.string("since"))
    if since is None:
        read_at = (await call.sessions.store.seen(session.id, call.owner)).read_at
        since = await since_last_here(session.id, library, read_at=read_at) or session.created_at
    past = await summarize_history(
        session.id, library=library, recalls=call.recalls.service, since=since, limit=call.integer("limit")
    )
    return reply(
        wire.Away(
            since=since,
            runs=tuple(map(_away_run, past.turns)),
            not_run=tuple(map(_away_slot, past.unrun)),
            missed=past.missed,
            failed=sum(turn.run.status in _NOT_DONE for turn in past.turns),
        )
    )


_NOT_DONE = (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.INTERRUPTED)


def _away_run(turn: SummarizedTurn) -> wire.AwayRun:
    return wire.AwayRun(
        run_id=turn.run.id,
        at=turn.run.started_at or turn.run.created_at,
        status=turn.run.status,
        origin=turn.run.origin,
        prompt=turn.prompt,
        answer=turn.answer,
        error=turn.run.error.code if turn.run.error else None,
        reason=turn.run.error.message if turn.run.error else None,
    )


def _away_slot(missed: Unrun) -> wire.AwaySlot:
    return wire.AwaySlot(
        recall_id=missed.firing.recall_id,
        title=missed.title,
        slot=missed.firing.slot,
        status=missed.firing.status.value,
        reason=missed.firing.reason,
        coalesced=missed.firing.coalesced,
    )


def _past_instant(text: str | None) -> datetime | None:
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


@TABLE.add(
    "POST sessions/{sid}/read",
    "write",
    body="ReadRequest",
    answers="ReadMark",
    errors=(SessionNotFound,),
    in_cell=False,
)
async def mark_read(call: Call) -> HttpReply:
    """Mark the log as read up to `seq`. A mark never goes back."""
    request: wire.ReadRequest = call.body()
    marked = await call.sessions.mark_read(call.parameters["sid"], owner=call.owner, seq=request.seq, at=now())
    return reply(wire.ReadMark(seq=marked.seq, unread=marked.unread))
