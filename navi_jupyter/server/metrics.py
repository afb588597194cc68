"""Metrics in the Prometheus registry that Jupyter serves at ``<base_url>metrics``.

Imported at extension load: Jupyter has loaded the Prometheus client already.
Not responsible for what they measure: the process (``process.measures``), and the parts of the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Self

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import __version__
from .process.garbage_collection import GarbageCollection
from .process.measures import GcPauses, Histogram, LoopLag, Spawns

__all__ = ["Figures", "LoopLag", "NaviCollector", "ProcessMeasures"]

HEALTH = {
    "status": "navi_health_status",
    "version": "navi_build_info",
    "sessions": "navi_sessions_live",
    "runs": "navi_runs_active",
    "recalls": "navi_recalls_open",
    "followers": "navi_followers",
    "save_transcripts": "navi_transcripts_saved",
    "loop_lag_ms": "navi_loop_lag_seconds",
    "gc_pause_ms": "navi_gc_pause_longest_seconds",
    "garbage_collection": "navi_gc_tuned",
    "commit_ms": "navi_commit_longest_seconds",
    "write_queue": "navi_write_queue_units",
    "runs_waiting": "navi_run_slots_waiting",
    "prompts_queued": "navi_prompts_queued",
    "follower_lag": "navi_follower_lag_events",
    "database": "navi_database_info",
    "replicas": "navi_replicas",
    "clock_offset_ms": "navi_clock_offset_seconds",
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
    "navi_write_queue_units": "Changes of the database that wait for the next commit",
    "navi_run_slots_waiting": "Sessions with a run that waits for a slot (max_concurrent_runs)",
    "navi_prompts_queued": "Runs that wait in queues, of all owners whom this server serves, as of the last renewal",
    "navi_follower_lag_events": "Events by which the follower that is behind most is behind the log",
    "navi_followers_behind": "Followers that are behind the log",
    "navi_replicas": "Servers of the database that are alive, this one included",
    "navi_lease_age_seconds": "Seconds since the lease of this server was last renewed",
    "navi_clock_offset_seconds": "By how much the clock of the database is ahead of this machine's; 0 on SQLite",
    "navi_database_notice": "1 while the owner of the database should read the message of the health route, else 0",
}
_LAG = "navi_loop_lag_seconds"
_PAUSE = "navi_gc_pause_longest_seconds"
_TUNED = "navi_gc_tuned"
_COMMIT = "navi_commit_longest_seconds"
_DELIVERED = "navi_events_delivered"
_HISTOGRAMS = {
    "navi_loop_turn_seconds": "How long the turns of the event loop were, and how late it was woken",
    "navi_gc_pause_seconds": "How long garbage collection held up the process, by generation",
    "navi_commit_seconds": "How long commits to the database took",
    "navi_signal_lag_seconds": "How late events of other servers are read here, for those who follow them",
}
_SPAWNS_PENDING, _SPAWNS, _SPAWN_SECONDS = "navi_spawns_pending", "navi_spawns", "navi_spawn_seconds"
NAMES = (
    *_GAUGES,
    _DELIVERED,
    "navi_health_status",
    "navi_build_info",
    "navi_database_info",
    _LAG,
    _PAUSE,
    _TUNED,
    _COMMIT,
    *_HISTOGRAMS,
    _SPAWNS_PENDING,
    _SPAWNS,
    _SPAWN_SECONDS,
)

Figures = Mapping[str, float]


class ProcessMeasures:
    """What is measured of this process, whether Navi works in it or not."""

    def __init__(self, collection: GarbageCollection | None = None) -> None:
        """``collection``: left out, garbage collection is left as it is."""
        self.lag = LoopLag()
        self.pauses = GcPauses()
        self.commits = Histogram()
        """Filled by the runtime, from the store."""
        self.signals = Histogram()
        """Filled by the runtime, from the event log."""
        self.spawns = Spawns()
        """Filled by ``navi hub``, which starts users' servers."""
        self.collection = collection or GarbageCollection(tuned=False)

    def metrics(self) -> Iterator[Metric]:
        """Those of the process."""
        yield GaugeMetricFamily(
            _LAG, "The longest delay of the event loop in the last ten to twenty seconds", self.lag.milliseconds / 1000
        )
        yield GaugeMetricFamily(
            _PAUSE,
            "The longest pause of garbage collection in the last ten to twenty seconds",
            self.pauses.milliseconds / 1000,
        )
        yield GaugeMetricFamily(
            _TUNED, "1 where garbage collection is tuned, else 0", float(self.collection.in_force == "tuned")
        )
        yield GaugeMetricFamily(_COMMIT, "The longest commit of the last ten to twenty seconds", self.commits.longest)
        turns, pauses, commits, signals = (
            HistogramMetricFamily(name, meaning, labels=["generation"] if "gc" in name else [])
            for name, meaning in _HISTOGRAMS.items()
        )
        turns.add_metric([], self.lag.turns.buckets(), self.lag.turns.total)
        for generation, histogram in self.pauses.by_generation.items():
            pauses.add_metric([str(generation)], histogram.buckets(), histogram.total)
        commits.add_metric([], self.commits.buckets(), self.commits.total)
        signals.add_metric([], self.signals.buckets(), self.signals.total)
        yield from (turns, pauses, commits, signals)
        yield GaugeMetricFamily(
            _SPAWNS_PENDING,
            "Servers of users that this process starts, or that runs of it wait for",
            float(self.spawns.pending),
        )
        results = CounterMetricFamily(_SPAWNS, "Ends of starts of users' servers, by result", labels=["result"])
        for result, number in self.spawns.results.items():
            results.add_metric([result], float(number))
        yield results
        seconds = HistogramMetricFamily(_SPAWN_SECONDS, "How long starts of users' servers took until they were ready")
        seconds.add_metric([], self.spawns.seconds.buckets(), self.spawns.seconds.total)
        yield seconds


class NaviCollector(Collector):
    """The metrics of one server process, registered while it is entered. None has a label of a user or a session."""

    def __init__(
        self,
        *,
        state: Callable[[], str],
        process: ProcessMeasures,
        figures: Callable[[], Figures | None],
        database: str,
    ) -> None:
        """``figures``: the present value of each gauge and counter of the runtime; None while there is no runtime."""
        self._state = state
        self._process = process
        self._figures = figures
        self._database = database  # the engine

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
        kind = GaugeMetricFamily("navi_database_info", "Always 1; the label has the database", labels=["database"])
        kind.add_metric([self._database], 1.0)
        yield kind
        yield from self._process.metrics()
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
