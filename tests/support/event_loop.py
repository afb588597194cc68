"""The event loop, watched for stalls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loop_watched(most: float) -> Iterator[None]:
    """The running loop is never held for longer than ``most`` seconds."""
    loop = asyncio.get_running_loop()
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.002)
            stalls.append(loop.time() - before)

    beating = loop.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
    assert max(stalls, default=0) < most, f"the loop was held for {max(stalls) * 1000:.0f} ms"
