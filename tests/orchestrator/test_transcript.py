"""The fold of a log, and the prelude: whoever joins at any point ends up with the same conversation."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navi_jupyter.clock import now
from navi_jupyter.events import (
    ActivityDelta,
    ActivitySnapshot,
    Attributed,
    Custom,
    Draft,
    Envelope,
    Event,
    Outcome,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    RunFinished,
    RunStarted,
    SubagentFinished,
    SubagentStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from navi_jupyter.model.runs import Interrupt, InterruptKind, InterruptStatus
from navi_jupyter.model.sessions import USER, Run, RunStatus, Session
from navi_jupyter.orchestrator.event_writer import merge_deltas
from navi_jupyter.orchestrator.run_endings import interrupt_event, pause_event
from navi_jupyter.orchestrator.snapshot import agui_message, conversation, snapshot_events
from navi_jupyter.orchestrator.transcript import TranscriptBuilder, fold_frames
from navi_jupyter.orchestrator.upkeep.compaction import fold_run
from navi_jupyter.ports.agent import Message
from navi_jupyter.ports.store import SessionSnapshot
from navi_jupyter.store import prompts
from navi_jupyter.store.log.frames import JoinedTexts
from tests.support.database import open_store
from tests.support.log_reader import Reader
from tests.support.orchestrator_world import world

AT = now()
SESSION = Session(id="s", owner="local", title="t", profile="assistant", model="offline", created_at=AT, updated_at=AT)


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
    merged: list[str] = field(default_factory=list)
    waits: list[tuple[int, Interrupt | None]] = field(default_factory=list)
    """From which head on a run waits, for what; None: it works again."""
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

    def change(self) -> None:
        if self.queue:
            run_id = self.dice.choice(self.queue)
            value = {"action": "edited", "command_id": f"c-{run_id}", "run_id": run_id, "text": self.fresh("changed")}
            self.emit(run_id, Custom(name="navi.queue", value=value))

    def steer(self, run_id: str) -> None:
        """A prompt that waits joins the run in progress."""
        if self.queue:
            joined = self.queue.pop()
            self.merged.append(joined)
            value = {"action": "steered", "command_id": f"c-{joined}", "run_id": run_id, "text": f"do {joined}"}
            self.emit(run_id, Custom(name="navi.queue", value=value))

    def pause(self, run_id: str, work: Work) -> None:
        """Ask, and go on once it was answered; what happens meanwhile is no work of the run's."""
        mine = fold_frames(frame for owner, frame in self.frames if owner == run_id)
        work.drop_all()
        question = Interrupt(
            id=self.fresh("i"), session_id="s", run_id=run_id, kind=InterruptKind.APPROVAL, message="?", created_at=AT
        )
        self.emit(
            run_id,
            *mine.closing_events(),
            interrupt_event("opened", question),
            pause_event(_run(run_id, RunStatus.WAITING), [question]),
        )
        self.waits.append((len(self.frames), question))
        for _ in range(self.dice.randrange(3)):
            self.dice.choice([self.ask, self.withdraw, self.change])()
        resolved = question.but(status=InterruptStatus.RESOLVED)
        self.emit(run_id, interrupt_event("resolved", resolved))
        self.waits.append((len(self.frames), resolved))
        self.emit(run_id, RunStarted(thread_id="s", run_id=run_id))
        self.waits.append((len(self.frames), None))

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
            elif chance < 0.15:
                self.change()
            elif chance < 0.18:
                self.steer(run_id)
            elif chance < 0.2:
                self.pause(run_id, work)
            else:
                self.emit(run_id, work.step())
        mine = fold_frames(frame for owner, frame in self.frames if owner == run_id)
        stopped = self.dice.random() < 0.5
        self.transcripts[run_id] = mine.partial() if stopped else mine.messages()
        outcome = Outcome(type="cancelled" if stopped else "success")
        self.emit(run_id, *mine.closing_events(), RunFinished(thread_id="s", run_id=run_id, outcome=outcome))

    def snapshot(self, head: int) -> SessionSnapshot:
        """What the store would answer when the log ends at ``head``."""
        seen = [(run_id, json.loads(frame)["event"]) for run_id, frame in self.frames[:head]]
        started = [run_id for run_id, event in seen if event["type"] == "RUN_STARTED"]
        over = ("success", "cancelled")
        ended = [run_id for run_id, event in seen if event.get("outcome", {}).get("type") in over]
        queued_events = [event["value"] for _, event in seen if event.get("name") == "navi.queue"]
        gone = {v["command_id"] for v in queued_events if v["action"] in ("cancelled", "steered")}
        waits_for = next((question for at, question in reversed(self.waits) if at <= head), None)
        runs = list(dict.fromkeys(run_id for run_id, _ in seen))
        active = next((run_id for run_id in started if run_id not in ended), None)
        queued = [run_id for run_id in runs if run_id not in started and f"c-{run_id}" not in gone]
        shown = {active, *queued}
        return SessionSnapshot(
            session=SESSION,
            head_seq=head,
            finished=[message for run_id in ended for message in self.transcripts[run_id]],
            active=_run(active, RunStatus.WAITING if waits_for else RunStatus.RUNNING) if active else None,
            interrupts=[waits_for] if waits_for else [],
            frames=[frame for run_id, frame in self.frames[:head] if run_id in shown],
            queued=[_run(run_id, RunStatus.QUEUED) for run_id in queued],
            recalls=[],
        )


def _run(run_id: str, status: RunStatus) -> Run:
    return Run(
        id=run_id, session_id="s", command_id=f"c-{run_id}", status=status, origin=USER, model="m", created_at=AT
    )


class Work:
    """Random events of one run that an agent loop may yield: every delta has its start, everything may interleave.

    Workers do the same beside it.
    """

    def __init__(self, history: History, run_id: str, worker: str | None = None) -> None:
        self.history = history
        self.run_id = run_id
        self.worker = worker
        self.dice = history.dice
        self.fresh = lambda prefix: f"{history.fresh(prefix)}-{run_id}"
        self.workers: list[Work] = []
        self.activities: list[str] = []
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[str] = []
        self.unanswered: list[str] = []
        self.said: list[str] = []
        self.pending: list[Event] = []

    def drop_all(self) -> None:
        """Everything that was open has been closed."""
        self.workers, self.texts, self.thoughts, self.calls, self.pending = [], [], [], [], []

    def step(self) -> Event:
        event = self._step()
        if self.worker is None or not isinstance(event, Attributed):
            return event
        return event.model_copy(update={"subagent_run_id": self.worker})

    def _step(self) -> Event:
        if self.pending:
            return self.pending.pop(0)
        choices = ["text", "think", "call"]
        choices += ["say", "say", "close"] * bool(self.texts)
        choices += ["muse", "settle"] * bool(self.thoughts)
        choices += ["args", "args", "end"] * bool(self.calls)
        choices += ["result"] * bool(self.unanswered)
        if self.worker is None:
            choices += ["activity", "hire", *(["progress", "progress"] * bool(self.activities))]
            choices += ["delegate", "delegate", "delegate", "dismiss"] * bool(self.workers)
        event: Event = getattr(self, f"_{self.dice.choice(choices)}")()
        return event

    def _activity(self) -> Event:
        self.activities.append(self.fresh("a"))
        return ActivitySnapshot(message_id=self.activities[-1], activity_type="navi.output", content={"list": []})

    def _progress(self) -> Event:
        patch = {"op": "add", "path": "/list/-", "value": self.fresh("p")}
        message_id = self.dice.choice(self.activities)
        return ActivityDelta(message_id=message_id, activity_type="navi.output", patch=(patch,))

    def _hire(self) -> Event:
        self.workers.append(Work(self.history, self.run_id, self.fresh("w")))
        return SubagentStarted(subagent_run_id=str(self.workers[-1].worker), name="helper")

    def _delegate(self) -> Event:
        return self.dice.choice(self.workers).step()

    def _dismiss(self) -> Event:
        """What the worker has begun is closed before it ends."""
        worker = self.workers.pop(self.dice.randrange(len(self.workers)))
        who = worker.worker
        events: list[Event] = [*worker.pending]
        left = [event.message_id for event in events if isinstance(event, ReasoningEnd)]
        events += [TextMessageEnd(message_id=one, subagent_run_id=who) for one in worker.texts]
        events += [ToolCallEnd(tool_call_id=one, subagent_run_id=who) for one in worker.calls]
        begun = [event.message_id for event in events if isinstance(event, ReasoningMessageStart)]
        for one in worker.thoughts:
            assert one not in left
            events.append(ReasoningMessageEnd(message_id=one, subagent_run_id=who))
            events.append(ReasoningEnd(message_id=one, subagent_run_id=who))
        assert len(begun) <= 1
        events = [
            event.model_copy(update={"subagent_run_id": who}) if isinstance(event, Attributed) else event
            for event in events
        ]
        self.pending += [*events, SubagentFinished(subagent_run_id=str(who))]
        return self.pending.pop(0)

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


def _of(run_id: str, things: dict[str, Any]) -> dict[str, Any]:
    return {name: thing for name, thing in things.items() if name.endswith(f"-{run_id}")}


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_whoever_joins_at_any_point_ends_up_with_the_conversation_of_the_full_log(
    history: History, data: st.DataObject
) -> None:
    whole = read(*(frame for _, frame in history.frames))
    for cut in {data.draw(st.sampled_from(history.cuts)) for _ in range(8)}:
        drafts = snapshot_events(history.snapshot(cut), AT)
        shown = [draft.frame("s", cut, snapshot=True) for draft in drafts]
        joiner = read(*shown, *(frame for _, frame in history.frames[cut:]))
        assert joiner.conversation() == whole.conversation()
        stranger, witness = read(*shown), read(*(frame for _, frame in history.frames[:cut]))
        assert stranger.conversation() == witness.conversation()
        assert stranger.running == witness.running
        active = history.snapshot(cut).active
        assert stranger.activities == ({} if active is None else _of(active.id, witness.activities))
        assert stranger.workers == ({} if active is None else _of(active.id, witness.workers))


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
            message.subagent_run_id,
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
@given(histories())
def test_joining_the_pieces_of_texts_as_they_are_read_changes_no_conversation(history: History) -> None:
    joined = JoinedTexts()
    for _, frame in history.frames:
        joined.add(frame)
    frames = joined.frames()
    assert read(*frames).conversation() == read(*(frame for _, frame in history.frames)).conversation()
    assert fold_frames(frames).messages() == fold_frames(frame for _, frame in history.frames).messages()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([TextMessageContent, ReasoningMessageContent, ToolCallArgs]),
            st.sampled_from(["m", 'delta":"', "{}"]),
            st.sampled_from([None, "sub"]),
            st.text(min_size=1, max_size=12) | st.sampled_from(['"', "\\", '\\"}}', '","delta":"', "\n{"]),
        ),
        max_size=30,
    )
)
def test_pieces_that_no_other_event_is_between_are_one_for_each_text_whatever_is_in_them(
    pieces: list[tuple[Any, str, str | None, str]],
) -> None:
    joined, expected = JoinedTexts(), dict[tuple[Any, ...], str]()
    for seq, (kind, about, subagent, delta) in enumerate(pieces):
        name = "tool_call_id" if kind is ToolCallArgs else "message_id"
        event = kind(**{name: about}, delta=delta, subagent_run_id=subagent)
        joined.add(Draft(event, run_id="r", origin=USER, at=AT).frame("s", seq))
        expected[kind, about, subagent] = expected.get((kind, about, subagent), "") + json.loads(event.wire())["delta"]
    found = dict[tuple[Any, ...], str]()
    frames = joined.frames()
    for frame in frames:
        piece: Any = Envelope.model_validate_json(frame).event
        about = piece.tool_call_id if type(piece) is ToolCallArgs else piece.message_id
        key = (type(piece), about, piece.subagent_run_id)
        found[key] = found.get(key, "") + piece.delta
    assert found == expected
    if not any(about == "{}" for _, about, _, _ in pieces):
        assert len(frames) == len(expected)


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(2, 20))
def test_merging_gathered_deltas_changes_no_conversation(history: History, size: int) -> None:
    def fold(events: list[Event]) -> tuple[Message, ...]:
        result = TranscriptBuilder()
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
    fold = TranscriptBuilder()
    for event in (
        ReasoningStart(message_id="t"),
        ReasoningMessageStart(message_id="t"),
        TextMessageStart(message_id="m"),
        TextMessageContent(message_id="m", delta="half"),
        ToolCallStart(tool_call_id="k", tool_call_name="look"),
    ):
        fold.apply(event, run_id="r", origin=USER, at="")
    assert [event.type for event in fold.closing_events()] == [
        "TOOL_CALL_END",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_END",
    ]
    (message,) = fold.partial()
    assert (message.content, message.partial) == ("half", True)
    assert message.tool_calls[0].result == "(no result: the run ended before)"


def test_what_tools_have_shown_stays_with_a_finished_run_for_those_who_draw_it() -> None:
    fold = TranscriptBuilder()
    outputs = [{"output_type": "stream", "name": "stdout", "text": "hello"}]
    shown = ActivitySnapshot(
        message_id="a_1", activity_type="navi.output", content={"toolCallId": "t_1", "outputs": []}
    )
    patch = ({"op": "add", "path": "/outputs/-", "value": outputs[0]},)
    more = ActivityDelta(message_id="a_1", activity_type="navi.output", patch=patch)
    for event in (ToolCallStart(tool_call_id="t_1", tool_call_name="run_code"), shown, more):
        fold.apply(event, run_id="r_1", origin=USER, at="")
    *messages, activity = fold.record(partial=True)
    assert messages == list(fold.partial())
    assert agui_message(activity) == {
        "id": "a_1",
        "role": "activity",
        "runId": "r_1",
        "activityType": "navi.output",
        "content": {"toolCallId": "t_1", "outputs": outputs},
    }


async def test_a_turn_that_was_read_for_a_run_is_read_once(tmp_path: Path) -> None:
    """Another start reads what has been added since; what was rolled back does not count."""
    async with world(tmp_path) as w:
        session = await w.session()
        for _ in range(3):
            await w.until_end(session, (await w.prompt(session, "say 1")).run_id)
        first = await w.store.past_turns(session)
        decoded: list[int] = []

        def counted(rows: Sequence[Any]) -> list[Any]:
            decoded.append(len(rows))
            return read(rows)

        read = prompts._turns_of
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prompts, "_turns_of", counted)
            assert all(one is other for one, other in zip(await w.store.past_turns(session), first, strict=True))
            run_id = (await w.prompt(session, "say 1")).run_id
            await w.until_end(session, run_id)
            more = await w.store.past_turns(session)
            assert [turn.run_id for turn in more] == [*(turn.run_id for turn in first), run_id]
            other = await open_store(tmp_path / "navi.db")
            try:
                assert list(await other.past_turns(session)) == list(more)
            finally:
                await other.close()
            await w.store.write(lambda tx: tx.roll_back(first[1].run_id))
            last = await w.store.past_turns(session)
            assert [turn.run_id for turn in last] == [first[0].run_id, first[2].run_id, run_id]
            # What was new for each read; the other server read all.
            assert [count for count in decoded if count] == [1, 4]


async def test_sessions_that_were_read_make_room_for_others_but_the_last_one_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sessions = [await w.session() for _ in range(4)]
        for session in sessions * 2:
            await w.until_end(session, (await w.prompt(session, "say 1")).run_id)
        kept = w.store._known_turns
        assert len(kept._sessions) == 4
        for most, of_one, left in ((3_500, 9_000, 2), (100, 9_000, 1), (100, 200, 0)):
            monkeypatch.setattr(prompts._KnownTurns, "_MOST", most)
            monkeypatch.setattr(prompts._KnownTurns, "_MOST_OF_ONE", of_one)
            assert len(await w.store.past_turns(sessions[-1])) == 2
            assert len(kept._sessions) == left
            assert sessions[-1] in kept._sessions or not left
