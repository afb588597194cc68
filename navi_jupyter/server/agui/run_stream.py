"""The stream of one AG-UI run: what happens in a session, from the client's request to the end of the run it follows.

A run of AG-UI ends where it asks, and goes on as another one; a run of Navi pauses. So this run is a view: it has the
client's ids, begins with the request, and shows what the log has until the run that answers the client ends or asks.
The rules of AG-UI's verifier hold: what was not opened in it is not continued, and all that it opened is closed.

Not responsible for reading the log (``rest.agui``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...agent.tools.client_tools import CLIENT
from ...model.runs import Approval
from ...model.sessions import Run, RunStatus, Usage
from ..wire.agui import PROTOCOL, RunAgentInput
from .thread import ClientMessages

Event = dict[str, Any]

_OPENS = {
    "TEXT_MESSAGE_START": "text",
    "REASONING_START": "reasoning",
    "REASONING_MESSAGE_START": "thought",
    "TOOL_CALL_START": "call",
    "SUBAGENT_STARTED": "subagent",
}
_CONTINUES = {"TEXT_MESSAGE_CONTENT": "text", "REASONING_MESSAGE_CONTENT": "thought", "TOOL_CALL_ARGS": "call"}
_CLOSES = {
    "TEXT_MESSAGE_END": "text",
    "REASONING_MESSAGE_END": "thought",
    "REASONING_END": "reasoning",
    "TOOL_CALL_END": "call",
    "SUBAGENT_FINISHED": "subagent",
    "SUBAGENT_ERROR": "subagent",
}
_CLOSED_BY = (  # innermost first
    ("call", "TOOL_CALL_END"),
    ("thought", "REASONING_MESSAGE_END"),
    ("reasoning", "REASONING_END"),
    ("text", "TEXT_MESSAGE_END"),
)
_KEYS = {"call": "toolCallId", "subagent": "subagentRunId"}


class RunStream:
    """See the module. ``over`` is set with its last event."""

    def __init__(
        self,
        body: RunAgentInput,
        *,
        session_id: str | None,
        target: str | None,
        command_id: str | None,
        resumed: Run | None = None,
    ) -> None:
        """``target``: the run of Navi's whose end is this one's; None: the one that is in progress. ``command_id``: the
        prompt that it answers. ``resumed``: the run that goes on by an answer, as it was before."""
        self.over = False
        self.target = target
        self.active: str | None = None  # the run in progress, as of the snapshot and of what came after it
        self.queued: set[str] = set()  # those that wait, as of the snapshot
        self.client = ClientMessages(body.messages)
        self._body = body
        self._session_id = session_id
        self._command_id = command_id
        self._resumed = resumed
        self._used: dict[str, Event] = {}  # tokens by model
        self._open: dict[tuple[str, str], Event] = {}  # what is open, by its kind and id: the event that opened it
        self._sent: dict[tuple[str, str], int] = {}  # characters of it so far
        self._unseen: set[str] = set()  # messages that the client wrote itself
        self._results: set[str] = set()
        self._activities: set[str] = set()
        self._speakers: dict[tuple[str | None, str | None], tuple[str, str]] = {}
        """The latest message of each agent of a run, with its role: a call without a parent belongs to it."""
        self._questions: dict[str, dict[str, Any]] = {}  # those that are open

    def begin(self, left_out: Sequence[str] = ()) -> list[Event]:
        """The first event. ``left_out``: what of the input is not used."""
        about = {"session_id": self._session_id, "run_id": self.target, "left_out": list(left_out) or None}
        started = self._named("RUN_STARTED") | {"protocolVersion": PROTOCOL}
        if self._body.parent_run_id is not None:
            started["parentRunId"] = self._body.parent_run_id
        return [started | {"metadata": {"navi": {name: one for name, one in about.items() if one is not None}}}]

    def translate(self, envelopes: Iterable[Mapping[str, Any]]) -> list[Event]:
        """The events of a page of the log. Nothing comes after the last one of this run."""
        page = list(envelopes)
        reopened = set[str]()
        for one in page:
            if one.get("snapshot"):
                event = one["event"]
                reopened |= {str(event.get(name)) for name in ("messageId", "parentMessageId") if event.get(name)}
        events: list[Event] = []
        for envelope in page:
            events += self._translated(envelope, reopened)
            if self.over:
                return events
        asked = [one for one in self._questions.values() if not one["durable"]]  # of a run that goes on meanwhile
        if asked and any(one.get("snapshot") for one in page):
            events += self._pause(str(asked[0]["run_id"]))
        return events

    def finish(self, run: Run | None, questions: Iterable[Mapping[str, Any]] = ()) -> list[Event]:
        """The end where the run is over already, or waits for ``questions``; None: there is no run."""
        for question in questions:
            self._questions[str(question["id"])] = dict(question)
        if run is None or run.status is RunStatus.COMPLETED:
            return self._end({"type": "success"})
        if run.status is RunStatus.WAITING:
            return self._pause(run.id)
        if run.status is RunStatus.STOPPED:
            return self._end({"type": "cancelled"})
        error = run.error
        return self.fail(error.message if error else "The run failed.", error.code if error else "failed")

    def fail(self, message: str, code: str) -> list[Event]:
        """The end of a run that failed."""
        self.over = True
        return [{"type": "RUN_ERROR", "message": message, "code": code} | self._usage()]

    def _translated(self, envelope: Mapping[str, Any], reopened: set[str]) -> list[Event]:
        event, run_id, snapshot = envelope["event"], envelope.get("run_id"), bool(envelope.get("snapshot"))
        kind = event["type"]
        if kind in _OPENS:
            return self._opened(_OPENS[kind], event, run_id)
        if kind in _CONTINUES:
            return self._continued(_CONTINUES[kind], event, whole=snapshot)
        if kind in _CLOSES:
            return self._closed(_CLOSES[kind], event)
        match kind:
            case "MESSAGES_SNAPSHOT":
                self.queued = {str(one.get("runId")) for one in event["messages"] if one.get("queued")}
                return [{"type": kind, "messages": self.client.merged(event["messages"], reopened=reopened)}]
            case "RUN_STARTED":
                self.active = run_id
                self.target = self.target or run_id
                return []
            case "RUN_FINISHED" | "RUN_ERROR":
                return self._run_ended(event, run_id)
            case "TOOL_CALL_RESULT":
                return self._result(event, run_id)
            case "ACTIVITY_SNAPSHOT":
                self._activities.add(event["messageId"])
            case "ACTIVITY_DELTA" if event["messageId"] not in self._activities:
                return []
            case "CUSTOM":
                return self._custom(event, snapshot=snapshot)
        return [event]

    def _opened(self, kind: str, event: Event, run_id: str | None) -> list[Event]:
        key = _key(kind, event)
        speaker = (run_id, event.get("subagentRunId"))
        if kind == "text":
            self._speakers[speaker] = (key, event.get("role", "assistant"))
            if event.get("role") == "user" and self.client.has_user_message(key):
                self._unseen.add(key)
                return []
        elif kind == "call" and not event.get("parentMessageId"):
            # As the log's own fold has it, so that a snapshot finds the call in the same message.
            last, role = self._speakers.get(speaker, ("", ""))
            parent = last if role == "assistant" else f"{key}-call"
            self._speakers[speaker] = (parent, "assistant")
            event = {**event, "parentMessageId": parent}
        if (kind, key) in self._open:
            return []
        self._open[kind, key] = event
        return [event]

    def _continued(self, kind: str, event: Event, *, whole: bool) -> list[Event]:
        """``whole``: it has all of the text so far, of which some may have been shown."""
        key = _key(kind, event)
        if (kind, key) not in self._open:
            return []
        sent, text = self._sent.get((kind, key), 0), event["delta"]
        if whole:
            held = self.client.thoughts.get(key, "") if kind == "thought" else ""
            # The client keeps its reasoning whatever a snapshot says.
            text = text[max(sent, len(held) if held and text.startswith(held) else 0) :]
            sent = len(event["delta"]) - len(text)
        self._sent[kind, key] = sent + len(text)
        return [{**event, "delta": text}] if text else []

    def _closed(self, kind: str, event: Event) -> list[Event]:
        return [event] if self._open.pop((kind, _key(kind, event)), None) is not None else []

    def _result(self, event: Event, run_id: str | None) -> list[Event]:
        self._speakers[run_id, event.get("subagentRunId")] = (event["messageId"], "tool")
        if event["messageId"] in self._results or self.client.has_result(event["toolCallId"]):
            return []
        self._results.add(event["messageId"])
        return [event]

    def _custom(self, event: Event, *, snapshot: bool) -> list[Event]:
        name, value = event["name"], event["value"]
        if name == "navi.gap":
            return []
        if name == "navi.interrupt":
            question = value["interrupt"]
            if value["action"] != "opened":
                self._questions.pop(question["id"], None)
                return [event]
            self._questions[question["id"]] = question
            if question["durable"] or snapshot:
                return [event]  # the run pauses with it; a snapshot may have more of them
            # It is awaited in memory, and the run goes on: AG-UI's run ends here, and the answer begins another one.
            return [event, *self._pause(question["run_id"])]
        if name == "navi.queue":
            about_ours = value.get("command_id") is not None and value["command_id"] == self._command_id
            if about_ours and value["action"] == "steered":
                self.target = value["run_id"]
            elif about_ours and value["action"] == "cancelled":
                return [event, *self._end({"type": "cancelled"})]
        return [event]

    def _run_ended(self, event: Event, run_id: str | None) -> list[Event]:
        self.active = None
        outcome = event.get("outcome") or {"type": "success"}
        if event["type"] == "RUN_FINISHED" and outcome["type"] == "interrupt":
            self._count(run_id, event.get("usage"))
            return self._pause(str(run_id))  # also that of a run which is in the way of ours
        self._count(run_id, event.get("usage"))
        if run_id != self.target:
            return []
        if event["type"] == "RUN_ERROR":
            return self.fail(event["message"], event["code"])
        return self._end({"type": outcome["type"]})

    def _pause(self, run_id: str) -> list[Event]:
        """The end of this run by what the other one asks: results of the client's tools, or answers."""
        asked = [one for one in self._questions.values() if one["run_id"] == run_id]
        entries = [_interrupt(one) for one in asked if one.get("source") != CLIENT]
        if entries:
            return self._end({"type": "interrupt", "interrupts": entries})
        pending = [one["tool_call_id"] for one in asked if one.get("tool_call_id")]
        return self._end({"type": "success"} | ({"pendingToolCallIds": pending} if pending else {}))

    def _end(self, outcome: Event) -> list[Event]:
        self.over = True
        return [*self._closing(), self._named("RUN_FINISHED") | {"outcome": outcome} | self._usage()]

    def _closing(self) -> list[Event]:
        """The events that close what is open: the log goes on, and a later run opens it again."""
        events: list[Event] = []
        for kind, closes in _CLOSED_BY:
            name = _KEYS.get(kind, "messageId")
            for (of, key), opened in self._open.items():
                if of == kind:
                    who = {"subagentRunId": opened["subagentRunId"]} if opened.get("subagentRunId") else {}
                    events.append({"type": closes, name: key} | who)
        for of, key in reversed(self._open):
            if of == "subagent":
                events.append({"type": "SUBAGENT_FINISHED", "subagentRunId": key, "outcome": {"type": "suspended"}})
        self._open.clear()
        return events

    def _count(self, run_id: str | None, usage: Any) -> None:
        """Add what a run has used, where it is one of the client's: what it had used before its pause is reported."""
        resumed = self._resumed if self._resumed is not None and self._resumed.id == run_id else None
        if not usage or (resumed is None and run_id != self.target):
            return
        before = resumed.usage if resumed else Usage()
        spent = {"inputTokens": before.input_tokens, "outputTokens": before.output_tokens}
        for entry in usage:
            known = self._used.setdefault(str(entry.get("model")), {**entry, **dict.fromkeys(spent, 0)})
            for name, earlier in spent.items():
                known[name] += max(0, entry.get(name, 0) - earlier)

    def _usage(self) -> Event:
        return {"usage": list(self._used.values())} if self._used else {}

    def _named(self, kind: str) -> Event:
        return {"type": kind, "threadId": self._body.thread_id, "runId": self._body.run_id}


def _key(kind: str, event: Event) -> str:
    return str(event[_KEYS.get(kind, "messageId")])


def _interrupt(question: Mapping[str, Any]) -> Event:
    """A question as AG-UI's interrupt, with the schema of its answer, and all that a user is shown of it."""
    schema = question.get("response_schema")
    if question["kind"] == "approval":
        schema = Approval.model_json_schema()
        if question.get("options"):
            ids = [one["id"] for one in question["options"]]
            schema["properties"]["option"] = {"type": "string", "enum": ids, "title": "Option"}
            schema.pop("required", None)  # an option says whether it is approved
    about = {name: question.get(name) for name in ("tool", "args", "source", "details", "options")}
    found = {
        "id": question["id"],
        "reason": question["kind"],
        "message": question.get("message"),
        "toolCallId": question.get("tool_call_id"),
        "responseSchema": schema,
        "expiresAt": question.get("expires_at"),
        "subagentRunId": question.get("subagent_run_id"),
        "metadata": {"navi": {name: one for name, one in about.items() if one is not None}},
    }
    return {name: one for name, one in found.items() if one is not None}
