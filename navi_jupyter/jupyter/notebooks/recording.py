"""The outputs of one execution of one cell, written into its notebook while they come.

Not responsible for how they are written, into a shared document or a file (``service``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import NaviError
from ...log_setup import get_logger
from ...output_text import merge_streams
from ...ports.jupyter import Execution, OnOutput, Output
from ...text import joined
from .cells import RecordOutputs

log = get_logger("notebooks")

LIVE_SECONDS = 0.1  # between two changes of a shared document
FILE_SECONDS = 3.0  # between two saves of a file
STOPPED_SECONDS = 2.0  # how long a run that is stopped waits for what came so far to be written

Write = Callable[[RecordOutputs], Awaitable[bool]]
"""Stores outputs in the notebook; whether that is a shared document now."""


class Recording:
    """One execution of one cell."""

    def __init__(self, cell: str, write: Write, on_output: OnOutput | None) -> None:
        self._cell = cell
        self._write = write
        self._on_output = on_output
        self._outputs: list[dict[str, Any]] = []
        """Outputs since they were last cleared, adjacent pieces of a stream as one."""
        self._pieces: list[str] = []
        """More text of the last of them, a stream. Joined when it is written: a cell may print a million times."""
        self._places: list[int] = []  # for each output that came since then, its index in them
        self._fresh = False  # something is not in the notebook yet
        self._grown = True  # the outputs in the notebook are the first of ours (see `RecordOutputs.grown`)
        self._written = False
        self._count: int | None = None
        self._over = False
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"navi-recording-{cell}")

    def add(self, output: Output) -> None:
        """An output came. See ``ports.jupyter.OnOutput`` for those that change earlier ones."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._replace([])
        elif kind == "update_display_data":
            index = int(output["index"])
            if index < len(self._places):
                place = self._places[index]
                changed = {name: output[name] for name in ("data", "metadata") if name in output}
                self._outputs[place] = {**self._outputs[place], **changed}
            self._grown = False
        else:
            self._append(output)
        self._fresh = True
        self._news.set()
        if self._on_output is not None:
            self._on_output(output)

    def finish(self, execution: Execution | None) -> None:
        """The execution is over; None when it was stopped before its end, or did not begin."""
        if execution is not None:
            self._count = execution.execution_count
            # These are bounded at both ends; what came piece by piece lacks the end of a flood.
            final = merge_streams(execution.outputs)
            if final != self._all():
                self._replace(final)
            self._fresh = True
        self._over = True
        self._news.set()

    async def settled(self, within: float | None = None) -> None:
        """Return once all is written, or after ``within`` seconds; the writing goes on."""
        await asyncio.wait({self.task}, timeout=within)

    def _append(self, output: Output) -> None:
        last = self._outputs[-1] if self._outputs else None
        if output["output_type"] != "stream":
            self._all()
            self._outputs.append(dict(output))
        elif last is not None and last["output_type"] == "stream" and last["name"] == output["name"]:
            self._pieces.append(joined(output["text"]))
        else:
            self._all()
            self._outputs.append({**output, "text": joined(output["text"])})
        self._places.append(len(self._outputs) - 1)

    def _all(self) -> list[dict[str, Any]]:
        if self._pieces:
            self._outputs[-1] = {**self._outputs[-1], "text": self._outputs[-1]["text"] + "".join(self._pieces)}
            self._pieces.clear()
        return self._outputs

    def _replace(self, outputs: list[dict[str, Any]]) -> None:
        self._outputs, self._grown = outputs, False
        self._pieces.clear()
        self._places.clear()

    async def _run(self) -> None:
        try:
            live = await self._write(RecordOutputs(cell=self._cell, outputs=None, running=True))
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
        except Exception:  # the task is not awaited: it is its own supervisor
            log.exception("outputs_not_kept", cell=self._cell)

    async def _pause(self, seconds: float) -> None:
        """Wait for more outputs to write at once; the end of the cell does not wait."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self._over and (rest := deadline - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._news.wait(), rest)
            except TimeoutError:
                break
            self._news.clear()
        if self._fresh:  # cleared above, but not written yet
            self._news.set()

    def _record(self, *, running: bool) -> RecordOutputs:
        if not self._fresh and not self._written:
            return RecordOutputs(cell=self._cell, outputs=None, running=running)
        record = RecordOutputs(
            cell=self._cell,
            outputs=tuple(self._all()),
            count=self._count,
            running=running,
            grown=self._grown and self._written,
        )
        self._fresh, self._grown, self._written = False, True, True
        return record
