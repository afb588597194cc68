"""Real kernels of a real Jupyter server, in this process; no browser, no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.session import Session as JupyterSession
from jupyter_server.serverapp import ServerApp

from navi_jupyter.events import Event
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.sessions import USER, Session
from navi_jupyter.ports.agent import ToolContext, tool_context
from navi_jupyter.ports.jupyter_access import JupyterAccess
from navi_jupyter.ports.stop import StopSignal


def session_of(path: str | None = "work.ipynb", **fields: Any) -> Session:
    """A conversation about a notebook."""
    now = datetime.now(UTC)
    given = {"id": "s_1", "owner": "ada", "title": "t", "profile": "assistant", "model": "offline"} | fields
    return Session(notebook_path=path, created_at=now, updated_at=now, **given)


@pytest.fixture
def parts(jp_serverapp: ServerApp) -> JupyterServices:
    """What the server lends."""
    return JupyterServices.of(jp_serverapp)


@pytest.fixture
def kernels(parts: JupyterServices, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[KernelService]:
    """The kernels of the server."""
    opened = KernelService(parts)
    yield opened
    jp_asyncio_loop.run_until_complete(opened.close())


@pytest.fixture
def session() -> Session:
    """A conversation about ``work.ipynb``."""
    return session_of()


class Nothing:
    """Stands where a tool of kernels has nothing to look for."""

    async def session(self, session_id: str) -> None:
        """Permissions look up the session as it is now: here it is in no database."""


@pytest.fixture
def written() -> list[Event]:
    """What was written into the run's log."""
    return []


def context_of(kernels: KernelService, session: Session, written: list[Event], **fields: Any) -> ToolContext:
    """A run of the session that may use the kernels."""
    nothing: Any = Nothing()
    return ToolContext(
        user_id=session.owner,
        session=session,
        run_id=fields.pop("run_id", "r_1"),
        origin=USER,
        stop=StopSignal(),
        recalls=nothing,
        library=nothing,
        emit=written.append,
        jupyter=JupyterAccess(kernels=kernels),
        **fields,
    )


@pytest.fixture
def run(kernels: KernelService, session: Session, written: list[Event]) -> Callable[..., ToolContext]:
    """Makes the present task work for a run."""

    def enter(**fields: Any) -> ToolContext:
        context = context_of(kernels, fields.pop("session", session), written, **fields)
        tool_context.set(context)
        return context

    return enter


@asynccontextmanager
async def front_end(parts: JupyterServices, kernel_id: str) -> AsyncIterator[AsyncKernelClient]:
    """Another client of the kernel, as a browser's: what the user does."""
    manager = parts.kernel_manager.get_kernel(kernel_id)
    # As a browser's: a session of its own, else it has the manager's address.
    client = manager.client(session=JupyterSession(key=manager.session.key))
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        yield client
    finally:
        client.stop_channels()


async def until(client: AsyncKernelClient, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The next message on IOPub that is wanted."""
    while True:
        message: dict[str, Any] = await client.get_iopub_msg(timeout=20)
        if wanted(message):
            return message


def text_of(outputs: Any) -> str:
    """All that streams and results say."""
    pieces = []
    for output in outputs:
        pieces.append(output.get("text") or output.get("data", {}).get("text/plain") or "")
    return "".join(pieces)
