"""One run, folded from its envelopes: ``apply`` each in order, read the state at any time. Pure.

Not responsible for getting envelopes (``client``) or for showing the state (``render``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Envelope = dict[str, Any]
Status = Literal["sent", "queued", "running", "completed", "waiting", "stopped", "failed", "withdrawn"]

FINAL: frozenset[Status] = frozenset({"completed", "stopped", "failed", "withdrawn"})
"""``waiting`` is none of them: the run goes on once somebody, anywhere, answers its question."""
_MOST_OUTPUTS = 200
"""Of a tool call; what comes before them is not shown in a cell."""


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
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """What it showed while it worked: nbformat's outputs; a picture is ``{"attachment": id}``."""
    progress: str = ""


@dataclass(slots=True)
class Question:
    """Something that the run asks the user: an approval of a tool call, or a value."""

    id: str
    kind: str
    message: str
    tool: str | None
    args: dict[str, Any]
    status: str = "open"
    approved: bool | None = None
    """Of an approval that is resolved."""


@dataclass(slots=True)
class Worker:
    """A sub-agent: what it is to do, and how far it is."""

    id: str
    name: str
    description: str
    status: str = "running"
    text: str = ""
    """What it says at present."""
    calls: int = 0


Part = Text | Tool | Question | Worker


@dataclass(slots=True)
class RunView:
    """What has happened in run ``run_id``."""

    run_id: str
    command_id: str | None = None
    """The prompt's, to see it withdrawn, or given to another run."""
    status: Status = "sent"
    parts: list[Part] = field(default_factory=list)
    """In the order of their first appearance."""
    error: tuple[str, str] | None = None
    """Code and sentence; set exactly when the status is ``failed``."""
    stopping: bool = False
    """A stop was asked for."""
    refold: bool = False
    """A prelude replaced what we knew; it does not say how a finished run ended, so somebody has to ask."""
    usage: dict[str, Any] = field(default_factory=dict)
    """Tokens and, where known, cost (US dollars) so far."""
    pictures: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Media type and content of the attachments that were fetched, by id."""
    _activities: dict[str, str] = field(default_factory=dict)
    """The tool call that an activity belongs to."""

    @property
    def text(self) -> str:
        """The agent's answer so far, without tool calls."""
        return "\n\n".join(part.content for part in self.parts if isinstance(part, Text) and part.content)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.status in FINAL

    @property
    def questions(self) -> list[Question]:
        """Those that are open."""
        return [part for part in list(self.parts) if isinstance(part, Question) and part.status == "open"]

    def wanted_pictures(self) -> set[str]:
        """Attachments that are shown and not fetched yet."""
        wanted = set()
        for part in self.parts:
            if isinstance(part, Tool):
                for output in part.outputs:
                    wanted |= {ref for ref in map(attachment_of, (output.get("data") or {}).values()) if ref}
        return wanted - self.pictures.keys()

    def apply(self, envelope: Envelope) -> None:
        """Take in the next envelope of the session; those of other runs change nothing."""
        event = envelope["event"]
        kind = event.get("type")
        if kind == "MESSAGES_SNAPSHOT":
            self._restart(event["messages"])
        elif kind == "CUSTOM":
            self._custom(event.get("name"), event.get("value") or {})
        elif envelope.get("run_id") == self.run_id:
            if event.get("subagentRunId") is not None:
                self._of_worker(kind, event)
            else:
                self._of_run(kind, event)

    def end(self, status: str, error: dict[str, str] | None) -> None:
        """Take the final word from the run's record (``GET runs/{id}``) instead of from its last event."""
        self.refold = False
        if status in ("completed", "stopped", "waiting"):
            self.status = status  # type: ignore[assignment]  # a str that was just compared
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
                self._tool(event["toolCallId"]).result = _text_of(event.get("content", ""))
            case "ACTIVITY_SNAPSHOT" | "ACTIVITY_DELTA":
                self._activity(event)
            case "RUN_FINISHED":
                outcome = (event.get("outcome") or {}).get("type", "success")
                self.status = {"cancelled": "stopped", "interrupt": "waiting"}.get(outcome, "completed")  # type: ignore[assignment]
                self._spent(event.get("usage"))
            case "RUN_ERROR":
                self.status = "failed"
                self.error = (str(event.get("code", "error")), str(event.get("message", "The run failed.")))
                self._spent(event.get("usage"))
            case _:
                pass

    def _of_worker(self, kind: str | None, event: dict[str, Any]) -> None:
        if kind == "SUBAGENT_STARTED":
            self.parts.append(
                Worker(event["subagentRunId"], str(event.get("name", "worker")), str(event.get("description") or ""))
            )
            return
        found = (part for part in self.parts if isinstance(part, Worker) and part.id == event["subagentRunId"])
        worker = next(found, None)
        if worker is None:
            return
        match kind:
            case "TEXT_MESSAGE_START":
                worker.text = ""
            case "TEXT_MESSAGE_CONTENT":
                worker.text += event.get("delta", "")
            case "TOOL_CALL_START":
                worker.calls += 1
            case "SUBAGENT_FINISHED":
                worker.status = "completed"
            case "SUBAGENT_ERROR":
                worker.status, worker.text = "failed", str(event.get("message", ""))
            case _:
                pass

    def _activity(self, event: dict[str, Any]) -> None:
        """``navi.output`` and ``navi.progress`` of a tool call, whole or a change of it."""
        key, kind = event["messageId"], event.get("activityType")
        content = event.get("content") or {}
        call_id = self._activities.setdefault(key, str(content.get("toolCallId", "")))
        if not call_id:
            return
        tool = self._tool(call_id)
        if kind == "navi.progress":
            for patch in event.get("patch") or ():
                content[str(patch.get("path", "")).lstrip("/")] = patch.get("value")
            tool.progress = _progress(content) or tool.progress
        elif kind == "navi.output":
            if "outputs" in content:
                tool.outputs = list(content["outputs"])
            for patch in event.get("patch") or ():
                _patch_outputs(tool.outputs, patch)
            del tool.outputs[:-_MOST_OUTPUTS]

    def _custom(self, name: str | None, value: dict[str, Any]) -> None:
        if name == "navi.queue" and value.get("command_id") == self.command_id is not None:
            self._queued(str(value.get("action")), value)
        elif name == "navi.stop" and value.get("run_id") == self.run_id:
            self.stopping = True
        elif name == "navi.usage" and value.get("run_id") == self.run_id:
            self.usage.update(value.get("usage") or {})
        elif name == "navi.interrupt":
            interrupt = value.get("interrupt") or {}
            if interrupt.get("run_id") == self.run_id:
                self._asked(interrupt)

    def _queued(self, action: str, value: dict[str, Any]) -> None:
        if action == "queued" and self.status == "sent":
            self.status = "queued"
        elif action in ("cancelled", "rejected"):
            self.status = "withdrawn"
        elif action in ("steered", "collected") and value.get("run_id"):
            # It has joined another run: what that one says from here on is the answer.
            self.run_id = str(value["run_id"])
            self.status = "running" if action == "steered" else "queued"

    def _asked(self, interrupt: dict[str, Any]) -> None:
        question = next((p for p in self.parts if isinstance(p, Question) and p.id == interrupt["id"]), None)
        if question is None:
            question = Question(
                id=interrupt["id"],
                kind=str(interrupt.get("kind", "question")),
                message=str(interrupt.get("message", "")),
                tool=interrupt.get("tool"),
                args=interrupt.get("args") or {},
            )
            self.parts.append(question)
        question.status = str(interrupt.get("status", "open"))
        if question.status == "resolved" and question.kind == "approval":
            payload = interrupt.get("payload")
            question.approved = bool(payload.get("approved", True)) if isinstance(payload, dict) else True

    def _spent(self, usage: Any) -> None:
        for entry in usage if isinstance(usage, list) else ():
            for ours, theirs in (("input_tokens", "inputTokens"), ("output_tokens", "outputTokens")):
                if entry.get(theirs) is not None:
                    self.usage[ours] = entry[theirs]

    def _restart(self, messages: list[dict[str, Any]]) -> None:
        """Begin again from a snapshot's AG-UI messages."""
        self.parts.clear()
        self._activities.clear()
        self.refold = True
        for message in messages:
            if message.get("runId") != self.run_id or message.get("subagentRunId") is not None:
                continue
            if message.get("role") == "assistant":
                if message.get("content"):
                    self._text(message["id"]).content = message["content"]
                for call in message.get("toolCalls") or ():
                    function = call.get("function") or {}
                    self._tool(call["id"], function.get("name", "tool")).args = function.get("arguments", "")
            elif message.get("role") == "tool":
                self._tool(message["toolCallId"]).result = _text_of(message.get("content", ""))

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


def attachment_of(value: Any) -> str | None:
    """The id in ``{"attachment": id}``; None for content that is there itself."""
    ref = value.get("attachment") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) else None


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _progress(content: dict[str, Any]) -> str:
    done, total = content.get("progress"), content.get("total")
    share = f"{done:g}/{total:g}" if done is not None and total else "" if done is None else f"{done:g}"
    return " ".join(part for part in (share, str(content.get("message") or "")) if part)


def _patch_outputs(outputs: list[dict[str, Any]], patch: dict[str, Any]) -> None:
    """JSON Patch on ``/outputs``, as far as the protocol uses it: append, replace one, a part of one, or all."""
    where = str(patch.get("path", ""))
    if where == "/outputs":
        outputs[:] = patch.get("value") or []
    elif where == "/outputs/-":
        outputs.append(patch["value"])
    elif where.startswith("/outputs/"):
        place, _, key = where.removeprefix("/outputs/").partition("/")
        if not place.isdecimal() or int(place) > len(outputs):
            return
        if patch.get("op") == "add" and not key:
            outputs.insert(int(place), patch["value"])
        elif int(place) < len(outputs) and key:
            outputs[int(place)][key] = patch["value"]
        elif int(place) < len(outputs):
            outputs[int(place)] = patch["value"]
