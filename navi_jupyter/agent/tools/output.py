"""Outputs of running code, as the activity ``navi.output`` of the tool call that runs it.

Writes them into the log a few times a second at most, within bounds, with images as attachments. Not responsible for
what the model reads of them (``result_text``).
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
from ...events import ActivityDelta, ActivitySnapshot
from ...model.base import new_id
from ...ports.agent import ToolContext, subagent, tool_call
from ...text import IMAGE_TYPES

ACTIVITY = "navi.output"
# Seconds between two deltas: short at first, longer for code that prints for minutes.
_MIN_PERIOD, _MAX_PERIOD = 0.05, 1.0
_TEXT = 100_000  # characters of streams that one call writes into the log as they come
_TAIL = 4_000  # the last characters of the rest, written at the end
_RICH = 1_000_000  # characters of all other outputs, images not counted
_PIECE = 200_000  # characters of one MIME type of an output; also of an image that cannot be stored as an attachment
_COUNT = 300  # outputs and updates of them, besides streams


class OutputFeed:
    """See the module. Used as ``async with`` around the execution, with :meth:`take` as its ``on_output``."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._call_id = tool_call.get() or new_id("t")
        self._subagent = subagent.get()
        self._message_id = f"{self._call_id}:output"
        self._waiting: list[Mapping[str, Any]] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        # For each output since the last clearing: its index in the activity; None when it was left out.
        self._places: list[int | None] = []
        self._written = 0
        self._text = self._rich = self._count = self._left_out = 0
        self._tail = ""
        self._began = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._context.emit(
            ActivitySnapshot(
                message_id=self._message_id,
                activity_type=ACTIVITY,
                content={"toolCallId": self._call_id, "outputs": []},
                subagent_run_id=self._subagent,
            )
        )
        self._task = asyncio.create_task(self._write(), name=f"navi-output-{self._call_id}")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        if self._task is not None:
            if kind is not None:
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        # After a stop no attachment is stored: an image is represented by its text.
        await self._flush(store=kind is None)
        if self._left_out:
            more = f"\n… {self._left_out:,} characters are not shown here …\n{self._tail}"
            self._patch([self._added({"output_type": "stream", "name": "stdout", "text": more})])

    def take(self, output: Mapping[str, Any]) -> None:
        """Add an output; consecutive texts of a stream are merged. See ``ports.jupyter.OnOutput``."""
        last: Mapping[str, Any] = self._waiting[-1] if self._waiting else {"output_type": None}
        if last["output_type"] == output["output_type"] == "stream" and last["name"] == output["name"]:
            # A loop may print a million times. Updates refer to outputs by number, so the merged ones are counted.
            self._waiting[-1] = {**last, "text": last["text"] + output["text"], "merged": last.get("merged", 1) + 1}
        else:
            self._waiting.append(output)
        self._changed.set()

    async def _write(self) -> None:
        while not self._ended.is_set():
            await self._changed.wait()
            self._changed.clear()
            await self._flush(store=True)
            # A fortieth of the time so far: after two seconds 0.05 s, after forty 1 s.
            pause = min(_MAX_PERIOD, max(_MIN_PERIOD, (time.monotonic() - self._began) / 40))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), pause)

    async def _flush(self, *, store: bool) -> None:
        patch: list[dict[str, Any]] = []
        while self._waiting:
            patch += await self._operations(self._waiting.pop(0), store=store)
        if patch:
            self._patch(patch)

    async def _operations(self, output: Mapping[str, Any], *, store: bool) -> list[dict[str, Any]]:
        match output["output_type"]:
            case "clear_output":
                self._places.clear()
                self._written = self._left_out = 0
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
                self._places.append(self._written)
                return [self._added(shown)]

    def _of_stream(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        text = output["text"]
        now = text[: max(0, _TEXT - self._text)]
        rest = text[len(now) :]
        self._text += len(now)
        if rest:
            self._tail = (self._tail + rest)[-_TAIL:]
            self._left_out += len(rest)
        self._places += [self._written if now else None] * output.get("merged", 1)
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
        self._written += 1
        return {"op": "add", "path": "/outputs/-", "value": output}

    async def _bundle(self, data: Mapping[str, Any], *, store: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for kind, value in data.items():
            if kind in IMAGE_TYPES and isinstance(value, str):
                reference = await self._attachment(kind, value) if store else None
                if reference is not None:
                    shown[kind] = reference
                    continue
            size = len(value) if isinstance(value, str) else len(str(value))
            if size <= _PIECE and self._rich + size <= _RICH:
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
                name=f"output.{kind.removeprefix('image/')}",
                media_type=kind,
                owner=self._context.user_id,
                session_id=self._context.session.id,
            )
        except (NaviError, binascii.Error, ValueError):
            return None  # too large for this server, or not an image: the other types of the bundle are shown
        return {"attachment": stored.id}

    def _patch(self, patch: list[dict[str, Any]]) -> None:
        self._context.emit(
            ActivityDelta(
                message_id=self._message_id, activity_type=ACTIVITY, patch=tuple(patch), subagent_run_id=self._subagent
            )
        )
