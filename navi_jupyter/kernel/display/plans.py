"""Plans of agents as text: the activity ``navi.plan``, read and written as a list with states. Pure.

An agent program may say what it wants to do, step by step (Agent Client Protocol, ``plan``). Not responsible for the
chat's list of the same (``js/src/view/agents/plan.ts``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...markdown_text import literal
from ...visible_text import marked_line
from .markdown import inert

ACTIVITY = "navi.plan"
MAX_ENTRIES = 200  # more are of no use to a reader
_STATES = {"pending": "", "in_progress": "in progress", "completed": "done"}


class PlanEntry(NamedTuple):
    """One step: what is to be done, and how far it is, which is empty for what has not begun."""

    content: str
    state: str

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do of it."""
        return self.state == _STATES["completed"]


def plan_entries(content: Mapping[str, Any]) -> tuple[PlanEntry, ...]:
    """The entries in the content of the activity, as far as they can be read."""
    entries = content.get("entries")
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(_entry(entry) for entry in found[:MAX_ENTRIES])


def _entry(entry: Mapping[str, Any]) -> PlanEntry:
    content = " ".join(str(entry.get("content") or "").split())
    return PlanEntry(marked_line(content), _STATES.get(str(entry.get("status")), ""))


def plan_plain(entries: Sequence[PlanEntry]) -> str:
    """A line each: ``[x] Read the data``."""
    return "\n".join(["Plan:", *(f"[{'x' if entry.done else ' '}] {_words(entry)}" for entry in entries)])


def plan_markdown(entries: Sequence[PlanEntry]) -> str:
    """A task list; the texts are literal."""
    return "\n".join(
        ["Plan:", "", *(f"- [{'x' if entry.done else ' '}] {literal(_words(entry))}" for entry in entries)]
    )


def plan_html(entries: Sequence[PlanEntry]) -> str:
    """A list, with the state of each entry in words."""
    items = "".join(f"<li>{inert(entry.content)}{_state_html(entry)}</li>" for entry in entries)
    return f"<div><small>Plan</small><ul>{items}</ul></div>"


def _words(entry: PlanEntry) -> str:
    return entry.content if entry.done or not entry.state else f"{entry.content} ({entry.state})"


def _state_html(entry: PlanEntry) -> str:
    return f" <em>({entry.state})</em>" if entry.state else ""
