"""Which session a notebook belongs to: the id that it carries, the marks of its cells, and the rules that decide.

A notebook is not its path. It carries the id of its session in ``metadata.navi.session_id``; until it is saved with
it, the link is *pending* and the notebook is known by its cells. Pure: no disk, no shared document, no database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...ports.jupyter import NotebookLink, NotebookMark
from ...text import joined
from .cells import minor_of

MAX_FINGERPRINT = 800  # marks that are stored of one notebook: those of its first cells

How = Literal["found", "moved", "copied", "created"]


def id_of(metadata: Mapping[str, Any] | None) -> str | None:
    """The id of the session in a notebook's metadata; None when it carries none."""
    ours = metadata.get("navi") if isinstance(metadata, Mapping) else None
    found = ours.get("session_id") if isinstance(ours, Mapping) else None
    return found if isinstance(found, str) and found else None


def set_id(metadata: MutableMapping[str, Any], session_id: str | None) -> bool:
    """Write the id into a notebook's metadata (None: remove it), keeping what else is there. Whether it changed."""
    if id_of(metadata) == session_id:
        return False
    known = metadata.get("navi")
    ours = {name: value for name, value in known.items() if name != "session_id"} if isinstance(known, Mapping) else {}
    if session_id is not None:
        ours["session_id"] = session_id
    if ours:
        metadata["navi"] = ours  # assigned as a whole: a shared document notices nothing less
    else:
        metadata.pop("navi", None)
    return True


def mark_of(content: Mapping[str, Any]) -> NotebookMark:
    """The marks of a notebook as nbformat 4 has it, before ids are given to cells that have none."""
    cells = _cells(content)
    ids = [cell["id"] for cell in cells if isinstance(cell.get("id"), str)]
    sources = [hashed for cell in cells if (hashed := source_mark(joined(cell.get("source"))))]
    # Before nbformat 4.5 cells have no ids; those that a front end gives them live no longer than its page.
    lasting = [mark for cell in cells for mark in _marks(cell)] if _has_ids(content) else sources
    return NotebookMark(
        id=id_of(content.get("metadata")),
        cells=frozenset((*ids, *sources, *lasting)),
        fingerprint=tuple(dict.fromkeys(lasting))[:MAX_FINGERPRINT],
    )


def _has_ids(content: Mapping[str, Any]) -> bool:
    return minor_of(content) >= 5 and any(cell.get("id") for cell in _cells(content))


def _cells(content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    cells = content.get("cells")
    return [cell for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, Sequence) else ()


def _marks(cell: Mapping[str, Any]) -> Sequence[str]:
    """Its id, and its id with a hash of its source."""
    cell_id, source = cell.get("id"), source_mark(joined(cell.get("source")))
    return (*((cell_id,) if isinstance(cell_id, str) else ()), *((f"{cell_id}{source}",) if source else ()))


def source_mark(source: str) -> str:
    """The mark of a cell's source, a hash; empty for a blank cell, which every new notebook has."""
    text = source.strip()
    return "=" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] if text else ""


def is_same(link: NotebookLink, notebook: NotebookMark) -> bool:
    """Whether this is the notebook that the link was made for: it carries the id, or, where it never did, a cell.

    A link that was made before there was a notebook is to the first one that appears.
    """
    if notebook.id == link.session_id:
        return True
    unseen = link.state == "pending" and not link.fingerprint and notebook.id is None
    return unseen or (link.state != "linked" and link.shares_cell(notebook))


def is_recognized(link: NotebookLink, notebook: NotebookMark) -> bool:
    """The same, or it carries no id and has a cell in common: an older version was put back, or the id was dropped."""
    return is_same(link, notebook) or (notebook.id is None and link.shares_cell(notebook))


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkDecision:
    """The session that a notebook belongs to, and what is to be changed for it."""

    how: How
    session_id: str | None = None  # None: a new session is to be made
    write: bool = False  # the notebook does not carry its id yet
    stale: tuple[str, ...] = ()  # sessions whose pending link to this path is void: they lose their path


def decide_link(
    *,
    path: str | None,
    kernel_id: str | None,
    notebook: NotebookMark | None,
    by_id: NotebookLink | None = None,
    by_kernel: Sequence[NotebookLink] = (),
    by_path: Sequence[NotebookLink] = (),
    elsewhere: Collection[str] = (),
) -> LinkDecision:
    """The session for a kernel and the notebook at a path.

    ``notebook``: what is at ``path``; None when there is no such file, or no path. ``by_id``: the session that it
    names, if it is this owner's. ``by_kernel``, ``by_path``: the owner's sessions that are bound to this kernel and
    those with this path, the newest first. ``elsewhere``: those of all these whose notebook is alive at another path
    than ``path`` (it is there, and :func:`is_same`).
    """
    if path is None:
        return _of_kernel(by_kernel)
    if notebook is None:  # not saved yet, or not here: only the kernel, or a link that never saw it, names its session
        unseen = [link for link in by_path if link.state == "pending" and not link.fingerprint]
        mine = next((link for link in (*by_kernel, *unseen) if _may_be_found(link, elsewhere)), None)
        return LinkDecision(how="created") if mine is None else _known(mine, path, write=True)
    pending = [link for link in by_path if link.state == "pending" and link.path == path]
    # A pending link is newer than what the file carries: an open page has not saved since.
    for link in pending:
        unmarked = not notebook.cells and kernel_id is not None and link.kernel_id == kernel_id
        if unmarked or is_same(link, notebook):
            return _known(link, path, write=notebook.id != link.session_id, stale=_others(pending, link))
    stale = _others(pending, None)
    if notebook.id is not None and by_id is not None:
        if by_id.path != path and by_id.session_id in elsewhere:
            return LinkDecision(how="copied", write=True, stale=stale)
        return _known(by_id, path, write=False, stale=stale)
    # It carried this id and does not any more: an older version was put back, another user has written theirs over it
    # (the id is then none of this owner's), or it was saved by a program that drops it.
    for link in (*by_path, *by_kernel):
        if _may_be_found(link, elsewhere) and link.shares_cell(notebook):
            return _known(link, path, write=True, stale=stale)
    # A kernel that had no notebook until now. (A session whose link was ended has lost its kernel, too.)
    console = next((link for link in by_kernel if link.path is None), None)
    if console is not None and notebook.id is None:
        return _known(console, path, write=True, stale=stale)
    return LinkDecision(how="created", write=True, stale=stale)


def id_to_save(
    path: str,
    notebook: NotebookMark,
    links: Sequence[NotebookLink],
    *,
    is_alive: Callable[[NotebookLink], bool],
    is_there: Callable[[NotebookLink], bool] = lambda _: True,
) -> str | None:
    """The id with which a notebook is to be saved that a page has open; the page may not know its session yet.

    ``links``: the sessions at the path and the one that the notebook names, of all users, the newest first.
    ``is_alive``: whether a link's notebook is at that link's own path; ``is_there``: whether it may be the file that
    is overwritten (and was not just renamed).
    """
    named = next((link for link in links if link.session_id == notebook.id), None)
    here = [link for link in links if link.path == path and link.state != "earlier"]
    owned = [link for link in here if named is None or named not in here or link.owner == named.owner]
    for link in owned:
        if link.state == "pending" and is_same(link, notebook):
            return link.session_id
    if named in here:
        return notebook.id
    # Its session is an earlier one, is at another notebook, or was ended; or it names none, or one that is not here.
    mine = next((link.session_id for link in here if link.shares_cell(notebook) and is_there(link)), None)
    if mine is not None or named is None:
        return mine or notebook.id
    ended = named.path is None and named.state != "linked"
    is_copy = named.path not in (None, path) and is_alive(named)
    return None if ended or is_copy else notebook.id


def _may_be_found(link: NotebookLink, elsewhere: Collection[str]) -> bool:
    return link.state != "earlier" and link.session_id not in elsewhere


def _known(link: NotebookLink, path: str, *, write: bool, stale: tuple[str, ...] = ()) -> LinkDecision:
    how: How = "found" if link.path in (path, None) else "moved"
    return LinkDecision(how=how, session_id=link.session_id, write=write, stale=stale)


def _others(pending: Sequence[NotebookLink], kept: NotebookLink | None) -> tuple[str, ...]:
    return tuple(link.session_id for link in pending if link is not kept)


def _of_kernel(by_kernel: Sequence[NotebookLink]) -> LinkDecision:
    """A console or a plain kernel has no notebook: the newest session of that very kernel."""
    mine = next((link for link in by_kernel if link.path is None), None)
    return LinkDecision(how="created" if mine is None else "found", session_id=mine.session_id if mine else None)
