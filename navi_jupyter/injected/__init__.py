"""Python source that the server sends into the user's kernels; never imported by the server itself.

Each module runs on Python 3.9 with the standard library alone: a kernel may be older than the server.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def source(module: str) -> str:
    """The source text of ``injected/<module>.py``."""
    return Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
