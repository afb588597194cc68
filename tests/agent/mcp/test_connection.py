"""How a server lives: when it starts, what becomes of it when it fails, how it follows its file, how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress

import psutil
import pytest

from navi_jupyter.agent.mcp.connection import ServerTimeouts
from tests.agent.mcp.mcp_world import SCRIPT, STDIO, McpWorld, until


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += [pid] * (psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return found


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}


async def test_nothing_starts_before_a_run_wants_it(world: McpWorld) -> None:
    before = children()
    world.configure(all=STDIO)
    await world.pool.refresh()
    assert world.status() == "configured"
    assert children() == before
    await world.tools()
    assert world.status() == "ready"


async def test_a_profile_that_admits_no_server_starts_none(world: McpWorld) -> None:
    world.configure(all=STDIO, other=STDIO)
    world.profiles.profile = world.profiles.profile.__class__(
        name="assistant", description="", instructions="", mcp=("*", "!all")
    )
    assert {tool.source for tool in (await world.tools()).values()} == {"mcp:other"}
    assert (world.status("all"), world.status("other")) == ("configured", "ready")


async def test_a_server_that_dies_in_a_call_fails_the_call_and_comes_back(world: McpWorld) -> None:
    world.configure(all=STDIO | {"env": {"TOKEN": "planted-secret-1234567"}})
    output = await world.call("all__die")
    assert output.failed
    assert "went away" in output.content
    await until(lambda: "failed" in [entry["status"] for entry in world.statuses])
    message = next(entry["message"] for entry in world.statuses if entry["status"] == "failed")
    assert "code 3" in message
    assert "something terrible" in message  # what it wrote last
    assert "planted-secret" not in message
    await until(lambda: world.status() == "ready")  # nobody had to ask for it
    assert (await world.call("all__shout", {"text": "again"})).content == "AGAIN"
    assert [entry["status"] for entry in world.statuses] == ["starting", "ready", "failed", "starting", "ready"]


async def test_a_server_that_is_killed_comes_back_with_no_call_under_way(world: McpWorld) -> None:
    world.configure(all=STDIO)
    before = children()
    await world.tools()
    for pid in children() - before:
        if str(SCRIPT) in psutil.Process(pid).cmdline()[1]:
            os.kill(pid, 9)
    await until(lambda: [entry["status"] for entry in world.statuses].count("ready") == 2)


async def test_a_guard_that_is_killed_takes_its_session_along_and_the_server_comes_back(world: McpWorld) -> None:
    pids = world.directory / "pids"
    world.configure(all=STDIO | {"args": [*STDIO["args"], "stubborn", str(pids)]})
    await world.tools()
    server, child, daemon = (int(pid) for pid in pids.read_text().split())
    os.kill(psutil.Process(server).ppid(), 9)
    await until(lambda: not alive([server, child]))
    if alive([daemon]):  # it left the session and its parents: beyond our reach, and not the guard's death to expect
        os.kill(daemon, 9)
    await until(lambda: [entry["status"] for entry in world.statuses].count("ready") == 2)


async def test_a_server_that_can_not_start_says_why_and_is_tried_again_when_it_is_wanted(world: McpWorld) -> None:
    marker = world.directory / "tries"
    code = f"open({str(marker)!r}, 'a').write('x'); import sys; sys.exit('no database: planted-secret-1234567')"
    world.configure(all={"command": sys.executable, "args": ["-c", code], "env": {"KEY": "planted-secret-1234567"}})
    tools = await world.tools()
    assert list(tools) == ["mcp_unavailable"]
    assert "all (failed)" in tools["mcp_unavailable"].description
    (entry,) = (await tools["mcp_unavailable"].call({})).content
    assert "no database: [hidden]" in entry["message"]
    assert "code 1" in entry["message"]
    assert marker.read_text() == "x"
    await world.tools()
    await until(lambda: marker.read_text() == "xx")


async def test_a_program_that_is_not_there_is_named(world: McpWorld) -> None:
    world.configure(all={"command": "no-such-program-here"})
    await world.tools()
    (state,) = world.pool.states
    assert state.status == "failed"
    assert "cannot start no-such-program-here: No such file" in str(state.message)


class TestDelays:
    @pytest.fixture
    def timeouts(self) -> ServerTimeouts:
        return ServerTimeouts(start=60, first_delay=0.2, longest_delay=0.8)

    async def test_the_delays_grow_up_to_a_bound(self, world: McpWorld) -> None:
        starts: list[float] = []
        world.configure(all={"command": sys.executable, "args": ["-c", "raise SystemExit(1)"]})
        delays = []
        for _ in range(5):
            await world.tools()
            await until(lambda: [entry["status"] for entry in world.statuses].count("failed") > len(starts))
            starts.append(time.monotonic())
            server = world.pool._servers["all"]
            server.ensure_started()
            await until(lambda: [entry["status"] for entry in world.statuses].count("starting") > len(starts))
            delays.append(time.monotonic() - starts[-1])
        for delay, least in zip(delays, (0.2, 0.4, 0.8, 0.8, 0.8), strict=True):
            assert delay >= least * 0.95
        assert delays[-1] < 1.6


class TestSlowStart:
    @pytest.fixture
    def timeouts(self) -> ServerTimeouts:
        return ServerTimeouts(start=60)

    async def test_a_run_does_not_wait_longer_than_its_bound_for_a_server_that_starts(self, world: McpWorld) -> None:
        gate = world.directory / "gate"
        code = (
            "import os, sys, time\n"
            f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
            f"os.execv(sys.executable, [sys.executable, {str(SCRIPT)!r}])"
        )
        world.configure(slow={"command": sys.executable, "args": ["-c", code]}, all=STDIO)
        world.source._first_wait = 6.0
        tools = await world.tools()
        assert "all__add" in tools  # the others are not held up
        assert "slow (starting)" in tools["mcp_unavailable"].description
        assert "slow__add" not in tools
        gate.touch()
        await until(lambda: world.status("slow") == "ready")
        tools = await world.tools()
        assert "slow__add" in tools
        assert "mcp_unavailable" not in tools


class TestStartBound:
    @pytest.fixture
    def timeouts(self) -> ServerTimeouts:
        return ServerTimeouts(start=3.0)

    async def test_a_server_that_never_answers_is_given_up_and_ended(self, world: McpWorld) -> None:
        before = children()
        world.configure(all={"command": sys.executable, "args": ["-c", "import time; time.sleep(1000)"]})
        await world.tools()
        (state,) = world.pool.states
        assert state.status == "failed"
        assert str(state.message).startswith("It did not start within 3 s.")
        await until(lambda: children() == before)


async def test_garbage_on_stdout_is_passed_over(world: McpWorld) -> None:
    noise = (
        "print('Welcome!'); print('{broken'); print('[1, 2]'); print(); print('\\udce4' if 0 else 'ä', flush=True)\n"
    )
    run = f"os.execv(sys.executable, [sys.executable, {str(SCRIPT)!r}])"
    code = f"import os, sys\n{noise}os.write(1, b'\\xff\\xfe\\n')\n{run}"
    world.configure(all={"command": sys.executable, "args": ["-c", code], "env": {"PYTHONIOENCODING": "utf-8"}})
    assert (await world.call("all__shout", {"text": "fine"})).content == "FINE"


async def test_servers_do_not_get_our_keys(world: McpWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "planted-secret-1234567")
    monkeypatch.setenv("GITHUB_TOKEN", "passed-on-purpose")
    monkeypatch.setenv("MY_REGION", "somewhere-far")
    env = {"TOKEN": "${GITHUB_TOKEN}", "REGION": "${MY_REGION}", "MODE": "${UNSET_HERE:-quiet}"}
    world.configure(all=STDIO | {"env": env})
    output = await world.call("all__environment")
    assert "planted-secret" not in output.content
    assert "\nTOKEN=[hidden]" in output.content  # it has it; nobody else sees it
    assert "REGION=somewhere-far" in output.content
    assert "MODE=quiet" in output.content
    assert "PATH=" in output.content


async def test_a_changed_server_is_restarted_a_removed_one_stopped_the_others_left_alone(world: McpWorld) -> None:
    world.configure(all=STDIO, gone=STDIO, changed=STDIO)
    await world.tools()
    keeps = world.pool._servers["all"]
    world.statuses.clear()
    world.configure(all=STDIO, changed=STDIO | {"env": {"X": "1"}})
    sources = {tool.source for tool in (await world.tools()).values()}
    assert sources == {"mcp:all", "mcp:changed"}
    assert world.pool._servers["all"] is keeps
    await until(lambda: len(world.statuses) >= 4)
    reported = [(entry["server"], entry["status"]) for entry in world.statuses]
    assert ("gone", "stopped") in reported
    assert [status for server, status in reported if server == "changed"][-2:] == ["starting", "ready"]
    assert "all" not in {server for server, _ in reported}


async def test_a_disabled_server_is_shown_and_not_started(world: McpWorld) -> None:
    world.configure(all=STDIO | {"disabled": True})
    assert await world.tools() == {}
    assert world.status() == "disabled"


async def test_a_call_of_a_server_that_is_gone_is_a_failed_output(world: McpWorld) -> None:
    world.configure(all=STDIO)
    tool = (await world.tools())["all__add"]
    world.configure()
    await world.pool.refresh()
    output = await tool.call({"a": 1, "b": 2})
    assert output.failed
    assert output.content["error"] == "tool_unavailable"


async def test_a_restart_starts_it_anew(world: McpWorld) -> None:
    world.configure(all=STDIO)
    before = children()
    await world.tools()
    first = children() - before
    await world.pool.restart("all")
    await until(lambda: world.status() == "ready")
    second = children() - before
    assert second
    assert not first & second


async def test_everything_ends_with_the_pool_and_soon(world: McpWorld) -> None:
    before = children()
    world.configure(
        one=STDIO, two=STDIO, stubborn=STDIO | {"args": [*STDIO["args"], "stubborn", str(world.file) + "p"]}
    )
    await world.tools()
    assert len(children() - before) >= 7  # three guards, three servers, a child
    began = time.monotonic()
    await world.pool.stop()
    assert time.monotonic() - began < 8
    assert children() == before


async def test_everything_ends_with_the_pool_also_while_it_starts(world: McpWorld) -> None:
    before = children()
    world.configure(all={"command": sys.executable, "args": ["-c", "import time; time.sleep(1000)"]})
    world.source._first_wait = 0.5
    await world.tools()
    assert world.status() == "starting"
    await world.pool.stop()
    assert children() == before


async def test_the_event_loop_is_not_held_up_by_a_large_result(world: McpWorld) -> None:
    world.configure(all=STDIO)
    await world.tools()
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - began - 0.005)

    watcher = asyncio.create_task(watch())
    output = await world.call("all__huge", {"megabytes": 60})
    watcher.cancel()
    assert "too large" in output.content
    assert worst < 1.5
