"""How many runs may be in progress at once in this process, and who comes next.

Someone who waits at a screen comes before a recall, and some places are never given to recalls, so that a burst of
these is no wall; yet of four places that become free one goes to a recall, so that they are not starved either. Among
equals the owner with the fewest places comes first, then whoever has waited longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

FAVOURED = 3
"""So many times in a row the impatient are called although a patient one could be."""


def reserved(limit: int) -> int:
    """How many places of ``limit`` are never given to the patient."""
    return max(1, limit // 8) if limit > 1 else 0


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """For whom a place is wanted: a session, which has one at most."""

    session_id: str
    owner: str
    patient: bool = False
    """Nobody waits at a screen for it: a recall asked."""


class RunSlots:
    """Counts free places. One that becomes free is kept for the session whose turn it is, which is told."""

    def __init__(self, limit: int, poke: Callable[[str], None]) -> None:
        self._free = limit
        self._free_for_patient = limit - reserved(limit)
        self._poke = poke
        self._lines = {False: _Line(), True: _Line()}
        """By patience. Nobody in them could be given a place: whoever can be is called at once."""
        self._kept: dict[str, SlotRequest] = {}
        """Those who were told, and have not taken their place yet."""
        self._taken: dict[str, SlotRequest] = {}
        self._favoured = 0

    def take(self, claimant: SlotRequest) -> bool:
        """A place, if one is kept for this session, or free. What waits already comes first: see :meth:`wait`."""
        session_id = claimant.session_id
        if session_id in self._kept:
            self._taken[session_id] = self._kept.pop(session_id)
            return True
        if not self._has_room(patient=claimant.patient):
            return False
        self._occupy(claimant)
        self._taken[session_id] = claimant
        return True

    def waits(self, session_id: str) -> bool:
        """Whether this session stands in line; it is told when its turn comes."""
        return any(session_id in line for line in self._lines.values())

    def kept(self, session_id: str) -> SlotRequest | None:
        """Whoever has a place kept for this session."""
        return self._kept.get(session_id)

    def expects(self, session_id: str) -> bool:
        """Whether this session waits, or has a place kept."""
        return session_id in self._kept or self.waits(session_id)

    def give_back(self, session_id: str) -> None:
        """The place of this session is free again. Without effect when it has none."""
        claimant = self._taken.pop(session_id, None)
        if claimant is not None:
            self._vacate(claimant)

    def wait(self, claimant: SlotRequest) -> None:
        """Keep a place for this session when it is its turn, and poke it then (at once, if one is free).

        One that waits patiently and is impatient now goes over to the other line.
        """
        session_id = claimant.session_id
        if session_id in self._kept:
            return
        if not claimant.patient:
            self._lines[True].leave(session_id)
        elif session_id in self._lines[False]:
            return
        self._lines[claimant.patient].join(claimant)
        self._call()

    def renounce(self, session_id: str) -> None:
        """This session does not wait any more; what was kept for it is the next one's."""
        for line in self._lines.values():
            line.leave(session_id)
        if (claimant := self._kept.pop(session_id, None)) is not None:
            self._vacate(claimant)

    def _has_room(self, *, patient: bool) -> bool:
        return self._free > 0 and (not patient or self._free_for_patient > 0)

    def _occupy(self, claimant: SlotRequest) -> None:
        self._free -= 1
        self._free_for_patient -= claimant.patient
        self._lines[claimant.patient].served[claimant.owner] += 1

    def _vacate(self, claimant: SlotRequest) -> None:
        self._free += 1
        self._free_for_patient += claimant.patient
        served = self._lines[claimant.patient].served
        served[claimant.owner] -= 1
        if not served[claimant.owner]:
            del served[claimant.owner]
        self._call()

    def _call(self) -> None:
        """Keep what is free for those whose turn it is."""
        while (line := self._next_line()) is not None:
            claimant = line.called()
            self._occupy(claimant)
            self._kept[claimant.session_id] = claimant
            self._poke(claimant.session_id)

    def _next_line(self) -> _Line | None:
        impatient, patient = (
            bool(self._lines[patience]) and self._has_room(patient=patience) for patience in (False, True)
        )
        if impatient and not (patient and self._favoured >= FAVOURED):
            self._favoured = self._favoured + 1 if patient else 0
            return self._lines[False]
        if patient:
            self._favoured = 0
            return self._lines[True]
        return None


class _Line:
    """Those who wait, and how many places their owners have."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        """Places that were given to this line's kind, by owner; those without any are left out."""
        self._owners: dict[str, dict[str, SlotRequest]] = {}
        """The sessions of each owner as they came; the owner that was called longest ago first."""
        self._owner_of: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._owner_of)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._owner_of

    def join(self, claimant: SlotRequest) -> None:
        """At the end; without effect for one who stands there already."""
        if claimant.session_id not in self._owner_of:
            self._owner_of[claimant.session_id] = claimant.owner
            self._owners.setdefault(claimant.owner, {})[claimant.session_id] = claimant

    def leave(self, session_id: str) -> None:
        """Without effect for one who is not there."""
        owner = self._owner_of.pop(session_id, None)
        if owner is not None:
            del self._owners[owner][session_id]
            if not self._owners[owner]:
                del self._owners[owner]

    def called(self) -> SlotRequest:
        """Whose turn it is; not in the line any more. Somebody must be there."""
        owner = min(self._owners, key=lambda each: self.served[each])
        sessions = self._owners.pop(owner)
        claimant = next(iter(sessions.values()))
        self._owners[owner] = sessions  # behind the others, who were called earlier
        self.leave(claimant.session_id)
        return claimant
