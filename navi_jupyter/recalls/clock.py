"""The wall clock, as the scheduler sees it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ..model import now

if TYPE_CHECKING:
    from datetime import datetime


class SystemClock:
    """Implements :class:`navi_jupyter.ports.recalls.Clock` with the real one."""

    def now(self) -> datetime:
        return now()

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        delay = (until - now()).total_seconds()
        if delay <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signal.wait(), delay)
