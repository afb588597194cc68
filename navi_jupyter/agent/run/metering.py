"""What a run has used up so far, its workers included; told to the log after every answer of a model.

So a run that is stopped, fails or is killed keeps its usage: the log has it. Not responsible for limits (``budgets``).
"""

from __future__ import annotations

from collections.abc import Callable

from ...events import Custom, Event
from ...model.sessions import Usage


class Meter:
    """One per run, shared by its agents."""

    def __init__(self, run_id: str, emit: Callable[[Event], None], spent: Usage) -> None:
        self._run_id = run_id
        self._emit = emit
        self.total = spent
        """Of the whole run, what went before a pause included."""

    def add(self, usage: Usage) -> None:
        """Count what one request has used up; nothing is said of one that used up nothing."""
        if usage == Usage():
            return
        self.total += usage
        value = {"run_id": self._run_id, "usage": self.total.wire()}
        self._emit(Custom(name="navi.usage", value=value))
