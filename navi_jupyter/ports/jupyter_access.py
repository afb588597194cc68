"""What of a user's Jupyter server a run, a request or a page can reach, as one value; and whether it may be started.

Each part is None where there is no such thing: on a server without kernels, or while a user's server is off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from ..model.notebooks import ClientNotebook
from ..model.sessions import Origin, Session
from .files import Files
from .jobs import NotebookJobs
from .jupyter import Cell, Kernels, Notebooks


class PageRequests(Protocol):
    """What pages that have notebooks open are asked to do there. Implemented by ``jupyter.notebooks.open_pages``."""

    async def changed(self, session: Session, path: str) -> None:
        """The notebook's file was changed for the session, or the user has kept edits of it: pages look at it."""

    async def claim(self, session_id: str, request_id: str, *, unsaved: bool) -> Mapping[str, Any] | None:
        """A page has the notebook open. What it is to do; None: nothing. Raises NotebookRequestGone."""

    async def report(
        self,
        session_id: str,
        request_id: str,
        *,
        cell: Cell | None,
        notebook: ClientNotebook | None = None,
        refusal: str | None,
    ) -> None:
        """A page has made what it has claimed, or has refused it. Raises NotebookRequestGone."""


async def _nothing() -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class JupyterAccess:
    """What the server gives to tools. Each is None where there is no such thing (a server without kernels)."""

    kernels: Kernels | None = None
    notebooks: Notebooks | None = None
    files: Files | None = None
    jobs: NotebookJobs | None = None
    pages: PageRequests | None = None
    prepare: Callable[[], Awaitable[None]] = _nothing
    """Awaited before a run begins to answer, where it needs a server that may be off. Raises ServerUnavailable."""


class JupyterOf(Protocol):
    """By user: of a service with many users each has another Jupyter server, which may be off, or several."""

    def __call__(self, owner: str, server: str | None = None, /) -> JupyterAccess:
        """``server``: its name; None: the one that the present request comes through."""


JupyterOfRun = Callable[[Session, Origin], Awaitable[JupyterAccess]]
"""The same for a run of a session that begins, by its origin."""

may_start_server: ContextVar[bool] = ContextVar("navi_may_start_server", default=False)
"""Whether what the present task asks of the user's Jupyter server may start that, where it is off."""


@contextmanager
def starting_server() -> Iterator[None]:
    """While it is entered, the user's Jupyter server may be started: a tool call needs it, and no mere description."""
    token = may_start_server.set(True)
    try:
        yield
    finally:
        may_start_server.reset(token)


class ServerStarter(Protocol):
    """Starts the servers of users, and stops them when they are not used. Implemented by ``hub.user_servers``."""

    def may_start(self, origin: Origin) -> bool:
        """Whether a run of this origin may have its user's server started."""

    def using(self, owner: str, server: str = "") -> AbstractAsyncContextManager[None]:
        """While it is entered, the server is not stopped."""

    async def ready(self, owner: str, server: str = "", *, waiting: Callable[[str], None]) -> None:
        """Return once it is linked to this process; ``waiting``: called with a status where that takes time. Raises
        ServerUnavailable, HubRefused."""

    async def start(self) -> None:
        """Begin to work."""

    async def stop(self) -> None:
        """End; what is starting goes on."""
