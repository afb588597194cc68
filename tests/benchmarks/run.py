"""All benchmarks by one command: with peers and floors, old and new in turns, a table and charts.

    python tests/benchmarks/run.py                       everything; writes docs/performance.md and docs/pictures/
    python tests/benchmarks/run.py --against main        the same figures of another commit, in turns with this tree's
    python tests/benchmarks/run.py --short               for CI: a few ratios; exits 1 when one is far from usual
    python tests/benchmarks/run.py --only fanout store   some parts (`--list` has all, and how long they take)

Each part is a program of its own, and can be run by itself. A part that fails is named in the table, and the rest goes
on. A commit that is compared with is measured by the benchmarks of this tree.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import ROOT, tree_of, with_bytecode
from tests.benchmarks.report import CHARTS, LIMITS, THIS, Result, broken, replaced, table

HERE = Path(__file__).parent
PEERS = ("apscheduler", "pydantic-ai-slim", "starlette", "uvicorn", "websockets", "pycrdt", "tornado", "jupyter-server")

LONGEST = 300.0
"""Seconds after which a part that takes four times as long as usual, and so much more, is given up: it hangs. A busy
machine makes the short ones ten times as long."""
NOT_IN_GIT = ("navi_jupyter/static", "navi_jupyter/labextension", "js/node_modules", "tests/peers/node_modules")
"""What another commit's tree gets from this one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A benchmark: ``bench_NAME.py``, where ``script`` is not another."""

    name: str
    title: str = ""
    script: str = ""
    full: tuple[str, ...] = ()
    short: tuple[str, ...] | None = None
    """Its arguments in CI's form; None: not in it."""
    quick: tuple[str, ...] = ("--quick",)
    seconds: tuple[int, int] = (60, 45)
    """That it takes on two cores: in full, with ``--quick``."""
    short_seconds: int = 0
    by_name: bool = False
    """Measured only where it is asked for."""

    def arguments(self, *, quick: bool, short: bool) -> tuple[str, ...]:
        """Of its command, without where the figures go."""
        if short:
            return self.short or self.quick
        return self.quick if quick else self.full

    def takes(self, *, quick: bool, short: bool) -> int:
        """Seconds, about."""
        return self.short_seconds if short else self.seconds[1 if quick else 0]

    def path(self, tree: Path) -> Path:
        """Of its program in a tree."""
        return tree / "tests" / "benchmarks" / f"bench_{self.script or self.name}.py"


PARTS = (
    Part(
        name="fanout",
        title="Fan-out to followers, beside a queue per subscriber",
        full=("--rounds=1",),
        seconds=(150, 75),
    ),
    Part(
        name="fanout_peers",
        title="Fan-out beside other servers and the floor",
        seconds=(90, 25),
        short=("--quick",),
        short_seconds=25,
    ),
    Part(name="follower_bytes", title="Bytes to each follower", seconds=(12, 9), short=("--quick",), short_seconds=9),
    Part(name="agent", title="Many sessions at once on a real server", seconds=(90, 45)),
    Part(
        name="pydantic_ai",
        title="A streamed token, beside pydantic-ai alone",
        full=("--rounds=1",),
        seconds=(60, 35),
        short=("--quick",),
        short_seconds=35,
    ),
    Part(
        name="request",
        title="A request to a model by the length of its session, beside pydantic-ai alone",
        full=("--rounds=3",),
        seconds=(60, 20),
        short=("--quick",),
        short_seconds=20,
    ),
    Part(name="kernel", title="A kernel's round trip while followers stream", full=("--rounds=2",), seconds=(110, 65)),
    Part(name="store", title="Events through the store", seconds=(30, 20)),
    Part(
        name="recalls_peers",
        title="Recalls, beside APScheduler and the floor",
        full=("--quick",),
        quick=("--quick", "--what", "burst", "lone"),
        seconds=(110, 45),
        short=("--quick", "--what", "burst"),
        short_seconds=25,
    ),
    Part(name="recalls", title="A burst of recalls", seconds=(90, 35)),
    Part(name="recall_server", title="Recalls on a real server", full=("--pending=0", "--idle=10"), seconds=(90, 60)),
    Part(name="server_start", title="The start of a Jupyter server", full=("--rounds=5",), seconds=(30, 20)),
    Part(name="import", title="Imports in kernels and servers", seconds=(25, 8)),
    Part(name="overview", title="The overview of 10,000 recalls", seconds=(15, 10)),
    Part(name="session_list", title="The list of 10,000 sessions, and search", seconds=(50, 15)),
    Part(name="postgres", title="The store on PostgreSQL, beside the one on SQLite", seconds=(150, 50)),
    Part(name="several_servers", title="Three servers that share a PostgreSQL", seconds=(270, 75)),
    Part(name="hub", title="navi hub at rest: two replicas, 10,000 users", seconds=(110, 60)),
    Part(name="links", title="Links of users' servers to navi hub", seconds=(130, 60)),
    Part(name="watching", title="Watching a kernel", full=("--pairs=2",), seconds=(30, 20)),
    Part(name="host", title="The process that is shared", full=("--quick",)),
    Part(name="upkeep", title="Compaction, and a server that is idle", full=("--quick",)),
    Part(
        name="endurance",
        title="Twenty minutes of 50 sessions, a new one for each answer",
        script="agent",
        full=("--minutes=20", "--fresh"),
        seconds=(1300, 45),
        by_name=True,
    ),
    Part(name="reading", title="A long conversation in a browser", seconds=(120, 60), by_name=True),
)
"""In the order in which they are measured."""


def parts() -> list[Part]:
    """Those above, and every other benchmark that stands beside them."""
    known = {part.script or part.name for part in PARTS}
    found = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    return [*PARTS, *(Part(name=name, full=("--quick",)) for name in found if name not in known)]


# --- measuring -------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A part ended without figures; the message says why."""


def figures_of(part: Part, tree: Path, arguments: Sequence[str], limit: float) -> dict[str, float]:
    """Run it in that tree, with its packages and not those of the environment. Raises Failed."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, str(part.path(tree)), *arguments, "--json", str(path)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=with_bytecode() | {"PYTHONPATH": str(tree)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            finally:  # what it has started goes with it; servers have a group of their own
                with contextlib.suppress(psutil.NoSuchProcess):
                    for one in psutil.Process(process.pid).children(recursive=True):
                        one.kill()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status is not None and path.exists():  # one that is over its budget has a status, and figures
            try:
                figures: dict[str, float] = json.loads(path.read_text())
            except ValueError as error:  # a full disk, a defect of its own: no reason to lose the others' figures
                raise Failed(f"its figures cannot be read: {error}") from error
            return figures
        lines = log.read_text(errors="replace").strip().splitlines()
        end = f"ended with {status}" if status is not None else f"took more than {limit:.0f} s"
        print("\n".join(f"    {line}" for line in lines[-15:]), file=sys.stderr)
        raise Failed(f"{end}: {lines[-1][:200] if lines else 'without a word'}")


def measure(chosen: Sequence[Part], trees: dict[str, Path], options: argparse.Namespace) -> dict[str, Result]:
    """All rounds of all parts; which tree comes first changes with each round."""
    results: dict[str, Result] = {}
    for number in range(options.rounds):
        for part in chosen:
            arguments = part.arguments(quick=options.quick, short=options.short)
            command = " ".join(["python", str(part.path(Path()).as_posix()), *arguments])
            result = results.setdefault(part.name, Result(title=part.title or part.name, command=command))
            for tree in list(trees) if number % 2 == 0 else list(trees)[::-1]:
                began = time.monotonic()
                try:
                    limit = LONGEST + 4 * part.takes(quick=options.quick, short=options.short)
                    result.rounds.setdefault(tree, []).append(figures_of(part, trees[tree], arguments, limit))
                    state = "ok"
                except Failed as error:
                    result.failed[tree] = state = str(error)
                print(
                    f"round {number + 1}: {part.name}, {tree}: {time.monotonic() - began:.0f} s, {state}",
                    file=sys.stderr,
                )
    return results


@contextlib.contextmanager
def trees_of(ref: str | None) -> Iterator[dict[str, Path]]:
    """This tree, and one of the commit with the benchmarks of this one."""
    if ref is None:
        yield {THIS: ROOT}
        return
    with tree_of(ref) as tree:
        for name in ("benchmarks", "support"):
            shutil.rmtree(tree / "tests" / name, ignore_errors=True)
            shutil.copytree(ROOT / "tests" / name, tree / "tests" / name)
        for built in NOT_IN_GIT:
            if (ROOT / built).exists() and (tree / built).parent.exists() and not (tree / built).exists():
                (tree / built).symlink_to(ROOT / built)
        yield {THIS: ROOT, ref: tree}


# --- what becomes of it ----------------------------------------------------------------------------------------------


def git(*arguments: str) -> str:
    """What it prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def about(options: argparse.Namespace) -> str:
    """On what was measured, and how."""
    commit = git("log", "-1", "--format=%h of %cs") + (" with changes" if git("status", "--porcelain", "-uno") else "")
    against = f", against {git('log', '-1', '--format=%h of %cs', options.against)}" if options.against else ""
    versions = []
    for name in PEERS:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    if shutil.which("node"):
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
        versions.append(f"Node {node.stdout.strip()}")
    return (
        f"Commit {commit}{against}; {datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} cores, {platform.machine()},"
        f" {platform.system()}, Python {platform.python_version()}; {', '.join(versions)}.\n\n"
        f"Written by `python tests/benchmarks/run.py{''.join(f' {word}' for word in sys.argv[1:])}`:"
        f" medians of {options.rounds} round{'s' if options.rounds > 1 else ''}."
    )


def write(docs: Path, head: str, results: Sequence[Result], trees: Sequence[str]) -> None:
    """The page and its charts. Charts of which nothing was measured stay as they are."""
    this = {name: value for result in results for name, value in result.figures().items()}
    other = {name: value for result in results for name, value in result.figures(trees[-1]).items()}
    pictures = []
    for chart in CHARTS:
        drawn = chart.draw(this, other) if len(trees) > 1 or not chart.compared else None
        path = docs / "pictures" / f"performance-{chart.name}.svg"
        if drawn is not None:
            path.write_text(drawn)
        if path.exists():
            pictures.append(f"![{chart.title}](pictures/{path.name})")
    page = docs / "performance.md"
    content = "\n\n".join([head, *pictures, *(table(result, trees) for result in results)])
    page.write_text(replaced(page.read_text(), content))


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="CI's form: a few parts, limits of ratios, no page")
    parser.add_argument("--quick", action="store_true", help="the short form of each part")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", metavar="REF", help="a commit, measured in turns with this tree")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="parts")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where performance.md and pictures/ are")
    parser.add_argument("--no-page", action="store_true", help="print only")
    parser.add_argument("--list", action="store_true", help="print the parts and their seconds (full, quick)")
    return parser.parse_args(arguments)


def choice(options: argparse.Namespace) -> list[Part]:
    """The parts that are measured. Exits where one is not known."""
    known = parts()
    if unknown := set(options.only) - {part.name for part in known}:
        raise SystemExit(f"no part is named {', '.join(sorted(unknown))}; --list has all")
    if options.only:
        return [part for part in known if part.name in options.only]
    return [part for part in known if (part.short is not None if options.short else not part.by_name)]


def main() -> int:
    """Measure, print, write; 1 when a limit is broken twice."""
    options = options_of()
    chosen = choice(options)
    if options.list:
        print("\n".join(f"{part.name:16} {part.seconds[0]:5} {part.seconds[1]:5}  {part.title}" for part in parts()))
        return 0
    with trees_of(options.against) as trees:
        each = sum(part.takes(quick=options.quick, short=options.short) for part in chosen)
        seconds = each * options.rounds * len(trees)
        print(f"{len(chosen)} parts, about {seconds / 60:.0f} minutes on two cores", file=sys.stderr, flush=True)
        results = measure(chosen, trees, options)
        if options.short:  # what is broken once more, as a busy machine can be anything for a moment
            again = [part for part in chosen if broken_of({part.name: results[part.name]})]
            results |= measure(again, trees, options)
    print("\n".join(table(result, list(trees)) for result in results.values()))
    if not options.short and not options.no_page:
        write(options.docs, about(options), list(results.values()), list(trees))
    if not options.short:
        return 0
    for sentence in (found := broken_of(results)):
        print(sentence, file=sys.stderr)
    return 1 if found else 0


def broken_of(results: dict[str, Result]) -> list[str]:
    """The limits that were not kept, and the parts that were not measured."""
    figures = {name: value for result in results.values() for name, value in result.figures().items()}
    return broken(LIMITS, figures) + [f"{name}: {why}" for name, one in results.items() for why in one.failed.values()]


if __name__ == "__main__":
    sys.exit(main())
