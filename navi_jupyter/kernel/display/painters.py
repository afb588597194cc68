"""Painters of a run: in a notebook's cell, in a terminal, or nowhere. Each change is painted again.

Code that a run executes in the waiting cell shows its outputs there by itself: what was before it stays above them, and
what comes after goes below. Not responsible for how a run looks (``render``) or for when it is painted.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from ...text import printable
from ..shell import current_request, current_shell, show
from .render import TRANSCRIPT, note_of, part_plain, run_bundles, visible_parts, without_shown
from .run_view import RunView, TextPart, ToolPart


class Painter(Protocol):
    """Displays a run, again each time it has changed."""

    def paint(self, view: RunView, *, live: bool) -> None: ...


class CellPainter:
    """Outputs of a notebook cell, each replaced when it has changed: the answer, with questions and code in between."""

    def __init__(self) -> None:
        self._shown: list[tuple[Any, dict[str, Any]]] = []  # the handle of each output, and what it shows

    def paint(self, view: RunView, *, live: bool) -> None:
        bundles = run_bundles(view, live=live)
        bundles += [{"text/plain": ""}] * (len(self._shown) - len(bundles))
        for place, bundle in enumerate(bundles):
            if place == len(self._shown):
                self._shown.append((show(bundle, raw=True, display_id=True, metadata=TRANSCRIPT), bundle))
            elif (before := self._shown[place])[1] != bundle:
                before[0].update(bundle, raw=True, metadata=TRANSCRIPT)
                self._shown[place] = (before[0], bundle)


class TerminalPainter:
    """Plain text that only grows, for a terminal and a console, which replace no outputs."""

    def __init__(self) -> None:
        self._printed: dict[str, str] = {}  # by part
        self._last = ""  # the part that was printed last
        self._note = ""
        self._ended = False

    def paint(self, view: RunView, *, live: bool) -> None:
        for part in visible_parts(view):
            part = without_shown(part, view)
            if isinstance(part, ToolPart) and part.result is None and not part.shown and live and not view.over:
                if view.questions:
                    continue  # it is what the question below is about
                break  # its line is complete only with its result
            self._print(part.id, part_plain(part, view), grows=isinstance(part, TextPart))
        note = note_of(view, live=False)
        if note and note != self._note:
            self._note = note
            self._print("", f"({note})", grows=False)
        if (not live or view.over) and not self._ended:
            self._ended = True
            sys.stdout.write("\n")
        sys.stdout.flush()

    def _print(self, part: str, text: str, *, grows: bool) -> None:
        text = printable(text)
        before = self._printed.get(part)
        if text == before:
            return
        if grows and before is not None and part == self._last and text.startswith(before):
            sys.stdout.write(text[len(before) :])
        else:
            sys.stdout.write(("\n\n" if self._last or self._printed else "") + text)
        self._printed[part], self._last = text, part


class NoPainter:
    """Displays nothing, for programs outside of IPython."""

    def paint(self, view: RunView, *, live: bool) -> None:
        """No output."""


def painter_here() -> Painter:
    """The painter for the front end of this process."""
    shell = current_shell()
    if shell is None:
        return NoPainter()
    return CellPainter() if hasattr(shell, "kernel") and not _in_console() else TerminalPainter()


def _in_console() -> bool:
    """Whether the front end is ``jupyter console`` or its like, which shows no update of an output.

    It is known by its request: one who may be asked for input, in which nothing names a cell.
    """
    request = current_request()
    content = request.get("content") or {}
    return bool(content.get("allow_stdin")) and not request.get("metadata")
