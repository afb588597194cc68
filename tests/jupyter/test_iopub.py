"""One reader of IOPub per kernel: executions and observers share a socket and a thread; a flood holds up neither."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from navi_jupyter.jupyter.kernels.iopub import MAX_PENDING, IopubReader, LoopListener
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.observer import KernelObserver
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.kernels.transport import Parent, RawMessage
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.jupyter import CellEnded, KernelNotice

from .conftest import text_of


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "navi-iopub"]


async def until(condition: Callable[[], Any]) -> None:
    """Wait, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of several things, in a thread
            await asyncio.sleep(0.01)


async def test_executions_and_observers_share_one_socket_that_closes_with_the_last(
    parts: JupyterServices, session: Session
) -> None:
    iopub = IopubReader()
    kernels, observer = KernelService(parts, iopub), KernelObserver(parts, iopub)
    assert not readers()
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    notices: list[KernelNotice] = []
    subscriptions = [await observer.subscribe(kernel_id, notices.append) for _ in range(2)]
    assert len(iopub._channels) == len(readers()) == 1

    done = await kernels.execute(session, "print('seen by all')")
    assert text_of(done.outputs) == "seen by all\n"
    await until(lambda: sum(isinstance(one, CellEnded) for one in notices) == 2)
    ended = [one.run for one in notices if isinstance(one, CellEnded)]
    assert [text_of(run.outputs) for run in ended] == ["seen by all\n"] * 2
    assert all(run.ours and run.complete for run in ended)

    await subscriptions[0].close()
    await kernels.close()
    assert len(readers()) == 1, "an observer is left"
    await observer.close()
    assert not readers()


async def test_a_subscription_beside_another_misses_nothing_from_its_first_moment(
    parts: JupyterServices, session: Session
) -> None:
    iopub = IopubReader()
    kernels, observer = KernelService(parts, iopub), KernelObserver(parts, iopub)
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    for number in range(10):
        notices: list[KernelNotice] = []
        subscription = await observer.subscribe(kernel_id, notices.append)
        await kernels.execute(session, f"print({number})")
        await until(lambda notices=notices: any(isinstance(one, CellEnded) for one in notices))
        (ended,) = [one.run for one in notices if isinstance(one, CellEnded)]
        assert (text_of(ended.outputs), ended.complete) == (f"{number}\n", True)
        await subscription.close()
    await observer.close()
    await kernels.close()


async def test_a_flood_of_displays_waits_bounded_while_the_loop_is_held(
    kernels: KernelService, session: Session
) -> None:
    await kernels.execute(session, "from IPython.display import display")
    task = asyncio.create_task(kernels.execute(session, "for n in range(6000): display(n)\nprint('end')"))
    await asyncio.sleep(0.3)
    time.sleep(2)  # noqa: ASYNC251 - the loop is held: the reader goes on without it
    done = await asyncio.wait_for(task, 60)
    assert done.status == "ok"
    assert text_of(done.outputs).startswith("0123456789")
    assert (await kernels.execute(session, "'after'")).status == "ok"


async def test_messages_for_a_busy_loop_are_bounded_and_keep_their_order() -> None:
    taken: list[str] = []
    listener = LoopListener(lambda message: message.kind != "unwanted", lambda message: taken.append(message.sender))
    kinds = ("stream", "unwanted")
    batch = [RawMessage(kinds[n % 2], str(n), Parent(), b'{"name": "stdout", "text": "x"}') for n in range(200)]
    more = await asyncio.to_thread(lambda: [listener.take(batch) for _ in range(3)])
    assert more == [True] * 3

    def fill() -> int:
        count = 0
        while listener.take(batch):
            count += 1
        return count

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join(10)  # the loop is held meanwhile
    assert not thread.is_alive(), "it never has enough"
    assert len(taken) < MAX_PENDING
    await until(lambda: listener.take(()) and len(taken) >= MAX_PENDING)
    assert taken[:100] == [str(n) for n in range(0, 200, 2)]
    assert taken == taken[:100] * (len(taken) // 100)


async def test_a_mistake_of_one_listener_is_not_another_ones(parts: JupyterServices, session: Session) -> None:
    iopub = IopubReader()
    kernels = KernelService(parts, iopub)
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id

    class Broken:
        def take(self, _: object) -> bool:
            raise RuntimeError("mine")

    manager = parts.kernel_manager.get_kernel(kernel_id)
    subscription = iopub.subscribe(str(kernel_id), manager, Broken())
    assert text_of((await kernels.execute(session, "print('fine')")).outputs) == "fine\n"
    await iopub.unsubscribe(subscription)
    await kernels.close()
    assert not readers()
