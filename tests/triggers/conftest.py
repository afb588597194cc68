"""A place with a kernel, for every test that asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_server.serverapp import ServerApp

from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from tests.support.trigger_world import Place, opened


@pytest.fixture
def parts(jp_serverapp: ServerApp) -> JupyterServices:
    """What the server lends."""
    return JupyterServices.of(jp_serverapp)


@pytest.fixture
def place(parts: JupyterServices, tmp_path: Path, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[Place]:
    """A session about ``work.ipynb``; its kernel runs."""
    context = opened(parts, tmp_path)
    place = jp_asyncio_loop.run_until_complete(context.__aenter__())
    jp_asyncio_loop.run_until_complete(place.open_kernel())
    yield place
    jp_asyncio_loop.run_until_complete(context.__aexit__(None, None, None))
