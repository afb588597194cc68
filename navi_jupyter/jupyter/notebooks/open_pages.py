"""Notebooks that pages have open: asked for what is unsaved in them, and informed of changes of their files.

A page has a socket, on which it says which notebooks it shows and which of these have unsaved changes
(``server.websocket``). Before a notebook without real-time collaboration is changed, the pages of its user that show it
are asked over that socket. One with unsaved changes claims the request over HTTP, gets the change, makes it in what it
shows, saves, and reports. If none has any, the change goes into the file, and the pages take it over from there
(``js/src/lab/open-notebook.ts``). No view of a conversation is needed for this: a recall at night meets the page, too.
Requests are of this process's memory: one that is claimed too late is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import CellNotFound, NotebookConflict, NotebookRequestGone
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.notebooks import ClientNotebook
from ...model.sessions import Session
from ...ports.jupyter import Cell
from .cells import CellChange, DeleteCell, EditCell, InsertCell, new_cell

log = get_logger("notebooks")

CLAIM_SECONDS = 3.0  # for a page to claim a request: it may read the file first, and its thread may be held
UNSAVED_SECONDS = 0.15  # after a page without unsaved changes, for another one that has some
MADE_SECONDS = 15.0  # for a page to make a change and to save
SILENT_SECONDS = 30.0  # for which a page that has not claimed is not asked again, unless it reports something


Emit = Callable[[Mapping[str, Any]], None]
"""Sends a message to a page, which is known by it. Not awaited; a page that is gone gets nothing."""


@dataclass(slots=True)
class _Shown:
    """What a page shows."""

    owner: str
    notebooks: Mapping[str, bool]  # by path, whether something of it is not saved
    silent_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Show:
    """A request that changes nothing: the page says what it shows."""


@dataclass(frozen=True, slots=True)
class Save:
    """A request that changes nothing: the page saves."""


@dataclass(slots=True)
class _Request:
    session_id: str
    path: str
    change: CellChange | Show | Save
    pages: int = 0  # how many were asked
    clean: int = 0  # how many of these have claimed it and have nothing unsaved
    claimed: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """True: by a page with unsaved changes, which makes it. False: pages have it open, and all is saved."""
    made: asyncio.Future[Cell | ClientNotebook | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class OpenPages:
    """The pages of this server's users, as far as they have notebooks open. Implements ``ports.edits.PageRequests``."""

    def __init__(self) -> None:
        self._pages: dict[Emit, _Shown] = {}
        self._open: dict[str, _Request] = {}

    def shows(self, page: Emit, owner: str, notebooks: Mapping[str, bool]) -> None:
        """A page shows these notebooks, and no others. The value: whether something of it is not saved."""
        self._pages[page] = _Shown(owner, notebooks)

    def closed(self, page: Emit) -> None:
        """The page is gone, or its connection is."""
        self._pages.pop(page, None)

    def unsaved(self, owner: str, path: str) -> bool | None:
        """Whether a page of the user has unsaved changes of the notebook; None: no page shows it."""
        showing = self._showing(owner, path)
        return any(shown.notebooks[path] for shown in showing.values()) if showing else None

    async def make(self, session: Session, path: str, change: CellChange) -> Cell | None:
        """Have the page make a change. The cell as it is then (or was); None: there is no page with unsaved changes.

        Raises CellNotFound, NotebookConflict.
        """
        made = await self._ask(session, path, change)
        return made if isinstance(made, Cell) else None

    async def save(self, session: Session, path: str) -> None:
        """Have the page save what is unsaved there, if there is something.

        Raises NotebookConflict.
        """
        await self._ask(session, path, Save())

    async def show(self, session: Session, path: str) -> ClientNotebook | None:
        """What the page with unsaved changes shows; None: there is none, or it does not answer."""
        try:
            found = await self._ask(session, path, Show())
        except NotebookConflict as error:
            log.info("page_not_read", session_id=session.id, path=path, reason=error.message)
            return None
        return found if isinstance(found, ClientNotebook) else None

    async def changed(self, session: Session, path: str) -> None:
        """The notebook's file was changed for the session, or the user has kept edits of it: pages look at it."""
        for page in self._showing(session.owner, path):
            page({"type": "changed", "session_id": session.id, "path": path})

    async def claim(self, session_id: str, request_id: str, *, unsaved: bool) -> Mapping[str, Any] | None:
        """A page has the notebook open. What it is to do; None: nothing, the server does it.

        Raises NotebookRequestGone when it is over, or another page has claimed it.
        """
        request = self._request(session_id, request_id)
        if request.claimed.done():
            raise NotebookRequestGone("Another page makes this change.")
        if unsaved:
            request.claimed.set_result(True)
            return {"path": request.path, **_change_json(request.change)}
        request.clean += 1
        if request.clean >= request.pages:
            _settle(request.claimed)
        else:
            asyncio.get_running_loop().call_later(UNSAVED_SECONDS, _settle, request.claimed)
        return None

    async def report(
        self,
        session_id: str,
        request_id: str,
        *,
        cell: Cell | None,
        notebook: ClientNotebook | None = None,
        refusal: str | None,
    ) -> None:
        """A page has made the change (``cell``: as it is then), or has refused it: see ``NotebookReport``.

        Raises NotebookRequestGone.
        """
        request = self._request(session_id, request_id)
        if not request.claimed.done() or request.made.done():
            raise NotebookRequestGone("This request is not open.")
        match refusal:
            case None:
                request.made.set_result(cell if notebook is None else notebook)
            case "not_found":
                request.made.set_exception(CellNotFound("The page that has the notebook open has no such cell."))
            case "conflict":
                request.made.set_exception(
                    NotebookConflict(
                        f"{request.path} was changed in its file and in the page that has it open, in the same cell: "
                        "nothing was done. The user has to save it there, and to choose what stays."
                    )
                )
            case _:
                request.made.set_exception(
                    NotebookConflict(
                        "The cell was changed meanwhile in the page that has the notebook open: read it again."
                    )
                )

    def _showing(self, owner: str, path: str) -> dict[Emit, _Shown]:
        return {page: shown for page, shown in self._pages.items() if shown.owner == owner and path in shown.notebooks}

    async def _ask(self, session: Session, path: str, change: CellChange | Show | Save) -> Cell | ClientNotebook | None:
        """What a page with unsaved changes has answered; None: there is none, or it had nothing to say."""
        now = time.monotonic()
        asked = {page: shown for page, shown in self._showing(session.owner, path).items() if shown.silent_until <= now}
        if not asked:
            return None
        request = _Request(session.id, path, change, pages=len(asked))
        request_id = new_id("n")
        self._open[request_id] = request
        try:
            for page in asked:
                page({"type": "requested", "session_id": session.id, "request_id": request_id, "path": path})
            await asyncio.wait({request.claimed}, timeout=CLAIM_SECONDS)
            if not request.claimed.done():
                for shown in asked.values():
                    shown.silent_until = time.monotonic() + SILENT_SECONDS
                return None
            if not request.claimed.result():
                return None
            await asyncio.wait({request.made}, timeout=MADE_SECONDS)
        finally:
            del self._open[request_id]
        if not request.made.done():
            raise NotebookConflict(
                f"A page has {path} open with unsaved changes, and did not report whether it made the change: "
                "read the notebook again."
            )
        return request.made.result()

    def _request(self, session_id: str, request_id: str) -> _Request:
        request = self._open.get(request_id)
        if request is None or request.session_id != session_id:
            raise NotebookRequestGone("This request is over.")
        return request


def _settle(claimed: asyncio.Future[bool]) -> None:
    if not claimed.done():
        claimed.set_result(False)


def _change_json(change: CellChange | Show | Save) -> dict[str, Any]:
    """What a page is to do: ``js/src/lab/notebook-requests.ts`` reads it."""
    match change:
        case InsertCell():
            return {"action": "insert", "after": change.after, "new_cell": new_cell(change)}
        case EditCell():
            return {"action": "edit", "cell": change.cell, "source": change.source, "expected": change.expected}
        case DeleteCell():
            return {"action": "delete", "cell": change.cell, "expected": change.expected}
        case Show():
            return {"action": "show"}
        case _:
            return {"action": "save"}
