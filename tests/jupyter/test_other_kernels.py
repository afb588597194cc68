"""Kernels that are not IPython's: code runs there, and what needs Python says so."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from navi_jupyter.errors import KernelUnavailable
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.sessions import Session

from .conftest import session_of, text_of

ECHO = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
import time
class Echo(Kernel):
    implementation = "parrot"; implementation_version = "1"; banner = ""
    language_info = {"name": "parrot", "mimetype": "text/plain", "file_extension": ".txt"}
    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        if code == "hang":
            self.say("hangs\\n")
            while True: time.sleep(.01)
        if not silent:
            self.say(code)
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}
    def say(self, text):
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": text})
IPKernelApp.launch_instance(kernel_class=Echo)
"""


@pytest.fixture
def echo(parts: JupyterServices) -> Session:
    """A notebook that asks for the echo kernel."""
    root = Path(parts.root_dir)
    program = root / "echo.py"
    program.write_text(ECHO)
    spec = Path(parts.kernel_manager.kernel_spec_manager.user_kernel_dir, "parrot")
    spec.mkdir(parents=True)
    argv = [sys.executable, str(program), "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Echo", "language": "parrot"}))
    notebook = {"cells": [], "metadata": {"kernelspec": {"name": "parrot"}}, "nbformat": 4, "nbformat_minor": 5}
    (root / "echo.ipynb").write_text(json.dumps(notebook))
    return session_of("echo.ipynb")


async def test_the_notebooks_own_kind_of_kernel_is_started_and_runs_code(kernels: KernelService, echo: Session) -> None:
    done = await kernels.execute(echo, "hello")
    assert done.status == "ok"
    assert text_of(done.outputs) == "hello"
    state = await kernels.state(echo)
    assert (state.kernel_name, state.language, state.status) == ("parrot", "parrot", "idle")
    for look in (kernels.variables(echo), kernels.inspect(echo, "x"), kernels.evaluate(echo, "1")):
        with pytest.raises(KernelUnavailable, match="needs a Python kernel; this one is parrot"):
            await look


async def test_stop_reaches_it_too(kernels: KernelService, echo: Session) -> None:
    said = asyncio.Event()
    task = asyncio.create_task(kernels.execute(echo, "hang", on_output=lambda _: said.set()))
    await asyncio.wait_for(said.wait(), 30)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < 3


async def test_a_kernel_that_can_not_be_started_says_why(kernels: KernelService, parts: JupyterServices) -> None:
    spec = Path(parts.kernel_manager.kernel_spec_manager.user_kernel_dir, "broken")
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/at/all"], "display_name": "Broken", "language": "none"})
    )
    notebook = {"cells": [], "metadata": {"kernelspec": {"name": "broken"}}, "nbformat": 4, "nbformat_minor": 5}
    Path(parts.root_dir, "broken.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(KernelUnavailable, match="could not be started"):
        await kernels.execute(session_of("broken.ipynb"), "1")


async def test_a_conversation_without_a_notebook_gets_a_kernel_of_its_own(
    kernels: KernelService, parts: JupyterServices
) -> None:
    mine, other = session_of(None), session_of(None, id="s_2")
    await kernels.execute(mine, "x = 1")
    assert (await kernels.state(other)).status == "none"
    assert text_of((await kernels.execute(mine, "x")).outputs) == "1"
    by_id = session_of(None, id="s_3", kernel_id=(await kernels.state(mine)).kernel_id)
    assert text_of((await kernels.execute(by_id, "x")).outputs) == "1"
    gone = session_of(None, id="s_4", kernel_id="no-such-kernel")
    with pytest.raises(KernelUnavailable, match="No kernel runs"):
        await kernels.execute(gone, "1", start=False)


async def test_two_runs_that_start_the_notebooks_kernel_at_once_get_the_same_one(
    kernels: KernelService, parts: JupyterServices
) -> None:
    first, second = session_of(id="s_1"), session_of(id="s_2")
    done = await asyncio.gather(kernels.execute(first, "1"), kernels.execute(second, "2"))
    assert [one.status for one in done] == ["ok", "ok"]
    assert len(await parts.session_manager.list_sessions()) == 1
