"""The conversation of a session, read: its log, its messages whole and by pages, and as a file.

Not responsible for how the log is streamed (``handler``, ``websocket``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from ...errors import InvalidRequest, SessionNotFound
from ...orchestrator.snapshot import agui_message
from .. import export
from ..http import EventStream, HttpReply, Query, read_cursor
from ..wire import sessions as wire
from .routing import Call, OperationTable, reply
from .sessions import settled_questions

TABLE = OperationTable()

EVENT_STREAM = "text/event-stream"
LONGEST_WAIT = 30.0  # seconds of a long poll: less than the 60 after which proxies close a silent connection


@TABLE.add(
    "GET sessions/{sid}/events",
    "read",
    answers="EventPage",
    query=(
        Query(
            name="after",
            kind="integer",
            help="The last `seq` you have. Without it, a page starts at 0, a stream with the snapshot.",
        ),
        Query(name="limit", kind="integer", default=500, minimum=1, maximum=5000, help="How many at most."),
        Query(
            name="wait",
            kind="number",
            default=0,
            maximum=LONGEST_WAIT,
            help="Seconds to wait for an event when there is none yet.",
        ),
    ),
    errors=(SessionNotFound,),
    other_types=(EVENT_STREAM,),
)
async def read_events(call: Call) -> HttpReply | EventStream:
    """The log after a cursor: a page, a long poll, or (with `Accept: text/event-stream`) a stream."""
    session_id = call.parameters["sid"]
    after = call.optional_integer("after")
    if EVENT_STREAM in call.request.accept:
        # The session is looked up first: once the stream has begun, an error cannot be answered any more.
        await call.sessions.directory.readable(session_id, call.owner)
        last_seen = _last_event_id(call)
        return EventStream(_pages(call, session_id, after if last_seen is None else last_seen))
    # a page without a cursor begins with the first event; only a stream begins with a snapshot.
    frames, head = await call.sessions.orchestrator.page(
        session_id, owner=call.owner, after=after or 0, limit=call.integer("limit"), wait=call.number("wait")
    )
    # The envelopes are JSON text already: parsing and writing them again would only cost time.
    return HttpReply(content=f'{{"events":[{",".join(frames)}],"head_seq":{head}}}')


def _last_event_id(call: Call) -> int | None:
    """The cursor of an EventSource that reconnects. It takes precedence over ``after``, which its URL still has."""
    text = (call.request.last_event_id or "").strip()
    return read_cursor(text, "Last-Event-ID") if text else None


async def _pages(call: Call, session_id: str, after: int | None) -> AsyncGenerator[Sequence[tuple[int, str]]]:
    with suppress(SessionNotFound):  # it is not shared any more
        async with aclosing(call.sessions.orchestrator.follow(session_id, after=after, owner=call.owner)) as pages:
            async for page in pages:
                yield page.envelopes


@TABLE.add("GET sessions/{sid}/messages", "read", answers="MessagePage", errors=(SessionNotFound,))
async def list_messages(call: Call) -> HttpReply:
    """The conversation: user, assistant and tool messages, oldest first."""
    messages = await export.conversation(call.sessions.orchestrator, call.parameters["sid"], owner=call.owner)
    return HttpReply(content=await asyncio.to_thread(_message_page, messages))


def _message_page(messages: Sequence[wire.MessageInfo]) -> bytes:
    """A ``MessagePage``, message by message: others would not get the interpreter while one call wrote all of it."""
    written = ",".join(message.model_dump_json(by_alias=True) for message in messages)
    return f'{{"messages":[{written}],"next":null}}'.encode()


@TABLE.add(
    "GET sessions/{sid}/transcript",
    "read",
    answers="TranscriptPage",
    query=(
        Query(name="before", help="`earlier` of the page after this, or a run's id. Without it, the last messages."),
        Query(name="limit", kind="integer", default=150, minimum=1, maximum=1000, help="How many at most, about."),
    ),
    errors=(SessionNotFound,),
)
async def read_transcript(call: Call) -> HttpReply:
    """A page of the messages of finished runs, which goes back in time: what views show above the first prelude."""
    await call.sessions.directory.readable(call.parameters["sid"], call.owner)
    part = await call.sessions.directory.history.page(
        call.parameters["sid"], before=call.string("before"), limit=call.integer("limit")
    )
    messages = tuple(agui_message(message) for message in part.messages)
    questions = await settled_questions(call, part.runs)
    page = wire.TranscriptPage(messages=messages, runs=tuple(part.runs), questions=questions, earlier=part.earlier)
    return reply(page)


@TABLE.add(
    "GET sessions/{sid}/export",
    "read",
    query=(Query(name="format", default="md", choices=export.KINDS, help="Which kind of file."),),
    errors=(SessionNotFound,),
    other_types=export.FILE_TYPES,
)
async def export_session(call: Call) -> HttpReply:
    """The conversation as a download."""
    kind = call.string("format")
    if kind is None:
        raise InvalidRequest(f"format must be one of: {', '.join(export.KINDS)}.", field="format")
    return await export.download(call.sessions.orchestrator, call.parameters["sid"], kind, owner=call.owner)
