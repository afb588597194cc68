"""How values become rows and back. No SQL here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ..model.attachments import Attachment
from ..model.sessions import Failure, Origin, OriginKind, Run, RunStatus, Session, Usage
from ..ports.agent import Message, PromptPart, ToolCall
from ..ports.transactions import Server

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


def session_of(row: sqlite3.Row) -> Session:
    """A row of ``sessions``."""
    return Session(
        id=row["id"],
        owner=row["owner"],
        title=row["title"],
        profile=row["profile"],
        model=row["model"],
        notebook_path=row["notebook_path"],
        kernel_id=row["kernel_id"],
        timezone=row["timezone"],
        created_at=from_micros(row["created_at"]),
        updated_at=from_micros(row["updated_at"]),
        head_seq=row["head_seq"],
        allowed_tools=tuple(json.loads(row["allowed_tools"])),
        context=json.loads(row["context"]),
    )


def run_of(row: sqlite3.Row) -> Run:
    """A row of ``runs``."""
    failed = row["error_code"] is not None
    return Run(
        id=row["id"],
        session_id=row["session_id"],
        command_id=row["command_id"],
        status=RunStatus(row["status"]),
        origin=Origin(kind=OriginKind(row["origin_kind"]), recall_id=row["recall_id"]),
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
        error=Failure(code=row["error_code"], message=row["error_message"]) if failed else None,
        merged_into=row["merged_into"],
        rolled_back=bool(row["rolled_back"]),
    )


def server_of(row: sqlite3.Row) -> Server:
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
    return row


def load_parts(row: sqlite3.Row) -> tuple[PromptPart, ...]:
    """The prompts of a row of ``runs``; where it has no ``parts``, its prompt alone."""
    if row["parts"] is None:
        return (PromptPart(command_id=row["command_id"], text=row["prompt"]),)
    return tuple(
        PromptPart(
            command_id=part["command_id"],
            text=part["text"],
            display=part.get("display"),
            attachments=tuple(Attachment.model_validate(one) for one in part.get("attachments", ())),
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
