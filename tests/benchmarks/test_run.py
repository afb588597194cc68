"""The benchmarks' runner on figures that are made up: the table, the limits of ratios, the parts. Nothing is timed."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import run
from tests.benchmarks.charts import Bar, bars
from tests.benchmarks.report import BEGIN, CHARTS, END, LIMITS, THIS, Limit, Result, better, broken, replaced, table

BENCH = """
import argparse, json, pathlib, sys
import navi_jupyter
parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true")
parser.add_argument("--json", type=pathlib.Path)
options = parser.parse_args()
{act}
options.json.write_text(json.dumps({{"fast, ms": {value}, "ours / theirs, x": {ratio}}}))
"""


def test_a_ratio_that_is_far_from_usual_breaks_its_limit_and_times_never_do() -> None:
    limits = [Limit(figure="ours / theirs, x", least=20), Limit(figure="share, of it", most=1.3)]
    assert broken(limits, {"ours / theirs, x": 61.0, "share, of it": 1.1, "fast, ms": 1e9}) == []
    assert broken(limits, {"ours / theirs, x": 12.0, "share, of it": 1.4}) == [
        "ours / theirs, x: 12.0 is less than 20.0",
        "share, of it: 1.4 is more than 1.3",
    ]
    assert broken(limits, {}) == [], "what was left out (no Node) breaks nothing"
    assert {limit.figure.rpartition(", ")[2] for limit in LIMITS} <= {"x", "of it"}


def test_the_table_has_medians_spread_the_other_commit_and_what_failed() -> None:
    rounds = {THIS: [{"fast, p50, ms": 2.0, "new, MB": 5.0}, {"fast, p50, ms": 3.0}], "main": [{"fast, p50, ms": 10.0}]}
    text = table(
        Result(title="Store", command="python x", rounds=rounds, failed={"main": "no such thing"}), [THIS, "main"]
    )
    assert "| fast, p50 | ms | 2.5 | 40 % | 10.0 | 0.25 |" in text
    assert "| new | MB | 5 | - | - | - |" in text
    assert "Not measured (main): no such thing" in text


def test_the_page_is_replaced_between_its_marks_only() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert replaced(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter"
    assert BEGIN in (run.ROOT / "docs" / "performance.md").read_text()
    with pytest.raises(ValueError, match="no marks"):
        replaced("without", "new")


def test_charts_are_svg_for_light_and_dark_and_leave_out_what_was_not_measured() -> None:
    drawn = bars("a < b", [Bar("navi", 1_500_000.0, own=True), Bar("queue", 34_000.0), Bar("nothing", 0.0)])
    root = ET.fromstring(drawn)
    wide = [float(one.attrib["width"]) for one in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert wide[0] > wide[1] > wide[2] > 0
    assert "prefers-color-scheme: dark" in drawn
    chart = next(chart for chart in CHARTS if chart.name == "fanout")
    known = dict.fromkeys(list(chart.rows.values())[:3], 10.0)
    assert (chart.draw(known, {}) or "").count("<rect") == 3
    assert chart.draw({}, {}) is None
    assert better("a lone event, ms", 2.0, 6.0) == better("delivered, 1/s", 6.0, 2.0) == 3.0


def test_every_benchmark_is_a_part_and_the_short_form_is_in_all_limits() -> None:
    known = {part.script or part.name for part in run.parts()}
    assert {path.stem.removeprefix("bench_") for path in run.HERE.glob("bench_*.py")} == known
    chosen = run.choice(run.options_of(["--short"]))
    assert sum(part.takes(quick=False, short=True) for part in chosen) < 120, "CI waits two minutes at most"
    with pytest.raises(SystemExit, match="nothing"):
        run.choice(run.options_of(["--only", "nothing"]))


def test_a_part_that_fails_is_named_and_the_rest_is_measured_and_a_broken_ratio_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real processes and a real tree, with benchmarks that only write numbers."""
    folder = tmp_path / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    own = tmp_path / "navi_jupyter"
    own.mkdir()
    (own / "__init__.py").write_text("")
    here = f"assert navi_jupyter.__file__.startswith({str(tmp_path)!r}), 'the package of another tree'"
    (folder / "bench_good.py").write_text(BENCH.format(act=here, value=3, ratio=50))
    (folder / "bench_bad.py").write_text(BENCH.format(act="raise ValueError('no disk')", value=3, ratio=50))
    (folder / "bench_slow.py").write_text(BENCH.format(act="", value=3, ratio=2))
    torn = "options.json.write_text('{'); sys.exit()"
    (folder / "bench_torn.py").write_text(BENCH.format(act=torn, value=3, ratio=50))
    (folder / "bench_stuck.py").write_text(BENCH.format(act="import time; time.sleep(600)", value=3, ratio=50))
    good, bad, slow, torn_one, stuck = (
        run.Part(name=name, short=("--quick",), short_seconds=0) for name in ("good", "bad", "slow", "torn", "stuck")
    )
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "LIMITS", (Limit(figure="ours / theirs, x", least=20),))

    def status(*chosen: run.Part) -> int:
        monkeypatch.setattr(run, "choice", lambda _options: list(chosen))
        monkeypatch.setattr(sys, "argv", ["run.py", "--short"])
        return run.main()

    assert status(good) == 0
    assert status(slow) == 1
    assert "ours / theirs, x: 2 is less than 20" in capsys.readouterr().err
    assert status(bad, good) == 1
    printed = capsys.readouterr()
    assert "Not measured (this): ended with 1: ValueError: no disk" in printed.out
    assert "| fast | ms | 3 |" in printed.out, "what comes after is measured"

    with monkeypatch.context() as patience:
        patience.setattr(run, "LONGEST", 1)
        assert status(stuck) == 1
    assert "Not measured (this): took more than 1 s" in capsys.readouterr().out
    assert status(torn_one, good) == 1
    printed = capsys.readouterr()
    assert "Not measured (this): its figures cannot be read" in printed.out
    assert "| fast | ms | 3 |" in printed.out

    docs = tmp_path / "docs"
    (docs / "pictures").mkdir(parents=True)
    (docs / "performance.md").write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr(sys, "argv", ["run.py", "--docs", str(docs)])
    assert run.main() == 0
    page = (docs / "performance.md").read_text()
    assert "### good" in page
    assert f"Python {platform.python_version()}" in page
