"""What belongs to a user besides sessions and recalls: attention, attachments, memory, targets of notifications.

What is downloaded never runs in the origin of the page. Memory is the facts that the agent remembers about the user.
No answer contains the URL of a target: it has the key to the service in it.
"""

from __future__ import annotations

from dataclasses import asdict
from urllib.parse import quote

from ...errors import AttachmentNotFound, AttachmentRefused, FactNotFound, LimitReached, NotFound
from ...model.attachments import Attachment, FactCreate, FactPatch
from ...notifications.apprise_sender import scheme_of
from ...notifications.service import TargetState
from ...text import IMAGE_TYPES
from ..http import CURSOR, LIMIT, NOTHING, HttpReply, Query
from ..wire import agent as wire
from ..wire import recalls as recall_bodies
from ..wire import sessions as session_bodies
from .routing import Call, OperationTable, reply

TABLE = OperationTable()

_INLINE = (*IMAGE_TYPES, "image/svg+xml")
"""Types that may be shown inline. SVG, too: its scripts do not run in an image, and opened alone it is sandboxed."""

_MOST_WAITING = 50  # sessions that an answer names; the counts are of all


@TABLE.add("GET attention", "read", answers="Attention")
async def read_attention(call: Call) -> HttpReply:
    """What is unread and which questions are open, over all your sessions."""
    waiting = await call.sessions.read_marks.waiting(call.owner)
    listed = tuple(session_bodies.WaitingSession(**asdict(each)) for each in waiting[:_MOST_WAITING])
    counts = {"unread": sum(each.unread for each in waiting), "questions": sum(each.questions for each in waiting)}
    return reply(session_bodies.Attention(**counts, sessions=listed))


@TABLE.add(
    "POST attachments",
    "write",
    answers="Attachment",
    status=201,
    upload=True,
    query=(Query(name="name", help="Its file name."),),
    errors=(AttachmentRefused, LimitReached),
    in_cell=False,
)
async def add_attachment(call: Call) -> HttpReply:
    """Upload an image or a file, to be named in a prompt. The body is its content."""
    attachment = await call.sessions.attachments.add(
        call.request.body,
        name=call.string("name"),
        media_type=call.request.content_type.partition(";")[0].strip().lower() or None,
        owner=call.owner,
    )
    return reply(attachment, 201, Location=f"attachments/{attachment.id}")


@TABLE.add(
    "GET attachments/{id}", "read", errors=(AttachmentNotFound,), other_types=("application/octet-stream", *_INLINE)
)
async def get_attachment(call: Call) -> HttpReply:
    """The content of an attachment."""
    attachment = await _readable(call)
    content = await call.sessions.attachments.read(attachment.id, owner=attachment.owner)
    return HttpReply(
        content=content,
        content_type=attachment.media_type if attachment.media_type in _INLINE else "application/octet-stream",
        headers=_protecting_headers(attachment),
    )


@TABLE.add("GET attachments/{id}/info", "read", answers="Attachment", errors=(AttachmentNotFound,))
async def describe_attachment(call: Call) -> HttpReply:
    """Name, media type and size of an attachment."""
    return reply(await _readable(call))


async def _readable(call: Call) -> Attachment:
    """The user's own, or one that a session shows which is shared with the user. Raises AttachmentNotFound."""
    attachment_id = call.parameters["id"]
    owner = await call.sessions.attachments.owner_for(attachment_id, call.owner)
    return await call.sessions.attachments.find(attachment_id, owner=owner)


def _protecting_headers(attachment: Attachment) -> dict[str, str]:
    """Headers that keep an upload, or what a kernel printed, from running as a page of this server."""
    disposition = "inline" if attachment.media_type in _INLINE else "attachment"
    return {
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(attachment.name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=31536000, immutable",
    }


@TABLE.add(
    "GET memory",
    "read",
    answers="MemoryPage",
    query=(LIMIT, CURSOR, Query(name="query", help="Words: facts with any of them are found.")),
)
async def list_memory(call: Call) -> HttpReply:
    """What the agent remembers about you, newest first; with `query` the best match first."""
    facts, following = await call.sessions.memory.facts(
        call.owner, query=call.string("query"), limit=call.integer("limit"), cursor=call.string("cursor")
    )
    return reply(wire.MemoryPage(memory=tuple(facts), next=following))


@TABLE.add("POST memory", "write", body="FactCreate", answers="Fact", status=201, errors=(LimitReached,))
async def add_fact(call: Call) -> HttpReply:
    """Remember a fact. The same text again is the same fact."""
    request: FactCreate = call.body()
    fact = await call.sessions.memory.add(request.text, owner=call.owner, source="user", session_id=request.session_id)
    return reply(fact, 201, Location=f"memory/{fact.id}")


@TABLE.add("PATCH memory/{id}", "write", body="FactPatch", answers="Fact", errors=(FactNotFound,))
async def change_fact(call: Call) -> HttpReply:
    """Change a fact."""
    request: FactPatch = call.body()
    return reply(await call.sessions.memory.change(call.parameters["id"], request.text, owner=call.owner))


@TABLE.add("DELETE memory/{id}", "write", status=204, errors=(FactNotFound,))
async def forget_fact(call: Call) -> HttpReply:
    """Forget a fact."""
    await call.sessions.memory.forget(call.parameters["id"], owner=call.owner)
    return NOTHING


@TABLE.add(
    "DELETE memory",
    "write",
    status=204,
    query=(Query(name="id", help="The fact to forget; without it, all of them."),),
    errors=(FactNotFound,),
)
async def forget_facts(call: Call) -> HttpReply:
    """Forget everything; with `id` one fact."""
    fact_id = call.string("id")
    if fact_id is None:
        await call.sessions.memory.forget_all(call.owner)
    else:
        await call.sessions.memory.forget(fact_id, owner=call.owner)
    return NOTHING


@TABLE.add("GET notify", "read", answers="NotifyPage")
async def list_targets(call: Call) -> HttpReply:
    """The targets of notifications about recalls, and how they went. Without the URLs, which are secret."""
    notify = call.recalls.notifications
    targets = await notify.targets(call.owner)
    states = await notify.states(call.owner)
    return reply(
        recall_bodies.NotifyPage(
            notify=tuple(map(target_info, states)),
            quiet=targets.quiet_text,
            per_hour=targets.per_hour,
            problems=tuple(
                recall_bodies.NotifyProblem(file=each.file, message=each.message) for each in targets.problems
            ),
            next=None,
        )
    )


@TABLE.add("POST notify/{name}/test", "execute", answers="NotifyTrial", errors=(NotFound, LimitReached))
async def try_target(call: Call) -> HttpReply:
    """Send a test message to a target, at once."""
    outcome = await call.recalls.notifications.send_test(call.parameters["name"], owner=call.owner)
    return reply(recall_bodies.NotifyTrial(delivered=outcome.problem is None, error=outcome.problem))


def target_info(state: TargetState) -> recall_bodies.NotifyTarget:
    """A target as lists show it."""
    record = state.record
    return recall_bodies.NotifyTarget(
        name=state.target.name,
        service=scheme_of(state.target.url) or ("webhook" if state.target.webhook is not None else None),
        source=state.target.source,
        own=state.target.own,
        available=state.target.wrong is None,
        why=state.target.wrong,
        waiting=record.waiting,
        sent=record.sent,
        failed=record.failed,
        last_sent_at=record.last_sent_at,
        last_error=record.last_error,
    )
