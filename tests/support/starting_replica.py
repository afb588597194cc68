"""A process of the service that wants the servers of some users: started by tests, which may kill it.

Called with a database's URL, the address of the Hub's API, the token, the file of the quick servers, the cap, and the
names of the users. It prints ``ready <name>`` for each that is there, and goes on until its input ends.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from navi_jupyter.hub.hub_api import HubApi
from navi_jupyter.hub.user_servers import UserServers
from navi_jupyter.server.process.measures import Spawns
from navi_jupyter.settings import Settings
from navi_jupyter.store.engines import open_with_blobs
from tests.support.spawns import FileLinks, SpawnFile


async def main(url: str, hub: str, token: str, file: str, cap: str, *names: str) -> None:
    settings = Settings(database_url=url, max_starting_servers=int(cap), server_start_timeout=300, server_idle_stop=0)
    database, _ = await open_with_blobs(settings)
    api = HubApi(hub, token)
    servers = UserServers(database, api, FileLinks(SpawnFile(Path(file))), settings=settings, spawns=Spawns())
    await servers.start()

    async def want(name: str) -> None:
        async with servers.using(name):
            await servers.ready(name)
            print(f"ready {name}", flush=True)

    await asyncio.gather(*map(want, names))
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop()
    api.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
