"""A stop reaches the cell, and only ours; a kernel that dies or is busy gives a clear answer, soon."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.errors import KernelBusy, KernelUnavailable
from navi_jupyter.events import Custom, Event
from navi_jupyter.jupyter.kernels import service as kernels_module
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.sessions import Session

from .conftest import front_end, session_of, text_of, until


def told(written: list[Event], name: str) -> list[dict[str, Any]]:
    """The values of our events of that name."""
    return [event.value for event in written if isinstance(event, Custom) and event.name == name]


async def begun(
    kernels: KernelService, session: Session, code: str, *, first: str = "", **how: Any
) -> asyncio.Task[Any]:
    """Code that runs: it has said so."""
    said = asyncio.Event()
    task = asyncio.create_task(
        kernels.execute(session, f"{first}\nprint('begun', flush=True)\n{code}", on_output=lambda _: said.set(), **how)
    )
    waiting = asyncio.create_task(said.wait())
    await asyncio.wait({waiting, task}, timeout=40, return_when=asyncio.FIRST_COMPLETED)
    if not said.is_set():
        waiting.cancel()
        raise AssertionError(f"it did not begin: {task.result()}")
    return task


async def stopped(task: asyncio.Task[Any]) -> float:
    """Cancel it; the seconds until that was done."""
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - start


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time; time.sleep(600)", "import asyncio; await asyncio.sleep(600)"]
)
async def test_stop_interrupts_the_cell_within_two_seconds(
    kernels: KernelService,
    session: Session,
    code: str,
    run: Callable[..., Any],
    written: list[Event],
    record_property: Callable[[str, object], None],
) -> None:
    run()
    await kernels.execute(session, "x = 1")

    took = await stopped(await begun(kernels, session, code))

    record_property("seconds", took)
    print(f"{code!r}: {took * 1000:.0f} ms")
    assert took < 2.0
    (reached,) = told(written, "navi.stop")
    assert (reached["action"], reached["what"], reached["run_id"]) == ("reached", "kernel", "r_1")
    assert "the cell was interrupted after" in reached["message"]
    assert text_of((await kernels.execute(session, "print(x)")).outputs) == "1\n"


async def test_a_kernel_that_ignores_the_interrupt_is_said_to(
    kernels: KernelService, session: Session, run: Callable[..., Any], written: list[Event], parts: JupyterServices
) -> None:
    run()
    ignore = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"

    took = await stopped(await begun(kernels, session, "time.sleep(600)", first=ignore))

    assert took < 3.5
    assert "ignores the interrupt" in told(written, "navi.stop")[0]["message"]
    assert (await kernels.state(session)).status == "busy"
    assert (await kernels.restart(session)).status == "idle"
    assert (await kernels.execute(session, "1")).status == "ok"


async def test_a_timeout_interrupts_and_keeps_what_was_shown(kernels: KernelService, session: Session) -> None:
    await kernels.execute(session, "1")
    done = await kernels.execute(session, "print('so far', flush=True)\nimport time; time.sleep(60)", timeout=0.5)

    assert done.status == "timed_out"
    assert "so far" in text_of(done.outputs)
    assert (await kernels.execute(session, "1")).status == "ok"


async def test_an_interrupt_by_the_user_ends_the_code_as_interrupted(kernels: KernelService, session: Session) -> None:
    task = await begun(kernels, session, "import time; time.sleep(600)")
    assert await kernels.interrupt(session)
    assert (await asyncio.wait_for(task, 5)).status == "interrupted"


async def test_a_kernel_killed_in_mid_cell_is_seen_within_two_seconds(
    kernels: KernelService, session: Session, run: Callable[..., Any], written: list[Event], parts: JupyterServices
) -> None:
    run()
    task = await begun(kernels, session, "import time; time.sleep(600)")
    (theirs,) = await parts.session_manager.list_sessions()
    pid = parts.kernel_manager.get_kernel(theirs["kernel"]["id"]).provisioner.pid

    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    done = await asyncio.wait_for(task, 10)
    took = time.monotonic() - start

    print(f"seen after {took * 1000:.0f} ms")
    assert took < 2.0
    assert done.status == "kernel_died"
    assert text_of(done.outputs) == "begun\n"
    assert [one["status"] for one in told(written, "navi.kernel")][:2] == ["started", "dead"]


async def test_code_after_a_death_runs_in_the_kernel_that_jupyter_started_again(
    kernels: KernelService, session: Session, parts: JupyterServices, run: Callable[..., Any], written: list[Event]
) -> None:
    run()
    await kernels.execute(session, "x = 1")
    (theirs,) = await parts.session_manager.list_sessions()
    manager = parts.kernel_manager.get_kernel(theirs["kernel"]["id"])
    again = asyncio.Event()
    manager.add_restart_callback(again.set, "restart")
    os.kill(manager.provisioner.pid, signal.SIGKILL)

    died = manager.provisioner.wait()
    await asyncio.wait_for(died, 5)
    with pytest.raises(KernelUnavailable, match="dead"):
        await kernels.execute(session, "1")
    await asyncio.wait_for(again.wait(), 20)
    while not await manager.is_alive():  # noqa: ASYNC110 - Jupyter tells of it in no other way
        await asyncio.sleep(0.05)

    assert (await kernels.execute(session, "'x' in globals()")).outputs[-1]["data"]["text/plain"] == "False"
    assert "restarted" in [one["status"] for one in told(written, "navi.kernel")]


async def test_a_restart_by_the_user_ends_our_code_as_died(
    kernels: KernelService, session: Session, parts: JupyterServices
) -> None:
    task = await begun(kernels, session, "import time; time.sleep(600)")
    (theirs,) = await parts.session_manager.list_sessions()
    await parts.kernel_manager.restart_kernel(theirs["kernel"]["id"], now=True)
    assert (await asyncio.wait_for(task, 5)).status == "kernel_died"


async def test_a_busy_kernel_is_refused_with_what_runs_there_and_for_how_long(
    kernels: KernelService, session: Session, parts: JupyterServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_module, "PATIENCE", 0.5)
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    async with front_end(parts, kernel_id) as browser:
        go = Path(parts.root_dir, "go")
        code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.02)\nprint('user done')"
        asked = browser.execute(code)
        await until(browser, lambda m: m["msg_type"] == "execute_input")

        with pytest.raises(KernelBusy, match="a cell of the user's: 'import os, time'"):
            await kernels.execute(session, "touched = True")
        state = await kernels.state(session)
        assert (state.status, state.busy_with) == ("busy", code)
        assert state.busy_for is not None
        assert state.busy_for >= 0.5

        go.touch()  # nobody has interrupted it
        shown = await until(browser, lambda m: m["msg_type"] == "stream")
        assert shown["parent_header"]["msg_id"] == asked
        assert shown["content"]["text"] == "user done\n"
    done = await kernels.execute(session, "'touched' in globals()")
    assert text_of(done.outputs) == "False"


@pytest.mark.parametrize("asking", ["%navi why is it slow", "%%navi\nwhy is it slow"])
async def test_a_cell_that_waits_for_an_answer_without_lending_its_kernel_is_not_to_be_interrupted(
    kernels: KernelService, session: Session, parts: JupyterServices, monkeypatch: pytest.MonkeyPatch, asking: str
) -> None:
    monkeypatch.setattr(kernels_module, "PATIENCE", 0.5)
    waits = """
import time
from IPython.core.magic import register_line_cell_magic
@register_line_cell_magic
def navi(line, cell=None): time.sleep(600)
"""
    await kernels.execute(session, waits)
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    async with front_end(parts, kernel_id) as browser:
        browser.execute(asking)
        await until(browser, lambda m: m["msg_type"] == "execute_input")
        with pytest.raises(KernelBusy, match="waits for Navi's answer") as refused:
            await kernels.execute(session, "1")
        assert "ask the user" not in refused.value.message
        await kernels.interrupt(session)


async def test_stop_while_the_users_cell_is_in_the_way_leaves_it_alone_and_never_runs_ours(
    kernels: KernelService,
    session: Session,
    parts: JupyterServices,
    run: Callable[..., Any],
    written: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run()
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    line = kernels._connections[kernel_id]
    async with front_end(parts, kernel_id) as browser:
        go = Path(parts.root_dir, "go")
        browser.execute(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.02)\nprint('user done')")
        await until(browser, lambda m: m["msg_type"] == "execute_input")
        # The worst case: we had looked just before their cell came, and have asked already.
        await line.settle()
        monkeypatch.setattr(line, "settle", partial(asyncio.sleep, 0))
        line.cells.clear()
        task = asyncio.create_task(
            kernels.execute(session, "import time\nfor _ in range(500): time.sleep(.02)\nran = True")
        )
        while not line._requests:  # noqa: ASYNC110 - until it has asked
            await asyncio.sleep(0)
        assert await stopped(task) < 2.0
        assert "had not begun" in told(written, "navi.stop")[-1]["message"]
        go.touch()
        shown = await until(browser, lambda m: m["msg_type"] == "stream")
        assert shown["content"]["text"] == "user done\n"
    done = await kernels.execute(session, "'ran' in globals()")
    assert text_of(done.outputs) == "False"


async def test_two_sessions_on_one_kernel_take_turns(kernels: KernelService, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = session_of(id="s_1"), session_of(id="s_2")
    first = await begun(kernels, one, "import time; time.sleep(600)")
    monkeypatch.setattr(kernels_module, "PATIENCE", 0.3)

    with pytest.raises(KernelBusy, match="other code of an agent"):
        await kernels.execute(other, "2")
    await stopped(first)

    assert (await kernels.execute(other, "2")).status == "ok"
    assert (await kernels.state(one)).kernel_id == (await kernels.state(other)).kernel_id


async def test_a_failure_of_ours_drops_nothing_that_the_user_has_queued(
    kernels: KernelService, session: Session, parts: JupyterServices
) -> None:
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    async with front_end(parts, kernel_id) as browser:
        task = await begun(kernels, session, "import time; time.sleep(.5); 1/0")
        asked = browser.execute("'queued'")
        assert (await task).status == "error"
        reply = await browser.get_shell_msg(timeout=20)
        while reply["parent_header"]["msg_id"] != asked:
            reply = await browser.get_shell_msg(timeout=20)
        assert reply["content"]["status"] == "ok"
