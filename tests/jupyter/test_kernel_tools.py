"""The kernel's tools as a model calls them: what it reads, what the log shows meanwhile, stops that reach the cell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from navi_jupyter.agent.tools.base import Tool, ToolOutput
from navi_jupyter.agent.tools.kernel import TOOLS
from navi_jupyter.agent.tools.kernel_functions import KernelTools
from navi_jupyter.clock import now
from navi_jupyter.events import ActivityDelta, ActivitySnapshot, Event
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.attachments import Attachment
from navi_jupyter.model.runs import KernelFunction
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.agent import ToolContext, tool_call, tool_context

BY_NAME: Mapping[str, Tool] = {tool.name: tool for tool in TOOLS}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


async def use(name: str, /, **arguments: Any) -> ToolOutput:
    """Call a tool as a model does."""
    tool_call.set("t_1")
    return await BY_NAME[name].call(arguments)


def drawn(written: list[Event]) -> list[dict[str, Any]]:
    """The outputs that a view shows: the snapshot, patched."""
    outputs: list[dict[str, Any]] = []
    for event in written:
        if isinstance(event, ActivitySnapshot):
            assert event.content["toolCallId"] == "t_1"
            outputs = list(event.content["outputs"])
        elif isinstance(event, ActivityDelta):
            for step in event.patch:
                if step["path"] == "/outputs/-":
                    outputs.append(dict(step["value"]))
                elif step["path"] == "/outputs":
                    outputs = []
                else:
                    _, _, index, name = step["path"].split("/")
                    outputs[int(index)][name] = step["value"]
    return outputs


class Shelf:
    """Keeps attachments in memory."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    async def add(
        self, content: bytes, *, name: str | None, media_type: str | None, owner: str, session_id: str | None = None
    ) -> Attachment:
        self.contents[f"a_{len(self.contents)}"] = content
        return Attachment(
            id=f"a_{len(self.contents) - 1}",
            owner=owner,
            name=name or "",
            media_type=media_type or "",
            size=len(content),
            sha256="",
            created_at=now(),
        )


async def test_each_tool_has_the_effect_that_decides_whether_it_asks() -> None:
    assert {name: tool.effect.value for name, tool in BY_NAME.items()} == {
        "list_variables": "read",
        "inspect_variable": "read",
        "run_code": "run",
        "read_output": "read",
        "kernel_status": "read",
        "interrupt_kernel": "run",
        "restart_kernel": "run",
    }
    for tool in TOOLS:
        assert tool.description
        assert tool.parameters["type"] == "object"


async def test_a_model_runs_code_and_looks_at_what_it_made(run: Callable[..., ToolContext]) -> None:
    run()
    assert (await use("kernel_status")).content == {"status": "none"}
    refused = await use("list_variables")
    assert refused.failed
    assert refused.content["error"] == "kernel_unavailable"

    done = await use("run_code", code="x = [1, 2, 3]\nprint('hello')\nx")
    assert not done.failed
    assert done.content.splitlines()[1:] == ["hello", "[1, 2, 3]"]
    assert done.content.startswith("(In[1], 0.")
    assert (await use("list_variables")).content["variables"][0]["name"] == "x"
    assert (await use("inspect_variable", name="x[1]")).content["preview"] == "2"
    status = (await use("kernel_status")).content
    assert (status["status"], status["language"]) == ("idle", "python")
    assert (await use("restart_kernel")).content["restarted"]
    assert (await use("list_variables")).content == {"variables": [], "count": 0}


async def test_errors_come_with_a_short_traceback(run: Callable[..., ToolContext]) -> None:
    run()
    done = await use("run_code", code="def f(n): return 1/0 if n == 0 else f(n - 1)\nf(500)")
    assert done.failed
    assert "failed with ZeroDivisionError" in done.content
    assert "division by zero" in done.content
    assert "\x1b" not in done.content
    assert len(done.content) < 4000


async def test_pictures_go_to_the_model_and_as_attachments_into_the_log(
    run: Callable[..., ToolContext], written: list[Event]
) -> None:
    pytest.importorskip("matplotlib")
    shelf: Any = Shelf()
    run(attachments=shelf)
    code = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.show()\nprint('plotted')"
    done = await use("run_code", code=code)

    (image,) = done.images
    assert image.media_type == "image/png"
    assert image.content.startswith(b"\x89PNG")
    assert "[image 1] <Figure size" in done.content
    (shown,) = [one for one in drawn(written) if one["output_type"] == "display_data"]
    assert shown["data"]["image/png"] == {"attachment": "a_0"}
    assert shelf.contents["a_0"] == image.content


async def test_output_streams_into_the_log_in_few_bounded_deltas(
    run: Callable[..., ToolContext], written: list[Event]
) -> None:
    run()
    await use("run_code", code="1")
    written.clear()
    start = time.monotonic()
    code = (
        "import sys\nfor i in range(100_000):\n    print('line', i)\n    sys.stdout.flush() if i % 500 == 0 else None"
    )
    await use("run_code", code=code)
    took = time.monotonic() - start

    deltas = [event for event in written if isinstance(event, ActivityDelta)]
    size = sum(len(event.wire()) for event in deltas)
    print(f"{len(deltas)} deltas in {took:.2f} s, {size} bytes")
    assert len(deltas) <= 20 * took + 4
    assert size < 250_000
    text = "".join(one["text"] for one in drawn(written))
    assert text.startswith("line 0\nline 1\n")
    assert text.rstrip().endswith("line 99999")
    assert "characters are not shown here" in text


async def test_deltas_come_while_the_code_runs(run: Callable[..., ToolContext], written: list[Event]) -> None:
    context = run()
    seen = asyncio.Event()

    def emit(event: Event) -> None:
        written.append(event)
        if isinstance(event, ActivityDelta):
            seen.set()

    tool_context.set(_with(context, emit=emit))
    task = asyncio.create_task(use("run_code", code="import time\nprint('early', flush=True)\ntime.sleep(600)"))
    await asyncio.wait_for(seen.wait(), 30)
    assert drawn(written)[0]["text"] == "early\n"
    task.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < 2


def _with(context: ToolContext, **changes: Any) -> ToolContext:
    from dataclasses import replace

    return replace(context, **changes)


async def test_updates_and_clearing_reach_the_log(run: Callable[..., ToolContext], written: list[Event]) -> None:
    run()
    code = """\
import time
from IPython.display import display, clear_output
print('gone'); time.sleep(.2); clear_output()
print('a'); h = display('first', display_id=True); time.sleep(.2); h.update('second')
"""
    await use("run_code", code=code)
    shown = drawn(written)
    assert [one.get("text") or one["data"]["text/plain"] for one in shown] == ["a\n", "'second'"]


async def test_long_output_is_cut_with_a_pointer_to_the_rest(run: Callable[..., ToolContext]) -> None:
    context = run()
    done = await use("run_code", code="print('\\n'.join(str(i) for i in range(40_000)))")
    assert len(done.content) < 11_000
    assert done.content.rstrip().endswith("39999")
    pointer = done.content.split('read_output(id="')[1].split('"')[0]

    text, start = "", 0
    while start is not None:
        page = (await use("read_output", id=pointer, start=start)).content
        text, start = text + page["text"], page["next"]
    assert text.split("\n")[1000] == "1000"
    assert len(text) == page["of"]
    tool_context.set(_with(context, session=context.session.but(id="s_other")))
    assert (await use("read_output", id=pointer)).content["error"] == "not_found"


async def test_a_death_in_mid_cell_is_told_to_the_model(run: Callable[..., ToolContext]) -> None:
    run()
    done = await use("run_code", code="import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.failed
    assert "the kernel died while it ran: all variables are gone" in done.content


async def test_a_timeout_is_told_with_what_was_shown(run: Callable[..., ToolContext]) -> None:
    run()
    await use("run_code", code="1")
    done = await use("run_code", code="print('so far', flush=True)\nwhile True: pass", timeout=0.5)
    assert done.failed
    assert "took too long" in done.content
    assert "so far" in done.content


async def test_the_agent_can_interrupt_the_users_cell_when_told_to(
    run: Callable[..., ToolContext], kernels: KernelService, session: Session
) -> None:
    run()
    await use("run_code", code="1")
    task = asyncio.create_task(kernels.execute(session, "while True: pass"))
    while "busy_with" not in (await use("kernel_status")).content:  # noqa: ASYNC110 - until it has begun
        await asyncio.sleep(0.01)
    done = await use("interrupt_kernel")
    assert done.content["interrupted"]
    assert done.content["was"]["busy_with"] == "while True: pass"
    assert (await asyncio.wait_for(task, 5)).status == "interrupted"


# --- functions of the user's -----------------------------------------------------------------------------------------

OFFERED = """
import navi_jupyter as navi
from navi_jupyter.kernel import tools
tools._register_with_server = lambda definition: None
@navi.tool
def double(x: int, *, by: float = 2.0): return {"result": x * by}
@navi.tool
async def later(x: int):
    import asyncio
    await asyncio.sleep(0.01)
    return x + 1
@navi.tool
def fails(x: int):
    return helper(x)
def helper(x): raise RuntimeError("not today")
@navi.tool
def figure():
    from matplotlib.figure import Figure
    f = Figure(); f.subplots().plot([1, 2]); return f
@navi.tool
def table():
    import pandas as pd
    return pd.DataFrame({"a": [1, 2]})
@navi.tool
def hangs():
    while True: pass
"""


@pytest.fixture
def functions(
    kernels: KernelService,
    session: Session,
    run: Callable[..., ToolContext],
    jp_asyncio_loop: asyncio.AbstractEventLoop,
) -> Callable[..., Any]:
    """Calls what the kernel offers."""

    async def prepare() -> str | None:
        assert (await kernels.execute(session, OFFERED)).status == "ok"
        return (await kernels.state(session)).kernel_id

    kernel_id = jp_asyncio_loop.run_until_complete(prepare())
    assert kernel_id is not None
    tools = KernelTools(process_of=kernels.process_of, runs_ours=kernels.runs_ours, known=kernels.knows)
    names = ("double", "fails", "figure", "table", "hangs", "missing")
    offered = [KernelFunction(name=name, parameters={}) for name in names]
    tools.offer(kernel_id, [*offered, KernelFunction(name="later", parameters={}, awaits=True)], owner="ada")

    async def call(name: str, **arguments: Any) -> ToolOutput:
        context = run()
        found = {tool.name: tool for tool in await tools.tools(context)}
        return await found[name].call(arguments)

    return call


async def test_functions_of_the_kernel_are_called_there(functions: Callable[..., Any]) -> None:
    assert (await functions("double", x=4)).content == {"result": 8.0}
    assert (await functions("double", x=4, by=3)).content == {"result": 12.0}
    assert (await functions("later", x=4)).content == 5
    assert "a\n0  1" in (await functions("table")).content
    (image,) = (await functions("figure")).images
    assert image.content.startswith(b"\x89PNG")


async def test_wrong_arguments_and_failures_are_told(functions: Callable[..., Any]) -> None:
    wrong = await functions("double", x="four", z=1)
    assert wrong.failed
    assert "x: Input should be a valid integer" in wrong.content["message"]
    assert "z: Extra inputs" in wrong.content["message"]
    failed = await functions("fails", x=1)
    assert failed.failed
    assert failed.content["error"] == "RuntimeError"
    assert "helper(x)" in failed.content["traceback"]
    assert "kernel/tools" not in failed.content["traceback"]
    gone = await functions("missing")
    assert gone.content["error"] == "tool_unavailable"
    assert "restarted" in gone.content["message"]


async def test_a_stop_reaches_a_function_that_hangs(
    functions: Callable[..., Any], kernels: KernelService, session: Session
) -> None:
    task = asyncio.create_task(functions("hangs"))
    while (await kernels.state(session)).status != "busy":  # noqa: ASYNC110 - until it has begun
        await asyncio.sleep(0.01)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < 2
    assert (await functions("double", x=1)).content == {"result": 2.0}


async def test_after_a_restart_the_functions_are_not_offered(
    functions: Callable[..., Any], kernels: KernelService, session: Session
) -> None:
    await kernels.restart(session)
    with pytest.raises(KeyError):
        await functions("double", x=1)
