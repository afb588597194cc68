"""Real agents in a real server, as their user has them: what they answer, do, and become when things end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Envelope, log_of, new_session, ok, prompt, until
from tests.kernel.test_control import provider_of
from tests.support.kernels import NotebookKernel
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .conftest import Peer, install, processes_of

PATIENCE = 120.0  # seconds: an agent takes ten to start on a busy machine


class Story:
    """A session of a server that an agent answers."""

    def __init__(self, server: JupyterServer, agent: Peer, provider: ScriptedProvider) -> None:
        self.server = server
        self.agent = agent
        self.provider = provider
        self.kernel = NotebookKernel(server, "work.ipynb")
        self.id = new_session(server, notebook_path="work.ipynb", kernel_id=self.kernel.id, model=f"acp:{agent.name}")

    def send(self, text: str, *script: Reply) -> str:
        """Prompt; the id of the run."""
        self.provider.restart(*script)
        return str(prompt(self.server, self.id, text)["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(ok(self.server, "GET", f"sessions/{self.id}/runs/{run_id}"))

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run once it has ended."""
        over = ("completed", "stopped", "failed", "timed_out", "interrupted")

        def look() -> Any:
            run = self.run(run_id)
            return run if run["status"] in over else None

        return dict(until(look, PATIENCE))

    def completed(self, run_id: str) -> str:
        """What a run has answered; it must have completed."""
        run = self.ended(run_id)
        assert run["status"] == "completed", (run, self.server.log_tail())
        return self.text(run_id)

    def events(self, run_id: str, kind: str) -> list[Envelope]:
        return [
            each for each in log_of(self.server, self.id) if each["run_id"] == run_id and each["event"]["type"] == kind
        ]

    def text(self, run_id: str) -> str:
        """The answer so far."""
        starts = {
            each["event"]["messageId"]
            for each in self.events(run_id, "TEXT_MESSAGE_START")
            if each["event"].get("role") == "assistant"
        }
        content = self.events(run_id, "TEXT_MESSAGE_CONTENT")
        return "".join(each["event"]["delta"] for each in content if each["event"]["messageId"] in starts)

    def question(self) -> dict[str, Any]:
        """The open question, once there is one."""

        def look() -> Any:
            return ok(self.server, "GET", f"sessions/{self.id}")["approvals"]

        (asked,) = until(look, PATIENCE)
        return dict(asked)

    def answer(self, question: dict[str, Any], **fields: Any) -> None:
        body = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", **fields}
        ok(self.server, "POST", f"sessions/{self.id}/commands", body)

    def asks_to_run(self, code: str) -> Reply:
        """The agent's model calls Navi's tool."""
        return Reply("Calling. ", calls=(Call(self.agent.tool("run_code"), {"code": code}, id="call_1"),))


@pytest.mark.timeout(600)  # five starts of an agent and two of a server, on a machine that does other things as well
def test_an_agent_answers_uses_the_kernel_is_stopped_survives_kill_9_and_is_woken(agent: Peer, tmp_path: Path) -> None:
    with provider_of(Reply("unscripted")) as provider:
        server = JupyterServer(tmp_path / "server")
        install(agent, server, provider)
        with server.start():
            story = Story(server, agent, provider)
            answers(story)
            calls_the_kernel(story)
            edits_a_file(story)
            is_stopped_in_mid_tool(story)
            goes_on_after_kill_9(story)
            is_woken_by_a_recall(story)
        until(lambda: not processes_of(server), 30)  # nothing is left running


def answers(story: Story) -> None:
    models = ok(story.server, "GET", "models")["models"]
    (row,) = [each for each in models if each["name"] == f"acp:{story.agent.name}"]
    assert row["available"], row
    run_id = story.send("say hello", Reply("Hello ", "there."))
    assert story.completed(run_id) == "Hello there."
    usage = story.run(run_id)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (11, 7)


def calls_the_kernel(story: Story) -> None:
    story.kernel.ok("x = 41")
    code = "print('the sum is', x + 1)"
    run_id = story.send("add one", story.asks_to_run(code), Reply("It is 42."))
    question = story.question()
    assert (question["tool"], question["run_id"]) == ("run_code", run_id)
    assert any(detail["text"] == code for detail in question["details"]), "Navi's own question, with the whole code"
    story.answer(question, payload={"approved": True})
    assert story.completed(run_id) == "Calling. It is 42."
    (call,) = story.events(run_id, "TOOL_CALL_START")  # ours alone, not the agent's report of the same call
    assert call["event"]["toolCallName"] == "run_code"
    (result,) = story.events(run_id, "TOOL_CALL_RESULT")
    assert "the sum is 42" in result["event"]["content"]
    assert "the sum is 42" in json.dumps(story.provider.requests[-1].body), "its model reads the result"


def edits_a_file(story: Story) -> None:
    """By a tool of its own, of which it asks with its own options; Navi asks not once more when the file is written."""
    path = str(story.server.root / "made.txt")
    run_id = story.send("make a file", story.agent.writes(path, "made\n"), Reply("Made."))
    question = story.question()
    kinds = {option["kind"]: option["id"] for option in question["options"]}
    assert {"allow_once", "allow_always", "reject_once"} <= kinds.keys()
    assert (question["tool"], question["source"]) == ("write_file", f"acp:{story.agent.name}")
    assert "made.txt" in json.dumps(question["details"])
    story.answer(question, option=kinds["allow_once"])
    assert story.completed(run_id).endswith("Made.")
    assert (story.server.root / "made.txt").read_text() == "made\n"
    (call,) = story.events(run_id, "TOOL_CALL_START")
    assert call["event"]["toolCallName"] == "acp__edit"
    assert call["event"]["toolCallId"] == question["tool_call_id"], "the question is about that call"
    assert len(story.events(run_id, "TOOL_CALL_RESULT")) == 1


def is_stopped_in_mid_tool(story: Story) -> None:
    code = "open('began', 'w').close()\nimport time\ntime.sleep(600)"
    run_id = story.send("wait long", story.asks_to_run(code), Reply("Done."))
    story.answer(story.question(), payload={"approved": True})
    until((story.server.root / "began").exists, PATIENCE)
    ok(story.server, "POST", f"sessions/{story.id}/commands", {"type": "stop", "run_id": run_id})
    assert story.ended(run_id)["status"] == "stopped"
    assert story.kernel.ok("print(x)").stdout == "41\n", "the cell was interrupted, the kernel lives"


def goes_on_after_kill_9(story: Story) -> None:
    run_id = story.send("be slow", Reply("Working", hold_end=True))
    until(lambda: "Working" in story.text(run_id), PATIENCE)
    assert processes_of(story.server)
    story.server.kill9()
    until(lambda: not processes_of(story.server), 30)
    story.server.start()
    assert story.ended(run_id)["status"] == "interrupted"
    assert story.text(run_id) == "Working"
    again = story.send("once more", Reply("Continued."))
    assert story.completed(again) == "Continued."
    body = json.dumps(story.provider.requests[-1].body)
    assert "say hello" in body, "it has the conversation: its own session, or as text"
    assert "once more" in body


def is_woken_by_a_recall(story: Story) -> None:
    story.provider.restart(Reply("Awake."))
    body = {"session_id": story.id, "message": "look again", "schedule": {"kind": "once", "in": "200ms"}}
    recall = ok(story.server, "POST", "recalls", body)["id"]
    until(lambda: ok(story.server, "GET", f"recalls/{recall}")["status"] == "fired", PATIENCE)
    (firing,) = ok(story.server, "GET", f"recalls/{recall}/firings")["firings"]
    assert story.completed(firing["run_id"]) == "Awake."
    assert "look again" in json.dumps(story.provider.requests[-1].body)
