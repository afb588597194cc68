"""An editor that speaks the Agent Client Protocol, by the official SDK, with ``navi acp`` as its agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import acp
from acp import schema
from acp.client.connection import ClientSideConnection

from tests.support.server import JupyterServer

PATIENCE = 60.0  # seconds; a loaded machine is slow
FORMS = schema.ClientCapabilities(elicitation=schema.ElicitationCapabilities(form=schema.ElicitationFormCapabilities()))


class Editor:
    """What the agent sends, in order, and how the user of the editor answers."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, Any]] = []
        self.asked: list[tuple[Any, Sequence[Any]]] = []
        self.forms: list[tuple[str, Any]] = []
        self.choose: Callable[[Sequence[Any]], str | None] | None = None
        """The option of a permission; None in its place: the user looks at it and does nothing."""
        self.fill: dict[str, Any] | None = None
        self.changed = asyncio.Event()
        self.agent: ClientSideConnection
        self.process: asyncio.subprocess.Process

    # --- called by the SDK -------------------------------------------------------------------------------------------

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.append((session_id, update))
        self.changed.set()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[Any], **_: Any
    ) -> schema.RequestPermissionResponse:
        self.asked.append((tool_call, options))
        self.changed.set()
        if self.choose is None:
            await asyncio.Event().wait()
        assert self.choose is not None
        chosen = self.choose(options)
        if chosen is None:
            return schema.RequestPermissionResponse(outcome=schema.DeniedOutcome(outcome="cancelled"))
        return schema.RequestPermissionResponse(outcome=schema.AllowedOutcome(outcome="selected", option_id=chosen))

    async def create_elicitation(self, message: str, mode: Any, **_: Any) -> Any:
        self.forms.append((message, mode))
        if self.fill is None:
            return schema.DeclineElicitationResponse(action="decline")
        return schema.AcceptElicitationResponse(action="accept", content=self.fill)

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise acp.RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        pass

    # --- read by tests -----------------------------------------------------------------------------------------------

    def text(self, kind: str = "agent_message_chunk", session_id: str | None = None) -> str:
        """All text of one kind of update."""
        return "".join(
            update.content.text
            for owner, update in self.updates
            if update.session_update == kind and session_id in (None, owner)
        )

    def of(self, kind: str) -> list[Any]:
        """All updates of one kind."""
        return [update for _, update in self.updates if update.session_update == kind]

    def call(self, title: str) -> dict[str, Any]:
        """The last state of the tool call whose title begins so: its fields, each as it was sent last."""
        calls: dict[str, dict[str, Any]] = {}
        for update in self.of("tool_call") + self.of("tool_call_update"):
            fields = {name: value for name, value in update if value is not None}
            calls[update.tool_call_id] = calls.get(update.tool_call_id, {}) | fields
        return next(fields for fields in calls.values() if str(fields["title"]).startswith(title))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that an update or a question makes true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def editor_of(
    server: JupyterServer, *args: str, forms: bool = False, named: bool = True
) -> AsyncIterator[Editor]:
    """An editor that has started ``navi acp`` for that server, and initialized it. ``named``: by URL and token."""
    editor = Editor()
    address = ["--url", server.url, "--token", server.token] if named else []
    command = [sys.executable, "-m", "navi_jupyter.cli", "acp", *address, *args]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=(server.home / "acp.log").open("ab"),
        env=server.env(),
        limit=64 * 2**20,
    )
    editor.process = process
    assert process.stdin is not None
    assert process.stdout is not None
    editor.agent = ClientSideConnection(editor, process.stdin, process.stdout, use_unstable_protocol=True)  # type: ignore[arg-type]
    try:
        capabilities = FORMS if forms else schema.ClientCapabilities()
        async with asyncio.timeout(PATIENCE):
            await editor.agent.initialize(protocol_version=acp.PROTOCOL_VERSION, client_capabilities=capabilities)
        yield editor
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await editor.agent.close()


def words(text: str) -> list[Any]:
    """A prompt of nothing but text."""
    return [schema.TextContentBlock(type="text", text=text)]


def log_of(server: JupyterServer) -> str:
    """What all ``navi acp`` of a server wrote to stderr."""
    return Path(server.home / "acp.log").read_text(errors="replace")
