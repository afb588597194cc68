"""What is measured of the process: the turns of the event loop, the pauses of garbage collection; histograms of both.

Kernels and other extensions share the loop and the interpreter, so each of these delays all of Jupyter. Nothing here
sets a timer: what is measured would be disturbed by it. The one module that touches a private part of asyncio's loop.
Not responsible for how the figures are published (``server.metrics``).
"""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

WINDOW = 10.0  # seconds; the longest of a kind is that of the present window and the one before it
SHORT = 0.001  # seconds; a turn of the loop that is shorter delays nothing, and is only counted
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the upper bounds of the buckets of histograms."""
SPAWN_BOUNDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""The same, for starts of users' servers."""
SPAWN_RESULTS = ("ready", "failed", "refused", "timed_out")


class Histogram:
    """How often a duration was within which bounds, how long all were together, and the longest of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, bounds: Sequence[float] = BOUNDS) -> None:
        """``bounds``: the upper bounds of the buckets, in seconds."""
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._clock = clock
        self._worst = (0.0, 0.0)  # in this window, and in the one before
        self._until = clock() + WINDOW

    def note(self, seconds: float) -> None:
        """Count one duration."""
        self.total += seconds
        self._counts[bisect_left(self._bounds, seconds)] += 1
        if seconds > self._worst[0] or self._clock() >= self._until:
            self._turn_over()
            self._worst = (max(self._worst[0], seconds), self._worst[1])

    def note_short(self, seconds: float) -> None:
        """Count one that is below the first bound. Called at each turn of the loop, so it does nothing else."""
        self.total += seconds
        self._counts[0] += 1

    @property
    def longest(self) -> float:
        """The longest of the last ten to twenty seconds."""
        self._turn_over()
        return max(self._worst)

    def buckets(self) -> Sequence[tuple[str, float]]:
        """The bounds with how many durations were within each, as Prometheus has them."""
        bounds, counted, found = (*map(str, self._bounds), "+Inf"), 0, []
        for bound, count in zip(bounds, self._counts, strict=True):
            counted += count
            found.append((bound, float(counted)))
        return found

    def _turn_over(self) -> None:
        now = self._clock()
        if now < self._until:
            return
        self._worst = (0.0, self._worst[0] if now < self._until + WINDOW else 0.0)
        self._until = now + WINDOW


class Spawns:
    """The starts of users' servers of a JupyterHub by this process (``navi hub``); none anywhere else."""

    def __init__(self) -> None:
        self.pending = 0
        """Servers that this process starts, or that runs of it wait for."""
        self.seconds = Histogram(bounds=SPAWN_BOUNDS)
        """From the request to the Hub until the server was ready."""
        self.results = dict.fromkeys(SPAWN_RESULTS, 0)

    def note(self, result: str, seconds: float | None = None) -> None:
        """Count the end of a start; ``seconds``: how long it took."""
        self.results[result] += 1
        if seconds is not None:
            self.seconds.note(seconds)


class LoopLag:
    """How long the turns of the event loop are, and how late it wakes: by that all that is due is late.

    Seen at the loop's call of its selector, whose method is replaced in the instance: asyncio has no other place that
    is passed once in each turn. Where a loop has none (uvloop), a task sleeps instead, and notes by how much too long.
    """

    PERIOD = 1.0  # seconds of such a sleep

    def __init__(self) -> None:
        self.turns = Histogram()
        self.method: Literal["selector", "sleeper", "none"] = "none"
        """How it is measured at present."""

    @property
    def milliseconds(self) -> float:
        """The longest of the last ten to twenty seconds."""
        return round(self.turns.longest * 1000, 2)

    async def idle(self, seconds: float, *, share: float) -> bool:
        """Whether the loop is at work for at most this share of the next seconds."""
        before = self.turns.total
        await asyncio.sleep(seconds)
        return self.turns.total - before <= share * seconds

    async def watch(self) -> None:
        """Measure until cancelled."""
        selector = _selector_of(asyncio.get_running_loop())
        try:
            if selector is not None and self._observe(selector):
                self.method = "selector"
                await asyncio.get_running_loop().create_future()
            self.method = "sleeper"
            await self._sleep()
        finally:
            self.method = "none"
            if selector is not None:
                self._leave(selector)

    async def _sleep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(self.PERIOD)
            self.turns.note(max(0.0, loop.time() - before - self.PERIOD))

    def _observe(self, selector: Any) -> bool:
        """Measure from now on. False where the selector does not let its method be replaced."""
        inner, turns, clock = getattr(selector, "select", None), self.turns, time.perf_counter
        if inner is None:
            return False
        woken = clock()

        def select(timeout: float | None = None) -> Any:
            nonlocal woken
            turn = clock() - woken
            if turn < SHORT:
                turns.note_short(turn)
            else:
                turns.note(turn)
            if not timeout:  # it does not sleep, or nothing is due at any time
                events = inner(timeout)
                woken = clock()
                return events
            slept = clock()
            events = inner(timeout)
            woken = clock()
            # Something else had the processor or the interpreter when a timer was due.
            if not events and woken - slept - timeout > SHORT:
                turns.note(woken - slept - timeout)
            return events

        try:
            selector.select = select
        except AttributeError:
            return False
        self._replaced = (select, inner)
        return True

    def _leave(self, selector: Any) -> None:
        """Give the method back, unless another one has replaced ours meanwhile: that one still calls ours."""
        ours, inner = self.__dict__.pop("_replaced", (None, None))
        if ours is None or selector.__dict__.get("select") is not ours:
            return
        with suppress(AttributeError):
            del selector.select
        if selector.select != inner:
            selector.select = inner


def _selector_of(loop: asyncio.AbstractEventLoop) -> Any:
    """What the loop waits in; None where it has none of that name. Private to asyncio: the only use of it is here."""
    return getattr(loop, "_selector", None)


class GcPauses:
    """The pauses of Python's garbage collector, by generation. All threads stand still meanwhile."""

    def __init__(self) -> None:
        self.by_generation: Mapping[int, Histogram] = {generation: Histogram() for generation in range(3)}

    @property
    def milliseconds(self) -> float:
        """The longest of the last ten to twenty seconds."""
        return round(max(each.longest for each in self.by_generation.values()) * 1000, 2)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure while it is entered."""
        histograms, clock, began = dict(self.by_generation), time.perf_counter, 0.0

        def note(phase: str, info: Mapping[str, int]) -> None:
            nonlocal began
            if phase == "start":
                began = clock()
            elif began:
                histograms[info["generation"]].note(clock() - began)

        gc.callbacks.append(note)
        try:
            yield
        finally:
            gc.callbacks.remove(note)
