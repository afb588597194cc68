"""Builds the watcher of notebooks from what Jupyter lends; and lets pictures go along with what recalls ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.gateway.managers import GatewayMappingKernelManager

from ..commands import Acceptance, Command, Prompt
from ..errors import AttachmentNotFound
from ..jupyter.kernels.iopub import IopubReader
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..jupyter.kernels.observer import KernelObserver
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.recalls import When, WhenEvent
from ..model.sessions import Origin, Session
from ..orchestrator.servers import has_exited
from ..ports.agent import Attachments
from ..ports.jupyter import Kernels
from ..ports.recalls import Occurrences
from ..ports.store import Server
from ..triggers.watcher import Watcher

log = get_logger("watching")


def watcher_of(
    occurrences: Occurrences,
    parts: JupyterServices | None,
    *,
    session: Callable[[str], Awaitable[Session | None]],
    kernels: Kernels | None,
    iopub: IopubReader,
    attachments: Attachments,
    elsewhere: Callable[[bool], Awaitable[bool]] | None = None,
) -> Watcher:
    """Without ``parts`` there is nothing to watch, and recalls that wait for something wait on."""
    if parts is None:
        return Watcher(occurrences, session=session)
    return Watcher(
        occurrences,
        session=session,
        ears=KernelObserver(parts, iopub),
        kernels=kernels,
        attachments=attachments,
        root=Path(parts.root_dir),
        sources=NotebookCells(parts),
        elsewhere=elsewhere,
    )


def why_not_watched(parts: JupyterServices | None) -> Callable[[When], str | None]:
    """Why nothing of the kind can be noticed on this server, if so: a sentence for who wants to be woken by it."""
    if parts is None or not isinstance(parts.kernel_manager, GatewayMappingKernelManager):
        return lambda _: None

    def why(when: When) -> str | None:
        if when.event is WhenEvent.FILE_CHANGED:
            return None
        return (
            "the kernels of this server run behind a gateway, where nothing of what they do can be heard. Wait for a"
            " time (in 20m) or for a file that the cell writes (when changed result.csv)"
        )

    return why


class Elsewhere:
    """Other servers on the same database, which may have kernels that this one does not know."""

    def __init__(self, known: Callable[[], Awaitable[Sequence[Server]]], here: Server) -> None:
        self._known = known
        self._here = here

    async def __call__(self, address_known: bool) -> bool:
        """Whether a kernel may be theirs. ``address_known``: this machine's file of its address was read."""
        others = [one for one in await self._known() if one.id != self._here.id]
        return any(
            other.host != self._here.host or not address_known
            for other in others
            if not has_exited(other, here=self._here)
        )


class NotebookCells:
    """Implements ``ports.watching.CellSources`` on the notebooks that the server has."""

    def __init__(self, parts: JupyterServices) -> None:
        self._parts = parts

    async def source_of(self, session: Session, cell_id: str) -> str | None:
        """See the port."""
        if session.notebook_path is None:
            return None
        try:
            model = await ensure_async(
                self._parts.contents_manager.get(session.notebook_path, content=True, type="notebook")
            )
            cells: list[dict[str, Any]] = model["content"]["cells"]
        except Exception as error:  # noqa: BLE001 - any contents manager; without its word there is no such cell
            log.info("notebook_not_read", path=session.notebook_path, error=repr(error))
            return None
        found = next((cell for cell in cells if cell.get("id") == cell_id), None)
        return None if found is None else str(found.get("source", ""))


class SubmitWithPictures:
    """The scheduler's way to a session: what a prompt names by its id goes along."""

    def __init__(self, submit: Callable[..., Awaitable[Acceptance]], attachments: Attachments) -> None:
        self._submit = submit
        self._attachments = attachments

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
        """As the orchestrator's. Attachments that are gone are left out: the rest of what happened is still told."""
        if not isinstance(command, Prompt) or not command.images:
            return await self._submit(session_id, command, user_id=user_id, origin=origin)
        found: list[Attachment] = []
        for ref in command.images:
            try:
                found.append(await self._attachments.find(ref.id or "", owner=user_id))
            except AttachmentNotFound:
                log.warning("picture_gone", session_id=session_id, attachment_id=ref.id)
        kept = command.model_copy(update={"images": tuple(ref for ref in command.images if ref.id in _ids(found))})
        return await self._submit(session_id, kept, user_id=user_id, origin=origin, attachments=tuple(found))


def _ids(attachments: list[Attachment]) -> set[str]:
    return {attachment.id for attachment in attachments}
