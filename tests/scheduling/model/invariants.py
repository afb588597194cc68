"""What must hold: after every move (cheap), and when a history has come to rest (all of it): I1 to I14."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

from navi_jupyter.clock import timestamp
from navi_jupyter.model.recalls import Firing, FiringStatus, Recall, Schedule, When
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.scheduling import misfires, outcomes
from navi_jupyter.scheduling.decisions import MAX_CRASHES, SERVER_DIED
from navi_jupyter.scheduling.notices import LATE
from navi_jupyter.scheduling.schedules import count, next_after, slots
from navi_jupyter.store.rows import from_micros
from tests.support.simulation import START, House, Violation

from .telling import check_told

_TICK = timedelta(microseconds=1)
_FINAL = {status.value for status in FiringStatus if status.final}
BUSY = "the session is busy"
_REFUSALS = ("paused", "it waited until", "max_fires is reached", "it has happened already", "cooling down")
_LAST_WORD = {
    "succeeded": "fired", "failed": "failed", "cancelled": "cancelled", "skipped": "skipped", "expired": "missed",
}  # fmt: skip


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


# --- after every move -------------------------------------------------------------------------------------------------


async def check_move(house: House) -> None:
    """I3, I4, I6 and the leases, for the transitions that were committed since the last look."""
    require(not house.violations, "; ".join(house.violations))
    refusals = house.contention.refusals if house.contention is not None else []
    require(not refusals, f"P1: the database refuses what a server does: {refusals[:2]}")
    rows = await house.users.fetch_all("SELECT * FROM watched WHERE number > ? ORDER BY number", (house.seen,))
    for row in rows:
        house.seen = row["number"]
        if row["was"] is None:
            await _check_made(house, row)
        else:
            await _check_transition(house, row)
        require(row["crashes"] <= MAX_CRASHES, f"I6: {row['firing']} has died {row['crashes']} times")
    await house.messages.check(house.users, house.clock() + timedelta(hours=house.set_back), require)
    double = await house.users.fetch_all(
        "SELECT session_id FROM runs WHERE status IN ('running', 'waiting') GROUP BY session_id HAVING count(*) > 1"
    )
    require(not double, f"I3: two runs at once in {[row['session_id'] for row in double]}")


async def _check_made(house: House, row: Any) -> None:
    """I14: a slot starts when a preview of it would say, jitter included. I13: few missed ones of an owner at once."""
    if row["kind"] != "auto" or row["status"] not in ("pending", "claimed"):
        return
    slot, not_before = from_micros(row["slot"]), from_micros(row["not_before"])
    recall = (await house.state(row["recall"])).recall
    jitter = recall.policy.jitter
    following = next_after(recall.schedule, slot)
    expected = slot if jitter is None else slot + outcomes.jitter(recall.id, slot, jitter, following)
    require(following is None or expected < following, f"J1: {row['firing']} of {slot} starts after the next slot")
    spread = (row["reason"] or "").startswith("many were missed")
    require(not_before == expected or (spread and not_before > expected), f"I14: {row['firing']}: {not_before}")
    actor = house.actor(row)
    assert actor is not None
    now = actor.planned_at
    late, clamped = now - expected >= LATE, row["not_before"] == row["wait_until"]
    if not late or (spread and clamped):
        return
    starts = house.starts.setdefault((actor.id, house.owners[recall.id]), [])
    starts.append(max(now, not_before))
    at_once = max(Counter(starts).values())
    require(at_once <= misfires.AT_ONCE, f"I13: {at_once} missed slots of one owner start at once")
    near = sum(abs(at - starts[-1]) < misfires.APART for at in starts)
    require(near <= 2 * misfires.AT_ONCE, f"I13: {near} missed slots of one owner start within {misfires.APART}")


async def _check_transition(house: House, row: Any) -> None:
    firing, was, status = row["firing"], row["was"], row["status"]
    step = f"{firing}: {was} (fence {row['old_fence']}) became {status} (fence {row['fence']})"
    require(not row["moved"], f"{firing} changed its slot or recall")
    require(was not in _FINAL or was == status, f"a final status changed: {step}")
    grows = was != status and (was, status) != ("claimed", "running")
    require(row["fence"] >= row["old_fence"] + grows, f"I4: the fence does not grow: {step}")
    twice = was == status == "claimed" and row["fence"] > row["old_fence"]
    require(not twice, f"I4: taken from a server that has it: {step}")
    actor = house.actor(row)
    others = actor is not None and row["old_owner"] != actor.id
    if was == "claimed" and others and (status == "running" or row["rescued"]):
        ran_out = row["old_lease"] is None or from_micros(row["old_lease"]) < house.clock()
        ended = await house.users.fetch_one(
            "SELECT 1 FROM recalls r JOIN firings f ON f.recall_id = r.id WHERE f.id = ? AND r.status = 'cancelled'",
            (firing,),
        )
        begun = await house.users.fetch_one("SELECT server_id FROM runs WHERE id = ?", (row["run"],))
        if status == "running" and begun and actor is not None and begun["server_id"] == actor.id:
            return  # its prompt had waited in the session's queue, and began on another server than the one it came by
        if ended:
            return  # whoever finds that the user came ends all of it, and leaves what the session has accepted to run
        known = ran_out or await house.users.fetch_one("SELECT 1 FROM servers WHERE id = ?", (row["old_owner"],))
        require(ran_out or not known, f"I4: taken from a server whose lease was not over: {step}")


# --- at rest ----------------------------------------------------------------------------------------------------------


async def check_rest(house: House) -> None:
    """The rest of them, when nothing is open any more."""
    log = await _recall_events(house)
    for recall in house.recalls:
        state = await house.state(recall.id)
        rows, _ = await house.service.queries.ledger(recall.id, owner=house.owners[recall.id], limit=10_000)
        made = await house.users.fetch_all(
            "SELECT id, number, key, wait_until, command_id, run_id,"
            " (SELECT count(DISTINCT run) FROM watched WHERE firing = firings.id) AS runs, crashes"
            " FROM firings WHERE recall_id = ?"
            " ORDER BY number",
            (recall.id,),
        )
        try:
            _check_limits(house, state.recall, [row for row in rows if row.kind != "manual"])
            _check_accounts(house, state, [row for row in rows if row.kind == "auto"])
            _check_counts(state.recall, rows)
            _check_events(house, state.recall, rows, made)
            edited = len(house.segments[recall.id]) > 1 and house.set_back > 0
            await check_told(house.messages, house.users, state.recall, rows, require, edited=edited)
            details = {row["id"]: row for row in made}
            for row in rows:
                _check_outcome(house, state.recall, row, details[row.id])
                if len([other for other in rows if other.slot == row.slot]) == 1:  # events tell firings by slot
                    _check_words(row, log[recall.id], details[row.id])
            await _check_runs(house, recall, rows, details)
            await _check_unanswered(house, recall, rows)
            await _check_interrupted(house, state.recall, rows, details)
            _check_manual(house, recall, rows)
        except Violation as error:
            raise Violation(f"{error}\n{_shown(state, rows)}") from None
    await _check_log(house)
    audit = await house.users.audit_recalls(house.wall)
    wrong = (audit.overdue, audit.stuck, audit.orphans, audit.aimless)
    require(wrong == (0, 0, 0, 0), f"A1: the audit finds {audit}")


async def _check_log(house: House) -> None:
    """I4: a run that was closed, by whomever, has one end in the log, and nothing of it comes after that. L1: a log
    has no gaps. L2: nothing stands in it twice."""
    rows = await house.users.fetch_all("SELECT session_id, seq, frame FROM events ORDER BY session_id, seq")
    heads = {row["id"]: row["head_seq"] for row in await house.users.fetch_all("SELECT id, head_seq FROM sessions")}
    numbers = Counter(row["session_id"] for row in rows)
    last = {row["session_id"]: row["seq"] for row in rows}
    for session, head in heads.items():
        require((numbers[session], last.get(session, 0)) == (head, head), f"L1: {session} has gaps before {head}")
    words = Counter(json.loads(row["frame"])["event"].get("value", {}).get("word") for row in rows)
    del words[None]
    require(not words or max(words.values()) == 1, f"L2: in the log twice: {[w for w, n in words.items() if n > 1]}")
    ended: set[str] = set()
    for row in rows:
        frame = json.loads(row["frame"])
        run_id, kind = frame.get("run_id"), frame["event"]["type"]
        if run_id is None:
            continue
        require(run_id not in ended, f"I4: {run_id} writes {kind} after its end")
        if kind in ("RUN_FINISHED", "RUN_ERROR"):
            ended.add(run_id)
    runs = await house.users.fetch_all("SELECT id FROM runs WHERE started_at IS NOT NULL")
    left = {row["id"] for row in runs} - ended
    require(not left, f"I4: without an end in the log: {sorted(left)}")


def _shown(state: RecallState, rows: Sequence[Firing]) -> str:
    recall = state.recall
    head = f"  {recall.id} {recall.schedule!r} {recall.policy.model_dump(exclude_defaults=True)}"
    lines = [f"{head}\n  {recall.status} planned={state.planned} due={state.due_at} outcome={state.outcome}"]
    lines += [
        f"    {row.id} {row.kind} {row.slot - START} {row.status} ({row.reason}) attempt={row.attempt}"
        f" coalesced={row.coalesced} run={row.run_id}"
        for row in reversed(rows)
        if row.status is not FiringStatus.COALESCED or row.coalesced
    ]
    return "\n".join(lines)


def _check_limits(house: House, recall: Recall, rows: list[Firing]) -> None:
    """I7: not more than there may be, none after the end, none short."""
    limits = recall.policy
    started = sum(row.started_at is not None for row in rows)
    require(limits.max_fires is None or started <= limits.max_fires, f"I7: {started} of {limits.max_fires} ran")
    require(limits.until is None or all(row.slot <= limits.until for row in rows if _fired(row)), "I7: after the end")
    if limits.max_fires is not None and recall.status == "fired" and recall.id not in house.cancelled:
        require(started == limits.max_fires, f"I7: one short: {started} of {limits.max_fires}")


def _fired(row: Firing) -> bool:
    """Not only written down: an event may come after the end."""
    return row.kind == "auto" or row.started_at is not None


def _check_accounts(house: House, state: RecallState, rows: list[Firing]) -> None:
    """I1, I2, I11, I14: each nominal time once, on the grid, none forgotten."""
    recall, limits = state.recall, state.recall.policy
    segments = house.segments[recall.id]
    require(len({row.slot for row in rows}) == len(rows), "I2: a slot is there twice")
    if isinstance(recall.schedule, When):
        require(not rows, "I14: a slot of a recall that has none")
        return
    nominal: set[datetime] = set()
    total = 0
    for segment in segments:
        end = segment.end or state.due_at or _after_last(segment.schedule, rows)
        if segment.first is None or end is None:
            continue  # it had no slot, or none came
        nominal |= set(takewhile(end.__gt__, slots(segment.schedule, segment.first - _TICK)))
        total += count(segment.schedule, segment.first - _TICK, end - _TICK) if end > segment.first else 0
    beside = [row.slot for row in rows if row.slot not in nominal]
    require(not beside, f"I14: not on the grid: {beside}")
    accounted = sum(1 + row.coalesced for row in rows)
    # Two schedules that follow each other share slots only where the clock was set back in between (by the hour, or
    # by the skew of who edits against who plans). Such a slot has one row, but may be counted for both.
    # How far the last one had come when it was over is not known after that: rows of one before may be later.
    known = state.due_at is not None or len(segments) == 1 or not house.set_back
    least = len(nominal) if known else len(rows)
    require(least <= accounted <= total, f"I1: {len(nominal)} slots have come, {accounted} are accounted for")
    if rows and len(segments) == 1:
        following = next_after(recall.schedule, max(row.slot for row in rows))
        if state.due_at is not None:
            require(state.due_at == following, f"I11: the next slot is {following}")
        elif recall.status != "cancelled" and (limits.max_fires is None or state.planned < limits.max_fires):
            over = following is None or (limits.until is not None and following > limits.until)
            require(over, f"I7: it has ended before {following}")


def _after_last(schedule: Schedule, rows: Sequence[Firing]) -> datetime | None:
    """The first slot that is not in the ledger of a recall that is over."""
    if not rows:
        return None
    last = max(row.slot for row in rows)
    return next_after(schedule, last) or last + _TICK


def _check_counts(recall: Recall, rows: Sequence[Firing]) -> None:
    """What the recall says of itself is what its ledger says."""
    started = [row for row in rows if row.started_at is not None]
    require(recall.fired == len(started), f"it says that it fired {recall.fired} times; the ledger {len(started)}")


def _check_events(house: House, recall: Recall, rows: Sequence[Firing], made: Sequence[Any]) -> None:
    """E1 to E4: each thing that happened has one row; none within the cooldown, after the end, or too many."""
    schedule, limits = recall.schedule, recall.policy
    keys = Counter(row["key"] for row in made if row["key"] and (recall.id, row["key"]) in house.events)
    require(not keys or max(keys.values()) == 1, f"E1: in the ledger twice: {keys}")
    events = {row.id: row for row in rows if row.kind == "event"}
    require(len(events) == keys.total(), "E1: a row of nothing that happened")
    fires = {key for (recall_id, key), fired in house.events.items() if recall_id == recall.id and fired}
    require(fires <= set(keys), f"E1: it was said that they fire: {fires - set(keys)}")
    if not isinstance(schedule, When):
        return
    fired = sorted(row.slot for row in events.values() if row.started_at or row.status is FiringStatus.COALESCED)
    pause = schedule.cooldown or timedelta(seconds=1)
    near = [(one, two) for one, two in pairwise(fired) if two - one < pause]
    require(not near or schedule.repeat == "once", f"E2: within {pause} both fire: {near}")
    require(limits.until is None or all(slot <= limits.until for slot in fired), "E3: one fires after the end")
    ran = [row for row in events.values() if row.started_at is not None]
    most = 1 if schedule.repeat == "once" else limits.max_fires
    require(most is None or len(ran) <= most, f"E4: {len(ran)} ran, {most} may")


def _check_outcome(house: House, recall: Recall, row: Firing, made: Any) -> None:
    """I6, and that the reason given is one that this recall's history can have."""
    require(row.status.final, f"I9: {row.id} is {row.status}")
    require(row.attempt <= recall.policy.retries, f"I6: attempt {row.attempt} of {recall.policy.retries}")
    require((row.run_id is None) == (row.started_at is None), f"{row.id} has a run or a start, not both")
    ran, why = row.run_id is not None, row.reason or ""
    if row.started_at is not None and row.kind == "auto":
        require(row.status is not FiringStatus.MISSED, "it ran and was missed")
    match row.status:
        case FiringStatus.SUCCEEDED:
            require(ran, "succeeded without a run")
        case FiringStatus.CANCELLED:
            by_user = recall.id in house.cancelled and why == "the recall was cancelled"
            came = (
                recall.status == "cancelled"
                and {"you wrote in the session": "user_message", "you have read the session": "read"}.get(why)
                in recall.policy.cancel_on
            )
            require(by_user or came or (ran and why == "its run was stopped"), f"nobody cancelled {row.id}: {why}")
        case FiringStatus.SKIPPED if row.kind == "event" and why != BUSY:
            require(not ran and why.startswith(_REFUSALS), f"{row.id} must not be skipped: {why}")
        case FiringStatus.SKIPPED:
            busy = why == BUSY and recall.policy.busy == "skip"
            require(busy or why == "max_fires is reached", f"{row.id} must not be skipped: {why}")
        case FiringStatus.EXPIRED:
            # That it is too late was decided when its delivery began (checked there), and written down after that:
            # the clock may have been set back in between. That it has waited for too long is decided as it is written.
            back = timedelta(hours=0 if why.endswith("for too long") else house.set_back)
            until = from_micros(made["wait_until"])
            require(row.ended_at is not None and row.ended_at + back >= until, f"{row.id} expired early: {why}")
        case FiringStatus.COALESCED:
            require(not ran, f"{row.id} ran and is coalesced")
        case FiringStatus.MISSED:
            require(
                recall.policy.grace is not None or recall.policy.misfire == "skip", f"missed without a grace: {why}"
            )
        case _:
            require(bool(why), f"{row.id} is {row.status} without a reason")


async def _recall_events(house: House) -> dict[str, list[tuple[str, str]]]:
    """(slot, action) of each recall's events, in the order of the log."""
    rows = await house.users.fetch_all(
        "SELECT frame FROM events WHERE frame LIKE '%\"navi.recall\"%' ORDER BY session_id, seq"
    )
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        value = json.loads(row["frame"])["event"]["value"]
        found[value["recall"]["id"]].append((value.get("slot", ""), value["action"]))
    return found


def _check_words(row: Firing, events: list[tuple[str, str]], made: Any) -> None:
    """I10, E2: what the session was told last is what the ledger says; each attempt was said to start once."""
    if row.status not in _LAST_WORD:
        return  # several missed or coalesced slots share one event
    slot = timestamp(row.slot)
    said = [action for at, action in events if at == slot]
    if row.status is FiringStatus.SKIPPED and row.reason == "max_fires is reached":
        return
    if row.status is FiringStatus.CANCELLED and row.reason != "its run was stopped":
        return  # the recall's end was said
    if row.status is FiringStatus.SKIPPED and row.kind == "event" and row.reason != BUSY:
        require(said[-1:] == ["skipped"], f"I10: nothing was said of {row.id} ({row.reason})")
        return
    require(bool(said), f"I10: nothing was said of {row.id} ({row.status})")
    if row.kind != "manual":
        require(said[-1] == _LAST_WORD[row.status], f"I10: {row.id} is {row.status}, said was {said}")
        starts = said.count("started")
        require(starts == made["runs"], f"I10: {row.id} is said to start {starts} times")


async def _check_runs(house: House, recall: Recall, rows: Sequence[Firing], made: Mapping[str, Any]) -> None:
    """I5: a run for each attempt that started, once; none for what did not."""
    found = await house.users.fetch_all("SELECT id, command_id FROM runs WHERE recall_id = ?", (recall.id,))
    owners = await house.users.fetch_all("SELECT id, command_id FROM firings WHERE recall_id = ?", (recall.id,))
    bases = {_base(row["command_id"]): row["id"] for row in owners}
    runs = Counter(bases.get(_base(row["command_id"]), row["command_id"]) for row in found)
    for row in rows:
        require(
            runs[row.id] == made[row.id]["runs"] and (runs[row.id] > 0) == (row.started_at is not None),
            f"I5: {row.id} is {row.status} ({row.reason}) at attempt {row.attempt} and has {runs[row.id]} runs",
        )
    strangers = set(runs) - {row.id for row in rows}
    require(not strangers, f"I5: runs that no firing knows: {strangers}")
    ids = [row.run_id for row in rows if row.run_id is not None]
    require(len(set(ids)) == len(ids), "I5: two firings share a run")


async def _check_unanswered(house: House, recall: Recall, rows: Sequence[Firing]) -> None:
    """Q1: a firing whose run needed approval has failed, says what it needed, and is not tried again."""
    found = await house.users.fetch_all(
        "SELECT id FROM runs WHERE recall_id = ? AND error_code = 'needed_approval'", (recall.id,)
    )
    needed = {run["id"] for run in found}
    ended = {row.run_id: row for row in rows if row.run_id in needed}
    require(needed == set(ended), f"Q1: tried again: {sorted(needed - set(ended))}")
    for row in rows:
        says = row.status is FiringStatus.FAILED and row.reason == "needed approval: run_code"
        require(says == (row.run_id in needed), f"Q1: {row.id} is {row.status} ({row.reason}), its run {row.run_id}")


async def _check_interrupted(house: House, recall: Recall, rows: Sequence[Firing], made: Mapping[str, Any]) -> None:
    """R1 to R4: a run that its server's end cut is started again under the same message, if it had done nothing."""
    found = await house.users.fetch_all(
        "SELECT id, command_id, status, stop_command_id FROM runs WHERE recall_id = ? ORDER BY number", (recall.id,)
    )
    attempts: dict[str, list[Any]] = defaultdict(list)
    for run in found:
        attempts[run["command_id"]].append(run)
    for command, runs in attempts.items():
        for run in runs[:-1]:
            require(run["status"] == "interrupted", f"R1: {run['id']} is {run['status']}, and {command} was run again")
            require(run["id"] not in house.effects, f"R1: {run['id']} had done something, and was started again")
            require(run["stop_command_id"] is None, f"R1: {run['id']} was stopped by the user, and started again")
        require(len(runs) <= MAX_CRASHES + 1, f"R3: {command} was run {len(runs)} times")
    said = await house.users.fetch_all(
        "SELECT json_extract(frame, '$.event.messageId') AS id, count(*) AS times FROM events"
        " WHERE json_extract(frame, '$.event.role') = 'user' GROUP BY 1 HAVING count(*) > 1"
    )
    require(not said, f"R2: prompts in the log more than once: {[row['id'] for row in said]}")
    for row in rows:
        why = row.reason or ""
        if why.startswith("interrupted after "):
            tool = house.effects.get(row.run_id or "")
            require(why == f"interrupted after {tool}", f"R4: {row.id} is {why}; its run has started {tool}")
        elif row.status is FiringStatus.FAILED and why in (SERVER_DIED, "interrupted"):
            given_up = made[row.id]["crashes"] >= MAX_CRASHES or recall.status.final
            require(given_up, f"R4: {row.id} was interrupted, had done nothing, and was not started again")
            require(row.run_id not in house.effects, f"R4: {row.id} does not say what its run had done")


def _base(command_id: str) -> str:
    """Without the attempt."""
    head, mark, tail = command_id.rpartition(":r")
    return head if mark and tail.isdigit() else command_id


def _check_manual(house: House, recall: Recall, rows: Sequence[Firing]) -> None:
    """S4: one firing for each key, however often it was asked for."""
    keys = sum(1 for owner, _ in house.keys if owner == recall.id)
    manual = [row for row in rows if row.kind == "manual"]
    require(len(manual) == keys, f"S4: {keys} manual firings were asked for, {len(manual)} are there")
