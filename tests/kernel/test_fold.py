"""A run folded from its envelopes."""

from __future__ import annotations

from typing import Any

import pytest

from navi_jupyter.kernel.fold import RunFold
from navi_jupyter.kernel.render import run_bundle, run_plain


def envelope(event: dict[str, Any], *, run_id: str | None = "r_1") -> dict[str, Any]:
    return {"seq": 1, "session_id": "s", "run_id": run_id, "ts": "", "origin": {"kind": "user"}, "event": event}


def custom(name: str, **value: Any) -> dict[str, Any]:
    return {"type": "CUSTOM", "name": name, "value": value}


ANSWER: list[dict[str, Any]] = [
    {"type": "RUN_STARTED", "threadId": "s", "runId": "r_1"},
    {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": "Let me "},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": "look."},
    {"type": "TEXT_MESSAGE_END", "messageId": "m1"},
    {"type": "TOOL_CALL_START", "toolCallId": "t1", "toolCallName": "look"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "t1", "delta": '{"at": "x"}'},
    {"type": "TOOL_CALL_END", "toolCallId": "t1"},
    {"type": "TOOL_CALL_RESULT", "messageId": "m2", "toolCallId": "t1", "content": "seen\n it", "role": "tool"},
    {"type": "TEXT_MESSAGE_START", "messageId": "m3", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m3", "delta": "Done."},
    {"type": "TEXT_MESSAGE_END", "messageId": "m3"},
]


def fold(*events: dict[str, Any], run_id: str | None = "r_1") -> RunFold:
    folded = RunFold("r_1", "c_1")
    for event in events:
        folded.apply(envelope(event, run_id=run_id))
    return folded


def test_text_and_tool_calls_are_kept_in_their_order() -> None:
    folded = fold(*ANSWER, {"type": "RUN_FINISHED", "threadId": "s", "runId": "r_1", "outcome": {"type": "success"}})
    assert folded.text == "Let me look.\n\nDone."
    assert folded.status == "completed"
    assert run_plain(folded) == 'Let me look.\n\n[look] {"at": "x"} → seen it\n\nDone.'


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ({"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}, "stopped"),
        ({"type": "RUN_FINISHED", "outcome": {"type": "interrupt"}}, "waiting"),
        ({"type": "RUN_ERROR", "message": "no", "code": "timed_out"}, "failed"),
        (custom("navi.queue", action="cancelled", command_id="c_1"), "withdrawn"),
    ],
)
def test_a_run_can_end_in_several_ways(last: dict[str, Any], status: str) -> None:
    folded = fold(ANSWER[0], last)
    assert folded.status == status
    assert folded.over


def test_a_prompt_that_waits_is_queued_until_its_run_starts() -> None:
    folded = fold(custom("navi.queue", action="queued", command_id="c_1"))
    assert folded.status == "queued"
    assert not folded.over
    folded.apply(envelope(ANSWER[0]))
    assert folded.status == "running"


def test_other_runs_and_the_users_own_words_change_nothing() -> None:
    folded = fold(*ANSWER, run_id="r_2")
    assert (folded.status, folded.text) == ("sent", "")
    user = fold(
        {"type": "TEXT_MESSAGE_START", "messageId": "c_1", "role": "user"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "c_1", "delta": "hello"},
    )
    assert user.text == ""


def test_a_snapshot_replaces_what_was_known_and_the_runs_record_ends_it() -> None:
    folded = fold(*ANSWER[:3])
    messages = [
        {"id": "c_1", "role": "user", "content": "hello", "runId": "r_1"},
        {
            "id": "m1",
            "role": "assistant",
            "content": "Let me look.",
            "runId": "r_1",
            "toolCalls": [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"id": "m2", "role": "tool", "toolCallId": "t1", "content": "seen", "runId": "r_1"},
        {"id": "m9", "role": "assistant", "content": "another's", "runId": "r_9"},
    ]
    folded.apply(envelope({"type": "MESSAGES_SNAPSHOT", "messages": messages}, run_id=None))
    assert folded.refold
    folded.end("timed_out", {"code": "timed_out", "message": "too slow"})
    assert run_plain(folded) == "Let me look.\n\n[look] {} → seen"
    assert folded.error == ("timed_out", "too slow")


def test_html_in_a_tools_words_is_escaped() -> None:
    folded = fold({"type": "TOOL_CALL_START", "toolCallId": "t", "toolCallName": "<b>x"})
    folded.apply(envelope({"type": "TOOL_CALL_RESULT", "toolCallId": "t", "content": "<img src=x>"}))
    bundle = run_bundle(folded)
    assert "<img" not in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "\\<img" in bundle["text/markdown"]
