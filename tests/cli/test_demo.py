"""``navi demo`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ROOT

pytestmark = pytest.mark.slow

NAVI = [sys.executable, "-m", "navi_jupyter.cli"]
STEPS = ["server", "kernel", "prompt", "session", "recall", "fired", "ledger", "durable", "done"]


def environment(temporary: Path, **more: str) -> dict[str, str]:
    """The developer's, with a temporary directory that we can look into."""
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), **more}


def run(temporary: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NAVI, *arguments], env=environment(temporary, **more), capture_output=True, text=True, timeout=60, check=False
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def processes_in(folder: Path) -> list[int]:
    """Those that have something of ``folder`` in their environment."""
    psutil = pytest.importorskip("psutil")
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) + "/navi-demo-" in " ".join(process.environ().values()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_everything_is_seen_in_under_30_seconds_and_nothing_is_left(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run(tmp_path, "demo", "--json")
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    reported = lines(done.stdout)
    assert [each["step"] for each in reported] == STEPS
    assert all(each["ok"] for each in reported)
    facts = {each["step"]: each for each in reported}
    assert facts["prompt"]["updates"] > 3
    assert facts["prompt"]["first_text_seconds"] < facts["prompt"]["seconds"]
    assert 0 <= facts["fired"]["late_seconds"] < 5
    assert facts["done"]["seconds"] <= took < 30
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_it_is_readable_and_does_not_care_about_the_users_settings(tmp_path: Path) -> None:
    nowhere = tmp_path / "mine"
    done = run(
        tmp_path,
        "demo",
        NAVI_DATABASE_URL=f"sqlite:///{nowhere}/navi.db",
        NAVI_SERVER_URL="http://127.0.0.1:9/",
        NAVI_DEFAULT_MODEL="anthropic:none",
        JUPYTER_DATA_DIR=str(nowhere),
        JUPYTER_PORT="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(STEPS)
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    assert not nowhere.exists()


def test_a_failure_is_told_with_the_servers_log_and_a_status_of_1(tmp_path: Path) -> None:
    # a server that cannot start: the module it is run from is another one.
    broken = tmp_path / "broken"
    (broken / "jupyter_server").mkdir(parents=True)
    (broken / "jupyter_server" / "__init__.py").touch()
    (broken / "jupyter_server" / "__main__.py").write_text("raise SystemExit('no server today')")
    done = run(tmp_path, "demo", "--json", PYTHONPATH=f"{broken}{os.pathsep}{ROOT}")
    assert done.returncode == 1
    (last,) = lines(done.stdout)
    assert (last["step"], last["ok"]) == ("failed", False)
    assert "no server today" in last["text"]
    assert [each.name for each in tmp_path.iterdir()] == ["broken"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_cleans_up(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*NAVI, "demo", "--json"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["step"] == "server"
        process.send_signal(signal.SIGINT)
        rest = lines(process.stdout.read())
        assert process.wait(20) == 130
    assert rest[-1]["step"] == "failed"
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []
