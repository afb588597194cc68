"""The agent programs of this server: at most one for each session, from its first turn until it is not needed.

A program ends when it was idle for long, when its session gets another model or is deleted, when its configuration
changes, and with the server; one that has ended by itself is started again at its next turn. Not responsible for what
happens in a turn (``backend``).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RunFailed
from ...lease_file import LeaseFile
from ...log_setup import get_logger
from ...model.agent_options import AgentOffer
from ...model.sessions import Session
from ...ports.run_tools import RunToolsRegistry
from .agents import AgentCatalog, FoundAgent
from .permissions import SERVER_NAME, AgentIdentity
from .prompt import NOTHING_SEEN, SeenRuns
from .run_tools import ProgramTools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .client import AgentRequests
    from .program import AgentProgram

log = get_logger("acp")

LOGIN_NEEDED = "agent_login_needed"  # the code of a run whose program wants somebody to log in
LOOK_EVERY = 5.0  # seconds between two looks for programs that are not needed any more


@dataclass(slots=True)
class SessionProgram:
    """The program of one session, with what belongs to it and dies with it."""

    agent: FoundAgent
    program: AgentProgram
    tools: ProgramTools
    secret: str  # by which it reaches our tools
    url: str | None  # of our MCP server; None: there is none
    seen: SeenRuns = NOTHING_SEEN  # the runs that its own session has in it
    offered: Sequence[str] = ()  # the names of our tools that it has
    shown: AgentOffer | None = None  # what the log has of its offer
    cost: float = 0.0  # US dollars that its session has cost, as it says
    used: float = field(default_factory=time.monotonic)

    def servers(self) -> list[Mapping[str, Any]]:
        """The MCP servers of its session: ours, where it can reach it."""
        if self.url is None:
            return []
        if not self.program.can("mcpCapabilities", "http"):  # every program has to take one that it starts itself
            env = {"NAVI_MCP_URL": self.url, "NAVI_MCP_SECRET": self.secret}
            variables = [{"name": name, "value": value} for name, value in env.items()]
            command = {"command": sys.executable, "args": ["-m", "navi_jupyter.cli", "mcp"]}
            return [{"name": SERVER_NAME, **command, "env": variables}]
        headers = [{"name": "Authorization", "value": f"Bearer {self.secret}"}]
        return [{"type": "http", "name": SERVER_NAME, "url": self.url, "headers": headers}]


class AgentPrograms:
    """See the module. One per server process."""

    def __init__(
        self,
        catalog: AgentCatalog,
        *,
        root: Path | None = None,
        run_tools: RunToolsRegistry | None = None,
        mcp_url: Callable[[], str | None] = lambda: None,
        lease_file: LeaseFile | None = None,
        idle_seconds: float = 600.0,
        find_session: Callable[[str], Awaitable[Session | None]] | None = None,
    ) -> None:
        """``root``: the server's folder, in which programs work; ``mcp_url``: where they reach our tools;
        ``find_session``: a session as it is now."""
        self.catalog = catalog
        self.root = root or Path.cwd()  # where they work
        self._has_files = root is not None
        self._run_tools = run_tools or RunToolsRegistry()
        self._mcp_url = mcp_url
        self._lease_file = lease_file
        self._idle_seconds = idle_seconds
        self._find_session = find_session
        self._programs: dict[str, SessionProgram] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def running(self) -> Sequence[str]:
        """The sessions that have a program now."""
        return list(self._programs)

    @asynccontextmanager
    async def turn_in(self, session: Session, agent: FoundAgent) -> AsyncIterator[SessionProgram]:
        """The program of a session for one turn, started if need be: one turn at a time. Raises RunFailed."""
        lock = self._locks.setdefault(session.id, asyncio.Lock())
        async with lock:
            held = await self._ready(session, agent)
            try:
                yield held
            finally:
                held.used = time.monotonic()
                if not held.program.usable or self._stopped:
                    self._begin_end(session.id)

    async def _ready(self, session: Session, agent: FoundAgent) -> SessionProgram:
        held = self._programs.get(session.id)
        if held is not None and held.agent == agent and held.program.usable:
            return held
        if held is not None:
            self._begin_end(session.id)
        if self._stopped:
            raise RunFailed("The server is stopping.", run_code="agent_ended")
        held = await self._new(agent)
        self._programs[session.id] = held
        try:
            await held.program.start()
        except BaseException:
            self._begin_end(session.id)
            raise
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(), name="navi-acp-programs")
        return held

    async def _new(self, agent: FoundAgent) -> SessionProgram:
        program_class, requests_class = await asyncio.to_thread(_import_program)
        tools = ProgramTools()

        def requests(_: AgentProgram) -> AgentRequests:
            return requests_class(
                AgentIdentity(name=agent.name, title=agent.title),
                str(self.root) if self._has_files else None,
                agent.env,
                own_tools=lambda: held.offered,
            )

        mark = None if self._lease_file is None else self._lease_file.call_mark()
        held = SessionProgram(
            agent=agent,
            program=program_class(agent, self.root, requests, mark),
            tools=tools,
            secret=self._run_tools.register(tools),
            url=self._mcp_url(),
        )
        return held

    async def try_out(self, agent: FoundAgent) -> None:
        """Start a program for itself, begin a session in it, and end it: whether it is there and logged in.

        Raises RunFailed.
        """
        held = await self._new(agent)
        try:
            await held.program.start()
            await held.program.begin_session(())
        except RunFailed as error:
            if error.run_code == LOGIN_NEEDED:
                self.catalog.note_login(agent.name, error.message)
            raise
        finally:
            self._run_tools.forget(held.secret)
            await held.program.close()
        self.catalog.note_login(agent.name, None)

    def _begin_end(self, session_id: str) -> None:
        """End the program of a session, in a task of its own: what waits for it may be cancelled meanwhile."""
        held = self._programs.pop(session_id)
        self._run_tools.forget(held.secret)
        task = asyncio.create_task(held.program.close(), name=f"navi-acp-close-{held.agent.name}")
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent_not_ended", error=type(error).__name__, exc_info=error)

    async def end_idle(self) -> None:
        """End those that are not needed any more."""
        for session_id, held in list(self._programs.items()):
            if self._locks[session_id].locked():
                continue
            why = await self._why_over(session_id, held)
            if why is not None and not self._locks[session_id].locked():
                log.info("agent_ends", agent=held.agent.name, session_id=session_id, reason=why)
                self._begin_end(session_id)
        for session_id in [each for each, lock in self._locks.items() if not lock.locked()]:
            if session_id not in self._programs:
                del self._locks[session_id]

    async def _why_over(self, session_id: str, held: SessionProgram) -> str | None:
        if not held.program.usable:
            return "it has ended"
        if time.monotonic() - held.used > self._idle_seconds:
            return "idle"
        if self._find_session is None:
            return None
        session = await self._find_session(session_id)
        if session is None:
            return "session deleted"
        return None if session.model == held.agent.model else "other model"

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._idle_seconds / 2))
            try:
                await self.end_idle()
            except Exception:
                log.exception("agents_not_looked_at")  # the database, for example: it is looked again

    async def stop(self) -> None:
        """End all of them, within bounds. None is started again."""
        self._stopped = True
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        for session_id in list(self._programs):
            self._begin_end(session_id)
        if self._closing:
            await asyncio.wait(self._closing)


def _import_program() -> tuple[type[AgentProgram], type[AgentRequests]]:
    """In a thread and at the first turn: the SDK takes 0.3 s to import, which no start of the server has to wait for.

    Raises RunFailed where it is not installed.
    """
    try:
        from .client import AgentRequests
        from .program import AgentProgram
    except ImportError as error:
        raise RunFailed(f"Agent programs cannot be used here: {error}.", run_code="model_unavailable") from error
    return AgentProgram, AgentRequests
