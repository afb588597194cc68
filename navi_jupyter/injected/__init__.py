"""Python source that the server sends into the user's kernels; never imported by the server itself.

Each module runs on Python 3.9 with the standard library alone: a kernel may be older than the server.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FUTURE = "from __future__ import annotations\n"
_SIBLING = re.compile(r"^from \.\w+ import (?:\([^)]*\)|.*)\n", re.MULTILINE)


@cache
def source(*modules: str) -> str:
    """The source text of ``injected/<module>.py``; of several modules as one, each after those that it uses."""
    texts = [Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8") for module in modules]
    # What a module imports of a sibling stands before it; and only the first statement may be of the future.
    return _FUTURE + "".join(_SIBLING.sub("", text).replace(_FUTURE, "", 1) for text in texts)
