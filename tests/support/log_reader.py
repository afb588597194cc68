"""A client's reducer, written from ``docs/protocol.md`` alone: what a stranger makes of envelopes.

Deliberately not the code of ``transcript``: two that agree are worth more than one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ag_ui.core import Event as AgUiEvent
from pydantic import TypeAdapter

AG_UI: TypeAdapter[object] = TypeAdapter(AgUiEvent)


@dataclass
class Said:
    """A message as the client has it."""

    id: str
    role: str
    run_id: str | None
    text: str = ""
    thoughts: list[list[str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    answers: str | None = None
    worker: str | None = None


class Reader:
    """Feed it envelopes; raises AssertionError where an AG-UI verifier would refuse one."""

    def __init__(self) -> None:
        self.messages: dict[str, Said] = {}
        self.calls: dict[str, list[str]] = {}
        self.started: list[str] = []
        self.open: set[tuple[str, str]] = set()
        self.thoughts: dict[str, list[str]] = {}
        self.untold: dict[tuple[str | None, str | None], list[list[str]]] = {}
        self.running: str | None = None
        """Between RUN_STARTED and RUN_FINISHED, as a verifier has it."""
        self.workers: dict[str, bool] = {}
        """Whether each sub-agent is at work."""
        self.activities: dict[str, Any] = {}

    def take(self, envelope: dict[str, Any]) -> None:
        event, run_id = envelope["event"], envelope["run_id"]
        AG_UI.validate_python(event)
        worker = event.get("subagentRunId")
        assert worker is None or event["type"] == "SUBAGENT_STARTED" or self.workers.get(worker), f"unknown {worker}"
        handler = getattr(self, "_" + event["type"].lower(), None)
        if handler is not None:
            handler(event, run_id)

    def conversation(self) -> list[tuple[Any, ...]]:
        """What was said: the runs in the order in which they started, then the prompts that wait."""
        runs = [*self.started, *(m.run_id for m in self.messages.values() if m.run_id not in self.started)]
        ordered = sorted(self.messages.values(), key=lambda m: runs.index(m.run_id))
        return [
            (
                m.id,
                m.role,
                m.run_id,
                m.text,
                "".join(part for thought in m.thoughts for part in thought),
                [(call, *self.calls[call]) for call in m.calls],
                m.answers,
                m.worker,
            )
            for m in ordered
        ]

    # --- one method per event

    def _messages_snapshot(self, event: dict[str, Any], _: str | None) -> None:
        self.__init__()  # type: ignore[misc]
        for message in event["messages"]:
            said = Said(message["id"], message["role"], message["runId"], message["content"])
            said.answers = message.get("toolCallId")
            said.worker = message.get("subagentRunId")
            if "reasoning" in message:
                said.thoughts = [[message["reasoning"]]]
            for call in message.get("toolCalls", ()):
                said.calls.append(call["id"])
                self.calls[call["id"]] = [call["function"]["name"], call["function"]["arguments"]]
            self.messages[said.id] = said
            if not message.get("queued") and said.run_id not in self.started:
                self.started.append(str(said.run_id))

    def _run_started(self, event: dict[str, Any], _: str | None) -> None:
        assert self.running is None, f"{event['runId']} starts within {self.running}"
        self.running = event["runId"]
        if event["runId"] not in self.started:
            self.started.append(event["runId"])

    def _run_finished(self, event: dict[str, Any], run_id: str | None) -> None:
        assert self.running == run_id, f"{run_id} ends within {self.running}"
        assert not self.open, f"the run ended with {self.open} open"
        assert not any(self.workers.values()), "the run ended before its workers"
        self.running = None

    _run_error = _run_finished

    def _subagent_started(self, event: dict[str, Any], _: str | None) -> None:
        assert event["subagentRunId"] not in self.workers, "told twice"
        self.workers[event["subagentRunId"]] = True

    def _subagent_finished(self, event: dict[str, Any], _: str | None) -> None:
        self.workers[event["subagentRunId"]] = False

    _subagent_error = _subagent_finished

    def _activity_snapshot(self, event: dict[str, Any], _: str | None) -> None:
        self.activities[event["messageId"]] = json.loads(json.dumps(event["content"]))

    def _activity_delta(self, event: dict[str, Any], _: str | None) -> None:
        for operation in event["patch"]:
            assert operation["op"] == "add"
            assert operation["path"] == "/list/-"
            self.activities[event["messageId"]]["list"].append(operation["value"])

    def _custom(self, event: dict[str, Any], run_id: str | None) -> None:
        if event["name"] != "navi.queue":
            return
        value = event["value"]
        match value["action"]:
            case "cancelled":
                del self.messages[value["command_id"]]
            case "edited":
                self.messages[value["command_id"]].text = value["text"]
            case "steered":
                self.messages.pop(value["command_id"], None)
                self.messages[value["command_id"]] = Said(value["command_id"], "user", run_id, value["text"])

    def _begin(self, kind: str, key: str) -> None:
        assert (kind, key) not in self.open, f"{kind} {key} was open already"
        self.open.add((kind, key))

    def _text_message_start(self, event: dict[str, Any], run_id: str | None) -> None:
        self._begin("text", event["messageId"])
        assert event["messageId"] not in self.messages, "told twice"
        self._message(event["messageId"], event["role"], run_id, event.get("subagentRunId"))

    def _message(self, message_id: str, role: str, run_id: str | None, worker: str | None) -> Said:
        said = self.messages[message_id] = Said(message_id, role, run_id, worker=worker)
        if role == "assistant":
            said.thoughts = self.untold.pop((run_id, worker), [])
        return said

    def _text_message_content(self, event: dict[str, Any], _: str | None) -> None:
        assert ("text", event["messageId"]) in self.open
        self.messages[event["messageId"]].text += event["delta"]

    def _text_message_end(self, event: dict[str, Any], _: str | None) -> None:
        self.open.remove(("text", event["messageId"]))

    def _reasoning_start(self, event: dict[str, Any], run_id: str | None) -> None:
        self._begin("reasoning", event["messageId"])
        self.thoughts[event["messageId"]] = thought = list[str]()
        self.untold.setdefault((run_id, event.get("subagentRunId")), []).append(thought)

    def _reasoning_message_start(self, event: dict[str, Any], _: str | None) -> None:
        assert ("reasoning", event["messageId"]) in self.open
        self._begin("thought", event["messageId"])

    def _reasoning_message_content(self, event: dict[str, Any], _: str | None) -> None:
        assert ("thought", event["messageId"]) in self.open
        self.thoughts[event["messageId"]].append(event["delta"])

    def _reasoning_message_end(self, event: dict[str, Any], _: str | None) -> None:
        self.open.remove(("thought", event["messageId"]))

    def _reasoning_end(self, event: dict[str, Any], _: str | None) -> None:
        self.open.remove(("reasoning", event["messageId"]))

    def _tool_call_start(self, event: dict[str, Any], run_id: str | None) -> None:
        call, parent = event["toolCallId"], event.get("parentMessageId")
        self._begin("call", call)
        worker = event.get("subagentRunId")
        mine = [m for m in self.messages.values() if (m.run_id, m.worker) == (run_id, worker)]
        if parent is None and mine and mine[-1].role == "assistant":
            said = mine[-1]
        else:
            named = parent or f"{call}-call"
            said = self.messages.get(named) or self._message(named, "assistant", run_id, worker)
        assert call not in self.calls, "told twice"
        said.calls.append(call)
        self.calls[call] = [event["toolCallName"], ""]

    def _tool_call_args(self, event: dict[str, Any], _: str | None) -> None:
        assert ("call", event["toolCallId"]) in self.open
        self.calls[event["toolCallId"]][1] += event["delta"]

    def _tool_call_end(self, event: dict[str, Any], _: str | None) -> None:
        self.open.remove(("call", event["toolCallId"]))

    def _tool_call_result(self, event: dict[str, Any], run_id: str | None) -> None:
        assert event["toolCallId"] in self.calls
        assert ("call", event["toolCallId"]) not in self.open
        said = self._message(event["messageId"], "tool", run_id, event.get("subagentRunId"))
        said.text, said.answers = event["content"], event["toolCallId"]
