"""Submits a claimed firing's prompt to its session, and returns the outcome.

Repeating a delivery is harmless: the prompt is named by its planned time, and a session swallows what it has. Not
responsible for recording the outcome: that is the scheduler, under the fence of the claim.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from ..commands import Prompt
from ..errors import LeaseLost, LimitReached, NaviError, NotReady, SessionBusy, SessionNotFound, StoreError
from ..log_setup import ROOT, get_logger
from ..model.attachments import AttachmentRef
from ..model.sessions import Origin, OriginKind
from ..ports.tracing import AttributeValue, Tracing
from .decisions import Busy, Died, Expired, Outcome, PromptAccepted, too_late
from .ledger import end_unwanted
from .notices import prompt_mode, prompt_text

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ports.recalls import Claimed, RecallStore
    from ..ports.store import Submit
    from .mutations import WhensChanged

log = get_logger("recalls")
_logger = logging.getLogger(f"{ROOT}.recalls")

UNREADY_DELAY = timedelta(seconds=5)
PATIENCE = 15.0
"""Seconds in which a session has to answer: longer than a locked database is waited for, so that one session that is
stuck does not keep the deliveries of all others."""


class RecallDelivery:
    def __init__(
        self,
        store: RecallStore,
        submit: Submit,
        *,
        clock: Clock,
        busy_delay: timedelta,
        whens_changed: WhensChanged,
        full_text: Callable[[str], str],
        spans: Tracing,
    ) -> None:
        """``full_text``: what is sent for a message of the user's: another text for the name of a prompt."""
        self._store = store
        self._submit = submit
        self._clock = clock
        self._busy_delay = busy_delay
        self._whens_changed = whens_changed
        self._full_text = full_text
        self._spans = spans

    async def deliver(self, claim: Claimed) -> Outcome:
        """Submit the prompt to the session. Raises nothing; repeating it is harmless."""
        if not self._spans.on:
            return await self._delivered(claim, None)
        firing = claim.firing.firing
        about: dict[str, AttributeValue | None] = {
            "navi.recall.id": firing.recall_id,
            "navi.firing.id": firing.id,
            "navi.firing.slot": firing.slot.isoformat(),
            "navi.firing.kind": firing.kind,
            "navi.firing.attempt": firing.attempt,
            "navi.firing.late_seconds": max(0.0, (self._clock.now() - firing.slot).total_seconds()),
            "gen_ai.conversation.id": claim.firing.session_id,
        }
        with self._spans.first_span("fire recall", about, parent=None, kind="producer") as span:
            outcome = await self._delivered(claim, span.traceparent)
            run_id = outcome.run_id if isinstance(outcome, PromptAccepted) else None
            span.set({"navi.firing.outcome": type(outcome).__name__, "navi.run.id": run_id})
            if isinstance(outcome, Died):
                span.fail("not_delivered")
            return outcome

    async def _delivered(self, claim: Claimed, traceparent: str | None) -> Outcome:
        firing, recall, now = claim.firing, claim.recall.recall, self._clock.now()
        if (expired := too_late(recall, firing, now)) is not None:
            return expired
        try:
            if recall.policy.cancel_on and firing.firing.kind != "manual":
                ended = await self._ended_by_user(claim)
                if ended is not None:
                    return ended
            # Given up, it may be accepted all the same: the report is checked against the log when it is settled.
            async with asyncio.timeout(PATIENCE):
                acceptance = await self._submit(
                    firing.session_id,
                    Prompt(
                        command_id=firing.command_id,
                        text=prompt_text(recall, firing, now, self._full_text),
                        display=recall.message,
                        mode=prompt_mode(recall.policy),
                        images=tuple(AttachmentRef(id=attachment) for attachment in firing.attachments),
                        traceparent=traceparent,
                    ),
                    user_id=claim.recall.owner,
                    origin=Origin.trusted(kind=OriginKind.RECALL, recall_id=recall.id, kernel_id=None),
                )
        except (NaviError, TimeoutError) as error:
            return self._refused(error)
        except Exception:
            log.exception("recall_delivery_failed", recall_id=recall.id, firing_id=firing.firing.id)
            return Died(reason="the delivery failed; the server's log has the details")
        at = self._clock.now()
        if _logger.isEnabledFor(logging.INFO):  # structlog takes longer to find out
            late_by = (at - firing.firing.slot).total_seconds()
            log.info("recall_fired", recall_id=recall.id, run_id=acceptance.run_id, late_by=late_by)
        return PromptAccepted(run_id=acceptance.run_id, at=at)

    def _refused(self, error: NaviError | TimeoutError) -> Outcome:
        """The outcome when the session did not accept the prompt."""
        match error:
            case SessionBusy():
                return Busy(delay=self._busy_delay)
            case SessionNotFound():
                return Expired(reason="its session is gone")
            case LimitReached():
                return Busy(delay=self._busy_delay, reason=error.message, session=False)
            case LeaseLost():  # paused, or the user came: that is found out next; else this is refused by its fence
                return Busy(delay=timedelta(0), reason=error.message, session=False)
            case NotReady() | StoreError():
                return Busy(delay=UNREADY_DELAY, reason=error.message, session=False)
            case NaviError():
                return Died(reason=error.message)
            case _:
                return Busy(delay=UNREADY_DELAY, reason="the session did not answer in time", session=False)

    async def _ended_by_user(self, claim: Claimed) -> Outcome | None:
        """The outcome when the user has come meanwhile (``cancel_on``) and that is not recorded yet: it is, here.

        So the recall's end has its reason. That nothing starts after the user came is guarded by the transaction that
        would start it (``may_deliver``).
        """
        session_id, now = claim.firing.session_id, self._clock.now()
        seen = await self._store.seen(session_id, claim.recall.owner)
        if seen.ends(claim.recall.recall) is None:
            return None
        await self._store.write(lambda tx: end_unwanted(tx, session_id, seen, now), durable=True)
        self._whens_changed({claim.recall.owner})
        # Void when its row is closed now. When it is not, the recall was changed since it was taken: it is taken anew.
        return Busy(delay=timedelta(0), reason="it was changed meanwhile", session=False)
