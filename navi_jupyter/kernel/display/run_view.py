"""The state of one run, built from the session's events: ``apply`` each in order, read it at any time. Pure.

Not responsible for getting events (``client``) or for showing the state (``render``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ...output_text import patched
from ...text import plain_number
from .markdown import attachments_in
from .plans import ACTIVITY as PLAN
from .plans import PlanEntry, plan_entries
from .question_text import details_of

Envelope = dict[str, Any]
Status = Literal["sent", "queued", "running", "completed", "waiting", "stopped", "failed", "withdrawn"]

FINAL: frozenset[Status] = frozenset({"completed", "stopped", "failed", "withdrawn"})
# ``waiting`` is not final: the run continues when its question is answered, here or in any other client.
_MAX_OUTPUTS = 200  # outputs of a tool call that a cell shows; earlier ones are left out


@dataclass(eq=False)
class TextPart:
    """A piece of the agent's answer."""

    id: str
    content: str = ""


@dataclass(eq=False)
class ToolPart:
    """A tool call; ``result`` is None until it has one."""

    id: str
    name: str
    args: str = ""
    result: str | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """nbformat's outputs, emitted while it ran; the content of an image is ``{"attachment": id}``."""
    progress: str = ""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """What an agent program has reported of its call since it began: its kind, title and places."""
    shown: bool = False  # the waiting cell itself has shown what came of it


@dataclass(eq=False)
class QuestionPart:
    """An interrupt: the run asks the user to approve a tool call, or for a value."""

    id: str
    kind: str
    message: str
    tool: str | None
    args: dict[str, Any]
    schema: dict[str, Any] | None = None  # of the payload of a question's answer
    source: str | None = None  # whose tool it is, or who asks: `mcp:<server>`
    details: list[Mapping[str, Any]] = field(default_factory=list)  # what the call would do
    options: Sequence[Mapping[str, Any]] = ()  # the answers that an agent program offers: `id`, `name`, `kind` each
    status: str = "open"
    approved: bool | None = None  # the outcome of a resolved approval
    call: str | None = None  # the tool call that it is about
    answered_by: str | None = None
    answered_at: str | None = None
    payload: object = None  # of the answer


@dataclass(eq=False)
class PlanPart:
    """What an agent wants to do in the run, as it is now."""

    id: str
    entries: tuple[PlanEntry, ...] = ()


@dataclass(eq=False)
class NoticePart:
    """Something about the agent program of the run that its user should know."""

    id: str
    message: str = ""


@dataclass(eq=False)
class SubagentPart:
    """A subagent: its task and its progress."""

    id: str
    name: str
    description: str
    status: str = "running"
    text: str = ""  # its latest message
    calls: int = 0


Part = TextPart | ToolPart | QuestionPart | SubagentPart | PlanPart | NoticePart
P = TypeVar("P", TextPart, ToolPart, QuestionPart, SubagentPart, PlanPart, NoticePart)


SimplePart = TypeVar("SimplePart", TextPart, PlanPart, NoticePart)


@dataclass(eq=False)
class RunView:
    """The state of run ``run_id``."""

    run_id: str
    command_id: str | None = None  # the prompt's command, by which the queue's events name it
    status: Status = "sent"
    parts: list[Part] = field(default_factory=list)  # in the order of their first event
    error: tuple[str, str] | None = None  # code and sentence; set exactly when the status is ``failed``
    notice: tuple[str, str] | None = None  # code and sentence: the answer is cut, filtered or empty
    stopping: bool = False  # a stop was requested
    server_starting: bool = False  # it waits for the user's server
    session_id: str = ""
    advice: str | None = None
    """Set while a cell waits for the run, which asks its questions in that cell: where they can be answered if neither
    buttons nor a prompt are there; empty where there is a prompt."""
    handed_over: bool = False  # another cell shows how the run goes on
    reset: bool = False
    """A snapshot replaced the state. The status of a run that is over is not in it: read the run's record."""
    usage: dict[str, Any] = field(default_factory=dict)  # tokens and, where known, cost (US dollars) so far
    images: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # media type and content, by attachment id
    code: list[tuple[str | None, int]] = field(default_factory=list)
    """Code of the run whose outputs the waiting cell shows itself: its tool call, and the number of parts before it."""
    _activities: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The content of each activity, by its message: that is what its patches refer to."""

    @property
    def text(self) -> str:
        """The agent's answer so far, without tool calls."""
        return "\n\n".join(part.content for part in self.parts if isinstance(part, TextPart) and part.content)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.status in FINAL

    @property
    def questions(self) -> list[QuestionPart]:
        """The open ones."""
        # a copy, because the io thread appends while a cell's thread reads.
        return [part for part in list(self.parts) if isinstance(part, QuestionPart) and part.status == "open"]

    def executed(self, call_id: str) -> bool:
        """Whether the waiting cell shows the outputs of that tool call itself."""
        return any(call == call_id for call, _ in self.code)

    def has_call(self, call_id: str) -> bool:
        """Whether that tool call has been seen."""
        return self._find(ToolPart, call_id) is not None

    def segments(self) -> list[list[Part]]:
        """The parts, divided where the waiting cell shows the outputs of code; the last segment may be empty."""
        parts = list(self.parts)
        calls = {part.id: index + 1 for index, part in enumerate(parts) if isinstance(part, ToolPart)}
        # A subagent's call is not among the parts: its outputs came when there were so many of them.
        ends = sorted({min(calls.get(call or "", number), len(parts)) for call, number in self.code})
        return [parts[start:end] for start, end in zip([0, *ends], [*ends, len(parts)], strict=True)]

    def missing_images(self) -> set[str]:
        """The attachments that outputs and images refer to and that were not fetched yet."""
        missing = set()
        for part in self.parts:
            if isinstance(part, TextPart):
                missing |= attachments_in(part.content)
            elif isinstance(part, ToolPart):
                for output in part.outputs:
                    missing |= {ref for ref in map(attachment_of, (output.get("data") or {}).values()) if ref}
        return missing - self.images.keys()

    def apply(self, envelope: Envelope) -> None:
        """Apply the next event of the session; those of other runs change nothing."""
        event = envelope["event"]
        kind = event.get("type")
        # Events without a run id (snapshots, custom ones) name the run they mean in their body, if any.
        if kind == "MESSAGES_SNAPSHOT":
            self._reset(event["messages"])
        elif kind == "CUSTOM":
            self._apply_custom(event.get("name"), event.get("value") or {}, envelope.get("run_id"))
        elif envelope.get("run_id") == self.run_id:
            if event.get("subagentRunId") is not None:
                self._apply_subagent(kind, event)
            else:
                self._apply_run(kind, event)

    def end(self, run: dict[str, Any]) -> None:
        """Set how the run ended from its record (``GET runs/{id}``), where its last event was not seen."""
        self.reset = False
        status, error, notice = run["status"], run.get("error"), run.get("notice")
        self.notice = (str(notice["code"]), str(notice["message"])) if notice else None
        if status in ("completed", "stopped", "waiting"):
            self.status = status
        elif status in ("failed", "timed_out", "interrupted"):
            self.status = "failed"
            self.error = ((error or {}).get("code", status), (error or {}).get("message", f"The run ended: {status}."))

    def _apply_run(self, kind: str | None, event: dict[str, Any]) -> None:
        match kind:
            case "RUN_STARTED":
                self.status = "running"
            case "TEXT_MESSAGE_START" if event.get("role") != "user":
                self._text(event["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                # The user's own message is in the run, too; it has no part here.
                if (text := self._find(TextPart, event["messageId"])) is not None:
                    text.content += event.get("delta", "")
            case "TOOL_CALL_START":
                self._tool(event["toolCallId"], event.get("toolCallName", "tool"))
            case "TOOL_CALL_ARGS":
                self._tool(event["toolCallId"]).args += event.get("delta", "")
            case "TOOL_CALL_RESULT":
                result = self._tool(event["toolCallId"]).result = _text_of(event.get("content", ""))
                self.server_starting = self.server_starting and '"server_unavailable"' not in result
            case "ACTIVITY_SNAPSHOT" | "ACTIVITY_DELTA":
                self._apply_activity(event)
            case "RUN_FINISHED":
                outcome = (event.get("outcome") or {}).get("type", "success")
                self.status = {"cancelled": "stopped", "interrupt": "waiting"}.get(outcome, "completed")  # type: ignore[assignment]
                self._add_usage(event.get("usage"))
            case "RUN_ERROR":
                self.status = "failed"
                self.error = (str(event.get("code", "error")), str(event.get("message", "The run failed.")))
                self._add_usage(event.get("usage"))
            case _:
                pass

    def _apply_subagent(self, kind: str | None, event: dict[str, Any]) -> None:
        if kind == "SUBAGENT_STARTED":
            name, task = str(event.get("name", "subagent")), str(event.get("description") or "")
            self.parts.append(SubagentPart(event["subagentRunId"], name, task))
            return
        subagent = self._find(SubagentPart, event["subagentRunId"])
        if subagent is None:
            return
        match kind:
            case "TEXT_MESSAGE_START":
                subagent.text = ""
            case "TEXT_MESSAGE_CONTENT":
                subagent.text += event.get("delta", "")
            case "TOOL_CALL_START":
                subagent.calls += 1
            case "SUBAGENT_FINISHED":
                subagent.status = "completed"
            case "SUBAGENT_ERROR":
                subagent.status, subagent.text = "failed", str(event.get("message", ""))
            case _:
                pass

    def _apply_activity(self, event: dict[str, Any]) -> None:
        """What a tool call or the run itself shows besides messages: its whole content, or a patch of it."""
        key = event["messageId"]
        if event.get("content") is not None:
            # a copy, since patches are applied in place.
            self._activities[key] = copy.deepcopy(event["content"])
        content = self._activities.get(key)
        if content is None:
            return
        if event.get("patch"):
            content = self._activities[key] = patched(content, event["patch"])
        if not content.get("toolCallId"):
            self._apply_own(key, event.get("activityType"), content)
            return
        tool = self._tool(str(content["toolCallId"]))
        if event.get("activityType") == "navi.progress":
            tool.progress = _progress(content) or tool.progress
        elif event.get("activityType") == "navi.output":
            tool.outputs = list(content.get("outputs") or ())[-_MAX_OUTPUTS:]
        elif event.get("activityType") == "navi.agent_call":
            tool.reported = content

    def _apply_own(self, key: str, kind: str | None, content: Mapping[str, Any]) -> None:
        """An activity that belongs to no call of the run."""
        if kind == PLAN:
            self._part(PlanPart, key).entries = plan_entries(content)
        elif kind == "navi.agent_notice":
            self._part(NoticePart, key).message = str(content.get("message") or "")

    def _apply_custom(self, name: str | None, value: dict[str, Any], run_id: str | None) -> None:
        if name == "navi.queue" and value.get("command_id") == self.command_id is not None:
            self._apply_queue(str(value.get("action")), value)
        elif name == "navi.stop" and value.get("run_id") == self.run_id:
            self.stopping = True
        elif name == "navi.kernel" and run_id == self.run_id:
            self.server_starting = value.get("status") == "server_starting"
        elif name == "navi.notice" and value.get("run_id") == self.run_id:
            self.notice = (str(value.get("code")), str(value.get("message")))
        elif name == "navi.usage" and value.get("run_id") == self.run_id:
            self.usage.update(value.get("usage") or {})
        elif name == "navi.interrupt":
            interrupt = value.get("interrupt") or {}
            if interrupt.get("run_id") == self.run_id:
                self._apply_interrupt(interrupt)

    def _apply_queue(self, action: str, value: dict[str, Any]) -> None:
        if action == "queued" and self.status == "sent":
            self.status = "queued"
        elif action in ("cancelled", "rejected"):
            self.status = "withdrawn"
        elif action in ("steered", "collected") and value.get("run_id"):
            # The prompt has joined another run, whose text from here on is the answer.
            self.run_id = str(value["run_id"])
            self.status = "running" if action == "steered" else "queued"

    def _apply_interrupt(self, interrupt: dict[str, Any]) -> None:
        question = self._find(QuestionPart, interrupt["id"])
        if question is None:
            question = question_of(interrupt)
            self.parts.append(question)
        question.status = str(interrupt.get("status", "open"))
        question.answered_by, question.answered_at = interrupt.get("answered_by"), interrupt.get("answered_at")
        question.payload = interrupt.get("payload")
        if question.status == "resolved" and question.kind == "approval":
            payload = interrupt.get("payload")
            question.approved = bool(payload.get("approved", True)) if isinstance(payload, dict) else True

    def _add_usage(self, usage: Any) -> None:
        for entry in usage if isinstance(usage, list) else ():
            for ours, theirs in (("input_tokens", "inputTokens"), ("output_tokens", "outputTokens")):
                if entry.get(theirs) is not None:
                    self.usage[ours] = entry[theirs]

    def _reset(self, messages: list[dict[str, Any]]) -> None:
        """Replace the state by a snapshot's AG-UI messages."""
        self.parts.clear()
        self._activities.clear()
        self.reset = True
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
            elif message.get("role") == "activity" and not (content := message.get("content") or {}).get("toolCallId"):
                self._apply_own(message["id"], message.get("activityType"), content)

    def _find(self, kind: type[P], part_id: str) -> P | None:
        return next((part for part in reversed(self.parts) if isinstance(part, kind) and part.id == part_id), None)

    def _text(self, message_id: str) -> TextPart:
        return self._part(TextPart, message_id)

    def _part(self, kind: type[SimplePart], part_id: str) -> SimplePart:
        """The part, which is added where it is not there."""
        if (part := self._find(kind, part_id)) is None:
            self.parts.append(part := kind(part_id))
        return part

    def _tool(self, call_id: str, name: str = "tool") -> ToolPart:
        if (part := self._find(ToolPart, call_id)) is None:
            self.parts.append(part := ToolPart(call_id, name))
        return part


def question_of(interrupt: dict[str, Any]) -> QuestionPart:
    """An interrupt, as events and the session have it, before it is known how it was settled."""
    kind, message = str(interrupt.get("kind", "question")), str(interrupt.get("message", ""))
    args, schema = interrupt.get("args") or {}, interrupt.get("response_schema")
    source, details = interrupt.get("source"), details_of(interrupt)
    return QuestionPart(
        interrupt["id"],
        kind,
        message,
        interrupt.get("tool"),
        args,
        schema,
        source=source,
        details=details,
        options=tuple(interrupt.get("options") or ()),
        call=interrupt.get("tool_call_id"),
    )


def attachment_of(value: Any) -> str | None:
    """The id in ``{"attachment": id}``; None for content that is not a reference."""
    ref = value.get("attachment") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) else None


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _progress(content: dict[str, Any]) -> str:
    done, total = content.get("progress"), content.get("total")
    share = "" if done is None else plain_number(done) + (f"/{plain_number(total)}" if total else "")
    return " ".join(part for part in (share, str(content.get("message") or "")) if part)
