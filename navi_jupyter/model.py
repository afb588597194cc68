"""The nouns: sessions, runs, recalls, firings. Frozen values, their wire form, their JSON schema.

Not responsible for how they are stored (``store``) or changed (``orchestrator``, ``recalls``).
All instants are timezone-aware; on the wire ISO 8601 with an offset. All durations are :class:`datetime.timedelta`;
on the wire ``90s``, ``10m``, ``1h30m``, ``2d``.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)


def new_id(prefix: str) -> str:
    """A fresh identifier: ``prefix`` + ``_`` + 96 random bits in hex, e.g. ``s_5f0c…``."""
    return f"{prefix}_{os.urandom(12).hex()}"


def ordered_id(prefix: str) -> str:
    """:func:`new_id` for rows that come in masses: a microsecond, then 44 random bits.

    What is made together lies together in every index, so that thousands of rows dirty few of its pages.
    """
    return f"{prefix}_{time.time_ns() // 1000:013x}{os.urandom(6).hex()[:11]}"


def now() -> datetime:
    """The wall clock, in UTC. The only place that reads it; everything else takes time as an argument."""
    return datetime.now(UTC)


def timestamp(at: datetime) -> str:
    """``at`` as ISO 8601 in UTC with milliseconds and ``Z``."""
    in_utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|[dhms])", re.ASCII)
_MAX_DURATION = timedelta(days=36525)


def parse_duration(text: str) -> timedelta:
    """``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"`` (units may be spaced) as a timedelta.

    Raises ValueError when it is not one, is zero, or is longer than a century.
    """
    compact = text.replace(" ", "").lower() if len(text) <= 64 else ""
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"not a duration: {text[:64]!r} (write it like 90s, 10m, 1h30m or 2d)")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError("a duration must be longer than zero")
    if total > _MAX_DURATION.total_seconds():
        raise ValueError("a duration can not be longer than 36525 days")
    return timedelta(seconds=total)


def format_duration(value: timedelta) -> str:
    """The shortest form that :func:`parse_duration` reads back, e.g. ``1h30m``."""
    milliseconds = round(value.total_seconds() * 1000)
    if milliseconds == 0:
        return "0s"
    out = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            out += f"{count}{unit}"
    return out


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration is a string like 90s, 10m, 1h30m or 2d")


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|[dhms]))+$", "examples": ["10m", "1h30m"]}),
]
Instant = Annotated[AwareDatetime, PlainSerializer(lambda at: at.isoformat(), return_type=str, when_used="json")]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Names = tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...]
CommandId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]


class Value(BaseModel):
    """Base of every value here: frozen, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="iso8601")

    def wire(self) -> dict[str, Any]:
        """The JSON form as Python objects."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def trusted(cls, **fields: Any) -> Self:
        """A value of fields that are known to be valid: all of them, none is checked or left to its default.

        What ``model_construct`` does for this case, at a quarter of its cost: a burst of recalls makes thousands.
        """
        value = cls.__new__(cls)
        _fill(value, fields, _all_fields(cls))
        return value

    def but(self, **changes: Any) -> Self:
        """This value with some fields changed, unchecked: ``model_copy(update=...)`` at a fraction of its cost."""
        value = self.__class__.__new__(self.__class__)
        given = self.__pydantic_fields_set__
        _fill(value, {**self.__dict__, **changes}, given if changes.keys() <= given else given | changes.keys())
        return value


@lru_cache(maxsize=256)
def _all_fields(model: type[Value]) -> set[str]:
    """Shared by the values that have them all: pydantic copies the set before it changes it."""
    return set(model.model_fields)


_set = object.__setattr__  # our values are frozen


def _fill(value: Value, fields: dict[str, Any], given: set[str]) -> None:
    """What pydantic's own ``__copy__`` sets on a fresh instance."""
    _set(value, "__dict__", fields)
    _set(value, "__pydantic_fields_set__", given)
    _set(value, "__pydantic_extra__", None)
    _set(value, "__pydantic_private__", None)


class OriginKind(StrEnum):
    """Who caused something."""

    USER = "user"
    RECALL = "recall"
    SYSTEM = "system"


class Origin(Value):
    """Who caused something; ``recall_id`` is set exactly when a recall did."""

    kind: OriginKind = OriginKind.USER
    recall_id: str | None = None


USER = Origin(kind=OriginKind.USER)
SYSTEM = Origin(kind=OriginKind.SYSTEM)


# --- sessions and runs -----------------------------------------------------------------------------------------------


class Session(Value):
    """One conversation, owned by one user."""

    id: str
    owner: str
    title: str
    profile: str
    model: str
    notebook_path: str | None = None
    kernel_id: str | None = None
    timezone: str = "UTC"
    """IANA zone of the user, for recalls that name none."""
    created_at: Instant
    updated_at: Instant
    head_seq: int = 0
    allowed_tools: tuple[str, ...] = ()
    """Tools that the user has allowed for this session, so that they do not ask again."""
    context: dict[str, bool] = Field(default_factory=dict)
    """Context providers that are switched on or off here, whatever the profile says."""


class SessionCreate(Value):
    """Body of ``POST sessions``."""

    title: Title | None = None
    profile: ProfileName | None = None
    model: ModelName | None = None
    notebook_path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    kernel_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    timezone: Annotated[str, StringConstraints(max_length=64)] | None = None
    allowed_tools: Annotated[Names, Field(max_length=200)] | None = None
    context: dict[Annotated[str, StringConstraints(max_length=64)], bool] | None = None


class SessionPatch(SessionCreate):
    """Body of ``PATCH sessions/{sid}``: the fields that are there are changed."""


class RunStatus(StrEnum):
    """How far a run is. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        """Holds the session: at most one such run per session, as a database fact."""
        return self in (RunStatus.RUNNING, RunStatus.WAITING)

    @property
    def final(self) -> bool:
        """Never changes again."""
        return not self.active and self is not RunStatus.QUEUED


class Usage(Value):
    """Tokens of a run (or a sum of runs). Zero where the backend does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cost: float | None = None
    """US dollars by the list price; None where it is not known (in a sum: of the parts that are known)."""

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            requests=self.requests + other.requests,
            cost=sum(costs) if costs else None,
        )


class Failure(Value):
    """Why a run did not complete: a stable code and a sentence."""

    code: str
    message: str


class Run(Value):
    """One turn of the agent in a session."""

    id: str
    session_id: str
    command_id: str
    status: RunStatus
    origin: Origin
    model: str
    created_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    usage: Usage = Usage()
    error: Failure | None = None
    merged_into: str | None = None
    """The run that took this one's prompt over while it was in progress (mode ``steer``)."""
    rolled_back: bool = False
    """Left out of what the model is told of earlier turns (mode ``rollback``); the log has it all."""


# --- recalls ---------------------------------------------------------------------------------------------------------


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


class Cron(Value):
    """Fires when the wall clock of ``tz`` matches ``expr`` (DST: Debian cron's policy)."""

    kind: Literal["cron"] = "cron"
    expr: str
    tz: str


class WhenEvent(StrEnum):
    """What can happen in a notebook, and wake a recall."""

    CELL_DONE = "cell_done"
    """It finished or failed."""
    CELL_FINISHED = "cell_finished"
    CELL_FAILED = "cell_failed"
    CELL_SLOW = "cell_slow"
    """It runs for longer than ``longer_than``."""
    KERNEL_IDLE = "kernel_idle"
    """Nothing has run for ``longer_than`` (default: at once) after something did."""
    KERNEL_RESTARTED = "kernel_restarted"
    KERNEL_DIED = "kernel_died"
    FILE_CHANGED = "file_changed"
    EXPRESSION = "expression"
    """A Python expression in the kernel turned true."""


class When(Value):
    """Fires when something happens, not at a time: it has no slots ahead, ``next_at`` is None."""

    kind: Literal["when"] = "when"
    event: WhenEvent
    kernel_id: str | None = None
    """None: the kernel of the session's notebook, whichever that is then."""
    cell: str | None = None
    """Which cell: ``running`` (the one that runs now; the next one that starts when none does), ``any``, or the id of
    an ``execute_request`` or of a notebook cell. ``request:<id>``: that very execution, in the kernel ``kernel_id``;
    ``after:<id>``: the next one after it. None for events that are not of a cell."""
    path: str | None = None
    """Of ``file_changed``: a file or a glob, relative to the server's root."""
    expr: str | None = None
    longer_than: Duration | None = None
    every: Duration = timedelta(seconds=5)
    """How often an expression or a file is looked at, besides after each cell."""
    repeat: Literal["once", "each"] = "once"
    cooldown: Duration | None = None
    """After a firing, so long nothing fires (``each``)."""


Schedule = Annotated[Once | Every | Cron | When, Field(discriminator="kind")]


class OnceSpec(Value):
    """``{"kind":"once","at":…}`` or ``{"kind":"once","in":"10m"}``: exactly one of the two."""

    kind: Literal["once"]
    at: AwareDatetime | None = None
    in_: Duration | None = Field(default=None, alias="in")


class EverySpec(Value):
    """``{"kind":"every","every":"1h","start"?:…,"tz"?:…}``."""

    kind: Literal["every"]
    every: Duration
    start: AwareDatetime | None = None
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None
    """For whole days that are counted on the wall clock of this zone."""


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


class Policy(Value):
    """What to do when it can not simply run on time."""

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
    """Names of notification targets (``navi/notify.toml``) that are told when a firing is over; ``browser`` too."""
    quiet: Annotated[str, StringConstraints(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None
    """Hours of the user's clock (``22:00-07:00``) in which nobody is notified; what came is told at their end."""


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
    next_at: Instant | None
    """The next slot; None when there is none (over, or paused)."""
    last_at: Instant | None = None
    """The slot that was last started."""
    fired: int = 0
    """How many firings have started."""
    created_at: Instant
    origin: OriginKind = OriginKind.USER
    """``user`` when a person asked for it over the API, ``system`` when the agent's tool made it."""


RecallMessage = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]


class RecallCreate(Value):
    """Body of ``POST recalls``."""

    session_id: str
    message: RecallMessage
    title: Title | None = None
    schedule: ScheduleSpec
    policy: Policy = Policy()


class RecallPatch(Value):
    """Body of ``PATCH recalls/{id}``: the fields that are there are changed."""

    message: RecallMessage | None = None
    title: Title | None = None
    schedule: ScheduleSpec | None = None
    policy: Policy | None = None


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
    coalesced: int = 0
    """How many earlier slots this row stands for besides its own."""
    not_before: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    lateness_ms: int | None = None
    """Milliseconds from the slot to the start of its run."""
    delivery: Literal["none", "pending", "delivered", "failed"] = "none"
    """Whether people were told (``notify``): apart from how the run went."""
    delivery_error: str | None = None
