"""``navi_jupyter.connect``: a server as a program uses it, several at once, from any thread.

A program that awaits uses ``async with navi.connect(…)``, which gives ``aio``. Not responsible for cells, whose
functions (``api``) use the server of ``connect`` from then on.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from .. import api
from ..client.client import Query, Service, use_server, using
from ..client.connection import Connection, find_server
from ..client.io_thread import io_thread
from ..reply import Reply
from ..session import Session, find_session
from .aio import AsyncServer, AsyncSession, session_fields
from .run import OnQuestion, SyncRun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..display.listing import Listing
    from ..recalls import Recall

AnySession = str | int | Session | None


class NaviServer:
    """A server: its sessions, prompts to them, recalls. ``aio`` is the same for programs that await."""

    def __init__(self, service: Service) -> None:
        self.service = service
        """The client that it uses."""
        self._own = Lock()
        self._own_session: str | None = None
        self.aio = AsyncServer(service)

    @property
    def connection(self) -> Connection:
        """Its address, the credentials, and where they were found."""
        return self.service.connection

    @property
    def url(self) -> str:
        """Its base URL; ends with a slash."""
        return self.connection.url

    def session(self, session: AnySession = None) -> Session:
        """The session of that id, or whose title begins so; without one this program's own.

        The own one is the session that ``NAVI_SESSION`` names, else a new one, made when it is first used. Raises
        NoSuchItem; UsageError where several have the title.
        """
        if isinstance(session, Session):
            return session
        if session is not None:
            return Session(self.service, find_session(self.service, session))
        with self._own:  # two threads must not make two
            if self._own_session is None:
                named = os.environ.get("NAVI_SESSION")
                self._own_session = find_session(self.service, named) if named else self.new_session().id
            return Session(self.service, self._own_session)

    def new_session(self, **fields: Any) -> Session:
        """A new session: ``title``, ``model``, ``profile``, ``notebook_path``, ``allowed_tools`` … Raises Refused."""
        made = self.service.call("POST", "sessions", session_fields(fields))
        return Session(self.service, str(made["id"]))

    def sessions(self, *, query: str | None = None, most: int = 100) -> list[dict[str, Any]]:
        """The user's sessions, most recently used first; those with all words of ``query`` in them."""
        return list(self.service.pages("sessions", "sessions", most=most, query={"query": query}))

    def send(self, text: str, *, session: AnySession = None, **prompt: Any) -> SyncRun:
        """Prompt; the run that answers, once the prompt is durable: iterate over it, or wait for it.

        ``prompt``: ``images`` and ``files`` (bytes, paths, figures), ``mode``, ``model`` and further fields of the
        command. Raises UsageError, Refused, Unreachable.
        """
        return SyncRun(io_thread().wait(self._async(session).send(text, **prompt)))

    def ask(
        self,
        text: str,
        *,
        session: AnySession = None,
        timeout: float | None = None,
        on_question: OnQuestion = None,
        **prompt: Any,
    ) -> Reply:
        """Prompt, and wait for the reply. Ctrl-C stops the run; a timeout leaves it in progress.

        See :meth:`send` and ``wait`` of the run. Raises AnswerNeeded, RunDidNotComplete, WaitTimedOut and what
        :meth:`send` raises.
        """
        with self.send(text, session=session, **prompt) as run:
            try:
                return run.wait(timeout=timeout, on_question=on_question)
            except KeyboardInterrupt:
                run.stop()
                raise

    def join(self, session: AnySession, run_id: str, *, after: int | None = None) -> SyncRun:
        """A run that is in progress or over, from the event ``after`` on (the ``cursor`` of an earlier one)."""
        return SyncRun(self._async(session).join(run_id, after=after))

    def recall(self, message: str = "", *, session: AnySession = None, **when: Any) -> Recall:
        """Make a recall; keywords as of ``navi.recall``."""
        with using(self.service):
            return api.recall(message, session=self.session(session), **when)

    def recalls(self, *, session: AnySession = None, over: bool = False) -> Listing[Recall]:
        """The recalls of a session, or of all; ``over`` includes those that have ended."""
        with using(self.service):
            if session is None:
                return api.recalls(all=True, over=over)
            return self.session(session).recalls(over=over)

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Query | None = None
    ) -> Any:
        """Any other operation of the API (docs/reference.md): ``request("GET", "health")``. Raises Refused."""
        return self.service.call(method, path, body, query=query)

    def close(self) -> None:
        """Nothing is kept open but what is iterated over, which ends with its loop; here for ``with``."""

    def _async(self, session: AnySession) -> AsyncSession:
        return AsyncSession(self.service, self.session(session).id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncServer:
        return self.aio

    async def __aexit__(self, *_: object) -> None:
        await self.aio.close()

    def __repr__(self) -> str:
        return f"<NaviServer {self.url} (from {self.connection.source})>"


def connect(url: str | None = None, token: str | None = None, *, ca_file: str | Path | None = None) -> NaviServer:
    """The server at ``url``; without one, the server that a kernel finds (docs/programs.md).

    ``url`` may have ``?token=`` and be that of a page; on JupyterHub it is that of the user's server. ``ca_file``:
    certificates of authorities to trust instead of this machine's. Sends nothing yet. The functions of this package
    (``navi.ask`` …) use the server that was connected last. Raises ServerNotFound.
    """
    connection = find_server(url, token)
    if ca_file is not None:
        connection = replace(connection, ca_file=str(ca_file))
    return NaviServer(use_server(connection))
