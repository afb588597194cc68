"""Moves of two servers at once, on PostgreSQL: one is stopped within a transaction, after any of its statements, and
the other one goes on until it has done what it began or waits for a lock of the first; then the first goes on, too."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .invariants import check_move

if TYPE_CHECKING:
    from .explorer import Explorer
    from .processes import Process

Moves = tuple[Coroutine[Any, Any, Any], Coroutine[Any, Any, Any]]
OFTEN = 0.2
"""Of the moves of a history in which transactions overlap."""
AFTER = (0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 11)
"""Statements after which a transaction is stopped: most have few."""
LEASE_IS_OVER = timedelta(seconds=40)
_BEFORE = ("before a transaction", "before the session")


async def overlap(explorer: Explorer) -> None:
    """One of these moves. Without effect where there are no two servers that can be moved."""
    house = explorer.house
    assert house.contention is not None
    lot = house.contention.lot
    able = [process for process in house.processes if explorer.is_able(process) and not process.gate.refusing]
    if len(able) < 2:
        return
    one, other = lot.sample(able, 2)
    kind = lot.choice(["claims", "claims", "log", "fence", "cut", "any", "any"])
    if kind == "cut":
        await _cut(explorer, one)
        return
    moves = await _moves(explorer, kind, one, other)
    if moves is None:
        return
    house.note(f"{one.id} and {other.id} at once: {kind}")
    pause = house.contention.pause(one.store, lot.choice(AFTER[:5] if kind == "fence" else AFTER))
    first, reached = asyncio.ensure_future(moves[0]), asyncio.ensure_future(pause.reached.wait())
    await asyncio.wait({first, reached}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if kind == "fence":
        house.wall += LEASE_IS_OVER
        house.steady += LEASE_IS_OVER.total_seconds()
        explorer.steady += LEASE_IS_OVER
    second = asyncio.ensure_future(moves[1])
    if not first.done() and not await house.contention.until_done_or_blocked(second):
        house.note(f"{other.id} waits for {one.id}")
        explorer.told.waits += 1
    house.contention.disarm()
    await asyncio.gather(first, second)
    house.overlapped = True
    await check_move(house)
    house.overlapped = False


async def _cut(explorer: Explorer, process: Process) -> None:
    """What runs write into logs is offered again after an error: not what is stored, although no answer came."""
    assert explorer.house.contention is not None
    for run in list(process.runs.values()):
        explorer.house.acting = process
        explorer.house.contention.cut(process.store)
        await process.speak(run)
        explorer.house.contention.disarm()
        await check_move(explorer.house)


async def _moves(explorer: Explorer, kind: str, one: Process, other: Process) -> Moves | None:
    """What the two are about to do; None if they cannot."""
    house = explorer.house
    assert house.contention is not None
    lot = house.contention.lot
    if kind == "log":
        session = lot.choice(house.sessions)
        explorer.users += 2
        names = f"user{explorer.users - 1}", f"user{explorer.users}"
        return (
            house.user_writes(session, one, names[0], told=False),
            house.user_writes(session, other, names[1], told=False),
        )
    if kind == "fence":
        if not one.runs:
            return None
        await explorer.finish(other)
        run = lot.choice(list(one.runs.values()))
        return one.speak(run), explorer.whole(other, other.beat())
    for process in (one, other):
        if not process.busy and kind == "claims":
            process.begin(process.turn())
            await explorer.guarded(process, process.until_gate())
        while process.busy and process.gate.place not in _BEFORE:
            await explorer.guarded(process, process.move())
            await check_move(house)
    if not (one.busy and other.busy and one in house.processes and other in house.processes):
        return None
    return explorer.guarded(one, one.move()), explorer.guarded(other, other.move())
