"""The program of an MCP server that serves a call ends with the lease of its Jupyter server, which may be stopped."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from navi_jupyter.agent.mcp.config import ConfigFiles
from navi_jupyter.agent.mcp.connection import ServerTimeouts
from navi_jupyter.agent.mcp.pool import McpPool
from navi_jupyter.agent.mcp.user_servers import McpServers
from navi_jupyter.clock import boot_time
from navi_jupyter.lease_file import LeaseFile
from tests.agent.mcp.mcp_world import McpWorld, until

STUBBORN = """
import json, sys, time
def act(path):
    while True:
        with open(path, "a") as file:
            file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)}\\n")
        time.sleep(0.02)
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("act", "idle")]}
    if request["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
        result["serverInfo"] = {"name": "s", "version": "1"}
    elif request["method"] == "tools/call" and request["params"]["name"] == "act":
        act(sys.argv[1])
    elif request["method"] == "tools/call":
        result = {"content": []}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""


def effects(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def lease(tmp_path: Path) -> LeaseFile:
    folder = tmp_path / "runtime"
    folder.mkdir()
    file = LeaseFile(folder)
    file.write(boot_time() + 60)
    return file


@pytest.fixture
def leased(world: McpWorld, lease: LeaseFile, tmp_path: Path) -> McpWorld:
    world.pool = McpPool(
        ConfigFiles(str(world.file)),
        timeouts=ServerTimeouts(first_delay=0.05),
        on_status=world._on_status,
        lease_file=lease,
    )
    world.source._servers = McpServers(world.pool)
    world.configure(all={"command": sys.executable, "args": ["-c", STUBBORN, str(tmp_path / "effects.txt")]})
    return world


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_program_that_goes_on_whatever_it_is_told_ends_with_the_lease(
    leased: McpWorld, lease: LeaseFile, tmp_path: Path, cancelled: bool
) -> None:
    path = tmp_path / "effects.txt"
    tools = await leased.tools()
    over = boot_time() + 1.5
    lease.write(over)
    # The guard has read a longer time: it is looked at when that has passed. So this one is a new server's.
    await leased.pool.restart("all")
    await until(lambda: leased.status() == "ready")
    call = asyncio.create_task(leased.run(tools["all__act"], {}))
    await until(lambda: len(effects(path)) > 3 or call.done())
    assert not call.done()
    await asyncio.sleep(max(0.0, over - boot_time()))
    if cancelled:  # as a server does that is not stopped, and cannot reach its database
        call.cancel()
    await asyncio.wait({call}, timeout=20)
    assert call.done()
    last = effects(path)[-1]
    await asyncio.sleep(0.4)
    assert effects(path)[-1] == last < over + 0.5
    assert not list((tmp_path / "runtime").glob("*.call*"))


async def test_a_program_without_a_call_outlives_the_lease_and_serves_the_next_one(
    leased: McpWorld, lease: LeaseFile
) -> None:
    lease.write(boot_time() + 0.2)
    assert not (await leased.call("all__idle")).failed
    await asyncio.sleep(1.0)
    assert leased.status() == "ready"
    lease.write(boot_time() + 60)
    assert not (await leased.call("all__idle")).failed
    assert [status["status"] for status in leased.statuses] == ["starting", "ready"]
