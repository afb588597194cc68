"""What a check of ``navi doctor`` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    status: Literal["ok", "warn", "fail"]
    text: str
    fix: str | None = None
    """What to do; None when there is nothing to do."""
