"""A pool with its configuration file, for every test that asks for ``world``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from navi_jupyter.agent.mcp.connection import ServerTimeouts
from tests.agent.mcp.mcp_world import SECONDS, McpWorld


@pytest.fixture
def timeouts() -> ServerTimeouts:
    """Override it in a test module."""
    return ServerTimeouts(start=SECONDS, first_delay=0.05)


@pytest.fixture
def world(tmp_path: Path, timeouts: ServerTimeouts, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[McpWorld]:
    world = McpWorld(tmp_path, timeouts)
    yield world
    jp_asyncio_loop.run_until_complete(world.pool.stop())
