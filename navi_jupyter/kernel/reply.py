"""The reply to a prompt, as a cell and a program have it, and the error that stands for one without an end of its own.

Not responsible for waiting (``ask``) or for how a run looks (``display.render``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..text import one_line, printable
from .display.markdown import code_blocks
from .display.render import TRANSCRIPT, run_bundle, run_plain
from .display.run_view import RunView, ToolPart
from .errors import KernelError
from .shell import current_shell, show


class Reply:
    """The answer to a prompt. It grows while its run is in progress (``send``, ``%navi -b``)."""

    def __init__(self, session_id: str, view: RunView, *, shown: bool) -> None:
        self.session_id = session_id
        self._view = view
        self._streamed_in = _cell_number() if shown else None
        """The cell that streamed it, whose result is not displayed a second time."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._view.run_id

    @property
    def text(self) -> str:
        """The agent's words, without its tool calls."""
        return self._view.text

    @property
    def code(self) -> list[str]:
        """The code blocks of its words, in order."""
        return [code for _, code in code_blocks(self.text)]

    @property
    def status(self) -> str:
        """``sent``, ``queued``, ``running``; then ``completed``, ``waiting``, ``stopped``, ``failed``, ``withdrawn``"""
        return self._view.status

    @property
    def notice(self) -> tuple[str, str] | None:
        """Code and sentence where the answer is cut, filtered or empty: ``answer_cut``, and so on."""
        return self._view.notice

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """``name``, ``args`` (JSON text) and ``result`` of each."""
        return [
            {"name": part.name, "args": part.args, "result": part.result}
            for part in self._view.parts
            if isinstance(part, ToolPart)
        ]

    def __str__(self) -> str:
        return printable(self.text)

    def __repr__(self) -> str:
        return f"<Reply {self.status}: {one_line(self.text, 60)!r}>"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
        return run_bundle(self._view, live=True), TRANSCRIPT

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(run_plain(self._view, live=True))

    def _ipython_display_(self) -> None:
        if self._streamed_in is not None and self._streamed_in == _cell_number():
            self._streamed_in = None
            return
        show(run_bundle(self._view, live=True), raw=True, metadata=TRANSCRIPT)


class RunDidNotComplete(KernelError):
    """The run that was waited for ended with an error: its ``run_code``, and what there is of an answer."""

    code = "run_failed"

    def __init__(self, message: str, *, run_code: str, reply: Reply) -> None:
        super().__init__(message)
        self.run_code = run_code
        self.reply = reply


def _cell_number() -> int | None:
    return getattr(current_shell(), "execution_count", None)
