"""The work of a waiting cell: done on its thread, in order, and not after the cell is over."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import CancelledError

import pytest

from navi_jupyter.kernel.lending.signals import CellSignals
from navi_jupyter.kernel.main_thread import MainThreadQueue


def in_a_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_work_posted_by_another_thread_wakes_the_waiting_one_and_is_done_there_in_order() -> None:
    queue, did = MainThreadQueue(), []

    def post() -> None:
        for n in range(5):
            queue.post(lambda n=n: did.append((n, threading.current_thread())))

    poster = in_a_thread(post)
    while len(did) < 5:
        if not queue.run_next():
            queue.wait(30)
    poster.join()
    assert did == [(n, threading.current_thread()) for n in range(5)]


def test_the_result_of_work_goes_back_to_the_thread_that_posted_it() -> None:
    queue, got = MainThreadQueue(), []
    poster = in_a_thread(lambda: got.append(queue.post(lambda: 6 * 7).result(30)))
    while not queue.run_next():
        queue.wait(30)
    poster.join(30)
    assert got == [42]


def test_an_error_of_the_work_is_the_posters_and_ctrl_c_is_the_cells_too() -> None:
    queue = MainThreadQueue()
    failed = queue.post(lambda: 1 // 0)
    assert queue.run_next()
    assert isinstance(failed.exception(0), ZeroDivisionError)

    def interrupted() -> None:
        raise KeyboardInterrupt

    stopped = queue.post(interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.run_next()
    assert isinstance(stopped.exception(0), KeyboardInterrupt)


def test_what_was_not_begun_when_the_cell_ends_is_cancelled_and_never_done() -> None:
    queue, did = MainThreadQueue(), []
    early = queue.post(lambda: did.append("early"))
    queue.close()
    late = queue.post(lambda: did.append("late"))
    assert not queue.run_next()
    for one in (early, late):
        with pytest.raises(CancelledError):
            one.result(0)
    assert did == []


def test_work_that_was_cancelled_before_its_turn_is_skipped() -> None:
    queue, did = MainThreadQueue(), []
    queue.post(lambda: did.append("first")).cancel()
    queue.post(lambda: did.append("second"))
    assert queue.run_next()
    assert did == ["second"]


async def test_in_a_cell_that_awaits_work_may_await_while_the_loop_goes_on() -> None:
    queue, others = MainThreadQueue(asyncio.get_running_loop()), asyncio.Event()

    async def work() -> str:
        await others.wait()  # set by another task of the loop, which must go on meanwhile
        return "done"

    answer = asyncio.ensure_future(asyncio.to_thread(lambda: queue.post(work).result(30)))
    asyncio.get_running_loop().call_later(0.05, others.set)
    while not await queue.run_next_async():
        await queue.wait_async(30)
    assert await answer == "done"


def test_an_interrupt_that_was_announced_with_a_restart_is_no_ctrl_c() -> None:
    # Jupyter interrupts a kernel before it restarts it: the cell that lent it stopped the run that had asked for that.
    with CellSignals() as signals:
        signals.ignore(60.0)
        signal.raise_signal(signal.SIGINT)
        signals.ignore(0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
