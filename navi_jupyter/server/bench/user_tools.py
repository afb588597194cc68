"""Tools of a user's server, lent to the service: functions of kernels, tools of packages and MCP servers, context.

The MCP servers are those of the files ``navi/mcp.json`` in this server's configuration; they run here, with the rights
of its user, and end with it. Not responsible for the link (``server_end``), nor for whether a call is allowed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...agent.mcp.config import ConfigFiles
from ...agent.mcp.pool import McpPool
from ...agent.mcp.run_tools import SOURCE as MCP_SOURCE
from ...agent.mcp.run_tools import McpTools
from ...agent.mcp.user_servers import McpServers
from ...agent.profiles.context_providers import RunContexts
from ...agent.profiles.definitions import picked
from ...agent.tools.base import Tool, ToolNote
from ...agent.tools.call_details import CallDescription
from ...agent.tools.entry_points import PackageTools
from ...agent.tools.kernel_functions import KernelTools
from ...agent.tools.permissions import ToolPermissions
from ...errors import NaviError, ToolUnavailable
from ...log_setup import get_logger
from ...model.runs import Interrupt
from ...model.sessions import Session
from ...ports.agent import Ask, Turn, tool_context
from ...ports.user_configuration import NOTHING_CONFIGURED
from ...settings import Limits
from ..builders import Workspace
from ..http import HttpReply, Request
from ..kernel_scope import KernelScope
from ..rest import about
from ..rest.routing import Routes
from ..services import tool_info
from ..wire.agent import ToolInfo
from .tool_port import BrokenTool, LentContext, LentResult, LentTool, LentTools, MissingServer, TurnFacts

if TYPE_CHECKING:
    from ..services import Services

log = get_logger("bench")

CONTEXTS_WITHIN = 0.5  # seconds that a run's context waits for packages to be imported
REMEMBERED = 1000  # sessions whose tools are found without a list
MOST_REMEMBERED = 2000  # tools of one of them

NOT_LENT = "It asks you questions of its own, which a tool of your server cannot do at navi hub."

Key = tuple[str, str]  # source and name of a tool


class UserTools:
    """Implements ``tool_port.OwnTools``."""

    def __init__(self, workspace: Workspace, root: Path, *, mcp_config: str, packages: bool) -> None:
        """``mcp_config``: a file with MCP servers besides those in Jupyter's configuration path; empty: none."""
        self._kernels = workspace.access.kernels
        self._functions = workspace.kernel_tools
        pool = McpPool(ConfigFiles(mcp_config), root=root, lease_file=workspace.lease_file)
        self._servers = McpServers(pool)
        self._mcp = McpTools(self._servers)
        self._packages = PackageTools() if packages else None
        self._contexts = RunContexts((), packages=packages)
        self._loading: asyncio.Future[Any] | None = None  # the first look at packages, which imports them
        self._offered: OrderedDict[str, dict[Key, Tool]] = OrderedDict()  # by session
        self._ids = itertools.count(1)
        self._questions: dict[str, asyncio.Future[Interrupt]] = {}

    async def stop(self) -> None:
        """End the MCP servers."""
        if self._loading is not None:
            self._loading.cancel()
        await self._servers.stop()

    # --- lists -------------------------------------------------------------------------------------------------------

    async def offered(
        self, session: Session, *, servers: Sequence[Sequence[str]] | None, wait: float, have: str
    ) -> LentTools:
        admits = None if servers is None else (lambda name: all(picked(name, patterns) for patterns in servers))
        functions, (remote, missing), (local, broken, importing) = await asyncio.gather(
            self._of_kernel(session), self._of_servers(admits, wait), self._of_packages(wait)
        )
        found = [*functions, *remote, *local]
        self._remember(session.id, found)
        tools = [_described(tool) for tool in found if tool.inquires is None]
        digest = hashlib.sha256(json.dumps([asdict(tool) for tool in tools], default=str).encode()).hexdigest()
        return LentTools(
            digest=digest,
            tools=None if digest == have else tools,
            broken=broken,
            missing=missing,
            starting=importing or any(server.status == "starting" for server in missing),
        )

    def _remember(self, session_id: str, tools: Sequence[Tool]) -> None:
        # With what was offered before: a run goes on with the list that it began with.
        kept = self._offered.setdefault(session_id, {})
        if len(kept) > MOST_REMEMBERED:
            kept.clear()
        kept.update({(tool.source, tool.name): tool for tool in tools})
        self._offered.move_to_end(session_id)
        while len(self._offered) > REMEMBERED:
            self._offered.popitem(last=False)

    async def _of_kernel(self, session: Session) -> Sequence[Tool]:
        try:
            kernel_id = None if self._kernels is None else (await self._kernels.state(session)).kernel_id
        except NaviError:
            return ()
        return () if kernel_id is None else self._functions.offered(kernel_id, owner=session.owner)

    async def _of_servers(
        self, admits: Callable[[str], bool] | None, wait: float
    ) -> tuple[Sequence[Tool], Sequence[MissingServer]]:
        if admits is None:
            return [note.tool for note in await self._mcp.known() if note.tool is not None], ()
        tools, missing = await self._mcp.admitted(NOTHING_CONFIGURED, admits, wait)
        return tools, [
            MissingServer(name=state.config.name, status=state.status, message=state.message) for state in missing
        ]

    async def _of_packages(self, wait: float) -> tuple[Sequence[Tool], Sequence[BrokenTool], bool]:
        if self._packages is None:
            return (), (), False
        if not await self._imported(wait):
            return (), (), True
        notes = await self._packages.known()
        broken = [BrokenTool(name=note.name, source=note.source, why=note.why or "") for note in notes if not note.tool]
        tools = [note.tool for note in notes if note.tool is not None]
        broken += [BrokenTool(name=one.name, source=one.source, why=NOT_LENT) for one in tools if one.inquires]
        return tools, broken, False

    async def _imported(self, wait: float) -> bool:
        """Whether packages are imported, or have taken too long, within so many seconds."""
        if self._loading is None:
            # In an empty context: packages are nothing of the run that happens to be the first.
            self._loading = asyncio.get_running_loop().create_task(
                self._import(), name="navi-bench-packages", context=Context()
            )
        done, _ = await asyncio.wait((self._loading,), timeout=wait)
        return bool(done)

    async def _import(self) -> None:
        if self._packages is not None:
            await asyncio.gather(self._packages.known(), self._contexts.providers())

    # --- context -----------------------------------------------------------------------------------------------------

    async def contexts(self) -> Sequence[LentContext]:
        found = await self._contexts.providers() if await self._imported(CONTEXTS_WITHIN) else ()
        return [
            LentContext(
                name=one.name, title=one.title, max_tokens=one.max_tokens, patience=one.patience, default=one.default
            )
            for one in found
        ]

    async def context_text(self, session: Session, name: str, turn: TurnFacts) -> str | None:
        found = {one.name: one for one in await self._contexts.providers()}.get(name)
        if found is None:
            return None
        given = Turn(
            session=session,
            run_id=turn.run_id,
            model=turn.model,
            prompt=turn.prompt,
            history=(),
            limits=Limits(),
            origin=turn.origin,
            now=turn.now,
        )
        return await found.gather(given, tool_context.get())

    # --- calls -------------------------------------------------------------------------------------------------------

    async def call(self, session: Session, name: str, source: str, arguments: Mapping[str, Any]) -> LentResult:
        output = await (await self._find(session, name, source)).call(arguments)
        content = output.content
        if not isinstance(content, str):
            content = json.loads(json.dumps(content, ensure_ascii=False, default=str))
        images = [(image.media_type, base64.b64encode(image.content).decode()) for image in output.images]
        return LentResult(content=content, images=images, failed=output.failed)

    async def question(self, session: Session, name: str, source: str, arguments: Mapping[str, Any]) -> str | None:
        asks = (await self._find(session, name, source)).asks
        return None if asks is None else await asks(arguments, tool_context.get())

    async def description(
        self, session: Session, name: str, source: str, arguments: Mapping[str, Any]
    ) -> CallDescription:
        describes = (await self._find(session, name, source)).describes
        return CallDescription() if describes is None else await describes(arguments, tool_context.get())

    async def _find(self, session: Session, name: str, source: str) -> Tool:
        """Raises ToolUnavailable."""
        key = (source, name)
        if key not in self._offered.get(session.id, {}):
            # This server was started again, or the run was listed at another process.
            server = source.removeprefix(MCP_SOURCE) if source.startswith(MCP_SOURCE) else None
            await self.offered(session, servers=[[server]] if server else [[]], wait=30.0, have="")
        tool = self._offered.get(session.id, {}).get(key)
        if tool is None:
            raise ToolUnavailable(f"Your Jupyter server has no tool {name[:100]} ({source[:100]}) any more.")
        return tool

    # --- questions of calls ------------------------------------------------------------------------------------------

    async def ask(self, ask: Ask, emit: Callable[[Any], None]) -> Interrupt:
        """Have the service ask the user, and wait. Cancelled, the question is withdrawn. Raises ToolUnavailable."""
        question = f"q{next(self._ids)}"
        future: asyncio.Future[Interrupt] = asyncio.get_running_loop().create_future()
        self._questions[question] = future
        about = {"id": question, "message": ask.message, "source": ask.source, "schema": ask.response_schema}
        emit({"ask": about})
        try:
            return await future
        except asyncio.CancelledError:
            emit({"withdraw": question})
            raise
        finally:
            self._questions.pop(question, None)

    async def answer(self, question: str, interrupt: Interrupt | None) -> None:
        future = self._questions.get(question)
        if future is None or future.done():
            return
        if interrupt is None:
            future.set_exception(ToolUnavailable("The user cannot be asked now."))
        else:
            future.set_result(interrupt)


def _described(tool: Tool) -> LentTool:
    return LentTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        effect=tool.effect,
        source=tool.source,
        asks=tool.asks is not None,
        describes=tool.describes is not None,
    )


@dataclass(frozen=True, slots=True)
class _Agent:
    """What the operations use of ``AgentServices``."""

    kernel_tools: KernelTools

    def tool_infos(self, tools: Sequence[Tool]) -> tuple[ToolInfo, ...]:
        # By their effects alone: the administrator's ceiling is known to the service, whose lists have it.
        permission = ToolPermissions().by_default
        return tuple(tool_info(ToolNote(name=one.name, source=one.source, tool=one), permission) for one in tools)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the operations use of ``Services``."""

    agent: _Agent
    kernel_scope: KernelScope


class FunctionRoutes:
    """The routes ``kernels/{kid}/tools`` in this server: the operations of ``rest.about`` on its own kernels.

    So functions are the same whichever process of the service executes a run.
    """

    def __init__(self, functions: KernelTools, scope: KernelScope) -> None:
        self._routes = Routes(one for one in about.TABLE.operations if one.segments[0] == "kernels")
        self._parts = _Parts(_Agent(functions), scope)

    async def serve(self, method: str, path: str, request: Request) -> HttpReply:
        """Raises any NaviError."""
        operation, parameters = self._routes.find(method, path)
        answer = await operation.call(request, cast("Services", self._parts), parameters)
        return cast("HttpReply", answer)
