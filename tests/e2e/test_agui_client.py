"""AG-UI's official JavaScript client, unchanged, on a real server: its own checks of schema and order see every event.

Also the examples of docs/agui.md, as they stand there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.support.needs import needed
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import ROOT, JupyterServer

OPENAI = "openai-chat:gpt-5"
PEERS = ROOT / "tests" / "peers"
CHART = {
    "name": "show_chart",
    "description": "Shows a chart.",
    "parameters": {"type": "object", "properties": {"column": {"type": "string"}}},
}
PATIENCE = 90.0


@pytest.fixture
def node() -> str:
    path = shutil.which("node")
    installed = (PEERS / "node_modules" / "@ag-ui" / "client").is_dir()
    needed(path and installed, "@ag-ui/client and Node (cd tests/peers && npm ci --ignore-scripts)")
    return path or ""


class Browser:
    """Agents of ``@ag-ui/client`` in one program of Node."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self._came = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._came:
                found = json.loads(line)
                self._lines.append(found)
                if "warning" in found:
                    self.warnings.append(found["warning"])
                self._came.notify_all()

    async def step(self, **step: Any) -> int:
        """Begin a step; a mark of what has come until then."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(step)}\n".encode())
        await self._process.stdin.drain()
        return len(self._lines)

    async def until(self, mark: int, found: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The lines since a mark, once one of them is such."""
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: any(map(found, self._lines[mark:])))
        return self._lines[mark:]

    async def ended(self, name: str, mark: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The events of an agent's run, and what the agent holds in the end."""
        lines = await self.until(mark, lambda line: line.get("name") == name and "over" in line)
        over = next(line["over"] for line in lines if line.get("name") == name and "over" in line)
        return [line["event"] for line in lines if line.get("name") == name and "event" in line], over

    async def run(
        self, name: str, thread: str, *messages: dict[str, Any], **parameters: Any
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One run of an agent, to its end."""
        mark = await self.begin(name, thread, *messages, **parameters)
        return await self.ended(name, mark)

    async def begin(self, name: str, thread: str, *messages: dict[str, Any], **parameters: Any) -> int:
        parameters.setdefault("forwardedProps", {"model": OPENAI})
        return await self.step(do="run", name=name, thread=thread, messages=messages, parameters=parameters)


@asynccontextmanager
async def browser(node: str, server: JupyterServer) -> AsyncIterator[Browser]:
    env = {**os.environ, "NAVI_AGUI": f"{server.url}navi/api/agui", "NAVI_TOKEN": server.token}
    process = await asyncio.create_subprocess_exec(
        node,
        str(PEERS / "agui.mjs"),
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    try:
        yield Browser(process)
    finally:
        process.kill()
        await process.wait()


def user(text: str, message_id: str) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "content": text}


def said(over: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["role"], one.get("content", "")) for one in over["messages"] if one["role"] in ("user", "assistant")]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def test_the_official_client_prompts_answers_stops_comes_back_and_shares_a_thread(
    start: Start, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their ends are no hexadecimal digits: such may be the beginning of a secret, and are held back.
    held = Reply("It begins", " so:", hold_end=True, reasoning="I wonder.")
    stopped = Reply("Never", " ending:", hold_end=True)
    write = Call("write_file", {"path": "a.txt", "content": "words"}, id="c3")
    script = (
        Reply("Hello", ".", reasoning="They greet."),
        Reply(calls=(Call("list_files", {"path": "."}, id="c1"),)),
        Reply("Nothing is there."),
        Reply("A chart:", calls=(Call("show_chart", {"column": "x"}, id="c2"),)),
        Reply("You see it."),
        Reply(calls=(write,)),
        Reply("Written."),
        held,
        stopped,
        Reply("For both."),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)
        async with browser(node, server) as page:
            events, over = await page.run("a", "t", user("Hi", "u1"))
            assert over["error"] is None, over
            assert {"REASONING_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"} <= set(kinds(events))
            assert said(over) == [("user", "Hi"), ("assistant", "Hello.")]
            session_id = events[0]["metadata"]["navi"]["session_id"]

            # A tool of Navi's own, and one of the client's.
            events, over = await page.run("a", "t", user("What is here?", "u2"))
            assert "TOOL_CALL_RESULT" in kinds(events)
            assert said(over)[-1] == ("assistant", "Nothing is there.")
            events, over = await page.run("a", "t", user("Draw x", "u3"), tools=[CHART])
            assert events[-1]["outcome"]["type"] == "success"
            (pending,) = events[-1]["outcome"]["pendingToolCallIds"]
            result = {"id": "r1", "role": "tool", "toolCallId": pending, "content": "drawn"}
            events, over = await page.run("a", "t", result, tools=[CHART])
            assert over["error"] is None, over
            assert said(over)[-1] == ("assistant", "You see it.")
            results = [one["toolCallId"] for one in over["messages"] if one["role"] == "tool"]
            assert results.count(pending) == 1

            # An interrupt; the client itself refuses to go on without an answer.
            events, over = await page.run("a", "t", user("Write it", "u4"))
            assert [one["id"] for one in over["interrupts"]] == [
                one["id"] for one in events[-1]["outcome"]["interrupts"]
            ]
            resume = [{"interruptId": over["interrupts"][0]["id"], "status": "resolved", "payload": {"approved": True}}]
            assert not (server.root / "a.txt").exists()
            events, over = await page.run("a", "t", resume=resume)
            assert over["error"] is None, over
            assert over["interrupts"] == []
            assert said(over)[-1] == ("assistant", "Written.")
            assert (server.root / "a.txt").read_text() == "words"

            # The connection breaks in mid-answer: the run goes on, the client comes back, another one comes besides.
            mark = await page.begin("a", "t", user("Think", "u5"))
            await page.until(mark, lambda line: "so:" in line.get("event", {}).get("delta", ""))
            await page.step(do="abort", name="a")
            await page.ended("a", mark)
            run = (await asyncio.to_thread(server.get, f"navi/api/sessions/{session_id}"))["run"]
            assert run["status"] == "running"
            back = await page.begin("a", "t")
            other = await page.begin("b", session_id)
            for name, began in (("a", back), ("b", other)):
                await page.until(began, lambda line, name=name: line.get("name") == name and "event" in line)
            held.release.set()
            for name, began in (("a", back), ("b", other)):
                events, over = await page.ended(name, began)
                assert over["error"] is None, over
                assert events[-1]["outcome"] == {"type": "success"}
                assert said(over)[-2:] == [("user", "Think"), ("assistant", "It begins so:")]
            thoughts = [one["content"] for one in over["messages"] if one["role"] == "reasoning"]
            assert thoughts.count("I wonder.") <= 1

            # A stop is an outcome for everybody.
            mark = await page.begin("b", session_id, user("On and on", "u6"))
            await page.until(mark, lambda line: "ending:" in line.get("event", {}).get("delta", ""))
            watching = await page.begin("a", "t")
            await page.until(watching, lambda line: line.get("name") == "a" and "event" in line)
            stop = {"type": "stop"}
            await asyncio.to_thread(server.request, "POST", f"navi/api/sessions/{session_id}/commands", stop)
            for name, began in (("b", mark), ("a", watching)):
                events, over = await page.ended(name, began)
                assert events[-1]["outcome"] == {"type": "cancelled"}, name
                assert over["error"] is None

            # Two prompts at once on one thread: each client gets the answer to its own.
            one = await page.begin("a", "t", user("First?", "u7"))
            two = await page.begin("b", session_id, user("Second?", "u8"))
            for name, began in (("a", one), ("b", two)):
                events, over = await page.ended(name, began)
                assert over["error"] is None, over
                assert "For both." in [text for _, text in said(over)]
            problems = [one for one in page.warnings if "abort" not in one.lower()]
            assert problems == []


async def test_the_examples_of_the_page_work_as_they_stand(
    start: Start, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "agui.md").read_text()
    server = await asyncio.to_thread(start)
    monkeypatch.setenv("NAVI_URL", server.url)
    monkeypatch.setenv("NAVI_TOKEN", server.token)
    script = PEERS / "node_modules" / f"example-{os.getpid()}.mjs"  # where Node finds the client
    script.write_text(_block(text, "javascript"))
    (tmp_path / "agui.py").write_text(_block(text, "python"))
    try:
        for command in ((node, str(script)), (sys.executable, str(tmp_path / "agui.py"))):
            process = await asyncio.create_subprocess_exec(
                *command, "What is in this folder?", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
            assert process.returncode == 0, errors.decode()
            assert len(output.decode()) > 40, output
    finally:
        script.unlink()


def _block(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]
