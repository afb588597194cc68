"""The server as this kernel uses it: found once, asked synchronously from cells.

Not responsible for which session is the notebook's (``notebook``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from .client import Client, Envelope, Query
from .connection import Connection, find_server
from .io_thread import io_thread


class Service:
    """Synchronous calls, run on the io thread. Ctrl-C ends any of them at once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = Client(connection)
        self.session_id: str | None = None
        """The notebook's session, once it is known."""
        self.lock = threading.Lock()
        """Held while the notebook's session is looked up: two threads must not both create one."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Query | None = None) -> Any:
        """One request; see :meth:`Client.request`."""
        return io_thread().wait(self.client.request(method, path, body, query=query))

    def pages(
        self,
        path: str,
        key: str,
        *,
        most: int = 10_000,
        query: Query | None = None,
        beside: Mapping[str, dict[str, Any]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every item of a paged list, ``most`` at most. ``beside``: what else each page has, by name, is added."""
        cursor: str | None = None
        while most > 0:
            page = self.call("GET", path, query={**(query or {}), "limit": min(most, 100), "cursor": cursor})
            most -= len(page[key])
            for name, found in (beside or {}).items():
                found.update(page.get(name) or {})
            yield from page[key]
            cursor = page.get("next")
            if cursor is None:
                return

    def command(self, session_id: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a command; its acceptance."""
        return io_thread().wait(self.client.command(session_id, command))

    def follow(self, session_id: str, after: int | None) -> Iterator[Envelope]:
        """The session's envelopes as they come. Ends with the iterator, or by Ctrl-C."""
        pages = self.client.follow(session_id, after)
        try:
            while True:
                yield from io_thread().wait(_next(pages))
        finally:
            io_thread().wait(pages.aclose())


async def _next(pages: AsyncIterator[list[Envelope]]) -> list[Envelope]:
    return await anext(pages)


_current: Service | None = None
_lock = threading.Lock()


def connect(url: str | None = None, token: str | None = None) -> Service:
    """Find the server (again) and use it from now on. Raises ServerNotFound."""
    global _current
    connection = find_server(url, token)
    with _lock:
        if _current is None or _current.connection != connection:
            _current = Service(connection)
        return _current


def current_service() -> Service:
    """The one in use; found now if there is none yet. Raises ServerNotFound."""
    return _current or connect()


def _forget() -> None:
    """A forked child has no io thread yet, so it can not use its parent's client."""
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
