"""What must be true of every session's log and every recall's ledger, whatever happened to the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.e2e.client import Envelope, ends

_OPENED_BY = {
    "TEXT_MESSAGE_CONTENT": "TEXT_MESSAGE_START",
    "TEXT_MESSAGE_END": "TEXT_MESSAGE_START",
    "TOOL_CALL_ARGS": "TOOL_CALL_START",
    "TOOL_CALL_END": "TOOL_CALL_START",
}


def user_messages(log: Sequence[Envelope]) -> Counter[str]:
    """How often each prompt is in the log, by its command id."""
    return Counter(
        envelope["event"]["messageId"]
        for envelope in log
        if envelope["event"]["type"] == "TEXT_MESSAGE_START" and envelope["event"].get("role") == "user"
    )


def check_session_log(log: Sequence[Envelope]) -> list[str]:
    """Raise AssertionError unless the log is well-formed. Returns the runs that have started and not ended."""
    seqs = [envelope["seq"] for envelope in log]
    assert seqs == sorted(set(seqs)), "seq must grow strictly"
    twice = [command for command, count in user_messages(log).items() if count > 1]
    assert not twice, f"these prompts are in the log more than once: {twice}"
    open_runs: list[str] = []
    ended: set[str] = set()
    open_parts: dict[str, str] = {}
    for envelope in log:
        event, run = envelope["event"], envelope["run_id"]
        kind = event["type"]
        part = event.get("messageId") or event.get("toolCallId")
        if kind == "RUN_STARTED":
            assert not open_runs, f"{run} started while {open_runs} was going on"
            assert run not in ended, f"{run} ran twice"
            open_runs.append(run)
        elif ends(envelope):
            assert open_runs == [run], f"{run} ended, but {open_runs} was going on"
            left = [part for part, owner in open_parts.items() if owner == run]
            assert not left, f"{run} left open: {left}"
            open_runs.clear()
            ended.add(run)
        elif kind in ("TEXT_MESSAGE_START", "TOOL_CALL_START"):
            assert part not in open_parts
            open_parts[part] = run
        elif kind in _OPENED_BY:
            assert part in open_parts, f"{kind} without {_OPENED_BY[kind]}: {envelope}"
        if kind in ("TEXT_MESSAGE_END", "TOOL_CALL_END"):
            del open_parts[part]
        if kind.startswith(("TEXT_MESSAGE", "TOOL_CALL")) and event.get("role") != "user" and run in ended:
            raise AssertionError(f"{run} had ended: {envelope}")
    return open_runs


def check_ledger(
    recall: Any, firings: Sequence[Any], log: Sequence[Envelope], *, every: timedelta | None = None
) -> None:
    """Raise AssertionError unless each slot of the recall is accounted for once. ``firings`` as the API lists them."""
    automatic = [firing for firing in firings if firing["kind"] == "auto"]
    slots = sorted(datetime.fromisoformat(firing["slot"]) for firing in automatic)
    assert len(slots) == len(set(slots)), "a slot is in the ledger twice"
    if every is not None and slots:
        start = datetime.fromisoformat(recall["schedule"]["start"])
        steps = [(slot - start) / every for slot in slots]
        assert steps == [int(step) for step in steps], "a slot is beside the grid"
        accounted = len(slots) + sum(firing["coalesced"] for firing in automatic)
        assert accounted == steps[-1], f"{steps[-1]} slots have come, {accounted} are in the ledger"
    for firing in firings:
        did_run = firing["run_id"] is not None
        waits = firing["status"] in ("pending", "claimed")
        assert did_run or waits or firing["reason"], f"neither ran nor says why: {firing}"
    prefix = f"recall:{recall['id']}:"
    delivered = [command for command in user_messages(log) if command.startswith(prefix)]
    ran = [firing["run_id"] for firing in firings if firing["run_id"] is not None]
    assert len(ran) == len(set(ran)), "two slots share a run"
    runs = {
        envelope["event"]["messageId"]: envelope["run_id"]
        for envelope in log
        if envelope["event"]["type"] == "TEXT_MESSAGE_START" and envelope["event"]["messageId"] in delivered
    }
    for envelope in log:  # interrupted when its server ended, and started again: the ledger names the last attempt
        value = envelope["event"].get("value", {})
        restarted = envelope["event"].get("name") == "navi.queue" and value["action"] == "restarted"
        if restarted and value["command_id"] in delivered:  # the session may have other recalls
            runs[value["command_id"]] = value["run_id"]
    strangers = set(runs.values()) - set(ran)
    # A prompt may be durable a moment before its firing's row says so.
    unsettled = sum(firing["status"] == "claimed" for firing in firings)
    assert len(strangers) <= unsettled, f"runs that no slot knows: {strangers}"
