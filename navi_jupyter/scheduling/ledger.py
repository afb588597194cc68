"""Transitions inside a transaction: read the states, let ``decisions`` and ``outcomes`` decide, save, append events.

Row and event are written by the same unit of work, so they always agree. Not responsible for when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from ..errors import StoreError
from ..log_setup import get_logger
from ..model.recalls import FiringStatus, RecallStatus
from ..model.sessions import RunStatus
from ..ports.recalls import Claimed, FiringState
from .decisions import (
    Busy,
    Died,
    Ended,
    Outcome,
    PromptAccepted,
    RecallCancelled,
    RunInterrupted,
    SessionDeleted,
    Unrecorded,
    decide,
)
from .misfires import Plan, supersede
from .notices import RecallNotice
from .outcomes import Step, end, first_due, settle, with_status
from .schedules import load_cron_reader

if TYPE_CHECKING:
    from datetime import datetime

    from ..clock import Clock
    from ..events import Draft
    from ..model.recalls import Recall
    from ..ports.recalls import RecallState, RecallStore, RecallTx, Seen

log = get_logger("recalls")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The outcome of a delivery or a run. Names its firing by id, with the fence of its claim, or by command."""

    outcome: Outcome
    firing_id: str | None = None
    fence: int | None = None
    command_id: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Under which a server takes firings."""

    server_id: str
    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """What is stored of plans, made before they are due, so that the transaction has only to write it."""

    recalls: Sequence[RecallState]
    firings: Sequence[FiringState]
    claimed: Sequence[Claimed]

    @classmethod
    def of(cls, store: RecallStore, plans: Sequence[Plan | Step], due: datetime, lease: Lease) -> Self:
        """The plans all :func:`stand_alone`. In any thread."""
        taken, claimed = _taken(plans, due, lease)
        recalls, firings = store.made_ahead((plan.state for plan in plans), taken)
        return cls(recalls=recalls, firings=firings, claimed=claimed)


def stand_alone(plan: Plan | Step) -> bool:
    """Whether nothing but the version of its recall decides what is stored: it replaces nothing and reports nothing."""
    return isinstance(plan, Plan) and plan.supersedes is None and not plan.notices


async def current(tx: RecallTx, plans: Sequence[Plan | Step]) -> list[Plan | Step]:
    """Those plans whose recall has not changed since they were made."""
    versions = await tx.versions(plan.state.recall.id for plan in plans) if plans else {}
    return [plan for plan in plans if versions.get(plan.state.recall.id) == plan.state.version]


async def store_plans(
    tx: RecallTx, plans: Sequence[Plan | Step], now: datetime, *, lease: Lease, ahead: Ahead | None = None
) -> list[Claimed]:
    """Advance the planned recalls and insert their firings; those that may start at once are taken as they go in.

    The plans are :func:`current`. ``ahead``: of just these plans, with a lease that still runs.
    """
    if ahead is not None:
        await tx.advance_recalls(ahead.recalls)
        return await _add(tx, ahead.firings, ahead.claimed)
    # Inside the transaction: a firing that waited when the plan was made may have been claimed since.
    plans, replaced = await _superseded(tx, plans, now)
    await tx.advance_recalls(plan.state for plan in plans)
    if replaced:
        await tx.save_firings(replaced)
    firings, claimed = _taken(plans, now, lease)
    claimed = await _add(tx, firings, claimed)
    await append_notices(tx, [(plan.state, plan.notices) for plan in plans if plan.notices], now)
    return claimed


def _taken(plans: Sequence[Plan | Step], now: datetime, lease: Lease) -> tuple[list[FiringState], list[Claimed]]:
    """The firings of plans as they are inserted, and those that may start: taken as they go in, because inserting and
    claiming in two statements costs a third more."""
    firings: list[FiringState] = []
    claimed: list[Claimed] = []
    for plan in plans:
        for firing in plan.firings if isinstance(plan, Plan) else ():
            if firing.firing.status is FiringStatus.PENDING and firing.firing.not_before <= now:
                taken = _claimed(firing, lease)
                firings.append(taken)
                claimed.append(Claimed(firing=taken, recall=plan.state))
            else:
                firings.append(firing)
    return firings, claimed


async def _add(tx: RecallTx, firings: Sequence[FiringState], claimed: Sequence[Claimed]) -> list[Claimed]:
    complete = await tx.add_firings(firings) == len(firings)  # the unique index on recall and time leaves some out
    return list(claimed) if complete else await _without_known(tx, firings, claimed)


async def _without_known(tx: RecallTx, firings: Sequence[FiringState], claimed: Sequence[Claimed]) -> list[Claimed]:
    """Some slots were in the ledger already: a new schedule has times of the old one, and it was made by a clock
    behind the one that planned these. They are not run again, and do not count for ``max_fires`` again.
    """
    added = await tx.firing_states(firing.firing.id for firing in firings)
    known = [firing for firing in firings if firing.firing.id not in added]
    states = await tx.recall_states({firing.firing.recall_id for firing in known})
    opens, last = by_recall(await tx.open_firings(states)), await tx.last_slots(states)
    moved = []
    for recall_id, state in states.items():
        again = [f for f in known if f.firing.recall_id == recall_id and not f.firing.status.final]
        fewer = replace(state, planned=max(0, state.planned - len(again)))
        if again and fewer.due_at is None and fewer.recall.policy.max_fires is not None:
            fewer = replace(fewer, due_at=first_due(fewer, after=last[recall_id]))
        moved.append(with_status(fewer, opens.get(recall_id, ())))
    await tx.advance_recalls(moved)
    return [claim for claim in claimed if claim.firing.firing.id in added]


def _claimed(firing: FiringState, lease: Lease) -> FiringState:
    claimed = firing.firing.but(status=FiringStatus.CLAIMED)
    return FiringState(  # spelled out: several times faster than replace()
        firing=claimed,
        session_id=firing.session_id,
        command_id=firing.command_id,
        key=firing.key,
        fence=firing.fence + 1,
        lease_owner=lease.server_id,
        lease_until=lease.until,
        crashes=firing.crashes,
        wait_until=firing.wait_until,
        stop_at=firing.stop_at,
    )


async def _superseded(
    tx: RecallTx, plans: Sequence[Plan | Step], now: datetime
) -> tuple[list[Plan | Step], list[FiringState]]:
    """The plans, after the firings that still wait were coalesced into theirs; and these firings."""
    contested = [plan.state.recall.id for plan in plans if isinstance(plan, Plan) and plan.supersedes]
    if not contested:
        return list(plans), []
    opens = by_recall(await tx.open_firings(contested))
    out: list[Plan | Step] = []
    replaced: list[FiringState] = []
    for plan in plans:
        if isinstance(plan, Plan) and plan.supersedes:
            changed, gone = supersede(plan, opens.get(plan.state.recall.id, ()), now)
            out.append(changed)
            replaced += gone
        else:
            out.append(plan)
    return out, replaced


def by_recall(firings: Iterable[FiringState]) -> dict[str, list[FiringState]]:
    out: dict[str, list[FiringState]] = defaultdict(list)
    for state in firings:
        out[state.firing.recall_id].append(state)
    return out


async def append_notices(
    tx: RecallTx, notices: Iterable[tuple[RecallState, Sequence[RecallNotice]]], now: datetime
) -> None:
    """Append the ``navi.recall`` events, each with its recall as it is now."""
    drafts: dict[str, list[Draft]] = defaultdict(list)
    for state, of_it in notices:
        drafts[state.recall.session_id] += [notice.draft(state.recall, now) for notice in of_it]
    if any(drafts.values()):
        await tx.append_all({session_id: found for session_id, found in drafts.items() if found})


async def settle_all(tx: RecallTx, reports: Sequence[Report], now: datetime) -> tuple[Step, ...]:
    """Take the reported firings one step on each. What is over, unknown, or claimed anew since is left alone."""
    # All rows are read before the first decision and saved after the last: several reports may be of one recall.
    firings, ids = await _firings_of(tx, reports)
    opens = by_recall(state for state in firings.values() if not state.firing.status.final)
    recall_ids = {firings[firing_id].firing.recall_id for firing_id in ids if firing_id in firings}
    recalls = await tx.recall_states(recall_ids) if recall_ids else {}
    full = {k: r.recall for k, r in recalls.items() if r.due_at is None and r.recall.policy.max_fires is not None}
    last = await tx.last_slots(full) if full else {}
    await load_cron_reader(recall.schedule for recall in full.values())
    begun = [report.outcome.run_id for report in reports if isinstance(report.outcome, PromptAccepted)]
    starts = await tx.starts_of(run_id for run_id in begun if run_id is not None) if any(begun) else {}
    steps: list[Step] = []
    for report, firing_id in zip(reports, ids, strict=True):
        firing = firings.get(firing_id)
        if firing is None or _outdated(firing, report):
            continue
        recall_id = firing.firing.recall_id
        others = [f for f in opens.get(recall_id, ()) if f.firing.id != firing_id]
        outcome = await _verified(tx, firing, report.outcome, now)
        if isinstance(outcome, PromptAccepted) and outcome.run_id is not None and outcome.run_id in starts:
            # It may have waited in the queue since it was accepted: its time limit counts from its start.
            started = starts[outcome.run_id]
            outcome = replace(outcome, queued=started is None, at=max(outcome.at, started or outcome.at))
        step = settle(recalls[recall_id], firing, outcome, now, others=others, last=last.get(recall_id))
        recalls[recall_id] = step.state
        if step.firing is not None:
            firings[firing_id] = step.firing
            opens[recall_id] = others if step.firing.firing.status.final else [*others, step.firing]
        steps.append(step)
    await tx.save_firings(firings[f.firing.id] for step in steps if (f := step.firing) is not None)
    await tx.advance_recalls(recalls[recall_id] for recall_id in {step.state.recall.id for step in steps})
    await append_notices(
        tx, [(part.state, part.notices) for step in steps for part in (step.earlier, step) if part], now
    )
    return tuple(steps)


async def settle_apart(store: RecallStore, reports: Sequence[Report], clock: Clock) -> tuple[Step, ...]:
    """:func:`settle_all` in a transaction. Where that fails, in halves, until what makes it fail is alone: its firing
    has failed, and holds up no other. Raises StoreError: then it is the database that refuses, and all of them wait.
    """
    try:
        return await store.write(lambda tx: settle_all(tx, reports, clock.now()))
    except StoreError:
        raise
    except Exception as error:
        if len(reports) > 1:
            middle = len(reports) // 2
            first = await settle_apart(store, reports[:middle], clock)
            return first + await settle_apart(store, reports[middle:], clock)
        report = reports[0]
        about = {"firing_id": report.firing_id, "command_id": report.command_id}
        if isinstance(report.outcome, Unrecorded):
            log.error("recall_given_up", **about, error=type(error).__name__)
            return ()
        log.exception("recall_not_recorded", **about, outcome=type(report.outcome).__name__)
        given_up = replace(report, outcome=Unrecorded(reason=UNRECORDED, of=report.outcome))
        return await settle_apart(store, [given_up], clock)


UNRECORDED = "its outcome could not be recorded; the server's log has the details"


async def _verified(tx: RecallTx, firing: FiringState, outcome: Outcome, now: datetime) -> Outcome:
    """What really became of it, as far as only the database knows.

    A run that its server's end interrupted may have changed something before. The prompt of a delivery that broke off
    may have been accepted all the same.

    Put back although it runs, it could be coalesced into the next one. After this no session can accept it any more:
    it is not claimed then. A session that answers that it is busy has not accepted it.
    """
    if isinstance(outcome, Ended) and outcome.run.status is RunStatus.INTERRUPTED:
        return RunInterrupted(run=outcome.run, tool=await tx.last_effect(outcome.run))
    doubtful = isinstance(outcome, Died) or (isinstance(outcome, Busy) and not outcome.session)
    return (await acceptance_of(tx, firing, now) if doubtful else None) or outcome


async def acceptance_of(tx: RecallTx, firing: FiringState, now: datetime) -> PromptAccepted | None:
    """That the session has the firing's prompt, if it has. The run of an attempt that is over does not count."""
    acceptance = await tx.acceptance(firing.session_id, firing.command_id)
    if acceptance is None or (acceptance.run_id is not None and acceptance.run_id == firing.firing.run_id):
        return None
    run = None if acceptance.run_id is None else await tx.run(acceptance.run_id)
    if run is None:
        return PromptAccepted(run_id=acceptance.run_id, at=now)
    queued = run.status is RunStatus.QUEUED
    return PromptAccepted(run_id=run.id, at=run.started_at or run.created_at, queued=queued)


def rescued(lost: Iterable[FiringState], *, server_id: str) -> list[Report]:
    """The outcomes of claims that were not finished in time. An own one has only waited: its server lives."""
    dead = Died(reason="its server died while it was delivered")
    slow = Busy(delay=timedelta(0), reason="its delivery took too long", session=False)
    return [
        Report(outcome=slow if state.lease_owner == server_id else dead, firing_id=state.firing.id, fence=state.fence)
        for state in lost
    ]


def _outdated(firing: FiringState, report: Report) -> bool:
    running, known = firing.firing.status is FiringStatus.RUNNING, firing.firing.run_id
    outcome = report.outcome.of if isinstance(report.outcome, Unrecorded) else report.outcome
    if isinstance(outcome, Ended):
        # A run's end is reported by its server and found by the sweep. By the second time the firing may wait for its
        # next attempt, or be in it.
        run_id = outcome.run.id
        if known not in (None, run_id) if running else known == run_id:
            return True
    elif running:
        return True  # the server that took the claim over has found its prompt
    elif isinstance(outcome, PromptAccepted) and known is not None and known == outcome.run_id:
        return True  # that run is over already: the firing waits for its next attempt, or is in it
    return firing.firing.status.final or (report.fence is not None and firing.fence != report.fence)


async def end_all(tx: RecallTx, ending: Sequence[tuple[RecallState, str]], now: datetime) -> list[RecallState]:
    """Cancel recalls, each for its reason; as they are then. Nothing more starts; a run in progress goes on.

    So does one whose prompt the session has accepted although that is not recorded yet.
    """
    opens = by_recall(await tx.open_firings([state.recall.id for state, _ in ending]))
    changed: list[FiringState] = []
    ended: list[RecallState] = []
    notices: list[tuple[RecallState, Sequence[RecallNotice]]] = []
    for before, why in ending:
        state, firings = before, opens[before.recall.id]
        for firing in firings:
            if decide(before.recall, firing, RecallCancelled(reason=why), now).to is not FiringStatus.CANCELLED:
                continue
            # Claimed, it may have been accepted just now by a server that has not recorded it.
            accepted = await acceptance_of(tx, firing, now) if firing.firing.status is FiringStatus.CLAIMED else None
            if accepted is None:
                changed.append(end(before.recall, firing, RecallCancelled(reason=why), now))
                continue
            step = settle(state, firing, accepted, now, others=[f for f in firings if f is not firing])
            state = step.state
            changed.append(firing if step.firing is None else step.firing)
            notices.append((state, step.notices))
        reason = None if why == CANCELLED else why
        ended.append(replace(state, due_at=None, recall=_cancelled(state.recall, reason)))
        notices.append((ended[-1], [RecallNotice(action="cancelled", reason=reason)]))
    await tx.save_firings(changed)
    await tx.save_recalls(ended)
    await append_notices(tx, notices, now)
    return ended


async def end_with_session(tx: RecallTx, session_id: str, now: datetime) -> list[RecallState]:
    """Cancel the recalls of a session that is deleted in this transaction; as they are then. Their ledger stays.

    Its runs go with it, so that of these firings no end is ever reported.
    """
    await tx.note_statuses(session_id)
    states = await tx.unfinished_in(session_id)
    gone = SessionDeleted(reason=SESSION_DELETED)
    opens = by_recall(await tx.open_firings([state.recall.id for state in states]))
    await tx.save_firings(end(state.recall, firing, gone, now) for state in states for firing in opens[state.recall.id])
    ended = [replace(state, due_at=None, recall=_cancelled(state.recall, SESSION_DELETED)) for state in states]
    await tx.save_recalls(ended)
    return ended


def _cancelled(recall: Recall, reason: str | None) -> Recall:
    """One that is over already stays as it ended: only its last run may have been in progress."""
    if recall.status.final:
        return recall
    return recall.but(status=RecallStatus.CANCELLED, next_at=None, reason=reason)


async def end_unwanted(tx: RecallTx, session_id: str, seen: Seen, now: datetime) -> Sequence[RecallState]:
    """Cancel the session's recalls that end because the user came; as they are then. A run in progress goes on."""
    ending = [(state, why) for state in await tx.ending_with(session_id) if (why := seen.ends(state.recall))]
    return await end_all(tx, ending, now) if ending else []


SESSION_DELETED = "session deleted"
SESSION_ARCHIVED = "session archived"  # Why a recall is paused that its user has not paused.
CANCELLED = "the recall was cancelled"  # The reason of those that a user cancels; their event has none.


async def _firings_of(tx: RecallTx, reports: Sequence[Report]) -> tuple[dict[str, FiringState], list[str]]:
    """The firings of the reports by id, with those beside them; and each report's firing id, empty where it has none.

    In the order of their times.
    """
    by_id = [report.firing_id for report in reports if report.firing_id is not None]
    by_command = [report.command_id for report in reports if report.command_id is not None]
    found = await tx.firings_beside(by_id, by_command) if reports else ()
    named = {state.command_id: state.firing.id for state in found}
    ids = [report.firing_id or named.get(report.command_id or "", "") for report in reports]
    return {state.firing.id: state for state in found}, ids
