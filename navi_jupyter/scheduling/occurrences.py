"""What happens in notebooks and what users do there, as the service of recalls is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..log_setup import get_logger
from ..model.recalls import When
from ..ports.recalls import Happened, RecallState, Seen
from .event_firings import give_up, occur, pause_of
from .ledger import end_unwanted, say
from .mutations import Changing
from .notices import RecallNotice
from .outcomes import watching
from .schedules import whole_ms

if TYPE_CHECKING:
    from ..ports.recalls import RecallTx

log = get_logger("recalls")


class Watching(Changing):
    """Implements :class:`navi_jupyter.ports.recalls.Occurrences`."""

    async def open_whens(self) -> Sequence[RecallState]:
        """What is to be watched: a one-time one whose firing waits or runs is not any more."""
        return [state for state in await self._store.when_recalls() if watching(state)]

    async def happened(self, happened: Happened) -> bool:
        """See the port."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> tuple[bool, RecallState | None]:
            recall_id = happened.recall_id
            state = (await tx.recall_states([recall_id])).get(recall_id)
            if state is None or await tx.event_firing(recall_id, happened.key) is not None:
                return False, None
            opens = await tx.open_firings([recall_id])
            pause, at = pause_of(state, self._min_interval), whole_ms(min(happened.at, now))
            near = None if pause is None else await tx.event_near(recall_id, at, within=pause)
            occurred = occur(state, happened, now, opens=opens, near=near, pause=pause)
            if occurred is None:
                return False, None
            if occurred.replaced:
                await tx.save_firings(occurred.replaced)
            await tx.add_firings([occurred.firing])
            if occurred.state is not state:
                await tx.save_recalls([occurred.state])
            await say(tx, [(occurred.state, occurred.notices)], now)
            return occurred.fires, occurred.state

        fires, state = await self._store.write(unit, durable=True)
        if fires and state is not None:
            self._tell(state.recall)
        return fires

    async def never(self, happened: Happened, reason: str) -> bool:
        """See the port."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> RecallState | None:
            state = (await tx.recall_states([happened.recall_id])).get(happened.recall_id)
            if state is None or await tx.event_firing(happened.recall_id, happened.key) is not None:
                return None
            given_up = give_up(state, happened, reason, now)
            if given_up is None:
                return None
            await tx.add_firings([given_up.firing])
            await tx.save_recalls([given_up.state])
            await say(tx, [(given_up.state, given_up.notices)], now)
            return given_up.state

        state = await self._store.write(unit, durable=True)
        if state is not None:
            self._tell(state.recall)
        return state is not None

    async def narrow(self, recall_id: str, before: When, after: When) -> bool:
        """See the port. Nobody is told: to people it is the same wish."""

        async def unit(tx: RecallTx) -> bool:
            state = (await tx.recall_states([recall_id])).get(recall_id)
            if state is None or not watching(state) or state.recall.schedule != before:
                return False
            await tx.save_recalls([replace(state, recall=state.recall.but(schedule=after))])
            return True

        return await self._store.write(unit)

    async def could_not_look(self, recall_id: str, reason: str) -> None:
        """See the port. Whoever looks says it once for each reason; here it is said as often as it is told."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> None:
            state = (await tx.recall_states([recall_id])).get(recall_id)
            if state is not None and not state.recall.status.final:
                said = RecallNotice(action="deferred", reason=f"it can not be looked at: {reason[:500]}")
                await say(tx, [(state, [said])], now)

        await self._store.write(unit)

    async def user_wrote(self, session_id: str, at: datetime) -> None:
        """The user has written in a session: recalls with ``cancel_on: user_message`` end. Never raises."""
        await self._came(session_id, Seen(wrote_at=at))

    async def user_read(self, session_id: str, at: datetime) -> None:
        """The user has seen a session: recalls with ``cancel_on: read`` end. Never raises."""
        await self._came(session_id, Seen(read_at=at))

    async def _came(self, session_id: str, seen: Seen) -> None:
        """What is lost here (the database is locked, the server dies) is found out again before the next firing."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Sequence[RecallState]:
            return await end_unwanted(tx, session_id, seen, now)

        try:
            if await self._store.ends_with_user(session_id):
                self._tell(*(state.recall for state in await self._store.write(unit, durable=True)))
        except StoreError as error:
            log.warning("recalls_not_ended", session_id=session_id, error=error.message)
