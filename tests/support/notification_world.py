"""A ledger with firings that are to be told, on a real store, and a service whose clock the test moves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from navi_jupyter.model.base import new_id
from navi_jupyter.model.recalls import Cron, Firing, FiringStatus, Policy, Recall, RecallStatus
from navi_jupyter.model.sessions import Origin, OriginKind, Run, RunStatus, Session
from navi_jupyter.notifications.apprise_sender import MessageSender, why_unusable
from navi_jupyter.notifications.service import NotificationService
from navi_jupyter.notifications.targets import TargetFiles
from navi_jupyter.notifications.webhook_sender import WebhookSender
from navi_jupyter.ports.agent import Message
from navi_jupyter.ports.recalls import FiringState, RecallState
from navi_jupyter.store.database import Database
from navi_jupyter.store.notices import StoredNotices
from tests.support.database import open_store
from tests.support.scheduler_world import OWNER, START, TestClock
from tests.support.warm_sender import WARM

BASE = "https://hub.example.org/user/ada/"


class World:
    """See the module."""

    def __init__(self, store: Database, directory: Path) -> None:
        self.store = store
        self.clock = TestClock()
        self.notices = StoredNotices(store)
        self.directory = directory
        self.service = self.new_service()
        self.session_id = new_id("s")
        self._slots = itertools.count()

    def new_service(self, send: MessageSender | None = None) -> NotificationService:
        """Another server on the same database, or this one after a restart. ``send``: by processes that are kept."""
        files = TargetFiles(lambda: [str(self.directory)], check=lambda url: why_unusable(url, allow_private=True))
        return NotificationService(
            self.store,
            self.notices,
            files,
            send or WARM,
            clock=self.clock,
            base_url=lambda: BASE,
            webhooks=WebhookSender(allow_private=True),
        )

    def configure(self, text: str) -> None:
        path = self.directory / "navi" / "notify.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    async def prepare(self, zone: str = "UTC") -> None:
        session = Session(
            id=self.session_id, owner=OWNER, title="Losses", profile="assistant", model="offline", timezone=zone,
            created_at=START, updated_at=START,
        )  # fmt: skip
        await self.store.write(lambda tx: tx.add_session(session))

    async def fired(
        self,
        title: str,
        *,
        notify: tuple[str, ...] = ("desk",),
        quiet: str | None = None,
        status: FiringStatus = FiringStatus.SUCCEEDED,
        answer: str | None = "All is well.",
        reason: str | None = None,
    ) -> str:
        """A firing that is over and that people are to be told of, with its recall and its run; its id."""
        slot = START + timedelta(seconds=next(self._slots))
        recall = Recall(
            id=new_id("rec"), session_id=self.session_id, title=title, message=title,
            schedule=Cron(expr="0 9 * * *", tz="UTC"), policy=Policy(notify=notify, quiet=quiet),
            status=RecallStatus.PENDING, next_at=None, created_at=START, origin=OriginKind.USER,
        )  # fmt: skip
        run_id = None if answer is None else new_id("run")
        firing = Firing(
            id=new_id("fir"), recall_id=recall.id, slot=slot, status=FiringStatus.PENDING, not_before=slot,
        )  # fmt: skip
        state = FiringState(firing=firing, session_id=self.session_id, command_id=f"recall:{recall.id}:1")
        over = firing.model_copy(
            update={"status": status, "run_id": run_id, "reason": reason, "ended_at": slot, "delivery": "pending"}
        )

        async def unit(tx) -> None:  # type: ignore[no-untyped-def]
            await tx.add_recalls([RecallState(recall=recall, owner=OWNER, due_at=None)])
            await tx.add_firings([state])
            await tx.save_firings([replace(state, firing=over)])
            if run_id is not None:
                await self._add_run(tx, run_id, recall.id, str(answer), slot)

        await self.store.write(unit)
        return firing.id

    async def _add_run(self, tx, run_id: str, recall_id: str, answer: str, at: datetime) -> None:  # type: ignore[no-untyped-def]
        origin = Origin(kind=OriginKind.RECALL, recall_id=recall_id)
        run = Run(
            id=run_id, session_id=self.session_id, command_id=f"c-{run_id}", status=RunStatus.QUEUED, origin=origin,
            model="offline", created_at=at,
        )  # fmt: skip
        await tx.add_run(run, prompt="look", user_id=OWNER, first_seq=1)
        await tx.start_run(run_id, server_id="one", at=at, lease_until=at + timedelta(minutes=1))
        said = [
            Message(id="m1", role="assistant", content="Let me look.", run_id=run_id, origin=origin, at="x"),
            Message(id="m2", role="assistant", content=answer, run_id=run_id, origin=origin, at="x"),
        ]
        await tx.end_run(run_id, status=RunStatus.COMPLETED, at=at, transcript=said)

    async def notice(self, firing_id: str, target: str = "desk") -> tuple[str, int, str | None]:
        """(status, attempts, error) of the notice to one target."""
        row = await self.store.fetch_one(
            "SELECT status, attempts, error FROM notices WHERE firing_id = ? AND target = ?", (firing_id, target)
        )
        assert row is not None
        return row["status"], row["attempts"], row["error"]

    async def delivery(self, firing_id: str) -> tuple[str, str | None]:
        """How it was delivered, as the ledger says."""
        found = await self.store.write(lambda tx: tx.firing_states([firing_id]))
        firing = found[firing_id].firing
        return firing.delivery, firing.delivery_error


@asynccontextmanager
async def world(directory: Path, *, zone: str = "UTC", at: datetime | None = None) -> AsyncIterator[World]:
    """One on a fresh database."""
    store = await open_store(directory / "navi.db")
    try:
        made = World(store, directory)
        if at is not None:
            made.clock.at = at.astimezone(UTC)
        await made.prepare(zone)
        yield made
    finally:
        await store.close()
