"""What goes on in a run besides messages, as the log tells it: whole states and JSON Patches. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..events import ActivityDelta, ActivitySnapshot


@dataclass(slots=True)
class _Activity:
    run_id: str | None
    event: ActivitySnapshot
    """How it was opened last."""
    content: dict[str, Any]
    """What it is now. Ours alone."""


class Activities:
    """The present state of each activity of a fold."""

    def __init__(self) -> None:
        self._known: dict[str, _Activity] = {}

    def apply(self, event: ActivitySnapshot | ActivityDelta, run_id: str | None) -> None:
        """Take the next event. A patch that does not fit changes nothing, as far as it does not fit."""
        known = self._known.get(event.message_id)
        if isinstance(event, ActivityDelta):
            if known is not None:
                patch(known.content, event.patch)
        elif known is None or event.replace is not False:
            self._known[event.message_id] = _Activity(run_id, event, copy.deepcopy(event.content))

    def texts(self) -> list[tuple[str, str | None, str]]:
        """Id, run and JSON of each: ``{"activityType","content"}``, and ``subagentRunId`` where a worker had it."""
        return [
            (
                key,
                activity.run_id,
                json.dumps(
                    {
                        "activityType": activity.event.activity_type,
                        "content": activity.content,
                        **({"subagentRunId": worker} if (worker := activity.event.subagent_run_id) else {}),
                    },
                    ensure_ascii=False,
                ),
            )
            for key, activity in self._known.items()
        ]

    def retell(self, run_id: str | None) -> list[ActivitySnapshot]:
        """One snapshot for each activity of a run, as it is now."""
        return [
            activity.event.model_copy(update={"content": copy.deepcopy(activity.content), "replace": None})
            for activity in self._known.values()
            if activity.run_id == run_id
        ]


def patch(document: Any, operations: Iterable[dict[str, Any]]) -> None:
    """Apply ``add`` and ``replace`` of RFC 6902 in place; others, and those that do not fit, are left out."""
    for operation in operations:
        try:
            _change(document, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            continue


def _change(document: Any, operation: dict[str, Any]) -> None:
    name, value = operation["op"], copy.deepcopy(operation["value"])
    *path, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    target = document
    for step in path:
        target = target[int(step)] if isinstance(target, list) else target[step]
    if isinstance(target, list):
        if name == "add":
            target.insert(_place(target, last), value)
        elif name == "replace":
            target[int(last)] = value
    elif name == "add" or (name == "replace" and last in target):
        target[last] = value


def _place(target: list[Any], step: str) -> int:
    place = len(target) if step == "-" else int(step)
    if not 0 <= place <= len(target):
        raise IndexError(step)
    return place
