"""SQL for questions to the user: in a transaction (``InterruptRows``) and for readers (``InterruptQueries``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..model.runs import AskOption, CallDetail, Interrupt, InterruptKind, InterruptStatus
from ..ports.store import Paused
from .prompts import WAITS
from .rows import from_micros, optional_instant, optional_micros, to_micros
from .statements import Readers, Row, Statements, json_list

_COLUMNS = (
    "id, session_id, run_id, kind, message, tool_call_id, tool, args, response_schema, subagent_run_id, durable,"
    " created_at, expires_at, status, source, details, fingerprint, options"
)
OF_LAST_PAUSE = (
    "durable = 1 AND run_id = ? AND created_at ="
    " (SELECT max(created_at) FROM interrupts WHERE run_id = ? AND durable = 1)"
)
"""The questions with which a run (named twice) last paused."""
_READY = (
    "SELECT session_id FROM runs WHERE status IN ('running', 'waiting') AND status = 'waiting' AND NOT EXISTS"
    " (SELECT 1 FROM interrupts i WHERE i.run_id = runs.id AND i.status = 'open')"
)
_EXPIRED = "FROM interrupts WHERE status = 'open' AND expires_at IS NOT NULL AND expires_at <= ? AND durable = 1"


def interrupt_of(row: Row) -> Interrupt:
    """A row of ``interrupts``."""
    return Interrupt(
        id=row["id"],
        session_id=row["session_id"],
        run_id=row["run_id"],
        kind=InterruptKind(row["kind"]),
        message=row["message"],
        tool_call_id=row["tool_call_id"],
        tool=row["tool"],
        args=_load(row["args"]),
        source=row["source"],
        details=tuple(CallDetail.model_validate(one) for one in _load(row["details"]) or ()),
        fingerprint=row["fingerprint"],
        response_schema=_load(row["response_schema"]),
        options=tuple(AskOption.model_validate(one) for one in _load(row["options"]) or ()),
        subagent_run_id=row["subagent_run_id"],
        durable=bool(row["durable"]),
        created_at=from_micros(row["created_at"]),
        expires_at=optional_instant(row["expires_at"]),
        status=InterruptStatus(row["status"]),
        payload=_load(row["payload"]),
        answered_by=row["answered_by"],
        answered_at=optional_instant(row["answered_at"]),
    )


def _dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


class InterruptRows(Statements):
    """The part of :class:`navi_jupyter.ports.SessionTx` that is about questions."""

    async def add_interrupt(self, interrupt: Interrupt) -> None:
        await self.change(
            f"INSERT INTO interrupts ({_COLUMNS}) VALUES ({', '.join('?' * 18)})",
            (
                interrupt.id,
                interrupt.session_id,
                interrupt.run_id,
                interrupt.kind.value,
                interrupt.message,
                interrupt.tool_call_id,
                interrupt.tool,
                _dump(interrupt.args),
                _dump(interrupt.response_schema),
                interrupt.subagent_run_id,
                interrupt.durable,
                to_micros(interrupt.created_at),
                optional_micros(interrupt.expires_at),
                interrupt.status.value,
                interrupt.source,
                _dump([one.wire() for one in interrupt.details] or None),
                interrupt.fingerprint,
                _dump([one.wire() for one in interrupt.options] or None),
            ),
        )

    async def interrupt(self, interrupt_id: str) -> Interrupt | None:
        row = await self.one("SELECT * FROM interrupts WHERE id = ?", (interrupt_id,))
        return None if row is None else interrupt_of(row)

    async def open_interrupts(self, run_id: str) -> Sequence[Interrupt]:
        rows = await self.all(
            "SELECT * FROM interrupts WHERE run_id = ? AND status = 'open' ORDER BY number", (run_id,)
        )
        return [interrupt_of(row) for row in rows]

    async def settle_interrupt(
        self,
        interrupt_id: str,
        *,
        status: InterruptStatus,
        at: datetime,
        payload: Any = None,
        answered_by: str | None = None,
    ) -> Interrupt | None:
        changed = await self.change(
            "UPDATE interrupts SET status = ?, payload = ?, answered_by = ?, answered_at = ?"
            " WHERE id = ? AND status = 'open'",
            (status.value, _dump(payload), answered_by, to_micros(at), interrupt_id),
        )
        return await self.interrupt(interrupt_id) if changed == 1 else None

    async def expired_interrupts(self, *, at: datetime) -> Sequence[Interrupt]:
        rows = await self.all(
            f"SELECT * {_EXPIRED}{self.served.of_session('interrupts.session_id')} ORDER BY number", (to_micros(at),)
        )
        return [interrupt_of(row) for row in rows]


class InterruptQueries(Readers):
    """The reads of :class:`navi_jupyter.ports.SessionStore` that are about questions."""

    async def interrupts(self, interrupt_ids: Iterable[str]) -> Sequence[Interrupt]:
        wanted = json_list(interrupt_ids)
        rows = await self.fetch_all("SELECT * FROM interrupts WHERE id IN (SELECT value FROM json_each(?))", (wanted,))
        return [interrupt_of(row) for row in rows]

    async def open_interrupts(self, session_id: str) -> Sequence[Interrupt]:
        rows = await self.fetch_all(
            "SELECT * FROM interrupts WHERE session_id = ? AND status = 'open' ORDER BY number", (session_id,)
        )
        return [interrupt_of(row) for row in rows]

    async def session_interrupts(
        self, session_id: str, *, settled_of: Iterable[str] | None = None
    ) -> Sequence[Interrupt]:
        if settled_of is None:
            rows = await self.fetch_all("SELECT * FROM interrupts WHERE session_id = ? ORDER BY number", (session_id,))
        else:
            wanted = json_list(settled_of)
            rows = await self.fetch_all(
                "SELECT * FROM interrupts WHERE run_id IN (SELECT value FROM json_each(?)) AND session_id = ?"
                " AND status <> 'open' ORDER BY number",
                (wanted, session_id),
            )
        return [interrupt_of(row) for row in rows]

    async def paused(self, run_id: str) -> Paused | None:
        async def view(statements: Statements) -> Paused | None:
            row = await statements.one("SELECT conversation FROM runs WHERE id = ? AND ended_at IS NULL", (run_id,))
            rows = await statements.all(
                f"SELECT * FROM interrupts WHERE {OF_LAST_PAUSE} ORDER BY number", (run_id, run_id)
            )
            if row is None or not rows:
                return None
            return Paused(conversation=row["conversation"], interrupts=tuple(interrupt_of(one) for one in rows))

        return await self.read(view)  # in one hop: each start of a run asks

    @property
    def _ready(self) -> str:
        return _READY + self.served.of_session("runs.session_id")

    async def ready_sessions(self) -> Sequence[str]:
        return [row["session_id"] for row in await self.fetch_all(self._ready)]

    async def queued_sessions(self) -> Mapping[str, int]:
        served = self.served.of_session("runs.session_id")
        ready = f"SELECT session_id, 0 FROM ({self._ready}) AS ready"
        each = f"SELECT session_id, 1 AS waits FROM runs WHERE {WAITS}{served} UNION ALL {ready}"
        rows = await self.fetch_all(
            f"SELECT session_id, sum(waits) AS waiting FROM ({each}) AS one GROUP BY session_id"
        )
        return {row["session_id"]: row["waiting"] for row in rows}

    async def expiring(self, *, at: datetime) -> bool:
        text = f"SELECT 1 {_EXPIRED}{self.served.of_session('interrupts.session_id')} LIMIT 1"
        return await self.fetch_one(text, (to_micros(at),)) is not None
