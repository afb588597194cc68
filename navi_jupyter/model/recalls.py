"""The nouns: sessions, runs, recalls, firings. Frozen values, their wire form, their JSON schema.

Not responsible for how they are stored (``store``) or changed (``orchestrator``, ``recalls``).
All instants are timezone-aware; on the wire ISO 8601 with an offset. All durations are :class:`datetime.timedelta`;
on the wire ``90s``, ``10m``, ``1h30m``, ``2d``.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from pydantic_core import PydanticKnownError

from ..clock import format_duration
from .base import CalendarPeriod, Duration, Instant, Title, Value
from .runs import Effect
from .sessions import Asker, OriginKind, RunStatus


class Once(Value):
    """Fires once, at ``at``."""

    kind: Literal["once"] = "once"
    at: Instant


class Every(Value):
    """Fires at ``start + n * every`` (n >= 1 when ``start`` is the creation), in elapsed time: no drift, DST-free."""

    kind: Literal["every"] = "every"
    every: Duration
    start: Instant
    tz: str | None = Field(default=None, exclude_if=lambda tz: tz is None)
    """Set for whole days that are counted on the wall clock of this zone: every other Friday at 16:00 stays at 16:00
    across a change of the clocks (which it meets as a fixed cron time does)."""

    @field_serializer("every")
    def _every_text(self, every: timedelta) -> str:
        # Read back as a spec, "1d" would be a calendar day: elapsed time is written in hours.
        return format_duration(every, days=self.tz is not None)


class Cron(Value):
    """Fires when the wall clock of ``tz`` matches ``expr`` (DST: Debian cron's policy)."""

    kind: Literal["cron"] = "cron"
    expr: str
    tz: str


class WhenEvent(StrEnum):
    """What can happen in a notebook, and wake a recall."""

    CELL_DONE = "cell_done"  # it finished or failed
    CELL_FINISHED = "cell_finished"
    CELL_FAILED = "cell_failed"
    CELL_SLOW = "cell_slow"  # it runs for longer than ``longer_than``
    KERNEL_IDLE = "kernel_idle"  # nothing has run for ``longer_than`` (default: at once) after something did
    KERNEL_RESTARTED = "kernel_restarted"
    KERNEL_DIED = "kernel_died"
    FILE_CHANGED = "file_changed"
    EXPRESSION = "expression"  # A Python expression in the kernel turned true


class When(Value):
    """Fires when something happens, not at a time: it has no slots ahead, ``next_at`` is None."""

    kind: Literal["when"] = "when"
    event: WhenEvent
    kernel_id: str | None = None  # None: the kernel of the session's notebook, whichever that is then
    cell: str | None = None
    """Which cell: ``running`` (the one that runs now; the next one that starts when none does), ``any``, or the id of
    an ``execute_request`` or of a notebook cell. ``request:<id>``: that very execution, in the kernel ``kernel_id``;
    ``after:<id>``: the next one after it. None for events that are not of a cell."""
    path: str | None = None  # of ``file_changed``: a file or a glob, relative to the server's root
    expr: str | None = None
    longer_than: Duration | None = None
    every: Duration = timedelta(seconds=5)  # how often an expression or a file is looked at, besides after each cell
    repeat: Literal["once", "each"] = "once"
    cooldown: Duration | None = None  # after a firing, so long nothing fires (``each``)


Schedule = Annotated[Once | Every | Cron | When, Field(discriminator="kind")]


class OnceSpec(Value):
    """``{"kind":"once","at":…}`` or ``{"kind":"once","in":"10m"}``: exactly one of the two."""

    kind: Literal["once"]
    at: AwareDatetime | None = None
    in_: CalendarPeriod | None = Field(default=None, alias="in")  # ``1d``: a calendar day, ``24h``: 24 hours


class EverySpec(Value):
    """``{"kind":"every","every":"1h","start"?:…,"tz"?:…}``.

    Whole days (``1d``, ``14d``) are counted on the wall clock of ``tz``, the user's zone when it is left out; hours and
    minutes (``24h``) are elapsed time.
    """

    kind: Literal["every"]
    every: CalendarPeriod
    start: AwareDatetime | None = None
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None


class CronSpec(Value):
    """``{"kind":"cron","expr":…,"tz"?:…}``."""

    kind: Literal["cron"]
    expr: Annotated[str, StringConstraints(max_length=256)]
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None


class WhenSpec(Value):
    """``{"kind":"when","event":…}``; ``when`` is a short word for it: ``done``, ``failed``, ``finished``, ``idle``."""

    kind: Literal["when"]
    event: WhenEvent | None = None
    when: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    kernel_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    cell: Annotated[str, StringConstraints(max_length=200)] | None = None
    path: Annotated[str, StringConstraints(max_length=1000)] | None = None
    expr: Annotated[str, StringConstraints(max_length=2000)] | None = None
    longer_than: Duration | None = None
    every: Duration | None = None
    repeat: Literal["once", "each"] | None = None
    cooldown: Duration | None = None


ScheduleSpec = Annotated[OnceSpec | EverySpec | CronSpec | WhenSpec, Field(discriminator="kind")]


Needs = Literal["auto", "kernel", "none"]


class Policy(Value):
    """What to do when it cannot simply run on time."""

    misfire: Literal["skip", "latest", "all"] = "latest"
    grace: Duration | None = None
    busy: Literal["defer", "queue", "skip", "interrupt"] = "defer"
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    timeout: Duration | None = None
    until: Instant | None = None
    max_fires: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    jitter: Duration | None = None
    cancel_on: Annotated[tuple[Literal["user_message", "read"], ...], Field(max_length=2)] = ()
    """Ends the recall when the user writes in the session, or has seen it since the recall was made."""
    notify: Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=10)] = ()
    """Names of notification targets (``navi/notify.toml``) that are notified when a firing is over; ``browser`` too."""
    needs: Needs = "auto"
    """What its runs need of the user's Jupyter server where that may be off (``navi hub``): ``auto``: it is started
    when a tool needs it; ``kernel``: before the run begins to answer; ``none``: they do without."""
    quiet: Annotated[str, StringConstraints(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None
    """Hours of the user's clock (``22:00-07:00``) without notifications; those that came are sent at their end."""


_EFFECTS = frozenset(effect.value for effect in Effect)


def leave(names: Iterable[str]) -> tuple[str, ...]:
    """Leave as it is stored: each name once, and effects as rules of permissions spell them (``effect:run``)."""
    return tuple(dict.fromkeys(f"effect:{name}" if name in _EFFECTS else name for name in names))


Leave = Annotated[
    tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)], ...],
    Field(max_length=20),
    AfterValidator(leave),
]
"""Names of tools (``run_code``), or effects (``run``, stored as ``effect:run``)."""


MAX_PARAMETERS, MAX_PARAMETERS_TEXT = 100, 20_000  # of a notebook job: names, and characters of their JSON


def _notebook_path(path: str) -> str:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or not path.lower().endswith(".ipynb") or not names:
        raise ValueError("it is the path of a notebook (.ipynb) below the server's folder, without '..'")
    return "/".join(names)


def _parameters(given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    wrong = next((name for name in given if not name.isidentifier() or keyword.iskeyword(name)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:64]!r} is no name that a variable can have")
    if len(given) > MAX_PARAMETERS or len(json.dumps(given, allow_nan=False)) > MAX_PARAMETERS_TEXT:
        raise ValueError(f"at most {MAX_PARAMETERS} parameters, and {MAX_PARAMETERS_TEXT} characters of JSON")
    return given


class PromptJob(Value):
    """What a recall does when it fires: its message is a prompt for the agent."""

    kind: Literal["prompt"] = "prompt"


class NotebookJob(Value):
    """What a recall does when it fires: a notebook is executed, in a kernel of its own. It needs no model.

    The notebook itself stays as it is; what it shows goes into a dated copy of it.
    """

    kind: Literal["notebook"] = "notebook"
    path: Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_notebook_path)]
    """Relative to the server's root."""
    parameters: Annotated[dict[str, JsonValue], AfterValidator(_parameters)] = Field(default_factory=dict)
    """Variables that are set after the cell with the tag ``parameters``, by name; at the top where there is none."""
    output: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    """The folder of the dated copies, relative to that of the notebook; with a ``/`` before it to the server's root.
    Default: ``<name>-results`` beside the notebook."""
    kernel: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """The name of the kernel (``jupyter kernelspec list``); default: the one that the notebook names."""
    then: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)] | None = None
    """A prompt that the same run goes on with, once the notebook has run without an error: its result comes along."""


RecallRun = Annotated[PromptJob | NotebookJob, Field(discriminator="kind")]
PROMPT_JOB = PromptJob()


class RecallStatus(StrEnum):
    """How far a recall is. The last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    FIRED = "fired"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Never changes again."""
        return self not in (RecallStatus.PENDING, RecallStatus.RUNNING, RecallStatus.PAUSED)


class Recall(Value):
    """A stored wish to be woken."""

    id: str
    session_id: str
    title: str
    message: str
    schedule: Schedule
    policy: Policy
    status: RecallStatus
    next_at: Instant | None  # the next slot; None when there is none (over, or paused)
    last_at: Instant | None = None  # the slot that was last started
    fired: int = 0  # how many firings have started
    created_at: Instant
    origin: OriginKind = OriginKind.USER
    """``user`` when a person asked for it over the API, ``system`` when the agent's tool made it."""
    allow: tuple[str, ...] = ()
    """What its runs may do without asking: names of tools, or effects as ``effect:run``. Never more than the
    administrator's ceiling and the profile let."""
    reason: str | None = None
    """Why it ended or is paused, where the user did not do just that: ``session deleted``, ``session archived``."""
    run: RecallRun = PROMPT_JOB
    last_result: str | None = None
    """The path of the dated copy of its notebook that it has made last, relative to the server's root."""


RecallMessage = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]


def _without_default(schema: dict[str, Any]) -> None:
    """An empty message is no message: it is left out."""
    del schema["default"]


class RecallCreate(Value):
    """Body of ``POST recalls``."""

    session_id: str
    title: Title | None = None
    schedule: ScheduleSpec
    policy: Policy = Policy()
    client: Asker | None = None  # whose clock counts for a ``schedule`` that names no zone; default: the session's
    allow: Leave = ()  # what its runs may do without asking: tools (``run_code``) or effects (``run``)
    run: RecallRun = PROMPT_JOB
    message: RecallMessage = Field(default=cast("str", None), validate_default=True, json_schema_extra=_without_default)
    """The prompt. Of a notebook job it only names it, and may be left out."""

    # Of the field: before a whole model, a validator makes strict JSON take no list for a tuple any more.
    @field_validator("message", mode="before")
    @classmethod
    def _named_by_its_notebook(cls, message: object, info: ValidationInfo) -> object:
        """A notebook job without a message gets one, for lists and the log."""
        run = info.data.get("run")
        if message is None and isinstance(run, NotebookJob):
            return f"Run {run.path}"
        if message is None:
            raise PydanticKnownError("missing")
        return message


class RecallPatch(Value):
    """Body of ``PATCH recalls/{id}``: the fields that are there are changed."""

    message: RecallMessage | None = None
    title: Title | None = None
    schedule: ScheduleSpec | None = None
    policy: Policy | None = None
    allow: Leave | None = None  # in place of what it may do so far; empty: it asks again
    run: RecallRun | None = None


class RecallFire(Value):
    """Body of ``POST recalls/{id}/fire``; may be left out."""

    allow: Leave = ()  # what its runs may do without asking from now on, besides what they may already


class FiringStatus(StrEnum):
    """How far a firing is. All but the first three are final."""

    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    MISSED = "missed"
    COALESCED = "coalesced"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Never changes again."""
        return self not in (FiringStatus.PENDING, FiringStatus.CLAIMED, FiringStatus.RUNNING)


class FiringAttempt(Value):
    """One run that a firing has had."""

    run_id: str
    status: RunStatus
    reason: str | None = None  # why it failed or was interrupted
    started_at: Instant | None = None
    ended_at: Instant | None = None


class Firing(Value):
    """One slot of a recall: the ledger's row."""

    id: str
    recall_id: str
    slot: Instant
    kind: Literal["auto", "manual", "event"] = "auto"
    """``event``: something happened (a ``when`` recall); the slot is when it did."""
    status: FiringStatus
    reason: str | None = None
    run_id: str | None = None
    attempt: int = 0
    coalesced: int = 0  # how many earlier slots this row stands for besides its own
    not_before: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    lateness_ms: int | None = None  # milliseconds from the slot to the start of its run
    delivery: Literal["none", "pending", "delivered", "failed"] = "none"
    """Whether people were notified (``notify``): apart from how the run went."""
    delivery_error: str | None = None
    attempts: tuple[FiringAttempt, ...] = ()
    """Its runs, oldest first, with the present one: those that the end of a server interrupted, and those that failed
    before a retry. Read from the runs with a recall's ledger; empty where a firing stands alone."""
