"""What people are told: the words of a message about one firing, and of a digest of several. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from ..ports.notifications import Notice
from .quiet_hours import zone_of

ANSWER = 500
"""Characters of an answer."""
_DIGEST_ANSWER = 120
_DIGEST_LINES = 20
_ENDS = {
    "succeeded": "done",
    "failed": "failed",
    "skipped": "skipped",
    "missed": "missed",
    "coalesced": "made up for by a later run",
    "cancelled": "cancelled",
    "expired": "expired",
}
_BECAUSE = {
    "quiet": "during your quiet hours",
    "rate": "while there were too many messages to send",
    "silence": "while you could not be reached",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NotificationMessage:
    """A message."""

    title: str
    body: str


def link_to(session_id: str | None, base: str | None) -> str | None:
    """The session's page: ``base`` is the server's address as its users know it, with its path."""
    if not base:
        return None
    page = f"{base.rstrip('/')}/navi"
    return page if session_id is None else f"{page}?{urlencode({'session': session_id}, quote_via=quote)}"


def letter(notice: Notice, *, base: str | None) -> NotificationMessage:
    """About one firing."""
    parts = [_cut(notice.answer, ANSWER) or _why(notice), link_to(notice.session_id, base)]
    return NotificationMessage(
        title=f"Navi: {_line(notice.recall_title)} – {_end(notice)}",
        body="\n\n".join(part for part in parts if part),
    )


def digest(notices: Sequence[Notice], *, base: str | None) -> NotificationMessage:
    """About several firings, oldest first, in one message."""
    ordered = sorted(notices, key=lambda notice: notice.slot)
    lines = [_entry(notice) for notice in ordered[:_DIGEST_LINES]]
    if len(ordered) > _DIGEST_LINES:
        lines.append(f"… and {len(ordered) - _DIGEST_LINES} more")
    sessions = {notice.session_id for notice in notices}
    link = link_to(sessions.pop() if len(sessions) == 1 else None, base)
    held = next((_BECAUSE[notice.held] for notice in ordered if notice.held), "meanwhile")
    return NotificationMessage(
        title=f"Navi: {len(ordered)} recalls {held}",
        body="\n".join(lines) + (f"\n\n{link}" if link else ""),
    )


def trial(name: str, *, base: str | None) -> NotificationMessage:
    """To see whether a target works."""
    body = f"Navi can reach you here: this is a test of the target {name}."
    link = link_to(None, base)
    return NotificationMessage(title="Navi: test", body=f"{body}\n\n{link}" if link else body)


def _entry(notice: Notice) -> str:
    at = notice.slot.astimezone(zone_of(notice.zone))
    said = _cut(" ".join(notice.answer.split()), _DIGEST_ANSWER) or _why(notice)
    return f"• {at:%a %H:%M} {_line(notice.recall_title)} – {_end(notice)}" + (f": {said}" if said else "")


def _end(notice: Notice) -> str:
    return _ENDS.get(notice.status, notice.status)


def _why(notice: Notice) -> str:
    return _cut(notice.error or notice.reason or "", ANSWER)


def _line(text: str) -> str:
    return _cut(" ".join(text.split()), 100)


def _cut(text: str, most: int) -> str:
    text = text.strip()
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
