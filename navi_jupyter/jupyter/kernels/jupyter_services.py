"""Jupyter's own managers, as this package uses them. Imported when the extension loads: nothing heavy here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


@dataclass(frozen=True, kw_only=True, slots=True)
class JupyterServices:
    """Jupyter's managers, as they are configured here: local or of a gateway, of files or of something else."""

    kernel_manager: Any  # an `AsyncMappingKernelManager`
    session_manager: Any
    contents_manager: Any
    root_dir: str  # the server's root as an absolute path of the file system
    settings: Mapping[str, Any] = field(default_factory=dict)  # the web application's; other extensions add to it

    @classmethod
    def of(cls, serverapp: ServerApp) -> JupyterServices:
        return cls(
            kernel_manager=serverapp.kernel_manager,
            session_manager=serverapp.session_manager,
            contents_manager=serverapp.contents_manager,
            root_dir=str(serverapp.root_dir),
            settings=serverapp.web_app.settings,
        )


class _NoKernels:
    """A kernel manager without kernels."""

    connection_dir = ""

    def __contains__(self, kernel_id: object) -> bool:
        return False


class _NoSessions:
    """A session manager that starts no kernel."""

    async def list_sessions(self) -> list[Mapping[str, Any]]:
        return []

    async def create_session(self, **_: object) -> Mapping[str, Any]:
        raise RuntimeError("none can be started here. A cell that asks lends its own while it waits for the answer.")


LENT_KERNELS = JupyterServices(
    kernel_manager=_NoKernels(), session_manager=_NoSessions(), contents_manager=None, root_dir=""
)
"""Where there is no Jupyter server's kernel: only those that waiting cells lend."""
