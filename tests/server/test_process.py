"""The process that the server shares: what is seen of its loop and its collector; collections and imports when idle."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.agent.run.backend import _NEEDED, ModelPackages
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.server import lifecycle
from navi_jupyter.server.lifecycle import Lifecycle
from navi_jupyter.server.process import garbage_collection, measures
from navi_jupyter.server.process.garbage_collection import RARER, GarbageCollection
from navi_jupyter.server.process.measures import GcPauses, Histogram, LoopLag
from navi_jupyter.settings import Settings

# --- the loop


async def hold_up(lag: LoopLag) -> None:
    """20 ms in one turn of the loop, while it is watched."""
    watch = asyncio.create_task(lag.watch())
    await asyncio.sleep(0.01)
    time.sleep(0.02)  # noqa: ASYNC251 - somebody hogs the loop
    await asyncio.sleep(0.01)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_turns_of_the_loop_are_seen_without_a_timer_and_the_selector_gets_its_method_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LoopLag, "_sleep", None)  # called, it would fail
    lag, selector = LoopLag(), measures._selector_of(asyncio.get_running_loop())
    task = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    assert (lag.method, "select" in vars(selector)) == ("selector", True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (lag.method, "select" in vars(selector)) == ("none", False)
    await hold_up(lag)
    assert lag.milliseconds >= 15
    counts = dict(lag.turns.buckets())
    assert counts["+Inf"] - counts["0.01"] >= 1
    assert lag.turns.total >= 0.02


class Fixed:
    """A selector as one of C would be: its method cannot be replaced."""

    __slots__ = ()

    def select(self, timeout: float | None = None) -> list[Any]:
        raise AssertionError(timeout)


@pytest.mark.parametrize("selector", [None, Fixed(), object()])
async def test_a_loop_whose_selector_cannot_be_observed_is_measured_by_a_task_that_sleeps(
    monkeypatch: pytest.MonkeyPatch, selector: object
) -> None:
    monkeypatch.setattr(measures, "_selector_of", lambda _: selector)
    lag = LoopLag()
    lag.PERIOD = 0.0
    task = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    assert lag.method == "sleeper"
    time.sleep(0.02)  # noqa: ASYNC251 - somebody hogs the loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lag.milliseconds >= 15


def test_the_longest_is_that_of_ten_to_twenty_seconds() -> None:
    at = 0.0
    histogram = Histogram(lambda: at)
    histogram.note(0.3)
    histogram.note_short(0.0005)
    at = 11.0
    assert histogram.longest == 0.3
    histogram.note(0.1)
    at = 22.0
    assert histogram.longest == 0.1
    at = 60.0
    assert histogram.longest == 0.0
    assert (histogram.buckets()[0], histogram.buckets()[-1]) == (("0.001", 1.0), ("+Inf", 3.0))


# --- the collector


@pytest.fixture
def usual() -> Iterator[None]:
    """The collector as Python begins with it; put back afterwards."""
    former = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*former)


def test_pauses_are_counted_by_generation_while_they_are_watched() -> None:
    pauses = GcPauses()
    with pauses.watched():
        gc.collect(0)
        gc.collect()
    gc.collect()
    assert dict(pauses.by_generation[2].buckets())["+Inf"] == 1
    assert dict(pauses.by_generation[0].buckets())["+Inf"] >= 1
    assert pauses.milliseconds > 0


class Node:
    """A cycle of one, with what hangs on it. Counted while it is there."""

    live = most = 0

    def __init__(self) -> None:
        self.myself = self
        Node.live += 1
        Node.most = max(Node.most, Node.live)

    def __del__(self) -> None:
        Node.live -= 1


@pytest.mark.usefixtures("usual")
def test_tuned_it_leaves_out_what_was_there_and_frees_cycles_that_come_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage_collection, "USUAL", (small := (50, 5, 5),))
    gc.set_threshold(*small)
    collection = GarbageCollection(tuned=True)
    collection.tune()
    assert (collection.in_force, gc.get_threshold()) == ("tuned", (50, 5, 5 * RARER))
    assert gc.get_freeze_count() > 10_000
    gc.collect()  # Python compares with how many objects it had looked at the last time
    before = len(gc.get_objects())
    Node.live = Node.most = 0
    try:
        for _ in range(5_000):
            Node()
        assert Node.most < 200  # young garbage is freed as soon as ever
        kept = [Node() for _ in range(500)]
        for number in range(60_000):  # all grow old, then become garbage
            kept[number % len(kept)] = Node()
        assert Node.most < 500 + 2 * 50 * 5 * 5 * RARER
        kept.clear()
        gc.collect()
        assert Node.live == 0
        assert len(gc.get_objects()) < before + 1_000
    finally:
        collection.restore()
    assert (collection.in_force, gc.get_threshold()) == ("untouched", small)
    assert gc.get_freeze_count() < 10_000


@pytest.mark.usefixtures("usual")
def test_freezes_are_few() -> None:
    collection = GarbageCollection(tuned=True)
    assert not collection.freeze()
    collection.tune()
    assert [collection.freeze() for _ in range(4)] == [True, True, False, False]
    collection.restore()
    collection.restore()
    assert not collection.freeze()


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("how", ["off", "thresholds", "frozen", "unwanted"])
def test_who_has_set_the_collector_before_goes_before(how: str) -> None:
    if how == "off":
        gc.disable()
    elif how == "thresholds":
        gc.set_threshold(5000, 20, 100)
    elif how == "frozen":
        gc.freeze()
    state = gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 10_000
    collection = GarbageCollection(tuned=how != "unwanted")
    collection.tune()
    assert collection.in_force == "untouched"
    assert (collection.why is None) == (how == "unwanted")
    collection.restore()
    assert (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 10_000) == state


@pytest.mark.usefixtures("usual")
def test_what_another_one_has_set_meanwhile_stays() -> None:
    collection = GarbageCollection(tuned=True)
    collection.tune()
    gc.set_threshold(1000, 20, 20)
    theirs = [[number] for number in range(30_000)]
    gc.freeze()
    collection.restore()
    assert gc.get_threshold() == (1000, 20, 20)
    assert gc.get_freeze_count() > len(theirs)


@pytest.mark.usefixtures("usual")
async def test_a_full_collection_that_is_due_is_made_when_the_loop_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(garbage_collection, "IDLE_SHARE", 0.9)
    collection, lag, busy = GarbageCollection(tuned=True), LoopLag(), True
    collection.tune()
    Node.live = 0
    old = Node()
    for _ in range(12):
        gc.collect(1)
    del old
    assert (collection.is_due, Node.live) == (True, 1)
    tasks = [asyncio.create_task(lag.watch()), asyncio.create_task(collection.collect_when_idle(lag, lambda: busy))]
    await asyncio.sleep(0.2)
    assert Node.live == 1
    busy = False
    async with asyncio.timeout(30):
        while Node.live:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    collection.restore()


# --- packages of models


class Steps:
    """Stands for the steps of an import: each waits until it is let go on, in its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()
        monkeypatch.setattr(ModelPackages, "PAUSE", 0.0)
        monkeypatch.setattr("navi_jupyter.agent.run.backend._try_to_import", self.step)
        monkeypatch.setattr("navi_jupyter.agent.run.backend._try_to_build", self.step)
        monkeypatch.setattr("navi_jupyter.agent.run.backend._import_runner", lambda: self.step("runner"))

    def step(self, name: str) -> object:
        """Begin; end when the test says so."""
        self.begun.append(name)
        assert self.may_end.wait(30)
        return name

    async def begins(self, name: str) -> None:
        """Return once a step of this name has begun."""
        async with asyncio.timeout(30):
            while name not in self.begun:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_what_models_need_is_imported_ahead_step_by_step_for_those_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps(monkeypatch)
    steps.may_end.set()
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    await AgentRouter().import_ahead(["offline", "acp:claude", "openai:gpt-5", "no model"])
    assert steps.begun == []  # nothing where no model is used that has such packages
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    await AgentRouter().import_ahead(["offline", "openai:gpt-5", "anthropic:claude-opus-4"])
    assert steps.begun == [*_NEEDED, "openai:gpt-5"]


async def test_a_run_waits_for_the_step_in_progress_and_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, packages = Steps(monkeypatch), ModelPackages()
    ahead = asyncio.create_task(packages.import_ahead(["openai:gpt-5"]))
    await steps.begins(_NEEDED[0])
    run = asyncio.create_task(packages.runner())
    await asyncio.sleep(0.05)
    assert steps.begun == [_NEEDED[0]]  # not two threads at once
    steps.may_end.set()
    assert await run == "runner"  # type: ignore[comparison-overlap]
    await ahead
    assert steps.begun == [_NEEDED[0], "runner"]
    assert await packages.runner() == "runner"  # type: ignore[comparison-overlap]
    assert steps.begun.count("runner") == 1


async def test_imports_that_are_cancelled_begin_no_further_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, packages = Steps(monkeypatch), ModelPackages()
    ahead = asyncio.create_task(packages.import_ahead([]))
    await steps.begins(_NEEDED[0])
    ahead.cancel()
    await asyncio.gather(ahead, return_exceptions=True)
    steps.may_end.set()
    assert await packages.runner() == "runner"  # type: ignore[comparison-overlap]
    assert steps.begun == [_NEEDED[0], "runner"]


@pytest.mark.usefixtures("usual")
async def test_a_server_tunes_when_it_is_ready_imports_when_it_is_idle_and_undoes_it_when_it_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch)
    steps.may_end.set()
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setattr(lifecycle, "FREEZE_AFTER", 0.01)
    settings = Settings(database_url=f"sqlite:///{tmp_path}/navi.db", default_model="openai:gpt-5")
    servers = [Lifecycle(settings, logging.getLogger("test")) for _ in range(2)]
    servers[0].start()
    await servers[0].ready(60)
    assert gc.get_threshold() == (700, 10, 10 * RARER)
    servers[1].start()  # of one process, as in tests: what the first one has set is left to it
    await servers[1].ready(60)
    assert [server.process.collection.in_force for server in servers] == ["tuned", "untouched"]
    await servers[1].stop()
    await servers[0].stop()
    assert steps.begun == []  # a server that lives for some seconds imports nothing
    assert (gc.get_threshold(), gc.get_freeze_count() < 10_000) == ((700, 10, 10), True)
    monkeypatch.setattr(lifecycle, "IMPORTS_AFTER", 0.01)
    monkeypatch.setattr(lifecycle, "IMPORTS_SHARE", 100.0)
    freezes: list[int] = []
    monkeypatch.setattr(GarbageCollection, "freeze", lambda self: freezes.append(len(steps.begun)) or True)
    again = Lifecycle(settings, logging.getLogger("test"))
    again.start()
    async with asyncio.timeout(60):
        while len(freezes) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert freezes == [0, len(_NEEDED) + 1]
    await again.stop()


@pytest.mark.parametrize("idle", [True, False])
async def test_what_runs_have_imported_is_left_out_of_collections_though_they_never_pause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idle: bool
) -> None:
    for name in ("IMPORTS_AFTER", "IMPORTS_AGAIN", "FREEZE_AFTER"):
        monkeypatch.setattr(lifecycle, name, 0.001)
    monkeypatch.setattr(lifecycle, "IMPORTS_SHARE", 100.0 if idle else -1.0)
    looks, freezes = list[int](), list[int]()
    monkeypatch.setattr(Orchestrator, "stats", lambda _: looks.append(1) or SimpleNamespace(runs=1))
    monkeypatch.setattr(GarbageCollection, "freeze", lambda _: freezes.append(len(looks)) or True)
    server = Lifecycle(Settings(database_url=f"sqlite:///{tmp_path}/navi.db"), logging.getLogger("test"))
    server.start()
    async with asyncio.timeout(60):
        while len(freezes) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await server.stop()
    assert freezes[1] >= lifecycle.BUSY_LOOKS
