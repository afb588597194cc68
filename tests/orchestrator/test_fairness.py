"""Who gets a place when there are fewer than wanted: people before recalls, and every user in turn."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from navi_jupyter.clock import now
from navi_jupyter.commands import Prompt
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.model.sessions import SessionCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.orchestrator.run_slots import INTERACTIVE_IN_A_ROW, RunSlots, SlotRequest, reserved
from navi_jupyter.ports.agent import ToolContext, Turn, TurnResult
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.settings import Settings
from navi_jupyter.store.database import Database
from tests.support.database import open_store

if TYPE_CHECKING:
    from navi_jupyter.events import Event

PLACES = 8
FOR_RECALLS = PLACES - reserved(PLACES)


async def eventually(condition: Callable[[], bool]) -> None:
    """Let others work until it is true; five hundred runs take their time on a loaded machine."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# --- by itself -------------------------------------------------------------------------------------------------------


def recall(session_id: str, owner: str = "ada") -> SlotRequest:
    return SlotRequest(session_id, owner, background=True)


def person(session_id: str, owner: str = "ada") -> SlotRequest:
    return SlotRequest(session_id, owner)


def full(limit: int) -> tuple[RunSlots, list[str]]:
    """All places taken by recalls of ada, as far as they get them, and by ada; and who is called from then on."""
    called: list[str] = []
    slots = RunSlots(limit, called.append)
    for number in range(limit - reserved(limit)):
        assert slots.take(recall(f"r{number}"))
    for number in range(reserved(limit)):
        assert slots.take(person(f"p{number}"))
    return slots, called


def test_a_burst_of_recalls_leaves_places_for_people() -> None:
    slots = RunSlots(PLACES, lambda _: None)
    assert [slots.take(recall(f"r{n}")) for n in range(PLACES)] == [True] * FOR_RECALLS + [False]
    assert slots.take(person("p"))
    assert not slots.take(person("q"))


def test_with_one_place_recalls_get_it_too() -> None:
    slots = RunSlots(1, lambda _: None)
    assert slots.take(recall("r"))
    assert not slots.take(person("p"))


def test_an_owner_with_fewer_places_comes_before_one_who_has_waited_longer() -> None:
    slots, called = full(PLACES)
    for number in range(100):
        slots.wait(recall(f"a{number}"))
    slots.wait(recall("b0", "bob"))
    slots.wait(recall("b1", "bob"))
    slots.wait(recall("c0", "cleo"))
    for number in range(5):
        slots.give_back(f"r{number}")
    # Five of ada's seven have gone, one at a time; whoever has none is first, then whoever has fewest.
    assert called == ["b0", "c0", "b1", "a0", "a1"]


def test_of_four_places_three_go_to_people_and_one_to_a_recall() -> None:
    slots, called = full(PLACES)
    for number in range(20):
        slots.wait(recall(f"w{number}"))
        slots.wait(person(f"q{number}"))
    for number in range(FOR_RECALLS):
        slots.give_back(f"r{number}")
    assert INTERACTIVE_IN_A_ROW == 3
    assert [name[0] for name in called] == ["q", "q", "q", "w", "q", "q", "q"]


def test_who_comes_to_wait_at_the_screen_for_a_session_that_waits_patiently_is_called_before_recalls() -> None:
    slots, called = full(PLACES)
    for name in ("one", "two", "three"):
        slots.wait(recall(name))
    slots.wait(person("three"))
    slots.wait(recall("three"))  # the recall asks again; somebody still waits
    slots.give_back("r0")
    slots.give_back("r1")
    assert called == ["three", "one"]


def test_what_was_kept_for_one_who_has_gone_is_the_next_ones() -> None:
    slots, called = full(PLACES)
    slots.wait(recall("one"))
    slots.wait(recall("two"))
    slots.give_back("r0")
    assert called == ["one"]
    assert slots.kept("one") == recall("one")
    slots.renounce("one")
    assert called == ["one", "two"]
    assert not slots.expects("one")
    assert slots.take(recall("two"))
    slots.renounce("two")
    assert not slots.take(recall("one")), "two has taken its place and does not lose it by not waiting"


def test_whatever_is_done_no_more_places_are_given_than_there_are_and_nobody_waits_in_vain() -> None:
    dice = random.Random(7)
    for limit in (1, 2, 3, 8, 20):
        called: list[str] = []
        slots = RunSlots(limit, called.append)
        taken: dict[str, SlotRequest] = {}
        waiting: dict[str, SlotRequest] = {}
        for _ in range(3000):
            _one_move(dice, slots, taken, waiting, called)
            kept = [claimant for claimant in waiting.values() if slots.kept(claimant.session_id)]
            inside = [*taken.values(), *kept]
            assert len(inside) <= limit
            patient = sum(claimant.background for claimant in inside)
            assert patient <= limit - reserved(limit)
            for claimant in waiting.values():
                if slots.kept(claimant.session_id) is None:
                    assert slots.waits(claimant.session_id)
                    full_up = len(inside) == limit or (claimant.background and patient == limit - reserved(limit))
                    assert full_up, f"{claimant} waits although there is room"
        for session_id in list(taken):
            slots.give_back(session_id)
        for session_id in list(waiting):
            slots.renounce(session_id)
        assert slots._free == limit
        assert slots._free_for_background == limit - reserved(limit)
        assert not slots._lines[True].served
        assert not slots._lines[False].served


def _one_move(
    dice: random.Random,
    slots: RunSlots,
    taken: dict[str, SlotRequest],
    waiting: dict[str, SlotRequest],
    called: list[str],
) -> None:
    name = f"s{dice.randrange(40)}"
    claimant = SlotRequest(name, dice.choice("abc"), background=dice.random() < 0.7)
    called.clear()
    match dice.randrange(4):
        case 0 if name not in taken and (name not in waiting or slots.kept(name)):
            if slots.take(claimant):
                taken[name] = waiting.pop(name, claimant)
        case 1 if name not in taken:
            before = waiting.get(name)
            slots.wait(claimant)
            if before is None or (before.background and not claimant.background and not slots.kept(name)):
                waiting[name] = claimant
            if (kept := slots.kept(name)) is not None:
                waiting[name] = kept
        case 2 if taken:
            gone = dice.choice(sorted(taken))
            del taken[gone]
            slots.give_back(gone)
        case 3:
            waiting.pop(name, None)
            slots.renounce(name)


# --- a burst on a real orchestrator ----------------------------------------------------------------------------------


@dataclass
class Gate:
    """An agent loop that says who came, and goes on when it is let."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    came: list[str] = field(default_factory=list)
    """Owners, in the order in which their runs began."""
    running: int = 0
    most: int = 0

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        self.came.append(f"{context.user_id}:{turn.origin.kind}")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            yield TurnResult(conversation=b"{}")
        finally:
            self.running -= 1


@dataclass
class Burst:
    """An orchestrator with its scheduler, and what was asked of it."""

    store: Database
    orchestrator: Orchestrator
    gate: Gate
    service: RecallService

    async def session(self, owner: str) -> str:
        return (await self.orchestrator.sessions.create(SessionCreate(), owner=owner)).id

    async def recalls(self, owner: str, count: int, **policy: Any) -> None:
        """Each in a session of its own, all due in a moment."""

        async def one() -> None:
            fields = {"session_id": await self.session(owner), "message": "look", "policy": policy}
            at = now() + timedelta(milliseconds=20)  # not earlier: five hundred sessions may take seconds
            request = RecallCreate.model_validate(fields | {"schedule": {"kind": "once", "at": at.isoformat()}})
            await self.service.create(request, owner=owner, zone="UTC")

        await asyncio.gather(*(one() for _ in range(count)))

    async def delivered(self, count: int) -> None:
        """Return once so many firings have their runs, in progress or queued."""
        async with asyncio.timeout(60):
            while True:
                rows = await self.store.fetch_all("SELECT count(*) AS n FROM runs WHERE recall_id IS NOT NULL")
                if rows[0]["n"] >= count:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def burst(folder: Path) -> AsyncIterator[Burst]:
    store = await open_store(folder / "navi.db")
    try:
        gate = Gate()
        orchestrator = Orchestrator(store, gate, settings=Settings(max_concurrent_runs=PLACES))
        scheduler = Scheduler(store, orchestrator.submit, server_id=orchestrator.server.id)
        service = RecallService(store, changed=scheduler.wake)
        await orchestrator.start(service, scheduler.on_run_ended)
        try:
            async with scheduler:
                yield Burst(store, orchestrator, gate, service)
        finally:
            await orchestrator.stop()
    finally:
        await store.close()


async def test_five_hundred_due_recalls_of_one_user_do_not_hold_back_anothers_one(tmp_path: Path) -> None:
    async with burst(tmp_path) as b:
        await b.recalls("ada", 500)
        await b.delivered(500)
        await eventually(lambda: b.gate.running == FOR_RECALLS)
        await b.recalls("bob", 1)
        await b.delivered(501)
        assert b.gate.came == ["ada:recall"] * FOR_RECALLS
        b.gate.open.set()
        await eventually(lambda: len(b.gate.came) == 501)
        # His is the first that was called; those that were called in the same moment may have begun before it.
        assert b.gate.came.index("bob:recall") < 2 * PLACES
        assert b.gate.most <= PLACES
        assert Counter(b.gate.came) == {"ada:recall": 500, "bob:recall": 1}


async def test_who_prompts_during_a_burst_of_recalls_gets_an_answer_at_once_and_then_before_them(
    tmp_path: Path,
) -> None:
    async with burst(tmp_path) as b:
        await b.recalls("ada", 100)
        await b.delivered(100)
        await eventually(lambda: b.gate.running == FOR_RECALLS)
        prompts = [(await b.session("ada"), Prompt(text="now")) for _ in range(4)]
        for session_id, prompt in prompts:
            await b.orchestrator.submit(session_id, prompt, user_id="ada")
        await eventually(lambda: b.gate.running == PLACES)
        assert b.gate.came[FOR_RECALLS:] == ["ada:user"], "the place that recalls do not get"
        b.gate.open.set()
        await eventually(lambda: len(b.gate.came) == 104)
        last = max(number for number, who in enumerate(b.gate.came) if who == "ada:user")
        assert last < 3 * PLACES, "people wait for no more than a few recalls"


async def test_a_prompt_in_a_session_whose_recall_still_waits_brings_that_session_forward(tmp_path: Path) -> None:
    async with burst(tmp_path) as b:
        await b.recalls("ada", 60, busy="queue")
        await b.delivered(60)
        await eventually(lambda: b.gate.running == FOR_RECALLS)
        waiting = await b.store.fetch_all("SELECT session_id FROM runs WHERE status = 'queued' ORDER BY number DESC")
        blocker = await b.session("ada")
        await b.orchestrator.submit(blocker, Prompt(text="now"), user_id="ada")  # takes what is reserved
        await eventually(lambda: b.gate.running == PLACES)
        wanted = waiting[0]["session_id"]
        await b.orchestrator.submit(wanted, Prompt(text="now"), user_id="ada")
        b.gate.open.set()
        await eventually(lambda: len(b.gate.came) == 62)
        assert max(number for number, who in enumerate(b.gate.came) if who == "ada:user") < 4 * PLACES
