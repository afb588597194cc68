"""What a webhook gets of a firing or a run that is over: one form of body, described by a JSON schema.

Not responsible for its signature and its way (``webhook_sender``).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ..model.base import Instant, Value
from ..model.sessions import Failure, OriginKind, Run, RunStatus, Usage
from ..ports.notifications import Notice
from ..text import truncate
from .messages import link_to
from .webhook_sender import Webhook

ANSWER = 4000  # characters of an answer


class WebhookSession(Value):
    """The session of an event."""

    id: str
    title: str | None  # null where the target has `content = false`
    notebook_path: str | None
    url: str | None  # its page, where the server's address is known


class WebhookRecall(Value):
    """The recall of an event."""

    id: str
    title: str | None  # null where the target has `content = false`


class WebhookFiring(Value):
    """A firing that is over."""

    id: str
    slot: Instant  # when it was due
    kind: str  # `auto`, `manual` or `event`
    status: str  # `succeeded`, `failed`, `skipped`, `missed` or `expired`
    reason: str | None  # null where the target has `content = false`: it may quote an error
    lateness_ms: int | None  # milliseconds from the slot to the start of its run


class WebhookRun(Value):
    """A run that is over."""

    id: str
    status: RunStatus
    origin: OriginKind
    model: str
    created_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    usage: Usage
    error: Failure | None  # its message is empty where the target has `content = false`
    answer: str | None
    """The run's last message, at most 4,000 characters. Null without one, and for a target with `content = false`."""


class WebhookData(Value):
    """What has happened, to whom."""

    user: str
    session: WebhookSession | None  # null for a test
    recall: WebhookRecall | None  # null for a run that no recall has started
    firing: WebhookFiring | None  # null for `run.ended`
    run: WebhookRun | None  # null for a firing that has not run


class WebhookEvent(Value):
    """Body of the request that a webhook gets."""

    type: Literal["firing.ended", "run.ended", "test"]
    id: str  # as the header `webhook-id`: the same at each attempt, so that a receiver can leave out what it has
    timestamp: Instant  # when it happened, or for a test when it was asked for
    data: WebhookData


def event_of(notice: Notice, webhook: Webhook, *, base: str | None) -> WebhookEvent:
    """The event that a notice is about. ``base``: the server's address as its users open it."""
    content = webhook.content
    firing = _firing_of(notice, content=content)
    over_at = notice.run.ended_at if firing is None and notice.run is not None else notice.ended_at
    return WebhookEvent(
        type="run.ended" if firing is None else "firing.ended",
        id=f"run_ended:{notice.run_id}" if firing is None else f"firing_ended:{notice.firing_id}",
        timestamp=over_at or notice.slot,
        data=WebhookData(
            user=notice.owner,
            session=WebhookSession(
                id=notice.session_id,
                title=notice.session_title if content else None,
                notebook_path=notice.notebook_path,
                url=link_to(notice.session_id, base),
            ),
            recall=None
            if notice.recall_id is None
            else WebhookRecall(id=notice.recall_id, title=notice.recall_title if content else None),
            firing=firing,
            run=None if notice.run is None else _run_of(notice.run, notice.answer if content else "", content=content),
        ),
    )


def test_event(event_id: str, owner: str, *, at: datetime) -> WebhookEvent:
    """A test of a webhook, which the user has requested."""
    data = WebhookData(user=owner, session=None, recall=None, firing=None, run=None)
    return WebhookEvent(type="test", id=event_id, timestamp=at, data=data)


def encoded(event: WebhookEvent) -> bytes:
    """The body as it is sent."""
    return event.model_dump_json().encode()


def _firing_of(notice: Notice, *, content: bool) -> WebhookFiring | None:
    if notice.firing_id is None:
        return None
    return WebhookFiring(
        id=notice.firing_id,
        slot=notice.slot,
        kind=notice.kind,
        status=notice.status,
        reason=notice.reason if content else None,
        lateness_ms=notice.lateness_ms,
    )


def _run_of(run: Run, answer: str, *, content: bool) -> WebhookRun:
    error = run.error
    return WebhookRun(
        id=run.id,
        status=run.status,
        origin=run.origin.kind,
        model=run.model,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        usage=run.usage,
        error=error if error is None or content else Failure(code=error.code, message=""),
        answer=truncate(answer.strip(), ANSWER) or None,
    )
