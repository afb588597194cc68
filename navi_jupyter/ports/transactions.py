"""What a transaction of the session store offers: its view of sessions, logs, prompts, runs and questions.

A unit of work is an async function of a transaction, and follows two rules, whatever the store is made of:

- It awaits nothing but its transaction. A store may run it where there is no event loop (the one on SQLite runs it in
  the connection's thread), and other units wait meanwhile. What is slow is done before it; what others change meanwhile
  is read from the transaction.
- It may run twice, the first time without effect (a store that is shared by several servers repeats a transaction that
  another one got in the way of). So it changes nothing but the database and its return value: it emits and notifies
  nothing, and leaves what it was given as it is. All that follows from it is done after ``write`` has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from ..commands import Acceptance
from ..events import Draft
from ..model.notebooks import ShownNotebook
from ..model.runs import Interrupt, InterruptStatus
from ..model.sessions import AnswerNotice, Failure, Run, RunStatus, Session, Usage
from ..settings import ServerLease
from .agent import Message, PromptPart
from .jupyter import NotebookLink
from .session_list import SessionListTx

T = TypeVar("T")
DEFAULT_LEASE = timedelta(seconds=ServerLease().duration)  # of a server on itself and on its runs


async def off_loop(call: Callable[[], T]) -> T:
    """What ``call`` returns, without holding up an event loop: from a thread; in a unit that runs in one, at once."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    return await asyncio.to_thread(call)


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A process that has the database open."""

    id: str
    host: str
    pid: int
    pid_started: float
    """When the process started, in seconds since 1970: distinguishes a process from a later one with the same pid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOwner:
    """An active run and the server that has it."""

    run_id: str
    session_id: str
    server_id: str
    lease_until: datetime
    stop_requested: bool = False  # whether somebody has asked to stop it


@dataclass(frozen=True, kw_only=True, slots=True)
class Foldable:
    """Where the deltas of a finished run are in its session's log: ``after`` < ``seq`` <= ``last``."""

    run_id: str
    session_id: str
    after: int
    last: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRun:
    """What the transaction that ends a run finds: what the row says of it, and what there is to be done then."""

    rolled_back: bool
    asks: bool  # whether some of its questions are open
    followed: bool  # whether another run of its session is in progress, or waits


@dataclass(frozen=True, kw_only=True, slots=True)
class BeforeCommand:
    """What a command finds."""

    acceptance: Acceptance | None  # the answer that it was given, if it was accepted before
    session: Session | None
    queued: bool  # whether prompts wait in the session


class LogTx(Protocol):
    """The logs of sessions, in one transaction."""

    async def append(self, session_id: str, drafts: Sequence[Draft], *, updated_at: datetime | None = None) -> int:
        """Number and store events; return the last ``seq``. Raises SessionNotFound (deleted meanwhile).

        ``updated_at``: of the session, where they are what a user or a program has sent.
        """

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """:meth:`append` for many sessions at once; those that are gone are left out."""

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        """The run's envelopes so far, as JSON, in order; pieces of one text that follow each other may be joined."""

    async def fold_events(self, session_id: str, folded: Mapping[int, str], dropped: Sequence[int]) -> None:
        """Compaction: replace some frames and remove others."""

    async def unfolded(self, foldable: Foldable, seqs: Sequence[int]) -> bool:
        """Compaction: whether what was read of a run is there as it was: another server may have folded it."""

    async def note_folded(
        self, session_id: str, run_id: str, stretches: Sequence[tuple[int, int]], *, complete: bool = True
    ) -> None:
        """Compaction: ``[first, last)`` cursors cannot go on event by event; ``complete``: the run is done with."""

    async def give_back(self, pages: int) -> None:
        """Give so many unused pages of the file back to the file system. Nothing, where that has to keep them."""


class PromptTx(Protocol):
    """Prompts that wait, each as a queued run, in one transaction."""

    async def before_command(self, session_id: str, command_id: str) -> BeforeCommand: ...

    async def add_run(
        self,
        run: Run,
        *,
        prompt: str,
        user_id: str,
        first_seq: int,
        priority: int = 0,
        mode: str = "enqueue",
        parts: Sequence[PromptPart] | None = None,
    ) -> None:
        """A queued run. ``first_seq`` is at or before its first event; a higher ``priority`` starts earlier.

        ``parts`` None: the prompt alone.
        """

    async def repeat_run(self, interrupted_id: str, run: Run, *, priority: int = 0, mode: str = "enqueue") -> None:
        """A queued run for the prompt of an interrupted one, whose command has this run as its answer from now on.

        The message stays in the log once. The model does not read the interrupted attempt, unless another prompt
        had joined that.
        """

    async def queued_prompts(self, session_id: str) -> Sequence[QueuedPrompt]:
        """What waits, in the order in which it will start."""

    async def change_prompt(self, run_id: str, parts: Sequence[PromptPart]) -> None:
        """Replace what a queued run is to answer."""

    async def merge_run(self, run_id: str, into: str, *, at: datetime) -> bool:
        """A queued run is over because another took its prompt. False when it is not queued any more."""

    async def roll_back(self, run_id: str) -> None:
        """Leave this run out of what the model reads of earlier ones."""

    async def keep_shown(self, run_id: str, command_id: str, shown: ShownNotebook) -> None:
        """What the page of a prompt showed: kept until the run that answers it has ended."""

    async def forget_shown(self, run_id: str, command_id: str) -> None:
        """The prompt was withdrawn."""

    async def shown(self, run_id: str) -> ShownNotebook | None:
        """What the page of the run's latest prompt showed, those that joined it included."""


class RunTx(Protocol):
    """Runs and the servers that own them, in one transaction."""

    async def run(self, run_id: str) -> Run | None: ...

    async def starts_of(self, run_ids: Iterable[str]) -> Mapping[str, datetime | None]:
        """When each began; None for one that waits in its queue. Those that never will are left out."""

    async def active_run(self, session_id: str) -> Run | None: ...

    async def active_runs(self) -> Sequence[RunOwner]: ...

    async def start_run(self, run_id: str, *, server_id: str, at: datetime, lease_until: datetime) -> bool:
        """``queued`` -> ``running``. False when it is not queued any more or another run holds the session."""

    async def pause_run(self, run_id: str, *, server_id: str, usage: Usage, conversation: bytes) -> bool:
        """``running`` -> ``waiting``, without a server. False when it is not this server's, or was asked to stop."""

    async def resume_run(self, run_id: str, *, server_id: str, lease_until: datetime) -> bool:
        """``waiting`` -> ``running``. False when it does not wait, or one of its questions is open."""

    async def end_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        at: datetime,
        usage: Usage | None = None,
        error: Failure | AnswerNotice | None = None,
        conversation: bytes | None = None,
        transcript: Sequence[Message] = (),
    ) -> EndedRun | None:
        """Give the run its final status. None when it had one already. ``error``: of a completed run, its notice."""

    async def held_runs(self, run_ids: Iterable[str], *, server_id: str) -> set[str]:
        """Those that are active and this server's: the fence in front of every write of a run."""

    async def is_awaited(self, run: Run, *, at: datetime) -> bool:
        """Whether others need the run's session: a prompt in its queue, or a firing of a recall that is due."""

    async def request_stop(self, run_id: str, command_id: str) -> None:
        """Ask the server that has the run to stop it."""

    async def last_effect(self, run: Run) -> str | None:
        """The tool with an effect that the run has started last (``ToolContext.record_effect``); None: none."""


class InterruptTx(Protocol):
    """Questions to the user, in one transaction."""

    async def add_interrupt(self, interrupt: Interrupt) -> None:
        """An open question. Those of one pause have one ``created_at``, later than any before."""

    async def interrupt(self, interrupt_id: str) -> Interrupt | None: ...

    async def open_interrupts(self, run_id: str) -> Sequence[Interrupt]:
        """The run's open questions, oldest first."""

    async def settle_interrupt(
        self,
        interrupt_id: str,
        *,
        status: InterruptStatus,
        at: datetime,
        payload: Any = None,
        answered_by: str | None = None,
    ) -> Interrupt | None:
        """Close an open question; as it is now. None when it was closed before."""

    async def expired_interrupts(self, *, at: datetime) -> Sequence[Interrupt]:
        """Open questions of waiting runs whose time has passed."""


class LinkTx(Protocol):
    """One transaction's view of the links of sessions to notebooks."""

    async def mark_notebook(
        self, path: str, fingerprint: Sequence[str], *, now_at: str, made_by: datetime | None = None
    ) -> None:
        """Store the fingerprint of the notebook at a path, and how the path is written now, for the sessions there
        that have no fingerprint yet and were not made later than ``made_by``."""

    async def links_below(self, path: str, *, owner: str | None = None) -> Sequence[NotebookLink]:
        """The links with this path, and those below it where it is a folder, the newest first; of an owner, or of all
        whom this server serves."""


class SessionTx(LogTx, PromptTx, RunTx, InterruptTx, LinkTx, SessionListTx, Protocol):
    """One transaction's view of sessions, their runs and logs. Every method sees the writes before it."""

    async def acceptance(self, session_id: str, command_id: str) -> Acceptance | None:
        """The answer that was given to this command, if it was accepted before."""

    async def may_deliver(self, command_id: str, *, server_id: str) -> bool:
        """Whether the firing that this command delivers, if there is one, is this server's and its recall not paused.

        A server that was stopped between claiming and delivering may have lost its claim without knowing.
        """

    async def accept(self, session_id: str, kind: str, acceptance: Acceptance, *, user_id: str) -> None:
        """Remember the answer to a command. Unique on (session, command_id)."""

    async def session(self, session_id: str) -> Session | None: ...

    async def add_session(self, session: Session) -> None: ...

    async def count_sessions(self, owner: str) -> int: ...

    async def change_session(self, session_id: str, changes: Mapping[str, Any]) -> None:
        """Set these fields; ``fingerprint`` besides those of :class:`Session` (see :class:`NotebookLink`)."""

    async def delete_session(self, session_id: str) -> None:
        """Remove it with its log and runs."""

    async def beat(self, server: Server, *, at: datetime, lease: timedelta = DEFAULT_LEASE) -> None:
        """Renew the claims of a server on itself and on its runs: they last until ``at + lease``."""

    async def bound_leases(self, *, until: datetime) -> None:
        """Have no server's lease end later: a clock that was ahead made them too long."""

    async def forget_server(self, server_id: str) -> None: ...

    async def servers(self) -> Sequence[tuple[Server, datetime]]:
        """Those that are registered, and until when each counts as alive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedPrompt:
    """A queued run and what it is to answer."""

    run: Run
    mode: str
    user_id: str
    parts: tuple[PromptPart, ...]
