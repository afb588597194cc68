"""The fold of a log, and the prelude: whoever joins at any point ends up with the same conversation."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from navi_jupyter.events import (
    Custom,
    Draft,
    Event,
    Outcome,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    RunFinished,
    RunStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from navi_jupyter.model import USER, Run, RunStatus, Session, now
from navi_jupyter.orchestrator.compaction import fold_run
from navi_jupyter.orchestrator.eventlog import prelude
from navi_jupyter.orchestrator.library import conversation
from navi_jupyter.orchestrator.transcript import Fold, fold_frames, merge_deltas
from navi_jupyter.ports import Message, SessionSnapshot

from .reader import Reader

AT = now()
SESSION = Session(
    id="s",
    owner="local",
    title="t",
    profile="assistant",
    model="offline",
    created_at=AT,
    updated_at=AT,
)


@dataclass(repr=False)
class History:
    """A session as an agent and its users might have made it: events, and what the store would know after each."""

    dice: random.Random
    frames: list[tuple[str, str]] = field(default_factory=list)
    """(run_id, envelope)"""
    cuts: list[int] = field(default_factory=lambda: [0])
    """Heads at which a transaction ended: the only ones that anybody can see."""
    transcripts: dict[str, tuple[Message, ...]] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    counter: int = 0

    def emit(self, run_id: str, *events: Event) -> None:
        """One transaction."""
        for event in events:
            draft = Draft(event, run_id=run_id, origin=USER, at=AT)
            self.frames.append((run_id, draft.frame("s", len(self.frames) + 1)))
        self.cuts.append(len(self.frames))

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def ask(self) -> None:
        run_id = self.fresh("r")
        command_id = f"c-{run_id}"
        self.queue.append(run_id)
        self.emit(
            run_id,
            TextMessageStart(message_id=command_id, role="user"),
            TextMessageContent(message_id=command_id, delta=f"do {run_id}"),
            TextMessageEnd(message_id=command_id),
        )

    def withdraw(self) -> None:
        if self.queue:
            run_id = self.queue.pop()
            value = {"action": "cancelled", "command_id": f"c-{run_id}", "run_id": run_id}
            self.emit(run_id, Custom(name="navi.queue", value=value))

    def perform(self, steps: int) -> None:
        """The next run, with other things going on meanwhile."""
        run_id = self.queue.pop(0)
        self.emit(run_id, RunStarted(thread_id="s", run_id=run_id))
        work = Work(self, run_id)
        for _ in range(steps):
            chance = self.dice.random()
            if chance < 0.1:
                self.ask()
            elif chance < 0.13:
                self.withdraw()
            else:
                self.emit(run_id, work.step())
        mine = fold_frames(frame for owner, frame in self.frames if owner == run_id)
        stopped = self.dice.random() < 0.5
        self.transcripts[run_id] = mine.partial() if stopped else mine.messages()
        outcome = Outcome(type="cancelled" if stopped else "success")
        self.emit(run_id, *mine.closers(), RunFinished(thread_id="s", run_id=run_id, outcome=outcome))

    def snapshot(self, head: int) -> SessionSnapshot:
        """What the store would answer when the log ends at ``head``."""
        seen = [(run_id, json.loads(frame)["event"]) for run_id, frame in self.frames[:head]]
        started = [run_id for run_id, event in seen if event["type"] == "RUN_STARTED"]
        ended = [run_id for run_id, event in seen if event["type"] == "RUN_FINISHED"]
        gone = [run_id for run_id, event in seen if event["type"] == "CUSTOM"]
        runs = list(dict.fromkeys(run_id for run_id, _ in seen))
        active = next((run_id for run_id in started if run_id not in ended), None)
        queued = [run_id for run_id in runs if run_id not in started and run_id not in gone]
        shown = {active, *queued}
        return SessionSnapshot(
            session=SESSION,
            head_seq=head,
            finished=[message for run_id in ended for message in self.transcripts[run_id]],
            active=_run(active, RunStatus.RUNNING) if active else None,
            frames=[frame for run_id, frame in self.frames[:head] if run_id in shown],
            queued=[_run(run_id, RunStatus.QUEUED) for run_id in queued],
            recalls=[],
        )


def _run(run_id: str, status: RunStatus) -> Run:
    return Run(
        id=run_id, session_id="s", command_id=f"c-{run_id}", status=status, origin=USER, model="m", created_at=AT
    )


class Work:
    """Random events of one run that an agent loop may yield: every delta has its start, everything may interleave."""

    def __init__(self, history: History, run_id: str) -> None:
        self.history = history
        self.dice = history.dice
        self.fresh = lambda prefix: f"{history.fresh(prefix)}-{run_id}"
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[str] = []
        self.unanswered: list[str] = []
        self.said: list[str] = []
        self.pending: list[Event] = []

    def step(self) -> Event:
        if self.pending:
            return self.pending.pop(0)
        choices = ["text", "think", "call"]
        choices += ["say", "say", "close"] * bool(self.texts)
        choices += ["muse", "settle"] * bool(self.thoughts)
        choices += ["args", "args", "end"] * bool(self.calls)
        choices += ["result"] * bool(self.unanswered)
        event: Event = getattr(self, f"_{self.dice.choice(choices)}")()
        return event

    def _text(self) -> Event:
        self.texts.append(self.fresh("m"))
        self.said.append(self.texts[-1])
        return TextMessageStart(message_id=self.texts[-1])

    def _say(self) -> Event:
        return TextMessageContent(message_id=self.dice.choice(self.texts), delta=self.fresh("x"))

    def _close(self) -> Event:
        return TextMessageEnd(message_id=self._drop(self.texts))

    def _think(self) -> Event:
        self.thoughts.append(self.fresh("t"))
        self.pending.append(ReasoningMessageStart(message_id=self.thoughts[-1]))
        return ReasoningStart(message_id=self.thoughts[-1])

    def _muse(self) -> Event:
        return ReasoningMessageContent(message_id=self.dice.choice(self.thoughts), delta=self.fresh("h"))

    def _settle(self) -> Event:
        thought = self._drop(self.thoughts)
        self.pending.append(ReasoningEnd(message_id=thought))
        return ReasoningMessageEnd(message_id=thought)

    def _call(self) -> Event:
        self.calls.append(self.fresh("k"))
        parent = self.dice.choice([None, None, *self.said])
        return ToolCallStart(tool_call_id=self.calls[-1], tool_call_name="look", parent_message_id=parent)

    def _args(self) -> Event:
        return ToolCallArgs(tool_call_id=self.dice.choice(self.calls), delta=self.fresh("a"))

    def _end(self) -> Event:
        self.unanswered.append(self._drop(self.calls))
        return ToolCallEnd(tool_call_id=self.unanswered[-1])

    def _result(self) -> Event:
        return ToolCallResult(message_id=self.fresh("z"), tool_call_id=self._drop(self.unanswered), content="done")

    def _drop(self, items: list[str]) -> str:
        return items.pop(self.dice.randrange(len(items)))


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History(random.Random(draw(st.integers(0, 2**32))))
    for _ in range(draw(st.integers(1, 3))):
        history.ask()
        history.perform(draw(st.integers(0, 40)))
    return history


def read(*frames: str) -> Reader:
    reader = Reader()
    for frame in frames:
        reader.take(json.loads(frame))
    return reader


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_whoever_joins_at_any_point_ends_up_with_the_conversation_of_the_full_log(
    history: History, data: st.DataObject
) -> None:
    whole = read(*(frame for _, frame in history.frames))
    for cut in {data.draw(st.sampled_from(history.cuts)) for _ in range(8)}:
        drafts = prelude(history.snapshot(cut), AT)
        told = [draft.frame("s", cut, snapshot=True) for draft in drafts]
        joiner = read(*told, *(frame for _, frame in history.frames[cut:]))
        assert joiner.conversation() == whole.conversation()
        assert read(*told).conversation() == read(*(frame for _, frame in history.frames[:cut])).conversation()


@settings(max_examples=100, deadline=None)
@given(histories())
def test_what_the_server_folds_is_what_a_client_reads(history: History) -> None:
    whole = read(*(frame for _, frame in history.frames))
    folded = [
        (
            message.id,
            message.role,
            message.run_id,
            message.content,
            message.reasoning,
            [(call.id, call.name, call.args) for call in message.tool_calls],
            message.tool_call_id,
        )
        for message in conversation(history.snapshot(len(history.frames)))
    ]
    assert folded == whole.conversation()


@settings(max_examples=100, deadline=None)
@given(histories())
def test_compaction_changes_no_conversation_and_no_order(history: History) -> None:
    frames = {json.loads(frame)["seq"]: frame for _, frame in history.frames}
    for run_id in history.transcripts:
        mine = [frame for owner, frame in history.frames if owner == run_id]
        folding = fold_run(mine)
        frames.update(folding.folded)
        for seq in folding.dropped:
            del frames[seq]
    assert list(frames) == sorted(frames)
    assert read(*frames.values()).conversation() == read(*(frame for _, frame in history.frames)).conversation()


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(2, 20))
def test_merging_gathered_deltas_changes_no_conversation(history: History, size: int) -> None:
    def fold(events: list[Event]) -> tuple[Message, ...]:
        result = Fold()
        for event in events:
            result.apply(event, run_id="r", origin=USER, at="")
        return result.messages()

    work = Work(history, "r")
    events = [work.step() for _ in range(200)]
    merged: list[Event] = []
    for start in range(0, len(events), size):
        merged += merge_deltas(events[start : start + size])
    assert fold(merged) == fold(events)


def test_consecutive_deltas_of_a_message_become_one_and_others_stay() -> None:
    def said(message_id: str, delta: str) -> Event:
        return TextMessageContent(message_id=message_id, delta=delta)

    merged = merge_deltas([said("a", "1"), said("a", "2"), said("b", "3"), said("a", "4"), said("a", "5")])
    assert merged == [said("a", "12"), said("b", "3"), said("a", "45")]
    assert merge_deltas([]) == []


def test_a_stopped_run_closes_what_is_open_and_keeps_what_was_said() -> None:
    fold = Fold()
    for event in (
        ReasoningStart(message_id="t"),
        ReasoningMessageStart(message_id="t"),
        TextMessageStart(message_id="m"),
        TextMessageContent(message_id="m", delta="half"),
        ToolCallStart(tool_call_id="k", tool_call_name="look"),
    ):
        fold.apply(event, run_id="r", origin=USER, at="")
    assert [event.type for event in fold.closers()] == [
        "TOOL_CALL_END",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_END",
    ]
    (message,) = fold.partial()
    assert (message.content, message.partial) == ("half", True)
    assert message.tool_calls[0].result == "(no result: the run ended before)"
