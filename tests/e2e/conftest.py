"""Servers in processes of their own, ended after each test; their logs must be clean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import JupyterServer

Start = Callable[..., JupyterServer]
NOT_OURS = re.compile(
    r"Task exception was never retrieved\n[^\n]*JupyterWebsocketServer\.clean\(\)[^\n]*\n"
    r"Traceback \(most recent call last\):\n(?: [^\n]*\n)*RuntimeError: WebsocketServer not running\n"
)
"""What jupyter-collaboration's server says when it is stopped without a document having been opened."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("name", "--arg", env=…)``: a running server below ``tmp_path``; stopped in the end.

    Nothing in its log may be a traceback, or an error that we did not foresee.
    """
    started: list[JupyterServer] = []

    def start_one(name: str = "server", *args: str, env: dict[str, str] | None = None, **given: Any) -> JupyterServer:
        server = JupyterServer(tmp_path / name, env=env, **given)
        started.append(server)
        return server.start(args=args)

    yield start_one
    for server in started:
        server.stop()
    for server in started:
        check_log(server)


def check_log(server: JupyterServer) -> None:
    """No traceback, no unforeseen error in the log of a server."""
    log = NOT_OURS.sub("", server.log.read_text(errors="replace"))
    for trouble in ("Traceback (most recent call last)", "navi_internal_error", "session_item_failed"):
        if trouble in log:
            pytest.fail(log[max(0, log.index(trouble) - 1500) :][:6000], pytrace=False)
