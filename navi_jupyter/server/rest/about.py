"""What can be used here (profiles, models, tools, MCP servers, functions of kernels, prompts by name, what a prompt can
mention), and the server's health."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from ... import __version__
from ...agent.mcp.connection import MISSING, ServerState, installed
from ...agent.tools.kernel_functions import with_usable_schemas
from ...errors import InvalidRequest, LimitReached, NotFound, SessionNotFound, ToolUnavailable
from ...model.runs import KernelFunctions
from ...settings import engine_of
from ..http import NOTHING, HttpReply, Query
from ..mentions.candidates import KINDS
from ..wire import agent as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add("GET health", "read", answers="Health")
async def health(call: Call) -> HttpReply:
    """Whether Navi works on this server. 503 while it starts, when its start failed, and while nothing can be saved."""
    stats, process = call.sessions.orchestrator.stats(), call.services.process
    return reply(
        wire.Health(
            status="ok",
            version=__version__,
            sessions=stats.sessions,
            runs=stats.runs,
            recalls=await call.recalls.service.queries.open_recalls(),
            followers=stats.followers,
            save_transcripts=call.services.settings.save_transcripts,
            loop_lag_ms=process.lag.milliseconds,
            gc_pause_ms=process.pauses.milliseconds,
            garbage_collection=process.collection.in_force,
            commit_ms=round(process.commits.longest * 1000, 2),
            write_queue=call.sessions.store.waiting_units,
            runs_waiting=stats.waiting,
            follower_lag=call.sessions.orchestrator.log.lag().most,
            prompts_queued=stats.queued,
            database=engine_of(call.services.settings.database_url),
            replicas=stats.replicas,
            clock_offset_ms=round(call.services.clock_offset.total_seconds() * 1000, 1),
            message=call.sessions.store.notice,
        )
    )


@TABLE.add("GET profiles", "read", answers="ProfilePage")
async def list_profiles(call: Call) -> HttpReply:
    """The profiles: named configurations of the agent."""
    return reply(wire.ProfilePage(profiles=await call.agent.profiles(call.owner), next=None))


@TABLE.add("GET models", "read", answers="ModelPage")
async def list_models(call: Call) -> HttpReply:
    """The models, which of them can be used here, and what is missing for the others."""
    return reply(wire.ModelPage(models=await call.agent.models(), next=None))


@TABLE.add(
    "GET tools",
    "read",
    answers="ToolPage",
    query=(Query(name="session_id", help="The tools of this session, with the permissions that hold there."),),
    errors=(SessionNotFound,),
)
async def list_tools(call: Call) -> HttpReply:
    """The tools, and what runs are allowed to do with them."""
    session_id = call.string("session_id")
    session = None if session_id is None else await call.sessions.find(session_id, owner=call.owner)
    return reply(wire.ToolPage(tools=tuple(await call.agent.tools(session)), next=None))


@TABLE.add("GET mcp", "read", answers="McpPage")
async def list_mcp(call: Call) -> HttpReply:
    """The MCP servers."""
    states = await call.agent.mcp.states(await call.agent.configurations.read(call.owner))
    problems = tuple(wire.McpProblem(file=each.file, message=each.message) for each in call.agent.mcp.problems)
    return reply(wire.McpPage(mcp=tuple(map(server_info, states)), problems=problems, next=None))


@TABLE.add("POST mcp/{server}/restart", "execute", answers="McpServerInfo", errors=(NotFound,))
async def restart_mcp(call: Call) -> HttpReply:
    """Stop an MCP server and start it again at once. Its calls in progress fail."""
    own = await call.agent.configurations.read(call.owner)
    return reply(server_info(await call.agent.mcp.restart(call.parameters["server"], own)))


def server_info(state: ServerState) -> wire.McpServerInfo:
    """A server as lists show it: without its headers, and of its address the host."""
    why = state.message
    if state.status == "disabled":
        why = "You have disabled it." if state.config.own else f"It is disabled in {state.config.file}."
    elif not installed():
        why = MISSING
    return wire.McpServerInfo(
        name=state.config.name,
        status=state.status,
        available=why is None and state.status in ("configured", "starting", "ready"),
        why=why,
        transport=state.config.transport,
        protocol=state.protocol,
        tools=len(state.tools),
        notes=tuple(wire.McpToolNote(tool=note.name, why=note.why) for note in state.notes),
        own=state.config.own,
        host=urlsplit(state.config.url).hostname if state.config.own and state.config.url else None,
        file=state.config.file,
    )


@TABLE.add("POST kernels/{kid}/tools", "execute", body="KernelFunctions", answers="ToolPage", errors=(LimitReached,))
async def offer_functions(call: Call) -> HttpReply:
    """Offer functions of a kernel as tools (`@navi.tool` does), or their new versions."""
    request: KernelFunctions = call.body()
    functions = await asyncio.to_thread(with_usable_schemas, request.tools)
    tools = call.agent.kernel_tools.offer(call.parameters["kid"], functions, owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


@TABLE.add("GET kernels/{kid}/tools", "read", answers="ToolPage")
async def list_functions(call: Call) -> HttpReply:
    """The functions that a kernel offers as tools."""
    tools = call.agent.kernel_tools.offered(call.parameters["kid"], owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


@TABLE.add("DELETE kernels/{kid}/tools/{name}", "execute", status=204, errors=(ToolUnavailable,))
async def withdraw_function(call: Call) -> HttpReply:
    """Stop offering a function."""
    call.agent.kernel_tools.withdraw(call.parameters["kid"], call.parameters["name"], owner=call.owner)
    return NOTHING


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
