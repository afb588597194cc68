"""Kernels that live on another machine, behind a gateway: the same, with only Jupyter's manager to ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelSpecManager, GatewayMappingKernelManager, GatewaySessionManager
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager

from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from tests.support.server import JupyterServer

from .conftest import session_of, text_of


@pytest.fixture
def remote(tmp_path: Path, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[KernelService]:
    """The kernels of a server that has none of its own."""
    # Jupyter's client of gateways sends no token with its socket.
    with JupyterServer(tmp_path / "far", token="").start(args=["--ServerApp.disable_check_xsrf=True"]) as far:
        GatewayClient.clear_instance()
        client = GatewayClient.instance(url=f"http://127.0.0.1:{far.port}")
        client.init_connection_args()
        (tmp_path / "near").mkdir()
        contents = AsyncFileContentsManager(root_dir=str(tmp_path / "near"))
        kernel_manager = GatewayMappingKernelManager(kernel_spec_manager=GatewayKernelSpecManager())
        parts = JupyterServices(
            kernel_manager=kernel_manager,
            session_manager=GatewaySessionManager(kernel_manager=kernel_manager, contents_manager=contents),
            contents_manager=contents,
            root_dir=str(tmp_path / "near"),
        )
        kernels = KernelService(parts)
        yield kernels
        jp_asyncio_loop.run_until_complete(kernels.close())
        jp_asyncio_loop.run_until_complete(kernel_manager.shutdown_all())
        GatewayClient.clear_instance()


async def test_code_runs_is_stopped_and_looked_at_in_a_remote_kernel(remote: KernelService) -> None:
    session = session_of()
    done = await asyncio.wait_for(remote.execute(session, "x = 42\nprint(x)\nx"), 40)
    assert text_of(done.outputs) == "42\n42"
    found: Any = await remote.variables(session)
    assert found["variables"][0]["name"] == "x"

    said = asyncio.Event()
    code = "print('begun', flush=True)\nimport time; time.sleep(600)"
    task = asyncio.create_task(remote.execute(session, code, on_output=lambda _: said.set()))
    await asyncio.wait_for(said.wait(), 20)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    print(f"stopped after {time.monotonic() - start:.2f} s")
    assert time.monotonic() - start < 2

    state = await remote.restart(session)
    assert state.status == "idle"
    assert (await remote.variables(session))["variables"] == []
