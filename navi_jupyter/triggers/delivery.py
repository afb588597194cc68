"""Delivery of occurrences to the ledger: in order per recall, tried again until the store has them.

Not responsible for what an occurrence is (``watch``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import AttachmentRefused, LimitReached, NaviError
from ..log_setup import get_logger
from ..output_text import OutputImage
from ..ports.agent import Attachments
from ..ports.recalls import Happened, Occurrences
from .report import TriggerReport
from .watch import Occurrence, Watch

log = get_logger("watching")

MAX_PENDING = 100  # occurrences of one recall that wait to be stored; what comes on top is left out, and logged
RETRY_FIRST, MAX_RETRY = 0.2, 10.0
LAST_TRIES = 2.0  # seconds that a server which stops waits for what is under way


class TriggerDelivery:
    """See the module. Each recall with occurrences to deliver has a task, as long as it has some."""

    def __init__(
        self, occurrences: Occurrences, attachments: Attachments | None, *, taken: Callable[[Watch], None]
    ) -> None:
        self._occurrences = occurrences
        self._attachments = attachments
        self._taken = taken  # called when the ledger has an occurrence of this recall
        self._queues: dict[str, asyncio.Queue[tuple[Watch, Occurrence]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, watch: Watch, occurrence: Occurrence) -> None:
        """Never blocks."""
        if watch.over:
            return
        if watch.pending >= MAX_PENDING:
            log.warning("occurrence_left_out", recall_id=watch.id, key=occurrence.key)
            return
        # At once, before the ledger has it: a second cell that ends meanwhile must not count.
        watch.over = watch.once or occurrence.never is not None
        watch.pending += 1
        self._queues.setdefault(watch.id, asyncio.Queue()).put_nowait((watch, occurrence))
        if watch.id not in self._tasks:
            self._tasks[watch.id] = asyncio.create_task(self._run(watch.id), name=f"navi-deliver-{watch.id}")

    async def close(self) -> None:
        """Wait a little for what is under way: at the next start it would be seen again, but not with its outputs."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_TRIES)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, recall_id: str) -> None:
        queue = self._queues[recall_id]
        try:
            while not queue.empty():
                watch, occurrence = queue.get_nowait()
                try:
                    await self._deliver(watch, occurrence)
                except Exception:
                    log.exception("occurrence_lost", recall_id=watch.id, key=occurrence.key)
                watch.pending -= 1
        finally:
            del self._tasks[recall_id], self._queues[recall_id]

    async def _deliver(self, watch: Watch, occurrence: Occurrence) -> None:
        report = occurrence.report
        if not isinstance(report, TriggerReport):
            report = await asyncio.to_thread(report)  # it decodes images
        images = await self._store_images(watch, report)
        happened = Happened(
            recall_id=watch.id, key=occurrence.key, at=occurrence.at, detail=report.detail, attachments=images
        )
        pause = RETRY_FIRST
        while True:
            try:
                if occurrence.never is None:
                    taken = await self._occurrences.record(happened)
                else:
                    taken = await self._occurrences.expire(happened, occurrence.never)
            except NaviError as error:
                log.warning("occurrence_not_taken", recall_id=watch.id, key=occurrence.key, error=error.message)
            except Exception:
                log.exception("occurrence_not_taken", recall_id=watch.id, key=occurrence.key)
            else:
                log.info("occurrence", recall_id=watch.id, key=occurrence.key, taken=taken)
                # Not taken (the recall was paused or changed meanwhile): it goes on waiting.
                watch.over = watch.over and taken
                self._taken(watch)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY)

    async def _store_images(self, watch: Watch, report: TriggerReport) -> tuple[str, ...]:
        """The attachments' ids. An image that the store refuses is left out: the report's text matters more."""
        stored: list[str] = []
        for number, image in enumerate(report.images, 1):
            attachment = await self._store_image(watch, image, number)
            if attachment is not None and attachment not in stored:
                stored.append(attachment)
        return tuple(stored)

    async def _store_image(self, watch: Watch, image: OutputImage, number: int) -> str | None:
        if self._attachments is None:
            return None
        name = f"output-{number}.{image.media_type.partition('/')[2]}"
        try:
            stored = await self._attachments.add(
                image.content,
                name=name,
                media_type=image.media_type,
                owner=watch.state.owner,
                session_id=watch.state.recall.session_id,
            )
        except (AttachmentRefused, LimitReached) as error:
            log.info("image_left_out", recall_id=watch.id, reason=error.message)
            return None
        except NaviError as error:
            log.warning("image_not_stored", recall_id=watch.id, error=error.message)
            return None
        return stored.id
