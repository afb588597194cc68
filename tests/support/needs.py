"""What a test needs of the machine.

Where it is missing, the test is skipped and says so; where ``NAVI_TEST_NO_SKIP`` is set (in CI), it fails.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.postgres import MISSING, find_programs

_PEERS = Path(__file__).parents[1] / "peers" / "node_modules"


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


def postgres_programs() -> Path:
    """The folder of ``initdb`` and ``postgres``."""
    found = find_programs()
    needed(found, MISSING)
    return found or Path()


def peer(program: str, *places: str) -> str:
    """A program of ``tests/peers/package.json``, else one on PATH.

    ``places``: where its package has it, relative to ``node_modules``, if it is not among the commands.
    """
    installed = [path for path in (_PEERS / ".bin" / program, *(_PEERS / place for place in places)) if path.is_file()]
    path = str(installed[0]) if installed else shutil.which(program)
    needed(path and shutil.which("node"), f"{program} and Node (cd tests/peers && npm ci --ignore-scripts)")
    return path or ""


def s3rver() -> str:
    """An S3 server, and the library that Navi reaches it by."""
    needed(find_spec("obstore"), "obstore (pip install -e '.[s3]')")
    return peer("s3rver")


def opencode() -> str:
    """OpenCode: its package has the program, which the script of another one would install as a command."""
    return peer("opencode", "opencode-linux-x64/bin/opencode")


def claude() -> str:
    """Claude Code's agent: on PATH alone, since it is too large for ``tests/peers``, and never required."""
    path = shutil.which("claude-agent-acp")
    if path is None:
        pytest.skip("needs claude-agent-acp on PATH (npm install -g @agentclientprotocol/claude-agent-acp, 360 MB)")
    return path
