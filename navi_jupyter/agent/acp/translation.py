"""What an agent program reports of one turn (``session/update``), as events of the run's log.

Text and thoughts become messages, tool calls the calls ``acp__<kind>`` with what is known of them in the activity
``navi.agent_call``, a plan the activity ``navi.plan``: protocol.md has their contents. All of it is foreign: types are
checked, sizes bounded, texts made well-formed, and ids of the agent never become ids of the log. A call of a tool of
ours, which the agent makes through our MCP server, is in the log already, and is left out here.
Source: https://agentclientprotocol.com, version 1. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...events import (
    MAX_DELTA,
    ActivitySnapshot,
    Event,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ...input.json_input import well_formed, well_formed_value
from ...model.base import new_id
from ...text import one_line, truncate_middle, truncate_start
from ..tools.output import ACTIVITY as OUTPUT
from ..tools.result_text import render
from .permissions import SERVER_NAME, own_tool
from .transport import ProtocolBroken

KINDS = frozenset({"read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"})
READS = frozenset({"read", "search", "fetch", "think"})
"""Kinds of calls that change nothing outside of the agent, as it says."""
MAX_CALLS = 5_000  # calls of one turn that are shown
_MOST_STATES = 200  # changes of one call that are shown, but for its end
_MOST_PARTS = 50  # places, changes and entries of a plan
_PRINTING = 4_000  # characters that a command has printed, while it goes on
_MOST_PRINTS = 500  # snapshots of them in the log
_CHANGE = 200_000  # characters of a file before and after a change
_INPUT = 60_000  # characters of a call's arguments
_PRIORITIES, _STATES = ("high", "medium", "low"), ("pending", "in_progress", "completed")


@dataclass(slots=True)
class _AgentCall:
    """A tool call of the agent, as far as it has been reported."""

    id: str  # in the log
    kind: str = "other"
    title: str = ""
    status: str = "pending"
    locations: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    terminals: list[str] = field(default_factory=list)
    input: Any = None
    output: Any = None
    is_ours: bool = False
    has_args: bool = False
    is_over: bool = False
    shown: dict[str, Any] | None = None  # the content of its activity
    states: int = 0
    printed: str = ""  # what its output shows
    prints: int = 0


class TurnTranslation:
    """Of one turn, in order. Stateless towards the log: what it returns is to be emitted as it is."""

    def __init__(
        self,
        *,
        agent: str,
        run_id: str,
        root: Path,
        ours: Callable[[], Sequence[str]],
        terminal_text: Callable[[str], str | None],
    ) -> None:
        """``ours``: the names of the tools that the agent has from us; ``terminal_text``: what a terminal of ours has
        printed."""
        self._agent = agent
        self._run_id = run_id
        self._root = root
        self._ours = ours
        self._terminal_text = terminal_text
        self._open: tuple[str, str, object] | None = None  # kind and id of the open message, and the agent's id of it
        self._calls: dict[str, _AgentCall] = {}  # by the agent's ids
        self._tasks: list[Any] = []  # the last list of tasks that was shown as a plan
        self.has_text = False
        self.has_effects = False  # whether a call was reported that is more than reading
        self.cost: float | None = None  # US dollars that the agent's session has cost so far

    def apply(self, update: Mapping[str, Any]) -> list[Event]:
        """The events of an update; none for one that shows nothing, or is not understood.

        Raises ProtocolBroken for more than any agent does.
        """
        match update.get("sessionUpdate"):
            case "agent_message_chunk":
                return list(self._chunk("text", update))
            case "agent_thought_chunk":
                return list(self._chunk("thought", update))
            case "tool_call" | "tool_call_update":
                return list(self._call(update))
            case "plan":
                return [*self._close_message(), *self._plan(update.get("entries"))]
            case "plan_update" if isinstance(plan := update.get("plan"), dict) and plan.get("type") == "items":
                return [*self._close_message(), *self._plan(plan.get("entries"))]
            case "usage_update":
                cost = update.get("cost")
                if isinstance(cost, dict) and cost.get("currency") == "USD":
                    amount = cost.get("amount")
                    if isinstance(amount, int | float) and 0 <= amount < 1e6:
                        self.cost = float(amount)
                return []
            case _:
                return []

    def ask(self, tool_call: Mapping[str, Any]) -> tuple[list[Event], str | None]:
        """The agent asks whether it may make this call: the events until then, and the call's id in the log.

        None: it is a call of a tool of ours, which asks itself.
        """
        events = list(self._call(tool_call))
        call = self._calls.get(str(tool_call.get("toolCallId")))
        if call is None:
            return events, None
        if call.is_ours:
            return events, None
        return [*events, *self._arguments(call)], call.id

    def close(self) -> list[Event]:
        """What closes the messages and calls that are open: the turn is over."""
        events = list(self._close_message())
        for call in self._calls.values():
            if not call.is_ours and not call.is_over:
                call.is_over = True
                message = "It is not known how this call has ended."
                content = json.dumps({"error": "agent_call_failed", "message": message})
                events += [*self._arguments(call), _result(call, content)]
        return events

    def note(self, code: str, message: str) -> list[Event]:
        """A line about the agent program in the run."""
        content = {"agent": self._agent, "code": code, "message": message}
        notice = ActivitySnapshot(message_id=new_id("agent_notice"), activity_type="navi.agent_notice", content=content)
        return [*self._close_message(), notice]

    def _chunk(self, kind: str, update: Mapping[str, Any]) -> Iterator[Event]:
        text = well_formed(_text_of(update.get("content")))
        if not text:
            return
        theirs = update.get("messageId")
        if self._open is None or self._open[0] != kind or (theirs and self._open[2] and theirs != self._open[2]):
            yield from self._close_message()
            message_id = new_id("m")
            self._open = (kind, message_id, theirs)
            if kind == "text":
                yield TextMessageStart(message_id=message_id, role="assistant")
            else:
                yield ReasoningStart(message_id=message_id)
                yield ReasoningMessageStart(message_id=message_id)
        message_id = self._open[1]
        self.has_text = self.has_text or (kind == "text" and bool(text.strip()))
        content = TextMessageContent if kind == "text" else ReasoningMessageContent
        for at in range(0, len(text), MAX_DELTA):
            yield content(message_id=message_id, delta=text[at : at + MAX_DELTA])

    def _close_message(self) -> Iterator[Event]:
        if self._open is None:
            return
        kind, message_id, _ = self._open
        self._open = None
        if kind == "text":
            yield TextMessageEnd(message_id=message_id)
        else:
            yield ReasoningMessageEnd(message_id=message_id)
            yield ReasoningEnd(message_id=message_id)

    def _call(self, update: Mapping[str, Any]) -> Iterator[Event]:
        theirs = update.get("toolCallId")
        if not isinstance(theirs, str) or not theirs:
            return
        call = self._calls.get(theirs)
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                raise ProtocolBroken(f"It has reported more than {MAX_CALLS} calls in one turn.")
            call = self._calls[theirs] = _AgentCall(new_id("t"))
            call.is_ours = self._is_ours(theirs, update)
            self._take(call, update)
            if not call.is_ours:
                yield from self._close_message()
                yield ToolCallStart(tool_call_id=call.id, tool_call_name=f"acp__{call.kind}")
        else:
            if call.is_over:
                return
            self._take(call, update)
        if call.is_ours:
            return
        self.has_effects = self.has_effects or call.kind not in READS
        yield from self._task_list(call)
        is_final = call.status in ("completed", "failed")
        if not is_final:
            yield from self._outputs(call, is_final=False)
        yield from self._state(call, is_final=is_final)
        if call.status == "in_progress" and call.input not in (None, {}):
            yield from self._arguments(call)
        if is_final:
            call.is_over = True
            yield from self._arguments(call)
            yield from self._outputs(call, is_final=True)
            yield _result(call, self._result_text(call))

    def _task_list(self, call: _AgentCall) -> Iterator[Event]:
        """The tasks that an agent keeps by a tool of its own (``todowrite`` of OpenCode): its plan, which it does not
        report as one."""
        tasks = call.input.get("todos") if call.kind == "other" and isinstance(call.input, dict) else None
        if not isinstance(tasks, list) or tasks in ([], self._tasks):
            return
        if all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in tasks):
            self._tasks = tasks
            yield from self._plan(tasks)

    def _is_ours(self, call_id: str, update: Mapping[str, Any]) -> bool:
        """Whether it is a call of a tool of ours: by its title, or by the id that Gemini CLI gives to such calls."""
        title, kind, tools = update.get("title"), update.get("kind"), self._ours()
        if isinstance(title, str) and own_tool(title, kind if isinstance(kind, str) else None, tools) is not None:
            return True
        return any(call_id.startswith(f"mcp_{SERVER_NAME}_{tool}__") for tool in tools)

    def _take(self, call: _AgentCall, update: Mapping[str, Any]) -> None:
        """Fields that are there replace what was known."""
        if update.get("kind") in KINDS:
            call.kind = update["kind"]
        if isinstance(title := update.get("title"), str) and title.strip():
            call.title = one_line(well_formed(title), 300)
        if update.get("status") in (*_STATES, "failed"):
            call.status = update["status"]
        if isinstance(places := update.get("locations"), list):
            call.locations = list(self._places(places))
        if update.get("rawInput") is not None:
            call.input = _bounded(update["rawInput"])
        if update.get("rawOutput") is not None:
            call.output = update["rawOutput"]
        if isinstance(contents := update.get("content"), list):
            call.changes, call.texts, call.terminals = [], [], []
            for content in contents[:_MOST_PARTS]:
                self._content(call, content)

    def _content(self, call: _AgentCall, content: Any) -> None:
        match content:
            case {"type": "diff", "path": str(path), "newText": str(after)}:
                before = content.get("oldText")
                call.changes.append(
                    {
                        "path": self._path(path),
                        "before": _cut(before) if isinstance(before, str) else None,
                        "after": _cut(after),
                    }
                )
            case {"type": "terminal", "terminalId": str(terminal)}:
                call.terminals.append(terminal)
            case {"type": "content", "content": block}:
                if text := _text_of(block):
                    call.texts.append(well_formed(text))

    def _places(self, places: list[Any]) -> Iterator[dict[str, Any]]:
        for place in places[:_MOST_PARTS]:
            if isinstance(place, dict) and isinstance(path := place.get("path"), str) and path:
                line = place.get("line")
                yield {"path": self._path(path), "line": line if isinstance(line, int) else None}

    def _path(self, path: str) -> str:
        """Relative to the server's root where it is inside, as pages name files."""
        text = well_formed(path)[:1000]
        try:
            return Path(text).relative_to(self._root).as_posix()
        except ValueError:
            return text

    def _state(self, call: _AgentCall, *, is_final: bool) -> Iterator[Event]:
        content = {
            "toolCallId": call.id,
            "agent": self._agent,
            "kind": call.kind,
            "title": call.title,
            "locations": call.locations,
            "changes": call.changes,
        }
        if content == call.shown or (call.states >= _MOST_STATES and not is_final):
            return
        call.states += 1
        call.shown = content
        yield ActivitySnapshot(
            message_id=f"{call.id}:call", activity_type="navi.agent_call", content=content, replace=True
        )

    @staticmethod
    def _arguments(call: _AgentCall) -> Iterator[Event]:
        """Once: what is known of it now."""
        if call.has_args:
            return
        call.has_args = True
        args: dict[str, Any] = {"title": call.title, "kind": call.kind}
        if call.locations:
            args["locations"] = call.locations
        if call.input is not None:
            args["input"] = call.input
        text = json.dumps(args, ensure_ascii=False)
        for at in range(0, len(text), MAX_DELTA):
            yield ToolCallArgs(tool_call_id=call.id, delta=text[at : at + MAX_DELTA])
        yield ToolCallEnd(tool_call_id=call.id)

    def terminal_changed(self, terminal: str) -> list[Event]:
        """A terminal of ours has printed more: the output of the calls that show it."""
        showing = [call for call in self._calls.values() if terminal in call.terminals and not call.is_over]
        return [event for call in showing for event in self._outputs(call, is_final=False)]

    def _outputs(self, call: _AgentCall, *, is_final: bool) -> Iterator[Event]:
        """What its command has printed, the end of it while it goes on: the log gets each of these."""
        texts = [text for terminal in call.terminals if (text := self._terminal_text(terminal))]
        if call.kind == "execute":
            texts += call.texts
        text = "\n".join(texts)
        text = _cut(text) if is_final else well_formed(truncate_start(text, _PRINTING))
        if not text or text == call.printed or (call.prints >= _MOST_PRINTS and not is_final):
            return
        call.printed, call.prints = text, call.prints + 1
        outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
        content = {"toolCallId": call.id, "outputs": outputs}
        yield ActivitySnapshot(message_id=f"{call.id}:output", activity_type=OUTPUT, content=content, replace=True)

    def _result_text(self, call: _AgentCall) -> str:
        terminals = (text for terminal in call.terminals if (text := self._terminal_text(terminal)))
        text = "\n".join([*call.texts, *terminals])
        if not text and call.output is not None:
            text = render(call.output)
        if call.status == "failed":
            return json.dumps({"error": "agent_call_failed", "message": render(text or "It has failed.", limit=4_000)})
        return render(text)

    def _plan(self, entries: Any) -> Iterator[Event]:
        if not isinstance(entries, list):
            return
        shown = [
            {
                "content": one_line(well_formed(one["content"]), 500),
                "priority": one.get("priority") if one.get("priority") in _PRIORITIES else "medium",
                "status": one.get("status") if one.get("status") in _STATES else "pending",
            }
            for one in entries[:_MOST_PARTS]
            if isinstance(one, dict) and isinstance(one.get("content"), str)
        ]
        yield ActivitySnapshot(
            message_id=f"plan_{self._run_id}", activity_type="navi.plan", content={"entries": shown}, replace=True
        )


def _result(call: _AgentCall, content: str) -> Event:
    return ToolCallResult(message_id=new_id("m"), tool_call_id=call.id, content=content)


def _text_of(block: Any) -> str:
    """The text of a content block; what is no text is named."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource_link", "uri": str(uri)}:
            return str(block.get("title") or block.get("name") or uri)
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
        case {"type": "image" | "audio" as kind}:
            return f"({'An image' if kind == 'image' else 'Sound'} that is not shown here.)"
        case _:
            return ""


def _cut(text: str) -> str:
    return well_formed(truncate_middle(text, _CHANGE))


def _bounded(value: Any) -> Any:
    """Arguments as they are where they are small, else as cut text."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return well_formed_value(value) if len(text) <= _INPUT else well_formed(truncate_middle(text, _INPUT))
