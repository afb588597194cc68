"""How much of the ledger is kept. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

KEPT_ROWS = 1000
"""The last so many rows of each recall are kept."""
KEPT_FOR = timedelta(days=90)
"""And all rows of this time, however many."""


def prunable_before(now: datetime, edge: datetime | None) -> datetime | None:
    """Rows of slots before this may go; None: none may. ``edge``: the slot of the ``KEPT_ROWS``-th row from the end."""
    return None if edge is None else min(edge, now - KEPT_FOR)
