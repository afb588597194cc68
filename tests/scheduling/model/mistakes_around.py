"""Mistakes to be planted around the machine: events of notebooks, users who come, runs, telling people."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from navi_jupyter.model.recalls import FiringStatus
from navi_jupyter.orchestrator.command_handler import CommandHandler
from navi_jupyter.orchestrator.upkeep.servers import Trust
from navi_jupyter.ports.recalls import FiringState
from navi_jupyter.scheduling import event_firings, ledger, misfires, outcomes
from navi_jupyter.scheduling.decisions import Ended, Happening, Move, Overtaken
from navi_jupyter.store.firings import FiringReads
from navi_jupyter.store.notices import StoredNotices
from navi_jupyter.store.recalls import RecallRows
from navi_jupyter.store.rows import optional_instant, to_micros
from navi_jupyter.store.runs import RunRows
from tests.support.simulation import House, Patch

from .mistakes import mistake

# --- what happens in notebooks, and what users do --------------------------------------------------------------------


@mistake
def an_event_that_is_told_twice_fires_twice(house: House, patch: Patch) -> None:
    house.without_indexes.append("firings_event")

    async def never_heard(_self: RecallRows, _recall_id: str, _kind: str, _key: str) -> None:
        return None

    patch(RecallRows, "keyed_firing", never_heard)


@mistake
def a_cooldown_counts_only_what_has_started(_house: House, patch: Patch) -> None:
    async def event_near(self: RecallRows, recall_id: str, at: datetime, *, within: timedelta) -> datetime | None:
        row = await self.one(
            "SELECT max(slot) AS slot FROM firings WHERE recall_id = ? AND kind = 'event' AND started_at IS NOT NULL"
            " AND slot > ? AND slot < ?",
            (recall_id, to_micros(at - within), to_micros(at + within)),
        )
        return None if row is None else optional_instant(row["slot"])

    patch(RecallRows, "event_near", event_near)


@mistake
def an_event_that_ran_and_waits_for_its_next_attempt_is_coalesced(_house: House, patch: Patch) -> None:
    end = outcomes.end

    def coalesced(recall: Any, firing: FiringState, happening: Happening, now: datetime) -> FiringState:
        if not isinstance(happening, Overtaken):
            return end(recall, firing, happening, now)
        return outcomes.closed(recall, firing, Move(FiringStatus.COALESCED, happening.reason), now)

    patch(event_firings, "end", coalesced)


@mistake
def that_the_user_came_is_looked_at_only_before_the_delivery(_house: House, patch: Patch) -> None:
    async def may_deliver(self: RecallRows, command_id: str, *, server_id: str) -> bool:
        row = await self.one(
            "SELECT f.status, f.kind, f.lease_owner, r.status AS recall FROM firings f JOIN recalls r"
            " ON r.id = f.recall_id WHERE f.command_id = ?",
            (command_id,),
        )
        held = row is not None and row["status"] == "claimed" and row["lease_owner"] == server_id
        return row is None or (held and (row["kind"] == "manual" or row["recall"] != "paused"))

    patch(RecallRows, "may_deliver", may_deliver)


# --- runs ------------------------------------------------------------------------------------------------------------


@mistake
def a_run_writes_on_after_others_have_closed_it(_house: House, patch: Patch) -> None:
    async def all_of_them(_self: RunRows, run_ids: Any, *, server_id: str) -> set[str]:
        return {run_id for run_id in run_ids if server_id}

    patch(RunRows, "held_runs", all_of_them)
    # A server that does not trust itself any more ends its runs before others close them, and so hides this.
    patch(Trust, "held", property(lambda self: self.until > 0))


@mistake
def a_run_ends_although_others_have_closed_it(_house: House, patch: Patch) -> None:
    end_run = RunRows.end_run

    async def again(self: RunRows, run_id: str, **given: Any) -> bool:
        await self.change("UPDATE runs SET ended_at = NULL WHERE id = ?", (run_id,))
        return await end_run(self, run_id, **given)

    patch(RunRows, "end_run", again)


@mistake
def a_prompt_in_the_queue_counts_as_started(_house: House, patch: Patch) -> None:
    async def none_of_them(_self: RunRows, _run_ids: Any) -> dict[str, Any]:
        return {}

    patch(RunRows, "starts_of", none_of_them)


# --- runs that a server's end has interrupted -----------------------------------------------------------------------


@mistake
def a_run_that_had_done_something_is_started_again(_house: House, patch: Patch) -> None:
    async def nothing(_self: RunRows, _run: Any) -> None:
        return None

    patch(RunRows, "last_effect", nothing)


@mistake
def an_interrupted_run_is_never_started_again(_house: House, patch: Patch) -> None:
    certain = ledger._verified

    async def as_ended(tx: Any, firing: Any, outcome: Any, now: datetime) -> Any:
        return outcome if isinstance(outcome, Ended) else await certain(tx, firing, outcome, now)

    patch(ledger, "_verified", as_ended)


@mistake
def the_message_of_an_interrupted_run_is_sent_again(_house: House, patch: Patch) -> None:
    async def forgotten(self: CommandHandler, tx: Any, _run: Any, _new: Any, before: Any, _mode: str) -> Any:
        arrival, run = self._arrival, _new  # type: ignore[attr-defined]
        await tx.change("DELETE FROM commands WHERE command_id = ?", (before.command_id,))
        return await self._admit(tx, arrival, run, _mode)

    prompt = CommandHandler.prompt

    async def kept(self: CommandHandler, tx: Any, arrival: Any, *, may_start: bool) -> Any:
        self._arrival = arrival  # type: ignore[attr-defined]
        return await prompt(self, tx, arrival, may_start=may_start)

    patch(CommandHandler, "prompt", kept)
    patch(CommandHandler, "_admit_again", forgotten)


@mistake
def what_the_user_stopped_counts_as_interrupted(_house: House, patch: Patch) -> None:
    active_runs = RunRows.active_runs

    async def not_stopped(self: RunRows) -> Any:
        return [replace(owner, stop_requested=False) for owner in await active_runs(self)]

    patch(RunRows, "active_runs", not_stopped)


# --- telling people --------------------------------------------------------------------------------------------------


@mistake
def people_are_told_of_every_missed_slot(_house: House, patch: Patch) -> None:
    def each(recall: Any, firings: list[FiringState]) -> None:
        if recall.policy.notify:
            for n, f in enumerate(firings):
                if f.firing.status is FiringStatus.MISSED:
                    firings[n] = replace(f, firing=f.firing.but(delivery="pending"))

    patch(misfires, "_notify_of_last_missed", each)


@mistake
def nobody_is_told_of_a_failure_that_a_later_slot_brought(_house: House, patch: Patch) -> None:
    end = outcomes.end

    def untold(recall: Any, firing: FiringState, happening: Happening, now: datetime) -> FiringState:
        return replace(over := end(recall, firing, happening, now), firing=over.firing.but(delivery="none"))

    patch(misfires, "end", untold)


@mistake
def what_one_server_sends_another_takes_too(_house: House, patch: Patch) -> None:
    take, attempt = StoredNotices.take, StoredNotices.attempt

    async def taken(self: StoredNotices, *, now: datetime, until: datetime, **given: Any) -> Any:
        return await take(self, now=now, until=min(now, until), **given)

    async def attempted(self: StoredNotices, numbers: Any, *, by: str, until: datetime) -> Any:
        return await attempt(self, numbers, by=by, until=until - timedelta(minutes=2))

    patch(StoredNotices, "take", taken)
    patch(StoredNotices, "attempt", attempted)


@mistake
def a_message_that_did_not_go_counts_as_told(_house: House, patch: Patch) -> None:
    async def delivered(self: FiringReads, firing_id: str, error: str | None = None) -> None:
        async def unit(tx: Any) -> None:
            await tx.change("UPDATE firings SET delivery = 'delivered', lease_until = NULL WHERE id = ?", (firing_id,))

        assert error is None or error
        await self.write(unit, durable=True)

    patch(FiringReads, "delivered", delivered)
