"""A whole runtime on a real Jupyter server in this process, a notebook's kernel, and a front end that runs cells."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.model.recalls import Policy, Recall, RecallCreate, WhenSpec
from navi_jupyter.model.sessions import SessionCreate
from navi_jupyter.server.metrics import ProcessMeasures
from navi_jupyter.server.runtime import runtime
from navi_jupyter.server.services import Services
from navi_jupyter.settings import Settings
from tests.jupyter.conftest import front_end
from tests.support.database import database_url, perform

OWNER = "ada"
WITHIN = 30.0
_ROWS = "SELECT * FROM firings WHERE recall_id = ? ORDER BY number"


async def until(condition: Callable[[], bool], *, within: float = WITHIN) -> None:
    """Return once it holds: for what another thread or process does and nobody announces."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass
class Place:
    """See the module."""

    parts: JupyterServices
    services: Services
    database: Path
    session_id: str
    kernel_id: str = ""

    @property
    def manager(self) -> Any:
        """Jupyter's, of the notebook's kernel."""
        return self.parts.kernel_manager.get_kernel(self.kernel_id)

    @property
    def pid(self) -> int:
        """Of the kernel's process."""
        return int(self.manager.provisioner.pid)

    async def open_kernel(self, path: str = "work.ipynb") -> str:
        """The notebook's kernel, as a front end starts it."""
        model = await self.parts.session_manager.create_session(
            path=path, name=path, type="notebook", kernel_name="python3"
        )
        self.kernel_id = model["kernel"]["id"]
        return self.kernel_id

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[AsyncKernelClient]:
        """Another client of the kernel, as a browser's."""
        async with front_end(self.parts, self.kernel_id) as client:
            yield client

    async def when(self, event: str, *, policy: Mapping[str, Any] | None = None, **fields: Any) -> Recall:
        """A recall that is being watched on return."""
        spec = WhenSpec.model_validate({"kind": "when", "event": event, **fields})
        request = RecallCreate(
            session_id=self.session_id, message=f"on {event}", schedule=spec, policy=Policy.model_validate(policy or {})
        )
        recall = await self.services.recalls.service.create(request, owner=OWNER, zone="UTC")
        assert await self.services.recalls.watcher.listening(recall.id, within=WITHIN)
        return recall

    def rows(self, recall: Recall) -> list[dict[str, Any]]:
        """The ledger as it is on disk, the oldest first."""
        return list(map(dict, perform(self.database, _ROWS, (recall.id,))))

    async def firings(self, recall: Recall, count: int = 1) -> list[dict[str, Any]]:
        """The ledger once it has so many rows."""
        async with asyncio.timeout(WITHIN):
            while len(found := await self.services.sessions.store.fetch_all(_ROWS, (recall.id,))) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return list(map(dict, found))

    async def report(self, recall: Recall) -> str:
        """What its only firing tells."""
        (row,) = await self.firings(recall)
        return str(row["detail"])

    async def troubles(self, recall: Recall, count: int = 1) -> list[str]:
        """The problems that were reported for the recall, once there are so many."""
        said: list[str] = []
        async with asyncio.timeout(WITHIN):
            async for page in self.services.sessions.orchestrator.follow(self.session_id, after=0, owner=OWNER):
                for _, text in page.envelopes:
                    event = json.loads(text)["event"]
                    value = event.get("value", {}) if event.get("name") == "navi.recall" else {}
                    reason = str(value.get("reason"))
                    if value.get("recall", {}).get("id") == recall.id and "cannot be looked at" in reason:
                        said.append(reason)
                if len(said) >= count:
                    return said
        raise AssertionError("the log ended")


@asynccontextmanager
async def opened(parts: JupyterServices, folder: Path, *, path: str | None = "work.ipynb") -> AsyncIterator[Place]:
    """A runtime with a session about a notebook; its kernel is not started."""
    database = folder / "navi.db"
    settings = Settings(database_url=database_url(database))
    async with runtime(settings, ProcessMeasures(), logging.getLogger("server"), parts) as services:
        # As a request does, which waits until earlier notebooks are marked: else this one is, as a missing one.
        request = SessionCreate(model="offline", notebook_path=path)
        session = await services.sessions.notebooks.create(request, owner=OWNER)
        yield Place(parts, services, database, session.id)


async def finished(client: AsyncKernelClient, code: str) -> str:
    """Run a cell to its end; the id of its request. The kernel has published all of it then."""
    request = client.execute(code)
    await over(client, request)
    return request


async def over(client: AsyncKernelClient, request: str, *, within: float = WITHIN) -> None:
    """Wait for the end of a cell. Raises Empty."""
    while True:
        message = await client.get_iopub_msg(timeout=within)
        if message["parent_header"].get("msg_id") == request and message["content"].get("execution_state") == "idle":
            return


async def interrupted(place: Place, client: AsyncKernelClient, request: str) -> None:
    """Interrupt a cell to its end. Again when nothing comes of it: a signal may hit code that swallows it."""
    for _ in range(10):
        await place.manager.interrupt_kernel()
        with suppress(Empty):
            await over(client, request, within=3.0)
            return
    raise AssertionError("the cell ignores interrupts")


async def begun(client: AsyncKernelClient, code: str) -> str:
    """Start a cell that prints ``begun`` first, and wait for that."""
    request = client.execute(f"print('begun', flush=True)\n{code}")
    while True:
        message = await client.get_iopub_msg(timeout=WITHIN)
        if message["parent_header"].get("msg_id") == request and message["msg_type"] == "stream":
            return request
