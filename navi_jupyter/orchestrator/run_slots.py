"""The limit of runs that are in progress at once in this process, and whose turn is next.

A user who waits comes before a recall, and some slots are never given to recalls, so that a burst of these does not
block people; yet of four slots that become free one goes to a recall, so that they are not starved either. Among
equals the owner with the fewest slots comes first, then the request that has waited longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

INTERACTIVE_IN_A_ROW = 3  # so many interactive requests in a row get a slot although a background one could have it


def reserved(limit: int) -> int:
    """How many slots of ``limit`` are never given to background requests."""
    return max(1, limit // 8) if limit > 1 else 0


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A session that wants a slot: it has one at most."""

    session_id: str
    owner: str
    background: bool = False  # a recall asked for it: no user waits for it


class RunSlots:
    """Counts free slots. One that becomes free is kept for the session whose turn it is, and that is poked."""

    def __init__(self, limit: int, poke: Callable[[str], None]) -> None:
        self._free = limit
        self._free_for_background = limit - reserved(limit)
        self._poke = poke
        self._lines = {False: _Line(), True: _Line()}
        """By ``background``. No request in them could be given a slot: one that can be is called at once."""
        self._kept: dict[str, SlotRequest] = {}  # slots of sessions that were poked, and have not taken them yet
        self._taken: dict[str, SlotRequest] = {}
        self._interactive_in_a_row = 0

    def take(self, request: SlotRequest) -> bool:
        """A slot, if one is kept for this session, or free. What waits already comes first: see :meth:`wait`."""
        session_id = request.session_id
        if session_id in self._kept:
            self._taken[session_id] = self._kept.pop(session_id)
            return True
        if not self._has_room(background=request.background):
            return False
        self._occupy(request)
        self._taken[session_id] = request
        return True

    def waits(self, session_id: str) -> bool:
        """Whether this session waits for a slot; it is poked when its turn comes."""
        return any(session_id in line for line in self._lines.values())

    @property
    def waiting(self) -> int:
        """How many sessions wait for a slot."""
        return sum(map(len, self._lines.values()))

    def kept(self, session_id: str) -> SlotRequest | None:
        """The request that a slot is kept for, in this session."""
        return self._kept.get(session_id)

    def expects(self, session_id: str) -> bool:
        """Whether this session waits, or has a slot kept."""
        return session_id in self._kept or self.waits(session_id)

    def give_back(self, session_id: str) -> None:
        """Free this session's slot. Without effect when it has none."""
        request = self._taken.pop(session_id, None)
        if request is not None:
            self._vacate(request)

    def wait(self, request: SlotRequest) -> None:
        """Keep a slot for this session when it is its turn, and poke it then (at once, if one is free).

        A session that waits in the background and is interactive now changes to the other line.
        """
        session_id = request.session_id
        if session_id in self._kept:
            return
        if not request.background:
            self._lines[True].leave(session_id)
        elif session_id in self._lines[False]:
            return
        self._lines[request.background].join(request)
        self._call()

    def renounce(self, session_id: str) -> None:
        """Stop waiting; a slot that was kept for this session goes to the next one."""
        for line in self._lines.values():
            line.leave(session_id)
        if (request := self._kept.pop(session_id, None)) is not None:
            self._vacate(request)

    def _has_room(self, *, background: bool) -> bool:
        return self._free > 0 and (not background or self._free_for_background > 0)

    def _occupy(self, request: SlotRequest) -> None:
        self._free -= 1
        self._free_for_background -= request.background
        self._lines[request.background].served[request.owner] += 1

    def _vacate(self, request: SlotRequest) -> None:
        self._free += 1
        self._free_for_background += request.background
        served = self._lines[request.background].served
        served[request.owner] -= 1
        if not served[request.owner]:
            del served[request.owner]
        self._call()

    def _call(self) -> None:
        """Keep free slots for those whose turn it is."""
        while (line := self._next_line()) is not None:
            request = line.pop()
            self._occupy(request)
            self._kept[request.session_id] = request
            self._poke(request.session_id)

    def _next_line(self) -> _Line | None:
        interactive, background = (
            bool(self._lines[background]) and self._has_room(background=background) for background in (False, True)
        )
        if interactive and not (background and self._interactive_in_a_row >= INTERACTIVE_IN_A_ROW):
            self._interactive_in_a_row = self._interactive_in_a_row + 1 if background else 0
            return self._lines[False]
        if background:
            self._interactive_in_a_row = 0
            return self._lines[True]
        return None


class _Line:
    """The requests of one kind that wait, and how many slots their owners have."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        """Slots that were given to this kind, by owner; owners without any are left out."""
        self._owners: dict[str, dict[str, SlotRequest]] = {}
        """The sessions of each owner as they came; the owner whose turn was longest ago first."""
        self._owner_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._owner_of)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._owner_of

    def join(self, request: SlotRequest) -> None:
        """Add at the end; without effect for a session that waits already."""
        if request.session_id not in self._owner_of:
            self._owner_of[request.session_id] = request.owner
            self._owners.setdefault(request.owner, {})[request.session_id] = request

    def leave(self, session_id: str) -> None:
        """Without effect for a session that does not wait."""
        owner = self._owner_of.pop(session_id, None)
        if owner is not None:
            del self._owners[owner][session_id]
            if not self._owners[owner]:
                del self._owners[owner]

    def pop(self) -> SlotRequest:
        """Remove and return the request whose turn it is. The line must not be empty."""
        owner = min(self._owners, key=lambda each: self.served[each])
        sessions = self._owners.pop(owner)
        request = next(iter(sessions.values()))
        self._owners[owner] = sessions  # behind the others, who were called earlier
        self.leave(request.session_id)
        return request
