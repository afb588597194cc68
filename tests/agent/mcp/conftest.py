"""A pool with its configuration file, for every test that asks for ``bench``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from navi_jupyter.agent.mcp.connection import PausableTimeout
from tests.agent.mcp.bench import SECONDS, Bench


@pytest.fixture
def patience() -> PausableTimeout:
    """Override it in a test module."""
    return PausableTimeout(start=SECONDS, first_delay=0.05)


@pytest.fixture
def bench(tmp_path: Path, patience: PausableTimeout, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[Bench]:
    bench = Bench(tmp_path, patience)
    yield bench
    jp_asyncio_loop.run_until_complete(bench.pool.stop())
