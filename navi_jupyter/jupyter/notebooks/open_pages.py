"""Notebooks that pages have open without real-time collaboration: a page with unsaved changes makes a change itself.

A request is announced in the session's log, without its content. A page that follows the session and has the notebook
open claims it, and says whether it has unsaved changes. If it has, it gets the change, makes it in what it shows,
saves, and reports. If it has none, or no page claims the request in time, the change goes into the file, and the page
takes it over from there (``js/src/open-notebook.ts``). Requests are of this process's memory: one that is claimed too
late is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import CellNotFound, NaviError, NotebookConflict, NotebookRequestGone
from ...log_setup import get_logger
from ...model.base import new_id
from ...ports.jupyter import Cell
from .cells import CellChange, DeleteCell, EditCell, InsertCell, new_cell

log = get_logger("notebooks")

CLAIM_SECONDS = 1.5  # for a page to claim a request: a round trip, and what holds its thread at the moment
UNSAVED_SECONDS = 0.15  # after a page without unsaved changes, for another one that has some
MADE_SECONDS = 15.0  # for a page to make a change and to save
SILENT_SECONDS = 30.0  # for which a session is not asked again after no page has claimed

Announce = Callable[[str, Mapping[str, Any]], Awaitable[None]]  # (session, value of a ``navi.notebook`` event)


@dataclass(slots=True)
class _Request:
    session_id: str
    path: str
    change: CellChange | None  # None: only save
    claimed: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """True: by a page with unsaved changes, which makes it. False: pages have it open, and all is saved."""
    made: asyncio.Future[Cell | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class OpenPages:
    """The pages that follow sessions of this server, as far as they have notebooks open."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._views: Counter[str] = Counter()  # by session, the sockets of pages that follow it
        self._open: dict[str, _Request] = {}
        self._silent: dict[str, float] = {}  # by session, until when it is not asked

    def view_opened(self, session_id: str) -> None:
        """A page follows the session. Whether it has a notebook open is found when it is asked."""
        self._views[session_id] += 1
        self._silent.pop(session_id, None)

    def view_closed(self, session_id: str) -> None:
        """It does so no more."""
        self._views[session_id] -= 1
        if self._views[session_id] <= 0:
            del self._views[session_id]

    async def make(self, session_id: str, path: str, change: CellChange) -> Cell | None:
        """Have the page make a change. The cell as it is then (or was); None: there is no page with unsaved changes.

        Raises CellNotFound, NotebookConflict.
        """
        request = _Request(session_id, path, change)
        return await request.made if await self._ask(request) else None

    async def save(self, session_id: str, path: str) -> bool:
        """Have the page save what is unsaved there. Whether there was a page with something to save.

        Raises NotebookConflict.
        """
        request = _Request(session_id, path, None)
        if not await self._ask(request):
            return False
        await request.made
        return True

    async def _ask(self, request: _Request) -> bool:
        """Whether a page has made it. On return its ``made`` is done."""
        session_id = request.session_id
        if session_id not in self._views or self._silent.get(session_id, 0) > time.monotonic():
            return False
        request_id = new_id("n")
        self._open[request_id] = request
        try:
            value = {"action": "requested", "request_id": request_id, "path": request.path}
            await self._announce(session_id, value)
            await asyncio.wait({request.claimed}, timeout=CLAIM_SECONDS)
            if not request.claimed.done():
                self._note_silent(session_id)
                return False
            if not request.claimed.result():
                return False
            await asyncio.wait({request.made}, timeout=MADE_SECONDS)
        except NaviError as error:  # the session's log takes no event: no page hears of the request
            log.warning("notebook_request_not_announced", session_id=session_id, error=error.message)
            return False
        finally:
            del self._open[request_id]
        if not request.made.done():
            raise NotebookConflict(
                f"A page has {request.path} open with unsaved changes, and did not report whether it made the change: "
                "read the notebook again."
            )
        return True

    def _note_silent(self, session_id: str) -> None:
        at = time.monotonic()
        self._silent = {known: until for known, until in self._silent.items() if until > at}
        self._silent[session_id] = at + SILENT_SECONDS

    def claim(self, session_id: str, request_id: str, *, unsaved: bool) -> Mapping[str, Any] | None:
        """A page has the notebook open. What it is to do; None: nothing, the server does it.

        Raises NotebookRequestGone when it is over, or another page has claimed it.
        """
        request = self._request(session_id, request_id)
        self._silent.pop(session_id, None)
        if request.claimed.done():
            raise NotebookRequestGone("Another page makes this change.")
        if unsaved:
            request.claimed.set_result(True)
            return {"path": request.path, **_change_json(request.change)}
        asyncio.get_running_loop().call_later(UNSAVED_SECONDS, _settle, request.claimed)
        return None

    def report(self, session_id: str, request_id: str, *, cell: Cell | None, refusal: str | None) -> None:
        """A page has made the change (``cell``: as it is then), or has refused it: ``changed`` or ``not_found``.

        Raises NotebookRequestGone.
        """
        request = self._request(session_id, request_id)
        if not request.claimed.done() or request.made.done():
            raise NotebookRequestGone("This request is not open.")
        if refusal == "not_found":
            request.made.set_exception(CellNotFound("The page that has the notebook open has no such cell."))
        elif refusal is not None:
            request.made.set_exception(
                NotebookConflict(
                    "The cell was changed meanwhile in the page that has the notebook open: read it again."
                )
            )
        else:
            request.made.set_result(cell)

    def _request(self, session_id: str, request_id: str) -> _Request:
        request = self._open.get(request_id)
        if request is None or request.session_id != session_id:
            raise NotebookRequestGone("This request is over.")
        return request


def _settle(claimed: asyncio.Future[bool]) -> None:
    if not claimed.done():
        claimed.set_result(False)


def _change_json(change: CellChange | None) -> dict[str, Any]:
    """What a page is to do: ``js/src/lab/notebook-requests.ts`` reads it."""
    match change:
        case InsertCell():
            return {"action": "insert", "after": change.after, "new_cell": new_cell(change)}
        case EditCell():
            return {"action": "edit", "cell": change.cell, "source": change.source, "expected": change.expected}
        case DeleteCell():
            return {"action": "delete", "cell": change.cell, "expected": change.expected}
        case _:
            return {"action": "save"}
