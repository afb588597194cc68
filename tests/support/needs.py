"""What a test needs of the machine.

Where it is missing, the test is skipped and says so; where ``NAVI_TEST_NO_SKIP`` is set (in CI), it fails.
"""

from __future__ import annotations

import os
import shutil

import pytest


def needed(found: object, what: str) -> None:
    """Go on if ``found`` is true."""
    if found:
        return
    if os.environ.get("NAVI_TEST_NO_SKIP"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


def chromium() -> str:
    """The browser: that of ``NAVI_CHROMIUM``, else one on PATH."""
    path = os.environ.get("NAVI_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    needed(path, "Chromium (Debian: apt-get install chromium; or set NAVI_CHROMIUM to its path)")
    return path
