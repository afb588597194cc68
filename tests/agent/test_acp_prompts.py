"""What an agent program is given with a prompt: files as the blocks that it takes, and a command of its own alone."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from navi_jupyter.agent.acp.offer import SessionOffer
from navi_jupyter.agent.acp.prompt import NOTHING_SEEN, SeenRuns, StoredSession, blocks_of, stored_session
from navi_jupyter.agent.acp.translation import TurnTranslation
from navi_jupyter.events import ToolCallResult, ToolCallStart
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.ports.agent import PastTurn
from tests.support.agent_world import Bench

EVERYTHING = {"image": True, "embeddedContext": True}


def offer_of(*commands: Any) -> SessionOffer:
    made = SessionOffer("mine", "Mine")
    assert made.apply({"sessionUpdate": "available_commands_update", "availableCommands": list(commands)})
    return made


async def test_files_go_as_blocks_that_the_agent_takes_else_as_text_or_by_name(bench: Bench) -> None:
    image = await bench.attachments.add(b"png", name="plot.png", media_type="image/png", owner="ada")
    text = await bench.attachments.add(b"a,b\n1,2\n", name="data.csv", media_type="text/csv", owner="ada")
    other = await bench.attachments.add(b"\0\1", name="x.bin", media_type="application/x-thing", owner="ada")
    files = (image, text, other)
    _, context = bench.turn("look", attachments=files)
    blocks = await blocks_of("look", files, None, context, offer_of(), EVERYTHING, before=["[From Navi]", ""])
    assert [each["type"] for each in blocks] == ["text", "text", "image", "resource", "resource"]
    assert [each["text"] for each in blocks[:2]] == ["[From Navi]", "look"]
    assert base64.b64decode(blocks[2]["data"]) == b"png"
    assert blocks[3]["resource"]["text"] == "a,b\n1,2\n"
    assert base64.b64decode(blocks[4]["resource"]["blob"]) == b"\0\1"
    plain = await blocks_of("look", files, None, context, offer_of(), {})
    assert {each["type"] for each in plain} == {"text"}
    assert "plot.png" in plain[1]["text"]
    assert "1,2" in plain[2]["text"]
    assert "x.bin" in plain[3]["text"]


async def test_only_a_command_that_the_agent_has_goes_alone(bench: Bench) -> None:
    offer = offer_of({"name": "review", "description": "x" * 5000}, {"name": "memory show", "input": None}, 7, {})
    _, context = bench.turn("x")
    for command in ("/review all", "/review", "/memory show", "/memory show it"):
        assert await blocks_of(command, (), None, context, offer, {}, before=["[From Navi]"]) == [
            {"type": "text", "text": command}
        ]
    for prompt in ("/etc/hosts is broken", "/reviewer", "/memory", "review", "/"):
        assert len(await blocks_of(prompt, (), None, context, offer, {}, before=["[From Navi]"])) == 2, prompt
    assert len(offer.value().commands[0].description) <= 1000


def test_the_runs_of_an_agents_session_are_known_by_count_and_digest() -> None:
    runs = ["r1", "r2", "r3"]
    assert NOTHING_SEEN.begins([])
    assert NOTHING_SEEN.begins(runs)
    seen = SeenRuns.of(runs[:2])
    assert seen.begins(runs)
    assert not seen.begins(["r1"]), "a turn was taken back"
    assert not seen.begins(["r1", "r4", "r3"]), "another conversation"


def test_calls_of_our_tools_are_left_out_however_agents_name_them_and_no_others() -> None:
    def events_of(**update: Any) -> list[str]:
        translation = TurnTranslation(
            agent="mine", run_id="r", root=Path("/root"), ours=lambda: ["run_code"], terminal_text={}.get
        )
        call = {"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed", **update}
        events = translation.apply(call)
        return [type(each).__name__ for each in events if isinstance(each, ToolCallStart | ToolCallResult)]

    for title in ("navi_run_code", "mcp__navi__run_code", "run_code (navi MCP Server)"):
        assert events_of(title=title, kind="other") == []
    assert events_of(toolCallId="mcp_navi_run_code__1") == [], "as Gemini CLI does, without a title"
    for title in ("navi_rm", "echo navi_run_code", "run_code"):
        assert events_of(title=title, kind="other") == ["ToolCallStart", "ToolCallResult"], title
    assert events_of(title="navi_run_code", kind="execute") == ["ToolCallStart", "ToolCallResult"], "a command"


def test_an_agents_session_is_continued_in_its_own_session_of_navi_and_not_in_a_fork(bench: Bench) -> None:
    turn, _ = bench.turn("go on")
    for owner, continued in ((turn.session.id, True), ("s_origin", False)):
        stored = StoredSession(agent="mine", session="one", owner=owner, seen=SeenRuns.of(["r_1"]))
        past = PastTurn(
            run_id="r_1", status=RunStatus.COMPLETED, prompt="hello", messages=(), conversation=stored.dump()
        )
        found = stored_session(replace(turn, history=(past,)), "mine")
        assert (found is not None) is continued
