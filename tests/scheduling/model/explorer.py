"""A seeded explorer: what happens next in a house of servers is drawn by lot, and then everything must come to rest."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from navi_jupyter.errors import InvalidSchedule, LimitReached, RecallOver
from navi_jupyter.model.recalls import Recall, RecallPatch, When
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.ports.recalls import Happened
from navi_jupyter.scheduling.scheduler import LEASE
from navi_jupyter.store.rows import from_micros
from tests.support.simulation import START, House, Violation

from .invariants import check_move, check_rest
from .overlaps import OFTEN, overlap
from .processes import Killed, Process
from .specs import TIMED, WHENS

SECOND = timedelta(seconds=1)
MOVES = 140
ROUNDS = 600
"""After so many rounds without faults everything must be over."""

CODES = ["provider", "provider", "needed_approval"]
ENDINGS = [RunStatus.COMPLETED, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.INTERRUPTED, RunStatus.TIMED_OUT]


TOOLS = ["run_cell", "write_file"]


@dataclass
class Told:
    """What histories had in them, for the report."""

    histories: int = 0
    moves: int = 0
    kills: int = 0
    firings: int = 0
    runs: int = 0
    orphans: int = 0
    """Runs that another server closed."""
    events: int = 0
    messages: int = 0
    waits: int = 0
    """Transactions that waited for one that was under way."""
    lost: int = 0
    """Connections that were lost at a COMMIT."""


class Explorer:
    """One history."""

    def __init__(self, house: House, seed: int, told: Told) -> None:
        self.house = house
        self.dice = random.Random(seed)
        self.told = told
        house.dice, house.told = self.dice, told
        self.stalled: dict[Process, timedelta] = {}
        self.steady = timedelta()
        """Time that has really passed: suspends and jumps of the clock do not count."""
        self.latest = START
        """What the clock has shown at most."""
        self.free_stores = list(house.stores)
        self.users = 0

    async def history(self) -> None:
        """Raises Violation."""
        dice, house = self.dice, self.house
        for _ in range(dice.randint(1, 3)):
            await house.add_session()
        for spec, rules in dice.sample(TIMED, dice.randint(1, 4)) + dice.sample(WHENS, dice.randint(0, 2)):
            await house.make(dice.choice(house.sessions), spec, rules)
        for _ in range(dice.randint(2, len(house.stores))):
            await self._start_process()
        for _ in range(MOVES):
            await self._one_thing()
            self.latest = max(self.latest, house.wall)
            await check_move(house)
        await self._come_to_rest()
        await check_rest(house)
        self.told.histories += 1
        counts = await house.users.fetch_one(
            "SELECT (SELECT count(*) FROM firings) AS firings, (SELECT count(*) FROM runs) AS runs,"
            " (SELECT count(*) FROM firings WHERE kind = 'event') AS events"
        )
        assert counts is not None
        self.told.firings += counts["firings"]
        self.told.runs += counts["runs"]
        self.told.events += counts["events"]
        self.told.messages += house.messages.sent.total()
        self.told.lost += house.contention.lost if house.contention is not None else 0

    # --- what can happen

    async def _one_thing(self) -> None:
        self.told.moves += 1
        if (contention := self.house.contention) and contention.overlaps and contention.lot.random() < OFTEN:
            await overlap(self)
        draw = self.dice.random()
        if draw < 0.62:
            await self._move_a_process()
        elif draw < 0.76:
            self._time_passes()
        elif draw < 0.86:
            await self._runs_go_on()
        elif draw < 0.90:
            self._something_happens()
        elif draw < 0.97:
            await self._user_acts()
        else:
            await self._fault()

    async def _start_process(self) -> None:
        store = self.free_stores.pop(self.dice.randrange(len(self.free_stores)))
        skew = SECOND * self.dice.choice([0, 0, -2, 2, 1])
        if self.house.contention is not None and self.house.contention.overlaps:
            skew = timedelta()  # it is not known on whose clock what happens at once is decided
        process = Process(self.house, store, skew)
        await process.register()
        self.house.processes.append(process)
        self.house.note(f"{process.id} starts, {skew.total_seconds():+.0f} s")
        process.begin(process.sweep())
        await self.guarded(process, process.until_gate())

    async def _move_a_process(self) -> None:
        able = list(filter(self.is_able, self.house.processes))
        if not able:
            self._time_passes()
            return
        process = self.dice.choice(able)
        if not process.busy:
            self._give_work(process)
            await self.guarded(process, process.until_gate())
            return
        lot = self.dice.random()
        if lot < 0.012:
            await self._kill(process, "there")
            return
        if lot < 0.03 and process.gate.place == "before a transaction":
            process.gate.fuse = self.dice.randrange(7)
        if lot > 0.99:
            stall = LEASE * 2 + SECOND * self.dice.randint(0, 9)
            self.stalled[process] = self.steady + stall
            self.house.note(f"{process.id} is stopped at {process.gate.place!r} for {stall}")
            return
        await self.guarded(process, process.move())

    def is_able(self, process: Process) -> bool:
        """Whether it is not stopped."""
        return self.stalled.get(process, timedelta()) <= self.steady

    def _give_work(self, process: Process) -> None:
        works: list[Callable[[], Any]] = [process.turn] * 6 + [process.prepare] * 2
        works += [process.sweep] + [process.tell_people] * (8 if self.house.to_tell else 1)
        if process.ended:
            works += [process.tell] * 6
        if process.reports:
            works += [process.settle] * 6
        if process.happenings:
            works += [process.happen] * 6
        if process.clock.now() - process.beaten_at >= 10 * SECOND or not process.trust.held:
            works += [process.beat] * 6
        self.house.holding = self.dice.random() < 0.2
        work = self.dice.choice(works)
        if work == process.tell_people:
            self.house.to_tell = max(0, self.house.to_tell - 1)
        process.begin(work())

    async def guarded(self, process: Process, moved: Awaitable[None]) -> None:
        """Move it; a fuse may kill it on the way."""
        self.house.acting = process
        self.house.note(f"{process.id} goes on from {process.gate.place!r}")
        try:
            await moved
        except Killed:
            await self._kill(process, "in a transaction")

    async def _kill(self, process: Process, where: str) -> None:
        self.told.kills += 1
        self.house.note(f"{process.id} is killed {where}, at {process.gate.place!r}")
        await process.die()
        self.house.processes.remove(process)
        self.free_stores.append(process.store)
        self.house.dead[process.id] = False
        if self.dice.random() < 0.5 or not self.house.processes:
            await self._start_process()

    def _time_passes(self) -> None:
        passed = SECOND * self.dice.choice([0.3, 1, 2, 5, 5, 11, 20, 60])
        self.house.wall += passed
        self.house.steady += passed.total_seconds()
        self.steady += passed

    async def _runs_go_on(self) -> None:
        """Runs write into the log, and end, where their servers can."""
        for process in self.house.processes:
            if not self.is_able(process):
                continue
            process.trust.check()
            for run in list(process.runs.values()):
                await self.house.acts(process, run)
            for run in [] if process.gate.refusing else list(process.runs.values()):
                self.house.acting = process
                stop = await self.house.to_stop(run)
                if self.dice.random() < 0.2:
                    await process.speak(run)
                if self.dice.random() < 0.2:
                    await self.house.effect(process, run, self.dice.choice(TOOLS))
                if self.dice.random() < (0.15 if run.id in process.acting else 0.4) or stop:
                    status = RunStatus.STOPPED if stop else self.dice.choice(ENDINGS)
                    code = self.dice.choice(CODES) if status is RunStatus.FAILED else None
                    self.house.note(f"{run.id} of {run.command_id} ends: {status}")
                    await self.house.end(run, status, told=self.dice.random() < 0.7, code=code)
                    await check_move(self.house)

    def _something_happens(self) -> None:
        """In a notebook: one or two servers see it, or the same one twice."""
        house, dice = self.house, self.dice
        whens = [recall for recall in house.recalls if isinstance(recall.schedule, When)]
        if not whens or not house.processes:
            return
        recall, key = dice.choice(whens), f"e{len(house.events)}"
        if house.events and dice.random() < 0.2:
            recall_id, key = dice.choice(sorted(house.events))  # once more, after a while
        else:
            recall_id = recall.id
        house.events.setdefault((recall_id, key), False)
        for process in dice.choices(house.processes, k=dice.randint(1, 2)):
            happened = Happened(recall_id=recall_id, key=key, at=process.clock.now(), detail="it went idle")
            process.happenings.append(happened)
        house.note(f"{key} happens, for {recall_id}")

    async def _user_acts(self) -> None:
        house, dice = self.house, self.dice
        house.acting = None
        recall = dice.choice(house.recalls)
        act = dice.choice(["stop", "pause", "pause", "resume", "resume", "resume", "fire", "again", "edit", "text",
                           "more", "write", "write", "look", "cancel", "cancel"])  # fmt: skip
        delivering = any(p.busy and p.gate.place == "before the session" for p in house.processes)
        ending = [recall for recall in house.recalls if recall.policy.cancel_on]
        if delivering and ending and dice.random() < 0.7:
            act, recall = dice.choice(["write", "look"]), dice.choice(ending)
        house.note(f"the user: {act} {recall.id}")
        with suppress(RecallOver, LimitReached, InvalidSchedule):
            await self._user_does(act, recall, house.owners[recall.id])

    async def _user_does(self, act: str, recall: Recall, owner: str) -> None:
        house, dice = self.house, self.dice
        match act:
            case "pause":
                await house.service.pause(recall.id, owner=owner)
            case "resume":
                await self._resume_all()
            case "fire":
                key = f"k{len(house.keys)}"
                await house.service.fire(recall.id, owner=owner, key=key)
                house.keys[recall.id, key] = 1
            case "again":
                for recall_id, key in list(house.keys)[-1:]:
                    await house.service.fire(recall_id, owner=house.owners[recall_id], key=key)
            case "edit" | "text" | "more":
                await self._user_edits(act, recall, owner)
            case "cancel" if dice.random() < 0.5:
                await house.service.cancel(recall.id, owner=owner)
                house.cancelled.add(recall.id)
            case "look":
                await house.user_reads(recall.session_id, told=dice.random() < 0.5)
            case "stop" if house.processes:
                self.users += 1
                process = house.acting = dice.choice(house.processes)
                await house.user_stops(recall.session_id, process, f"stop{self.users}")
            case _ if house.processes:
                self.users += 1
                process = dice.choice(house.processes)
                house.acting = process
                await house.user_writes(recall.session_id, process, f"user{self.users}", told=dice.random() < 0.5)

    async def _user_edits(self, act: str, recall: Recall, owner: str) -> None:
        house, dice = self.house, self.dice
        before = await house.state(recall.id)
        schedule, policy = before.recall.schedule, before.recall.policy
        patch = RecallPatch(message="look again")
        if act == "edit" and schedule.kind in ("every", "cron"):
            spec = dice.choice([{"kind": "every", "every": "40s"}, {"kind": "cron", "expr": "*/2 * * * *"}])
            patch = RecallPatch.model_validate({"schedule": spec})
        elif act == "more" and policy.max_fires is not None:
            patch = RecallPatch(policy=policy.but(max_fires=policy.max_fires + 2))
        await house.service.patch(recall.id, patch, owner=owner)
        await house.edited(before, anew=patch.schedule is not None)

    async def _resume_all(self) -> None:
        for recall in self.house.recalls:
            with suppress(RecallOver):
                await self.house.service.resume(recall.id, owner=self.house.owners[recall.id])

    async def _fault(self) -> None:
        house, dice = self.house, self.dice
        match dice.randrange(6):
            case 0:
                jump = dice.choice([-1, 1])
                house.wall += timedelta(hours=jump)
                house.set_back += jump < 0
            case 1:
                house.steady += 8 * 3600
                house.wall += timedelta(hours=8)  # suspended: nobody moved, and no time passed for the processes
            case 2:
                for dead in [server for server, noticed in house.dead.items() if not noticed]:
                    await house.users.write(lambda tx, server=dead: tx.forget_server(server))  # type: ignore[misc]
                    house.dead[dead] = True
            case 3 if self.free_stores:
                await self._start_process()
            case 4 if house.processes:
                process = dice.choice([one for one in house.processes if one.acting] or house.processes)
                process.gate.refusing = not process.gate.refusing
            case _ if house.processes:
                await self._kill(dice.choice(house.processes), "by the operator")
        house.note(f"a fault; it is {house.wall - START}")

    # --- the end

    async def _come_to_rest(self) -> None:
        """I9: the faults stop, users resume what they paused, runs end at once; in bounded time nothing is open."""
        house = self.house
        house.note("the faults stop")
        self.stalled.clear()
        house.holding, house.calm = False, True
        if house.contention is not None:
            house.contention.end()
        house.wall = self.latest  # the clock is right again, or an hour would have to pass first
        if not house.processes:
            await self._start_process()
        for process in house.processes:
            process.gate.refusing = False
            process.gate.fuse = None
        house.acting = None
        await self._resume_all()
        for round_number in range(ROUNDS):
            if await self._quiet_round() and round_number:
                return
        left = await house.users.firings_open([recall.id for recall in house.recalls])
        busy = [(p.id, len(p.ended), len(p.reports), list(p.runs), p.idle_turns) for p in house.processes]
        still = f"{[f.firing for f in left][:5]}, {busy}, {await self._waits_for()}"
        raise Violation(f"I9: at {house.wall - START} it has not come to rest: {still}")

    async def _quiet_round(self) -> bool:
        """Whether nothing is open any more."""
        house = self.house
        for process in list(house.processes):
            await self.finish(process)
            await check_move(house)
            for work in (process.beat, process.settle, process.sweep, process.turn, process.tell_people):
                while process.ended:
                    await self.whole(process, process.tell())
                while process.happenings:
                    await self.whole(process, process.happen())
                await self.whole(process, work())
                await check_move(house)
        for process in house.processes:
            for run in list(process.runs.values()):
                stop = await house.to_stop(run)
                await house.end(run, RunStatus.STOPPED if stop else RunStatus.COMPLETED, told=True)
        if any(p.ended or p.reports or p.runs or not p.idle_turns for p in house.processes):
            return False
        waits = await self._waits_for()
        if not waits:
            return True
        passed = max(house.wall, min(waits)) + SECOND - house.wall
        house.wall += passed
        house.steady += passed.total_seconds()
        return False

    async def _waits_for(self) -> list[datetime]:
        """When what is still open goes on; empty when nothing is."""
        house, now = self.house, self.house.wall
        waits = []
        if await house.active():
            waits.append(now + 10 * SECOND)  # of servers that died: their leases have to end
        left = await house.users.firings_open([recall.id for recall in house.recalls])
        if left or await house.users.due_recalls(now + SECOND * 2, limit=1):
            waits.append(await house.users.next_wake() or now)
        rows = await house.users.fetch_all(
            "SELECT coalesce(lease_until, 0) AS at FROM firings f WHERE delivery = 'pending' AND NOT EXISTS"
            " (SELECT 1 FROM notices WHERE firing_id = f.id AND status = 'pending')"
            " UNION ALL SELECT due_at FROM notices WHERE status = 'pending'"
        )
        waits += [max(now, from_micros(row["at"])) for row in rows]
        return waits

    async def finish(self, process: Process) -> None:
        while process.busy:
            self.house.acting = process
            await process.move()

    async def whole(self, process: Process, work: Any) -> None:
        self.house.acting = process
        process.begin(work)
        await process.until_gate()
        await self.finish(process)


async def explore(house: House, seed: int, told: Told, *, overlaps: bool = False) -> None:
    """One history; raises Violation with the seed and what happened. ``overlaps``: where the database can do that."""
    if house.contention is not None:
        house.contention.begin(seed, overlaps=overlaps)
    try:
        await Explorer(house, seed, told).history()
    except Violation as error:
        tail = "\n".join(house.trace[-80:])
        raise Violation(f"seed {seed}: {error}\n--- what happened, the last of it:\n{tail}") from None
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        await house.clear()


__all__ = ["Explorer", "Told", "explore"]
