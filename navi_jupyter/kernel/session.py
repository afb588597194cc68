"""The user's sessions: send, stop, answer, read, follow, export."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from ..handles import Named, row_number, short_handle
from .ask import ContinuedRun, PendingPrompt, answered_here
from .attachments import upload
from .client.client import Envelope, Service
from .client.io_thread import io_thread
from .display.listing import Listing, find_id
from .display.painters import NoPainter, Painter
from .display.question_text import QuestionListing
from .display.render import TRANSCRIPT, speaker, transcript_html, transcript_plain
from .display.run_view import ToolPart, question_of
from .display.time_text import moment
from .errors import NoSuchItem, UsageError
from .grammar.answers import UserAnswer
from .grammar.command_line import FORMATS
from .grammar.times import kernel_client, local_zone, named_zone
from .lending.execution import refuse_nested
from .recalls import Recall, list_recalls, read_away
from .reply import Reply


class Messages(list[dict[str, Any]]):
    """The conversation, oldest first: ``role``, ``content``, ``run_id``, ``origin``, ``tool_calls``, ``usage`` …"""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
        return {"text/html": self._repr_html_(), "text/plain": transcript_plain(self)}, TRANSCRIPT

    def _repr_html_(self) -> str:
        return transcript_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(transcript_plain(self))


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: on a full disk, half a conversation must not take the place of an older one.

    Raises UsageError with the reason.
    """
    target = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    draft = target.with_name(f".~{target.name[:80]}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # a terminal, a pipe: written as it is
            path.write_text(text, encoding="utf-8")
            return
        draft.write_text(text, encoding="utf-8")
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(target)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.", field="path") from None


class Session:
    """A conversation. It outlives this kernel; every client that follows it shows the same."""

    def __init__(self, service: Service, session_id: str) -> None:
        self._service = service
        self.id = session_id

    def ask(self, text: str, *, show: Painter | None = None, **prompt: Any) -> Reply:
        """Prompt, and wait for the answer; ``show`` paints it meanwhile.

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
    ) -> PendingPrompt:
        """A prompt that has not been sent yet; its files have been uploaded. Raises UsageError, Refused."""
        refuse_nested()
        if not text.strip():
            raise UsageError("There is nothing to ask: the text is empty.", field="text")
        given = kernel_client() | {name: value for name, value in prompt.items() if value is not None}
        for name, things in (("images", images), ("files", files)):
            if things:
                given[name] = upload(self._service, things)
        return PendingPrompt(self._service.client, self.id, {"text": text, **given}, show or NoPainter())

    def stop(self, run_id: str | int | None = None) -> bool:
        """Stop the run in progress, or the one of ``runs`` that is named. False when nothing was running."""
        if run_id is None:
            run = self.state["run"]
            if run is None:
                return False
            run_id = run["id"]
        self._command("stop", run_id=_named("run", run_id, lambda: self.runs))
        return True

    @property
    def queue(self) -> Listing[dict[str, Any]]:
        """The prompts that wait for their turn, the next one first: ``command_id``, ``text``, ``mode``, ``run_id``."""
        waiting = (
            {"mode": "enqueue", **prompt, "run_id": run["id"]}
            for run in self.state["queue"]
            for prompt in run.get("prompts") or ({"command_id": run["command_id"], "text": ""},)
        )
        return Listing(
            waiting,
            ("prompt", "mode"),
            lambda prompt: [str(prompt["text"]), str(prompt["mode"])],
            empty="No prompt is waiting.",
            kind="prompt",
            named=lambda prompt: Named(str(prompt["command_id"]), str(prompt["text"])),
        )

    def edit(self, command_id: str | int, text: str) -> None:
        """Change a prompt of ``queue``, named by its id, number or text. Raises Refused when it does not wait."""
        self._command("edit", target=_named("prompt", command_id, lambda: self.queue), text=text)

    def unqueue(self, command_id: str | int) -> None:
        """Withdraw a prompt of ``queue``. Raises Refused when it does not wait."""
        self._command("unqueue", target=_named("prompt", command_id, lambda: self.queue))

    @property
    def approvals(self) -> QuestionListing:
        """The open questions, oldest first: approvals of tool calls, and values that a run asks for."""
        return QuestionListing(self.state["approvals"])

    def approve(self, interrupt_id: str | int, *, args: dict[str, Any] | None = None, always: bool = False) -> None:
        """Let a tool call run, with other arguments if given; ``always``: do not ask for this tool again here.

        The question is one of ``approvals``, named by its id, number or text, as for the three methods below.
        """
        payload: dict[str, Any] = {"approved": True, "args": args, "always": "session" if always else None}
        self.answer(interrupt_id, {name: value for name, value in payload.items() if value is not None})

    def deny(self, interrupt_id: str | int, reason: str | None = None) -> None:
        """Do not let a tool call run; the model gets the reason."""
        self.answer(interrupt_id, {"approved": False, **({"message": reason} if reason else {})})

    def answer(self, interrupt_id: str | int, payload: Any = None, *, option: str | None = None) -> None:
        """Answer a question with what it asks for (see its ``response_schema``).

        ``option``: the id of one of its ``options``, where an agent program offers some; then without ``payload``.
        """
        refuse_nested()
        question = _named("question", interrupt_id, lambda: self.approvals)
        chosen = {} if option is None else {"option": option}
        self._command("answer", interrupt_id=question, status="resolved", payload=payload, **chosen)

    def decline(self, interrupt_id: str | int) -> None:
        """Close a question without an answer."""
        self._command(
            "answer", interrupt_id=_named("question", interrupt_id, lambda: self.approvals), status="cancelled"
        )

    def decide(self, question: dict[str, Any], given: UserAnswer, *, show: Painter, waits: bool) -> ContinuedRun:
        """Answer a question of ``approvals``; the run that goes on with it, which is waited for with ``waits``."""
        refuse_nested()
        run_id = question["run_id"]
        # Their results are still to come; what was before that is shown where the run was begun.
        calls = [
            ToolPart(call["id"], call["name"], call["args"])
            for message in self.messages
            if message["run_id"] == run_id and message["subagent_run_id"] is None
            for call in message["tool_calls"]
            if call["result"] is None
        ]
        command = given.command(question["id"])
        if waits:
            acceptance = answered_here(run_id, lambda: self._service.command(self.id, command))
        else:
            acceptance = self._service.command(self.id, command)
        asked = [question_of(other) for other in self.state["approvals"] if other["run_id"] == run_id]
        return ContinuedRun(self._service.client, self.id, acceptance, show, [*calls, *asked])

    def _command(self, kind: str, **fields: Any) -> None:
        self._service.command(self.id, {"type": kind, **fields})

    @property
    def state(self) -> dict[str, Any]:
        """Title, model, profile, ``run`` in progress, ``queue``, ``usage``, ``head_seq`` …, read now."""
        return dict(self._service.call("GET", f"sessions/{self.id}"))

    @property
    def title(self) -> str:
        """Its title, read now."""
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
        return Listing(items, _RUN_COLUMNS, _run_row, empty="No run yet.", kind="run", named=_run_name)

    def recalls(self, *, over: bool = False) -> Listing[Recall]:
        """The recalls of this session; ``over`` includes those that have ended."""
        return list_recalls(self._service, session_id=self.id, over=over)

    def away(self, since: datetime | str | None = None) -> Listing[dict[str, Any]]:
        """What happened while you were away (or since then): what ran, and what did not and why. Oldest first."""
        return read_away(self._service, self.id, since)

    def follow(self, after: int | None = None) -> Iterator[Envelope]:
        """Every event as it happens, each once, across reconnects. Ends when you stop iterating.

        ``after``: the ``seq`` to continue from (0: all that is kept). Without it, the snapshot of the session first.
        """
        return self._service.follow(self.id, after)

    def export(self, path: str | Path | None = None, *, format: str | None = None) -> str:  # noqa: A002 - the contract's name
        """The conversation as ``md`` (default), ``ipynb`` or ``json``; written to ``path`` if given."""
        kind = format or (Path(path).suffix.lstrip(".") if path else "") or "md"
        if kind not in FORMATS:
            raise UsageError(f"The format is one of {', '.join(FORMATS)}, not {kind!r}.", field="format")
        client = self._service.client
        text = io_thread().wait(client.text(f"sessions/{self.id}/export", query={"format": kind}))
        if path is not None:
            write_whole(Path(path), text)
        return text

    def change(self, **fields: Any) -> dict[str, Any]:
        """Change title, model, profile …; the session as it is then."""
        return dict(self._service.call("PATCH", f"sessions/{self.id}", fields))

    def __repr__(self) -> str:
        return f"<Session {short_handle(self.id)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _repr_html_(self) -> str:
        title = escape(self.state["title"])
        return f"<div><strong>{title}</strong> <small><code>{short_handle(self.id)}</code></small></div>"


_ZONE_SOURCES = {
    "default": "while no program has named another",
    "kernel": "of a kernel's machine, until a browser names yours",
    "browser": "of your browser",
    "chosen": "that you chose",
}


def zone_words(session: Session, wanted: str | None = None) -> str:
    """Whose clock counts in a session, in words, once it is that of ``wanted``, if any. Raises UsageError, Refused.

    ``auto`` gives a choice up: the next view that is opened, or asks, names its own zone.
    """
    if wanted == "auto":
        state = session.change(timezone=local_zone() or "UTC", timezone_source="kernel")
    elif wanted is not None:
        state = session.change(timezone=named_zone(wanted).key)
    else:
        state = session.state
    source = _ZONE_SOURCES.get(state["timezone_source"], "")
    return f"Times that name no zone are in {state['timezone']}, the zone {source}."


def _named(kind: str, text: str | int, listing: Callable[[], Listing[Any]]) -> str:
    """The id of the item that ``text`` names. Raises UsageError."""
    try:
        return find_id(kind, text, lambda: [listing().names])
    except NoSuchItem:
        # An id of another form, or of an item that is gone: the server's error has the code that programs rely on.
        if row_number(str(text)) is None:
            return str(text)
        raise


_RUN_COLUMNS = ("id", "started", "status", "origin", "model", "tokens")


def _run_row(run: dict[str, Any]) -> list[str]:
    usage = run.get("usage") or {}
    return [
        short_handle(run["id"]),
        moment(run["started_at"]),
        run["status"],
        speaker({"role": "user", "origin": run["origin"]}),
        run["model"],
        str(usage.get("input_tokens", 0) + usage.get("output_tokens", 0)),
    ]


def _run_name(run: dict[str, Any]) -> Named:
    return Named(run["id"], f"{run['status']} {run['model']}")


def sessions_table(service: Service) -> Listing[dict[str, Any]]:
    """The user's last 100 sessions, most recently used first."""
    return sessions_listing(service, service.pages("sessions", "sessions", most=100))


def sessions_listing(service: Service, sessions: Iterable[dict[str, Any]]) -> Listing[dict[str, Any]]:
    """Those sessions as a table."""
    current = service.session_id

    def row(session: dict[str, Any]) -> list[str]:
        mark = "→" if session["id"] == current else ""
        return [
            mark,
            short_handle(session["id"]),
            session["title"],
            session["notebook_path"] or (f"(was {session['earlier_path']})" if session.get("earlier_path") else ""),
            session["model"],
            moment(session["updated_at"]),
            str(session.get("unread") or ""),
        ]

    columns = ("", "id", "title", "notebook", "model", "used", "unread")
    return Listing(sessions, columns, row, empty="No session yet.", kind="session", named=_session_name)


def find_session(service: Service, text: str | int) -> str:
    """The id of the session that ``text`` names: among the last 100, else among all.

    Raises NoSuchItem; UsageError for a text that names several.
    """

    def scopes() -> list[list[Named]]:
        names = [_session_name(session) for session in service.pages("sessions", "sessions")]
        # A title repeats over the years, as notebooks are copied: a recent session is the one that is meant.
        return [names[:100], names]

    try:
        return find_id("session", text, scopes, hint="%navi session list shows them.")
    except NoSuchItem:
        # A program that passes an id gets the server's error, with its code.
        if str(text).startswith("s_"):
            return str(text)
        raise


def _session_name(session: dict[str, Any]) -> Named:
    return Named(session["id"], session["title"])
