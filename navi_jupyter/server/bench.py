"""Builds the workbench from what the Jupyter server lends, and closes it with the runtime."""

from __future__ import annotations

from ..agent.tools.kernel_functions import KernelTools
from ..jupyter.kernels.iopub import IopubReader
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..jupyter.kernels.service import KernelService
from ..jupyter.notebooks.service import NotebookService, files_of
from ..ports.jupyter import JupyterAccess


class Bench:
    """The workbench of one runtime. Opens nothing until it is used."""

    def __init__(self, parts: JupyterServices | None) -> None:
        self.iopub = IopubReader()
        """Shared by those who execute and those who observe."""
        self.kernels = (
            None
            if parts is None
            else KernelService(parts, self.iopub, on_lost=lambda *lost: self.kernel_tools.lost(*lost))
        )
        """None where there is no Jupyter server (a runtime by itself)."""
        self.notebooks = None if parts is None else NotebookService(parts, self.kernels)
        files = None if parts is None else files_of(parts)
        self.jupyter = JupyterAccess(kernels=self.kernels, notebooks=self.notebooks, files=files)

        kernels = self.kernels
        self.kernel_tools = KernelTools(
            process_of=kernels.process_of if kernels else lambda _: None,
            runs_ours=kernels.runs_ours if kernels else lambda _: False,
            known=kernels.knows if kernels else lambda _: False,
        )
        """Functions of the kernels' users: a source of tools."""

    async def close(self) -> None:
        """Let go of the kernels; they go on without us."""
        if self.notebooks is not None:
            await self.notebooks.close()
        if self.kernels is not None:
            await self.kernels.close()
