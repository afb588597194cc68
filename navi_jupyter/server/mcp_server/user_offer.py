"""What a program of a user's gets by MCP: Navi's tools in the session of a notebook or one of its own, and sessions.

A call that reads only what Navi itself knows is answered at once; every other one is a run in its session, under the
permissions, questions, bounds and stop of every run (``program_runs``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ...agent.acp.run_tools import offer_of, program_tools, run_of
from ...agent.registry import AgentParts
from ...agent.tools.base import BUILTIN, Tool, ToolOutput, tool
from ...agent.tools.result_text import cut, render
from ...clock import now
from ...errors import InvalidRequest, SessionNotFound
from ...model.runs import Effect
from ...model.sessions import Session, SessionCreate
from ...ports.run_tools import CallResult, OfferedTool, Progress
from ...scheduling.service import RecallQueries
from ..services import SessionServices
from ..wire.sessions import SessionFind
from .documents import TEMPLATES, OfferedPrompt, OfferedResource, ResourceTemplate, UserDocuments
from .offers import CallingProgram
from .program_runs import ProgramRequest, ProgramRuns

_NOT_OFFERED = ("session_history", "read_output")
"""Of the built-in tools: what is read of a session is in ``read_session``; and results are bounded once."""
_WHERE: Mapping[str, Any] = {
    "notebook": {
        "type": "string",
        "maxLength": 4096,
        "description": "Path of a notebook, relative to the server's root: the call works with it, its kernel and its "
        "session of Navi. Without it, in your own session.",
    },
    "session": {"type": "string", "maxLength": 200, "description": "Id of a session of Navi, instead of a notebook."},
}
_MESSAGE = 4_000  # characters of one message that `read_session` shows
_ASK = "ask_session"


class UserOffers:
    """What the programs of users share. One per server process."""

    def __init__(
        self,
        sessions: SessionServices,
        runs: ProgramRuns,
        parts: AgentParts,
        recalls: RecallQueries,
        documents: UserDocuments,
    ) -> None:
        self.sessions = sessions
        self.runs = runs
        self.parts = parts
        self.recalls = recalls
        self.documents = documents
        self._own: dict[tuple[str, str], str] = {}  # the session of a program, by owner and name
        self._locks: dict[str, asyncio.Lock] = {}

    def of(self, owner: str) -> UserOffer:
        """The offer for the programs of one user."""
        return UserOffer(owner, self)

    async def session_of(self, owner: str, program: CallingProgram, where: Mapping[str, Any]) -> Session:
        """The session in which a call works. Raises InvalidRequest, SessionNotFound, LimitReached."""
        session_id, path = where.get("session"), where.get("notebook")
        for name, value in where.items():
            if not isinstance(value, str) or not value:
                raise InvalidRequest(f"{name} must be a text.", field=name)
        if session_id is not None:
            return await self.sessions.directory.owned(session_id, owner)
        if path is not None:
            found = await self.sessions.notebooks.find(SessionFind(notebook_path=path, create=True), owner=owner)
            if found.session is None:
                raise SessionNotFound(f"The notebook {path[:200]!r} has no session.")
            return found.session
        async with self._locks.setdefault(owner, asyncio.Lock()):
            return await self._own_session(owner, program.label)

    async def _own_session(self, owner: str, title: str) -> Session:
        """The program's own: known by its title, so that it has one and not one for each of its connections."""
        known = self._own.get((owner, title))
        if known is not None:
            try:
                return await self.sessions.directory.owned(known, owner)
            except SessionNotFound:
                pass
        listed, _ = await self.sessions.session_list.reads.page(owner, limit=100)
        mine = [one.session for one in listed if one.is_own and one.session.title == title]
        found = next((one for one in mine if one.notebook_path is None), None)
        session = found or await self.sessions.notebooks.create(SessionCreate(title=title), owner=owner)
        self._own[owner, title] = session.id
        return session

    async def run_tools(self, owner: str) -> dict[str, Tool]:
        """Navi's own tools and those of installed packages, by name, as programs of this user can call them.

        Those of other MCP servers are left out, since a program has its own; and what asks a question and nothing
        else, since a program asks its user itself.
        """
        settings, at = self.sessions.settings, now()
        nowhere = Session(
            id="",
            owner=owner,
            title="",
            profile=settings.default_profile,
            model=settings.default_model,
            created_at=at,
            updated_at=at,
        )
        context = await self.sessions.orchestrator.context_of(nowhere)
        parts = self.parts.of(context.configuration)
        chain = (parts.profiles.get(settings.default_profile),)
        found = await program_tools(context, parts, chain, offers=is_offered)
        return {one.name: one for one in found}


def is_offered(tool_: Tool) -> bool:
    """Whether programs of users can call a tool."""
    own = tool_.source == BUILTIN or tool_.source.startswith("package:")
    return own and tool_.inquires is None and tool_.name not in _NOT_OFFERED


class UserOffer:
    """Implements ``offers.McpOffer`` for the programs of one user."""

    def __init__(self, owner: str, shared: UserOffers) -> None:
        self._owner = owner
        self._shared = shared

    async def tools(self) -> Sequence[OfferedTool]:
        found = await self._shared.run_tools(self._owner)
        sessions = self._session_tools()
        offered = [_with_place(offer_of(one)) for one in found.values()]
        return [*offered, *(offer_of(one) for one in sessions.values()), _ASK_SESSION]

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, progress: Progress, program: CallingProgram
    ) -> CallResult:
        if (session_tool := self._session_tools().get(name)) is not None:
            return _result(await session_tool.call(arguments))
        where = {key: arguments[key] for key in _WHERE if key in arguments}
        rest = {key: value for key, value in arguments.items() if key not in where}
        found = (await self._shared.run_tools(self._owner)).get(name)
        if found is None and name != _ASK:
            raise LookupError(f"There is no tool {name[:100]!r}. List the tools to see which there are.")
        if name == _ASK:
            prompt = rest.pop("prompt", None)
            if not isinstance(prompt, str) or not prompt or rest:
                raise InvalidRequest("ask_session takes prompt, a text, and notebook or session.", field="prompt")
        session = await self._shared.session_of(self._owner, program, where)
        request = ProgramRequest(owner=self._owner, session=session, program=program, progress=progress)
        if name == _ASK:
            return await self._shared.runs.ask(request, str(prompt))
        if found is not None and found.own and found.effect is Effect.READ:
            return await self._read(found, rest, session, progress)
        return await self._shared.runs.call(request, name, rest)

    async def _read(self, found: Tool, args: Mapping[str, Any], session: Session, progress: Progress) -> CallResult:
        """A call that reads only what Navi itself knows: judged as in a run, and no run."""
        context = await self._shared.sessions.orchestrator.context_of(session)
        run = await run_of(session, context, self._shared.parts, offers=is_offered)
        async with run:
            return await run.call(found.name, args, progress=progress)

    def _session_tools(self) -> dict[str, Tool]:
        reads, directory = self._shared.sessions.session_list.reads, self._shared.sessions.directory
        owner, queries = self._owner, self._shared.recalls

        async def list_sessions(
            query: Annotated[
                str | None, Field(description="Words to search for in all messages.", max_length=500)
            ] = None,
            limit: Annotated[int, Field(description="At most so many.", ge=1, le=100)] = 20,
        ) -> Mapping[str, Any]:
            """The sessions of Navi, the last used first: id, title, notebook, what it does now."""
            found, _ = await (reads.search(owner, query, limit=limit) if query else reads.page(owner, limit=limit))
            return {
                "sessions": [
                    {
                        "id": one.session.id,
                        "title": one.session.title,
                        "notebook": one.session.notebook_path,
                        "model": one.session.model,
                        "activity": str(one.activity),
                        "updated_at": one.session.updated_at.isoformat(),
                        "found": None if one.hit is None else "".join(part.text for part in one.hit.snippet),
                    }
                    for one in found
                ]
            }

        async def read_session(
            session: Annotated[str, Field(description="Its id in list_sessions.", max_length=200)],
            limit: Annotated[int, Field(description="The last so many messages.", ge=1, le=200)] = 20,
        ) -> Mapping[str, Any]:
            """The last messages of a session of Navi, with the tools that were called."""
            messages = [one for one in await directory.messages(session, owner=owner) if one.role != "tool"]
            return {
                "messages": [
                    {
                        "role": one.role,
                        "at": one.at,
                        "text": cut(one.content, limit=_MESSAGE),
                        "tools": [call.name for call in one.tool_calls],
                    }
                    for one in messages[-limit:]
                ],
                "earlier": max(0, len(messages) - limit),
            }

        async def read_ledger(
            recall_id: Annotated[str, Field(description="Its id in list_recalls.", max_length=128)],
            limit: Annotated[int, Field(description="The last so many.", ge=1, le=200)] = 20,
        ) -> Mapping[str, Any]:
            """What became of each time of a recall: when it was due, whether it ran, and why not."""
            rows, _ = await queries.ledger(recall_id, owner=owner, limit=limit)
            return {"firings": [row.wire() for row in rows]}

        made = [tool(one, Effect.READ, own=True) for one in (list_sessions, read_session, read_ledger)]
        return {one.name: one for one in made}

    async def resources(self) -> Sequence[OfferedResource]:
        return await self._shared.documents.resources(self._owner)

    def templates(self) -> Sequence[ResourceTemplate]:
        return TEMPLATES

    async def read(self, uri: str) -> tuple[str, str]:
        return await self._shared.documents.read(uri, owner=self._owner)

    async def completions(self, template: str, value: str) -> Sequence[str]:
        return await self._shared.documents.completions(template, value, owner=self._owner)

    async def prompts(self) -> Sequence[OfferedPrompt]:
        return await self._shared.documents.prompts(self._owner)

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> str:
        return await self._shared.documents.prompt(name, arguments, owner=self._owner)


def _with_place(offered: OfferedTool) -> OfferedTool:
    """A tool with the arguments that say where it works, besides its own."""
    properties = dict(offered.parameters.get("properties", {}))
    return replace(offered, parameters={**offered.parameters, "properties": {**properties, **_WHERE}})


def _result(output: ToolOutput) -> CallResult:
    return CallResult(text=render(output.content), failed=output.failed)


_ASK_SESSION = OfferedTool(
    name=_ASK,
    description="Give a prompt to Navi's own agent in a session, and wait for its answer. It knows the conversation "
    "of the session, and works with the notebook of it by tools like these.",
    parameters={
        "type": "object",
        "properties": {"prompt": {"type": "string", "minLength": 1, "maxLength": 200_000}, **_WHERE},
        "required": ["prompt"],
        "additionalProperties": False,
    },
)
