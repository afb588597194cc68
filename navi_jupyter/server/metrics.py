"""Metrics in the Prometheus registry that Jupyter serves at ``<base_url>metrics``, and the one measured here: loop lag.

Imported at extension load: Jupyter has loaded the Prometheus client already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_GAUGES = {
    "navi_sessions_live": "Sessions in memory",
    "navi_runs_active": "Runs in progress",
    "navi_followers": "Open sockets, streams and long polls",
    "navi_recalls_open": "Recalls that are not over, as of the last sweep",
    "navi_loop_lag_seconds": "The longest delay of the event loop lately",
}
_DELIVERED = "navi_events_delivered"
NAMES = (*_GAUGES, _DELIVERED)


class NaviCollector(Collector):
    """The metrics of one runtime, registered while it is entered."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        """``read``: the present value of each of :data:`NAMES`."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All of :data:`NAMES`. Called on the loop's thread, where Jupyter's handler runs."""
        values = self._read()
        for name, meaning in _GAUGES.items():
            yield GaugeMetricFamily(name, meaning, value=values[name])
        yield CounterMetricFamily(_DELIVERED, "Envelopes handed to followers since the start", value=values[_DELIVERED])

    def describe(self) -> Iterator[Metric]:
        """Nothing: without this the registry would collect once at registration, to learn the names."""
        return iter(())

    def __enter__(self) -> Self:
        REGISTRY.register(self)
        return self

    def __exit__(self, *_: object) -> None:
        REGISTRY.unregister(self)


class LoopLag:
    """How late the event loop wakes a sleeping task. Kernels share this loop, so its lag delays all of Jupyter."""

    PERIOD = 0.5
    WINDOW = 10.0

    def __init__(self) -> None:
        self._worst = (0.0, 0.0)  # seconds, in this window and in the one before
        self._since = 0.0

    @property
    def milliseconds(self) -> float:
        """The longest of the last ten to twenty seconds."""
        return round(max(self._worst) * 1000, 2)

    async def watch(self) -> None:
        """Measure until cancelled, with two wake-ups a second."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        while True:
            before = loop.time()
            await asyncio.sleep(self.PERIOD)
            after = loop.time()
            if after - self._since > self.WINDOW:
                self._worst = (0.0, self._worst[0])
                self._since = after
            self._worst = (max(self._worst[0], after - before - self.PERIOD), self._worst[1])
