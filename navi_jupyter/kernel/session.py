"""A session in the hands of a notebook: send, stop, read, follow, export."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from .asking import Asking, NoPainter, Painter
from .client import Envelope
from .errors import UsageError
from .iothread import io_thread
from .listing import Listing
from .recalls import Recall, list_recalls
from .render import moment, speaker, transcript_html, transcript_plain
from .reply import Reply
from .service import Service


class Messages(list[dict[str, Any]]):
    """The conversation, oldest first: ``role``, ``content``, ``run_id``, ``origin``, ``tool_calls``, ``usage`` …"""

    def _repr_html_(self) -> str:
        return transcript_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(transcript_plain(self))


class Session:
    """One conversation. Outlives this kernel; everybody who follows it sees the same."""

    def __init__(self, service: Service, session_id: str) -> None:
        self._service = service
        self.id = session_id

    # --- talk --------------------------------------------------------------------------------------------------------

    def ask(self, text: str, *, show: Painter | None = None, **prompt: Any) -> Reply:
        """Prompt, and wait for the answer. ``show`` paints it meanwhile; ``prompt``: further fields of the command."""
        return self.asking(text, show=show, **prompt).wait()

    def send(self, text: str, **prompt: Any) -> Reply:
        """Prompt, and return once that is durable. The reply fills itself while this kernel lives."""
        return self.asking(text, **prompt).start()

    def asking(self, text: str, *, show: Painter | None = None, **prompt: Any) -> Asking:
        """A prompt that has not been sent yet."""
        if not text.strip():
            raise UsageError("There is nothing to ask: the text is empty.", field="text")
        given = {name: value for name, value in prompt.items() if value is not None}
        return Asking(self._service.client, self.id, {"text": text, **given}, show or NoPainter())

    def stop(self, run_id: str | None = None) -> bool:
        """Stop the run in progress (or that one): acknowledged at once. False when nothing was running."""
        if run_id is None:
            run = self.state["run"]
            if run is None:
                return False
            run_id = run["id"]
        self._service.command(self.id, {"type": "stop", "run_id": run_id})
        return True

    # --- read --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """Title, model, profile, ``run`` in progress, ``queue``, ``head_seq`` …, read now."""
        return dict(self._service.call("GET", f"sessions/{self.id}"))

    @property
    def title(self) -> str:
        """What the session is called."""
        return str(self.state["title"])

    @property
    def messages(self) -> Messages:
        """The conversation, read now."""
        return Messages(self._service.call("GET", f"sessions/{self.id}/messages")["messages"])

    @property
    def runs(self) -> Listing[dict[str, Any]]:
        """The last 100 runs, newest first."""
        items = self._service.pages(f"sessions/{self.id}/runs", "runs", most=100)
        return Listing(items, _RUN_COLUMNS, _run_row, empty="No run yet.")

    def recalls(self, *, over: bool = False) -> Listing[Recall]:
        """The recalls of this session; ``over`` includes those that have ended."""
        return list_recalls(self._service, session_id=self.id, over=over)

    def follow(self, after: int | None = None) -> Iterator[Envelope]:
        """Everything that happens, as it happens, each event once, across reconnects. Ends when you stop iterating.

        ``after``: the ``seq`` to go on from (0: all that is kept). Without: first what describes the session now.
        """
        return self._service.follow(self.id, after)

    def export(self, path: str | Path | None = None, *, format: str | None = None) -> str:  # noqa: A002 - the contract's name
        """The conversation as ``md`` (default), ``ipynb`` or ``json``; written to ``path`` if given."""
        kind = format or (Path(path).suffix.lstrip(".") if path else "") or "md"
        if kind not in ("md", "ipynb", "json"):
            raise UsageError(f"There is md, ipynb and json, not {kind!r}.", field="format")
        client = self._service.client
        text = io_thread().wait(client.text(f"sessions/{self.id}/export", query={"format": kind}))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def change(self, **fields: Any) -> dict[str, Any]:
        """Change title, model, profile …; the session as it is then."""
        return dict(self._service.call("PATCH", f"sessions/{self.id}", fields))

    # --- show --------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _repr_html_(self) -> str:
        state = self.state
        return f"<div><strong>{escape(state['title'])}</strong> <small><code>{escape(self.id)}</code></small></div>"


_RUN_COLUMNS = ("run", "started", "status", "origin", "model", "tokens")


def _run_row(run: dict[str, Any]) -> list[str]:
    usage = run.get("usage") or {}
    return [
        run["id"],
        moment(run["started_at"]),
        run["status"],
        speaker({"role": "user", "origin": run["origin"]}),
        run["model"],
        str(usage.get("input_tokens", 0) + usage.get("output_tokens", 0)),
    ]


def sessions_table(service: Service) -> Listing[dict[str, Any]]:
    """The user's last 100 sessions, most recently used first."""
    current = service.session_id

    def row(session: dict[str, Any]) -> list[str]:
        mark = "→" if session["id"] == current else ""
        return [
            mark,
            session["id"],
            session["title"],
            session["notebook_path"] or "",
            session["model"],
            moment(session["updated_at"]),
        ]

    columns = ("", "id", "title", "notebook", "model", "used")
    return Listing(service.pages("sessions", "sessions", most=100), columns, row, empty="No session yet.")
