"""A cell that waits lends its kernel: runs of its session work there, others do not; nothing interrupts the cell."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session as JupyterSession
from jupyter_core.paths import jupyter_runtime_dir

from navi_jupyter.agent.tools.base import ToolOutput
from navi_jupyter.agent.tools.kernel import TOOLS
from navi_jupyter.agent.tools.kernel_functions import KernelTools
from navi_jupyter.errors import InvalidRequest, KernelBusy
from navi_jupyter.events import Custom, Event
from navi_jupyter.jupyter.kernels import lent_kernel
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.lent_kernel import LentKernel
from navi_jupyter.jupyter.kernels.loans import KernelLoans
from navi_jupyter.jupyter.kernels.outputs import Outputs
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService
from navi_jupyter.model.runs import Effect, KernelFunction
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.agent import ToolContext, tool_call
from tests.support.lending_cell import Relay, lending

from .conftest import front_end, session_of, text_of, until

WITHIN = 40.0
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def loans(kernels: KernelService) -> KernelLoans:
    """The loans that the kernels of the server know."""
    return kernels._loans


@pytest.fixture
def waiting(kernels: KernelService, session: Session, parts: JupyterServices, loans: KernelLoans) -> Any:
    """``async with waiting() as (relay, client)``: a cell of the session's notebook waits."""

    @asynccontextmanager
    async def enter(first: str = "") -> AsyncIterator[tuple[Relay, Any]]:
        await kernels.execute(session, "import sys\nx = [1, 2, 3]")
        kernel_id = (await kernels.state(session)).kernel_id
        assert kernel_id is not None
        async with (
            front_end(parts, kernel_id) as client,
            lending(loans, client, kernel_id, session.id, first=first) as relay,
        ):
            # The server knows, too, that a cell runs there: only the loan makes it usable.
            while not kernels._connections[kernel_id].cells.longest:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield relay, client

    return enter


async def use(name: str, /, **arguments: Any) -> ToolOutput:
    """Call a tool as a model does."""
    tool_call.set("t_1")
    return await {tool.name: tool for tool in TOOLS}[name].call(arguments)


def emitted(written: list[Event], name: str) -> list[dict[str, Any]]:
    return [event.value for event in written if isinstance(event, Custom) and event.name == name]


# --- the kernel of the cell that asks ---------------------------------------------------------------------------------


async def test_what_the_chat_can_do_in_a_kernel_it_can_do_while_a_cell_waits_there(
    waiting: Any, kernels: KernelService, session: Session, run: Callable[..., ToolContext]
) -> None:
    run()
    async with waiting() as (relay, _):
        assert (await kernels.state(session)).status == "idle"
        assert "'x'" in str((await use("list_variables")).content)
        assert (await use("inspect_variable", name="x[1]")).content["preview"] == "2"
        shown: list[Any] = []
        done = await kernels.execute(session, "x.append(4)\nprint(sum(x))", on_output=shown.append)
        assert (done.status, text_of(done.outputs), text_of(shown)) == ("ok", "10\n", "10\n")
        failed = await kernels.execute(session, "1/0")
        assert failed.status == "error"
        assert failed.error is not None
        assert failed.error["ename"] == "ZeroDivisionError"
        assert relay.received[-2]["tool_call_id"] == "t_1"
        with pytest.raises(InvalidRequest, match="ZeroDivisionError"):
            await kernels.evaluate(session, "1/0")
        assert await kernels.evaluate(session, "_navi_result = len(x)") == 4
    # The cell has its answer: from now on the kernel is used as ever.
    assert text_of((await kernels.execute(session, "x")).outputs) == "[1, 2, 3, 4]"


async def test_the_state_says_that_a_cell_waits_and_what_is_executed_for_the_run(
    waiting: Any, kernels: KernelService, session: Session, run: Callable[..., ToolContext]
) -> None:
    run()
    async with waiting():
        status = (await use("kernel_status")).content
        assert status["status"] == "idle"
        assert "waits for the answer" in status["note"]
        kernel_id = (await kernels.state(session)).kernel_id
        assert kernel_id is not None
        assert not kernels.runs_ours(kernel_id)
        begun = asyncio.Event()
        code = "_emit('begun')\nwhile True: pass"
        task = asyncio.create_task(kernels.execute(session, code, on_output=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), WITHIN)
        state = await kernels.state(session)
        assert (state.status, state.busy_with) == ("busy", code)
        assert kernels.runs_ours(kernel_id)
        assert (await use("interrupt_kernel")).content["interrupted"]
        assert (await asyncio.wait_for(task, WITHIN)).status == "interrupted"
        assert not kernels.runs_ours(kernel_id)


async def test_interrupting_leaves_the_cell_that_waits_alone(
    waiting: Any, kernels: KernelService, session: Session, run: Callable[..., ToolContext]
) -> None:
    run()
    async with waiting() as (relay, _):
        done = await use("interrupt_kernel")
        assert done.content["interrupted"] is False
        assert "waits for the answer" in done.content["was"]["note"]
        assert (await kernels.execute(session, "x")).status == "ok"
        assert relay.loan is not None
        assert relay.loan.ended is None


async def test_other_sessions_are_refused_at_once_and_not_advised_to_interrupt(
    waiting: Any, kernels: KernelService, session: Session, loans: KernelLoans, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = session_of(id="s_2")
    async with waiting() as (relay, _):
        assert (await kernels.state(other)).status == "busy"
        for attempt in (
            lambda: kernels.execute(other, "1"),
            lambda: kernels.evaluate(other, "1"),
            lambda: kernels.variables(other),
            lambda: kernels.interrupt(other),
            lambda: kernels.restart(other),
        ):
            with pytest.raises(KernelBusy, match="another session") as refused:
                await attempt()
            assert "ask the user" not in refused.value.message
        assert (await kernels.execute(session, "x")).status == "ok"
        assert relay.loan is not None
        assert relay.loan.ended is None


async def test_a_cell_that_begins_to_wait_while_a_request_waits_takes_it(
    kernels: KernelService, session: Session, parts: JupyterServices, loans: KernelLoans
) -> None:
    await kernels.execute(session, "1")
    kernel_id = (await kernels.state(session)).kernel_id
    assert kernel_id is not None
    go = Path(parts.root_dir, "go")
    slow = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.02)"
    async with front_end(parts, kernel_id) as client:
        relay = lending(loans, client, kernel_id, session.id, first=slow)
        entered = asyncio.ensure_future(relay.__aenter__())
        await until(client, lambda m: m["msg_type"] == "execute_input")
        task = asyncio.create_task(kernels.execute(session, "40 + 2"))
        while not kernels._connections[kernel_id].lock.locked():  # noqa: ASYNC110 - until it waits for the cell
            await asyncio.sleep(0.01)
        go.touch()
        await entered
        assert (await asyncio.wait_for(task, WITHIN)).status == "ok"
        await relay.__aexit__(None, None, None)


async def test_what_a_cell_did_not_begin_before_it_ended_runs_afterwards(
    waiting: Any, kernels: KernelService, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with waiting() as (relay, _):
        begun = asyncio.Event()
        first = asyncio.create_task(
            kernels.execute(session, "_emit('x')\nimport time; time.sleep(.3)", on_output=lambda _: begun.set())
        )
        await asyncio.wait_for(begun.wait(), WITHIN)
        relay.leave()  # it ends after what it executes now
        second = asyncio.create_task(kernels.execute(session, "'afterwards'"))
        assert (await asyncio.wait_for(first, WITHIN)).status == "ok"
        done = await asyncio.wait_for(second, WITHIN)
    assert (done.status, text_of(done.outputs)) == ("ok", "'afterwards'")


async def test_requests_of_a_loan_run_one_after_another(waiting: Any, kernels: KernelService, session: Session) -> None:
    async with waiting():
        slow = "import time; time.sleep(.05); order.append({})"
        await kernels.execute(session, "order = []")
        await asyncio.gather(*(kernels.execute(session, slow.format(n)) for n in range(5)))
        assert await kernels.evaluate(session, "_navi_result = order") == [0, 1, 2, 3, 4]


async def test_another_notebooks_cells_run_in_that_notebooks_kernel(
    waiting: Any, kernels: KernelService, session: Session, parts: JupyterServices
) -> None:
    import nbformat

    cells = [nbformat.v4.new_code_cell("import os; print(os.getpid())", id="pid")]
    for name in ("other.ipynb", "work.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), Path(parts.root_dir, name))
    notebooks = NotebookService(parts, kernels)
    async with waiting():
        pid = text_of((await kernels.execute(session, cells[0].source)).outputs)
        own = await notebooks.run(session, "pid")
        other = await notebooks.run(session, "pid", path="other.ipynb")
        assert text_of(own.outputs) == pid
        assert text_of(other.outputs) not in ("", pid)
    await notebooks.close()


# --- stops and deaths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "_emit('begun')\nimport time; time.sleep(600)",
        "_emit('begun')\nwhile True: pass",
        "import time\ntry:\n    _emit('begun'); time.sleep(600)\nexcept KeyboardInterrupt: time.sleep(600)",
    ],
)
async def test_a_stop_ends_the_code_and_not_the_cell(
    waiting: Any,
    kernels: KernelService,
    session: Session,
    run: Callable[..., ToolContext],
    written: list[Event],
    code: str,
) -> None:
    run()
    async with waiting() as (relay, _):
        begun = asyncio.Event()
        task = asyncio.create_task(kernels.execute(session, code, on_output=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), WITHIN)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WITHIN)
        assert "was interrupted after" in emitted(written, "navi.stop")[-1]["message"]
        assert (await kernels.execute(session, "x")).status == "ok"
        assert relay.loan is not None
        assert relay.loan.ended is None


async def test_code_past_its_timeout_is_interrupted(waiting: Any, kernels: KernelService, session: Session) -> None:
    async with waiting():
        done = await kernels.execute(session, "print('so far')\nwhile True: pass", timeout=0.3)
        assert done.status == "timed_out"
        assert "so far" in text_of(done.outputs)
        assert (await kernels.execute(session, "x")).status == "ok"


async def test_a_kernel_that_dies_over_the_code_is_reported(
    waiting: Any, kernels: KernelService, session: Session, run: Callable[..., ToolContext], written: list[Event]
) -> None:
    run()
    async with waiting():
        done = await asyncio.wait_for(
            use("run_code", code="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), 9
        )
        assert done.failed
        assert "the kernel died while it ran: all variables are gone" in done.content


async def test_a_child_that_holds_the_dead_kernels_socket_does_not_hide_its_death(
    waiting: Any, kernels: KernelService, session: Session
) -> None:
    async with waiting():
        code = f"import os, time\nif os.fork():\n    {KILL}\ntime.sleep(20)\nos._exit(0)"
        done = await asyncio.wait_for(kernels.execute(session, code), 9)
        assert (done.status, done.note) == ("kernel_died", None)


async def test_a_restart_ends_the_loan_and_what_ran(
    waiting: Any, kernels: KernelService, session: Session, loans: KernelLoans
) -> None:
    async with waiting() as (relay, _):
        begun = asyncio.Event()
        code = "_emit('begun')\nimport time; time.sleep(600)"
        task = asyncio.create_task(kernels.execute(session, code, on_output=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), WITHIN)
        assert (await kernels.restart(session)).status == "idle"
        assert (await asyncio.wait_for(task, WITHIN)).status in ("kernel_died", "interrupted")  # Jupyter does both
        assert relay.loan is not None
        assert relay.loan.ended == "died"
    assert (await kernels.execute(session, "'x' in globals()")).status == "ok"


# --- broken connections -----------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_loses_nothing_and_runs_nothing_twice(
    waiting: Any, kernels: KernelService, session: Session
) -> None:
    async with waiting() as (relay, _):
        begun = asyncio.Event()
        code = "_emit('begun')\nx.append(9)\nimport time; time.sleep(.5)\nprint('done')"
        task = asyncio.create_task(kernels.execute(session, code, on_output=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), WITHIN)
        relay.cut()
        done = await asyncio.wait_for(task, WITHIN)
        assert done.status == "ok"
        assert text_of(done.outputs).count("done\n") == 1
        relay.cut()
        assert await kernels.evaluate(session, "_navi_result = x") == [1, 2, 3, 9]


async def test_a_cell_that_does_not_come_back_is_given_up(
    waiting: Any, kernels: KernelService, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent_kernel, "GRACE", 0.5)
    async with waiting() as (relay, _):
        begun = asyncio.Event()
        code = "_emit('begun')\nimport time; time.sleep(3)"
        task = asyncio.create_task(kernels.execute(session, code, on_output=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), WITHIN)
        assert relay.loan is not None
        relay.loan.detach(relay, closed=False)
        done = await asyncio.wait_for(task, WITHIN)
        assert done.status == "kernel_died"
        assert done.note is not None
        assert "connection to the cell that waits in it is lost" in done.note


class Line:
    """A socket of a loan without a kernel behind it."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.open = True

    def emit(self, frame: Any) -> None:
        self.frames.append(dict(frame))

    def hang_up(self, *, for_good: bool) -> None:
        self.open = False


def lend(loans: KernelLoans, line: Line, loan_id: str = "l_1", *held: str, session_id: str = "s_1") -> Any:
    frame = {"type": "lend", "loan_id": loan_id, "language": "python", "unacknowledged": list(held)}
    return loans.open(frame, line, kernel_id="outside", session_id=session_id)


HOW: dict[str, Any] = {"silent": False, "store_history": True, "expressions": {}}


async def test_frames_that_come_again_after_a_reconnect_count_once() -> None:
    loans, line, outputs = KernelLoans(None), Line(), Outputs()
    loan = lend(loans, line)
    request = loan.send("1", outputs, **HOW)
    name = line.frames[-1]["id"]
    begun = {"type": "begun", "id": name, "n": 1}
    text = {"type": "output", "id": name, "n": 2, "kind": "stream", "content": {"name": "stdout", "text": "a"}}
    loan.take(begun)
    loan.take(text)
    loan.detach(line, closed=False)
    again = Line()
    assert lend(loans, again, "l_1", name) is loan
    assert [frame["type"] for frame in again.frames] == ["lent"]  # it has the code
    for frame in (
        begun,
        text,
        {**text, "n": 3, "left_out": 7},
        {"type": "ended", "id": name, "reply": {"status": "ok"}},
    ):
        loan.take(frame)
    assert again.frames[-1] == {"type": "received", "id": name}
    assert request.ended.result() == {"status": "ok"}
    outputs.finish()
    assert text_of(outputs.all()).count("a") == 2 + "characters left out".count("a")
    loan.take({"type": "ended", "id": name, "reply": {}})  # a reply that comes twice is received twice
    assert again.frames[-1] == {"type": "received", "id": name}
    loans.close()


async def test_code_that_never_arrived_is_sent_again_and_code_that_nobody_waits_for_is_interrupted() -> None:
    loans, line = KernelLoans(None), Line()
    loan = lend(loans, line)
    loan.send("1", Outputs(), **HOW)
    name = line.frames[-1]["id"]
    loan.detach(line, closed=False)
    loan.send("2", Outputs(), **HOW)  # while it is away
    again = Line()
    lend(loans, again, "l_1", "of_a_dead_server")
    assert [(frame["type"], frame.get("code")) for frame in again.frames] == [
        ("lent", None),
        ("execute", "1"),
        ("execute", "2"),
        ("interrupt", None),
    ]
    assert again.frames[1]["id"] == name
    assert again.frames[-1]["id"] == "of_a_dead_server"
    loans.close()
    assert not again.open


async def test_what_a_lost_kernel_forgot_is_lost_and_not_sent_again() -> None:
    loans, line = KernelLoans(None), Line()
    loan = lend(loans, line)
    request = loan.send("1", Outputs(), **HOW)
    loan.take({"type": "begun", "id": line.frames[-1]["id"]})
    loan.detach(line, closed=False)
    again = Line()
    lend(loans, again)
    assert [frame["type"] for frame in again.frames] == ["lent"]
    assert request.ended.result() is None
    assert not request.returned
    assert request.lost
    loans.close()


async def test_a_loan_that_ended_in_good_order_returns_what_had_not_begun() -> None:
    loans, line = KernelLoans(None), Line()
    loan = lend(loans, line)
    request = loan.send("1", Outputs(), **HOW)
    loan.detach(line, closed=True)
    assert request.returned
    assert loans.of("s_1") is None
    assert loan.send("2", Outputs(), **HOW).returned


@pytest.mark.parametrize("stopped", [True, False])
async def test_code_in_which_the_user_pressed_ctrl_c_ends_with_the_stop_of_its_run(
    stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent_kernel, "STOP_WITHIN", WITHIN if stopped else 0.1)
    loans, line = KernelLoans(None), Line()
    loan = lend(loans, line)
    request = loan.send("1", Outputs(), **HOW)
    reply = {"status": "error", "ename": "KeyboardInterrupt"}
    for frame in ({"type": "begun", "n": 1}, {"type": "interrupted"}, {"type": "ended", "n": 2, "reply": reply}):
        loan.take({"id": request.id, **frame})
    assert line.frames[-1]["type"] == "received"
    assert not request.ended.done()  # else the model would be asked what to do next
    if stopped:
        assert await loan.end(request, 1.0)
    assert await asyncio.wait_for(request.ended, WITHIN) == reply
    loans.close()


async def test_the_cell_that_waits_for_longest_lends_first_and_one_that_is_away_last() -> None:
    loans, first, second = KernelLoans(None), Line(), Line()
    one, two = lend(loans, first, "l_1"), lend(loans, second, "l_2")
    assert loans.of("s_1") is one
    one.detach(first, closed=False)
    assert loans.of("s_1") is two
    two.detach(second, closed=True)
    assert loans.of("s_1") is one
    loans.close()


@pytest.mark.parametrize(
    "frame", [{"type": "what"}, {}, {"type": "output", "kind": "comm_open", "content": {}}, {"type": "output"}]
)
async def test_frames_that_break_the_protocol_are_refused(frame: dict[str, Any]) -> None:
    loans, line = KernelLoans(None), Line()
    loan = lend(loans, line)
    loan.send("1", Outputs(), **HOW)
    with pytest.raises(InvalidRequest):
        loan.take({"id": line.frames[-1]["id"], **frame})
    loans.close()


# --- kernels of other programs ----------------------------------------------------------------------------------------


@asynccontextmanager
async def kernel_outside() -> AsyncIterator[tuple[str, Any, AsyncKernelManager]]:
    """A kernel that ``jupyter console`` or nbclient has started: its id, a front end's client, its manager."""
    manager = AsyncKernelManager(connection_file=str(Path(jupyter_runtime_dir(), f"kernel-{os.getpid()}.json")))
    await manager.start_kernel()
    client = manager.client(session=JupyterSession(key=manager.session.key))
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=WITHIN)
        name = Path(manager.connection_file).stem.removeprefix("kernel-")
        yield name, client, manager
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def test_a_kernel_of_another_program_is_used_while_its_cell_waits_and_no_other_is_started(
    kernels: KernelService, loans: KernelLoans, parts: JupyterServices, run: Callable[..., ToolContext]
) -> None:
    async with kernel_outside() as (kernel_id, client, _):
        theirs = session_of(None, kernel_id=kernel_id)
        run(session=theirs)
        state = await kernels.state(theirs)
        assert (state.status, state.kernel_id) == ("none", None)
        assert "outside of this server" in (state.note or "")
        for name, given in (("run_code", {"code": "1"}), ("list_variables", {}), ("restart_kernel", {})):
            refused = (await use(name, **given)).content
            assert refused["error"] == "kernel_unavailable"
            assert "while a cell of it waits in %navi" in refused["message"]
        async with lending(loans, client, kernel_id, theirs.id, first="y = 5") as relay:
            state = await kernels.state(theirs)
            assert (state.status, state.kernel_id, state.language) == ("idle", kernel_id, "python")
            assert "'y'" in str((await use("list_variables")).content)
            assert text_of((await kernels.execute(theirs, "y + 1")).outputs) == "6"
            assert "only what has started it" in (await use("restart_kernel")).content["message"]
            assert (await use("interrupt_kernel")).content["interrupted"] is False
            assert relay.loan is not None
        assert not list(parts.kernel_manager.list_kernel_ids())


async def test_a_kernel_outside_that_dies_is_reported_soon(kernels: KernelService, loans: KernelLoans) -> None:
    async with kernel_outside() as (kernel_id, client, _):
        theirs = session_of(None, kernel_id=kernel_id)
        async with lending(loans, client, kernel_id, theirs.id):
            done = await asyncio.wait_for(kernels.execute(theirs, KILL), 9)
            assert done.status == "kernel_died"
            assert "does not restart it" in (done.note or "")


OFFERED = """
import navi_jupyter as navi
from navi_jupyter.kernel import tools
tools._register_with_server = lambda definition: None
@navi.tool
def double(x: int): return {"result": x * 2}
@navi.tool
async def later(x: int):
    import asyncio
    await asyncio.sleep(0.01)
    return x + 1
"""


async def test_functions_of_a_kernel_outside_are_called_while_its_cell_waits(
    kernels: KernelService, loans: KernelLoans, run: Callable[..., ToolContext]
) -> None:
    tools = KernelTools(process_of=kernels.process_of, runs_ours=kernels.runs_ours, known=kernels.knows)
    async with kernel_outside() as (kernel_id, client, _):
        theirs = session_of(None, kernel_id=kernel_id)
        context = run(session=theirs)
        tools.offer(kernel_id, [KernelFunction(name="double", parameters={})], owner="ada")
        assert await tools.tools(context) == ()
        async with lending(loans, client, kernel_id, theirs.id, first=OFFERED):
            (double,) = await tools.tools(context)
            assert (await double.call({"x": 4})).content == {"result": 8}
            # What an agent's own code offers always asks.
            begun = asyncio.Event()
            task = asyncio.create_task(
                kernels.execute(theirs, "_emit('x')\nimport time; time.sleep(600)", on_output=lambda _: begun.set())
            )
            await asyncio.wait_for(begun.wait(), WITHIN)
            function = KernelFunction(name="own", parameters={}, effect=Effect.READ)
            assert tools.offer(kernel_id, [function], owner="ada")[0].effect is Effect.OUTSIDE
            await kernels.interrupt(theirs)
            await asyncio.wait_for(task, WITHIN)


async def test_a_function_is_called_in_its_own_kernel_whichever_is_lent(
    waiting: Any, kernels: KernelService, loans: KernelLoans, session: Session
) -> None:
    async with waiting() as (relay, _):
        assert relay.loan is not None
        line = Line()
        lend(loans, line)  # a second kernel, whose cell waits for the same session
        named = session.but(kernel_id=relay.loan.kernel_id)
        assert await kernels.evaluate(named, "_navi_result = len(x)", lent=False) == 3
        assert line.frames == [{"type": "lent"}]


async def test_after_ctrl_c_code_whose_stop_has_come_before_its_end_is_over_with_its_end() -> None:
    lent = LentKernel("l1", "k1", "s1", "python", outside=True, lives=None, on_end=lambda _: None)
    lent.attach(Line(), [])
    request = lent.send("1", Outputs(), silent=False, store_history=True, expressions={})
    lent.take({"type": "begun", "id": request.id, "n": 1})
    lent.take({"type": "interrupted", "id": request.id})
    stopping = asyncio.ensure_future(lent.end(request, within=WITHIN))
    await asyncio.sleep(0)
    lent.take({"type": "ended", "id": request.id, "n": 2, "reply": {"status": "error"}})
    assert request.ended.done()  # and not only some seconds later
    assert await stopping
    lent.end_loan("closed")
