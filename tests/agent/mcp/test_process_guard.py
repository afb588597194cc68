"""Nothing of an MCP server outlives the process that started it, however that one ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from navi_jupyter.agent.mcp import process_guard
from tests.agent.mcp.mcp_world import SCRIPT, SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers and death signals are Linux's")

KEEPER = """
import subprocess, sys
guard = subprocess.Popen(
    [sys.executable, "-I", "-S", sys.argv[1], str(__import__("os").getpid()), *sys.argv[2:]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
print(guard.pid, flush=True)
guard.wait()
"""


def alive(pids: Sequence[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            pass
    return found


def wait_for(path: Path) -> str:
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    return path.read_text()


def gone_within(pids: Sequence[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while alive(pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def family(tmp_path: Path) -> tuple[subprocess.Popen[str], int, list[int]]:
    """A process that has started a stubborn server behind the guard; the guard's pid; the server's, its child's and its
    daemon's."""
    pids = tmp_path / "pids"
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, process_guard.__file__, sys.executable, str(SCRIPT), "stubborn", str(pids)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    guard_pid = int(keeper.stdout.readline())
    family = [int(pid) for pid in wait_for(pids).split()]
    assert len(family) == 3
    assert alive(family) == family
    return keeper, guard_pid, family


def test_kill_9_of_the_parent_ends_the_server_its_child_and_its_daemon_within_2_seconds(
    family: tuple[subprocess.Popen[str], int, list[int]],
) -> None:
    keeper, guard_pid, pids = family
    keeper.kill()
    keeper.wait()
    assert gone_within([guard_pid, *pids], 2.0)


def test_sigterm_to_the_guard_ends_them_all(family: tuple[subprocess.Popen[str], int, list[int]]) -> None:
    keeper, guard_pid, pids = family
    os.kill(guard_pid, signal.SIGTERM)
    assert gone_within([guard_pid, *pids], 3.0)
    keeper.kill()
    keeper.wait()


def test_kill_9_of_the_guard_ends_the_server(family: tuple[subprocess.Popen[str], int, list[int]]) -> None:
    keeper, guard_pid, pids = family
    os.kill(guard_pid, signal.SIGKILL)
    assert gone_within(pids[:1], 2.0)
    for pid in pids[1:]:
        os.kill(pid, signal.SIGKILL)
    keeper.kill()
    keeper.wait()


def guarded(*command: str) -> list[str]:
    return [sys.executable, "-I", "-S", process_guard.__file__, str(os.getpid()), *command]


def test_the_programs_exit_code_and_its_output_come_through() -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('oh', file=sys.stderr); sys.exit(7)"
    done = subprocess.run(guarded(sys.executable, "-c", code), input="hello", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "HELLO\n", "oh\n")


def test_a_program_that_leaves_a_child_behind_leaves_nothing_behind() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)"
    done = subprocess.run(guarded(sys.executable, "-c", code), stdout=subprocess.PIPE, text=True)
    assert gone_within([int(done.stdout)], 2.0)


def test_a_program_that_ends_with_its_input_is_not_killed(tmp_path: Path) -> None:
    code = f"import sys, time; sys.stdin.read(); time.sleep(0.5); open({str(tmp_path / 'said')!r}, 'w').write('bye')"
    with subprocess.Popen(guarded(sys.executable, "-c", code), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SECONDS) == 0
    assert (tmp_path / "said").read_text() == "bye"


def test_the_guard_costs_little() -> None:
    def seconds(command: list[str]) -> float:
        """Of the processor: a busy machine must not count. The program's own are in it, and nearly nothing."""
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    assert seconds(guarded("true")) < 0.5
    with subprocess.Popen(guarded("sleep", "1000"), stdin=subprocess.PIPE) as process:
        until = time.monotonic() + SECONDS
        while not psutil.Process(process.pid).children():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert psutil.Process(process.pid).memory_full_info().uss < 12_000_000
        process.terminate()
