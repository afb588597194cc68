"""``navi acp``: an editor drives sessions of a real server by the official SDK of the Agent Client Protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acp
import pytest
from acp import schema

from tests.store.test_attachments import png
from tests.support.editor import Editor, editor_of, log_of, words
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import ROOT, JupyterServer

from .client import new_session, ok

Start = Callable[..., JupyterServer]
MODEL = "openai-chat:gpt-6.1-sol"


def chosen(kind: str) -> Callable[[Any], str]:
    """Chooses the option of that kind."""
    return lambda options: next(each.option_id for each in options if each.kind == kind)


async def a_change_is_allowed_and_the_session_is_listed_and_loaded(
    server: JupyterServer, provider: ScriptedProvider
) -> None:
    write = Call("write_file", {"path": "notes.md", "content": "one\ntwo\n"})
    provider.restart(Reply("I write it.", reasoning="They want|a file.", calls=(write,)), Reply("It is ", "written."))
    (server.root / "notes.md").write_text("one\n")
    async with editor_of(server, named=False) as editor:
        editor.choose = chosen("allow_once")
        new = await editor.agent.new_session(cwd=str(server.root), mcp_servers=[])
        assert new.modes is not None
        assert "assistant" in [mode.id for mode in new.modes.available_modes]
        answer = await editor.agent.prompt(session_id=new.session_id, prompt=words("write notes.md"))
        await editor.until(lambda: editor.of("available_commands_update"))

        assert answer.stop_reason == "end_turn"
        assert (server.root / "notes.md").read_text() == "one\ntwo\n"
        assert editor.text() == "I write it.It is written."
        assert editor.text("agent_thought_chunk") == "They wanta file."
        assert editor.text("user_message_chunk") == "", "the editor shows its own prompts itself"
        [(question, options)] = editor.asked
        assert [each.kind for each in options] == ["allow_once", "allow_always", "reject_once"]
        [difference] = [each for each in question.content if each.type == "diff"]
        assert (difference.path, difference.old_text, difference.new_text) == (
            str(server.root / "notes.md"),
            "one\n",
            "one\ntwo\n",
        )
        call = editor.call("Wrote notes.md")
        assert (call["status"], call["kind"]) == ("completed", "edit")
        assert call["tool_call_id"] == question.tool_call_id
        assert [each.path for each in call["locations"]] == [str(server.root / "notes.md")]

    # Another start of the editor: the conversation is the server's.
    async with editor_of(server) as editor:
        listed = await editor.agent.list_sessions(cwd=str(server.root))
        assert [each.session_id for each in listed.sessions] == [new.session_id]
        assert (await editor.agent.list_sessions(cwd="/elsewhere")).sessions == []
        await editor.agent.load_session(cwd=str(server.root), session_id=new.session_id, mcp_servers=[])
        assert editor.text("user_message_chunk") == "write notes.md"
        assert editor.text() == "I write it.It is written."
        assert editor.call("Wrote notes.md")["status"] == "completed"
        with pytest.raises(acp.RequestError, match="no session"):
            await editor.agent.load_session(cwd="/", session_id="s_nothing", mcp_servers=[])
    assert "Traceback" not in log_of(server)


async def a_run_is_stopped_and_another_view_answers(server: JupyterServer, provider: ScriptedProvider) -> None:
    held = Reply("One moment", hold_end=True)
    write = Call("write_file", {"path": "a.txt", "content": "a"})
    provider.restart(held, Reply(calls=(write,)), Reply("Written."))
    async with editor_of(server) as editor:
        session_id = (await editor.agent.new_session(cwd="/tmp", mcp_servers=[])).session_id
        turn = asyncio.create_task(editor.agent.prompt(session_id=session_id, prompt=words("wait")))
        await editor.until(lambda: "One moment" in editor.text())
        await editor.agent.cancel(session_id=session_id)
        assert (await turn).stop_reason == "cancelled"
        runs = await asyncio.to_thread(ok, server, "GET", f"sessions/{session_id}/runs")
        assert [run["status"] for run in runs["runs"]] == ["stopped"]

        turn = asyncio.create_task(editor.agent.prompt(session_id=session_id, prompt=words("write")))
        await editor.until(lambda: editor.asked)
        state = await asyncio.to_thread(ok, server, "GET", f"sessions/{session_id}")
        answer = {"type": "answer", "interrupt_id": state["approvals"][0]["id"], "status": "resolved"}
        await asyncio.to_thread(ok, server, "POST", f"sessions/{session_id}/commands", answer)
        assert (await turn).stop_reason == "end_turn"
        assert (server.root / "a.txt").read_text() == "a"
        assert editor.call("Wrote a.txt")["status"] == "completed"


async def questions_are_forms_or_answered_by_the_next_prompt(server: JupyterServer, provider: ScriptedProvider) -> None:
    ask = Call("ask_user", {"question": "Which one?", "choices": ["red", "blue"]})
    provider.restart(Reply(calls=(ask,)), Reply("Done."))
    async with editor_of(server, forms=True) as editor:
        editor.fill = {"answer": "blue"}
        session_id = (await editor.agent.new_session(cwd="/tmp", mcp_servers=[])).session_id
        await editor.agent.prompt(session_id=session_id, prompt=words("ask me"))
        assert [message for message, _ in editor.forms] == ["Which one?"]
        assert "blue" in str(provider.requests[1].body["messages"][-1])

    provider.restart(Reply(calls=(ask,)), Reply("Done."))
    async with editor_of(server) as editor:
        session_id = (await editor.agent.new_session(cwd="/tmp", mcp_servers=[])).session_id
        first = await editor.agent.prompt(session_id=session_id, prompt=words("ask me"))
        assert first.stop_reason == "end_turn"
        assert "Which one?" in editor.text()
        assert "1. red\n2. blue" in editor.text()
        await editor.agent.prompt(session_id=session_id, prompt=words("2"))
        assert editor.text().endswith("Done.")
        assert "blue" in str(provider.requests[1].body["messages"][-1])


async def a_notebook_files_settings_and_other_views(
    server: JupyterServer, provider: ScriptedProvider, folder: Path
) -> None:
    provider.restart(Reply("Seen."))
    (server.root / "data.csv").write_text("a,b\n1,2\n")
    (folder / "own.txt").write_text("mine")
    async with editor_of(server, "--notebook", "work.ipynb", named=False) as editor:
        new = await editor.agent.new_session(cwd=str(server.root), mcp_servers=[])
        state = await asyncio.to_thread(ok, server, "GET", f"sessions/{new.session_id}")
        assert state["notebook_path"] == "work.ipynb"
        blocks = [
            *words("look at "),
            schema.ResourceContentBlock(type="resource_link", name="data.csv", uri=(server.root / "data.csv").as_uri()),
            schema.ResourceContentBlock(type="resource_link", name="own.txt", uri=(folder / "own.txt").as_uri()),
            schema.EmbeddedResourceContentBlock(
                type="resource", resource=schema.TextResourceContents(uri="file:///x/unsaved.py", text="x = 41")
            ),
            schema.ImageContentBlock(type="image", data=base64.b64encode(png(1)).decode(), mime_type="image/png"),
        ]
        await editor.agent.prompt(session_id=new.session_id, prompt=blocks)
        sent = str(provider.requests[0].body)
        assert all(text in sent for text in ("1,2", "mine", "x = 41", "data:image/png;base64"))

        with pytest.raises(acp.RequestError, match="empty"):
            await editor.agent.prompt(session_id=new.session_id, prompt=words("  "))
        await editor.agent.set_session_mode(session_id=new.session_id, mode_id="analyst")
        await editor.until(lambda: editor.of("current_mode_update"))
        assert editor.of("current_mode_update")[0].current_mode_id == "analyst"
        changed = await editor.agent.set_config_option(session_id=new.session_id, config_id="model", value="offline")
        assert changed is not None
        assert [each.current_value for each in changed.config_options] == ["analyst", "offline"]

        prompt = {"type": "prompt", "text": "hello from a page"}
        await asyncio.to_thread(ok, server, "POST", f"sessions/{new.session_id}/commands", prompt)
        await editor.until(lambda: "hello from a page" in editor.text("user_message_chunk"))


def configure_agent(home: Path) -> None:
    """The scripted agent program, known to a server that is started there. It speaks no HTTP to MCP servers, so it
    reaches Navi's tools by the bridge on stdio."""
    agent = {
        "command": sys.executable,
        "args": [str(ROOT / "tests" / "support" / "acp_agent.py"), str(home / "agent")],
        "env": {"ACP_AGENT": json.dumps({"no_http": True})},
    }
    config = home / "config" / "navi"
    config.mkdir(parents=True)
    (config / "acp.json").write_text(json.dumps({"agents": {"scripted": agent}}))


async def an_agent_program_answers_in_the_editor(server: JupyterServer) -> None:
    async with editor_of(server) as editor:
        editor.choose = chosen("allow_always")
        session_id = (await editor.agent.new_session(cwd="/tmp", mcp_servers=[])).session_id
        await editor.agent.set_config_option(session_id=session_id, config_id="model", value="acp:scripted")
        lines = "think hm\nplan first|second\nedit notes.md\nask rm -r x\nsay all of it"
        await editor.agent.prompt(session_id=session_id, prompt=words(lines))

        assert editor.text("agent_thought_chunk") == "hm"
        assert [entry.content for entry in editor.of("plan")[-1].entries] == ["first", "second"]
        call = editor.call("Edit notes.md")
        assert (call["kind"], call["status"], call["locations"][0].line) == ("edit", "completed", 2)
        [difference] = [each for each in call["content"] if each.type == "diff"]
        assert (difference.path, difference.old_text) == (str(server.root / "notes.md"), "old\n")
        [(_, options)] = editor.asked
        assert [each.name for each in options] == ["Yes, once", "Yes, always", "No"], "the program's own"
        assert "chosen: always" in editor.text()
        # What the program offers is there once it has been started.
        await editor.until(lambda: "agent_mode" in [each.id for each in _options(editor)])
        await editor.agent.set_config_option(session_id=session_id, config_id="agent_mode", value="plan")
        await editor.agent.prompt(session_id=session_id, prompt=words("mode"))
        assert editor.text().endswith("mode: plan")
        editor.choose = chosen("allow_once")
        tool = 'mcp write_file {"path": "by-agent.md", "content": "through the bridge"}'
        await editor.agent.prompt(session_id=session_id, prompt=words(tool))
        assert (server.root / "by-agent.md").read_text() == "through the bridge"
        assert editor.call("Wrote by-agent.md")["status"] == "completed", "Navi's own call, asked about in the editor"


def _options(editor: Editor) -> list[Any]:
    return list(editor.of("config_option_update")[-1].config_options)


async def test_an_editor_prompts_allows_stops_answers_lists_and_loads_and_sees_what_other_views_do(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure_agent(tmp_path / "server")  # before it is started: such files are read again after some seconds
    async with ScriptedProvider() as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(lambda: start(env={"NAVI_DEFAULT_MODEL": MODEL}))
        await a_change_is_allowed_and_the_session_is_listed_and_loaded(server, provider)
        await a_run_is_stopped_and_another_view_answers(server, provider)
        await questions_are_forms_or_answered_by_the_next_prompt(server, provider)
        await a_notebook_files_settings_and_other_views(server, provider, tmp_path)
        await an_agent_program_answers_in_the_editor(server)


async def test_a_killed_server_is_waited_for_and_the_run_it_lost_is_reported(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("The first part", hold_end=True), Reply("Whole.")) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(lambda: start(env={"NAVI_DEFAULT_MODEL": MODEL}))
        async with editor_of(server, named=False) as editor:
            session_id = (await editor.agent.new_session(cwd="/tmp", mcp_servers=[])).session_id
            other = await asyncio.to_thread(new_session, server)
            turn = asyncio.create_task(editor.agent.prompt(session_id=session_id, prompt=words("go")))
            await editor.until(lambda: "The first part" in editor.text())
            server.kill9()
            server.token = "another-token-of-the-next-start"
            await editor.until(lambda: "Waiting for it" in editor.text())
            await asyncio.to_thread(server.start)
            with pytest.raises(acp.RequestError, match="server ended while this run was in progress"):
                await turn
            await editor.agent.prompt(session_id=session_id, prompt=words("again"))
            assert editor.text().endswith("Whole.")
            await editor.agent.load_session(cwd="/tmp", session_id=other, mcp_servers=[])
    assert "Traceback" not in log_of(server)
