"""Code runs in the user's kernel, with every browser closed, and what it shows comes back as a notebook has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.sessions import Session

from .conftest import text_of


async def test_a_headless_run_starts_the_notebooks_kernel_where_the_front_end_finds_it(
    kernels: KernelService, parts: JupyterServices, session: Session
) -> None:
    assert (await kernels.state(session)).status == "none"

    done = await kernels.execute(session, "x = 6 * 7\nprint(x)\nx")

    assert done.status == "ok"
    assert done.execution_count == 1
    assert [output["output_type"] for output in done.outputs] == ["stream", "execute_result"]
    assert text_of(done.outputs) == "42\n42"
    (theirs,) = await parts.session_manager.list_sessions()
    assert (theirs["path"], theirs["type"]) == ("work.ipynb", "notebook")
    state = await kernels.state(session)
    assert (state.status, state.kernel_id, state.language) == ("idle", theirs["kernel"]["id"], "python")


async def test_outputs_come_while_the_code_still_runs(
    kernels: KernelService, session: Session, parts: JupyterServices
) -> None:
    seen: list[str] = []
    first = asyncio.Event()

    def on_output(output: object) -> None:
        seen.append(str(output))
        first.set()

    go = Path(parts.root_dir, "go")
    code = f"import os, time\nprint('one', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(.02)\n1/0"
    running = asyncio.create_task(kernels.execute(session, code, on_output=on_output))
    await asyncio.wait_for(first.wait(), 30)
    assert not running.done()
    assert "one" in seen[0]
    go.touch()
    done = await running

    assert done.status == "error"
    assert done.error is not None
    assert done.error["ename"] == "ZeroDivisionError"
    assert done.outputs[-1]["output_type"] == "error"
