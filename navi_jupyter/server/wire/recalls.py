"""Bodies about recalls, their ledger, and the notifications that they send."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from ...model.base import Instant, Value
from ...model.recalls import Firing, NotebookJob, Policy, Recall, Schedule, ScheduleSpec
from ...model.sessions import Asker, RunStatus


class RecallPage(Value):
    """``GET recalls``."""

    recalls: tuple[Recall, ...]
    next: str | None
    last: dict[str, Firing] = Field(default_factory=dict)  # the latest row of each one's ledger, by the recall's id
    words: dict[str, str] = Field(default_factory=dict)  # the schedule of each of them in words, by the recall's id


class FiringPage(Value):
    """``GET recalls/{id}/firings``: the ledger, newest first."""

    firings: tuple[Firing, ...]
    next: str | None


class PreviewRequest(Value):
    """Body of ``POST recalls/preview``: exactly one of ``schedule`` and ``text``."""

    schedule: ScheduleSpec | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=21_000)] | None = None
    """A time in English: ``every other Friday at 16:00``; or an event: ``when the cell is done``."""
    sentence: bool = False  # ``text`` has a message, too: ``every other Friday at 16:00 check the loss``
    end: bool = False  # ``text`` is the end of a recurrence: a day alone is the whole day
    n: Annotated[int, Field(ge=1, le=100)] = 5
    after: AwareDatetime | None = None
    """A text is read, and what counts from now is counted, as of this instant; default now."""
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The zone of a text or schedule that names none. Left out: the one that counts in the session for this client,
    else the client's, else UTC."""
    session_id: str | None = None
    client: Asker | None = None


class Preview(Value):
    """The next fires strictly after ``after``, in the schedule's zone, and what is odd about the schedule."""

    times: tuple[Instant, ...]
    warnings: tuple[str, ...]
    schedule: Schedule  # as it would be stored; to be sent with ``POST recalls``
    policy: Policy  # the bounds in the text (``until``, ``max_fires``)
    meaning: str  # the schedule in words
    message: str = ""  # of a sentence: the rest of it without the time
    phrase: str = ""  # of a text: the words that were read as the time
    timezone: str = "UTC"  # the zone in which what names none was read
    run: NotebookJob | None = None
    """Of a sentence whose message is ``run report.ipynb``: what is to be executed. To be sent with ``POST recalls``."""


class RecallResult(Value):
    """A dated copy of a recall's notebook, with the outputs of one run."""

    run_id: str
    path: str  # relative to the server's root
    created_at: Instant
    status: RunStatus
    reason: str | None = None  # why the run did not complete
    exists: bool = True  # whether the file is still there


class NotebookPath(Value):
    """A notebook that a recall could execute."""

    path: str  # relative to the server's root


class NotebookPage(Value):
    """``GET recalls/notebooks``: the best first."""

    notebooks: tuple[NotebookPath, ...]
    next: str | None = None


class NotebookParameter(Value):
    """A variable that a notebook takes: its cell with the tag ``parameters`` sets it."""

    name: str
    default: str  # as its source is written; empty where that is not to be seen


class NotebookKernel(Value):
    """A kernel that is installed here."""

    name: str
    title: str


class NotebookToRun(Value):
    """``GET recalls/notebook``: what a recall that executes a notebook can be given."""

    path: str
    parameters: tuple[NotebookParameter, ...] | None
    """Null: no cell has the tag, or it is no Python: a parameter may have any name, and is set at the top."""
    kernel: str | None  # the name of the one that it asks for, which may not be installed
    kernels: tuple[NotebookKernel, ...]


class ResultPage(Value):
    """``GET recalls/{id}/results``: the dated copies, newest first."""

    results: tuple[RecallResult, ...]
    next: str | None


class CellDiff(Value):
    """A cell whose outputs, or whose source, differ between two results."""

    cell: str | None  # its id; null where the notebook's cells have none
    number: int | None  # its execution count in the newer one
    source: str  # the first line of its source
    diff: str  # of the outputs as text, in the unified format; of the source, where that has changed
    omitted: int = 0  # lines that are left out at the end


class ResultDiff(Value):
    """``GET recalls/{id}/results/diff``: what of the outputs has changed from one result to another."""

    old: RecallResult
    new: RecallResult
    cells: tuple[CellDiff, ...]
    unchanged: int  # code cells that are the same in both


class RecallsChanged(Value):
    """How many recalls were changed."""

    changed: int


class RecallImport(Value):
    """Body of ``POST recalls/import``, which takes plain TOML as well."""

    toml: Annotated[str, StringConstraints(max_length=10_000_000)]


class Imported(Value):
    """``POST recalls/import``: what was made or, with ``dry_run``, would be."""

    recalls: tuple[Recall, ...]
    dry_run: bool
    words: dict[str, str] = Field(default_factory=dict)  # the schedule of each of them in words, by the recall's id


class OverviewFiring(Value):
    """A firing in the overview, with its recall and session."""

    firing: Firing
    title: str  # of its recall
    session_id: str
    session_title: str | None  # null: the session was deleted
    unseen: bool  # it has ended since you last saw its session
    asks: bool = False  # its run waits for your answer
    ran: int = 0  # how many firings of this recall ended well on that day, this one included
    failed: int = 0
    missed: int = 0  # skipped, missed or expired
    result: str | None = None  # of a notebook: the dated copy that its run has made, relative to the server's root


class OverviewDay(Value):
    """What ended on a day in the reader's zone: of each recall the last firing, the latest first, 50 at most."""

    date: str  # ISO 8601
    ran: int
    failed: int
    missed: int
    firings: tuple[OverviewFiring, ...]


class ComingTimes(Value):
    """A recall on a day to come: its first time on that day, and how many there are."""

    recall_id: str
    title: str
    session_id: str
    session_title: str | None
    at: Instant
    times: int


class CalendarDay(Value):
    """A day to come in the reader's zone."""

    date: str  # ISO 8601
    count: int  # times of all recalls
    more: int  # recalls on this day beyond those in `coming`
    coming: tuple[ComingTimes, ...]


class RecallsOverview(Value):
    """``GET recalls/overview``: recalls of all sessions."""

    now: Instant
    timezone: str
    open: int  # recalls that are not over
    paused: int  # of these
    next: ComingTimes | None
    needs: tuple[OverviewFiring, ...]  # runs that ask, and what failed or did not run since you last saw its session
    active: tuple[OverviewFiring, ...]  # due, starting or running
    past: tuple[OverviewDay, ...]  # today first; a week, or today alone
    recalls: tuple[Recall, ...]  # those that are not over: the soonest first, then those without a next time
    words: dict[str, str] = Field(default_factory=dict)  # the schedule of each of them in words, by the recall's id
    sessions: dict[str, str] = Field(default_factory=dict)  # titles of their sessions, by id
    coming: tuple[CalendarDay, ...] = ()  # two weeks, today first
    complete: bool = True  # false: `coming` leaves out recalls that are later than the first 500


WebhookSecret = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NotifyTarget(Value):
    """Somewhere a notification can be sent."""

    name: str  # as ``policy.notify`` names it
    service: str | None  # the scheme of its URL, or `webhook`; null when it cannot be used
    source: str  # the file or the environment variable that it comes from, or `your own`
    own: bool = False  # your own, by ``PUT notify/{name}``
    available: bool
    why: str | None  # what is wrong with it, with file and line; null when nothing is
    waiting: int  # notifications that are still to be sent, of your recalls
    sent: int
    failed: int
    last_sent_at: Instant | None
    last_error: str | None  # why the last one was not sent, also while it is still tried; null when it was


class NotifyEntry(Value):
    """Body of ``PUT notify/{name}``: ``url``, or ``webhook`` and ``secret``, as in ``navi/notify.toml``."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None  # of Apprise
    webhook: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None
    secret: WebhookSecret | Annotated[list[WebhookSecret], Field(min_length=1, max_length=5)] | None = None
    events: Annotated[tuple[Literal["firing", "run"], ...], Field(max_length=2)] = ()
    """Of a webhook: what it gets of yours without being named by a recall."""
    content: bool = True  # of a webhook: whether titles, answers and messages of errors go along


class NotifyProblem(Value):
    """Something wrong with a file as a whole, or with a setting in it."""

    file: str
    message: str


class NotifyPage(Value):
    """``GET notify``."""

    notify: tuple[NotifyTarget, ...]
    quiet: str | None  # hours without notifications, in the zone of each session
    per_hour: int  # messages to each target within an hour; what is more comes as one digest
    problems: tuple[NotifyProblem, ...]
    next: str | None


class NotifyTrial(Value):
    """``POST notify/{name}/test``."""

    delivered: bool
    error: str | None
