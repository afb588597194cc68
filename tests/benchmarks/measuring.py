"""What the benchmarks share: options, percentiles, how late a loop is, and figures as text and as JSON.

    options = arguments(__doc__).parse_args()          # --quick, --json FILE
    async with LoopLag() as lag: ...                   # lag.longest, lag.longest_cpu, lag.loop_cpu
    figures.add("a lone event is durable, p50, ms", 0.4)
    figures.write(options.json)

A figure's name ends with its unit. `run.py` reads the JSON of several processes and compares figures by name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks; the text is the module's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short form: less than a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    return parser


def with_bytecode() -> dict[str, str]:
    """The environment of a program that is measured: it may keep what it compiles, as an installed package has it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Figures:
    """What was measured, by name; printed as it comes."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, name: str, value: float) -> None:
        """Keep and print a figure. The name is used once, and what follows its last comma is the unit."""
        assert name not in self.values, f"two figures are named {name!r}"
        self.values[name] = value
        print(f"{name:72} {shown(value):>12}", flush=True)

    def write(self, path: Path | None) -> None:
        """``{name: number, …}`` for a program, where one asks for it."""
        if path is not None:
            path.write_text(json.dumps(self.values, indent=1) + "\n")


def shown(value: float | None) -> str:
    """A number with three digits that count."""
    if value is None:
        return "-"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in ms."""
    p50, p99, top = (percentile(seconds, share) * 1e3 for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.2f} p99 {p99:.2f} max {top:.1f} ms"


def in_ms(name: str, seconds: Sequence[float]) -> Mapping[str, float]:
    """The same as figures: ``{"NAME, p50, ms": …, "NAME, p99, ms": …}``."""
    return {f"{name}, p50, ms": percentile(seconds, 0.5) * 1e3, f"{name}, p99, ms": percentile(seconds, 0.99) * 1e3}


@contextlib.contextmanager
def tree_of(ref: str) -> Iterator[Path]:
    """The tree of a commit, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run(["git", "worktree", "add", "--detach", "-q", tree, ref], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def collect_as_a_server_does() -> None:
    """Set garbage collection as in a real server: else its pauses are the longest stalls."""
    with contextlib.suppress(ImportError):  # an older version, measured by this file
        from navi_jupyter.server.process.garbage_collection import GarbageCollection

        GarbageCollection(tuned=True).tune()


class LoopLag:
    """How late the event loop wakes a sleeper: by the clock, and in CPU time of the loop's thread.

    The second is what the code does to others on the loop; the first also has in it what other programs do on a busy
    machine. Made, entered and reset in the loop's thread.
    """

    def __init__(self, every: float = 0.001) -> None:
        self._every = every
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.late: list[float] = []
        self.cpu: list[float] = []
        self._thread, self._process = time.thread_time(), time.process_time()

    @property
    def longest(self) -> float:
        """Seconds by which a sleeper was late at most."""
        return max(self.late, default=0.0)

    @property
    def longest_cpu(self) -> float:
        """Seconds of CPU that the loop's thread used at most until a sleeper's turn came."""
        return max(self.cpu, default=0.0)

    @property
    def loop_cpu(self) -> float:
        """Seconds of CPU of the loop's thread."""
        return time.thread_time() - self._thread

    @property
    def process_cpu(self) -> float:
        """Seconds of CPU of all threads."""
        return time.process_time() - self._process

    async def watch(self) -> None:
        """Sleep over and over, until cancelled."""
        while True:
            began, busy = time.perf_counter(), time.thread_time()
            await asyncio.sleep(self._every)
            self.late.append(time.perf_counter() - began - self._every)
            self.cpu.append(time.thread_time() - busy)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.watch())
        await asyncio.sleep(0)
        self.reset()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
