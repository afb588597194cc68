"""A read that must not be awaited: from a hook of Jupyter's, in the middle of a step of the event loop.

It has an event loop of its own in a thread, with one connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from ...ports.jupyter import NotebookLink
from ..served_owners import ServedOwners
from ..sessions import link_of, links_now
from .connection import ERRORS, PostgresConnection, connect, postgres_error

WITHIN = 2.0  # seconds


class ReaderNow:
    """Made on the event loop; the thread is started when it is first needed."""

    def __init__(self, url: str, served: ServedOwners) -> None:
        self._statement = links_now(served)
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None

    def links(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        """See :meth:`navi_jupyter.ports.store.SessionStore.links_now`. Raises StoreError."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="navi-store-now", daemon=True).start()
        answer = asyncio.run_coroutine_threadsafe(self._links(path, session_id), self._loop)
        try:
            return answer.result(WITHIN)
        except ERRORS as error:
            answer.cancel()
            raise postgres_error(error) from error

    async def _links(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url)
        rows = await PostgresConnection(self._connection).execute_fetchall(self._statement, (path, session_id))
        return [link_of(row) for row in rows]

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._loop = None

    async def _end(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        asyncio.get_running_loop().stop()
