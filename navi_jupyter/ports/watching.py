"""What a watcher of notebooks hears: cells that begin and end, kernels that are lost. Implemented by ``workbench``.

Not responsible for what anybody makes of it (``watching``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from ..model import Session
from .workbench import Output

CellState = Literal["running", "finished", "failed", "interrupted", "died", "restarted", "closed"]
"""The last three: its kernel died, was restarted or was shut down while it ran."""
LostHow = Literal["died", "restarted", "closed"]
"""``died``: nobody wanted it to end. ``closed``: Jupyter does not have it any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """One execution of a cell: as far as it is, or all of it."""

    id: str
    """Of its ``execute_request``."""
    kernel_id: str
    state: CellState
    began: datetime
    """When it was first heard of, or when the kernel said that it began."""
    duration: float
    """Seconds since then."""
    source: str | None = None
    """None: it had begun before anybody listened, and nobody has said it since."""
    outputs: Sequence[Output] = ()
    """As nbformat 4 has them, bounded. Empty in what :class:`CellBegan` tells."""
    ours: bool = False
    """An agent's own code, not the user's."""
    whole: bool = True
    """It was heard from its beginning."""
    unheard: float | None = None
    """Seconds of its beginning that were not heard, where that is known."""
    pictures_dropped: int = 0
    """How many it showed before those in ``outputs``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellBegan:
    """A cell runs (silent requests and cells that are dropped from the queue are none)."""

    run: CellRun


@dataclass(frozen=True, kw_only=True, slots=True)
class CellEnded:
    """A cell runs no more, and the kernel has said all of it."""

    run: CellRun


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelLost:
    """The kernel's process is gone, or another one has taken its place."""

    kernel_id: str
    how: LostHow
    process: str
    """Identifies the one that is gone, in this kernel."""
    running: Sequence[CellRun] = ()
    """What it ran."""


Noticed = CellBegan | CellEnded | KernelLost
Told = Callable[[Noticed], None]
"""Called on the event loop, in order. Must not block."""


class Hearing(Protocol):
    """One kernel that is listened to."""

    @property
    def kernel_id(self) -> str: ...

    @property
    def process(self) -> str:
        """Identifies the kernel's present process."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something runs there, be it known or not."""
        ...

    @property
    def ending(self) -> bool:
        """Whether Jupyter is about to end or restart it: what it runs is interrupted first."""
        ...

    def running(self) -> Sequence[CellRun]:
        """The cells that run now with their outputs so far, the oldest first."""
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...


class Ears(Protocol):
    """The kernels of this server, to listen to."""

    async def kernel_of(self, session: Session) -> str | None:
        """The kernel ``session.kernel_id``, else that of its notebook; None when this server has neither."""
        ...

    def has(self, kernel_id: str) -> bool:
        """Whether this server has that kernel."""
        ...

    async def lives(self, kernel_id: str) -> bool | None:
        """Whether somebody answers at that kernel's address, whoever's it is. None: no address is known here."""
        ...

    async def listen(self, kernel_id: str, told: Told) -> Hearing:
        """Begin; on return nothing is missed any more. Raises KernelUnavailable."""
        ...


class CellSources(Protocol):
    """What the cells of notebooks hold."""

    async def source_of(self, session: Session, cell_id: str) -> str | None:
        """The source of that cell of the session's notebook; None when there is no such cell."""
        ...
