"""The list of sessions: its pages and its search; archive, delete and restore, fork, share.

Not responsible for a session by itself (``sessions``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InvalidRequest, LimitReached, MessageNotFound, SessionNotFound, SessionReadOnly
from ...orchestrator.session_list.service import ListedSession
from ...ports.session_list import SessionFilter, TextHit
from ..http import CURSOR, LIMIT, NOTHING, HttpReply, Query
from ..identity import LOCAL_USER
from ..wire import session_list as wire
from .routing import Call, OperationTable, fields_of, reply
from .sessions import detail

TABLE = OperationTable()

SHARING = "navi-sharing"
"""The resource for which Jupyter's authorizer is asked whether a user may share sessions with others."""
_QUERY = Query(name="query", help='Full text: all of these words, `"phrases"`, and the beginning of the last word.')


@TABLE.add(
    "GET sessions",
    "read",
    answers="SessionPage",
    query=(
        LIMIT,
        CURSOR,
        Query(name="notebook_path", help="Only those of this notebook."),
        _QUERY,
        Query(
            name="show",
            default=SessionFilter.ACTIVE.value,
            choices=tuple(SessionFilter),
            help="Which ones; a search is in all that are not deleted.",
        ),
    ),
)
async def list_sessions(call: Call) -> HttpReply:
    """Your sessions and those that are shared with you, most recently used first; with `query` those that have it."""
    query, limit, cursor = call.string("query"), call.integer("limit"), call.string("cursor")
    if query is not None:
        found, following = await call.sessions.session_list.reads.search(call.owner, query, limit=limit, cursor=cursor)
        complete = await call.sessions.session_list.reads.is_indexed()
    else:
        found, following = await call.sessions.session_list.reads.page(
            call.owner,
            limit=limit,
            cursor=cursor,
            notebook_path=call.string("notebook_path"),
            show=SessionFilter(call.string("show") or SessionFilter.ACTIVE),
        )
        complete = True
    return reply(wire.SessionPage(sessions=await _infos(call, found), next=following, complete=complete))


async def _infos(call: Call, found: Sequence[ListedSession]) -> tuple[wire.SessionInfo, ...]:
    own = [each.session.id for each in found if each.is_own]
    unread = await call.sessions.read_marks.unread(own, owner=call.owner)
    return tuple(
        wire.SessionInfo(
            **fields_of(each.session),
            unread=unread.get(each.session.id, 0),
            activity=each.activity,
            access="owner" if each.is_own else "reader",
            hit=None if each.hit is None else _hit(each.hit),
            hits=0 if each.hit is None else each.hit.count,
        )
        for each in found
    )


def _hit(hit: TextHit) -> wire.SearchHit:
    return wire.SearchHit.model_validate(
        {
            "role": hit.role,
            "message_id": hit.message_id or None,
            "run_id": hit.run_id,
            "at": hit.at,
            "snippet": [{"text": part.text, "match": part.match} for part in hit.snippet],
        }
    )


@TABLE.add(
    "GET sessions/{sid}/search", "read", answers="HitPage", query=(_QUERY, LIMIT, CURSOR), errors=(SessionNotFound,)
)
async def search_session(call: Call) -> HttpReply:
    """The messages of a session that have all words of `query`, newest first."""
    hits, following = await call.sessions.session_list.reads.search_in(
        call.parameters["sid"],
        call.string("query") or "",
        user_id=call.owner,
        limit=call.integer("limit"),
        cursor=call.string("cursor"),
    )
    complete = await call.sessions.session_list.reads.is_indexed()
    return reply(wire.HitPage(hits=tuple(map(_hit, hits)), next=following, complete=complete))


@TABLE.add(
    "DELETE sessions/{sid}",
    "write",
    status=204,
    query=(Query(name="forever", default="false", choices=("false", "true"), help="Whether it cannot be restored."),),
    errors=(SessionNotFound, SessionReadOnly),
)
async def delete_session(call: Call) -> HttpReply:
    """Delete a session; its run is stopped, its recalls are cancelled. It can be restored for seven days."""
    forever = call.string("forever") == "true"
    await call.sessions.orchestrator.delete_session(call.parameters["sid"], owner=call.owner, forever=forever)
    return NOTHING


@TABLE.add("POST sessions/{sid}/restore", "execute", answers="SessionDetail", errors=(SessionNotFound,))
async def restore_session(call: Call) -> HttpReply:
    """Bring back a deleted session, with the recalls that were cancelled with it."""
    session = await call.sessions.session_list.restore(call.parameters["sid"], owner=call.owner)
    return reply(await detail(call, session.id))


@TABLE.add("POST sessions/{sid}/archive", "write", answers="SessionDetail", errors=(SessionNotFound, SessionReadOnly))
async def archive_session(call: Call) -> HttpReply:
    """Take a session out of the list; its recalls pause."""
    session = await call.sessions.session_list.archive(call.parameters["sid"], owner=call.owner)
    return reply(await detail(call, session.id))


@TABLE.add(
    "POST sessions/{sid}/unarchive", "execute", answers="SessionDetail", errors=(SessionNotFound, SessionReadOnly)
)
async def unarchive_session(call: Call) -> HttpReply:
    """Put a session back into the list; the recalls that paused because it was archived resume."""
    session = await call.sessions.session_list.unarchive(call.parameters["sid"], owner=call.owner)
    return reply(await detail(call, session.id))


@TABLE.add(
    "POST sessions/{sid}/fork",
    "write",
    body="ForkRequest",
    answers="SessionDetail",
    status=201,
    errors=(SessionNotFound, SessionReadOnly, MessageNotFound, LimitReached),
)
async def fork_session(call: Call) -> HttpReply:
    """A new session with the conversation up to a message. It has no notebook, no recalls and no readers."""
    request: wire.ForkRequest = call.body() if call.request.body.strip() else wire.ForkRequest()
    session = await call.sessions.session_list.fork(
        call.parameters["sid"], owner=call.owner, message_id=request.message_id, title=request.title
    )
    return reply(await detail(call, session.id), 201, Location=f"sessions/{session.id}")


@TABLE.add(
    "POST sessions/{sid}/share",
    "write",
    body="ShareRequest",
    answers="ReaderList",
    errors=(SessionNotFound, SessionReadOnly),
    resource=SHARING,
)
async def share_session(call: Call) -> HttpReply:
    """Let another user of this server read a session: follow and export it, and nothing else."""
    request: wire.ShareRequest = call.body()
    await call.sessions.find(call.parameters["sid"], owner=call.owner)
    if call.owner == LOCAL_USER:
        raise InvalidRequest(
            "This server does not distinguish its users: everyone who can log in sees all sessions already.",
            field="user",
        )
    readers = await call.sessions.session_list.share(call.parameters["sid"], request.user, owner=call.owner)
    return reply(wire.ReaderList(readers=tuple(readers)))


@TABLE.add(
    "POST sessions/{sid}/unshare",
    "write",
    body="ShareRequest",
    answers="ReaderList",
    errors=(SessionNotFound, SessionReadOnly),
)
async def unshare_session(call: Call) -> HttpReply:
    """Take back that another user may read a session."""
    request: wire.ShareRequest = call.body()
    readers = await call.sessions.session_list.unshare(call.parameters["sid"], request.user, owner=call.owner)
    return reply(wire.ReaderList(readers=tuple(readers)))
