"""The MCP sessions of each caller, as the official SDK keeps them: opened by its first request, ended when idle.

A caller's sessions are its own: another one's session id is not found. Not responsible for who calls (``handler``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ...errors import NotReady
from ...installation import install_command
from ...log_setup import get_logger
from .offers import McpCaller, McpOffer, RunOffer

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

log = get_logger("mcp")

IDLE = 1800.0  # seconds after which a session without a request is ended
MOST_SESSIONS = 64  # of one caller at once: a program that forgets its sessions has to wait for the oldest to be idle
_STOP = 5.0  # seconds that the sessions of a caller may take to end

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class McpEndpoint:
    """One per server process. Nothing is imported or started before the first request."""

    def __init__(self, user_offer: Callable[[str], McpOffer], *, max_message_bytes: int) -> None:
        """``user_offer``: what a program of this owner gets."""
        self._user_offer = user_offer
        self._max_message_bytes = max_message_bytes
        self._callers: dict[object, _CallerSessions] = {}
        self._stopping = False

    async def serve(self, caller: McpCaller, scope: Scope, body: bytes, gone: asyncio.Event, send: Send) -> None:
        """Answer one request. ``gone`` is set when its client has closed the connection. Raises NotReady."""
        new_manager = await asyncio.to_thread(_import_protocol)
        if self._stopping:
            raise NotReady("Navi is stopping, because this server is.")
        await self._end_unused()
        # Looked up and inserted with no await between: two first requests get one manager.
        found = self._callers.get(caller.key)
        if found is None:
            is_agent = caller.run_tools is not None
            manager = new_manager(
                for_agents=is_agent, most_sessions=MOST_SESSIONS, idle=IDLE, max_message_bytes=self._max_message_bytes
            )
            found = self._callers[caller.key] = _CallerSessions(manager)
        run_tools = caller.run_tools
        scope["navi_offer"] = RunOffer(run_tools) if run_tools is not None else self._user_offer(caller.owner)
        await found.serve(scope, _receiving(body, gone), send)

    async def _end_unused(self) -> None:
        """End what has had no request for so long that all of its sessions are idle."""
        for key, caller in list(self._callers.items()):
            if caller.unused_for > 2 * IDLE:
                del self._callers[key]
                await caller.stop()

    async def stop(self) -> None:
        """End all sessions and what they call."""
        self._stopping = True
        callers, self._callers = list(self._callers.values()), {}
        await asyncio.gather(*(caller.stop() for caller in callers))


def _import_protocol() -> Callable[..., StreamableHTTPSessionManager]:
    """In a thread: the SDK takes more than half a second. Raises NotReady where it is missing."""
    try:
        from .protocol import new_manager
    except ImportError as error:
        log.warning("mcp_not_importable", error=str(error))
        command = install_command("navi-jupyter[mcp]")
        raise NotReady(f"The MCP server needs a package that is not installed here: {command}") from None
    return new_manager


def _receiving(body: bytes, gone: asyncio.Event) -> Receive:
    """The request's body as ASGI has it, then the end of its connection."""
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


class _CallerSessions:
    """The sessions of one caller. The SDK's manager is entered and left by one task, as its task group wants it."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager
        self._running = asyncio.Event()
        self._stop = asyncio.Event()
        self._requests = 0
        self._used = time.monotonic()
        self._task = asyncio.create_task(self._run(), name="navi-mcp-sessions")

    @property
    def unused_for(self) -> float:
        """Seconds since the last request has ended."""
        return 0.0 if self._requests else time.monotonic() - self._used

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._requests += 1
        try:
            await self._running.wait()
            if self._task.done():
                raise NotReady("The MCP server is stopping.")
            await self._manager.handle_request(scope, receive, send)
        finally:
            self._requests -= 1
            self._used = time.monotonic()

    async def _run(self) -> None:
        try:
            async with self._manager.run():
                self._running.set()
                await self._stop.wait()
        finally:
            self._running.set()

    async def stop(self) -> None:
        """End the sessions; requests that are being answered end with them."""
        self._stop.set()
        await asyncio.wait({self._task}, timeout=_STOP)
        if not self._task.done():
            log.warning("mcp_sessions_linger", seconds=_STOP)
            self._task.cancel()
        elif not self._task.cancelled() and (error := self._task.exception()) is not None:
            log.warning("mcp_sessions_failed", error=repr(error))
