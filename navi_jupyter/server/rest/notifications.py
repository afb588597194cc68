"""Read marks of sessions, and the targets of notifications.

No answer contains the URL of a target: it has the key to the service in it.
"""

from __future__ import annotations

from ...clock import now
from ...errors import LimitReached, NotFound, SessionNotFound
from ...notifications.apprise_sender import scheme_of
from ...notifications.service import TargetState
from ..http import Reply
from ..wire import recalls as wire
from ..wire.sessions import ReadMark, ReadRequest
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add("POST sessions/{sid}/read", "write", body="ReadRequest", answers="ReadMark", errors=(SessionNotFound,))
async def mark_read(call: Call) -> Reply:
    """Mark the log as read up to `seq`. A mark never goes back."""
    request: ReadRequest = call.body()
    marked = await call.sessions.mark_read(call.parameters["sid"], owner=call.owner, seq=request.seq, at=now())
    return reply(ReadMark(seq=marked.seq, unread=marked.unread))


@TABLE.add("GET notify", "read", answers="NotifyPage")
async def list_targets(call: Call) -> Reply:
    """The targets of notifications about recalls, and how they went. Without the URLs, which are secret."""
    notify = call.recalls.notifications
    targets = await notify.targets()
    states = await notify.states(call.owner)
    return reply(
        wire.NotifyPage(
            notify=tuple(map(_info, states)),
            quiet=targets.quiet_text,
            per_hour=targets.per_hour,
            problems=tuple(wire.NotifyProblem(file=each.file, message=each.message) for each in targets.problems),
            next=None,
        )
    )


@TABLE.add("POST notify/{name}/test", "execute", answers="NotifyTrial", errors=(NotFound, LimitReached))
async def try_target(call: Call) -> Reply:
    """Send a test message to a target, at once."""
    outcome = await call.recalls.notifications.send_test(call.parameters["name"], owner=call.owner)
    return reply(wire.NotifyTrial(delivered=outcome.problem is None, error=outcome.problem))


def _info(state: TargetState) -> wire.NotifyTarget:
    record = state.record
    return wire.NotifyTarget(
        name=state.target.name,
        service=scheme_of(state.target.url) or None,
        source=state.target.source,
        available=state.target.wrong is None,
        why=state.target.wrong,
        waiting=record.waiting,
        sent=record.sent,
        failed=record.failed,
        last_sent_at=record.last_sent_at,
        last_error=record.last_error,
    )
