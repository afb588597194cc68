"""How many runs may be in progress at once in this process, and who comes next. First come, first served."""

from __future__ import annotations

from collections.abc import Callable


class Slots:
    """Counts free places. One that becomes free is kept for the session that has waited longest, which is told."""

    def __init__(self, limit: int, poke: Callable[[str], None]) -> None:
        self._free = limit
        self._poke = poke
        self._waiting: dict[str, None] = {}
        """Sessions in the order in which they came. Empty whenever a place is free."""
        self._kept: set[str] = set()
        """Sessions that were told, and have not taken their place yet."""

    def take(self, session_id: str) -> bool:
        """A place, if one is free or kept for this session."""
        if session_id in self._kept:
            self._kept.remove(session_id)
            return True
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def expects(self, session_id: str) -> bool:
        """Whether this session waits, or has a place kept."""
        return session_id in self._waiting or session_id in self._kept

    def give_back(self) -> None:
        """A place is free again."""
        self._free += 1
        self._call_next()

    def wait(self, session_id: str) -> None:
        """Keep a place for this session when there is one, and poke it then (at once, if one is free)."""
        if session_id not in self._kept:
            self._waiting[session_id] = None
            self._call_next()

    def renounce(self, session_id: str) -> None:
        """This session does not wait any more; what was kept for it is the next one's."""
        self._waiting.pop(session_id, None)
        if session_id in self._kept:
            self._kept.remove(session_id)
            self.give_back()

    def _call_next(self) -> None:
        if self._free > 0 and self._waiting:
            session_id = next(iter(self._waiting))
            del self._waiting[session_id]
            self._free -= 1
            self._kept.add(session_id)
            self._poke(session_id)
