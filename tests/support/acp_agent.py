"""An agent that speaks the Agent Client Protocol by the official SDK, as a program that does what its prompts say.

``python acp_agent.py FOLDER``: its sessions are kept in FOLDER, where each start leaves a line in ``starts``. What it
does wrong at the start is in ``ACP_AGENT``, a JSON object (``protocol``, ``silent``, ``login``, ``no_load``). A prompt
is one or more lines, each a word and what follows; the last text block counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import acp
from acp import helpers
from acp.schema import (
    AgentCapabilities,
    AvailableCommand,
    Implementation,
    LoadSessionResponse,
    McpCapabilities,
    NewSessionResponse,
    PermissionOption,
    PromptCapabilities,
    PromptResponse,
    SessionMode,
    SessionModeState,
    ToolCallUpdate,
    Usage,
)

HOW = json.loads(os.environ.get("ACP_AGENT", "{}"))
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
OPTIONS = [
    PermissionOption(option_id="once", name="Yes, once", kind="allow_once"),
    PermissionOption(option_id="always", name="Yes, always", kind="allow_always"),
    PermissionOption(option_id="no", name="No", kind="reject_once"),
]


def raw(text: str) -> None:
    """Print what the SDK would not, to the pipe that the SDK has made non-blocking."""
    rest = text.encode() + b"\n"
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])


class ScriptedAgent(acp.Agent):
    def __init__(self) -> None:
        self.client: Any = None
        self.sessions: dict[str, list[str]] = {}
        self.servers: list[Any] = []
        self.mode = "ask"
        self.cancelled = asyncio.Event()
        self.broken: set[str] = set()  # sessions in which it refuses every prompt

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> acp.InitializeResponse:
        if HOW.get("silent"):
            await asyncio.sleep(3600)
        if HOW.get("garbage"):
            raw("npm notice: this is no message")
            raw('{"jsonrpc": "2.0", "id": [1], "result": {}}')
            raw('{"jsonrpc": "2.0", "id": 0, "error": "nothing"}')
        return acp.InitializeResponse(
            protocol_version=HOW.get("protocol", protocol_version),
            agent_capabilities=AgentCapabilities(
                load_session=not HOW.get("no_load"),
                prompt_capabilities=PromptCapabilities(image=True, embedded_context=True),
                mcp_capabilities=McpCapabilities(http=not HOW.get("no_http")),
            ),
            agent_info=Implementation(name="scripted", title="Scripted", version="1.0"),
        )

    async def new_session(self, cwd: str, mcp_servers: Any = None, **_: Any) -> NewSessionResponse:
        if HOW.get("login"):
            raise acp.RequestError.auth_required({"message": "No user is logged in."})
        session_id = f"session-{len(list(FOLDER.glob('session-*'))) + 1}"
        self._begin(session_id, [], mcp_servers)
        self._keep(session_id)
        await self._commands(session_id)
        return NewSessionResponse(session_id=session_id, modes=self._modes())

    async def load_session(self, cwd: str, session_id: str, mcp_servers: Any = None, **_: Any) -> LoadSessionResponse:
        kept = FOLDER / session_id
        if not kept.exists():
            raise acp.RequestError.internal_error({"details": "No previous sessions found."})
        self._begin(session_id, json.loads(kept.read_text()), mcp_servers)
        for prompt in self.sessions[session_id]:
            await self._send(session_id, helpers.update_user_message_text(prompt))
            await self._send(session_id, helpers.update_agent_message_text("repeated"))
        return LoadSessionResponse(modes=self._modes())

    async def set_session_mode(self, session_id: str, mode_id: str, **_: Any) -> None:
        self.mode = mode_id

    async def cancel(self, session_id: str, **_: Any) -> None:
        self.cancelled.set()

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> PromptResponse:
        self.cancelled.clear()
        if session_id in self.broken:
            raise acp.RequestError.internal_error({"details": "A call has no result."})
        text = next(block.text for block in reversed(prompt) if block.type == "text")
        self.sessions[session_id].append(text)
        self._keep(session_id)
        reason = "end_turn"
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            action = getattr(self, f"do_{word}", None)
            reason = (await action(session_id, rest, prompt) if action else None) or reason
        return PromptResponse(
            stop_reason=reason,  # type: ignore[arg-type]
            usage=Usage(input_tokens=7, output_tokens=3, total_tokens=10),
        )

    # --- what a prompt can ask for

    async def do_say(self, session_id: str, rest: str, _: Any) -> None:
        for part in rest.split("|"):
            await self._send(session_id, helpers.update_agent_message_text(part))

    async def do_think(self, session_id: str, rest: str, _: Any) -> None:
        await self._send(session_id, helpers.update_agent_thought_text(rest))

    async def do_plan(self, session_id: str, rest: str, _: Any) -> None:
        entries = [helpers.plan_entry(each, status="pending") for each in rest.split("|")]
        await self._send(session_id, helpers.update_plan(entries))

    async def do_edit(self, session_id: str, rest: str, _: Any) -> None:
        path = str(Path.cwd() / rest)
        call = helpers.start_tool_call(
            "call-1", f"Edit {rest}", kind="edit", status="in_progress", raw_input={"file": rest},
            locations=[acp.schema.ToolCallLocation(path=path, line=2)],
        )  # fmt: skip
        await self._send(session_id, call)
        diff = helpers.tool_diff_content(path, "new\n", "old\n")
        await self._send(session_id, helpers.update_tool_call("call-1", status="completed", content=[diff]))

    async def do_ask(self, session_id: str, rest: str, _: Any) -> None:
        call = ToolCallUpdate(tool_call_id="call-2", title=rest, kind="execute", raw_input={"command": rest})
        answer = await self.client.request_permission(session_id=session_id, tool_call=call, options=OPTIONS)
        outcome = answer.outcome
        await self._send(
            session_id,
            helpers.update_tool_call("call-2", status="completed" if outcome.outcome == "selected" else "failed"),
        )
        chosen = getattr(outcome, "option_id", outcome.outcome)
        await self._send(session_id, helpers.update_agent_message_text(f"chosen: {chosen}"))

    async def do_terminal(self, session_id: str, rest: str, _: Any) -> None:
        """Run a command through the client, in a call that shows its terminal."""
        made = await self.client.create_terminal(session_id=session_id, command="sh", args=["-c", rest])
        shown = helpers.tool_terminal_ref(made.terminal_id)
        call = helpers.start_tool_call("call-4", rest, kind="execute", status="in_progress", content=[shown])
        await self._send(session_id, call)
        over = await self.client.wait_for_terminal_exit(session_id=session_id, terminal_id=made.terminal_id)
        await self.client.release_terminal(session_id=session_id, terminal_id=made.terminal_id)
        await self._send(session_id, helpers.update_tool_call("call-4", status="completed"))
        await self._send(session_id, helpers.update_agent_message_text(f"exit: {over.exit_code}"))

    async def do_break(self, session_id: str, _: str, __: Any) -> None:
        self.broken.add(session_id)

    async def do_mode(self, session_id: str, _: str, __: Any) -> None:
        await self._send(session_id, helpers.update_agent_message_text(f"mode: {self.mode}"))

    async def do_blocks(self, session_id: str, _: str, prompt: list[Any]) -> None:
        shown = [block.model_dump(by_alias=True, exclude_none=True) for block in prompt]
        await self._send(session_id, helpers.update_agent_message_text(json.dumps(shown)))

    async def do_history(self, session_id: str, _: str, __: Any) -> None:
        text = json.dumps([session_id, len(self.sessions[session_id])])
        await self._send(session_id, helpers.update_agent_message_text(text))

    async def do_mcp(self, session_id: str, rest: str, _: Any) -> None:
        """``mcp TOOL {arguments}``: a call of a tool of the first MCP server, as OpenCode reports its own."""
        tool, _, arguments = rest.partition(" ")
        call = helpers.start_tool_call("call-3", f"navi_{tool}", kind="other", status="in_progress")
        await self._send(session_id, call)
        answer = await asyncio.to_thread(self._call_mcp, tool, json.loads(arguments or "{}"))
        await self._send(session_id, helpers.update_tool_call("call-3", status="completed"))
        await self._send(session_id, helpers.update_agent_message_text(f"result: {answer}"))

    async def do_wait(self, session_id: str, _: str, __: Any) -> str:
        await self._send(session_id, helpers.update_agent_message_text("waiting"))
        await self.cancelled.wait()
        await self._send(session_id, helpers.update_agent_message_text(" cancelled"))
        return "cancelled"

    async def do_hang(self, session_id: str, _: str, __: Any) -> None:
        """Never ends, whatever is asked."""
        await self._send(session_id, helpers.update_agent_message_text("hanging"))
        await asyncio.Event().wait()

    async def do_child(self, session_id: str, _: str, __: Any) -> None:
        """Leave a process behind."""
        child = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        await self._send(session_id, helpers.update_agent_message_text(f"pids: {os.getpid()} {child.pid}"))

    async def do_die(self, _: str, __: str, ___: Any) -> None:
        sys.stderr.write("the reason of its death\n")
        sys.stderr.flush()
        raw('{"jsonrpc": "2.0", "method": "session/upd')
        os._exit(3)

    async def do_flood(self, session_id: str, rest: str, _: Any) -> None:
        for number in range(int(rest)):
            update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": f"{number} "}}
            raw(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "method": "session/update",
                        "params": {"sessionId": session_id, "update": update},
                    }
                )
            )

    async def do_stray(self, _: str, rest: str, __: Any) -> None:
        raw("\n".join(["not a message"] * int(rest)))

    async def do_huge(self, _: str, rest: str, __: Any) -> None:
        raw(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": "x" * int(rest)}))

    async def do_lie(self, session_id: str, _: str, __: Any) -> None:
        """About sessions, ids and types."""
        for other, update in (
            ("another", {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "LIE"}}),
            (session_id, {"sessionUpdate": "tool_call_update", "toolCallId": 7, "title": "LIE"}),
            (session_id, {"sessionUpdate": "agent_message_chunk", "content": ["LIE"]}),
            (session_id, {"sessionUpdate": "plan", "entries": [{"content": ["LIE"]}, "LIE"]}),
            (session_id, {"sessionUpdate": "no_such_update", "text": "LIE"}),
            (session_id, "LIE"),
        ):
            params = {"sessionId": other, "update": update}
            raw(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}))
        raw(json.dumps({"jsonrpc": "2.0", "id": 99, "result": {"stopReason": "LIE"}}))
        call = ToolCallUpdate(tool_call_id="call-9", title="x", kind="execute")
        with contextlib.suppress(acp.RequestError):
            await self.client.request_permission(session_id="another", tool_call=call, options=OPTIONS)
            await self._send(session_id, helpers.update_agent_message_text("the lie was believed"))

    async def do_cut(self, _: str, __: str, ___: Any) -> str:
        return "max_tokens"

    async def do_refuse(self, _: str, __: str, ___: Any) -> str:
        return "refusal"

    # --- parts

    def _begin(self, session_id: str, prompts: list[str], servers: Any) -> None:
        self.sessions[session_id] = prompts
        self.servers = list(servers or ())

    def _keep(self, session_id: str) -> None:
        (FOLDER / session_id).write_text(json.dumps(self.sessions[session_id]))

    @staticmethod
    def _modes() -> SessionModeState:
        modes = [SessionMode(id="ask", name="Ask"), SessionMode(id="plan", name="Plan", description="Changes nothing")]
        return SessionModeState(current_mode_id="ask", available_modes=modes)

    async def _commands(self, session_id: str) -> None:
        command = AvailableCommand(name="review", description="Review the changes")
        await self._send(session_id, helpers.update_available_commands([command]))

    async def _send(self, session_id: str, update: Any) -> None:
        await self.client.session_update(session_id=session_id, update=update)

    def _call_mcp(self, tool: str, arguments: dict[str, Any]) -> str:
        server = self.servers[0]
        if not hasattr(server, "url"):
            return self._call_bridge(server, tool, arguments)
        headers = {header.name: header.value for header in server.headers}
        headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

        def post(body: dict[str, Any]) -> str:
            request = urllib.request.Request(server.url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=120) as answer:
                if session := answer.headers.get("Mcp-Session-Id"):
                    headers["Mcp-Session-Id"] = session
                return str(answer.read().decode())

        return [post(each) for each in self._mcp_messages(tool, arguments)][-1]

    def _call_bridge(self, server: Any, tool: str, arguments: dict[str, Any]) -> str:
        env = {**os.environ, **{each.name: each.value for each in server.env}}
        pipe = subprocess.PIPE
        with subprocess.Popen([server.command, *server.args], env=env, stdin=pipe, stdout=pipe, text=True) as bridge:
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            line = ""
            for message in self._mcp_messages(tool, arguments):
                bridge.stdin.write(json.dumps(message) + "\n")
                bridge.stdin.flush()
                while "id" in message and json.loads(line := bridge.stdout.readline()).get("id") != message["id"]:
                    pass
            bridge.stdin.close()
        return line

    @staticmethod
    def _mcp_messages(tool: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        info = {"name": "scripted", "version": "1"}
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        params = {"name": tool, "arguments": arguments}
        return [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params},
        ]


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    await acp.run_agent(ScriptedAgent())


if __name__ == "__main__":
    asyncio.run(main())
