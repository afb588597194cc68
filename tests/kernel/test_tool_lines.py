"""Calls of tools in words, in cells and exports. The chat is held by the same file of examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.tools.builtin import builtin_tools
from navi_jupyter.kernel.display.render import run_bundle, run_plain
from navi_jupyter.kernel.display.run_view import RunView
from navi_jupyter.kernel.display.tool_lines import VERBS, Status, status_of, tool_line

EXAMPLES = json.loads((Path(__file__).parent / "tool_lines.json").read_text(encoding="utf-8"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("name", "args", "result", "status", "words"), EXAMPLES, ids=[one[4] for one in EXAMPLES])
def test_a_call_is_said_in_words(name: str, args: Any, result: Any, status: Status, words: str) -> None:
    found = None if result is None else _text(result)
    assert tool_line(name, _text(args), found, status) == words
    if status in ("done", "running", "stopped", "failed"):
        assert status_of(found, is_over=status == "stopped") == status


def test_each_built_in_tool_has_words_of_its_own() -> None:
    assert set(builtin_tools()) <= VERBS


def _envelope(event: dict[str, Any]) -> dict[str, Any]:
    return {"run_id": "r", "event": event}


def _asking() -> RunView:
    view = RunView("r")
    view.apply(_envelope({"type": "RUN_STARTED"}))
    view.apply(_envelope({"type": "TOOL_CALL_START", "toolCallId": "t", "toolCallName": "write_file"}))
    view.apply(_envelope({"type": "TOOL_CALL_ARGS", "toolCallId": "t", "delta": '{"path": "notes.md"}'}))
    view.apply(_settled("open"))
    return view


def _settled(status: str, **fields: Any) -> dict[str, Any]:
    interrupt = {"id": "i", "run_id": "r", "kind": "approval", "tool": "write_file", "tool_call_id": "t"}
    said = {"message": "Navi wants to use write_file.", "status": status, **fields}
    value = {"action": status, "interrupt": interrupt | said}
    return {"run_id": "r", "event": {"type": "CUSTOM", "name": "navi.interrupt", "value": value}}


def test_what_the_user_is_asked_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    view = _asking()
    assert run_plain(view).count("write") == 1, "the call itself is not said while its question is open"
    at = "2026-11-30T08:12:00Z"
    view.apply(_settled("resolved", payload={"approved": True}, answered_by="local", answered_at=at))
    view.apply(_envelope({"type": "TOOL_CALL_RESULT", "toolCallId": "t", "content": "{}"}))
    assert run_plain(view) == "[Wrote notes.md]\n\n[Allowed by you, Mon 30 Nov 09:12]"
    view.apply(_settled("resolved", payload={"approved": False}, answered_by="ada", answered_at=at))
    assert "Denied by ada, Mon 30 Nov 09:12" in run_plain(view)
    view.apply(_settled("resolved", payload={"approved": True}, answered_by="kernel:0123456789", answered_at=at))
    assert "Allowed in a cell, Mon 30 Nov 09:12" in run_plain(view), "and not by the id of a kernel"


def test_no_picture_letters_are_in_what_a_cell_shows() -> None:
    view = _asking()
    view.apply({"run_id": "r", "event": {"type": "SUBAGENT_STARTED", "subagentRunId": "s", "name": "reader"}})
    shown = "".join(map(str, run_bundle(view, live=True).values()))
    assert not any(ord(letter) > 0x2190 for letter in shown), shown
