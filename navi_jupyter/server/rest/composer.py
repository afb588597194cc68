"""What is at hand while a prompt is written: prompts by name, and what a prompt can mention."""

from __future__ import annotations

from ...errors import InvalidRequest, SessionNotFound
from ..http import HttpReply, Query
from ..mentions.candidates import KINDS
from ..wire import agent as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add("GET prompts", "read", answers="NamedPromptPage")
async def list_prompts(call: Call) -> HttpReply:
    """The prompts by name: a prompt that begins with `/name` is sent as that text."""
    prompts = call.sessions.prompts.all()
    listed = tuple(
        wire.NamedPromptInfo(
            name=one.name,
            description=one.description,
            text=one.text,
            builtin=one.path is None,
            path=one.path,
            available=one.usable and one.why is None,
            why=one.why,
        )
        for one in prompts
    )
    return reply(wire.NamedPromptPage(prompts=listed, next=None))


@TABLE.add(
    "GET sessions/{sid}/mentions",
    "read",
    answers="MentionPage",
    query=(
        Query(name="query", help="What was typed of it: its letters in order."),
        Query(name="kind", help=f"Only these kinds, with commas between them: {', '.join(KINDS)}."),
        Query(name="limit", kind="integer", default=30, minimum=1, maximum=100, help="How many at most."),
    ),
    errors=(SessionNotFound,),
)
async def list_mentions(call: Call) -> HttpReply:
    """What a prompt can mention with `@`: cells, errors, variables, files, other sessions, recalls. The best first."""
    kinds = (call.string("kind") or ",".join(KINDS)).split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InvalidRequest(f"kind: {unknown[0][:60]!r} is none of {', '.join(KINDS)}.", field="kind")
    session = await call.sessions.find(call.parameters["sid"], owner=call.owner)
    query = (call.string("query") or "").removeprefix("@")
    return reply(await call.sessions.mentions.search(session, query, kinds, limit=call.integer("limit")))
