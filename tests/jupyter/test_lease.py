"""Code of the agent in a kernel ends by itself when its server may not act any more: a stopped server cannot end it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from navi_jupyter.clock import boot_time
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.lease_file import LeaseFile, machine
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.jupyter import Execution

from .conftest import front_end

EFFECTS = """
import time
def act():
    with open({path!r}, "a") as file:
        file.write(f"{{time.clock_gettime(time.CLOCK_BOOTTIME)}}\\n")
"""
LOOPS = {
    "python": "while True: act(); time.sleep(0.02)",
    "awaits": "import asyncio\nwhile True: act(); await asyncio.sleep(0.02)",
    "busy": "while True: act()",
    "catches": """
while True:
    try:
        while True: act(); time.sleep(0.02)
    except KeyboardInterrupt:
        caught = globals().get("caught", 0) + 1
        if caught > 1: raise""",
    "program": """
import os
os.system(f"while true; do cut -d' ' -f1 /proc/uptime >> {path}; sleep 0.05; done")""",
    "program that ignores interrupts": """
import signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the program inherits
program = subprocess.Popen(["sh", "-c", "while true; do cut -d' ' -f1 /proc/uptime >> {path}; sleep 0.05; done"])
signal.signal(signal.SIGINT, signal.default_int_handler)
time.sleep(60)""",
    "program of a shell": """
import os, sys
loop = "while true; do cut -d' ' -f1 /proc/uptime >> {path}; sleep 0.05; done"
os.system(f'sh -c "{loop}; true"; true')""",
    "program with a session of its own": """
import subprocess
loop = "while true; do cut -d' ' -f1 /proc/uptime >> {path}; sleep 0.05; done"
subprocess.run(["sh", "-c", loop], start_new_session=True)""",
    "program left by its shell": """
import os
os.system("(trap '' INT; while true; do cut -d' ' -f1 /proc/uptime >> {path}; sleep 0.05; done) &")
time.sleep(60)""",
    "after a cell within it": """
get_ipython().run_cell("1 + 1")
get_ipython().run_cell("")
while True: act(); time.sleep(0.02)""",
}
GUARDED = "__import__('IPython').get_ipython()._navi_guard.current._frame is None"  # the evaluation itself
PROMPT = ("python", "awaits", "busy", "program", "after a cell within it")


@pytest.fixture
def lease(tmp_path: Path) -> LeaseFile:
    file = LeaseFile(tmp_path)
    file.write(boot_time() + 60)
    return file


@pytest.fixture
def guarded(
    parts: JupyterServices, lease: LeaseFile, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[KernelService]:
    opened = KernelService(parts, lease_path=lambda: lease.path)
    yield opened
    jp_asyncio_loop.run_until_complete(opened.close())


def effects(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


async def begin(kernels: KernelService, session: Session, path: Path, loop: str) -> asyncio.Task[Execution]:
    """Code that has begun to have effects."""
    task = asyncio.create_task(kernels.execute(session, loop))
    async with asyncio.timeout(30):
        while len(effects(path)) < 3 and not task.done():  # noqa: ASYNC110  a file is polled
            await asyncio.sleep(0.02)
    return task


async def prepared(kernels: KernelService, session: Session, path: Path) -> None:
    await kernels.execute(session, EFFECTS.format(path=str(path)) + f"path = {str(path)!r}")


async def ended(task: asyncio.Task[Execution], path: Path) -> float:
    """When it had its last effect."""
    async with asyncio.timeout(20):
        await task
    await asyncio.sleep(0.5)  # a program that ignores interrupts gets a moment
    last = effects(path)[-1]
    await asyncio.sleep(0.5)
    assert effects(path)[-1] == last
    return last


@pytest.mark.parametrize("loop", LOOPS)
async def test_code_has_no_effect_after_the_lease_of_its_server_is_over(
    guarded: KernelService, session: Session, lease: LeaseFile, tmp_path: Path, loop: str
) -> None:
    path = tmp_path / "effects.txt"
    await prepared(guarded, session, path)
    until = boot_time() + 2.0
    lease.write(until)
    task = await begin(guarded, session, path, LOOPS[loop].replace("{path}", str(path)))
    lease.write(longer := boot_time() + 2.5)
    last = await ended(task, path)
    assert until < last, "it was renewed meanwhile"
    assert last < longer + (0.5 if loop in PROMPT else 1.2)
    lease.write(boot_time() + 60)
    idle = await guarded.evaluate(session, f"_navi_result = {GUARDED}", timeout=10)
    assert idle is True, "nothing of the agent is left to be ended"
    after = await guarded.execute(session, "2 + 2")
    assert after.status == "ok", "the kernel and what comes next are untouched"


async def test_code_that_begins_after_the_lease_of_its_server_is_over_has_no_effect(
    guarded: KernelService, session: Session, lease: LeaseFile, tmp_path: Path
) -> None:
    path = tmp_path / "effects.txt"
    await prepared(guarded, session, path)
    lease.write(boot_time() - 1)
    late = await guarded.execute(session, "act()")
    assert (late.status, (late.error or {}).get("ename")) == ("error", "InputRejected")
    with pytest.raises(InvalidRequest, match="did not begin"):
        await guarded.evaluate(session, "_navi_result = act()", timeout=10)
    assert not effects(path)
    lease.write(boot_time() + 60)
    assert (await guarded.execute(session, "act()")).status == "ok"
    assert len(effects(path)) == 1


async def test_programs_of_the_user_go_on_when_code_of_the_agent_is_ended(
    guarded: KernelService, session: Session, lease: LeaseFile, tmp_path: Path
) -> None:
    path = tmp_path / "effects.txt"
    await prepared(guarded, session, path)
    await guarded.execute(session, "import subprocess; mine = subprocess.Popen(['sleep', '60'])")
    lease.write(boot_time() + 1.5)
    task = await begin(guarded, session, path, LOOPS["python"])
    await ended(task, path)
    await asyncio.sleep(1.0)
    lease.write(boot_time() + 60)
    shown = await guarded.execute(session, "alive = mine.poll() is None\nmine.kill()\nprint('alive', alive)")
    assert "alive True" in str(shown)


async def test_code_ends_when_the_process_of_its_server_does(
    parts: JupyterServices, session: Session, tmp_path: Path
) -> None:
    path, file = tmp_path / "effects.txt", tmp_path / "other.lease"
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    file.write_text(f"{boot_time() + 60} {server.pid} {machine()}\n")
    kernels = KernelService(parts, lease_path=lambda: str(file))
    try:
        await prepared(kernels, session, path)
        task = await begin(kernels, session, path, LOOPS["python"])
        server.kill()
        killed = boot_time()
        assert await ended(task, path) < killed + 0.5
    finally:
        server.kill()
        server.wait()
        await kernels.close()


async def test_a_cell_of_the_user_goes_on_whatever_becomes_of_the_lease(
    guarded: KernelService, parts: JupyterServices, session: Session, lease: LeaseFile, tmp_path: Path
) -> None:
    assert (await guarded.execute(session, "1")).status == "ok"
    assert (await guarded.execute(session, "import asyncio\nawait asyncio.sleep(0)")).status == "ok"
    assert (await guarded.execute(session, "get_ipython().run_cell('')")).status == "ok"
    lease.write(boot_time() - 1)
    kernel_id = (await guarded.state(session)).kernel_id
    async with front_end(parts, kernel_id or "") as client:
        reply = await client.execute_interactive("import time; time.sleep(1.5)", timeout=20)
    assert reply["content"]["status"] == "ok"


async def test_a_kernel_of_another_machine_is_not_ended_by_a_file_that_it_happens_to_read(
    parts: JupyterServices, session: Session, tmp_path: Path
) -> None:
    file = tmp_path / "other.lease"
    file.write_text(f"{boot_time() - 60} {os.getpid()} another/1\n")
    kernels = KernelService(parts, lease_path=lambda: str(file))
    try:
        assert (await kernels.execute(session, "import time; time.sleep(1.0)")).status == "ok"
    finally:
        await kernels.close()


def test_the_file_is_its_owners_alone_and_gone_when_the_server_stops(tmp_path: Path) -> None:
    file = LeaseFile(tmp_path)
    assert file.path is None
    file.write(12.5)
    (path,) = tmp_path.iterdir()
    assert (str(path), path.stat().st_mode & 0o777) == (file.path, 0o600)
    assert path.read_text() == f"12.500 {os.getpid()} {machine()}\n"
    file.remove()
    assert (file.path, list(tmp_path.iterdir())) == (None, [])
    nowhere = LeaseFile(tmp_path / "missing")
    nowhere.write(1.0)
    assert nowhere.path is None
