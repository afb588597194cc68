"""An agent program in a real server: Navi's tools by MCP, a server that is killed, a recall with no view open."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.client import Envelope, log_of, new_session, ok, prompt, until
from tests.support.server import ROOT, JupyterServer

PATIENCE = 60.0


class Story:
    """A session of the scripted agent."""

    def __init__(self, server: JupyterServer) -> None:
        self.server = server
        self.id = new_session(server, model="acp:scripted")

    def send(self, text: str) -> str:
        return str(prompt(self.server, self.id, text)["run_id"])

    def events(self, run_id: str) -> list[Envelope]:
        return [each for each in log_of(self.server, self.id) if each["run_id"] == run_id]

    def text(self, run_id: str) -> str:
        events = [each["event"] for each in self.events(run_id)]
        own = {each["messageId"] for each in events if each.get("role") == "assistant"}
        return "".join(each.get("delta", "") for each in events if each.get("messageId") in own)

    def ended(self, run_id: str) -> dict[str, Any]:
        def look() -> Any:
            run = ok(self.server, "GET", f"sessions/{self.id}/runs/{run_id}")
            return run if run["status"] not in ("queued", "running", "waiting") else None

        return dict(until(look, PATIENCE))

    def approve(self) -> dict[str, Any]:
        """The next question, which is approved."""
        (question,) = until(lambda: ok(self.server, "GET", f"sessions/{self.id}")["approvals"], PATIENCE)
        answer = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": {"approved": True}}
        ok(self.server, "POST", f"sessions/{self.id}/commands", answer)
        return dict(question)


def configure(server: JupyterServer, **how: Any) -> None:
    script, folder = ROOT / "tests" / "support" / "acp_agent.py", server.home / "agent"
    entry = {"command": sys.executable, "args": [str(script), str(folder)], "env": {"ACP_AGENT": json.dumps(how)}}
    file = server.home / "config" / "navi" / "acp.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"agents": {"scripted": entry}}))


@pytest.mark.parametrize("how", [{}, {"no_http": True}], ids=["http", "stdio"])
def test_an_agent_calls_navis_tools_survives_a_killed_server_and_is_woken_by_a_recall(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    server = JupyterServer(tmp_path / "server")
    configure(server, **how)
    with server.start():
        assert ok(server, "POST", "models/test", {"model": "acp:scripted"})["ok"]
        story = Story(server)
        run_id = story.send('mcp write_file {"path": "a.txt", "content": "of the agent"}')
        question = story.approve()
        assert question["tool"] == "write_file"
        assert story.ended(run_id)["status"] == "completed"
        assert (server.root / "a.txt").read_text() == "of the agent"
        calls = [each["event"] for each in story.events(run_id) if each["event"]["type"] == "TOOL_CALL_START"]
        assert [each["toolCallName"] for each in calls] == ["write_file"], "ours alone, not its report of it"
        if how:
            return
        run_id = story.send("child\nwait")
        until(lambda: "waiting" in story.text(run_id), PATIENCE)
        pids = [int(each) for each in story.text(run_id).partition("pids: ")[2].split("w")[0].split()]
        server.kill9()
        until(lambda: not any(map(psutil.pid_exists, pids)), PATIENCE)
        server.start()
        assert story.ended(run_id)["status"] == "interrupted"
        run_id = story.send("history")
        assert story.ended(run_id)["status"] == "completed"
        assert json.loads(story.text(run_id))[0] == "session-2", "its session is continued, and nothing is repeated"
        schedule = {"kind": "once", "in": "1s"}
        ok(server, "POST", "recalls", {"session_id": story.id, "message": "say woken", "schedule": schedule})
        until(lambda: _last(story)["content"] == "woken", PATIENCE)
        ok(server, "POST", "recalls", {"session_id": story.id, "message": "ask rm -r x", "schedule": schedule})

        def failed() -> Any:
            firings = [
                firing
                for recall in ok(server, "GET", f"recalls?session_id={story.id}")["recalls"]
                for firing in ok(server, "GET", f"recalls/{recall['id']}/firings")["firings"]
            ]
            return [each for each in firings if each["status"] == "failed"]

        (firing,) = until(failed, PATIENCE)
        assert "needed approval" in firing["reason"]
        last = psutil.Process(server.pid).children(recursive=True)
    assert not [each for each in last if each.is_running() and "acp_agent" in " ".join(each.cmdline())]


def _last(story: Story) -> dict[str, Any]:
    return dict(ok(story.server, "GET", f"sessions/{story.id}/messages")["messages"][-1])
