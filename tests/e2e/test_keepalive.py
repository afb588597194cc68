"""A server that is shut down when nobody uses it: waiting recalls keep it, if so configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.client import new_session, ok, until
from tests.e2e.conftest import check_log
from tests.e2e.movable import LOOKED, begin_culling, movable
from tests.support.server import JupyterServer

IDLE = "--ServerApp.shutdown_no_activity_timeout=1"


def _looks(server: JupyterServer) -> int:
    return server.log.read_text().count(LOOKED)


@pytest.mark.timeout(150)
def test_waiting_recalls_keep_an_idle_server_if_so_configured_and_paused_ones_do_not(tmp_path: Path) -> None:
    plain, kept = movable(JupyterServer(tmp_path / "plain")), movable(JupyterServer(tmp_path / "kept"))
    try:
        plain.start(args=(IDLE,), wait=False)
        kept.start(args=(IDLE, "--NaviExtension.keep_alive_for_recalls=True"), wait=False)
        recall = {"message": "look", "schedule": {"kind": "once", "in": "1h"}}
        recalls = []
        for server in (plain, kept):
            server.wait_ready()
            recalls.append(ok(server, "POST", "recalls", {"session_id": new_session(server), **recall})["id"])
        begin_culling(plain)
        begin_culling(kept)
        until(lambda: not plain.running)
        before = _looks(kept)
        until(lambda: _looks(kept) >= before + 12)  # three times as long as it may be idle
        assert kept.running
        ok(kept, "POST", f"recalls/{recalls[1]}/pause")
        until(lambda: not kept.running)
    finally:
        plain.stop()
        kept.stop()
    for server in (plain, kept):
        assert "shutting down" in server.log.read_text()
        check_log(server)
