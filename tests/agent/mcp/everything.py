"""A real MCP server of the official SDK, for the tests.

``everything.py`` serves over stdio, ``everything.py <port>`` over HTTP.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, Elicit, Image, ListRoots, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ListRootsResult, ToolAnnotations
from pydantic import BaseModel

server = MCPServer("everything", log_level="ERROR")


class Sure(BaseModel):
    sure: bool


async def ask(path: str) -> Elicit[Sure]:
    return Elicit(f"Delete {path}?", Sure)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(structured_output=False)
def shout(text: str) -> str:
    return text.upper()


@server.tool(structured_output=False)
def fail() -> str:
    raise ToolError("the disk is on fire")


@server.tool(structured_output=False)
def environment() -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


@server.tool(structured_output=False)
def picture() -> Image:
    return Image(data=b"\x89PNG not really", format="png")


@server.tool(structured_output=False)
def huge(megabytes: int) -> str:
    return "x" * (megabytes * 1_000_000)


@server.tool(structured_output=False)
async def count(to: int, ctx: Context) -> str:
    for done in range(1, to + 1):
        await ctx.report_progress(done, to, f"step {done}")
    return f"counted to {to}"


@server.tool(structured_output=False)
async def hang(started: str, ended: str) -> str:
    """Says in one file that it has begun, and in another that it was cancelled."""
    Path(started).write_text("yes")
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        Path(ended).write_text("cancelled")
        raise
    return "never"


@server.tool(structured_output=False)
async def delete(path: str, answer: Annotated[Sure, Resolve(ask)]) -> str:
    return f"deleted {path}" if answer.sure else f"kept {path}"


def ask_roots() -> ListRoots:
    return ListRoots()


@server.tool(structured_output=False)
def roots(found: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
    return " ".join(str(root.uri) for root in found.roots)


@server.tool(structured_output=False)
async def ask_when_both_are_here(path: str, other: str, ctx: Context) -> str:
    """Asks (in the older protocol) once a second call is here, too."""
    Path(path).write_text("here")
    while not Path(other).exists():  # noqa: ASYNC110  the other call may be anywhere
        await anyio.sleep(0.01)
    result = await ctx.elicit(f"Delete {path}?", Sure)
    return result.action


@server.tool(structured_output=False)
def die() -> str:
    print("something terrible with planted-secret-1234567", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool(structured_output=False)
async def learn(name: str, ctx: Context) -> str:
    def learned() -> str:
        return f"I know {name}"

    server.add_tool(learned, name=name)
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "learned"


def stubborn(pids: str) -> None:
    """Ignores the end of its input and SIGTERM, and has a child and a daemon that do the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-c", code])
    daemon = subprocess.run(
        ["sh", "-c", f'setsid {sys.executable} -c "{code}" >/dev/null 2>&1 & echo $!'], capture_output=True, text=True
    )
    Path(pids + ".part").write_text(f"{os.getpid()} {child.pid} {daemon.stdout.strip()}")
    Path(pids + ".part").rename(pids)


def main() -> None:
    match sys.argv[1:]:
        case []:
            server.run("stdio")
        case ["stubborn", pids]:
            stubborn(pids)
            try:
                server.run("stdio")
            finally:
                time.sleep(1000)
        case [port]:
            server.run("streamable-http", port=int(port))


if __name__ == "__main__":
    main()
