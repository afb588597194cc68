"""What happened in a session while its user was away, as a table: what ran, and what did not and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from .errors import UsageError
from .listing import Listing
from .render import moment
from .service import Service

_COLUMNS = ("when", "what", "became", "answer or reason")


def read_away(service: Service, session_id: str, since: datetime | str | None = None) -> Listing[dict[str, Any]]:
    """What happened since then, or since the user was last there; oldest first. Raises UsageError, Refused.

    A row has ``at``, ``what``, ``status`` and ``told``; those of runs also ``run_id``. Slots of one recall that did not
    run for one reason are one row, which says how many they are (``slots``).
    """
    query = {} if since is None else {"since": _instant(since)}
    found = service.call("GET", f"sessions/{session_id}/away", query=query)
    rows = sorted([*map(_ran, found["runs"]), *not_run(found["not_run"])], key=lambda row: row["at"])
    empty = f"Nothing happened since {moment(found['since'])}."
    return Listing(rows, _COLUMNS, _row, empty=empty)


def _instant(since: datetime | str) -> str:
    try:
        at = datetime.fromisoformat(since) if isinstance(since, str) else since
    except ValueError:
        raise UsageError(f"{since!r} is no time in ISO 8601, such as 2026-11-24T09:00.", field="since") from None
    return (at if at.tzinfo else at.astimezone()).isoformat()


def _ran(run: Mapping[str, Any]) -> dict[str, Any]:
    what = f"⏰ {run['prompt']}" if run["origin"]["kind"] == "recall" else run["prompt"]
    told = run["answer"] or (run["error"] or "").replace("_", " ")
    return {"at": run["at"], "what": what, "status": run["status"], "told": told, "run_id": run["run_id"]}


def not_run(slots: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each recall and reason; ``at`` is its first slot."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for slot in slots:
        reason = str(slot["reason"] or "")
        key = (slot["recall_id"], slot["status"], reason)
        row = groups.setdefault(
            key, {"at": slot["slot"], "what": slot["title"], "status": slot["status"], "told": reason, "slots": 0}
        )
        row["slots"] += 1 + slot["coalesced"]
    yield from groups.values()


def _row(row: Mapping[str, Any]) -> list[str]:
    times = f" ({row['slots']} times)" if row.get("slots", 1) > 1 else ""
    return [moment(row["at"]), row["what"], f"{row['status'].replace('_', ' ')}{times}", _plain(row["told"])]


def _plain(told: str) -> str:
    """A reason that names an instant of the machine's in the reader's clock."""
    head, into, at = told.partition("coalesced into ")
    return f"made up for by the run of {_clock(at)}" if into and not head else told


def _clock(at: str) -> str:
    try:
        return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return at
