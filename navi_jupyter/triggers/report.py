"""What the woken run is told of what happened: Markdown of bounded size, and the pictures that go along. Pure.

What cells print is data, not instructions: it is fenced and said to be output.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

from ..ports.jupyter import CellRun, CellState, Output

LONGEST = 20_000
"""Characters of all that is told of one occurrence."""
LONGEST_SOURCE = 4_000
LONGEST_TRACEBACK = 4_000
LONGEST_OUTPUT = 10_000
MOST_PICTURES = 3
UNHEARD = 0.2
"""Seconds of a cell's beginning that need not be spoken of: a kernel passes on what is printed only so often."""
LARGEST_PICTURE = 5 * 2**20
"""Bytes."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
LONGEST_HTML = 50_000
_BARE_OBJECT = re.compile(r"<[\w.]+(?: object)?(?: at 0x[0-9a-f]+)?>")
_HTML_TAG = re.compile(r"(<[^<>]*>)")
_HTML_BREAK = re.compile(r"</(?:tr|p|div|li|h[1-6]|table)\b|<br\b", re.IGNORECASE)
_HTML_UNSEEN = re.compile(r"<(/?)(?:script|style)\b", re.IGNORECASE)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|\Z)")
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_HEADLINES: Mapping[CellState, str] = {
    "running": "The cell still runs, for {took} now.",
    "finished": "The cell finished without an error after {took}.",
    "failed": "The cell failed after {took}.",
    "interrupted": "The cell was interrupted (KeyboardInterrupt) after {took}.",
    "died": "The kernel died while the cell ran, after {took}. Its variables are gone. What follows is what was seen "
    "until then.",
    "restarted": "The kernel was restarted while the cell ran, after {took}. Its variables are gone.",
    "closed": "The kernel was shut down while the cell ran, after {took}. Its variables are gone.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What a cell showed."""

    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a run is told."""

    detail: str
    pictures: tuple[Picture, ...] = ()

    def itself(self) -> Told:
        """Where telling is put off, and this is known already."""
        return self


def tell_cell(run: CellRun, *, first: str | None = None, place: str | None = None) -> Told:
    """All about a cell. ``first``: a line before it. Raises nothing; can take milliseconds for large pictures."""
    pictures, shown = pictures_of(run.outputs)
    shown += run.pictures_dropped
    lines = [] if first is None else [first, ""]
    lines.append(_HEADLINES[run.state].format(took=seconds(run.duration)))
    if place:
        lines.append(f"Notebook: {place}")
    if not run.whole and run.unheard is None:
        lines.append("It had begun before it was watched: its duration, and what it showed before, are not known.")
    elif run.unheard is not None and run.unheard >= UNHEARD:
        lines.append(f"What it showed in its first {seconds(run.unheard)} is not known: it was not watched yet.")
    if run.source is not None:
        lines += ["", "Source:", fenced(cut(run.source.strip("\n"), LONGEST_SOURCE), "python")]
    traceback = traceback_of(run.outputs)
    if traceback:
        lines += ["", "Traceback:", fenced(cut(traceback, LONGEST_TRACEBACK, head=0.25))]
    text = text_of(run.outputs)
    room = LONGEST - sum(len(line) + 1 for line in lines) - 200
    lines += ["", "Output:", fenced(cut(text, min(LONGEST_OUTPUT, room)))] if text else ["", "It printed nothing."]
    if shown:
        attached = f"the last {len(pictures)} attached" if shown > len(pictures) else "attached"
        attached = attached if pictures else "in a form or size that can not be attached"
        lines.append(f"It showed {shown} picture{'s' if shown > 1 else ''} ({attached}).")
    return Told(detail="\n".join(lines)[:LONGEST], pictures=tuple(pictures))


def seconds(value: float) -> str:
    """``0.3 s``, ``2 min 5 s``, ``1 h 2 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def cut(text: str, most: int, *, head: float = 0.5) -> str:
    """``text``, or its two ends with a note between them. ``head``: how much of it is the beginning."""
    if len(text) <= most:
        return text
    room = max(0, most - 60)
    first = int(room * head)
    last = room - first
    left_out = len(text) - room
    return f"{text[:first]}\n… {left_out:,} characters left out …\n{text[len(text) - last :]}"


def fenced(text: str, language: str = "") -> str:
    """A code block that ``text`` can not end."""
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def plain(text: str) -> str:
    """As a terminal would leave it: no colours, and progress bars as they were last."""
    without = _ANSI.sub("", text).replace("\r\n", "\n")
    if "\r" in without:
        without = _OVERWRITTEN.sub("", without).replace("\r", "")
    return without


def text_of(outputs: Sequence[Output]) -> str:
    """What streams and results say, in order, without tracebacks. Each begins on a line of its own."""
    pieces: list[str] = []
    for output in outputs:
        kind, said = output.get("output_type"), ""
        if kind == "stream":
            said = plain(_joined(output.get("text")))
        elif kind in ("display_data", "execute_result"):
            said = plain(_words(output.get("data") or {}))
        if said and pieces and not pieces[-1].endswith("\n"):
            pieces.append("\n")
        if said:
            pieces.append(said)
    return "".join(pieces).strip("\n")


def _words(data: Mapping[str, Any]) -> str:
    """What a display says: as text if it is any, else what of it can be read."""
    said = _joined(data.get("text/markdown") or data.get("text/plain"))
    if _is_picture(data) and len(said) < 200:
        return ""
    if _BARE_OBJECT.fullmatch(said.strip()):
        html = _joined(data.get("text/html"))[:LONGEST_HTML]
        other = data.get("application/json")
        said = _joined(data.get("text/latex")) or _text_of_html(html) or (str(other) if other is not None else said)
    return said


def _text_of_html(html: str) -> str:
    """The words of it, a line for each row or block."""
    pieces: list[str] = []
    seen = True
    for piece in _HTML_TAG.split(html):
        if not piece.startswith("<"):
            pieces.append(unescape(piece) if seen else "")
        elif unseen := _HTML_UNSEEN.match(piece):
            seen = bool(unseen[1])
        else:
            pieces.append("\n" if _HTML_BREAK.match(piece) else " ")
    lines = (" ".join(line.split()) for line in "".join(pieces).splitlines())
    return "\n".join(line for line in lines if line)


def traceback_of(outputs: Sequence[Output]) -> str:
    """The tracebacks, as plain text."""
    return "\n".join(_traceback(output) for output in outputs if output.get("output_type") == "error")


def _traceback(error: Output) -> str:
    said = plain("\n".join(map(str, error.get("traceback") or ()))).strip("\n")
    what = plain(f"{error.get('ename')}: {error.get('evalue')}").strip()
    return said if str(error.get("ename")) in said else f"{said}\n{what}".strip("\n")


def pictures_of(outputs: Sequence[Output]) -> tuple[list[Picture], int]:
    """The last few pictures, and how many there were (also drawings, which no model can see)."""
    bundles = [output["data"] for output in outputs if _is_picture(output.get("data") or {})]
    found: list[Picture] = []
    for data in bundles[-MOST_PICTURES:]:
        kind = next((kind for kind in _PICTURES if kind in data), None)
        if kind is None:
            continue
        encoded = _joined(data[kind])
        if len(encoded) > LARGEST_PICTURE * 4 / 3:
            continue
        try:
            found.append(Picture(media_type=kind, content=base64.b64decode(encoded, validate=False)))
        except binascii.Error:
            continue
    return found, len(bundles)


def _is_picture(data: Mapping[str, Any]) -> bool:
    return any(kind in data for kind in (*_PICTURES, "image/svg+xml"))


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "".join(map(str, value)) if isinstance(value, list) else ""
