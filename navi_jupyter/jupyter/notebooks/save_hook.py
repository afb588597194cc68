"""The hook by which each save of a notebook carries the id of its session, and no transcript where none is to be saved.

A page of JupyterLab that has a notebook open saves the metadata that it knows: without the id, if the session was
bound since, and with that of the original, if the notebook is a copy. Nothing is written behind the page's back.
Not responsible for notebooks that are saved past the contents manager: those are found by the rules of ``identity``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...errors import NaviError
from ...log_setup import get_logger
from ...ports.jupyter import NotebookLink, NotebookMark
from .identity import id_of, id_to_save, mark_of, set_id

log = get_logger("notebooks")


class IdSaveHook:
    """Registered with a contents manager. Called on the event loop, so what it looks up must be quick."""

    def __init__(
        self,
        manager: Any,
        links: Callable[[str, str | None], Sequence[NotebookLink]],
        mark: Callable[[str], NotebookMark | None],
        saved: Callable[[str, str], Awaitable[None]],
        *,
        save_transcripts: bool = True,
    ) -> None:
        self._manager = manager
        self._links = links  # the sessions at a path and the one with an id, of all users, the newest first
        self._mark = mark  # of the notebook at a path. Raises LookupError where it cannot be known at once
        self._saved = saved  # awaited when a notebook was saved with an id for the first time: (session, path)
        self._save_transcripts = save_transcripts  # else what Navi answered is left out of what is saved
        self._first: dict[str, str] = {}  # the ids with which notebooks are being saved for the first time, by path
        self._tasks: set[asyncio.Task[None]] = set()

    def install(self) -> None:
        """Begin; does nothing for a contents manager without such hooks."""
        if hasattr(self._manager, "register_pre_save_hook"):
            self._manager.register_pre_save_hook(self.on_save)
            self._manager.register_post_save_hook(self.on_saved)

    def remove(self) -> None:
        """End."""
        for name, ours in (("_pre_save_hooks", self.on_save), ("_post_save_hooks", self.on_saved)):
            hooks = getattr(self._manager, name, [])
            if ours in hooks:
                hooks.remove(ours)

    def on_save(self, model: dict[str, Any], path: str, **_: Any) -> None:
        """Correct the id in what is about to be saved. Never raises: whatever happens here, the save goes on."""
        try:
            content = model.get("content")
            if model.get("type") == "notebook" and isinstance(content, dict) and content.get("nbformat") == 4:
                if not self._save_transcripts:
                    remove_transcripts(content)
                self._correct(content, path)
        except Exception:  # see above
            log.exception("id_not_saved", path=path)

    def on_saved(self, model: dict[str, Any], **_: Any) -> None:
        """The save is done: the link is no longer pending."""
        session_id = self._first.pop(path := str(model.get("path") or "").strip("/"), None)
        if session_id is not None:
            task = asyncio.get_running_loop().create_task(self._note(session_id, path), name="navi-notebook-saved")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _note(self, session_id: str, path: str) -> None:
        try:
            await self._saved(session_id, path)
        except NaviError as error:  # it is seen when the notebook asks next
            log.warning("link_not_stored", session_id=session_id, path=path, error=error.message)

    def _correct(self, content: dict[str, Any], path: str) -> None:
        carried = id_of(content.get("metadata"))
        links = self._links(path, carried)
        if links:
            wanted = id_to_save(path, mark_of(content), links, is_alive=self._is_alive, is_there=self._is_there)
            if set_id(content.setdefault("metadata", {}), wanted):
                log.info("id_corrected", path=path, session_id=wanted)
            self._first.pop(path, None)
            if wanted is not None and any(one.session_id == wanted and one.state == "pending" for one in links):
                self._first[path] = wanted

    def _is_there(self, link: NotebookLink) -> bool:
        """Whether the file at the link's path is its notebook, with the id or without."""
        try:
            mark = None if link.path is None else self._mark(link.path)
        except LookupError:
            return True
        return mark is not None and (mark.id == link.session_id or (mark.id is None and link.shares_cell(mark)))

    def _is_alive(self, link: NotebookLink) -> bool:
        """Whether the link's notebook is at its own path and carries the id."""
        try:
            mark = None if link.path is None else self._mark(link.path)
        except LookupError:
            return False
        return mark is not None and mark.id == link.session_id


NOT_SAVED = "(Navi's words are not saved in this notebook: the setting save_transcripts is off.)"
_WIDGETS = "application/vnd.jupyter.widget-state+json"


def remove_transcripts(content: dict[str, Any]) -> None:
    """Take what Navi answered out of a notebook that is about to be saved: its cells' outputs, and chats' transcripts.

    The kernel's side marks such outputs (``metadata.navi.transcript``). What names a session stays, so that the lab
    extension draws it from the server.
    """
    for cell in content.get("cells") or ():
        for output in cell.get("outputs") or ():
            about = (output.get("metadata") or {}).get("navi")
            if isinstance(about, dict) and about.get("transcript"):
                kept = {kind: value for kind, value in output.get("data", {}).items() if kind.startswith(_KEPT)}
                output["data"] = {**kept, "text/plain": NOT_SAVED}
    widgets = ((content.get("metadata") or {}).get("widgets") or {}).get(_WIDGETS) or {}
    for model in (widgets.get("state") or {}).values():
        state = model.get("state") or {}
        if "snapshot" in state and "session_id" in state:
            state["snapshot"] = ""


_KEPT = ("application/vnd.navi.", "application/vnd.jupyter.widget-view")


def is_ours(hook: object) -> bool:
    """Whether a contents manager's hook is this one."""
    return isinstance(getattr(hook, "__self__", None), IdSaveHook)
