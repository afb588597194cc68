"""A scripted model does a realistic analysis in a real kernel, and asks before it touches anything."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.e2e import analysis
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .client import new_session, ok

Start = Callable[..., JupyterServer]
MODEL = "openai-chat:gpt-6.1-sol"


def events_until_the_end(
    server: JupyterServer, session_id: str, accepted: Mapping[str, Any], answer: Callable[[dict[str, Any]], None]
) -> Iterator[dict[str, Any]]:
    """The envelopes of a run to its last one; ``answer`` is called with each question."""
    cursor = accepted["seq"]
    while True:
        page = ok(server, "GET", f"sessions/{session_id}/events?after={cursor}&wait=20")
        for one in page["events"]:
            cursor = one["seq"]
            event = one["event"]
            yield one
            if event.get("name") == "navi.interrupt" and event["value"]["action"] == "opened":
                answer(event["value"]["interrupt"])
            if one["run_id"] == accepted["run_id"]:
                if event["type"] == "RUN_ERROR":
                    raise AssertionError(event)
                if event["type"] == "RUN_FINISHED" and event["outcome"]["type"] != "interrupt":
                    return


def ask(server: JupyterServer, session_id: str, text: str, answer: Callable[[dict[str, Any]], None]) -> list[Any]:
    accepted = ok(server, "POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": text})
    return list(events_until_the_end(server, session_id, accepted, answer))


def approver(server: JupyterServer, session_id: str, asked: list[str]) -> Callable[[dict[str, Any]], None]:
    """Says yes: to cells each time, to code once for the session."""

    def answer(interrupt: dict[str, Any]) -> None:
        asked.append(interrupt["tool"])
        payload = {"approved": True} | ({"always": "session"} if interrupt["tool"] == "run_code" else {})
        command = {"type": "answer", "interrupt_id": interrupt["id"], "status": "resolved", "payload": payload}
        ok(server, "POST", f"sessions/{session_id}/commands", command)

    return answer


async def test_a_csv_is_loaded_inspected_plotted_its_odd_row_found_and_a_cell_fixed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*analysis.script()) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)
        analysis.write_files(server.root)

        def work() -> tuple[list[str], list[Any]]:
            session_id = new_session(server, notebook_path="sensors.ipynb", model=MODEL, profile="analyst")
            asked: list[str] = []
            log = ask(server, session_id, "what is odd in sensors.csv?", approver(server, session_id, asked))
            return asked, log

        asked, log = await asyncio.to_thread(work)
        bodies = [request.body for request in provider.requests]

    assert asked == ["run_cell", "run_code", "edit_cell", "run_cell"]
    last = bodies[-1]
    assert "id,temperature" in analysis.told(last, "c2")
    assert "40" in analysis.told(last, "c3")
    assert "DataFrame" in analysis.told(last, "c4")
    assert "(40, 2)" in analysis.told(last, "c4") or "[40, 2]" in analysis.told(last, "c4")
    assert "2150" in analysis.told(last, "c7")
    assert "temprature" in analysis.told(last, "c8")
    images = [part for body in bodies for message in body["messages"] for part in parts_of(message, "image_url")]
    assert images, "the model saw the plot"

    shown = [one["event"] for one in log if one["event"].get("activityType") == "navi.output"]
    plots = json.dumps(shown)
    assert '"image/png": {"attachment": "a_' in plots
    assert "iVBOR" not in plots, "pictures are referred to, not repeated in every log"
    assert log[-1]["event"]["usage"][0]["inputTokens"] > 0

    notebook = nbformat.read(server.root / "sensors.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if cell.id == "mean"] == [analysis.FIXED]
    assert "22." in analysis.outputs_of(server.root, "mean")
    assert "40" in analysis.outputs_of(server.root, "load")


def parts_of(message: Mapping[str, Any], kind: str) -> list[Any]:
    content = message.get("content")
    return [part for part in content if part.get("type") == kind] if isinstance(content, list) else []


MCP_SERVER = '''
import csv
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("tables", log_level="ERROR")

@server.tool(annotations=ToolAnnotations(read_only_hint=True), structured_output=False)
def describe(path: str) -> str:
    """Columns, and how many rows a CSV has."""
    rows = list(csv.DictReader(open(path)))
    return f"{len(rows)} rows; columns: {', '.join(rows[0])}"

@server.tool(structured_output=False)
def outliers(path: str, column: str, above: float) -> str:
    """Rows whose value is above a bound."""
    return "\\n".join(str(row) for row in csv.DictReader(open(path)) if float(row[column]) > above)

server.run()
'''


async def test_the_same_through_a_real_mcp_server(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        Reply(calls=(Call("tables__describe", {"path": "CSV"}, id="c1"),)),
        Reply(calls=(Call("tables__outliers", {"path": "CSV", "column": "temperature", "above": 100}, id="c2"),)),
        Reply(f"Row {analysis.ODD_ROW} is the odd one."),
    )
    config = tmp_path / "server" / "config" / "navi" / "mcp.json"
    config.parent.mkdir(parents=True)
    program = tmp_path / "tables.py"
    program.write_text(MCP_SERVER)
    entry = {"command": sys.executable, "args": [str(program)], "trust_hints": True}
    config.write_text(json.dumps({"mcpServers": {"tables": entry}}))
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)
        analysis.write_files(server.root)
        for reply in script:
            for call in reply.calls:
                call.args["path"] = str(server.root / "sensors.csv")

        def work() -> list[str]:
            session_id = new_session(server, notebook_path="sensors.ipynb", model=MODEL, profile="analyst")
            asked: list[str] = []
            ask(server, session_id, "what is odd?", approver(server, session_id, asked))
            return asked

        asked = await asyncio.to_thread(work)
        last = provider.requests[-1].body
    assert asked == ["tables__outliers"], analysis.told(last, "c1")
    assert "40 rows; columns: id, temperature" in analysis.told(last, "c1")
    assert "2150.0" in analysis.told(last, "c2")
