"""A server whose clock a test can set, and whose idle checks begin when a test says so and come often.

Both through the server's own configuration file, which is Python. All else is the real thing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.server import JupyterServer

_CONFIG = """
import os
from datetime import timedelta
from pathlib import Path
from tornado import ioloop

OFFSET = Path(__file__).with_name("clock")
if OFFSET.exists():
    from navi_jupyter import clock

    right = clock.now

    def now():
        return right() + timedelta(seconds=float(OFFSET.read_text()))

    # Before anything else of navi_jupyter is imported, which takes the name from there.
    clock.now = now

    from navi_jupyter.scheduling import scheduler
    from navi_jupyter.store.sqlite import connection

    scheduler.SWEEP_SECONDS = 1.0
    connection.BUSY_TIMEOUT_MS = int(os.environ.get("BUSY_TIMEOUT_MS", connection.BUSY_TIMEOUT_MS))


class Often(ioloop.PeriodicCallback):
    def __init__(self, callback, callback_time, jitter=0):
        if getattr(callback, "__name__", "") == "shutdown_no_activity":
            looks, callback_time = callback, 250

            def callback():
                if Path(__file__).with_name("culled").exists():
                    print("it is looked whether the server is idle", flush=True)
                    looks()

        super().__init__(callback, callback_time, jitter)


ioloop.PeriodicCallback = Often
"""
LOOKED = "it is looked whether the server is idle"


def movable(server: JupyterServer, ahead: timedelta = timedelta()) -> JupyterServer:
    """Give a server that is not running yet its configuration; its clock is ``ahead`` of the right one."""
    folder = server.home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jupyter_server_config.py").write_text(_CONFIG)
    set_clock(server, ahead)
    return server


def set_clock(server: JupyterServer, ahead: timedelta) -> None:
    """Also while it runs."""
    new = server.home / "config" / "clock.new"
    new.write_text(str(ahead.total_seconds()))
    new.replace(server.home / "config" / "clock")


def begin_culling(server: JupyterServer) -> None:
    """From now on it is looked whether the server is idle, four times a second instead of once a minute."""
    (server.home / "config" / "culled").touch()


def clock_of(server: JupyterServer) -> datetime:
    """What the server takes for now."""
    ahead = float(Path(server.home / "config" / "clock").read_text())
    return datetime.now(UTC) + timedelta(seconds=ahead)
