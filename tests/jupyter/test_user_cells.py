"""What proves that a request of a kernel comes from a cell of the user's: the states, and a real kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from navi_jupyter.jupyter.kernels.iopub import IopubReader
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.kernels.transport import Parent, RawMessage
from navi_jupyter.jupyter.kernels.user_cells import UserCells, WatchedKernel
from navi_jupyter.model.sessions import Session
from navi_jupyter.navi_cells import AGENT_USER

KEY = "a" * 32


def status(
    state: str, request: str, *, user: str = "ann", kind: str = "execute_request", sender: str = "p1"
) -> RawMessage:
    content = json.dumps({"execution_state": state}).encode()
    return RawMessage("status", sender, Parent(request, kind, user, "s"), content)


def code(request: str, *, user: str = AGENT_USER) -> RawMessage:
    return RawMessage("execute_input", "p1", Parent(request, "execute_request", user, "s"), b"{}")


def kernel(*messages: RawMessage) -> WatchedKernel:
    watched = WatchedKernel()
    watched.take(messages)
    return watched


def test_a_cell_counts_from_its_beginning_to_its_end() -> None:
    watched = kernel(status("busy", "c"))
    assert watched.has("c", None)
    assert not watched.has("other", None)
    watched.take([status("idle", "c")])
    assert not watched.has("c", None)


def test_an_agents_execution_is_no_cell_and_while_it_runs_no_cell_counts() -> None:
    watched = kernel(status("busy", "a", user=AGENT_USER))
    assert not watched.has("a", None)
    watched.take([status("busy", "c")])
    assert not watched.has("c", None)
    watched.take([status("idle", "a", user=AGENT_USER)])
    assert watched.has("c", None)


def test_a_cell_in_which_an_agents_code_ran_needs_the_key_that_it_gave_before() -> None:
    with_key, without, late = (kernel(status("busy", "c")) for _ in range(3))
    assert with_key.keep_key("c", KEY)
    for watched in (with_key, without, late):
        watched.note_code()
    late.keep_key("c", KEY)
    assert (with_key.has("c", KEY), with_key.has("c", None), with_key.has("c", "b" * 32)) == (True, False, False)
    assert not without.has("c", KEY)
    assert not late.has("c", KEY)
    with_key.take([status("idle", "c"), status("busy", "c2")])
    assert with_key.has("c2", None), "the next cell is another one"


def test_a_second_key_of_the_same_cell_is_not_taken() -> None:
    watched = kernel(status("busy", "c"))
    watched.keep_key("c", KEY)
    watched.keep_key("c", "b" * 32)
    watched.note_code()
    assert (watched.has("c", KEY), watched.has("c", "b" * 32)) == (True, False)


def test_a_message_of_a_widget_counts_for_a_moment_after_it_was_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = kernel(status("busy", "w", kind="comm_msg"), status("idle", "w", kind="comm_msg"))
    assert watched.has("w", None)
    monkeypatch.setattr("navi_jupyter.jupyter.kernels.user_cells.COMM_GRACE", -1.0)
    assert not watched.has("w", None)


def test_another_process_has_nothing_of_the_one_before() -> None:
    watched = kernel(status("busy", "c"), status("busy", "a", user=AGENT_USER), code("a"))
    assert watched.touched
    watched.take([status("starting", "x", sender="p2")])
    assert watched.touched, "a program that the agent's code has left behind outlives the process"
    assert not watched.has("c", None)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is."""
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)


async def test_a_real_kernel_is_watched_from_its_start_and_by_the_code_that_ran_in_it(
    parts: JupyterServices, kernels: KernelService, session: Session
) -> None:
    cells = UserCells(parts, IopubReader())
    cells.start()
    assert not cells.touched
    kernel_id = await parts.kernel_manager.start_kernel()
    client = parts.kernel_manager.get_kernel(kernel_id).client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        running = client.execute("import time; time.sleep(3)")
        assert await cells.run(kernel_id, running, None)
        assert not await cells.run(kernel_id, "another", None)
        assert not await cells.run("no-kernel", running, None)

        async def over() -> bool:
            return not await cells.run(kernel_id, running, None)

        async def touched() -> bool:
            return cells.touched

        await until(over)
        await kernels.execute(session.but(kernel_id=kernel_id), "1")
        await until(touched)
    finally:
        client.stop_channels()
        await cells.close()
