"""Where the sessions' notebooks are: what happens to notebooks is followed, and a path is verified before it is used.

Renames, saves and deletions of this server are followed at once (its events); what happened while it was off, or by
other programs, is found by the id that the notebook carries. Not responsible for the rules (``identity``) or for how
a link is stored (``ports.jupyter.LinkStore``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ...errors import FileRefused, InvalidRequest, NaviError, NotebookNotFound, NotFound
from ...log_setup import get_logger
from ...model.sessions import Session
from ...ports.jupyter import LinkStore, NotebookLink, NotebookMark
from ..files.tree import Tree
from ..kernels.jupyter_services import JupyterServices
from ..kernels.lookup import move_rows
from .identity import id_of, is_recognized, is_same, mark_of, set_id
from .notebook_file import local_root, parse_notebook, read_whole

log = get_logger("notebooks")

EVENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"
SEARCH_SECONDS = 5.0  # that a search may take
SEARCHED_ENTRIES = 50_000  # files and folders that a search looks at
SEARCH_AGAIN = 30.0  # seconds until what was not found is searched for again, if nothing was renamed or saved
NOT_SEARCHED = {"node_modules", "venv", "env", "site-packages", "__pycache__"}  # and hidden folders


class NotebookLinks:
    """See the module. Between :meth:`start` and :meth:`stop` it follows; verifying works always."""

    def __init__(
        self,
        parts: JupyterServices,
        store: LinkStore,
        *,
        mark: Callable[[str], Awaitable[NotebookMark | None]],
        remove_id: Callable[[str, NotebookMark], Awaitable[object]],
        on_moved: Callable[[], None],
    ) -> None:
        """``mark``: what the notebook at a path carries now; ``remove_id``: has it carry no id, if it is still that;
        ``on_moved``: called when paths have changed."""
        root = local_root(parts.contents_manager, parts.root_dir)
        hidden = bool(getattr(parts.contents_manager, "allow_hidden", False))
        self._tree = None if root is None else Tree(root, allow_hidden=hidden)
        self._parts, self._store = parts, store
        self._mark, self._remove_id, self._on_moved = mark, remove_id, on_moved
        self._moving = asyncio.Lock()
        """Held while paths are stored: of a session first, then of what watches its notebook, in one order."""
        self._events: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._missing: dict[str, float] = {}  # by session: see `located_often`
        self._searches: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def start(self) -> None:
        """Follow what the contents manager does from now on."""
        manager = self._parts.contents_manager
        self._task = asyncio.create_task(self._run(), name="navi-notebook-links")
        if hasattr(manager, "event_logger"):
            manager.event_logger.add_listener(schema_id=EVENTS, listener=self._on_event)

    async def stop(self) -> None:
        """Follow no more; what has happened is still stored."""
        manager = self._parts.contents_manager
        if hasattr(manager, "event_logger"):
            manager.event_logger.remove_listener(schema_id=EVENTS, listener=self._on_event)
        await self.settled()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def settled(self) -> None:
        """Return once what has happened so far is stored."""
        await asyncio.sleep(0)  # events reach their listener in tasks of their own
        if self._task is not None and not self._task.done():
            await self._events.join()

    # --- following ------------------------------------------------------------------------------------------------

    async def _on_event(self, *, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("action") in ("rename", "delete", "save", "copy"):
            self._events.put_nowait(data)

    async def _run(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await self._follow(event)
            except NaviError as error:
                log.warning("notebook_not_followed", change=dict(event), error=error.message)
            except Exception:  # the task is not awaited: it is its own supervisor
                log.exception("notebook_not_followed", change=dict(event))
            finally:
                self._events.task_done()

    async def _follow(self, event: Mapping[str, Any]) -> None:
        action, path = event["action"], str(event["path"]).strip("/")
        if action == "rename":
            source = str(event.get("source_path") or "").strip("/")
            if not source or source == path:
                return
            async with self._moving:
                await self._store.follow(source, path)
            self._missing.clear()
            # A page moves its own row in a moment; a kernel without a page has no one else to do it.
            await move_rows(self._parts, source, path)
            self._on_moved()
        elif action == "delete":
            async with self._moving:
                await self._store.forget(path)
            self._on_moved()
        elif action == "copy":
            await self._follow_copy(str(event.get("source_path") or "").strip("/"), path)
        elif path.endswith(".ipynb"):
            self._missing.clear()
            links = self._store.links_now(path, None)  # not awaited: a session must not be found in between
            mark = await self._mark(path) if links else None
            if mark is not None:
                for link in links:
                    if mark.id is None:  # it may be another one, of which this is a copy
                        await self.is_elsewhere(link, path)
                await self._store.saved(path, mark)

    async def _follow_copy(self, source: str, path: str) -> None:
        """Of the two that carry an id now, the one that was copied is the session's notebook."""
        async with self._moving:
            await self._store.forget(path)  # a notebook that was there before is gone
        original, made = await self._mark(source), await self._mark(path)
        if made is None or made.id is None:
            return
        link = await self._store.link(made.id)
        is_original = link is not None and original is not None and original.id == made.id
        if link is not None and is_original and link.path != source and not await self.is_elsewhere(link, source):
            await self.relocate(link.session_id, source)
        await self._remove_id(path, made)

    # --- verifying ------------------------------------------------------------------------------------------------

    async def located_often(self, session: Session) -> str | None:
        """As :meth:`located`, for what asks again and again: a search that found nothing is not repeated at once."""
        if time.monotonic() < self._missing.get(session.id, 0.0):
            raise NotebookNotFound("The notebook of this conversation was not found a moment ago.", field="path")
        try:
            return await self.located(session)
        except NotebookNotFound:
            self._missing[session.id] = time.monotonic() + SEARCH_AGAIN
            raise

    async def located(self, session: Session) -> str | None:
        """The path of the session's notebook, verified; None: it has none. Raises NotebookNotFound, with what to do."""
        await self.settled()
        link = await self._store.link(session.id)
        if link is None:
            return session.notebook_path
        if link.path is None:
            return None
        path = self._relative(link.path)
        mark = await self._mark(path)
        if mark is None and not link.fingerprint and link.state != "linked":
            return path  # it was bound before there was a file, and there is none yet
        if mark is not None and is_same(link, mark) and not self._is_claimed(link, path, mark):
            return path
        found = await self._search(link, path)
        if found is None and mark is not None and mark.id is None and link.shares_cell(mark):
            return path  # an older version without the id was put back
        if found is None:
            raise NotebookNotFound(
                f"The notebook of this conversation is not at {path} any more"
                f"{'' if mark is None else ', where another notebook is'}. If it was moved, open it and ask in it;"
                " %navi session use links another notebook to this conversation.",
                field="path",
            )
        await self.relocate(session.id, found)
        return found

    async def is_elsewhere(self, link: NotebookLink, path: str | None) -> bool:
        """Whether the link's notebook is alive at another path than this one: at its own, or wherever it was moved."""
        if link.path is None:
            return False
        if link.path != path:
            mark = await self._mark(link.path)
            return mark is not None and is_recognized(link, mark)
        found = await self._search(link, link.path) if link.state == "linked" else None
        if found is not None:
            await self.relocate(link.session_id, found)
        return found is not None

    async def relocate(self, session_id: str, path: str) -> None:
        """The session's notebook was found at another path: what is stored of it, and what watches it, follows."""
        log.info("notebook_moved", session_id=session_id, path=path)
        async with self._moving:
            await self._store.relocate(session_id, path)
        self._on_moved()

    async def owner_of(self, session: Session) -> NotebookOwner | None:
        """Verifies that a notebook which is about to be changed is the session's; None: it has none."""
        link = await self._store.link(session.id)
        return None if link is None or link.path is None else NotebookOwner(link)

    def _relative(self, path: str) -> str:
        """Kernels of earlier versions knew their notebook by its absolute path."""
        for root in {Path(self._parts.root_dir), *([Path(self._tree.root)] if self._tree else [])}:
            if Path(path).is_absolute() and Path(path).is_relative_to(root):
                return Path(path).relative_to(root).as_posix()
        return path

    async def _search(self, link: NotebookLink, path: str) -> str | None:
        """Where the notebook is, if it is not at its path: by the id, or while that is pending by its cells."""
        if self._tree is None:
            return None
        tree = self._tree
        async with self._searches.setdefault(link.session_id, asyncio.Lock()):
            return await asyncio.to_thread(lambda: search(tree, link, path, self._is_claimed))

    def _is_claimed(self, link: NotebookLink, path: str, mark: NotebookMark) -> bool:
        """Whether a notebook is a copy that has a session of its own, whose id its page has not saved yet. Blocks."""
        return any(
            one.path == path and one.owner == link.owner and one.state == "pending" and one.shares_cell(mark)
            for one in self._store.links_now(path, None)
            if one.session_id != link.session_id and link.state != "earlier"
        )


class AnotherNotebook(Exception):
    """The notebook at the path is not the session's (any more)."""


class NotebookOwner:
    """Whose notebook it has to be, verified in the very step that changes it."""

    def __init__(self, link: NotebookLink) -> None:
        self._link = link
        self.path = link.path  # where it was last seen

    def is_named(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a notebook with this metadata needs no other check."""
        return id_of(metadata) == self._link.session_id

    def check(self, metadata: MutableMapping[str, Any], mark: NotebookMark) -> None:
        """Raises AnotherNotebook. A notebook without an id gets it in this step."""
        link = self._link
        if not is_recognized(link, mark):
            raise AnotherNotebook
        if link.state != "earlier":
            set_id(metadata, link.session_id)


def search(
    tree: Tree, link: NotebookLink, path: str, is_claimed: Callable[[NotebookLink, str, NotebookMark], bool]
) -> str | None:
    """The path of the link's notebook below the root, another than ``path``. Blocks, for a bounded time."""
    needles = [link.session_id.encode()]
    if link.state != "linked":
        needles += [mark.encode() for mark in link.fingerprint if not mark.startswith(("=", "-"))]
    carriers: list[tuple[int, float, str]] = []
    similar: list[str] = []
    for candidate, modified in _notebooks(tree, path):
        if candidate == path:
            continue
        try:
            raw = read_whole(tree, candidate)
            if not any(needle in raw for needle in needles):
                continue
            mark = mark_of(parse_notebook(raw, candidate).content)
        except (NotFound, FileRefused, InvalidRequest):
            continue
        if is_claimed(link, candidate, mark):
            continue
        if mark.id == link.session_id:
            carriers.append((-len(mark.cells.intersection(link.fingerprint)), modified, candidate))
        elif mark.id is None and is_same(link, mark):
            similar.append(candidate)
    if carriers:
        # Of copies the one with most of the cells that it had last; then the older one: a move keeps a file's time.
        return min(carriers)[2]
    return similar[0] if len(similar) == 1 else None  # of several that share cells each may be it


def _notebooks(tree: Tree, path: str) -> Iterator[tuple[str, float]]:
    """Notebooks below the root with their times, those of the folder of ``path`` first, at most once each."""
    deadline, left = time.monotonic() + SEARCH_SECONDS, SEARCHED_ENTRIES
    first = path.rpartition("/")[0]
    folders, seen = deque([first, ""]), set()
    while folders:
        folder = folders.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        inner, notebooks, count = _listed(tree, folder)
        left -= count
        if left < 0 or time.monotonic() > deadline:
            log.info("notebook_search_ended_early", path=path)
            return
        folders.extend(inner)
        yield from notebooks


def _listed(tree: Tree, folder: str) -> tuple[list[str], list[tuple[str, float]], int]:
    """The folders in a folder that are searched, its notebooks with their times, and how many entries it has."""
    folders: list[str] = []
    notebooks: list[tuple[str, float]] = []
    count = 0
    gone = suppress(NotFound, FileRefused, InvalidRequest, OSError)
    with gone, tree.folder(folder) as opened, os.scandir(opened) as entries:
        for entry in entries:
            count += 1
            place = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name in NOT_SEARCHED:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(place)
            elif entry.name.endswith(".ipynb") and entry.is_file(follow_symlinks=False):
                notebooks.append((place, entry.stat(follow_symlinks=False).st_mtime))
    return sorted(folders), sorted(notebooks), count
