"""Notebooks and their sessions: found by what the notebook carries, bound, moved, copied, unlinked.

The one door by which magics, chat widget and lab extension find the session of a notebook. Not responsible for the
rules (``decide_link`` in ``jupyter.notebooks.identity``), for how an id gets into a notebook (``NotebookService``), or
for what happens to notebooks meanwhile (``jupyter.notebooks``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final
from weakref import WeakValueDictionary

from jupyter_core.utils import ensure_async

from ..clock import now
from ..errors import InvalidRequest
from ..events import Draft, session_event
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..jupyter.kernels.lookup import without_drive
from ..jupyter.notebooks.identity import MAX_FINGERPRINT, decide_link, is_same, source_mark
from ..jupyter.notebooks.links import NotebookLinks
from ..jupyter.notebooks.service import NotebookService
from ..log_setup import get_logger
from ..model.sessions import USER, NotebookLinkState, Session, SessionCreate, SessionPatch
from ..orchestrator.session_directory import SessionDirectory
from ..ports.jupyter import NO_CELL, NotebookLink, NotebookMark
from ..ports.tracing import caller_server
from ..ports.transactions import SessionTx
from ..store.database import Database
from .wire.sessions import FoundSession, SessionFind

log = get_logger("notebooks")

UPGRADE_SECONDS = 60.0  # how long the first start after an upgrade reads notebooks for their fingerprints
EARLIER = 20  # earlier sessions of a notebook that an answer names

_UNBOUND: Final[dict[str, Any]] = {"notebook_path": None, "notebook_link": None, "kernel_id": None}


class NotebookSessions:
    def __init__(
        self,
        directory: SessionDirectory,
        store: Database,
        notebooks: NotebookService | None,
        jupyter: JupyterServices | None,
        links: NotebookLinks | None,
    ) -> None:
        self._directory = directory
        self._store = store
        self._notebooks = notebooks  # None: there are none on this server, so that only kernels can be known again
        self._jupyter = jupyter
        self._links = links  # None as above
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One per owner: two cells that ask at once must not make two sessions."""
        self._upgraded = asyncio.Event()

    async def upgrade(self) -> None:
        """Take the fingerprints of notebooks with sessions of earlier versions. For a task; requests wait for it."""
        deadline = time.monotonic() + UPGRADE_SECONDS
        # One that is made meanwhile is of this version: its notebook may have no file yet, and is not another's then.
        by = now()
        try:
            while self._notebooks is not None and (paths := await self._store.unmarked_paths(limit=20, made_by=by)):
                for path in paths:
                    late = time.monotonic() > deadline
                    here = self._relative(path)  # a kernel may have known it by its absolute path
                    mark = None if late else await self._notebooks.mark(here)
                    # A notebook that is not there now never was seen: no other one at its path is it.
                    marks = NO_CELL if mark is None else mark.fingerprint or NO_CELL
                    await self._store.write(
                        lambda tx, path=path, marks=marks, here=here: tx.mark_notebook(  # type: ignore[misc]
                            path, marks, now_at=here, made_by=by
                        )
                    )
        except Exception:  # the task is not awaited: it is its own supervisor
            log.exception("notebooks_not_marked")
        finally:
            self._upgraded.set()

    async def find(self, request: SessionFind, *, owner: str) -> FoundSession:
        """The session of a notebook or kernel; a new one if there is none and ``create``. Raises as ``create``."""
        await self._upgraded.wait()
        if self._links is not None:
            await self._links.settled()  # of a rename a moment ago, the new path
        async with self._lock(owner):
            path = await self._path_of(request)
            if path is None and request.kernel_id is None:
                return await self._by_id(request, owner)
            mark = None if path is None or self._notebooks is None else await self._notebooks.mark(path)
            if path is not None and mark is None:
                path, mark = await self._followed(path, request, owner)
            links = await self._store.links(
                owner, session_id=None if mark is None else mark.id, path=path, kernel_id=request.kernel_id
            )
            decision = decide_link(
                path=path,
                kernel_id=request.kernel_id,
                notebook=mark,
                by_id=next((link for link in links if mark and link.session_id == mark.id), None),
                by_kernel=[link for link in links if link.kernel_id and link.kernel_id == request.kernel_id],
                by_path=[link for link in links if link.path == path],
                elsewhere=[
                    link.session_id
                    for link in links
                    if (link.path != path or mark is None or mark.id is None)
                    and self._links is not None
                    and await self._links.is_elsewhere(link, path)
                ],
            )
            if decision.session_id is None and not request.create:
                return await self._answer(None, "none", owner=owner, path=path)
            stale = [link for link in links if link.session_id in decision.stale and await self._is_here(link)]
            await self._change({link.session_id: _UNBOUND | {"earlier_path": path} for link in stale})
            if decision.how == "moved" and decision.session_id and path and self._links is not None:
                await self._links.relocate(decision.session_id, path)
            if decision.session_id is None:
                session = await self._create(request, path, owner=owner)
            else:
                session = await self._directory.owned(decision.session_id, owner)
            session = await self._bind(
                session,
                path,
                mark,
                kernel_id=request.kernel_id,
                asking=_marks_of(request, mark),
                is_open=request.is_open,
            )
            await self._release(session, links)
            note = COPIED if decision.how == "copied" else None
            return await self._answer(session, decision.how, owner=owner, path=path, note=note)

    async def create(self, request: SessionCreate, *, owner: str) -> Session:
        """A new session, which becomes that of the notebook it names. Raises as the directory's."""
        await self._upgraded.wait()
        async with self._lock(owner):
            path = self._relative(request.notebook_path) if request.notebook_path else None
            session = await self._create(request, path, owner=owner)
            if path is None:
                return session
            mark = None if self._notebooks is None else await self._notebooks.mark(path)
            return await self._bind(session, path, mark, kernel_id=request.kernel_id, replacing=True)

    async def change(self, session_id: str, patch: SessionPatch, *, owner: str) -> Session:
        """As the directory's; with ``notebook_path`` the session is linked to that notebook, or (null) to none."""
        await self._upgraded.wait()
        if not patch.model_fields_set & {"notebook_path", "kernel_id"}:
            return await self._directory.change(session_id, patch, owner=owner)
        async with self._lock(owner):
            if "notebook_path" not in patch.model_fields_set:
                session = await self._directory.change(session_id, patch, owner=owner)
                if session.kernel_id is not None and session.notebook_path is None:
                    others = await self._others_of_kernel(session, session.kernel_id)
                    await self._change({other: {"kernel_id": None} for other in others})
                return session
            before = await self._directory.owned(session_id, owner)
            path = self._relative(patch.notebook_path) if patch.notebook_path else None
            rest = patch.model_dump(exclude_unset=True, exclude={"notebook_path"})
            session = await self._directory.change(session_id, SessionPatch(**rest), owner=owner) if rest else before
            if path is None:
                changes = _UNBOUND | ({"kernel_id": rest["kernel_id"]} if "kernel_id" in rest else {})
                await self._change({session.id: {**changes, "earlier_path": before.notebook_path}}, announce=True)
            else:
                mark = None if self._notebooks is None else await self._notebooks.mark(path)
                await self._bind(session, path, mark, kernel_id=session.kernel_id, replacing=True)
                await self._change({session.id: {}}, announce=True)
            if before.notebook_path is not None and before.notebook_path != path:
                await self._leave(before)  # last: what is saved meanwhile gets the id of the session that is bound
            return await self._directory.owned(session_id, owner)

    async def saved(self, session_id: str, path: str) -> None:
        """A notebook was saved with the id of its session for the first time."""

        async def unit(tx: SessionTx) -> None:
            session = await tx.session(session_id)
            if session and session.notebook_path == path and session.notebook_link is NotebookLinkState.PENDING:
                await tx.change_session(session_id, {"notebook_link": NotebookLinkState.LINKED})

        await self._store.write(unit)

    # --- binding ------------------------------------------------------------------------------------------------------

    async def _create(self, request: SessionCreate, path: str | None, *, owner: str) -> Session:
        fields = {
            name: getattr(request, name) for name in request.model_fields_set if name in SessionCreate.model_fields
        }
        return await self._directory.create(SessionCreate(**{**fields, "notebook_path": path}), owner=owner)

    async def _bind(
        self,
        session: Session,
        path: str | None,
        mark: NotebookMark | None,
        *,
        kernel_id: str | None,
        asking: Sequence[str] = (),
        replacing: bool = False,
        is_open: bool = False,
    ) -> Session:
        """Make it the session of the notebook at the path, and have the notebook carry its id.

        ``replacing``: the notebook's other sessions become its earlier ones. Stores nothing that is stored already.
        """
        link = await self._store.link(session.id)
        is_linked = mark is not None and mark.id == session.id
        kernel, server = kernel_id or session.kernel_id, caller_server.get()  # of the server that it was used in last
        wanted: dict[str, Any] = {"kernel_id": kernel, "notebook_path": path, "server": server}
        linked = NotebookLinkState.LINKED if is_linked else NotebookLinkState.PENDING
        wanted["notebook_link"] = None if path is None else linked
        present = {name: getattr(session, name) for name in wanted}
        marks = _fingerprint(mark, asking, () if link is None or is_linked or link.path != path else link.fingerprint)
        changes: dict[str, dict[str, Any]] = {}
        if path is not None and (wanted != present or link is None or not set(marks) <= set(link.fingerprint)):
            changes[session.id] = {**wanted, "fingerprint": marks, "earlier_path": None}
        elif wanted != present:
            changes[session.id] = wanted
        if path is not None and (replacing or not is_linked):
            changes |= {
                other: {"notebook_link": NotebookLinkState.EARLIER} for other in await self._others(session, path, mark)
            }
        await self._change(changes)
        if path is not None and mark is not None and not is_linked:
            await self._write_id(session, path, mark, is_open=is_open)
        return await self._directory.owned(session.id, session.owner)

    async def _write_id(self, session: Session, path: str, mark: NotebookMark, *, is_open: bool) -> None:
        """Have the notebook carry the session's id, unless that has to wait for a page to save it."""
        if self._notebooks is None:
            return
        if not await self._notebooks.write_id(path, session.id, expected=mark, is_open=is_open):
            return
        changes = {session.id: {"notebook_link": NotebookLinkState.LINKED}}
        replaced = None if mark.id is None else await self._store.link(mark.id)
        if replaced is not None and replaced.owner != session.owner and replaced.path == path:
            # Another user's of the same file, who finds it by its cells.
            changes[replaced.session_id] = {"notebook_link": NotebookLinkState.PENDING}
        await self._change(changes)

    async def _release(self, session: Session, links: Sequence[NotebookLink]) -> None:
        """Take this session's kernel from the sessions of notebooks that had it before: saved under another name, the
        page goes on with the copy and the kernel."""
        if session.notebook_path is None or session.kernel_id is None:
            return
        places = {None, session.notebook_path, *_notebooks_in(await self._rows_of(session.kernel_id))}
        await self._change(
            {
                link.session_id: {"kernel_id": None}
                for link in links
                if link.kernel_id == session.kernel_id and link.session_id != session.id and link.path not in places
            }
        )

    async def _leave(self, session: Session) -> None:
        """Take the session's id out of the notebook that it leaves; a page that has it open saves it without."""
        path = session.notebook_path
        mark = None if path is None or self._notebooks is None else await self._notebooks.mark(path)
        if path is not None and mark is not None and mark.id == session.id and self._notebooks is not None:
            await self._notebooks.write_id(path, None, expected=mark)

    async def _others(self, session: Session, path: str, mark: NotebookMark | None) -> Sequence[str]:
        """The notebook's other sessions of this owner. One that has only its path in common is not one of them."""
        links = await self._store.links(session.owner, session_id=None if mark is None else mark.id, path=path)
        return [
            link.session_id
            for link in links
            if link.session_id != session.id
            and link.path == path
            and (mark is None or not mark.cells or is_same(link, mark) or link.shares_cell(mark))
        ]

    async def _others_of_kernel(self, session: Session, kernel_id: str) -> Sequence[str]:
        links = await self._store.links(session.owner, kernel_id=kernel_id)
        return [link.session_id for link in links if link.session_id != session.id and link.path is None]

    async def _change(self, changes: Mapping[str, Mapping[str, Any]], *, announce: bool = False) -> None:
        """Store the fields of these sessions in one transaction; ``announce``: followers read of it."""
        if not changes:
            return

        async def unit(tx: SessionTx) -> None:
            for session_id, fields in changes.items():
                if fields:
                    await tx.change_session(session_id, fields)
                session = await tx.session(session_id) if announce else None
                if session is not None:
                    event = session_event(session, ["notebook_path"])
                    await tx.append(session_id, [Draft(event, run_id=None, origin=USER, at=now())])

        await self._store.write(unit, durable=True)

    # --- what is there ------------------------------------------------------------------------------------------------

    async def _by_id(self, request: SessionFind, owner: str) -> FoundSession:
        """For a program, which has neither notebook nor kernel: the session that it used until now."""
        link = None if request.session_id is None else await self._store.link(request.session_id)
        if link is not None and link.owner == owner:
            return await self._answer(await self._directory.owned(link.session_id, owner), "found", owner=owner)
        if not request.create:
            return await self._answer(None, "none", owner=owner)
        return await self._answer(await self._create(request, None, owner=owner), "created", owner=owner)

    async def _answer(
        self, session: Session | None, how: str, *, owner: str, path: str | None = None, note: str | None = None
    ) -> FoundSession:
        earlier: Sequence[Session] = ()
        if path is not None:
            without = None if session is None else session.id
            earlier = await self._store.earlier_sessions(owner, path, without=without, limit=EARLIER)
        if note is None and how == "created" and earlier:
            note = NEW
        return FoundSession.model_validate(
            {"session": session, "how": how, "note": note, "path": path, "earlier": tuple(earlier)}
        )

    async def _is_here(self, link: NotebookLink) -> bool:
        """Whether a link's path is one of this server: others on the same database may have another root."""
        known = self._jupyter is not None and link.kernel_id in self._jupyter.kernel_manager
        return known or len(await self._store.known_servers()) <= 1

    async def _followed(self, path: str, request: SessionFind, owner: str) -> tuple[str, NotebookMark | None]:
        """Where the notebook of the asker's kernel is now, if it is not at the path that the asker knows any more:
        renamed by another program while its kernel runs."""
        if self._links is None or self._notebooks is None or request.kernel_id is None:
            return path, None
        for link in await self._store.links(owner, kernel_id=request.kernel_id):
            if link.kernel_id == request.kernel_id and link.state == "linked":
                found = await self._store.link(link.session_id) if await self._links.is_elsewhere(link, path) else None
                if found is not None and found.path is not None:
                    return found.path, await self._notebooks.mark(found.path)
        return path, None

    async def _path_of(self, request: SessionFind) -> str | None:
        """The path of the asker's notebook as Jupyter knows it now; the one that the asker knows may be an old one."""
        rows = [] if request.kernel_id is None else await self._rows_of(request.kernel_id)
        if rows and request.is_open and (request.notebook_path or "").endswith(".ipynb"):
            rows = []  # VS Code gives its kernels rows with made-up paths, and names the file
        if rows:
            places = _notebooks_in(rows)
            return await self._with_cell(places, request) if places else None
        if request.notebook_path is None:
            return None
        path = self._relative(request.notebook_path)
        return path if path.endswith(".ipynb") else None

    async def _rows_of(self, kernel_id: str) -> list[dict[str, Any]]:
        if self._jupyter is None:
            return []
        rows = await ensure_async(self._jupyter.session_manager.list_sessions())
        return [row for row in rows if (row.get("kernel") or {}).get("id") == kernel_id]

    async def _with_cell(self, places: Sequence[str], request: SessionFind) -> str:
        """Of the notebooks that share a kernel, the one that the asking cell is in."""
        if len(set(places)) > 1 and request.cell_id is not None and self._notebooks is not None:
            for path in places:
                mark = await self._notebooks.mark(path)
                if mark is not None and request.cell_id in mark.cells:
                    return path
        known = self._relative(request.notebook_path or "")
        return known if known in places else places[0]

    def _relative(self, path: str) -> str:
        """As the contents manager names it. Kernels may know their notebook by its absolute path."""
        if "\0" in path:
            raise InvalidRequest("notebook_path: not a path", field="notebook_path")
        if self._jupyter is not None and Path(path).is_absolute():
            for root in (Path(self._jupyter.root_dir), Path(self._jupyter.root_dir).resolve()):
                if Path(path).is_relative_to(root):
                    return str(PurePosixPath(Path(path).relative_to(root)))
        return without_drive(path).strip("/") if not Path(path).is_absolute() else path

    def _lock(self, owner: str) -> asyncio.Lock:
        return self._locks.setdefault(owner, asyncio.Lock())


COPIED: Final = "This notebook is a copy: it has a session of its own, and the other one keeps its own."
NEW: Final = "A new session. An earlier one of a notebook at this path is listed by %navi session, and can go on here."


def _notebooks_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of notebooks in Jupyter's own sessions."""
    return [without_drive(str(row["path"])) for row in rows if row.get("type") == "notebook" and row.get("path")]


def _marks_of(request: SessionFind, notebook: NotebookMark | None) -> Sequence[str]:
    """The marks of the cell that asks; its source only where ids do not last: another notebook may have the same."""
    known = () if notebook is None else notebook.fingerprint
    by_source = all(mark.startswith("=") for mark in known) if known else request.cell_id is None
    source = source_mark(request.cell_source or "") if by_source else ""
    return [mark for mark in (request.cell_id, source) if mark]


def _fingerprint(mark: NotebookMark | None, asking: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """What is stored to know the notebook again: its cells as they are saved, and those that have asked since."""
    if mark is None:
        return tuple(known)
    return tuple(dict.fromkeys((*asking, *(mark.fingerprint or NO_CELL), *known)))[:MAX_FINGERPRINT]
