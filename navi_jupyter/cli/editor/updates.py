"""What a session's log says, as `session/update` of the Agent Client Protocol: envelopes in, updates out. Pure.

Source: https://agentclientprotocol.com/protocol/prompt-turn and /tool-calls. Not responsible for getting envelopes or
for sending updates (``session``).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, get_args

from acp import schema

from ...kernel.display.tool_lines import status_of, tool_line
from ...output_text import outputs_text, patched
from ...text import code_block, truncate, truncate_middle
from ...visible_text import marked_line

Envelope = dict[str, Any]
Update = (
    schema.UserMessageChunk
    | schema.AgentMessageChunk
    | schema.AgentThoughtChunk
    | schema.ToolCallStart
    | schema.ToolCallProgress
    | schema.AgentPlanUpdate
)
ToolKind = Literal["read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"]
Content = schema.ContentToolCallContent | schema.FileEditToolCallContent | schema.TerminalToolCallContent

_SHOWN = 20_000  # characters of a tool's outputs and of its result; the end of it counts
_REPLAYED = 200_000  # characters of one message that is replayed
_KINDS: Mapping[str, ToolKind] = {
    "delete_cell": "delete",
    "edit_cell": "edit",
    "insert_cell": "edit",
    "write_file": "edit",
    "search_files": "search",
    "search_memory": "search",
    "run_cell": "execute",
    "run_code": "execute",
    "run_notebook": "execute",
    "delegate": "think",
}
_READING = ("read_", "list_", "inspect_", "kernel_status", "current_time", "session_history")


@dataclass(eq=False)
class ShownCall:
    """A tool call as the editor shows it."""

    id: str
    name: str
    run_id: str | None
    subagent: str | None = None  # the name of the subagent whose call it is
    args: str = ""
    result: str | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    progress: str = ""
    changes: list[Content] = field(default_factory=list)  # differences of files, images: shown before the text
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Of an agent program's call (``navi.agent_call``): its own kind, title, locations and changes."""
    is_shown: bool = False  # the editor has its start
    is_changed: bool = False  # it has more outputs than the editor has been sent

    @property
    def fields(self) -> Mapping[str, Any]:
        """The arguments, once they are complete; else empty."""
        try:
            value = json.loads(self.args)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def kind(self) -> ToolKind:
        """What icon the editor draws."""
        if self.reported.get("kind") in get_args(ToolKind):
            kind: ToolKind = self.reported["kind"]
            return kind
        if self.name in _KINDS:
            return _KINDS[self.name]
        return "read" if self.name.startswith(_READING) else "other"

    def title(self, *, asking: bool = False, is_over: bool = False) -> str:
        """The call in words, on one line."""
        if self.reported.get("title"):
            return marked_line(str(self.reported["title"]))
        status = "asking" if asking else status_of(self.result, is_over=is_over)
        words = tool_line(self.name, self.args, self.result, status)
        return f"{marked_line(self.subagent)}: {words}" if self.subagent else words

    def content(self) -> list[Content]:
        """What is shown below the title: what it changes, then what it has put out."""
        text = outputs_text(self.outputs, traceback_limit=4_000, name_images=True) if self.outputs else ""
        if not text and self.progress:
            text = self.progress
        if not text and self.result is not None and not self.changes:
            text = self.result
        return [*self.changes, *([text_content(code_block(truncate_middle(text, _SHOWN, head=0.2)))] if text else [])]


class UpdateBuilder:
    """Builds the updates of one session."""

    def __init__(self, root: str | None, own: set[str]) -> None:
        """``root``: the server's folder as the editor may name it; None: not known. ``own``: messages that this editor
        has sent itself, which it shows already."""
        self._root = root
        self.own = own
        self.calls: dict[str, ShownCall] = {}
        self.notebook: str | None = None  # the path of the session's notebook, below the server's root
        self._messages: dict[str, str] = {}  # the role of each message that has begun: none for those of subagents
        self._subagents: dict[str, str] = {}
        self._activities: dict[str, dict[str, Any]] = {}

    def apply(self, envelope: Envelope) -> list[Update]:
        """The updates of the next envelope, in order."""
        event = envelope["event"]
        kind, sub = event.get("type"), event.get("subagentRunId")
        match kind:
            case "TEXT_MESSAGE_START":
                self._messages[event["messageId"]] = "" if sub else str(event.get("role", "assistant"))
                if event.get("role") == "user" and (envelope.get("origin") or {}).get("kind") == "recall":
                    return [_chunk("user", "Recall: ", event["messageId"])]
            case "TEXT_MESSAGE_CONTENT":
                return self._text(event["messageId"], str(event.get("delta", "")))
            case "TEXT_MESSAGE_END":
                self._messages.pop(event["messageId"], None)
            case "REASONING_MESSAGE_CONTENT" if sub is None and event.get("delta"):
                return [_thought(str(event["delta"]), event.get("messageId"))]
            case "SUBAGENT_STARTED":
                self._subagents[str(sub)] = str(event.get("name", "subagent"))
            case "TOOL_CALL_START" | "TOOL_CALL_ARGS" | "TOOL_CALL_END" | "TOOL_CALL_RESULT":
                return self._tool(event, envelope.get("run_id"))
            case "ACTIVITY_SNAPSHOT" | "ACTIVITY_DELTA":
                return self._activity(event)
            case "RUN_FINISHED" | "RUN_ERROR" if (event.get("outcome") or {}).get("type") != "interrupt":
                return self._end(envelope.get("run_id"))
        return []

    def changed(self) -> list[Update]:
        """Tool calls that have put out more since this was called last."""
        found = [call for call in self.calls.values() if call.is_changed]
        for call in found:
            call.is_changed = False
        return [self.progress(call) for call in found]

    def replay(self, messages: Iterable[Mapping[str, Any]]) -> Iterator[Update]:
        """The updates that show messages of finished runs, oldest first (AG-UI's, as the transcript has them)."""
        for message in messages:
            role, text = message.get("role"), truncate(_plain(message.get("content") or ""), _REPLAYED)
            if role == "activity":
                yield from self._activity(message)
            elif message.get("subagentRunId") is not None:
                continue
            elif role == "user" and message["id"] not in self.own and not message.get("queued"):
                recall = (message.get("origin") or {}).get("kind") == "recall"
                yield _chunk("user", ("Recall: " if recall else "") + text, message["id"])
            elif role == "assistant":
                if message.get("reasoning"):
                    yield _thought(truncate(str(message["reasoning"]), _REPLAYED), message["id"])
                if text:
                    yield _chunk("assistant", text, message["id"])
                for one in message.get("toolCalls") or ():
                    function = one.get("function") or {}
                    call = ShownCall(one["id"], str(function.get("name", "tool")), message.get("runId"))
                    call.args = str(function.get("arguments", ""))
                    self.calls[call.id] = call
            elif role == "tool" and (done := self.calls.get(str(message.get("toolCallId")))) is not None:
                done.result = text
                yield self.started(done)

    def started(self, call: ShownCall, *, asking: bool = False) -> schema.ToolCallStart:
        """The first update of a call, with all that is known of it."""
        call.is_shown = True
        return schema.ToolCallStart(session_update="tool_call", **self._described(call, asking=asking))

    def progress(self, call: ShownCall, *, asking: bool = False, is_over: bool = False) -> Update:
        """The next update of a call; its first one where the editor has none yet."""
        if not call.is_shown:
            return self.started(call, asking=asking)
        described = self._described(call, asking=asking, is_over=is_over)
        return schema.ToolCallProgress(session_update="tool_call_update", **described)

    def path(self, name: str) -> str:
        """A path below the server's root as the editor can open it."""
        return str(PurePath(self._root, name)) if self._root else name

    def _described(self, call: ShownCall, *, asking: bool = False, is_over: bool = False) -> dict[str, Any]:
        status = status_of(call.result, is_over=is_over)
        states = {"running": "in_progress", "done": "completed"}
        return {
            "tool_call_id": call.id,
            "title": truncate(call.title(asking=asking, is_over=is_over), 300),
            "kind": call.kind,
            "status": "pending" if asking else states.get(status, "failed"),
            "content": call.content() or None,
            "locations": self._locations(call) or None,
            "raw_input": dict(call.fields) or None,
            "raw_output": None if call.result is None else {"text": truncate_middle(call.result, _SHOWN)},
        }

    def _locations(self, call: ShownCall) -> list[schema.ToolCallLocation]:
        if reported := call.reported.get("locations"):
            return [schema.ToolCallLocation(path=self.path(str(one["path"])), line=one.get("line")) for one in reported]
        name = call.fields.get("path")
        if not isinstance(name, str) and call.name.endswith("_cell"):
            name = self.notebook
        return [schema.ToolCallLocation(path=self.path(name))] if isinstance(name, str) and name else []

    def _text(self, message_id: str, delta: str) -> list[Update]:
        role = self._messages.get(message_id)
        if not role or not delta or message_id in self.own:
            return []
        return [_chunk("user" if role == "user" else "assistant", delta, message_id)]

    def _start(self, event: Mapping[str, Any], run_id: str | None) -> list[Update]:
        sub = event.get("subagentRunId")
        name = None if sub is None else self._subagents.get(str(sub), "subagent")
        call = ShownCall(event["toolCallId"], str(event.get("toolCallName", "tool")), run_id, name)
        self.calls[call.id] = call
        return [self.started(call)]

    def _tool(self, event: Mapping[str, Any], run_id: str | None) -> list[Update]:
        if event["type"] == "TOOL_CALL_START":
            return self._start(event, run_id)
        call = self.calls.get(event["toolCallId"])
        if call is None:
            return []
        if event["type"] == "TOOL_CALL_ARGS":
            call.args += str(event.get("delta", ""))
            return []
        if event["type"] == "TOOL_CALL_RESULT":
            call.result = _plain(event.get("content", ""))
            call.is_changed = False
        return [self.progress(call)]

    def _activity(self, event: Mapping[str, Any]) -> list[Update]:
        key = str(event.get("messageId") or event.get("id"))
        if event.get("content") is not None:
            self._activities[key] = copy.deepcopy(event["content"])  # a copy, since patches are applied in place
        content = self._activities.get(key)
        if content is None:
            return []
        if event.get("patch"):
            content = self._activities[key] = patched(content, event["patch"])
        if event.get("activityType") == "navi.plan":
            return _plan(content)
        if event.get("activityType") == "navi.agent_notice":
            return [notice(str(content.get("message", "")))]
        call = self.calls.get(str(content.get("toolCallId")))
        if call is None:
            return []
        if event.get("activityType") == "navi.agent_call":
            call.reported = content
            call.changes = [
                schema.FileEditToolCallContent(
                    type="diff",
                    path=self.path(str(one["path"])),
                    old_text=one.get("before"),
                    new_text=str(one["after"]),
                )
                for one in content.get("changes") or ()
            ]
            return [self.progress(call)]
        if event.get("activityType") == "navi.output":
            call.outputs, call.is_changed = list(content.get("outputs") or ()), True
        elif event.get("activityType") == "navi.progress":
            call.progress, call.is_changed = str(content.get("message") or ""), True
        return []

    def _end(self, run_id: str | None) -> list[Update]:
        """Calls that got no result will get none."""
        left = [call for call in self.calls.values() if call.run_id == run_id and call.result is None]
        updates = [self.progress(call, is_over=True) for call in left]
        for call in left:
            call.is_changed = False
        # What is over is not needed any more: a session may stay open for months.
        self.calls = {key: call for key, call in self.calls.items() if call.run_id != run_id}
        self._activities.clear()
        return updates


def notice(text: str) -> schema.AgentMessageChunk:
    """Words of Navi itself in the conversation."""
    return _chunk("assistant", f"\n\n_{text}_\n\n", None)  # type: ignore[return-value]


def text_content(text: str) -> schema.ContentToolCallContent:
    """Markdown as content of a tool call."""
    return schema.ContentToolCallContent(type="content", content=schema.TextContentBlock(type="text", text=text))


def difference(path: str, lines: Sequence[str]) -> schema.FileEditToolCallContent:
    """A difference from the lines of a question: blank, ``+``, ``-`` and ``@`` begin them (``CallDetail.kind``)."""
    old = [line[1:] for line in lines if line[:1] in (" ", "-", "")]
    new = [line[1:] for line in lines if line[:1] in (" ", "+", "")]
    return schema.FileEditToolCallContent(
        type="diff", path=path, old_text="\n".join(old) if old else None, new_text="\n".join(new)
    )


def merged(updates: Iterable[Update]) -> Iterator[Update]:
    """Pieces of one message that follow each other as one piece: a page of the log has hundreds."""
    last: Any = None
    for update in updates:
        if last is not None and _is_same_message(last, update):
            last = last.model_copy(
                update={"content": schema.TextContentBlock(type="text", text=last.content.text + update.content.text)}  # type: ignore[union-attr]
            )
            continue
        if last is not None:
            yield last
        last = update
    if last is not None:
        yield last


def _is_same_message(one: Any, other: Any) -> bool:
    chunks = (schema.UserMessageChunk, schema.AgentMessageChunk, schema.AgentThoughtChunk)
    return isinstance(one, chunks) and type(one) is type(other) and one.message_id == other.message_id


def _chunk(role: str, text: str, message_id: str | None) -> Update:
    block = schema.TextContentBlock(type="text", text=text)
    if role == "user":
        return schema.UserMessageChunk(session_update="user_message_chunk", content=block, message_id=message_id)
    return schema.AgentMessageChunk(session_update="agent_message_chunk", content=block, message_id=message_id)


def _thought(text: str, message_id: str | None) -> Update:
    block = schema.TextContentBlock(type="text", text=text)
    return schema.AgentThoughtChunk(session_update="agent_thought_chunk", content=block, message_id=message_id)


def _plan(content: Mapping[str, Any]) -> list[Update]:
    entries = [
        schema.PlanEntry(
            content=truncate(str(entry.get("content", "")), 2000),
            priority=entry["priority"] if entry.get("priority") in ("high", "medium", "low") else "medium",
            status=entry["status"] if entry.get("status") in ("pending", "in_progress", "completed") else "pending",
        )
        for entry in content.get("entries") or ()
        if isinstance(entry, dict)
    ]
    return [schema.AgentPlanUpdate(session_update="plan", entries=entries)]


def _plain(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)
