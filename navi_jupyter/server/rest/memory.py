"""Memory, the facts that the agent remembers about the user: list, search, add, change, forget."""

from __future__ import annotations

from ...errors import FactNotFound, LimitReached
from ...model.attachments import FactCreate, FactPatch
from ..http import CURSOR, LIMIT, NOTHING, Query, Reply
from ..wire import agent as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add(
    "GET memory",
    "read",
    answers="MemoryPage",
    query=(LIMIT, CURSOR, Query(name="query", help="Words: facts with any of them are found.")),
)
async def list_memory(call: Call) -> Reply:
    """What the agent remembers about you, newest first; with `query` the best match first."""
    facts, following = await call.sessions.memory.facts(
        call.owner, query=call.string("query"), limit=call.integer("limit"), cursor=call.string("cursor")
    )
    return reply(wire.MemoryPage(memory=tuple(facts), next=following))


@TABLE.add("POST memory", "write", body="FactCreate", answers="Fact", status=201, errors=(LimitReached,))
async def add_fact(call: Call) -> Reply:
    """Remember a fact. The same text again is the same fact."""
    request: FactCreate = call.body()
    fact = await call.sessions.memory.add(request.text, owner=call.owner, source="user", session_id=request.session_id)
    return reply(fact, 201, Location=f"memory/{fact.id}")


@TABLE.add("PATCH memory/{id}", "write", body="FactPatch", answers="Fact", errors=(FactNotFound,))
async def change_fact(call: Call) -> Reply:
    """Change a fact."""
    request: FactPatch = call.body()
    return reply(await call.sessions.memory.change(call.parameters["id"], request.text, owner=call.owner))


@TABLE.add("DELETE memory/{id}", "write", status=204, errors=(FactNotFound,))
async def forget_fact(call: Call) -> Reply:
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
async def forget_facts(call: Call) -> Reply:
    """Forget everything; with `id` one fact."""
    fact_id = call.string("id")
    if fact_id is None:
        await call.sessions.memory.forget_all(call.owner)
    else:
        await call.sessions.memory.forget(fact_id, owner=call.owner)
    return NOTHING
