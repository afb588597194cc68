"""A read that must not be awaited: from a hook of Jupyter's, in the middle of a step of the event loop.

It has an event loop of its own in a thread, with one connection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

from ...errors import StoreError
from ...ports.jupyter import NotebookLink
from ..served_owners import ServedOwners
from ..sessions import link_of, links_now
from .connection import ERRORS, PostgresConnection, connect, postgres_error

WITHIN = 0.25  # seconds for an answer: the event loop, which kernels share, stands still meanwhile
FIRST_WITHIN = 1.0  # seconds for the first one, for which the connection is made
RESTS = 5.0  # seconds after one that did not come in time, in which none is waited for


class ReaderNow:
    """Made on the event loop; the thread is started when it is first needed."""

    def __init__(self, url: str, served: ServedOwners) -> None:
        self._statement = links_now(served)
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None  # of the thread's loop
        self._connecting: asyncio.Task[Any] | None = None  # of the thread's loop
        self._rests_until = 0.0  # by the monotonic clock

    def links(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        """See :meth:`navi_jupyter.ports.store.SessionStore.links_now`. Raises StoreError."""
        if time.monotonic() < self._rests_until:
            raise StoreError("The database server did not answer a moment ago.")
        within = WITHIN
        if self._loop is None:
            within, self._loop = FIRST_WITHIN, asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="navi-store-now", daemon=True).start()
        answer = asyncio.run_coroutine_threadsafe(self._links(path, session_id), self._loop)
        try:
            return answer.result(within)
        except ERRORS as error:
            answer.cancel()
            self._rests_until = time.monotonic() + RESTS
            raise postgres_error(error) from error

    async def _links(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        if self._connection is None or self._connection.is_closed():
            # Goes on when it is not waited for any longer, so that the next one finds it.
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(connect(self._url))
            self._connection = await asyncio.shield(self._connecting)
        connection = self._connection
        try:
            rows = await PostgresConnection(connection).execute_fetchall(self._statement, (path, session_id))
        except BaseException:  # also one that is cancelled: the connection would still wait for its answer
            connection.terminate()
            self._connection = None
            raise
        return [link_of(row) for row in rows]

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._loop = None

    async def _end(self) -> None:
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.terminate()
        asyncio.get_running_loop().stop()
