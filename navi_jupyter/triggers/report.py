"""The report of an occurrence that the recall's run reads: Markdown of bounded size, and the images that go with it.

Pure. What cells print is data, not instructions: it stands in code blocks and is marked as output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..output_text import OutputImage, output_images, outputs_text, tracebacks_text
from ..ports.jupyter import CellRun, CellState
from ..text import code_block, plural, truncate_middle

MAX_REPORT = 20_000  # characters of a report, as the ledger takes them (`scheduling.event_firings`)
MAX_SOURCE = 4_000
MAX_TRACEBACK = 4_000
MAX_OUTPUT = 10_000
MAX_IMAGES = 3
MAX_IMAGE_BYTES = 5 * 2**20
NOTABLE_GAP = 0.2
"""Seconds of a cell's beginning that may be missing without a word: ipykernel flushes its streams that often."""

_HEADLINES: Mapping[CellState, str] = {
    "running": "The cell still runs, for {took} now.",
    "finished": "The cell finished without an error after {took}.",
    "failed": "The cell failed after {took}.",
    "interrupted": "The cell was interrupted (KeyboardInterrupt) after {took}.",
    "died": "The kernel died while the cell ran, after {took}. Its variables are gone. What follows is what the cell "
    "showed until then.",
    "restarted": "The kernel was restarted while the cell ran, after {took}. Its variables are gone.",
    "closed": "The kernel was shut down while the cell ran, after {took}. Its variables are gone.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerReport:
    """What a run reads of an occurrence."""

    detail: str
    images: tuple[OutputImage, ...] = ()


def cell_report(run: CellRun, *, first: str | None = None, notebook: str | None = None) -> TriggerReport:
    """The report of a cell. ``first``: a line before it. Never raises; takes milliseconds for large images."""
    images, displayed = output_images(run.outputs, limit=MAX_IMAGES, max_bytes=MAX_IMAGE_BYTES, last=True)
    displayed += run.images_dropped
    lines = [] if first is None else [first, ""]
    lines.append(_HEADLINES[run.state].format(took=seconds_text(run.duration)))
    if notebook:
        lines.append(f"Notebook: {notebook}")
    if not run.complete and run.missed is None:
        lines.append("It had begun before it was watched: its duration, and what it showed before, are not known.")
    elif run.missed is not None and run.missed >= NOTABLE_GAP:
        lines.append(f"What it showed in its first {seconds_text(run.missed)} is not known: it was not watched yet.")
    if run.source is not None:
        source = truncate_middle(run.source.strip("\n"), MAX_SOURCE)
        lines += ["", "Source:", code_block(source, "python")]
    traceback = tracebacks_text(run.outputs)
    if traceback:
        # The end of a traceback names the line that failed, so it gets most of the room.
        lines += ["", "Traceback:", code_block(truncate_middle(traceback, MAX_TRACEBACK, head=0.25))]
    text = outputs_text(run.outputs)
    room = MAX_REPORT - sum(len(line) + 1 for line in lines) - 200  # for the lines around it and about images
    shown = code_block(truncate_middle(text, min(MAX_OUTPUT, room)))
    lines += ["", "Output:", shown] if text else ["", "It printed nothing."]
    if displayed:
        attached = f"the last {len(images)} attached" if displayed > len(images) else "attached"
        attached = attached if images else "in a form or size that cannot be attached"
        lines.append(f"It showed {plural(displayed, 'image')} ({attached}).")
    return TriggerReport(detail="\n".join(lines)[:MAX_REPORT], images=tuple(images))


def expression_report(expr: str, *, turned: bool) -> TriggerReport:
    """The report that an expression is true. ``turned``: it was false before."""
    return TriggerReport(
        detail=f"This expression {'turned' if turned else 'is'} true in the kernel:\n{code_block(expr, 'python')}"
    )


def seconds_text(value: float) -> str:
    """``0.3 s``, ``2 min 5 s``, ``1 h 2 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
