"""What code shows while it runs, as the activity ``navi.output`` of the tool call that runs it.

Told about outputs as they come, writes them into the log a few times a second at most, within bounds, with images as
attachments. Not responsible for what the model reads of them (``output_text``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from ...errors import NaviError
from ...events import ActivityDelta, ActivitySnapshot, Event
from ...model.base import new_id
from ...ports.agent import ToolContext, subagent, tool_call

ACTIVITY = "navi.output"
IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}

_OFTEN = 0.05
"""Seconds between two deltas, at first. Code that shows something for minutes is drawn more seldom."""
_SELDOM = 1.0
_TEXT = 100_000
"""Characters of streams that one call writes into the log."""
_TAIL = 4_000
"""Characters of what came after them, written at the end."""
_RICH = 1_000_000
"""Characters of everything else, images not counted."""
_ONE = 200_000
"""Characters of one piece of a bundle; an image that can not be stored beside the log, too."""
_COUNT = 300
"""Outputs and changes of them, besides streams."""


class OutputFeed:
    """See the module. ``async with`` it around the execution, and give :meth:`take` to the kernel."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._call = tool_call.get() or new_id("t")
        self._worker = subagent.get()
        self._message = f"{self._call}:output"
        self._waiting: list[Mapping[str, Any]] = []
        self._grown = asyncio.Event()
        self._over = asyncio.Event()
        self._places: list[int | None] = []
        """For each output that we were told of since the last clearing: where it is in the log."""
        self._shown = 0
        self._text = self._rich = self._count = self._left_out = 0
        self._tail = ""
        self._began = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._emit(
            ActivitySnapshot(
                message_id=self._message,
                activity_type=ACTIVITY,
                content={"toolCallId": self._call, "outputs": []},
                subagent_run_id=self._worker,
            )
        )
        self._task = asyncio.create_task(self._write(), name=f"navi-output-{self._call}")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._grown.set()
        if self._task is not None:
            if kind is not None:
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        # After a stop nothing is stored any more: an image becomes what its text says.
        await self._flush(store=kind is None)
        if self._left_out:
            more = f"\n… {self._left_out:,} characters are not shown here …\n{self._tail}"
            self._patch([self._added({"output_type": "stream", "name": "stdout", "text": more})])

    def take(self, output: Mapping[str, Any]) -> None:
        """See ``ports.jupyter.OnOutput``."""
        last = self._waiting[-1] if self._waiting else None
        if (
            last is not None
            and last["output_type"] == output["output_type"] == "stream"
            and last["name"] == output["name"]
        ):
            self._waiting[-1] = {**last, "text": last["text"] + output["text"], "told": last.get("told", 1) + 1}
        else:
            self._waiting.append(output)
        self._grown.set()

    async def _write(self) -> None:
        while not self._over.is_set():
            await self._grown.wait()
            self._grown.clear()
            await self._flush(store=True)
            pause = min(_SELDOM, max(_OFTEN, (time.monotonic() - self._began) / 40))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), pause)

    async def _flush(self, *, store: bool) -> None:
        patch: list[dict[str, Any]] = []
        while self._waiting:
            output = self._waiting.pop(0)
            patch += await self._operations(output, store=store)
        if patch:
            self._patch(patch)

    async def _operations(self, output: Mapping[str, Any], *, store: bool) -> list[dict[str, Any]]:
        match output["output_type"]:
            case "clear_output":
                self._places.clear()
                self._shown = self._left_out = 0
                self._tail = ""
                return [{"op": "replace", "path": "/outputs", "value": []}]
            case "stream":
                return self._of_stream(output)
            case "update_display_data":
                return await self._of_update(output, store=store)
            case _:
                self._count += 1
                if self._count > _COUNT:
                    self._places.append(None)
                    return []
                shown = dict(output)
                if "data" in shown:
                    shown["data"] = await self._bundle(shown["data"], store=store)
                self._places.append(self._shown)
                return [self._added(shown)]

    def _of_stream(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        text = output["text"]
        now = text[: max(0, _TEXT - self._text)]
        rest = text[len(now) :]
        self._text += len(now)
        if rest:
            joined = self._tail + rest
            self._tail = joined[-_TAIL:]
            self._left_out += len(rest)
        self._places += [self._shown if now else None] * output.get("told", 1)
        return [self._added({"output_type": "stream", "name": output["name"], "text": now})] if now else []

    async def _of_update(self, output: Mapping[str, Any], *, store: bool) -> list[dict[str, Any]]:
        index = output["index"]
        place = self._places[index] if index < len(self._places) else None
        self._count += 1
        if place is None or self._count > _COUNT:
            return []
        data = await self._bundle(output["data"], store=store)
        return [
            {"op": "replace", "path": f"/outputs/{place}/data", "value": data},
            {"op": "replace", "path": f"/outputs/{place}/metadata", "value": dict(output.get("metadata") or {})},
        ]

    def _added(self, output: dict[str, Any]) -> dict[str, Any]:
        self._shown += 1
        return {"op": "add", "path": "/outputs/-", "value": output}

    async def _bundle(self, data: Mapping[str, Any], *, store: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for kind, value in data.items():
            if kind in IMAGES and isinstance(value, str):
                reference = await self._attachment(kind, value) if store else None
                if reference is not None:
                    shown[kind] = reference
                    continue
            size = len(value) if isinstance(value, str) else len(str(value))
            if size <= _ONE and self._rich + size <= _RICH:
                self._rich += size
                shown[kind] = value
        if not shown:
            shown["text/plain"] = f"({', '.join(data)}: too large to be shown here)"
        return shown

    async def _attachment(self, kind: str, encoded: str) -> dict[str, Any] | None:
        store = self._context.attachments
        if store is None:
            return None
        try:
            content = await asyncio.to_thread(base64.b64decode, encoded)
            stored = await store.add(
                content,
                name=f"output.{IMAGES[kind]}",
                media_type=kind,
                owner=self._context.user_id,
                session_id=self._context.session.id,
            )
        except (NaviError, binascii.Error, ValueError):
            return None  # too large for this server, or no image: what else the bundle has is shown
        return {"attachment": stored.id}

    def _patch(self, patch: list[dict[str, Any]]) -> None:
        self._emit(
            ActivityDelta(
                message_id=self._message, activity_type=ACTIVITY, patch=tuple(patch), subagent_run_id=self._worker
            )
        )

    def _emit(self, event: Event) -> None:
        self._context.emit(event)
