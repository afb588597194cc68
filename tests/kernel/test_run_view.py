"""A run folded from its envelopes."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

from navi_jupyter.cli.run_printer import RunPrinter
from navi_jupyter.kernel.display.render import run_bundle, run_plain
from navi_jupyter.kernel.display.run_view import RunView


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


def fold(*events: dict[str, Any], run_id: str | None = "r_1") -> RunView:
    folded = RunView("r_1", "c_1")
    for event in events:
        folded.apply(envelope(event, run_id=run_id))
    return folded


def test_text_and_tool_calls_are_kept_in_their_order() -> None:
    folded = fold(*ANSWER, {"type": "RUN_FINISHED", "threadId": "s", "runId": "r_1", "outcome": {"type": "success"}})
    assert folded.text == "Let me look.\n\nDone."
    assert folded.status == "completed"
    assert run_plain(folded) == 'Let me look.\n\n[Used look] {"at": "x"} → seen it\n\nDone.'


def test_a_run_that_waits_for_the_users_server_says_so_until_that_is_ready_or_cannot_be_had() -> None:
    waits, printed = "(waiting for your server to start …)", StringIO()
    starting = (ANSWER[0], *ANSWER[5:8], custom("navi.kernel", status="server_starting"))
    folded = fold(*starting)
    assert run_plain(folded, live=True).endswith(waits)
    assert "waiting for your server to start" in run_bundle(folded, live=True)["text/html"]
    printer = RunPrinter(StringIO(), printed)
    for _ in range(2):
        printer.show(folded)
    assert printed.getvalue() == f"{waits}\n"
    unavailable = {**ANSWER[8], "content": '{"error":"server_unavailable","message":"It did not start."}'}
    stopped = custom("navi.stop", action="requested", run_id="r_1")
    for last in (custom("navi.kernel", status="server_ready"), unavailable, stopped):
        assert waits not in run_plain(fold(*starting, last), live=True)
    assert waits in run_plain(fold(*starting, {**ANSWER[8], "toolCallId": "t2"}), live=True)
    folded = fold(ANSWER[0])
    folded.apply(envelope(starting[-1], run_id="another"))
    assert waits not in run_plain(folded, live=True)


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ({"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}, "stopped"),
        ({"type": "RUN_ERROR", "message": "no", "code": "timed_out"}, "failed"),
        (custom("navi.queue", action="cancelled", command_id="c_1"), "withdrawn"),
    ],
)
def test_a_run_can_end_in_several_ways(last: dict[str, Any], status: str) -> None:
    folded = fold(ANSWER[0], last)
    assert folded.status == status
    assert folded.over


def asks(status: str = "open", **more: Any) -> dict[str, Any]:
    interrupt = {
        "id": "i_1",
        "run_id": "r_1",
        "kind": "approval",
        "message": "Run this code?",
        "tool": "run_code",
        "args": {"code": "df.drop(7)"},
        "status": status,
        **more,
    }
    return custom("navi.interrupt", action="opened" if status == "open" else status, interrupt=interrupt)


def test_a_run_that_asks_waits_and_goes_on_when_it_is_answered() -> None:
    folded = fold(ANSWER[0], asks(), {"type": "RUN_FINISHED", "outcome": {"type": "interrupt"}})
    assert (folded.status, folded.over) == ("waiting", False)
    shown = run_plain(folded, live=True)
    assert "Run this code? [1]" in shown
    assert "df.drop(7)" in shown
    assert "%navi approve" in shown
    for event in (asks("resolved", payload={"approved": False}), *ANSWER):
        folded.apply(envelope(event))
    folded.apply(envelope({"type": "RUN_FINISHED", "outcome": {"type": "success"}}))
    assert folded.over
    assert "run_code: Denied" in run_plain(folded, live=True)
    assert "df.drop(7)" not in run_plain(folded, live=True)


def test_a_steered_prompt_is_answered_by_the_run_it_joined_from_there_on() -> None:
    folded = RunView("r_2", "c_1")
    text = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": "before"}
    for event in (ANSWER[0], {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"}, text):
        folded.apply(envelope(event, run_id="r_1"))
    assert folded.text == ""
    folded.apply(envelope(custom("navi.queue", action="steered", command_id="c_1", run_id="r_1"), run_id="r_1"))
    assert (folded.run_id, folded.status) == ("r_1", "running")
    for event in (*ANSWER[-3:], {"type": "RUN_FINISHED", "outcome": {"type": "success"}}):
        folded.apply(envelope(event, run_id="r_1"))
    assert folded.over
    assert folded.text == "Done."


def activity(kind: str, **body: Any) -> dict[str, Any]:
    return {"type": kind, "messageId": "a_1", "activityType": "navi.output", **body}


def test_what_a_tool_shows_is_shown_as_it_comes_and_its_pictures_are_asked_for() -> None:
    start = {"type": "TOOL_CALL_START", "toolCallId": "t1", "toolCallName": "run_code"}
    line = {"output_type": "stream", "name": "stdout", "text": "\x1b[31mepoch 1\x1b[0m\n"}
    picture = {"output_type": "display_data", "data": {"image/png": {"attachment": "a_9"}, "text/plain": "<Figure>"}}
    folded = fold(
        start,
        activity("ACTIVITY_SNAPSHOT", content={"toolCallId": "t1", "outputs": []}),
        activity("ACTIVITY_DELTA", patch=[{"op": "add", "path": "/outputs/-", "value": line}]),
        activity("ACTIVITY_DELTA", patch=[{"op": "add", "path": "/outputs/-", "value": picture}]),
    )
    assert "epoch 1\n[image 1] <Figure>" in run_plain(folded)
    assert folded.missing_images() == {"a_9"}
    folded.images["a_9"] = ("image/png", b"\x89PNG")
    assert folded.missing_images() == set()
    html = run_bundle(folded)["text/html"]
    assert 'src="data:image/png;base64,iVBORw=="' in html
    assert "<script" not in html


def test_an_output_that_is_updated_in_place_is_shown_as_it_is_now() -> None:
    bar = {"output_type": "display_data", "data": {"text/plain": "10 %"}}
    start = {"type": "TOOL_CALL_START", "toolCallId": "t1", "toolCallName": "run_code"}
    folded = fold(
        start,
        activity("ACTIVITY_SNAPSHOT", content={"toolCallId": "t1", "outputs": [bar]}),
        activity(
            "ACTIVITY_DELTA", patch=[{"op": "replace", "path": "/outputs/0/data", "value": {"text/plain": "90 %"}}]
        ),
        activity("ACTIVITY_DELTA", patch=[{"op": "replace", "path": "/outputs/7/data", "value": {}}]),
    )
    assert "90 %" in run_plain(folded)
    assert "10 %" not in run_plain(folded)


def test_html_that_code_has_shown_is_not_drawn() -> None:
    evil = {"output_type": "display_data", "data": {"text/html": "<script>x</script>", "text/plain": "<b>plain</b>"}}
    start = {"type": "TOOL_CALL_START", "toolCallId": "t1", "toolCallName": "run_code"}
    folded = fold(start, activity("ACTIVITY_SNAPSHOT", content={"toolCallId": "t1", "outputs": [evil]}))
    html = run_bundle(folded)["text/html"]
    assert "<script" not in html
    assert "&lt;b&gt;plain" in html


def test_workers_are_told_briefly_and_their_words_are_not_the_answer() -> None:
    folded = fold(
        ANSWER[0],
        {"type": "SUBAGENT_STARTED", "subagentRunId": "w_1", "name": "analyst", "description": "count the rows"},
        {"type": "TEXT_MESSAGE_START", "messageId": "m9", "role": "assistant", "subagentRunId": "w_1"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m9", "delta": "counting", "subagentRunId": "w_1"},
        {"type": "TOOL_CALL_START", "toolCallId": "t9", "toolCallName": "run_code", "subagentRunId": "w_1"},
    )
    assert folded.text == ""
    assert run_plain(folded) == "> analyst: count the rows (running, 1 tool call) – counting"
    folded.apply(envelope({"type": "SUBAGENT_FINISHED", "subagentRunId": "w_1"}))
    assert run_plain(folded) == "> analyst: count the rows (completed, 1 tool call)"


def test_what_was_spent_is_said_at_the_end() -> None:
    folded = fold(
        ANSWER[0],
        custom("navi.usage", run_id="r_1", usage={"input_tokens": 900, "output_tokens": 100, "cost": 0.0123}),
        {"type": "RUN_FINISHED", "outcome": {"type": "success"}, "usage": [{"inputTokens": 1000, "outputTokens": 234}]},
    )
    assert run_plain(folded, live=True) == "(1,234 tokens, $0.012)"
    assert run_plain(folded) == ""


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
    assert folded.reset
    folded.end({"status": "timed_out", "error": {"code": "timed_out", "message": "too slow"}})
    assert run_plain(folded) == "Let me look.\n\n[Used look] {} → seen"
    assert folded.error == ("timed_out", "too slow")


def test_html_in_a_tools_words_is_escaped() -> None:
    folded = fold({"type": "TOOL_CALL_START", "toolCallId": "t", "toolCallName": "<b>x"})
    folded.apply(envelope({"type": "TOOL_CALL_RESULT", "toolCallId": "t", "content": "<img src=x>"}))
    bundle = run_bundle(folded)
    assert "<img" not in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "\\<img" in bundle["text/markdown"]


def reported(key: str, what: str, /, **content: Any) -> dict[str, Any]:
    return {"type": "ACTIVITY_SNAPSHOT", "messageId": key, "activityType": what, "content": content}


def step(content: Any, status: str) -> dict[str, Any]:
    return {"content": content, "priority": "high", "status": status}


def test_an_agent_program_is_shown_with_its_plan_its_calls_and_what_its_user_should_know() -> None:
    plan = [step("Read the *data*", "completed"), step("Fix <loss>\n.py", "in_progress"), step("Test", "pending")]
    call, places = {"toolCallId": "t1", "agent": "opencode"}, [{"path": "src/loss.py"}]
    view = fold(
        ANSWER[0],
        reported("n1", "navi.agent_notice", agent="opencode", code="x", message="The <b>conversation</b> was given."),
        reported("plan_r_1", "navi.plan", entries=[step("Read the *data*", "in_progress")]),
        {"type": "TOOL_CALL_START", "toolCallId": "t1", "toolCallName": "acp__other"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "t1", "delta": '{"title": "Write", "kind": "other"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "t1"},
        reported("t1:call", "navi.agent_call", **call, kind="edit", title="Write src/loss.py", locations=places),
        {"type": "TOOL_CALL_START", "toolCallId": "t2", "toolCallName": "acp__execute"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "t2", "delta": '{"title": "npm test", "kind": "execute"}'},
        {"type": "TOOL_CALL_RESULT", "messageId": "m2", "toolCallId": "t2", "content": "all green", "role": "tool"},
        reported("plan_r_1", "navi.plan", entries=plan),
        {"type": "ACTIVITY_DELTA", "messageId": "plan_r_1", "activityType": "navi.plan", "patch": [
            {"op": "replace", "path": "/entries/2/status", "value": "completed"}]},
    )  # fmt: skip
    plain = run_plain(view)
    assert "[x] Read the *data*\n[ ] Fix <loss> .py (in progress)\n[x] Test" in plain
    assert plain.count("Plan:") == 1
    assert "[Changing loss.py…]\n" in plain + "\n"
    assert "[Ran a command] npm test" in plain
    assert "(The <b>conversation</b> was given.)" in plain
    bundle = run_bundle(view)
    assert "<b>" not in bundle["text/html"]
    assert "Fix &lt;loss&gt; .py <em>(in progress)</em>" in bundle["text/html"]
    assert "- [x] Read the \\*data\\*" in bundle["text/markdown"]


@pytest.mark.parametrize("entries", [None, "x", [1, None, {}], [{"content": 3, "status": ["done"]}], [{}] * 5000])
def test_a_plan_that_cannot_be_read_ends_nothing(entries: Any) -> None:
    view = fold(*ANSWER, reported("p", "navi.plan", entries=entries), reported("q", "navi.agent_notice", message=7))
    assert "Done." in run_plain(view)
    assert len(run_plain(view)) < 10_000
