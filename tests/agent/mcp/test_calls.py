"""Calls of tools of a real MCP server, over each transport and with each generation of the protocol."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.events import ActivitySnapshot
from navi_jupyter.model.runs import Effect, Interrupt, InterruptStatus
from navi_jupyter.ports.agent import Ask, AskUser
from tests.agent.mcp.mcp_world import SCRIPT, SECONDS, STDIO, McpWorld, until


@pytest.fixture(scope="module")
def http_server() -> Iterator[str]:
    """The same server behind streamable HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(SCRIPT), str(port)]) as process:
        try:
            for _ in range(int(SECONDS * 20)):
                with socket.socket() as probe:
                    probe.settimeout(0.5)
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


@pytest.fixture(params=["stdio", "stdio-legacy", "http", "http-legacy"])
def everything(request: pytest.FixtureRequest, http_server: str) -> dict[str, Any]:
    """A server's configuration."""
    transport, _, protocol = request.param.partition("-")
    config: dict[str, Any] = dict(STDIO) if transport == "stdio" else {"type": "http", "url": http_server}
    return config | ({"protocol": protocol} if protocol else {})


async def test_the_tools_of_a_server_are_tools_of_a_run(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything)
    tools = await world.tools()
    assert tools["all__add"].source == "mcp:all"
    assert tools["all__add"].description == "Adds two numbers."
    assert tools["all__add"].parameters["required"] == ["a", "b"]
    assert tools["all__add"].effect is Effect.OUTSIDE, "it says that it only reads; that is no reason to believe it"
    assert tools["all__shout"].effect is Effect.OUTSIDE
    assert [entry["status"] for entry in world.statuses] == ["starting", "ready"]


async def test_a_call_gives_what_the_tool_returns(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything)
    assert (await world.call("all__shout", {"text": "hi"})).content == "HI"
    added = await world.call("all__add", {"a": 1, "b": 2})
    assert (added.content, added.failed) == ("3", False)
    image = await world.call("all__picture")
    assert [(each.media_type, each.content) for each in image.images] == [("image/png", b"\x89PNG not really")]


async def test_what_goes_wrong_in_a_tool_is_a_failed_output(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything)
    failed = await world.call("all__fail")
    assert failed.failed
    assert "on fire" in failed.content
    wrong = await world.call("all__add", {"a": "many"})
    assert wrong.failed
    assert (await world.call("all__shout", {"text": "still there"})).content == "STILL THERE"


async def test_progress_is_an_activity_and_does_not_flood_the_log(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything)
    assert (await world.call("all__count", {"to": 500})).content == "counted to 500"
    reported = [event for event in world.events if isinstance(event, ActivitySnapshot)]
    assert 1 <= len(reported) < 100
    assert {event.activity_type for event in reported} == {"navi.progress"}
    assert reported[0].content["toolCallId"] == "call_r_1"
    assert reported[0].content["total"] == 500
    assert len({event.message_id for event in reported}) == 1


def answering(asked: list[Ask], status: InterruptStatus, payload: Any) -> AskUser:
    async def answer(ask: Ask) -> Interrupt:
        asked.append(ask)
        return Interrupt(
            id="i_1",
            session_id="s_1",
            run_id="r_1",
            kind=ask.kind,
            message=ask.message,
            created_at=now(),
            status=status,
            payload=payload,
        )

    return answer


@pytest.mark.parametrize(
    ("status", "payload", "reported"),
    [
        (InterruptStatus.RESOLVED, {"sure": True}, "deleted a.txt"),
        (InterruptStatus.RESOLVED, {"sure": False}, "kept a.txt"),
        (InterruptStatus.RESOLVED, True, "deleted a.txt"),
        (InterruptStatus.CANCELLED, None, "was decline"),
        (InterruptStatus.EXPIRED, None, "was cancel"),
    ],
)
async def test_a_question_of_a_server_is_asked_in_the_run_whose_call_it_is(
    world: McpWorld, everything: dict[str, Any], status: InterruptStatus, payload: Any, reported: str
) -> None:
    world.configure(all=everything)
    asked: list[Ask] = []
    output = await world.call("all__delete", {"path": "a.txt"}, ask=answering(asked, status, payload))
    assert len(asked) == 1
    assert asked[0].message == "all: Delete a.txt?"
    assert asked[0].tool_call_id == "call_r_1"
    assert asked[0].response_schema is not None
    assert asked[0].response_schema["properties"]["sure"]["type"] == "boolean"
    assert reported in str(output.content).lower()
    assert output.failed == (reported.startswith("was"))


async def test_the_time_that_a_user_takes_to_answer_is_not_the_servers(
    world: McpWorld, everything: dict[str, Any]
) -> None:
    world.configure(all=everything | {"call_timeout": 1.5})
    await world.tools()

    async def slow(ask: Ask) -> Interrupt:
        await asyncio.sleep(2.5)  # longer than a call may take
        return await answering([], InterruptStatus.RESOLVED, {"sure": True})(ask)

    assert (await world.call("all__delete", {"path": "a"}, ask=slow)).content == "deleted a"


async def test_a_call_that_is_cancelled_is_cancelled_at_the_server_and_the_connection_goes_on(
    world: McpWorld, everything: dict[str, Any]
) -> None:
    world.configure(all=everything)
    started, ended = world.directory / "started", world.directory / "ended"
    call = asyncio.create_task(world.call("all__hang", {"started": str(started), "ended": str(ended)}))
    await until(started.exists)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(ended.exists)
    assert [(call, what) for call, (what, _) in world.stop.reports.items()] == [("call_r_1", "mcp")]
    assert (await world.call("all__shout", {"text": "on"})).content == "ON"
    assert [entry["status"] for entry in world.statuses] == ["starting", "ready"]


async def test_a_call_without_an_answer_is_given_up(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything | {"call_timeout": 0.5})
    started, ended = world.directory / "started", world.directory / "ended"
    output = await world.call("all__hang", {"started": str(started), "ended": str(ended)})
    assert output.failed
    assert "0.5 s" in output.content
    await until(ended.exists)


@pytest.mark.parametrize("megabytes", [1, 60])
async def test_a_huge_result_is_survived(world: McpWorld, everything: dict[str, Any], megabytes: int) -> None:
    world.configure(all=everything)
    output = await world.call("all__huge", {"megabytes": megabytes})
    assert len(str(output.content)) < 70_000
    assert output.failed == (megabytes > 16)
    assert "left out" in output.content or "too large" in output.content.lower() or "exceed" in output.content.lower()
    assert (await world.call("all__shout", {"text": "on"})).content == "ON"


async def test_tools_that_come_later_are_there_for_the_next_run(world: McpWorld, everything: dict[str, Any]) -> None:
    world.configure(all=everything)
    name = f"trick_{everything.get('protocol', 'new')}"
    assert f"all__{name}" not in await world.tools()
    await world.call("all__learn", {"name": name})
    await until(lambda: any(tool.name == name for state in world.pool.states for tool in state.tools))
    assert (await world.call(f"all__{name}")).content == f"I know {name}"


async def test_a_server_may_know_the_directory_of_the_jupyter_server(
    world: McpWorld, everything: dict[str, Any]
) -> None:
    world.configure(all=everything)
    assert (await world.call("all__roots")).content == world.directory.as_uri()


async def test_calls_of_several_runs_share_a_server_at_the_same_time(
    world: McpWorld, everything: dict[str, Any]
) -> None:
    world.configure(all=everything)
    outputs = await asyncio.gather(
        *(world.call("all__shout", {"text": f"run {number}"}, run_id=f"r_{number}") for number in range(20))
    )
    assert [output.content for output in outputs] == [f"RUN {number}" for number in range(20)]
    assert [entry["status"] for entry in world.statuses] == ["starting", "ready"]


async def test_over_stdio_with_the_older_protocol_nobody_is_asked_about_anothers_call(world: McpWorld) -> None:
    world.configure(all=STDIO | {"protocol": "legacy"})
    await world.tools()
    one, two = str(world.directory / "one"), str(world.directory / "two")
    asked: dict[str, list[Ask]] = {"r_1": [], "r_2": [], "r_3": [], "r_4": []}
    asks = {run_id: answering(those, InterruptStatus.RESOLVED, {"sure": True}) for run_id, those in asked.items()}
    both = [("r_1", one, two), ("r_2", two, one)]
    outputs = await asyncio.gather(
        *(
            world.call("all__ask_when_both_are_here", {"path": path, "other": other}, run_id=run_id, ask=asks[run_id])
            for run_id, path, other in both
        )
    )
    # The first to ask finds two runs there; the second may be alone by then.
    assert "cancel" in [output.content for output in outputs]
    for run_id, path, _ in both:
        assert all(question.message == f"all: Delete {path}?" for question in asked[run_id])
    # From now on calls come one after the other, so that each can be asked.
    again = [world.call("all__delete", {"path": run_id}, run_id=run_id, ask=asks[run_id]) for run_id in ("r_3", "r_4")]
    assert [output.content for output in await asyncio.gather(*again)] == ["deleted r_3", "deleted r_4"]
    for run_id in ("r_3", "r_4"):
        assert [(each.message, each.tool_call_id) for each in asked[run_id]] == [
            (f"all: Delete {run_id}?", f"call_{run_id}")
        ]
