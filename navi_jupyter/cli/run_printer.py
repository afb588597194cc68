"""Runs and sessions printed as they happen: the agent's words on one stream, what else there is to know on another.

Nothing that is printed moves the cursor or clears the screen: text of models and programs goes through ``printable``.
Not responsible for where events come from, nor for asking a run's questions.
"""

from __future__ import annotations

from typing import Any, TextIO

from ..kernel.client.client import Envelope
from ..kernel.display.render import note_of, part_plain, speaker, visible_parts
from ..kernel.display.run_view import Part, QuestionPart, RunView, SubagentPart, TextPart, ToolPart
from ..text import printable


class RunPrinter:
    """One run. ``words`` and ``notes`` may be the same terminal; then what is between the words has its own lines."""

    def __init__(self, words: TextIO, notes: TextIO, *, questions: bool = False) -> None:
        """``questions``: print open ones, too, because nothing else asks them."""
        self._words, self._notes = words, notes
        self._together = words is notes or (words.isatty() and notes.isatty())
        self._questions = questions
        self._printed: dict[str, str] = {}
        self._text = ""  # the part whose words were printed last
        self._in_line = False

    def show(self, view: RunView, *, final: bool = False) -> None:
        """Print what is new. ``final``: nothing more will come."""
        for part in visible_parts(view):
            if isinstance(part, TextPart):
                self._show_text(part.id, printable(part.content))
            elif (text := self._note_of(part, view)) is not None and self._printed.get(part.id) != text:
                self._printed[part.id] = text
                self.note(text)
        if view.server_starting and not view.over and "server" not in self._printed:
            self._printed["server"] = note = note_of(view, live=True)
            self.end_line()
            self.note(f"({note})")
        if (final or view.over) and "" not in self._printed:
            self._printed[""] = ""
            self.end_line()
            if note := note_of(view, live=False):
                self.note(f"({note})")
        self._words.flush()

    def _note_of(self, part: Part, view: RunView) -> str | None:
        unfinished = (isinstance(part, ToolPart) and part.result is None and not view.over) or (
            isinstance(part, SubagentPart) and part.status == "running"
        )
        asked_elsewhere = isinstance(part, QuestionPart) and part.status == "open" and not self._questions
        return None if unfinished or asked_elsewhere else part_plain(part, view)

    def _show_text(self, part: str, text: str) -> None:
        before = self._printed.get(part, "")
        if text == before:
            return
        if not text.startswith(before):  # it was replaced: what is on paper stays, and the new text follows
            before = ""
        if self._text and (self._text != part or not before):
            self._words.write("\n" if not self._in_line else "\n\n")
        self._words.write(text[len(before) :])
        self._printed[part], self._text, self._in_line = text, part, not text.endswith("\n")

    def note(self, text: str) -> None:
        """Print something on lines of its own."""
        if self._together:
            self.end_line()
        self._notes.write(printable(text) + "\n")
        self._notes.flush()

    def end_line(self) -> None:
        """Begin a new line where words stand on this one."""
        if self._in_line:
            self._words.write("\n")
            self._words.flush()
            self._in_line = False


class SessionPrinter:
    """A session: who says what, and what its runs do, on one stream."""

    def __init__(self, out: TextIO, session_id: str) -> None:
        self._out = out
        self._session_id = session_id
        self._runs: dict[str, tuple[RunView, RunPrinter]] = {}
        self._messages: dict[str, list[str]] = {}  # those of users that are not complete
        self._seen: set[str] = set()  # messages that were printed
        self._queued: dict[str, tuple[str, str, str]] = {}  # prompts of a snapshot by the run that waits: id, who, text

    def show(self, envelope: Envelope) -> None:
        """Print what an event of the session adds."""
        event = envelope["event"]
        match event["type"]:
            case "MESSAGES_SNAPSHOT":
                self._snapshot(event["messages"])
            case "TEXT_MESSAGE_START" if event.get("role") == "user":
                self._messages[event["messageId"]] = [speaker({"role": "user", "origin": envelope["origin"]})]
            case "TEXT_MESSAGE_CONTENT" if event["messageId"] in self._messages:
                self._messages[event["messageId"]].append(event.get("delta", ""))
            case "TEXT_MESSAGE_END" if event["messageId"] in self._messages:
                who, *text = self._messages.pop(event["messageId"])
                self._message(event["messageId"], who, "".join(text))
            case "CUSTOM" if event["name"] == "navi.recall":
                self._recall(event["value"])
            case "CUSTOM" if event["name"] == "navi.gap":
                self._line("(events between are not kept any more)")
        self._run(envelope)

    def end(self) -> None:
        """End the line of a run in progress."""
        for _, printer in self._runs.values():
            printer.end_line()
        self._out.flush()

    def _run(self, envelope: Envelope) -> None:
        value = envelope["event"].get("value") or {}
        about = envelope.get("run_id") or value.get("run_id") or (value.get("interrupt") or {}).get("run_id")
        if envelope["event"]["type"] == "RUN_STARTED" and about and about not in self._runs:
            view = RunView(about, session_id=self._session_id)
            self._runs[about] = view, RunPrinter(self._out, self._out, questions=True)
            if (prompt := self._queued.pop(about, None)) is not None:
                self._message(*prompt)
            # Also where a snapshot found the run in progress: what it says next begins without a name.
            self._line("\nNavi:")
        if (found := self._runs.get(about or "")) is None:
            return
        view, printer = found
        view.apply(envelope)
        printer.show(view)
        if view.over:
            if view.error is not None:
                printer.note(f"(failed ({view.error[0]}): {view.error[1]})")
            del self._runs[str(about)]

    def _snapshot(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if message["role"] in ("user", "assistant") and message.get("content"):
                shown = str(message["id"]), speaker(message), str(message["content"])
                if message.get("queued"):
                    self._queued[str(message["runId"])] = shown
                else:
                    self._message(*shown)

    def _message(self, message_id: str, who: str, text: str) -> None:
        if message_id not in self._seen:
            self._seen.add(message_id)
            self._line(f"\n{who}: {text}")

    def _recall(self, value: dict[str, Any]) -> None:
        reason = f": {value['reason']}" if value.get("reason") else ""
        self._line(f"(recall {(value.get('recall') or {}).get('title', '')!r} {value['action']}{reason})")

    def _line(self, text: str) -> None:
        self.end()
        self._out.write(printable(text) + "\n")
        self._out.flush()
