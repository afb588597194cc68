"""The scheduler's safety net: finishes what a dead server or a lost message left open, stops runs past their time
limit, removes old rows of the ledger, and logs what looks wrong.

Not responsible for when it is called.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..commands import Stop
from ..errors import NaviError, StoreError
from ..log_setup import get_logger
from ..model.sessions import SYSTEM
from .decisions import KEPT_FOR, KEPT_ROWS, Ended, PromptAccepted, prunable_before
from .ledger import Report, rescued, settle_all, settle_apart
from .outcomes import Step
from .planner import BATCH

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ports.recalls import RecallAudit, RecallStore, RecallTx
    from ..ports.store import Submit

log = get_logger("recalls")

PRUNE_EVERY = timedelta(hours=1)
PRUNED_AT_ONCE = 500  # Rows that one transaction removes.


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What a sweep did and found."""

    steps: tuple[Step, ...]  # Firings that were taken one step on.
    stopped: int  # Time limits that were dealt with: the run was asked to stop, or was given its time.
    waited_for: set[str]  # Sessions that deferred firings wait for.
    audit: RecallAudit


class Sweeper:
    def __init__(self, store: RecallStore, submit: Submit, *, server_id: str, clock: Clock) -> None:
        self._store = store
        self._submit = submit
        self._server_id = server_id
        self._clock = clock
        self._pruned_at: datetime | None = None

    async def sweep(self, delivered: Collection[tuple[str, int | None]] = ()) -> Swept:
        """``delivered``: firings and fences of own claims whose outcomes are known and wait to be recorded. They are
        not lost, however long their leases are over. Raises StoreError."""
        now = self._clock.now()
        waited_for = await self._store.deferred_sessions()
        runs = await self._store.ended_firings(limit=BATCH)
        ended = [Report(outcome=Ended(run=run), command_id=run.command_id) for run in runs]
        ended += [
            Report(outcome=PromptAccepted(run_id=run.id, at=run.started_at or now), command_id=run.command_id)
            for run in await self._store.begun_firings(limit=BATCH)
        ]

        async def lost(tx: RecallTx) -> list[Report]:
            claims = [
                claim
                for claim in await tx.lost_claims(now=self._clock.now(), server_id=self._server_id)
                # Put back, it would be delivered again, and the outcome that waits be void by its fence: where many
                # outcomes take longer than a lease, without end.
                if claim.lease_owner != self._server_id or (claim.firing.id, claim.fence) not in delivered
            ]
            return rescued(claims, server_id=self._server_id)

        async def unit(tx: RecallTx) -> tuple[Step, ...]:
            now = self._clock.now()  # not before it: the clock may have been set back while this waited
            # Ended runs first: a claim whose run is over is not lost.
            done = await settle_all(tx, ended, now)
            return done + await settle_all(tx, await lost(tx), now)

        try:
            steps = await self._store.write(unit)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - one of them; it is found and logged, and the others go on
            steps = await settle_apart(self._store, ended, self._clock)
            steps += await settle_apart(self._store, await self._store.write(lost), self._clock)
        stopped = await self._stop_overrunning(now)
        audit = await self._store.audit_recalls(now)
        if audit.overdue or audit.stuck or audit.orphans or audit.aimless:
            log.warning(
                "recalls_audit", overdue=audit.overdue, stuck=audit.stuck, orphans=audit.orphans, aimless=audit.aimless
            )
        return Swept(steps=steps, stopped=stopped, waited_for=waited_for, audit=audit)

    async def _stop_overrunning(self, now: datetime) -> int:
        """Stop runs past their time limit; how many time limits were dealt with."""
        found = await self._store.overrunning(now, limit=BATCH)
        if not found:
            return 0
        stopped = 0
        for claim in found:
            run_id, session_id = claim.firing.firing.run_id or "", claim.firing.session_id
            stop = Stop(command_id=f"recall-stop:{run_id}", run_id=run_id)
            try:
                await self._submit(session_id, stop, user_id=claim.recall.owner, origin=SYSTEM)
                stopped += 1
            except NaviError as error:  # the next sweep tries again
                log.warning("recall_not_stopped", run_id=run_id, error=error.message)
        return stopped

    async def prune(self) -> int:
        """Once an hour: remove rows of the ledger that are old, a few at a time. How many."""
        now = self._clock.now()
        if self._pruned_at is not None and timedelta(0) <= now - self._pruned_at < PRUNE_EVERY:
            return 0
        self._pruned_at = now  # first: a failure waits for the next hour, not for the next sweep
        edges = await self._store.old_firings(now - KEPT_FOR, keep=KEPT_ROWS, limit=BATCH)
        return sum([await self._prune_recall(recall_id, prunable_before(now, at)) for recall_id, at in edges.items()])

    async def _prune_recall(self, recall_id: str, before: datetime) -> int:
        async def unit(tx: RecallTx) -> int:
            return await tx.prune_firings(recall_id, before=before, limit=PRUNED_AT_ONCE)

        removed = 0
        while count := await self._store.write(unit):
            removed += count
        return removed
