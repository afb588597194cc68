"""Tools of the user's linked server as tools of the service's runs, and of its lists.

What a tool is and does is the word of that server, which is its user's own; whether a call is allowed is decided here,
as for any tool. Not responsible for the link (``links``), nor for how a call is carried (``remote_ports``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from ...agent.mcp.run_tools import SOURCE as MCP_SOURCE
from ...agent.mcp.run_tools import ProfileOf, explanation_of
from ...agent.profiles.context_providers import ContextProvider
from ...agent.tools.argument_schemas import SchemaRefused, argument_schema
from ...agent.tools.base import Tool, ToolNote, ToolOutput, refusal
from ...agent.tools.call_details import CallDescription
from ...agent.tools.kernel_functions import SOURCE as KERNEL_SOURCE
from ...errors import NaviError
from ...log_setup import get_logger
from ...model.runs import ToolName
from ...model.sessions import Session
from ...output_text import OutputImage
from ...ports.agent import NO_JUPYTER, ToolContext, Turn
from ...text import truncate
from .links import LinkedServer, ServerLinks
from .remote_ports import RemotePort
from .tool_port import BrokenTool, LentContext, LentTool, LentTools, OwnTools, TurnFacts

log = get_logger("bench")

FIRST_WAIT = 1.5  # seconds that the server waits for what starts there, before it says so
LIST_WITHIN = 3.0  # seconds; a server that does not answer holds no run up for longer
START_WAIT = 12.0  # seconds, further ones, that a run waits for what the server says is starting
MOST_TOOLS = 500  # of one server
MOST_CHARACTERS = 2_000_000  # of all their descriptions and schemas: lists are kept
LONGEST = 8000  # characters of a description
CONTEXTS_WITHIN = 1.0  # seconds that a run's beginning waits to know which context the server has
MOST_CONTEXTS = 20
MOST_CONTEXT = 4000  # tokens of one
LINK = 0.2  # seconds, for the way there and back
LONGEST_PATIENCE = 5.0  # seconds that a run's beginning waits for a text
REMEMBERED = 200  # lists
MISSING_TOOL = "server_mcp_unavailable"
_NAME: TypeAdapter[str] = TypeAdapter(ToolName)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A list, checked."""

    digest: str
    usable: Sequence[Tool]
    refused: Sequence[ToolNote]
    explanation: Tool | None  # of MCP servers that cannot be used
    broken: Sequence[ToolNote]  # what that server itself cannot call


class ServerTools:
    """A ListedSource. Nothing of a server is offered to another user than its own."""

    def __init__(self, links: ServerLinks, profile_of: ProfileOf) -> None:
        self._links = links
        self._profile_of = profile_of
        self._lists: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()  # by owner, session, admitted servers

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """Those of the session's server, where it is linked; waits for what starts there."""
        if context.jupyter == NO_JUPYTER:  # the run does without
            return ()
        try:
            names = context.profiles or (context.session.profile,)
            servers = [list(self._profile_of(name, context.configuration).mcp) for name in names]
        except NaviError:
            return ()  # the run fails with the same error
        known = await self._known(context.session, servers)
        if known is None:
            return ()
        return [*known.usable, *([] if known.explanation is None else [known.explanation])]

    async def known(self, context: ToolContext | None = None) -> Sequence[ToolNote]:
        """The same without MCP servers that do not run, and with what cannot be called. Empty without a session."""
        known = None if context is None else await self._known(context.session, None)
        if known is None:
            return ()
        listed = (ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in known.usable)
        return [*listed, *known.refused, *known.broken]

    async def _known(self, session: Session, servers: Sequence[Sequence[str]] | None) -> _Known | None:
        """None without a link, or where the server does not answer and has not before."""
        server = LinkedServer(self._links, session.owner, session.server)
        if not server.linked:
            return None
        key = (session.owner, session.id, repr((session.server, servers)))
        had = self._lists.get(key)
        port = cast("OwnTools", RemotePort("tools", OwnTools, server))
        have = "" if had is None else had.digest
        try:
            async with asyncio.timeout(LIST_WITHIN):
                offered = await port.offered(session, servers=servers, wait=FIRST_WAIT, have=have)
            if offered.starting and servers is not None:
                async with asyncio.timeout(START_WAIT + LIST_WITHIN):
                    offered = await port.offered(session, servers=servers, wait=START_WAIT, have=have)
        except (NaviError, TimeoutError) as error:
            # An earlier version of Navi, or a link that is broken for a moment: then what was there will be.
            log.info("bench_tools_not_listed", owner=session.owner, error=repr(error)[:200])
            return had
        found = await self._checked(session, offered, had)
        self._lists[key] = found
        self._lists.move_to_end(key)
        while len(self._lists) > REMEMBERED:
            self._lists.popitem(last=False)
        return found

    async def _checked(self, session: Session, offered: LentTools, had: _Known | None) -> _Known:
        if offered.tools is None and had is not None:
            usable, refused = had.usable, had.refused
        else:
            fit, unfit = await asyncio.to_thread(_usable, (offered.tools or ())[:MOST_TOOLS])
            usable, refused = [self._tool(session, one) for one in fit], _notes(unfit)
        missing = [
            {"server": one.name[:64], "status": one.status[:20], "message": one.message}
            for one in offered.missing[:100]
        ]
        return _Known(
            digest=offered.digest,
            usable=usable,
            refused=refused,
            explanation=explanation_of(missing, name=MISSING_TOOL) if missing else None,
            broken=_notes(offered.broken[:MOST_TOOLS]),
        )

    def _tool(self, session: Session, one: LentTool) -> Tool:
        server = LinkedServer(self._links, session.owner, session.server)
        port = cast("OwnTools", RemotePort("tools", OwnTools, server))

        async def call(given: Mapping[str, Any]) -> ToolOutput:
            try:
                result = await port.call(session, one.name, one.source, dict(given))
            except NaviError as error:
                return refusal(error)
            images = [OutputImage(media_type=kind, content=_bytes(content)) for kind, content in result.images]
            return ToolOutput(content=result.content, images=images, failed=result.failed)

        async def asks(given: Mapping[str, Any], _: ToolContext) -> str | None:
            return await port.question(session, one.name, one.source, dict(given))

        async def describes(given: Mapping[str, Any], _: ToolContext) -> CallDescription:
            return await port.description(session, one.name, one.source, dict(given))

        return Tool(
            name=one.name,
            description=truncate(one.description, LONGEST),
            parameters=one.parameters,
            effect=one.effect,
            call=call,
            source=one.source,
            asks=asks if one.asks else None,
            describes=describes if one.describes else None,
        )


async def contexts_of(links: ServerLinks, context: ToolContext) -> Sequence[ContextProvider]:
    """The context providers of packages in the linked server of the context's user."""
    owner = context.session.owner
    server = LinkedServer(links, owner, context.session.server)
    if not server.linked or context.jupyter == NO_JUPYTER:
        return ()
    port = cast("OwnTools", RemotePort("tools", OwnTools, server))
    try:
        async with asyncio.timeout(CONTEXTS_WITHIN):
            return [_provider(port, one) for one in (await port.contexts())[:MOST_CONTEXTS]]
    except (NaviError, TimeoutError) as error:
        log.info("bench_contexts_not_listed", owner=owner, error=repr(error)[:200])
        return ()


def _provider(port: OwnTools, one: LentContext) -> ContextProvider:
    async def gather(turn: Turn, _: ToolContext) -> str | None:
        facts = TurnFacts(run_id=turn.run_id, model=turn.model, prompt=turn.prompt, origin=turn.origin, now=turn.now)
        return await port.context_text(turn.session, one.name, facts)

    return ContextProvider(
        name=truncate(one.name, 100),
        title=truncate(one.title, 100),
        gather=gather,
        max_tokens=min(one.max_tokens, MOST_CONTEXT),
        patience=min(one.patience + LINK, LONGEST_PATIENCE),
        default=one.default,
    )


def _usable(given: Sequence[LentTool]) -> tuple[Sequence[LentTool], Sequence[BrokenTool]]:
    """Those that models can be given, and why not the others. Takes milliseconds for each: for a thread."""
    usable, broken, total = [], [], 0
    for one in given:
        source = truncate(one.source, 200)
        try:
            total += len(one.description) + len(json.dumps(one.parameters, default=str))
            if total > MOST_CHARACTERS:
                raise SchemaRefused("what its server has written about all of its tools is too long")
            if source != KERNEL_SOURCE and not source.startswith((MCP_SOURCE, "package:")):
                raise SchemaRefused("its server does not say where it comes from")
            _NAME.validate_python(one.name)
            schema = argument_schema(one.parameters)
        except (SchemaRefused, ValidationError) as error:
            why = str(error) if isinstance(error, SchemaRefused) else "its name is none that providers take"
            broken.append(BrokenTool(name=one.name[:128], source=source, why=f"It cannot be used: {why}."[:500]))
            continue
        usable.append(replace(one, source=source, parameters=schema))
    return usable, broken


def _notes(broken: Sequence[BrokenTool]) -> list[ToolNote]:
    return [ToolNote(name=one.name[:128], source=one.source[:200], why=one.why[:500]) for one in broken]


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
