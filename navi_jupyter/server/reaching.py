"""Builds what reaches people: unread marks, notifications, and the address that their links lead to."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from jupyter_core.paths import jupyter_config_path

from ..clock import SystemClock
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..model.sessions import OriginKind, Run
from ..notifications.apprise_sender import AppriseSender, why_unusable
from ..notifications.service import NotificationService
from ..notifications.targets import TargetFiles
from ..store.notices import SqliteNotices
from ..store.read_marks import Marked, ReadMarks
from ..store.sqlite import SqliteStore

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from ..orchestrator.orchestrator import Orchestrator

_WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104  compared with, not bound to

UserRead = Callable[[str, datetime], Awaitable[object]]
"""Told that the user has seen a session: (session, when)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reaching:
    """What tells people that something came while they were away."""

    marks: ReadMarks
    notify: NotificationService
    user_read: UserRead

    @classmethod
    def of(
        cls, store: SqliteStore, parts: JupyterServices | None, *, allow_private: bool, user_read: UserRead
    ) -> Reaching:
        """Nothing is started yet."""

        def check(url: str) -> str | None:
            return why_unusable(url, allow_private=allow_private)

        serverapp = parts.settings.get("serverapp") if parts else None
        notify = NotificationService(
            store,
            SqliteNotices(store),
            TargetFiles(jupyter_config_path, check=check),
            AppriseSender(allow_private=allow_private),
            clock=SystemClock(),
            base_url=lambda: None if serverapp is None else server_address(serverapp),
        )
        return cls(marks=ReadMarks(store), notify=notify, user_read=user_read)

    async def read(self, session_id: str, *, owner: str, seq: int, at: datetime) -> Marked:
        """The user has seen a session's log up to ``seq``. Raises SessionNotFound."""
        marked = await self.marks.mark(session_id, owner=owner, seq=seq, at=at)
        await self.user_read(session_id, at)
        return marked

    def on_run_ended(self, orchestrator: Orchestrator) -> Callable[[Run], Awaitable[None]]:
        """For the orchestrator's listeners, after the scheduler's, which settles the firing."""

        async def run_ended(run: Run) -> None:
            if run.origin.kind is OriginKind.USER and run.session_id not in orchestrator.log.followed():
                await self.marks.nobody_there(run)
            self.notify.wake()

        return run_ended


def server_address(serverapp: ServerApp) -> str | None:
    """Where users reach this server, with its path and without its token; None when only it can know.

    What the administrator says first (``custom_display_url``, JupyterHub's public addresses), then what it binds to.
    """
    own = os.environ.get("JUPYTERHUB_PUBLIC_URL", "")
    hub = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "")
    base = str(serverapp.base_url)
    if serverapp.custom_display_url:
        return _with_path(str(serverapp.custom_display_url), base)
    if own:
        return _with_path(own, base)
    if hub:
        return _with_path(hub, base, replace=True)
    url = str(serverapp.connection_url)
    parts = urlsplit(url)
    reachable = parts.scheme in ("http", "https") and (parts.hostname or "") not in _WILDCARDS
    return url if reachable else None


def _with_path(url: str, base: str, *, replace: bool = False) -> str:
    """An address with nothing but its path, without who; with ``base`` where it has none, or another one's."""
    parts = urlsplit(url)
    path = base if replace or parts.path in ("", "/") else parts.path
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
