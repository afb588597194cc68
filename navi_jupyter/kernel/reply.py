"""The answer to one prompt, as a value in the notebook."""

from __future__ import annotations

from typing import Any

from .display import current_shell, show
from .render import run_bundle, run_plain
from .run_view import RunView, Tool


class Reply:
    """What the agent answered. While its run goes on (``wait=False``) it still grows."""

    def __init__(self, session_id: str, fold: RunView, *, shown: bool) -> None:
        self.session_id = session_id
        self._fold = fold
        self._shown_in = _cell() if shown else None
        """The cell in which it was streamed: as that cell's result it need not be shown a second time."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._fold.run_id

    @property
    def text(self) -> str:
        """The agent's words, without its tool calls."""
        return self._fold.text

    @property
    def status(self) -> str:
        """``sent``, ``queued``, ``running``; then ``completed``, ``waiting``, ``stopped``, ``failed``, ``withdrawn``"""
        return self._fold.status

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """``name``, ``args`` (JSON text) and ``result`` of each."""
        return [
            {"name": part.name, "args": part.args, "result": part.result}
            for part in self._fold.parts
            if isinstance(part, Tool)
        ]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Reply {self.run_id} {self.status}: {self.text[:60]!r}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return run_bundle(self._fold, live=True)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(run_plain(self._fold, live=True))

    def _ipython_display_(self) -> None:
        if self._shown_in is not None and self._shown_in == _cell():
            self._shown_in = None
            return
        show(run_bundle(self._fold, live=True), raw=True)


def _cell() -> int | None:
    return getattr(current_shell(), "execution_count", None)
