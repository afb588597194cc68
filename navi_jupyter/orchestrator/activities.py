"""Tool progress and outputs of a run, folded from the log's snapshots and JSON Patches. Pure."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from ..events import ActivityDelta, ActivitySnapshot
from ..output_text import patched


@dataclass(slots=True)
class _Activity:
    run_id: str | None
    event: ActivitySnapshot  # the last whole state
    content: dict[str, Any]  # its present state; a copy, changed in place by patches


class Activities:
    """The present state of each activity of a fold."""

    def __init__(self) -> None:
        self._known: dict[str, _Activity] = {}

    def apply(self, event: ActivitySnapshot | ActivityDelta, run_id: str | None) -> None:
        """Take the next event. A patch that does not fit changes nothing, as far as it does not fit."""
        known = self._known.get(event.message_id)
        if isinstance(event, ActivityDelta):
            if known is not None:
                known.content = patched(known.content, event.patch)
        elif known is None or event.replace is not False:
            self._known[event.message_id] = _Activity(run_id, event, copy.deepcopy(event.content))

    def texts(self) -> list[tuple[str, str | None, str]]:
        """Id, run and JSON of each: ``{"activityType","content"}``, and ``subagentRunId`` where a subagent had it."""
        return [
            (
                key,
                activity.run_id,
                json.dumps(
                    {
                        "activityType": activity.event.activity_type,
                        "content": activity.content,
                        **({"subagentRunId": subagent} if (subagent := activity.event.subagent_run_id) else {}),
                    },
                    ensure_ascii=False,
                ),
            )
            for key, activity in self._known.items()
        ]

    def snapshot_events(self, run_id: str | None) -> list[ActivitySnapshot]:
        """One snapshot for each activity of a run, as it is now."""
        return [
            activity.event.model_copy(update={"content": copy.deepcopy(activity.content), "replace": None})
            for activity in self._known.values()
            if activity.run_id == run_id
        ]
