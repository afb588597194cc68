"""What the kernels' token may do: everything that is harmless always, the rest in a cell of the user's.

All code in a kernel knows the token, the agent's too: it runs in the same process. So while an agent works, and once
code of one has run in a kernel, which may have left programs behind, a request with the token that could widen what
agents may do has to come from a cell of the user's (:class:`~navi_jupyter.jupyter.kernels.user_cells.UserCells`). Which
requests these are is declared with each operation (``rest``) and for commands below. Not responsible for who has the
token (``identity``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..agent.mcp import process_guard
from ..commands import Command, Prompt, Stop, Unqueue
from ..errors import KernelTokenScope
from ..jupyter.kernels.local_process import has_connection, lineage, runs_script, started_by_kernel_of
from ..jupyter.kernels.transport import process_of
from ..log_setup import get_logger
from ..model.agent_options import NOTHING_CHOSEN, AgentChoice
from ..model.sessions import SessionCreate

if TYPE_CHECKING:
    from ..jupyter.kernels.jupyter_services import JupyterServices
    from ..jupyter.kernels.loans import KernelLoans
    from ..jupyter.kernels.user_cells import UserCells
    from .kernel_caller import KernelCaller

log = get_logger("server")

REFUSAL = (
    "A kernel does this only for a cell of yours that runs now, because code of an agent works, or has worked, in a "
    "kernel, and knows the kernels' token, too. Do it in the chat, or in a cell of your own."
)


def needs_cell(command: Command) -> bool:
    """Whether a kernel sends this command only for a cell of the user's: all but those that are named here.

    A prompt asks in the user's name and widens nothing, unless it names another model, offers tools, or takes an
    earlier turn out of what the model reads.
    """
    match command:
        case Prompt():
            return command.model is not None or command.replaces is not None or bool(command.tools)
        case Stop() | Unqueue():
            return False
        case _:
            return True


def widens(
    asked: SessionCreate,
    *,
    profile: str,
    model: str,
    allowed: Collection[str] = (),
    context: Mapping[str, bool] = MappingProxyType({}),
    agent_options: AgentChoice = NOTHING_CHOSEN,
) -> bool:
    """Whether a new session, or a change of one, lets its agent do more than what holds now, or be another one."""
    return (
        asked.profile not in (None, profile)
        or asked.model not in (None, model)
        or not set(asked.allowed_tools or ()) <= set(allowed)
        # A mode of an agent program may be one in which it asks nothing.
        or (asked.agent_options or agent_options) != agent_options
        or any(on and not context.get(name) for name, on in (asked.context or {}).items())
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelProof:
    """What a user's server knows of a request of one of its kernels."""

    touched: bool  # whether code of an agent has run in a kernel there
    cell: bool  # whether the request comes from a cell of the user's


class KernelScope:
    """Decides whether a request with the kernels' token comes from a cell of the user's."""

    def __init__(
        self,
        jupyter: JupyterServices | None,
        cells: UserCells | None,
        loans: KernelLoans,
        at_work: Callable[[str], Awaitable[bool]],
        ask_server: Callable[[str, KernelCaller], Awaitable[KernelProof | None]] | None = None,
    ) -> None:
        """``at_work``: whether a run of this user's is in progress, or waits for an answer. ``ask_server``: asks the
        server of a user, where kernels are not this server's own; None: it is not linked."""
        self._jupyter, self._cells, self._loans = jupyter, cells, loans
        self._at_work = at_work
        self._ask_server = ask_server

    async def require_cell(self, caller: KernelCaller, *, owner: str) -> None:
        """Raises KernelTokenScope unless no agent is there, or the request comes from a cell of the user's."""
        if self._jupyter is None:
            # A kernel of a user's own server on a JupyterHub. All code there has that server's token, and can leave out
            # that it is a kernel: only what says so itself is refused.
            proof = None if self._ask_server is None else await self._ask_server(owner, caller)
        else:
            proof = None
        touched = self.touched if proof is None else proof.touched
        if not touched and not await self._at_work(owner):
            return
        proven = await self.proves(caller) if proof is None else proof.cell
        if not proven:
            log.warning("kernel_request_refused", kernel_id=caller.kernel_id, cell=caller.request_id)
            raise KernelTokenScope(REFUSAL)

    @property
    def touched(self) -> bool:
        """Whether code of an agent has run in a kernel of this server."""
        return self._cells is not None and self._cells.touched

    async def proves(self, caller: KernelCaller) -> bool:
        """Whether the request comes from a cell of the user's, as far as this server sees."""
        if self._manages(caller.kernel_id):
            return await self._runs_cell(caller)
        if self._jupyter is None:
            return not self._loans.executes(caller.kernel_id)
        return await asyncio.to_thread(self._is_other_program, caller)

    async def note_cell(self, caller: KernelCaller) -> None:
        """A cell begins to wait, and lends its kernel: keep the key by which it is known from then on."""
        if self._cells is not None and self._manages(caller.kernel_id) and caller.request_id and caller.key:
            await self._cells.keep_key(caller.kernel_id, caller.request_id, caller.key)

    def _manages(self, kernel_id: str) -> bool:
        return self._jupyter is not None and kernel_id in self._jupyter.kernel_manager

    async def _runs_cell(self, caller: KernelCaller) -> bool:
        if self._cells is None or self._loans.executes(caller.kernel_id):
            return False
        proven = await self._cells.run(caller.kernel_id, caller.request_id, caller.key)
        return proven and not self._loans.executes(caller.kernel_id)

    def _is_other_program(self, caller: KernelCaller) -> bool:
        """Whether the request comes from a program that neither a kernel nor an MCP connection of this server has
        started, and no agent works in.

        Of kernels that others have started no executions are seen, so this is weaker than a cell. For a thread.
        """
        pid = caller.peer_pid
        if pid is None and caller.pid is not None and caller.peer_port is not None:
            pid = caller.pid if has_connection(caller.pid, caller.peer_port) else None
        if pid is None or self._jupyter is None or started_by_kernel_of(pid, os.getpid()):
            return False
        pids, kernels = lineage(pid), self._jupyter.kernel_manager
        own = {process_of(kernels.get_kernel(each)) for each in list(kernels.list_kernel_ids())}
        # An MCP server runs as the user, and so can read the token. Its guard adopts whatever it leaves behind.
        if own & set(pids) or runs_script(pids, process_guard.__file__):
            return False
        return all(
            not loan.executes
            and (not loan.shared or (loan.key is not None and compare_digest(loan.key, caller.key or "")))
            for loan in self._loans.by(pids)
        )
