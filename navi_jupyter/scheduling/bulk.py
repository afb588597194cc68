"""Many recalls at once: pause and resume all, copy one, take them elsewhere and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, NaviError, SessionNotFound
from ..model.recalls import Firing, Recall, RecallCreate, RecallPatch, RecallStatus
from ..ports.agent import Unrun
from ..ports.recalls import RecallState
from .ledger import say
from .mutations import Changing, check_targets, locked
from .notices import RecallNotice
from .outcomes import at_rest
from .schedules import spec_of
from .toml import Entry, read_recalls, write_recalls

if TYPE_CHECKING:
    from ..ports.recalls import FiringState, RecallTx

MOST_UNRUN = 500


class BulkChanges(Changing):
    """See the module."""

    async def pause_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Pause what is not over and not paused, in one transaction; how many."""

        def change(state: RecallState, _opens: Sequence[FiringState]) -> RecallState | None:
            recall = state.recall
            if recall.status is RecallStatus.PAUSED:
                return None
            return replace(state, recall=recall.but(status=RecallStatus.PAUSED, next_at=None))

        return await self._change_all(owner, session_id, change, RecallNotice(action="paused"))

    async def resume_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Resume what is paused, in one transaction; how many. Missed slots: as for each by itself."""

        def change(state: RecallState, opens: Sequence[FiringState]) -> RecallState | None:
            if state.recall.status is not RecallStatus.PAUSED:
                return None
            return at_rest(replace(state, recall=state.recall.but(status=RecallStatus.PENDING)), opens)

        return await self._change_all(owner, session_id, change, RecallNotice(action="resumed"))

    async def _change_all(
        self,
        owner: str,
        session_id: str | None,
        change: Callable[[RecallState, Sequence[FiringState]], RecallState | None],
        said: RecallNotice,
    ) -> int:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> list[RecallState]:
            states = await tx.open_recalls_of(owner, session_id=session_id)
            opens: dict[str, list[FiringState]] = {state.recall.id: [] for state in states}
            for firing in await tx.open_firings(opens):
                opens[firing.firing.recall_id].append(firing)
            moved = [new for state in states if (new := change(state, opens[state.recall.id])) is not None]
            await tx.save_recalls(moved)
            await say(tx, [(state, [said]) for state in moved], now)
            return moved

        moved = await self._store.write(unit, durable=True)
        self._tell(*(state.recall for state in moved))
        return len(moved)

    async def clone(self, recall_id: str, patch: RecallPatch, *, owner: str) -> Recall:
        """A new recall like this one, with the fields of ``patch`` in their place. It counts from now.

        One that is over can be cloned, too. Raises RecallNotFound, InvalidRequest, InvalidSchedule (a time that is
        past), LimitReached.
        """
        notify = patch.policy.notify if patch.policy else ()
        known = await self._known_targets(notify)
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            recall = (await locked(tx, recall_id, owner)).recall
            check_targets(notify, known, kept=recall.policy.notify)
            session = await tx.session(recall.session_id)
            request = RecallCreate(
                session_id=recall.session_id,
                message=patch.message or recall.message,
                title=patch.title or (recall.title if patch.message is None else None),
                schedule=patch.schedule or spec_of(recall.schedule),
                policy=patch.policy or recall.policy,
            )
            state = self._made(request, owner=owner, zone=session.timezone if session else "UTC", now=now)
            await self._add(tx, [state], owner, now)
            return state.recall

        recall = await self._store.write(unit, durable=True)
        self._tell(recall)
        return recall

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
        known = await self._known_targets(name for entry in entries for name in entry.request.policy.notify)

        zones = await self._zones({entry.request.session_id for entry in entries}, owner)

        def make() -> list[RecallState]:
            return [self._entry_state(entry, owner, zones, now, known) for entry in entries]

        states = await asyncio.to_thread(make)  # a thousand schedules are hundreds of milliseconds

        async def unit(tx: RecallTx) -> None:
            await self._add(tx, states, owner, now)

        if not dry_run:
            await self._store.write(unit, durable=True)
            self._tell(*(state.recall for state in states))
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
                raise SessionNotFound(f"There is no session {wanted[:100]}; say session_id= to choose another.")
            check_targets(entry.request.policy.notify, known)
            state = self._made(entry.request, owner=owner, zone=zones[wanted], now=now)
        except NaviError as error:
            raise type(error)(f"{entry.place}: {error.message}", field=error.field) from error
        if entry.paused:
            return replace(state, recall=state.recall.but(status=RecallStatus.PAUSED, next_at=None))
        return state

    # --- looking back

    async def last_firings(self, recalls: Sequence[Recall]) -> Mapping[str, Firing]:
        """The latest row of the ledger of each, by recall."""
        return await self._store.last_firings(recall.id for recall in recalls)

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int = 100) -> Sequence[Unrun]:
        """What did not run in a session, of slots from ``since`` on: the last ``limit``, oldest first."""
        if not 0 < limit <= MOST_UNRUN:
            raise InvalidRequest(f"limit must be from 1 to {MOST_UNRUN}.", field="limit")
        return await self._store.unrun(session_id, since=since, limit=limit)
