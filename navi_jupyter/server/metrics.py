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

from .. import __version__

HEALTH = {
    "status": "navi_health_status",
    "version": "navi_build_info",
    "sessions": "navi_sessions_live",
    "runs": "navi_runs_active",
    "recalls": "navi_recalls_open",
    "followers": "navi_followers",
    "save_transcripts": "navi_transcripts_saved",
    "loop_lag_ms": "navi_loop_lag_seconds",
    "message": "navi_database_notice",
}
"""Each field of ``GET health``, and the metric that has it."""
STATES = ("ok", "starting", "failed", "stopping")
_GAUGES = {
    "navi_sessions_live": "Sessions in memory",
    "navi_runs_active": "Runs in progress",
    "navi_followers": "Open sockets, streams and long polls",
    "navi_recalls_open": "Recalls that are not over, as of the last sweep",
    "navi_transcripts_saved": "1 where notebooks are saved with answers and transcripts, else 0",
    "navi_database_notice": "1 while the owner of the database should read the message of the health route, else 0",
}
_LAG = "navi_loop_lag_seconds"
_DELIVERED = "navi_events_delivered"
NAMES = (*_GAUGES, _DELIVERED, "navi_health_status", "navi_build_info", _LAG)

Figures = Mapping[str, float]


class NaviCollector(Collector):
    """The metrics of one server process, registered while it is entered. None has a label of a user or a session."""

    def __init__(self, *, state: Callable[[], str], lag: LoopLag, figures: Callable[[], Figures | None]) -> None:
        """``figures``: the present value of each gauge and counter of the runtime; None while there is no runtime."""
        self._state = state
        self._lag = lag
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """All of :data:`NAMES`; while Navi does not work, only those of the process. Called on the loop's thread."""
        state = self._state()
        status = GaugeMetricFamily("navi_health_status", "1 for the present state, 0 for the others", labels=["status"])
        for each in STATES:
            status.add_metric([each], float(each == state))
        yield status
        build = GaugeMetricFamily("navi_build_info", "Always 1; the label has the version", labels=["version"])
        build.add_metric([__version__], 1.0)
        yield build
        yield GaugeMetricFamily(
            _LAG, "The longest delay of the event loop in the last ten to twenty seconds", self._lag.milliseconds / 1000
        )
        figures = self._figures()
        if figures is None:
            return
        for name, meaning in _GAUGES.items():
            yield GaugeMetricFamily(name, meaning, value=figures[name])
        yield CounterMetricFamily(
            _DELIVERED, "Envelopes handed to followers since the start", value=figures[_DELIVERED]
        )

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
