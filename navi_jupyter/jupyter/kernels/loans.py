"""Kernels that waiting cells lend: while a cell waits for an answer, it executes what the runs of its session ask for.

In memory: a loan ends with its cell, with the kernel, or with this server. Not responsible for what is executed in a
kernel that is lent (``lent_kernel``), or for whether a run may execute code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from socket import gethostname

from ...errors import InvalidRequest, KernelBusy
from ...log_setup import get_logger
from .jupyter_services import JupyterServices
from .lent_kernel import POLL, Frame, LentKernel, LoanSocket
from .local_process import LocalProcess
from .transport import is_alive, process_of

log = get_logger("kernels")

_POLL_REMOTE = 1.5  # seconds between polls of a remote kernel, which is asked over HTTP
_MOST_OUTSIDE = 1000  # sessions whose kernels of other programs are remembered
LENT = "a cell of the user's waits for the answer; what is executed shows its outputs there"
OUTSIDE = (
    "The kernel of this conversation runs outside of this server: it can be used while a cell of it waits in %navi."
)


class KernelLoans:
    """The loans of this server's sessions."""

    def __init__(
        self,
        parts: JupyterServices | None,
        on_code: Callable[[str], object] = lambda _: None,
        lease_path: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``on_code``: called with a kernel's id before code of an agent is executed in a cell of it that waits.
        ``lease_path``: the file by which the kernel sees until when this server may act."""
        self._parts = parts
        self._on_code = on_code
        self._lease_path = lease_path
        self._loans: dict[str, LentKernel] = {}  # by id, the oldest first
        self._outside: dict[str, LocalProcess] = {}
        """By session, the process of the kernel that was lent to it last, if another program has started that."""

    def open(
        self, frame: Frame, socket: LoanSocket, *, kernel_id: str, session_id: str, key: str | None = None
    ) -> LentKernel:
        """A new loan, or the one that ``frame`` (``lend``) names, whose kernel has come back. On the event loop.

        ``key``: by which the cell is known that lends it (``server.kernel_scope``).
        Raises InvalidRequest for a frame that breaks the protocol.
        """
        loan_id, language, held = frame.get("loan_id"), frame.get("language"), frame.get("unacknowledged")
        if frame.get("type") != "lend" or not isinstance(loan_id, str) or not 0 < len(loan_id) <= 128:
            raise InvalidRequest("The first frame is a lend with its loan_id.", field="type")
        loan = self._loans.get(loan_id)
        if loan is not None and (loan.kernel_id, loan.session_id) != (kernel_id, session_id):
            raise InvalidRequest("There is another loan with this id.", field="loan_id")
        if loan is None:
            pid, here = frame.get("pid"), frame.get("host") == gethostname()
            process = LocalProcess(pid) if here and isinstance(pid, int) and pid > 0 else None
            lives, poll = self._liveness(kernel_id, process)
            loan = self._loans[loan_id] = LentKernel(
                id=loan_id,
                kernel_id=kernel_id,
                session_id=session_id,
                lease_path=self._lease_path,
                language=language if isinstance(language, str) else "python",
                outside=not self._manages(kernel_id),
                lives=lives,
                on_end=lambda ended: self._loans.pop(ended.id, None),
                on_code=lambda lent: self._on_code(lent.kernel_id),
                pid=None if process is None else pid,
                key=key,
                poll=poll,
            )
            self._note_outside(session_id, kernel_id, process)
            log.info("kernel_lent", kernel_id=kernel_id, session_id=session_id)
        loan.attach(socket, [str(one) for one in held] if isinstance(held, list) else ())
        return loan

    def _note_outside(self, session_id: str, kernel_id: str, process: LocalProcess | None) -> None:
        self._outside.pop(session_id, None)
        if process is not None and not self._manages(kernel_id):
            self._outside[session_id] = process
            while len(self._outside) > _MOST_OUTSIDE:
                del self._outside[next(iter(self._outside))]

    def of(self, session_id: str) -> LentKernel | None:
        """The loan to a session. Of several the first: that cell's run is the one in progress, the others wait."""
        return _first_attached([loan for loan in self._loans.values() if loan.session_id == session_id])

    def at(self, session_id: str, kernel_id: str | None) -> LentKernel | None:
        """The loan of that very kernel to a session."""
        wanted = (session_id, kernel_id)
        return _first_attached([loan for loan in self._loans.values() if (loan.session_id, loan.kernel_id) == wanted])

    def of_kernel(self, kernel_id: str, session_id: str) -> LentKernel | None:
        """The same; None where the kernel is not lent. Raises KernelBusy when it is lent to another session alone."""
        loan = self.at(session_id, kernel_id)
        if loan is None and self.lent(kernel_id):
            raise KernelBusy(
                "A cell of this kernel waits for Navi's answer in another session, and lends the kernel to that alone. "
                "Nothing was run or interrupted. Try again when it has its answer."
            )
        return loan

    def lent(self, kernel_id: str) -> bool:
        """Whether a cell of the kernel waits, of any session."""
        return any(loan.kernel_id == kernel_id for loan in self._loans.values())

    def executes(self, kernel_id: str) -> bool:
        """Whether a run's code is executed there now by a cell that waits."""
        return any(loan.kernel_id == kernel_id and loan.executes for loan in self._loans.values())

    def by(self, pids: Collection[int]) -> Sequence[LentKernel]:
        """The loans of these processes."""
        return [loan for loan in self._loans.values() if loan.pid in pids]

    def close(self) -> None:
        """End all loans: the server stops."""
        for loan in list(self._loans.values()):
            loan.end_loan("closed")

    def lent_from_outside(self, session_id: str) -> bool:
        """Whether the kernel that was lent to a session last lives, and was started by another program."""
        process = self._outside.get(session_id)
        if process is not None and not process.lives():
            del self._outside[session_id]
        return session_id in self._outside

    def _manages(self, kernel_id: str) -> bool:
        return self._parts is not None and kernel_id in self._parts.kernel_manager

    def _liveness(
        self, kernel_id: str, local: LocalProcess | None
    ) -> tuple[Callable[[], Awaitable[bool]] | None, float]:
        """How to find out whether the process that lends now is still there, and how often."""
        if self._parts is None or not self._manages(kernel_id):
            return None if local is None else local.lives_async, POLL
        kernels = self._parts.kernel_manager
        manager = kernels.get_kernel(kernel_id)
        process = process_of(manager)

        async def lives() -> bool:
            return kernel_id in kernels and process_of(manager) == process and await is_alive(manager)

        return lives, POLL if process is not None else _POLL_REMOTE


def _first_attached(loans: Sequence[LentKernel]) -> LentKernel | None:
    """The first whose socket is open, else the first."""
    return next((loan for loan in loans if loan.attached), loans[0] if loans else None)
