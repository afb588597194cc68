"""Writes what a running cell says into its notebook: at once where it is shared, every few seconds into a file.

A recording is a task of its own: a run that is stopped lets go of it, and what came so far is still kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import NaviError
from ...log_setup import get_logger
from ...ports.jupyter import Execution, OnOutput, Output
from .cells import Record, joined, text_of

log = get_logger("notebooks")
LIVE_SECONDS = 0.1
"""Between two changes of a shared document."""
FILE_SECONDS = 3.0
"""Between two saves of a file."""
STOPPED_SECONDS = 2.0
"""How long a run that is stopped waits for what came so far to be written."""

Write = Callable[[Record], Awaitable[bool]]
"""Brings a record into the notebook; whether that is shared now."""


class Recording:
    """One execution of one cell."""

    def __init__(self, cell: str, write: Write, on_output: OnOutput | None) -> None:
        self._cell = cell
        self._write = write
        self._on_output = on_output
        self._heard: list[dict[str, Any]] = []
        """Outputs since they were last cleared, adjacent pieces of a stream as one."""
        self._pieces: list[str] = []
        """Text that belongs to the last of them, a stream. Put together when it is written: prints can be many."""
        self._places: list[int] = []
        """For each output that came since then, where it is."""
        self._fresh = False
        """There is something that is not in the notebook."""
        self._grown = True
        """What the notebook has is a beginning of what was heard."""
        self._written = False
        self._count: int | None = None
        self._over = False
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._keep(), name=f"navi-recording-{cell}")

    def hear(self, output: Output) -> None:
        """An output came. See ``jupyter.outputs`` for those that change earlier ones."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._replace([])
        elif kind == "update_display_data":
            index = int(output["index"])
            if index < len(self._places):
                place = self._places[index]
                self._heard[place] = {**self._heard[place], **_data_of(output)}
            self._grown = False
        else:
            self._add(output)
        self._fresh = True
        self._news.set()
        if self._on_output is not None:
            self._on_output(output)

    def finish(self, execution: Execution | None) -> None:
        """It is over; None when it was stopped before it said how, or did not begin."""
        if execution is not None:
            self._count = execution.execution_count
            final = joined(execution.outputs)
            if final != self._all():
                self._replace(final)
            self._fresh = True
        self._over = True
        self._news.set()

    async def settled(self, within: float | None = None) -> None:
        """Return once all is written, or after ``within`` seconds; the writing goes on."""
        await asyncio.wait({self.task}, timeout=within)

    def _add(self, output: Output) -> None:
        last = self._heard[-1] if self._heard else None
        if output["output_type"] != "stream":
            self._all()
            self._heard.append(dict(output))
        elif last is not None and last["output_type"] == "stream" and last["name"] == output["name"]:
            self._pieces.append(text_of(output["text"]))
        else:
            self._all()
            self._heard.append({**output, "text": text_of(output["text"])})
        self._places.append(len(self._heard) - 1)

    def _all(self) -> list[dict[str, Any]]:
        """What was heard, all in its place."""
        if self._pieces:
            self._heard[-1] = {**self._heard[-1], "text": self._heard[-1]["text"] + "".join(self._pieces)}
            self._pieces.clear()
        return self._heard

    def _replace(self, outputs: list[dict[str, Any]]) -> None:
        self._heard, self._grown = outputs, False
        self._pieces.clear()
        self._places.clear()

    async def _keep(self) -> None:
        try:
            live = await self._write(Record(cell=self._cell, outputs=None, running=True))
            while not self._over:
                await self._news.wait()
                self._news.clear()
                if self._fresh and not self._over:
                    live = await self._write(self._record(running=True))
                    await self._pause(LIVE_SECONDS if live else FILE_SECONDS)
            await self._write(self._record(running=False))
        except NaviError as error:
            # The cell is gone, or the notebook: the run has its result all the same.
            log.warning("outputs_not_kept", cell=self._cell, error=str(error))
        except Exception:  # nobody awaits this task: it is its own supervisor
            log.exception("outputs_not_kept", cell=self._cell)

    async def _pause(self, seconds: float) -> None:
        """Let more gather; the end does not wait."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self._over and (rest := deadline - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._news.wait(), rest)
            except TimeoutError:
                break
            self._news.clear()
        if self._fresh:
            self._news.set()

    def _record(self, *, running: bool) -> Record:
        if not self._fresh and not self._written:
            return Record(cell=self._cell, outputs=None, running=running)
        record = Record(
            cell=self._cell,
            outputs=tuple(self._all()),
            count=self._count,
            running=running,
            grown=self._grown and self._written,
        )
        self._fresh, self._grown, self._written = False, True, True
        return record


def _data_of(output: Output) -> dict[str, Any]:
    return {name: output[name] for name in ("data", "metadata") if name in output}
