"""What an agent program reports, as events of the log: the forms that real programs have, without their processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.acp.translation import TurnTranslation
from navi_jupyter.events import ActivitySnapshot, Event


def turn() -> TurnTranslation:
    return TurnTranslation(
        agent="opencode", run_id="r_1", root=Path("/srv/work"), ours=lambda: (), terminal_text=lambda _: None
    )


def call(status: str, **fields: Any) -> dict[str, Any]:
    return {"sessionUpdate": "tool_call_update", "toolCallId": "c1", "title": "todowrite", "status": status, **fields}


def plans(events: list[Event]) -> list[Any]:
    found = [each for each in events if isinstance(each, ActivitySnapshot) and each.activity_type == "navi.plan"]
    return [each.content["entries"] for each in found]


def test_the_tasks_that_an_agent_keeps_by_a_tool_of_its_own_are_its_plan() -> None:
    tasks = [
        {"content": "Read it", "status": "completed", "priority": "high", "id": "1"},
        {"content": "Fix it", "status": "in_progress", "priority": "x", "id": "2"},
        {"content": "Drop it", "status": "cancelled", "priority": "low", "id": "3"},
    ]
    translation = turn()
    assert plans(translation.apply(call("pending", kind="other", rawInput={}))) == []
    (plan,) = plans(translation.apply(call("in_progress", rawInput={"todos": tasks})))
    assert [(each["content"], each["status"], each["priority"]) for each in plan] == [
        ("Read it", "completed", "high"),
        ("Fix it", "in_progress", "medium"),
        ("Drop it", "pending", "low"),
    ]
    assert plans(translation.apply(call("completed", rawInput={"todos": tasks}))) == [], (
        "the same one is not sent again"
    )


@pytest.mark.parametrize("tasks", [[], "x", None, [1], [{"content": 7}], {"content": "x"}])
@pytest.mark.parametrize("kind", ["other", "edit"])
def test_arguments_that_are_no_tasks_are_no_plan(tasks: Any, kind: str) -> None:
    assert plans(turn().apply(call("completed", kind=kind, rawInput={"todos": tasks}))) == []
