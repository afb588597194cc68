"""``navi acp``: Navi's sessions for editors that speak the Agent Client Protocol, over stdio to the running server.

An editor starts this command as its agent. Sessions are the server's own: they outlive the editor, and every other view
shows them, too. stdout has the protocol and nothing else. Source: https://agentclientprotocol.com, version 1. Not
responsible for agent programs that answer in Navi (``agent.acp``): that is the other end of the same protocol.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from acp import PROTOCOL_VERSION, schema
from acp import Client as Editor
from acp.agent.connection import AgentSideConnection

from ... import __version__
from ...errors import NaviError
from ...kernel.errors import Refused
from ..server_link import ServerLink
from ..stdio_lines import StdioLines
from .folders import EditorFolders, folder_here, path_below
from .options import ConfigOption, commands_of, patch_of, request_error, settings_of
from .prompts import CAPABILITIES, Block
from .questions import takes_forms
from .session import EditorSession

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MOST_OPEN = 50  # sessions that are followed at the same time; of more, the one is closed that was used longest ago
_PAGE = 50  # sessions in one answer of `session/list`
_MOST_PAGES = 20  # of the server's list that are looked through for sessions of one folder


def _answering(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Errors of the server and of the way to it, with their own words."""

    @functools.wraps(method)
    async def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except NaviError as problem:
            raise request_error(problem) from None

    return answered


class EditorAgent:
    """The agent of one editor: the methods of the protocol, as the SDK calls them. Others it answers as not found.

    ``**_meta`` is what a message has under `_meta`, which is for extensions of the protocol.
    """

    def __init__(self, editor: Editor, link: ServerLink, notebook: str | None) -> None:
        """``notebook``: the path, below the server's root, of the notebook whose session a new one is to be."""
        self._editor = editor
        self._link = link
        self._notebook = notebook
        self._has_forms = False
        self._folders = EditorFolders()
        self._open: dict[str, EditorSession] = {}  # the one that was used last is the last

    @_answering
    async def initialize(
        self,
        protocol_version: int,  # noqa: ARG002 - an agent answers with its own; an editor that cannot speak it leaves
        client_capabilities: schema.ClientCapabilities | None = None,
        client_info: schema.Implementation | None = None,  # noqa: ARG002
        **_meta: Any,
    ) -> schema.InitializeResponse:
        """What this agent can do."""
        self._has_forms = takes_forms(client_capabilities)
        sessions = schema.SessionCapabilities(
            list=schema.SessionListCapabilities(),
            resume=schema.SessionResumeCapabilities(),
            close=schema.SessionCloseCapabilities(),
            fork=schema.SessionForkCapabilities(),
        )
        return schema.InitializeResponse(
            protocol_version=PROTOCOL_VERSION,
            agent_capabilities=schema.AgentCapabilities(
                load_session=True, prompt_capabilities=CAPABILITIES, session_capabilities=sessions
            ),
            agent_info=schema.Implementation(name="navi", title="Navi", version=__version__),
            auth_methods=[],
        )

    @_answering
    async def new_session(
        self, cwd: str, mcp_servers: list[Any] | None = None, **_meta: Any
    ) -> schema.NewSessionResponse:
        """A new session; with ``--notebook``, or where ``cwd`` is a notebook, that notebook's."""
        _note_servers(mcp_servers)
        root = (await self._link.connection()).root_dir
        notebook = self._notebook
        if notebook is None and cwd.endswith(".ipynb"):
            notebook = path_below(cwd, folder_here(root))
        if notebook is None:
            state = await self._link.request("POST", "sessions", {})
        else:
            found = await self._link.request("POST", "sessions/find", {"notebook_path": notebook, "create": True})
            state = found["session"]
        session = self._session(state["id"], cwd)
        modes, options = await settings_of(self._link, state)
        await session.open(after=int(state["head_seq"]))
        self._announce(session.id)
        return schema.NewSessionResponse(session_id=session.id, modes=modes, config_options=options)

    @_answering
    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: list[Any] | None = None, **_meta: Any
    ) -> schema.LoadSessionResponse:
        """Open a session and show its conversation, and what is in progress."""
        _note_servers(mcp_servers)
        modes, options = await self._opened(session_id, cwd, replay=True)
        return schema.LoadSessionResponse(modes=modes, config_options=options)

    @_answering
    async def resume_session(
        self, session_id: str, cwd: str, mcp_servers: list[Any] | None = None, **_meta: Any
    ) -> schema.ResumeSessionResponse:
        """Open a session whose conversation the editor has."""
        _note_servers(mcp_servers)
        modes, options = await self._opened(session_id, cwd, replay=False)
        return schema.ResumeSessionResponse(modes=modes, config_options=options)

    @_answering
    async def fork_session(
        self, session_id: str, cwd: str, mcp_servers: list[Any] | None = None, **_meta: Any
    ) -> schema.ForkSessionResponse:
        """A copy of a session, opened."""
        _note_servers(mcp_servers)
        state = await self._link.request("POST", f"sessions/{_known(session_id)}/fork", {})
        modes, options = await self._opened(state["id"], cwd, replay=False)
        return schema.ForkSessionResponse(session_id=state["id"], modes=modes, config_options=options)

    @_answering
    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **_meta: Any
    ) -> schema.ListSessionsResponse:
        """The user's sessions, most recently used first; with ``cwd`` those of that folder."""
        root = (await self._link.connection()).root_dir
        found: list[schema.SessionInfo] = []
        for _ in range(_MOST_PAGES):
            page = await self._link.request("GET", "sessions", query={"limit": _PAGE, "cursor": cursor})
            cursor = page.get("next")
            for one in page["sessions"]:
                folder = await asyncio.to_thread(self._folders.of, one, root)
                if cwd is None or PurePath(folder) == PurePath(cwd):
                    info = schema.SessionInfo(
                        session_id=one["id"], cwd=folder, title=one["title"], updated_at=one["updated_at"]
                    )
                    found.append(info)
            if cursor is None or found:
                break
        return schema.ListSessionsResponse(sessions=found, next_cursor=cursor)

    @_answering
    async def close_session(self, session_id: str, **_meta: Any) -> schema.CloseSessionResponse:
        """Follow a session no longer. It stays on the server."""
        session = self._open.pop(session_id, None)
        if session is not None:
            await session.cancel()
            await session.close()
        return schema.CloseSessionResponse()

    @_answering
    async def set_session_mode(self, session_id: str, mode_id: str, **_meta: Any) -> schema.SetSessionModeResponse:
        """The session's profile."""
        await self._link.request("PATCH", f"sessions/{_known(session_id)}", {"profile": mode_id})
        return schema.SetSessionModeResponse()

    @_answering
    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **_meta: Any
    ) -> schema.SetSessionConfigOptionResponse:
        """The session's profile (`mode`), its model, or a mode or model of its agent program."""
        patch = patch_of(config_id, value)
        state = await self._link.request("PATCH", f"sessions/{_known(session_id)}", patch)
        return schema.SetSessionConfigOptionResponse(config_options=(await settings_of(self._link, state))[1])

    @_answering
    async def prompt(self, session_id: str, prompt: list[Block], **_meta: Any) -> schema.PromptResponse:
        """A turn, to its end."""
        session = self._open.get(session_id)
        if session is None:
            # As after `session/resume`: the editor has the conversation already, or wants none of it.
            await self._opened(session_id, "", replay=False)
            session = self._open[session_id]
        self._open[session_id] = self._open.pop(session_id)
        return await session.prompt(prompt)

    async def cancel(self, session_id: str, **_meta: Any) -> None:
        """Stop the turns of a session."""
        if (session := self._open.get(session_id)) is not None:
            await session.cancel()

    async def close(self) -> None:
        """Follow nothing any more. Runs go on."""
        for session in self._open.values():
            await session.close()
        self._open.clear()

    async def _opened(
        self, session_id: str, cwd: str, *, replay: bool
    ) -> tuple[schema.SessionModeState, list[ConfigOption]]:
        state = await self._link.request("GET", f"sessions/{_known(session_id)}")
        session = self._session(session_id, cwd)
        await session.open(after=None, replay=replay)
        self._announce(session_id)
        return await settings_of(self._link, state)

    def _session(self, session_id: str, cwd: str) -> EditorSession:
        """The open session of that id, as the one that was used last."""
        session = self._open.pop(session_id, None)
        if session is None:
            session = EditorSession(self._editor, self._link, session_id, cwd, has_forms=self._has_forms)
        self._open[session_id] = session
        if cwd:
            self._folders.keep(session_id, cwd)
        idle = [one for one in self._open.values() if one.is_idle and one is not session]
        for one in idle[: max(0, len(self._open) - _MOST_OPEN)]:
            del self._open[one.id]
            _later(one.close())
        return session

    def _announce(self, session_id: str) -> None:
        """Send the prompts by name as slash commands, after the answer that makes the session known."""
        _later(self._send_commands(session_id))

    async def _send_commands(self, session_id: str) -> None:
        try:
            update = await commands_of(self._link, session_id)
            await self._editor.session_update(session_id, update)
        except (NaviError, ConnectionError) as problem:
            log.warning("the slash commands are not known: %s", problem)


_tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive


def _later(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _known(session_id: str) -> str:
    """An id as it may stand in a path of the API. Raises RequestError."""
    if not session_id or len(session_id) > 200 or not session_id.replace("_", "").replace("-", "").isalnum():
        raise request_error(Refused("There is no such session.", server_code="session_not_found", server_status=404))
    return session_id


def _note_servers(servers: list[Any] | None) -> None:
    """An editor's MCP servers are not used: a run of a session goes on without this editor."""
    if servers:
        names = ", ".join(str(getattr(one, "name", "?"))[:60] for one in servers[:20])
        log.warning("MCP servers of the editor are not used (%s): configure them in Navi, see navi/mcp.json", names)


async def _serve(url: str | None, token: str | None, notebook: str | None) -> None:
    lines = StdioLines()
    agents: list[EditorAgent] = []

    def agent_of(editor: Editor) -> Any:
        agents.append(EditorAgent(editor, ServerLink(url, token), notebook))
        return agents[0]

    # The SDK calls some methods unstable (resume, close, fork) that version 1 of the protocol has by now.
    connection = AgentSideConnection(agent_of, lines, listening=False, use_unstable_protocol=True)
    try:
        await connection.listen()
    finally:
        await agents[0].close()
        await connection.close()


def serve(*, url: str | None, token: str | None, notebook: str | None) -> int:
    """Answer the editor until it closes stdin."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="navi acp: %(message)s")
    asyncio.run(_serve(url, token, notebook))
    return 0
