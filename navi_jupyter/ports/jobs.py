"""Notebook jobs: how a recall's run has a notebook executed, and where its results are recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..model.recalls import NotebookJob
from ..model.sessions import RunStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStep:
    """A code cell that is about to be executed."""

    number: int  # from one, of the code cells that have a source
    total: int  # how many of them there are
    source: str  # its first line


@dataclass(frozen=True, kw_only=True, slots=True)
class JobParameter:
    """A variable that a notebook takes."""

    name: str
    default: str  # as its source is written; empty where that is not to be seen


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKernel:
    """A kernel that a notebook can be executed in."""

    name: str
    title: str  # "Python 3 (ipykernel)"


@dataclass(frozen=True, kw_only=True, slots=True)
class NotebookChoice:
    """A notebook as the job that is made of it needs to know it."""

    path: str
    parameters: Sequence[JobParameter] | None  # None: it is not known which it has
    kernel: str | None  # the name of the one that it asks for, which may not be installed
    kernels: Sequence[JobKernel]  # the installed ones


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedCell:
    """The cell at which a job has ended, and why."""

    cell: str | None  # its id in the dated copy
    number: int | None  # its execution count; None where the kernel died over it
    source: str  # its first line
    error: str  # ``ValueError: no data``; what became of the kernel
    traceback: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """How a job has ended."""

    path: str  # of the dated copy, relative to the server's root
    cells: int  # code cells that were executed to their end
    total: int
    seconds: float
    outputs: str  # what the cells showed, as text, bounded
    failed: FailedCell | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultCell:
    """A cell that differs between two results."""

    cell: str | None
    number: int | None
    source: str
    diff: str
    omitted: int = 0


OnCopy = Callable[[str], Awaitable[None]]
"""Awaited with the path of the dated copy, right before the first cell is executed. Raises to refuse."""
OnStep = Callable[[JobStep], Awaitable[None]]
"""Awaited before each cell. Raises to end the job before that cell."""


class NotebookJobs(Protocol):
    """Executes notebooks in kernels of their own. Implemented by ``jupyter.jobs``."""

    async def check(self, job: NotebookJob) -> None:
        """Raises NotebookNotFound, InvalidRequest, FileRefused, KernelUnavailable where the job cannot be executed."""

    async def execute(
        self, job: NotebookJob, *, at: datetime, run_id: str, on_copy: OnCopy, on_step: OnStep
    ) -> JobOutcome:
        """Execute it; on return its dated copy is written and its kernel is gone, whatever became of it.

        ``at``: the instant that the copy is named by, in the user's zone. Cancelling interrupts the cell that runs,
        waits two seconds for it to come back, keeps what there is, and ends the kernel. Raises as :meth:`check`, and
        what the callbacks raise.
        """

    async def compare(self, old: str, new: str) -> tuple[Sequence[ResultCell], int]:
        """The cells that differ between two dated copies, and how many code cells do not. Raises NotebookNotFound,
        FileRefused."""

    async def notebooks(self, query: str, *, limit: int) -> Sequence[str]:
        """The paths of notebooks that fit what was typed, the best first: what is found in a second."""

    async def describe(self, path: str) -> NotebookChoice:
        """Raises NotebookNotFound, FileRefused."""

    async def exists(self, path: str) -> bool:
        """Whether there is such a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """A dated copy, as it is recorded."""

    number: int  # newer ones have higher numbers
    run_id: str
    recall_id: str
    path: str
    created_at: datetime
    status: RunStatus  # of its run
    reason: str | None  # why that did not complete


class JobResults(Protocol):
    """The dated copies of all recalls. Implemented by ``store``."""

    async def add(self, recall_id: str, run_id: str, path: str, *, at: datetime) -> None:
        """Record a copy before anything is executed; it is the recall's last result from then on. Durable."""

    async def of_recall(
        self, recall_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[JobResult], str | None]:
        """A page, newest first, and the cursor of the next one. Raises InvalidRequest for a strange cursor."""

    async def of_runs(self, run_ids: Sequence[str]) -> Mapping[str, str]:
        """The path of the dated copy of each of these runs that has made one."""

    async def follow(
        self, source: str, target: str, session_id: str | None = None, *, owner: str | None = None
    ) -> None:
        """A file or folder was renamed: jobs and results in it are known by their new path. ``session_id``: only the
        jobs of that session; ``owner``: only what is that owner's."""
