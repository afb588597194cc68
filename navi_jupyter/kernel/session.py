"""A session in the hands of a notebook: send, stop, read, follow, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from .ask import Asking, NoPainter, Painter, Reply
from .attachments import upload
from .client import Envelope, Service
from .errors import UsageError
from .io_thread import io_thread
from .listing import Listing
from .recalls import Recall, list_recalls, read_away
from .render import moment, speaker, transcript_html, transcript_plain


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
        """Prompt, and wait for the answer. ``show`` paints it meanwhile.

        ``prompt``: ``mode``, ``model``, ``images`` and ``files`` (figures, PIL images, bytes, paths) and further fields
        of the command.
        """
        return self.asking(text, show=show, **prompt).wait()

    def send(self, text: str, **prompt: Any) -> Reply:
        """Prompt, and return once that is durable. The reply fills itself while this kernel lives."""
        return self.asking(text, **prompt).start()

    def asking(
        self,
        text: str,
        *,
        show: Painter | None = None,
        images: Sequence[Any] = (),
        files: Sequence[Any] = (),
        **prompt: Any,
    ) -> Asking:
        """A prompt that has not been sent yet; what goes with it has been uploaded."""
        if not text.strip():
            raise UsageError("There is nothing to ask: the text is empty.", field="text")
        given = {name: value for name, value in prompt.items() if value is not None}
        for name, things in (("images", images), ("files", files)):
            if things:
                given[name] = upload(self._service, things)
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

    # --- prompts that wait, questions that are open ------------------------------------------------------------------

    @property
    def queue(self) -> Listing[dict[str, Any]]:
        """The prompts that wait for their turn, the next one first: ``command_id``, ``text``, ``mode``, ``run_id``."""
        waiting = [
            {"mode": "enqueue", **prompt, "run_id": run["id"]}
            for run in self.state["queue"]
            for prompt in run.get("prompts") or ({"command_id": run["command_id"], "text": ""},)
        ]
        return Listing(waiting, ("command", "prompt"), _queue_row, empty="No prompt is waiting.")

    def edit(self, command_id: str, text: str) -> None:
        """Change a prompt that waits. Raises Refused when it does not any more."""
        self._service.command(self.id, {"type": "edit", "target": command_id, "text": text})

    def unqueue(self, command_id: str) -> None:
        """Withdraw a prompt that waits. Raises Refused when it does not any more."""
        self._service.command(self.id, {"type": "unqueue", "target": command_id})

    @property
    def approvals(self) -> Listing[dict[str, Any]]:
        """The questions that are open, oldest first: approvals of tool calls, and values that are asked for."""
        return Listing(self.state["approvals"], _QUESTION_COLUMNS, _question_row, empty="No question is open.")

    def approve(self, interrupt_id: str, *, args: dict[str, Any] | None = None, always: bool = False) -> None:
        """Let a tool call run, with other arguments if given; ``always``: do not ask for this tool again here."""
        payload: dict[str, Any] = {"approved": True, "args": args, "always": "session" if always else None}
        self._answer(interrupt_id, {name: value for name, value in payload.items() if value is not None})

    def deny(self, interrupt_id: str, reason: str | None = None) -> None:
        """Do not let a tool call run; the reason is told to the model."""
        self._answer(interrupt_id, {"approved": False, **({"message": reason} if reason else {})})

    def answer(self, interrupt_id: str, payload: Any) -> None:
        """Answer a question with what it asks for (see its ``response_schema``)."""
        self._answer(interrupt_id, payload)

    def decline(self, interrupt_id: str) -> None:
        """Close a question without an answer."""
        self._service.command(self.id, {"type": "answer", "interrupt_id": interrupt_id, "status": "cancelled"})

    def _answer(self, interrupt_id: str, payload: Any) -> None:
        answer = {"type": "answer", "interrupt_id": interrupt_id, "status": "resolved", "payload": payload}
        self._service.command(self.id, answer)

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
    def usage(self) -> dict[str, Any]:
        """Tokens, requests and, where known, cost in US dollars of all runs of this session."""
        return dict(self.state.get("usage") or {})

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

    def away(self, since: datetime | str | None = None) -> Listing[dict[str, Any]]:
        """What happened while you were away (or since then): what ran, and what did not and why. Oldest first."""
        return read_away(self._service, self.id, since)

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


_QUESTION_COLUMNS = ("id", "asks", "tool", "expires")


def _queue_row(prompt: dict[str, Any]) -> list[str]:
    return [str(prompt["command_id"]), str(prompt["text"])]


def _question_row(question: dict[str, Any]) -> list[str]:
    return [question["id"], question["message"], question.get("tool") or "", moment(question.get("expires_at"))]


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
            str(session.get("unread") or ""),
        ]

    columns = ("", "id", "title", "notebook", "model", "used", "unread")
    return Listing(service.pages("sessions", "sessions", most=100), columns, row, empty="No session yet.")
