"""Tools for the notebook's kernel: run code, list and inspect variables, interrupt and restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from ...model.runs import Effect
from ...output_text import OutputImage, output_images, outputs_text
from ...ports.agent import ToolContext, tool_context
from ...ports.jupyter import Execution, Kernels, KernelState
from .base import ToolOutput, available, tool
from .call_details import CallDescription, argument_parts, code_part, text_part
from .output import OutputFeed
from .result_text import LongOutputs

_LONG_OUTPUTS = LongOutputs()
_LONGEST = 86_400.0  # seconds, a day: of what takes longer, a recall reports the end
TRACEBACK = 3_000  # characters of a traceback
Timeout = Annotated[float, Field(description="Seconds after which it is interrupted.", gt=0, le=_LONGEST)]


def _kernels() -> tuple[Kernels, ToolContext]:
    context = tool_context.get()
    return available(context.jupyter.kernels, "kernels"), context


async def list_variables(
    pattern: Annotated[str, Field(description="Only names that match, with * and ?.", max_length=200)] = "*",
    limit: Annotated[int, Field(description="At most so many.", ge=1, le=1000)] = 100,
) -> Mapping[str, Any]:
    """The variables in the notebook's kernel: name, type, shape, dtype, size in bytes, and a short preview.

    Does not change anything there. Modules, functions, classes and names with an underscore are left out.
    """
    kernels, context = _kernels()
    return await kernels.variables(context.session, pattern=pattern, limit=limit)


async def inspect_variable(
    name: Annotated[
        str,
        Field(
            description='A variable, or a part of one: df, df["price"], config.paths, pd.read_csv; sys.last_value is '
            "the last error, with its traceback.",
            max_length=500,
        ),
    ],
) -> Mapping[str, Any]:
    """All about one variable in the notebook's kernel: head and statistics of a table, items, signature and source."""
    kernels, context = _kernels()
    return await kernels.inspect(context.session, name)


async def run_code(
    code: Annotated[str, Field(description="What a notebook cell would hold.", min_length=1, max_length=200_000)],
    timeout: Timeout = 300.0,
) -> ToolOutput:
    """Run code in the notebook's kernel, with the user's variables, as a cell that is not in the notebook.

    You get what it prints, its last value, errors and images. A kernel is started when there is none.
    """
    kernels, context = _kernels()
    async with OutputFeed(context) as feed:  # the user sees the outputs as they come, the model all at the end
        done = await kernels.execute(context.session, code, on_output=feed.take, timeout=timeout)
    return await output_of(done, context)


async def output_of(done: Execution, context: ToolContext) -> ToolOutput:
    """An execution as the output of the tools that run code or cells."""
    # Off the event loop: there can be megabytes of text with escape sequences, and images to decode.
    text = await asyncio.to_thread(outputs_text, done.outputs, traceback_limit=TRACEBACK, name_images=True)
    shown = _LONG_OUTPUTS.excerpt(text, context.session.id)
    content = f"{_headline(done)}\n{shown}" if shown else _headline(done)
    return ToolOutput(content=content, images=await images_of(done.outputs), failed=done.status != "ok")


async def images_of(outputs: Sequence[Mapping[str, Any]]) -> Sequence[OutputImage]:
    """The first images of outputs, as many and as large as models take."""
    images, _ = await asyncio.to_thread(output_images, outputs, limit=4, max_bytes=4_000_000)
    return images


def _headline(done: Execution) -> str:
    number = "" if done.execution_count is None else f" In[{done.execution_count}],"
    end = {
        "ok": "done" if done.outputs else "done, no output",
        "error": f"failed with {(done.error or {}).get('ename', 'an error')}",
        "interrupted": "interrupted before it was done",
        "timed_out": "interrupted because it took too long; give a longer timeout if it needs more",
        "kernel_died": done.note
        or "the kernel died while it ran: all variables are gone. Jupyter starts it again; "
        "perhaps it ran out of memory",
    }[done.status]
    return f"({number} {done.duration:.1f} s: {end})".replace("( ", "(")


async def read_output(
    id: Annotated[str, Field(description="As the shortened output names it.", max_length=64)],  # noqa: A002
    start: Annotated[int, Field(description="From which character on.", ge=0)] = 0,
) -> Mapping[str, Any]:
    """Read more of an output that was too long to be shown whole."""
    return _LONG_OUTPUTS.page(id, tool_context.get().session.id, start)


async def kernel_status() -> Mapping[str, Any]:
    """Whether the notebook has a kernel, whether it is idle, busy (with what, for how long) or dead."""
    kernels, context = _kernels()
    return _state(await kernels.state(context.session))


async def interrupt_kernel() -> Mapping[str, Any]:
    """Interrupt what runs in the notebook's kernel, also a cell of the user's, if it does not wait for you.

    Variables stay.
    """
    kernels, context = _kernels()
    before = await kernels.state(context.session)
    interrupted = await kernels.interrupt(context.session)
    return {"interrupted": before.status == "busy", "was": _state(before)} if interrupted else _state(before)


async def restart_kernel() -> Mapping[str, Any]:
    """Restart the notebook's kernel. All its variables are lost; do it only when nothing else helps."""
    kernels, context = _kernels()
    return {"restarted": True} | _state(await kernels.restart(context.session))


def _state(state: KernelState) -> dict[str, Any]:
    described = {
        "status": state.status,
        "kernel": state.kernel_name,
        "language": state.language,
        "busy_with": None if state.busy_with is None else state.busy_with[:500],
        "busy_for_seconds": None if state.busy_for is None else round(state.busy_for, 1),
        "note": state.note,
    }
    return {name: value for name, value in described.items() if value is not None}


async def _describe_code(args: Mapping[str, Any], context: ToolContext) -> CallDescription:  # noqa: ARG001
    code = code_part("Code that runs in your kernel", str(args.get("code", "")))
    return CallDescription(details=(*argument_parts(args, ("code",)), code))


async def _describe_kernel(args: Mapping[str, Any], context: ToolContext) -> CallDescription:  # noqa: ARG001
    """Of an interrupt or a restart: which kernel, and what it does now."""
    state = await available(context.jupyter.kernels, "kernels").state(context.session)
    details = [text_part("Kernel", f"{state.kernel_name or 'of this notebook'}, {state.status}")]
    if state.busy_with:
        details.append(code_part("What it runs now", state.busy_with))
    return CallDescription(details=tuple(details))


TOOLS = (
    tool(list_variables, Effect.READ),
    tool(inspect_variable, Effect.READ),
    tool(run_code, Effect.RUN, describes=_describe_code),
    tool(read_output, Effect.READ),
    tool(kernel_status, Effect.READ),
    tool(interrupt_kernel, Effect.RUN, describes=_describe_kernel),
    tool(restart_kernel, Effect.RUN, describes=_describe_kernel),
)
