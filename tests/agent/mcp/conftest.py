"""A pool with its configuration file, for every test that asks for ``bench``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from navi_jupyter.agent.mcp.connection import ServerTimeouts
from tests.agent.mcp.bench import SECONDS, Bench


@pytest.fixture
def timeouts() -> ServerTimeouts:
    """Override it in a test module."""
    return ServerTimeouts(start=SECONDS, first_delay=0.05)


@pytest.fixture
def bench(tmp_path: Path, timeouts: ServerTimeouts, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[Bench]:
    bench = Bench(tmp_path, timeouts)
    yield bench
    jp_asyncio_loop.run_until_complete(bench.pool.stop())
