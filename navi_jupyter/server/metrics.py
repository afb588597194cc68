"""Our numbers in the Prometheus registry that Jupyter serves at ``<base_url>metrics``. Read when they are asked for.

Not responsible for measuring anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .runtime import Services

_GAUGES: dict[str, tuple[str, Callable[[Services], float]]] = {
    "navi_sessions_live": ("Sessions in memory", lambda s: s.orchestrator.stats().sessions),
    "navi_runs_active": ("Runs in progress", lambda s: s.orchestrator.stats().runs),
    "navi_followers": ("Open sockets, streams and long polls", lambda s: s.orchestrator.stats().followers),
    "navi_recalls_open": ("Recalls that are not over, as of the last sweep", lambda s: s.scheduler.open),
    "navi_loop_lag_seconds": ("The longest delay of the event loop lately", lambda s: s.lag.milliseconds / 1000),
}
_DELIVERED = "navi_events_delivered"
NAMES = (*_GAUGES, _DELIVERED)


class NaviCollector(Collector):
    """The numbers of one runtime, between its start and its stop."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """All of :data:`NAMES`. The loop's thread calls it: Jupyter's handler runs there."""
        for name, (meaning, read) in _GAUGES.items():
            yield GaugeMetricFamily(name, meaning, value=read(self._services))
        delivered = self._services.orchestrator.stats().delivered
        yield CounterMetricFamily(_DELIVERED, "Envelopes handed to followers since the start", value=delivered)

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry would else collect once to learn the names."""
        return iter(())

    def __enter__(self) -> Self:
        REGISTRY.register(self)
        return self

    def __exit__(self, *_: object) -> None:
        REGISTRY.unregister(self)
