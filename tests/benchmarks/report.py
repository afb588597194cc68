"""What `run.py` makes of the figures: a table in Markdown, limits that ratios must keep, charts.

Not responsible for measuring: everything here is a function of numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.charts import Bar, bars
from tests.benchmarks.measuring import shown

THIS = "this"
BEGIN, END = "<!-- figures: written by tests/benchmarks/run.py -->", "<!-- end of the figures -->"


@dataclass(kw_only=True)
class Result:
    """All rounds of a part, by tree: what was measured, and why a tree was not."""

    title: str
    command: str
    rounds: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, tree: str, figure: str) -> float | None:
        """Over the rounds that have it."""
        values = [one[figure] for one in self.rounds.get(tree, ()) if figure in one]
        return statistics.median(values) if values else None

    def figures(self, tree: str = THIS) -> dict[str, float]:
        """All medians."""
        names = dict.fromkeys(name for one in self.rounds.get(tree, ()) for name in one)
        return {name: value for name in names if (value := self.median(tree, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Of a ratio that does not depend on the machine; far from what is usual, so that noise does not break it."""

    figure: str
    least: float | None = None
    most: float | None = None


LIMITS = (
    Limit(figure="fan-out to 100, navi / queue: delivered for a second of CPU, x", least=20),
    Limit(figure="fan-out to 100, navi / ws: delivered for a second of CPU, x", least=2),
    Limit(figure="an answer of 1000 chunks, rewrite per chunk / navi: to each follower, x", least=8),
    Limit(figure="1,000 due: lateness p99, apscheduler / navi, x", least=2),
    Limit(figure="20 streams, navi / pydantic-ai: CPU for a token, of it", most=5),
    Limit(figure="1,000 messages, pydantic-ai / navi: longest step, x", least=4),
)


def broken(limits: Iterable[Limit], figures: Mapping[str, float]) -> list[str]:
    """A sentence for each limit that a figure does not keep. A figure that was not measured keeps its limit."""
    found = []
    for limit in limits:
        value = figures.get(limit.figure)
        if value is not None and limit.least is not None and value < limit.least:
            found.append(f"{limit.figure}: {shown(value)} is less than {shown(limit.least)}")
        if value is not None and limit.most is not None and value > limit.most:
            found.append(f"{limit.figure}: {shown(value)} is more than {shown(limit.most)}")
    return found


def table(result: Result, trees: Sequence[str]) -> str:
    """A heading, the command and a row for each figure; ``trees``: this one, and what it is compared with."""
    other = trees[1] if len(trees) > 1 else None
    lines = [f"### {result.title}", "", f"`{result.command}`", ""]
    for tree, reason in result.failed.items():
        lines += [f"Not measured ({tree}): {reason}", ""]
    names = dict.fromkeys(name for tree in trees for name in result.figures(tree))
    if not names:
        return "\n".join(lines)
    heads = ["figure", "unit", THIS, "spread", *([other, f"{THIS} / {other}"] if other else [])]
    lines += ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    for name in names:
        label, _, unit = name.rpartition(", ")
        own = result.median(THIS, name)
        cells = [label or name, unit if label else "", shown(own), spread_of(result, name)]
        if other:
            before = result.median(other, name)
            cells += [
                shown(before),
                f"{own / before:.2f}" if own is not None and own >= 0 and before and before > 0 else "-",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def spread_of(result: Result, name: str) -> str:
    """How far the rounds are apart, in percent of their median."""
    values = [one[name] for one in result.rounds.get(THIS, ()) if name in one]
    middle = statistics.median(values) if values else 0
    return f"{100 * (max(values) - min(values)) / middle:.0f} %" if len(values) > 1 and middle else "-"


def replaced(page: str, content: str) -> str:
    """The page with this between its marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError("the page has no marks for the figures")
    return f"{before}{BEGIN}\n{content.strip()}\n{END}{after}"


# --- charts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture of some figures; those that were not measured are left out."""

    name: str
    title: str
    rows: Mapping[str, str]
    """The label of a bar, and its figure."""
    compared: bool = False
    """Whether a bar is how many times better the figure is than that of the other tree."""

    def draw(self, this: Mapping[str, float], other: Mapping[str, float]) -> str | None:
        """SVG; nothing where fewer than two bars are known."""
        known = {label: figure for label, figure in self.rows.items() if figure in this}
        if self.compared:
            found = [
                Bar(label, better(figure, this[figure], other[figure]), own=True)
                for label, figure in known.items()
                if this[figure] and other.get(figure)
            ]
        else:
            found = [Bar(label, this[figure], own="navi" in label) for label, figure in known.items()]
        return bars(self.title, found) if len(found) > 1 else None


def better(figure: str, this: float, other: float) -> float:
    """How many times: of what there should be more of, and of what there should be less of."""
    unit = figure.rpartition(", ")[2]
    return this / other if unit in ("x", "events") or unit.endswith("/s") else other / this


_PEERS = {
    "navi": "navi",
    "floor: raw asyncio": "floor",
    "ws on Node": "ws",
    "Starlette on uvicorn": "starlette",
    "a queue per subscriber": "queue",
}
CHARTS = (
    Chart(
        name="before-after",
        title="How many times better than the commit that it is compared with",
        rows={
            "delivered to 100, for a CPU second": "delivered to 100 per CPU second of the server, events",
            "40 events/s to 100, p50": "40 events/s to 100, p50, ms",
            "400 events/s to 100, p99": "400 events/s to 100, p99, ms",
            "longest turn of a fan-out, CPU": "longest stall while delivering to 100, CPU, ms",
            "50 sessions: CPU for a token": "50 sessions: CPU of the server for a token, us",
            "20 sessions: CPU for a token": "20 sessions: CPU of the server for a token, us",
            "50 sessions: token to follower, p99": "50 sessions: token to follower, p99, ms",
            "50 sessions: longest turn, CPU": "50 sessions: longest turn of the loop in CPU, ms",
            "20 sessions: longest turn, CPU": "20 sessions: longest turn of the loop in CPU, ms",
            "a lone event is durable, p50": "store: a lone event is durable (kill), p50, ms",
            "10,000 recalls one by one": "10,000 recalls added one by one, s",
            "1,000 recalls one by one": "1,000 recalls added one by one, s",
            "10,000 due at once: lateness p99": "10,000 due: lateness, p99, ms",
            "1,000 runs due in a second: CPU": "1,000 runs due in one second: CPU of the server for each, ms",
            "compaction of 5,000 runs, CPU": "compaction of 5000 runs, CPU, s",
            "compaction of 1,000 runs, CPU": "compaction of 1000 runs, CPU, s",
            "opening 10,000 messages, CPU": "opening 10000 messages: CPU, ms",
            "opening 4,000 messages, CPU": "opening 4000 messages: CPU, ms",
        },
        compared=True,
    ),
    Chart(
        name="fanout",
        title="Events delivered to 100 followers for a second of the server's processor",
        rows={label: f"fan-out to 100, {name}: delivered for a second of CPU, 1/s" for label, name in _PEERS.items()},
    ),
    Chart(
        name="latency",
        title="From an event to each of 100 followers at 40 events/s, ms",
        rows={
            f"{label}, {p}": f"fan-out to 100, {name}: at 40 events/s, {p}, ms"
            for label, name in _PEERS.items()
            for p in ("p50", "p99")
        },
    ),
    Chart(
        name="bytes",
        title="To each follower of an answer, KB",
        rows={
            f"{chunks} chunks, {name}": f"an answer of {chunks} chunks, {name}: to each follower, KB"
            for chunks in (50, 200, 1000)
            for name in ("navi", "rewrite per chunk")
        },
    ),
    Chart(
        name="recalls",
        title="1,000 recalls due at once: lateness, ms",
        rows={
            f"{name}, {p}": f"1,000 due: lateness {p}, {name}, ms"
            for name in ("navi", "floor", "apscheduler")
            for p in ("p50", "p99")
        },
    ),
    Chart(
        name="tokens",
        title="Processor time for a streamed token, us",
        rows={
            f"{name}, {streams} streams": f"{streams} streams, {name}: CPU for a token, us"
            for streams in (20, 50)
            for name in ("navi", "pydantic-ai")
        },
    ),
)
