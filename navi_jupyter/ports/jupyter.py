"""The user's kernels and notebooks, as tools reach them: on the server, with every browser closed.

Implemented by ``jupyter``. Every method raises a NaviError that a model and a user can act on: KernelUnavailable
(none, dead, not responding), KernelBusy, NotebookNotFound, CellNotFound, NotebookConflict (changed by
another client meanwhile), FileRefused (outside the root, binary, too large), InvalidRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from ..model.notebooks import ShownNotebook
from ..model.sessions import Session

Output = Mapping[str, Any]  # an output as nbformat 4 has it: `stream`, `display_data`, `execute_result`, `error`
OnOutput = Callable[[Output], None]
"""Called with each output when it comes, within the bounds that hold for ``Execution.outputs``. Must not block.

Two more kinds say that something has changed: ``{"output_type":"clear_output"}``, all outputs so far are void; and
``{"output_type":"update_display_data","index":n,"data","metadata"}``, the output ``n`` (from zero, since the last
``clear_output``, each piece of a stream counted as one) shows this now.
"""

KernelStatus = Literal["none", "starting", "idle", "busy", "dead"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelState:
    """The kernel of a session's notebook."""

    status: KernelStatus
    kernel_id: str | None = None
    kernel_name: str | None = None
    language: str | None = None
    busy_with: str | None = None  # the source of the cell that runs, when it is known
    busy_for: float | None = None  # seconds
    note: str | None = None  # what else to know: that a cell that waits lends it, that it runs outside of this server


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """What became of code in a kernel."""

    status: Literal["ok", "error", "interrupted", "timed_out", "kernel_died"]
    outputs: Sequence[Output] = ()
    execution_count: int | None = None
    duration: float = 0.0  # seconds from the request to the kernel's reply
    error: Mapping[str, Any] | None = None  # `{"ename","evalue","traceback"}` when the status is `error`
    note: str | None = None  # what happened instead, where the status is `kernel_died` and that is not known


class Kernels(Protocol):
    """Kernels of this Jupyter server, and those that cells lend while they wait for an answer, wherever they run.

    The kernel of a session: that of a cell which waits for this session, else ``session.kernel_id``, else that of its
    notebook's Jupyter session. ``lent`` false: the waiting cell's only if it is also the one that ``session`` names.
    """

    async def state(self, session: Session) -> KernelState:
        """The state of the session's kernel; ``idle`` while its waiting cell executes nothing. Never starts one."""

    async def execute(
        self,
        session: Session,
        code: str,
        *,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        store_history: bool = True,
        start: bool = True,
        lent: bool = True,
    ) -> Execution:
        """Run code as a cell and wait. Starts a kernel for the notebook when there is none and ``start``.

        Cancelling interrupts the kernel (and only if it is our code that runs), waits up to two seconds for it to
        come back, and lets the cancellation through. Past ``timeout`` seconds the kernel is interrupted too.
        Raises KernelUnavailable, KernelBusy (another client's cell runs for longer than a few seconds).
        """

    async def evaluate(self, session: Session, code: str, *, timeout: float = 10.0, lent: bool = True) -> Any:
        """Run code silently (no history, no outputs in any view); the JSON value that it leaves in ``_navi_result``."""

    async def interrupt(self, session: Session) -> bool:
        """Interrupt what runs there, but never a cell that waits for an answer. False when there is no kernel."""

    async def restart(self, session: Session) -> KernelState:
        """Restart it; its variables are gone. Returns once it is ready. Raises KernelUnavailable."""

    async def variables(self, session: Session, *, pattern: str = "*", limit: int = 200) -> Mapping[str, Any]:
        """The user's variables: ``{"variables":[{"name","type","shape"?,"dtype"?,"size"?,"preview"}],"count"}``.

        ``size`` in bytes. Modules, functions, classes and names with an underscore are left out; ``pattern`` is a
        shell pattern. Raises KernelUnavailable (also when it is no Python kernel), KernelBusy.
        """

    async def inspect(self, session: Session, expression: str) -> Mapping[str, Any]:
        """All about a variable, or a part of it (``df["a"]``, ``config.name``): no calls, no operators.

        Raises InvalidRequest (not there, or not such an expression), KernelUnavailable, KernelBusy.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of a notebook."""

    id: str
    index: int  # from zero
    kind: Literal["code", "markdown", "raw"]
    source: str
    execution_count: int | None = None
    outputs: Sequence[Output] = ()
    unread: Sequence[str] = ()  # what of it breaks the notebook format and could not be read
    by_page: bool = False  # of a cell that was changed: a page that has the notebook open has done it, and saved


def kernel_name_of(metadata: object) -> str | None:
    """The name of the kernel that a notebook's metadata ask for."""
    spec = metadata.get("kernelspec") if isinstance(metadata, Mapping) else None
    name = spec.get("name") if isinstance(spec, Mapping) else spec  # a name alone: some tools write that
    return name if isinstance(name, str) and name else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Notebook:
    """A notebook as it is now: in the shared document when it is open with real-time collaboration, else on disk."""

    path: str
    live: bool  # it is a shared document: all its front ends see a change at once
    cells: Sequence[Cell] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unread: Sequence[str] = ()  # as of a cell
    modified: datetime | None = None  # when the file was written last; None where it is a shared document
    has_page: bool = (
        False  # whether a page has it open that is no client of a shared document: it may have unsaved cells
    )
    shown_at: datetime | None = None  # set when the cells are those that a page showed then, not those of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class NotebookMark:
    """What a notebook carries: the id of its session, and marks of its cells by which it is known before it has one."""

    id: str | None = None  # `metadata.navi.session_id`
    cells: frozenset[str] = frozenset()
    """The ids of its cells, a hash of each source that is not blank (``=`` before it), and both together."""
    fingerprint: tuple[str, ...] = ()  # those of `cells` that stay: to be stored with a link that is pending


NO_CELL: Final = ("-",)
"""The fingerprint of a notebook without cells: no cell is equal to it, so that it is known by its id and kernel alone.

No fingerprint at all means that there was no notebook yet: the first one that appears at the path is it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotebookLink:
    """Where a session's notebook was last seen. The notebook's own id decides, the path is a cache."""

    session_id: str
    owner: str
    path: str | None = None  # relative to the server's root; None: no notebook, or its link was ended
    kernel_id: str | None = None
    state: Literal["linked", "pending", "earlier"] = "pending"
    """``linked``: the notebook carries the id. ``pending``: not until it is saved. ``earlier``: it belongs to another
    session now; this one still works with it."""
    fingerprint: tuple[str, ...] = ()  # of the notebook when it was bound, see :class:`NotebookMark`

    def shares_cell(self, notebook: NotebookMark) -> bool:
        """Whether a cell that the notebook had when it was last seen is still there.

        One that has carried the id is known without it only by a cell with the same source: programs that make
        notebooks may number their cells, and the next one has the same ids. Where cells have no ids, more than half of
        the shorter one's sources are to be the same: many notebooks begin with the same imports.
        """
        known = {mark for mark in self.fingerprint if self.state != "linked" or "=" in mark}
        if notebook.fingerprint and _sources(notebook.fingerprint) == len(notebook.fingerprint):
            known |= {mark[mark.index("=") :] for mark in known if "=" in mark}  # when it was saved its cells had ids
        common = known & notebook.cells
        sources, known_sources, common_sources = map(_sources, (notebook.cells, known, common))
        return len(common) > common_sources or 2 * common_sources > min(sources, known_sources)


def _sources(marks: Collection[str]) -> int:
    """How many of the marks are those of sources alone."""
    return sum(mark.startswith("=") for mark in marks)


class LinkStore(Protocol):
    """Where the links of all sessions are stored, for what happens to notebooks. Implemented by ``orchestrator``."""

    async def link(self, session_id: str) -> NotebookLink | None:
        """None: there is no such session."""

    def links_now(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        """Those with this path and that of this session, the newest first. Blocks for a moment."""

    async def follow(self, source: str, target: str) -> None:
        """The file or folder was renamed: the paths of notebooks in it, and of files that recalls wait for."""

    async def relocate(self, session_id: str, path: str) -> None:
        """The session's notebook was found at this path: its path, and that of recalls that wait for that file."""

    async def forget(self, path: str) -> None:
        """The file or folder was deleted: a pending link ends, one to a notebook with an id is known by that alone."""

    async def saved(self, path: str, mark: NotebookMark) -> None:
        """The notebook at the path was saved like this: a link whose id it carries is no longer pending."""


class Notebooks(Protocol):
    """Notebooks under the server's root. ``path`` None: the session's own. ``cell``: an id, or an index as text."""

    async def read(self, session: Session, path: str | None = None, *, shown: ShownNotebook | None = None) -> Notebook:
        """As the user sees it: with what is not saved in a page that has it open. ``shown``: what a page showed before,
        which counts if none answers now, and the file was not saved since."""

    async def insert(
        self,
        session: Session,
        source: str,
        *,
        kind: str = "code",
        after: str | None = None,
        path: str | None = None,
        cell_id: str | None = None,
    ) -> Cell:
        """A new cell after that one; ``after`` None: at the end; ``"start"``: at the top. ``cell_id``: its id."""

    async def restore(self, session: Session, cell: Cell, *, after: str | None = None, path: str | None = None) -> Cell:
        """A cell that was deleted, with its id and its outputs, at a place as of ``insert``."""

    async def edit(
        self, session: Session, cell: str, source: str, *, expected: str | None = None, path: str | None = None
    ) -> Cell:
        """Replace a cell's source. With ``expected``, only if that is its source now (else NotebookConflict)."""

    async def delete(
        self, session: Session, cell: str, *, expected: str | None = None, path: str | None = None
    ) -> Cell:
        """Remove a cell. With ``expected``, only if that is its source now (else NotebookConflict)."""

    async def run(
        self,
        session: Session,
        cell: str,
        *,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        expected: str | None = None,
        path: str | None = None,
    ) -> Execution:
        """Execute a code cell in the notebook's kernel, if ``expected`` (if given) is its source now; its outputs and
        count go into the notebook as they come."""


CellState = Literal["running", "finished", "failed", "interrupted", "died", "restarted", "closed"]
"""The last three: its kernel died, was restarted or was shut down while it ran."""
LostHow = Literal["died", "restarted", "closed"]
"""``died``: by itself, without a request. ``closed``: Jupyter does not have it any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """One execution of a cell: as far as it is, or all of it."""

    id: str  # of its `execute_request`
    kernel_id: str
    state: CellState
    began: datetime  # when the kernel reported that it began, else when its first message came
    duration: float  # seconds since then
    source: str | None = None  # None: it began before the kernel was observed, and was not reported since
    outputs: Sequence[Output] = ()  # As nbformat 4 has them, bounded. Empty in :class:`CellBegan`.
    ours: bool = False  # an agent's own code, not the user's
    complete: bool = True  # it was observed from its beginning
    missed: float | None = None  # seconds of its beginning that were not observed, where that is known
    images_dropped: int = 0  # how many it showed before those in `outputs`


@dataclass(frozen=True, kw_only=True, slots=True)
class CellBegan:
    """A cell runs (silent requests and cells that are dropped from the queue are none)."""

    run: CellRun


@dataclass(frozen=True, kw_only=True, slots=True)
class CellEnded:
    """A cell has ended, and all its messages have come."""

    run: CellRun


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelLost:
    """The kernel's process is gone, or another one has taken its place."""

    kernel_id: str
    how: LostHow
    process: str  # identifies the one that is gone, in this kernel
    running: Sequence[CellRun] = ()  # what it ran


KernelNotice = CellBegan | CellEnded | KernelLost
OnKernelNotice = Callable[[KernelNotice], None]  # Called on the event loop, in order. Must not block.


class CellSubscription(Protocol):
    """One kernel that is observed."""

    @property
    def kernel_id(self) -> str: ...

    @property
    def process(self) -> str:
        """Identifies the kernel's present process."""

    @property
    def busy(self) -> bool:
        """Whether something runs there, also when no message of it was seen."""

    @property
    def ending(self) -> bool:
        """Whether Jupyter is about to end or restart it: what it runs is interrupted first."""

    def running(self) -> Sequence[CellRun]:
        """The cells that run now with their outputs so far, the oldest first."""

    async def close(self) -> None:
        """Observe it no more."""


class CellObserver(Protocol):
    """The kernels of this server, to be observed."""

    async def kernel_of(self, session: Session) -> str | None:
        """The kernel ``session.kernel_id``, else that of its notebook; None when this server has neither."""

    def has(self, kernel_id: str) -> bool:
        """Whether this server has that kernel."""

    async def lives(self, kernel_id: str) -> bool | None:
        """Whether a process answers at that kernel's address, of any server. None: no address is known here."""

    async def subscribe(self, kernel_id: str, on_notice: OnKernelNotice) -> CellSubscription:
        """Observe a kernel; on return nothing is missed any more. Raises KernelUnavailable."""

    async def source_of(self, session: Session, cell_id: str) -> str | None:
        """The source of that cell of the session's notebook; None when there is no such cell."""
