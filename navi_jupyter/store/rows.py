"""How values become rows and back. No SQL here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..model.agent_options import NOTHING_CHOSEN, AgentChoice, AgentOffer
from ..model.attachments import Attachment
from ..model.recalls import PROMPT_JOB, Firing, FiringStatus, NotebookJob, Policy, Recall, RecallStatus, Schedule
from ..model.runs import ClientTool
from ..model.sessions import (
    AnswerNotice,
    Failure,
    Origin,
    OriginKind,
    Run,
    RunStatus,
    Session,
    TitleSource,
    Usage,
    ZoneSource,
)
from ..ports.agent import Message, PromptPart, ToolCall
from ..ports.recalls import FiringState, RecallState
from ..ports.transactions import Server
from .statements import Row

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970, exactly (no float in between)."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The inverse of :func:`to_micros`, in UTC."""
    return _EPOCH + timedelta(0, 0, micros)  # by position: twice as fast


def optional_micros(at: datetime | None) -> int | None:
    """:func:`to_micros` for a column that may be NULL."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def optional_instant(micros: int | None) -> datetime | None:
    """:func:`from_micros` for a column that may be NULL."""
    return None if micros is None else _EPOCH + timedelta(0, 0, micros)


def session_of(row: Row) -> Session:
    """A row of ``sessions``."""
    return Session(
        id=row["id"],
        owner=row["owner"],
        title=row["title"],
        profile=row["profile"],
        model=row["model"],
        notebook_path=row["notebook_path"],
        notebook_link=row["notebook_link"],
        earlier_path=row["earlier_path"],
        kernel_id=row["kernel_id"],
        server=row["server"],
        timezone=row["timezone"],
        timezone_source=ZoneSource(row["timezone_source"]),
        created_at=from_micros(row["created_at"]),
        updated_at=from_micros(row["updated_at"]),
        head_seq=row["head_seq"],
        allowed_tools=tuple(json.loads(row["allowed_tools"])),
        context=json.loads(row["context"]),
        agent_options=choice_of(row["agent_options"]),
        title_source=TitleSource(row["title_source"]),
        archived_at=optional_instant(row["archived_at"]),
        deleted_at=optional_instant(row["deleted_at"]),
    )


def choice_of(text: str) -> AgentChoice:
    """What is chosen of an agent program's options. Read with every session, of which few have any."""
    return NOTHING_CHOSEN if text == "{}" else AgentChoice.model_validate_json(text)


def offer_of(text: str | None) -> AgentOffer | None:
    """What an agent program has offered last; None where none has, or where a later version knows more kinds."""
    if text is None:
        return None
    try:
        return AgentOffer.model_validate_json(text)
    except ValidationError:
        return None


def run_of(row: Row) -> Run:
    """A row of ``runs``."""
    code, status = row["error_code"], RunStatus(row["status"])
    # One pair of columns for both: a run that completed has no failure, and no other has a notice.
    about = None if code is None else {"code": code, "message": row["error_message"]}
    return Run(
        id=row["id"],
        session_id=row["session_id"],
        command_id=row["command_id"],
        status=status,
        origin=Origin(kind=OriginKind(row["origin_kind"]), recall_id=row["recall_id"], kernel_id=row["origin_kernel"]),
        model=row["model"],
        created_at=from_micros(row["created_at"]),
        started_at=optional_instant(row["started_at"]),
        ended_at=optional_instant(row["ended_at"]),
        usage=Usage(
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            requests=row["requests"],
            cost=row["cost"],
        ),
        error=Failure(**about) if about and status is not RunStatus.COMPLETED else None,
        notice=AnswerNotice(**about) if about and status is RunStatus.COMPLETED else None,
        merged_into=row["merged_into"],
        timezone=row["timezone"],
        rolled_back=bool(row["rolled_back"]),
    )


def server_of(row: Row) -> Server:
    """A row of ``servers``."""
    return Server(id=row["id"], host=row["host"], pid=row["pid"], pid_started=row["pid_started"])


def dump_parts(parts: Sequence[PromptPart]) -> str:
    """Prompts as the JSON of ``runs.parts``."""
    return json.dumps([_part_row(part) for part in parts], ensure_ascii=False, separators=(",", ":"))


def _part_row(part: PromptPart) -> dict[str, Any]:
    row: dict[str, Any] = {"command_id": part.command_id, "text": part.text}
    if part.display is not None:
        row["display"] = part.display
    if part.attachments:
        row["attachments"] = [attachment.model_dump(mode="json") for attachment in part.attachments]
    if part.from_page:
        row["from_page"] = True
    if part.traceparent is not None:
        row["traceparent"] = part.traceparent
    if part.tools:
        row["tools"] = [tool.model_dump(mode="json") for tool in part.tools]
    return row


def load_parts(row: Row) -> tuple[PromptPart, ...]:
    """The prompts of a row of ``runs``; where it has no ``parts``, its prompt alone."""
    if row["parts"] is None:
        return (PromptPart(command_id=row["command_id"], text=row["prompt"]),)
    return tuple(
        PromptPart(
            command_id=part["command_id"],
            text=part["text"],
            display=part.get("display"),
            attachments=tuple(Attachment.model_validate(one) for one in part.get("attachments", ())),
            from_page=bool(part.get("from_page")),
            traceparent=part.get("traceparent"),
            tools=tuple(ClientTool.model_validate(one) for one in part.get("tools", ())),
        )
        for part in json.loads(row["parts"])
    )


def dump_messages(messages: Sequence[Message]) -> str:
    """Messages as the JSON of ``runs.transcript``."""
    rows = [asdict(message) | {"origin": message.origin.model_dump(mode="json")} for message in messages]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def load_messages(text: str | None) -> tuple[Message, ...]:
    """The inverse of :func:`dump_messages`."""
    if not text:
        return ()
    return tuple(
        Message(
            **{
                **row,
                "origin": Origin.model_validate(row["origin"]),
                "tool_calls": tuple(ToolCall(**call) for call in row["tool_calls"]),
                "attachments": tuple(row.get("attachments", ())),
            }
        )
        for row in json.loads(text)
    )


_SCHEDULES: TypeAdapter[Schedule] = TypeAdapter(Schedule)

RECALL_COLUMNS = (
    "id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,"
    " origin, allow, reason, run, last_result, due_at, planned, outcome, version"
)
PROGRESS_COLUMNS = ("status", "next_at", "last_at", "fired", "due_at", "planned", "outcome")
FIRING_COLUMNS = (
    "id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes, coalesced,"
    " not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner, lease_until, delivery,"
    " fence, detail, attachments, delivery_error"
)
PROGRESS_NAMES = FIRING_COLUMNS.split(", ")[6:-3]
"""What changes in the life of a firing. The last three are written when it is made, or when people are notified."""

NEW_FIRING_COLUMNS = (
    "id, recall_id, session_id, slot, kind, key, status, reason, command_id, coalesced, not_before, wait_until,"
    " ended_at, lease_owner, lease_until, delivery, fence, detail, attachments"
)
"""The others have their defaults in a new row."""
RECALL_NAMES = RECALL_COLUMNS.split(", ")
FIRING_NAMES = FIRING_COLUMNS.split(", ")

_RECALL_STATUS = {status.value: status for status in RecallStatus}
_FIRING_STATUS = {status.value: status for status in FiringStatus}
_ORIGIN = {kind.value: kind for kind in OriginKind}


@lru_cache(maxsize=4096)
def _policy(text: str) -> Policy:
    return Policy.model_validate_json(text)


@lru_cache(maxsize=4096)
def _job(text: str) -> NotebookJob:
    return NotebookJob.model_validate_json(text)


@lru_cache(maxsize=4096)
def _schedule(text: str) -> Schedule:
    return _SCHEDULES.validate_json(text)


def recall_of(row: Row) -> Recall:
    """A row of ``recalls`` with all its columns."""
    return recall_state_of([row[name] for name in RECALL_NAMES]).recall


def recall_state_of(row: Iterable[Any]) -> RecallState:
    """A row of ``RECALL_COLUMNS``."""
    (
        recall_id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,
        origin, allow, reason, run, last_result, due_at, planned, outcome, version,
    ) = row  # fmt: skip
    recall = Recall.trusted(
        id=recall_id,
        session_id=session_id,
        title=title,
        message=message,
        schedule=_schedule(schedule),
        policy=_policy(policy),
        status=_RECALL_STATUS[status],
        next_at=optional_instant(next_at),
        last_at=optional_instant(last_at),
        fired=fired,
        created_at=from_micros(created_at),
        origin=_ORIGIN[origin],
        allow=tuple(allow.split("\n")) if allow else (),
        reason=reason,
        run=PROMPT_JOB if run is None else _job(run),
        last_result=last_result,
    )
    return RecallState(
        recall=recall,
        owner=owner,
        due_at=recall.next_at if due_at == next_at else optional_instant(due_at),
        planned=planned,
        outcome=None if outcome is None else _FIRING_STATUS[outcome],
        version=version,
    )


def recall_values(state: RecallState) -> tuple[object, ...]:
    """In the order of ``RECALL_COLUMNS``."""
    recall = state.recall
    status, next_at, last_at, fired, *rest = progress(state)
    return (
        recall.id, recall.session_id, state.owner, recall.title, recall.message, *schedule_and_policy(recall),
        status, next_at, last_at, fired, to_micros(recall.created_at), f"{recall.origin}", *leave_and_reason(recall),
        job_text(recall), recall.last_result, *rest, state.version,
    )  # fmt: skip


def schedule_and_policy(recall: Recall) -> tuple[str, str]:
    return recall.schedule.model_dump_json(), recall.policy.model_dump_json(exclude_defaults=True)


def leave_and_reason(recall: Recall) -> tuple[str, str | None]:
    return "\n".join(recall.allow), recall.reason


def job_text(recall: Recall) -> str | None:
    """Its notebook job as JSON; None where it has a prompt."""
    return None if recall.run is PROMPT_JOB or recall.run == PROMPT_JOB else recall.run.model_dump_json()


def progress(state: RecallState) -> tuple[object, ...]:
    """What the passing of time changes, in the order of ``PROGRESS_COLUMNS``."""
    recall, outcome = state.recall, state.outcome
    next_at = optional_micros(recall.next_at)
    due_at = next_at if state.due_at is recall.next_at else optional_micros(state.due_at)
    return (
        f"{recall.status}", next_at, optional_micros(recall.last_at), recall.fired, due_at, state.planned,
        None if outcome is None else f"{outcome}",
    )  # fmt: skip


def advanced_values(state: RecallState) -> tuple[object, ...]:
    """What the passing of time changes, and of which recall and version."""
    return (*progress(state), state.recall.id, state.version)


def firing_state_of(row: Iterable[Any]) -> FiringState:
    """A row of ``FIRING_COLUMNS``."""
    (
        firing_id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes,
        coalesced, not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner,
        lease_until, delivery, fence, detail, attachments, delivery_error,
    ) = row  # fmt: skip
    at = from_micros(slot)
    firing = Firing.trusted(
        id=firing_id,
        recall_id=recall_id,
        slot=at,
        kind=kind,
        status=_FIRING_STATUS[status],
        reason=reason,
        run_id=run_id,
        attempt=attempt,
        coalesced=coalesced,
        not_before=at if not_before == slot else from_micros(not_before),
        started_at=optional_instant(started_at),
        ended_at=optional_instant(ended_at),
        lateness_ms=lateness_ms,
        delivery=delivery,
        delivery_error=delivery_error,
        attempts=(),
    )
    return FiringState(
        firing=firing,
        session_id=session_id,
        command_id=command_id,
        key=key,
        fence=fence,
        lease_owner=lease_owner,
        lease_until=optional_instant(lease_until),
        crashes=crashes,
        wait_until=optional_instant(wait_until),
        stop_at=optional_instant(stop_at),
        deferred=bool(deferred),
        detail=detail,
        attachments=tuple(attachments.split()) if attachments else (),
    )


def new_firing_values(state: FiringState) -> tuple[object, ...]:
    """In the order of ``NEW_FIRING_COLUMNS``."""
    firing, slot = state.firing, to_micros(state.firing.slot)
    not_before = slot if firing.not_before is firing.slot else to_micros(firing.not_before)
    return (
        firing.id, firing.recall_id, state.session_id, slot, firing.kind, state.key, f"{firing.status}", firing.reason,
        state.command_id, firing.coalesced, not_before, optional_micros(state.wait_until),
        optional_micros(firing.ended_at), state.lease_owner, optional_micros(state.lease_until), firing.delivery,
        state.fence, state.detail, " ".join(state.attachments) or None,
    )  # fmt: skip


def changed_firing_values(state: FiringState) -> tuple[object, ...]:
    """In the order of ``PROGRESS_NAMES``, then the id."""
    firing = state.firing
    return (
        f"{firing.status}", firing.reason, state.command_id, firing.run_id, firing.attempt, state.crashes,
        firing.coalesced, to_micros(firing.not_before), optional_micros(state.wait_until),
        optional_micros(state.stop_at), int(state.deferred), optional_micros(firing.started_at),
        optional_micros(firing.ended_at), firing.lateness_ms, state.lease_owner, optional_micros(state.lease_until),
        firing.delivery, state.fence, firing.id,
    )  # fmt: skip


class WithRows(tuple[T, ...]):  # noqa: SLOT001 - a tuple's length varies
    """Values with the rows that are stored of them, made before the transaction."""

    rows: Sequence[Sequence[object]]

    @classmethod
    def of(cls, values: Iterable[T], row: Callable[[T], Sequence[object]]) -> WithRows[T]:
        made = cls(values)
        made.rows = [row(value) for value in made]
        return made


def rows_of(values: Iterable[T], row: Callable[[T], Sequence[object]]) -> Sequence[Sequence[object]]:
    """What is stored of them, made now unless it is there."""
    return values.rows if isinstance(values, WithRows) else [row(value) for value in values]
