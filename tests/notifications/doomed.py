"""A server that sends what is due in the database of a directory, and is killed while it does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from navi_jupyter.notifications.apprise_sender import AppriseSender
from tests.support.database import open_store
from tests.support.notification_world import World


async def main(directory: Path) -> None:
    """See the module."""
    store = await open_store(directory / "navi.db")
    try:
        await World(store, directory).new_service(AppriseSender(allow_private=True)).deliver()
    finally:
        await store.close()


asyncio.run(main(Path(sys.argv[1])))
