"""One run, folded from its envelopes: ``apply`` each in order, read the state at any time. Pure.

Not responsible for getting envelopes (``client``) or for showing the state (``render``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Envelope = dict[str, Any]
Status = Literal["sent", "queued", "running", "completed", "waiting", "stopped", "failed", "withdrawn"]

FINAL: frozenset[Status] = frozenset({"completed", "stopped", "failed", "withdrawn", "waiting"})
"""``waiting`` ends the wait for an answer too: the run goes on only when somebody answers its question."""


@dataclass(slots=True)
class Text:
    """A piece of the agent's answer."""

    id: str
    content: str = ""


@dataclass(slots=True)
class Tool:
    """A tool call. ``result`` is None while it is open."""

    id: str
    name: str
    args: str = ""
    result: str | None = None


@dataclass(slots=True)
class RunFold:
    """What has happened in run ``run_id``."""

    run_id: str
    command_id: str | None = None
    """The prompt's, to see it withdrawn."""
    status: Status = "sent"
    parts: list[Text | Tool] = field(default_factory=list)
    """In the order of their first appearance."""
    error: tuple[str, str] | None = None
    """Code and sentence; set exactly when the status is ``failed``."""
    stopping: bool = False
    """A stop was asked for."""
    refold: bool = False
    """A prelude replaced what we knew; it does not say how a finished run ended, so somebody has to ask."""

    @property
    def text(self) -> str:
        """The agent's answer so far, without tool calls."""
        return "\n\n".join(part.content for part in self.parts if isinstance(part, Text) and part.content)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.status in FINAL

    def apply(self, envelope: Envelope) -> None:
        """Take in the next envelope of the session; those of other runs change nothing."""
        event = envelope["event"]
        kind = event.get("type")
        if kind == "MESSAGES_SNAPSHOT":
            self._restart(event["messages"])
        elif kind == "CUSTOM":
            self._custom(event.get("name"), event.get("value") or {})
        elif envelope.get("run_id") == self.run_id:
            self._of_run(kind, event)

    def end(self, status: str, error: dict[str, str] | None) -> None:
        """Take the final word from the run's record (``GET runs/{id}``) instead of from its last event."""
        self.refold = False
        if status == "completed":
            self.status = "completed"
        elif status == "stopped":
            self.status = "stopped"
        elif status in ("failed", "timed_out", "interrupted"):
            self.status = "failed"
            self.error = (
                (error or {}).get("code", status),
                (error or {}).get("message", f"The run ended: {status}."),
            )

    def _of_run(self, kind: str | None, event: dict[str, Any]) -> None:
        match kind:
            case "RUN_STARTED":
                self.status = "running"
            case "TEXT_MESSAGE_START" if event.get("role") != "user":
                self._text(event["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                self._append_text(event)
            case "TOOL_CALL_START":
                self._tool(event["toolCallId"], event.get("toolCallName", "tool"))
            case "TOOL_CALL_ARGS":
                self._tool(event["toolCallId"]).args += event.get("delta", "")
            case "TOOL_CALL_RESULT":
                self._tool(event["toolCallId"]).result = str(event.get("content", ""))
            case "RUN_FINISHED":
                outcome = (event.get("outcome") or {}).get("type", "success")
                self.status = {"cancelled": "stopped", "interrupt": "waiting"}.get(outcome, "completed")  # type: ignore[assignment]
            case "RUN_ERROR":
                self.status = "failed"
                self.error = (str(event.get("code", "error")), str(event.get("message", "The run failed.")))
            case _:
                pass

    def _custom(self, name: str | None, value: dict[str, Any]) -> None:
        if name == "navi.queue" and value.get("command_id") == self.command_id is not None:
            if value.get("action") == "queued" and self.status == "sent":
                self.status = "queued"
            elif value.get("action") in ("cancelled", "rejected"):
                self.status = "withdrawn"
        elif name == "navi.stop" and value.get("run_id") == self.run_id:
            self.stopping = True

    def _restart(self, messages: list[dict[str, Any]]) -> None:
        """Begin again from a snapshot's AG-UI messages."""
        self.parts.clear()
        self.refold = True
        for message in messages:
            if message.get("runId") != self.run_id:
                continue
            if message.get("role") == "assistant":
                if message.get("content"):
                    self._text(message["id"]).content = message["content"]
                for call in message.get("toolCalls") or ():
                    function = call.get("function") or {}
                    self._tool(call["id"], function.get("name", "tool")).args = function.get("arguments", "")
            elif message.get("role") == "tool":
                self._tool(message["toolCallId"]).result = str(message.get("content", ""))

    def _append_text(self, event: dict[str, Any]) -> None:
        # The user's own message is in the run, too; it was never opened here.
        for part in reversed(self.parts):
            if isinstance(part, Text) and part.id == event["messageId"]:
                part.content += event.get("delta", "")
                return

    def _text(self, message_id: str) -> Text:
        for part in self.parts:
            if isinstance(part, Text) and part.id == message_id:
                return part
        self.parts.append(made := Text(message_id))
        return made

    def _tool(self, call_id: str, name: str = "tool") -> Tool:
        for part in self.parts:
            if isinstance(part, Tool) and part.id == call_id:
                return part
        self.parts.append(made := Tool(call_id, name))
        return made
