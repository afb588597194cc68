"""When to try again, and how many messages an hour: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

MAX_ATTEMPTS = 5
HOUR = timedelta(hours=1)
FIRST_RETRY = timedelta(seconds=30)
_FACTOR = 4


def retry_after(attempts: int) -> timedelta | None:
    """How long to wait after so many attempts that failed (30 s, 2 min, 8 min, 32 min); None: no more."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return FIRST_RETRY * int(_FACTOR ** (max(attempts, 1) - 1))


def free_at(sent: Sequence[datetime], now: datetime, *, per_hour: int) -> datetime | None:
    """When the next message may go after those of ``sent``; None when it may go now."""
    recent = sorted(at for at in sent if at > now - HOUR)
    if len(recent) < per_hour:
        return None
    return recent[len(recent) - per_hour] + HOUR
