"""The messages that people get of firings: of one, of several in a digest, and the test of a target.

Not responsible for what programs get (``webhook_body``), nor for when a message is sent (``service``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from ..clock import zone_or_utc
from ..ports.notifications import Notice
from ..text import one_line, truncate

ANSWER = 500  # characters of an answer
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
_HELD = {
    "quiet": "during your quiet hours",
    "rate": "while there were too many messages to send",
    "silence": "while you could not be reached",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NotificationMessage:
    """A message as Apprise takes it."""

    title: str
    body: str


def link_to(session_id: str | None, base: str | None) -> str | None:
    """The URL of a session's page. ``base``: the server's address as its users open it, with its path."""
    if not base:
        return None
    page = f"{base.rstrip('/')}/navi"
    return page if session_id is None else f"{page}?{urlencode({'session': session_id}, quote_via=quote)}"


def message_about(notice: Notice, *, base: str | None) -> NotificationMessage:
    """About one firing."""
    parts = [truncate(notice.answer.strip(), ANSWER) or _why(notice), link_to(notice.session_id, base)]
    return NotificationMessage(title=f"Navi: {_outcome(notice)}", body="\n\n".join(part for part in parts if part))


def digest(notices: Sequence[Notice], *, base: str | None) -> NotificationMessage:
    """About several firings, oldest first, in one message."""
    ordered = sorted(notices, key=lambda notice: notice.slot)
    lines = [_entry(notice) for notice in ordered[:_DIGEST_LINES]]
    if len(ordered) > _DIGEST_LINES:
        lines.append(f"… and {len(ordered) - _DIGEST_LINES} more")
    sessions = {notice.session_id for notice in notices}
    link = link_to(sessions.pop() if len(sessions) == 1 else None, base)
    held = next((_HELD[notice.held] for notice in ordered if notice.held), "meanwhile")
    return NotificationMessage(
        title=f"Navi: {len(ordered)} recalls {held}", body="\n".join(lines) + (f"\n\n{link}" if link else "")
    )


def test_message(name: str, *, base: str | None) -> NotificationMessage:
    """A test of a target, which the user has requested."""
    body = f"Navi can reach you here: this is a test of the target {name}."
    link = link_to(None, base)
    return NotificationMessage(title="Navi: test", body=f"{body}\n\n{link}" if link else body)


def _entry(notice: Notice) -> str:
    at = notice.slot.astimezone(zone_or_utc(notice.zone))
    answer = one_line(notice.answer, _DIGEST_ANSWER) or _why(notice)
    return f"• {at:%a %H:%M} {_outcome(notice)}" + (f": {answer}" if answer else "")


def _outcome(notice: Notice) -> str:
    return f"{one_line(notice.recall_title, 100)} – {_ENDS.get(notice.status, notice.status)}"


def _why(notice: Notice) -> str:
    return truncate((notice.error or notice.reason or "").strip(), ANSWER)
