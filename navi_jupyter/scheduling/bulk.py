"""Many recalls at once, all or none: pause and resume, export and import as TOML."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import NaviError, SessionNotFound
from ..model.recalls import Recall, RecallStatus
from ..ports.recalls import RecallState
from .ledger import append_notices
from .mutations import Change, Mutations, check_targets, paused, resumed
from .notices import RecallNotice
from .toml import Entry, read_recalls, write_recalls

if TYPE_CHECKING:
    from ..ports.recalls import FiringState, RecallTx


class BulkChanges:
    """Changes of all recalls of an owner, or of one session of theirs."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._store = mutations.store
        self._clock = mutations.clock

    async def pause_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Pause what is not over and not paused, in one transaction; how many."""
        return await self._change_all(owner, session_id, paused, RecallNotice(action="paused"))

    async def resume_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Resume what is paused, in one transaction; how many. Missed times: as for each by itself."""
        return await self._change_all(owner, session_id, resumed, RecallNotice(action="resumed"))

    async def _change_all(self, owner: str, session_id: str | None, change: Change, notice: RecallNotice) -> int:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> list[RecallState]:
            states = await tx.open_recalls_of(owner, session_id=session_id)
            opens: dict[str, list[FiringState]] = {state.recall.id: [] for state in states}
            for firing in await tx.open_firings(opens):
                opens[firing.firing.recall_id].append(firing)
            moved = [new for state in states if (new := change(state, opens[state.recall.id])) is not None]
            await tx.save_recalls(moved)
            await append_notices(tx, [(state, [notice]) for state in moved], now)
            return moved

        moved = await self._store.write(unit, durable=True)
        self._mutations.notify(*(state.recall for state in moved))
        return len(moved)

    async def export(self, *, owner: str, session_id: str | None = None) -> str:
        """The owner's recalls that are not over, as TOML."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Sequence[RecallState]:
            return await tx.open_recalls_of(owner, session_id=session_id)

        states = await self._store.write(unit)
        return await asyncio.to_thread(write_recalls, [state.recall for state in states], now)

    async def take_in(
        self, text: str, *, owner: str, session_id: str | None = None, dry_run: bool = False
    ) -> Sequence[Recall]:
        """Make the recalls of a TOML text, all or none; with ``session_id`` in that session whatever they say.

        ``dry_run``: check and return what would be made. Raises InvalidRequest, InvalidSchedule, LimitReached,
        SessionNotFound, naming the recall and its line.
        """
        now = self._clock.now()
        entries = await asyncio.to_thread(read_recalls, text, session_id=session_id)
        known = await self._mutations.known_targets(name for entry in entries for name in entry.request.policy.notify)

        zones = await self._zones({entry.request.session_id for entry in entries}, owner)

        def make() -> list[RecallState]:
            return [self._entry_state(entry, owner, zones, now, known) for entry in entries]

        states = await asyncio.to_thread(make)  # a thousand schedules are hundreds of milliseconds

        async def unit(tx: RecallTx) -> None:
            await self._mutations.add(tx, states, owner, now)

        if not dry_run:
            await self._store.write(unit, durable=True)
            self._mutations.notify(*(state.recall for state in states))
        return [state.recall for state in states]

    async def _zones(self, session_ids: Iterable[str], owner: str) -> dict[str, str]:
        """The time zones of those sessions that are the owner's."""

        async def unit(tx: RecallTx) -> dict[str, str]:
            sessions = [await tx.session(session_id) for session_id in session_ids]
            return {each.id: each.timezone for each in sessions if each is not None and each.owner == owner}

        return await self._store.write(unit)

    def _entry_state(
        self, entry: Entry, owner: str, zones: Mapping[str, str], now: datetime, known: Sequence[str] | None
    ) -> RecallState:
        wanted = entry.request.session_id
        try:
            if wanted not in zones:
                raise SessionNotFound(f"There is no session {wanted[:100]}; pass session_id= to choose another.")
            check_targets(entry.request.policy.notify, known)
            state = self._mutations.made(entry.request, owner=owner, zone=zones[wanted], now=now)
        except NaviError as error:
            raise type(error)(f"{entry.place}: {error.message}", field=error.field) from error
        if entry.paused:
            return replace(state, recall=state.recall.but(status=RecallStatus.PAUSED, next_at=None))
        return state
