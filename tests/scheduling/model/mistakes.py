"""Mistakes to be planted: each breaks one promise of the machine, as a plausible change to it would."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from navi_jupyter.commands import Prompt
from navi_jupyter.model.recalls import FiringStatus, Recall, RecallStatus
from navi_jupyter.orchestrator.command_handler import CommandHandler
from navi_jupyter.orchestrator.upkeep.servers import Trust
from navi_jupyter.ports.recalls import Claimed, FiringState
from navi_jupyter.scheduling import decisions, delivery, ledger, misfires, outcomes, planner, scheduler, service
from navi_jupyter.scheduling.decisions import Busy, Happening, Move, decide
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.store import firings as ledger_sql
from navi_jupyter.store import recalls as sql
from navi_jupyter.store.recalls import RecallRows
from navi_jupyter.store.runs import RunRows
from tests.support.simulation import House, Patch

Plant = Callable[[House, Patch], None]
MISTAKES: dict[str, Plant] = {}


def mistake(plant: Plant) -> Plant:
    MISTAKES[plant.__name__] = plant
    return plant


@mistake
def advance_and_insert_in_two_transactions(_house: House, patch: Patch) -> None:
    store_plans, plan_and_claim = ledger.store_plans, Scheduler.plan_and_claim

    async def advanced_only(tx: Any, plans: Any, now: datetime, *, lease: Any, ahead: Any) -> list[Claimed]:
        class Early:
            """Everything but the insertion."""

            def __getattr__(self, name: str) -> Any:
                return getattr(tx, name)

            async def add_firings(self, states: Any) -> None:
                made.extend(states)

        return await store_plans(Early(), plans, now, lease=lease)  # type: ignore[arg-type]

    made: list[FiringState] = []

    async def twice(self: Scheduler, now: datetime) -> Any:
        made.clear()
        result = await plan_and_claim(self, now)
        kept = list(made)
        if kept:
            await self._store.write(lambda tx: tx.add_firings(kept))
        return result

    patch(scheduler, "store_plans", advanced_only)
    patch(Scheduler, "plan_and_claim", twice)


@mistake
def no_unique_slot_and_no_version(house: House, patch: Patch) -> None:
    async def as_given(_tx: Any, plans: Any) -> list[Any]:
        return list(plans)

    house.without_indexes.append("firings_auto")
    patch(scheduler, "current", as_given)
    anything = " AND (recalls.version = v.column9 OR 1 = 1)"  # PostgreSQL has the column's type from its name
    patch(sql, "_ADVANCE_RECALLS", sql._ADVANCE_RECALLS.replace(" AND recalls.version = v.column9", anything))


@mistake
def what_was_made_ahead_is_written_though_a_recall_has_changed(_house: House, patch: Patch) -> None:
    async def as_given(_tx: Any, plans: Any) -> Any:
        return plans

    patch(scheduler, "current", as_given)


@mistake
def the_session_is_found_idle_before_the_transaction(house: House, patch: Patch) -> None:
    house.without_indexes.append("runs_one_active")

    async def nobody(_self: RunRows, _session_id: str) -> None:
        return None

    async def start(self: RunRows, run_id: str, *, server_id: str, at: datetime, lease_until: datetime) -> bool:
        text = "UPDATE runs SET status = 'running', server_id = ?, started_at = ?, lease_until = ? WHERE id = ?"
        micros = int(at.timestamp() * 1e6), int(lease_until.timestamp() * 1e6)
        return await self.change(text, (server_id, *micros, run_id)) == 1

    patch(RunRows, "active_run", nobody)
    patch(RunRows, "start_run", start)


@mistake
def delivered_without_looking_at_the_lease(_house: House, patch: Patch) -> None:
    async def unchecked(_self: CommandHandler, _tx: Any, _arrival: Any) -> None:
        return None

    patch(CommandHandler, "_check_lease", unchecked)


@mistake
def what_came_of_it_is_taken_from_anybody(_house: House, patch: Patch) -> None:
    patch(ledger, "_outdated", lambda firing, _report: firing.firing.status.final)
    patch(ledger_sql, "_SAVE_FIRINGS", ledger_sql._SAVE_FIRINGS.split(" AND firings.fence <=")[0])


@mistake
def the_fence_starts_again_at_a_release(_house: House, patch: Patch) -> None:
    put_back = outcomes.put_back

    def afresh(firing: FiringState, move: Move) -> FiringState:
        return replace(put_back(firing, move), fence=0)

    patch(outcomes, "put_back", afresh)
    patch(ledger_sql, "_SAVE_FIRINGS", ledger_sql._SAVE_FIRINGS.split(" AND firings.fence <=")[0])


@mistake
def no_self_fence(_house: House, patch: Patch) -> None:
    patch(Trust, "held", property(lambda self: self.until > 0))


@mistake
def rescued_twenty_seconds_early(_house: House, patch: Patch) -> None:
    lost_claims = RecallRows.lost_claims

    async def early(self: RecallRows, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        return await lost_claims(self, now=now + timedelta(seconds=20), server_id=server_id)

    patch(RecallRows, "lost_claims", early)


@mistake
def put_back_without_looking_for_the_prompt(_house: House, patch: Patch) -> None:
    async def as_reported(_tx: Any, _firing: FiringState, outcome: Any, _now: datetime) -> Any:
        return outcome

    patch(ledger, "_verified", as_reported)


@mistake
def cancelled_without_looking_for_the_prompt(_house: House, patch: Patch) -> None:
    end_all = ledger.end_all

    async def blind(tx: Any, ending: Any, now: datetime) -> Any:
        class Blind:
            """Everything but what the sessions have accepted."""

            def __getattr__(self, name: str) -> Any:
                return getattr(tx, name)

            async def acceptance(self, *_: Any) -> None:
                return None

        return await end_all(Blind(), ending, now)

    patch(service, "end_all", blind)
    patch(ledger, "end_all", blind)


@mistake
def a_report_counts_after_the_firing_was_rescued(_house: House, patch: Patch) -> None:
    def by_fence(firing: FiringState, report: Any) -> bool:
        return firing.firing.status.final or (report.fence is not None and firing.fence != report.fence)

    patch(ledger, "_outdated", by_fence)


@mistake
def no_limit_of_attempts(_house: House, patch: Patch) -> None:
    def always_again(recall: Recall, firing: FiringState, happening: Happening, now: datetime) -> Move:
        return decide(recall.but(policy=recall.policy.but(retries=10)), firing, happening, now)

    patch(outcomes, "decide", always_again)


@mistake
def what_needed_approval_is_tried_again(_house: House, patch: Patch) -> None:
    patch(decisions, "UNANSWERED", ())


@mistake
def busy_is_the_end(_house: House, patch: Patch) -> None:
    def over(recall: Recall, firing: FiringState, happening: Happening, now: datetime) -> Move:
        if isinstance(happening, Busy):
            return Move(FiringStatus.CANCELLED, happening.reason)
        return decide(recall, firing, happening, now)

    patch(outcomes, "decide", over)


@mistake
def coalesced_is_counted_one_short(_house: House, patch: Patch) -> None:
    missed = misfires._times_since

    def short(*given: Any) -> Any:
        found, total, following = missed(*given)
        return found, max(len(found), total - 1), following

    patch(misfires, "_times_since", short)


@mistake
def jitter_moves_the_grid(_house: House, patch: Patch) -> None:
    allowed = outcomes.allowed

    def moved(recall: Recall, due: datetime | None) -> datetime | None:
        found = allowed(recall, due)
        return found if found is None or recall.policy.jitter is None else found + timedelta(seconds=1)

    patch(misfires, "allowed", moved)
    patch(outcomes, "allowed", moved)


@mistake
def taken_before_its_time(_house: House, patch: Patch) -> None:
    claim = RecallRows.claim

    async def early(self: RecallRows, *, now: datetime, **given: Any) -> Sequence[Claimed]:
        return await claim(self, now=now + timedelta(seconds=3), **given)

    patch(RecallRows, "claim", early)


@mistake
def a_pause_is_not_looked_at_on_delivery(_house: House, patch: Patch) -> None:
    async def may_deliver(self: RecallRows, command_id: str, *, server_id: str) -> bool:
        row = await self.one("SELECT status, lease_owner FROM firings WHERE command_id = ?", (command_id,))
        return row is None or (row["status"] == "claimed" and row["lease_owner"] == server_id)

    patch(RecallRows, "may_deliver", may_deliver)


@mistake
def the_event_is_written_after_the_row(_house: House, patch: Patch) -> None:
    append_notices, settle = ledger.append_notices, Scheduler.settle
    owed: list[Any] = []

    async def later(_tx: Any, said: Any, now: datetime) -> None:
        owed.append((list(said), now))

    async def settled(self: Scheduler, reports: Any) -> Any:
        owed.clear()
        result = await settle(self, reports)
        for said, now in list(owed):
            await self._store.write(lambda tx, said=said, now=now: append_notices(tx, said, now))  # type: ignore[misc]
        return result

    patch(ledger, "append_notices", later)
    patch(Scheduler, "settle", settled)


@mistake
def the_prompt_is_named_after_the_delivery(_house: House, patch: Patch) -> None:
    def named(**given: Any) -> Prompt:
        return Prompt(**given | {"command_id": f"{given['command_id']}-{next(numbers)}"})

    numbers = iter(range(10**9))
    patch(delivery, "Prompt", named)


@mistake
def max_fires_counts_what_has_started(_house: House, patch: Patch) -> None:
    plan = misfires.plan

    def forgetful(state: Any, now: datetime, *, opens: Any = ()) -> Any:
        return plan(replace(state, planned=state.recall.fired), now, opens=opens)

    patch(planner, "plan", forgetful)


@mistake
def a_retry_after_the_recall_was_cancelled(_house: House, patch: Patch) -> None:
    def anyway(recall: Recall, firing: FiringState, happening: Happening, now: datetime) -> Move:
        alive = recall.but(status=RecallStatus.RUNNING) if recall.status.final else recall
        return decide(alive, firing, happening, now)

    patch(outcomes, "decide", anyway)


@mistake
def jitter_is_drawn_anew(_house: House, patch: Patch) -> None:
    dice = random.Random(1)
    patch(outcomes, "jitter", lambda _id, _slot, most, _following: most * dice.random())


@mistake
def slots_are_forgotten_while_all_seem_to_be_planned(_house: House, patch: Patch) -> None:
    uncount = outcomes._uncount

    def from_now(state: Any, firing: FiringState, now: datetime, _last: Any) -> Any:
        return uncount(state, firing, now, now)

    patch(outcomes, "_uncount", from_now)


@mistake
def catching_up_starts_all_at_once(_house: House, patch: Patch) -> None:
    patch(misfires.CatchUp, "_placed", lambda _self, _owner, firing, _now: firing)
