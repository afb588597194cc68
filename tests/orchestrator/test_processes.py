"""Processes that die at any instant, and two at once on one file."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.database import perform
from tests.support.orchestrator_process import Process, put_to_sleep

KILLS = int(os.environ.get("NAVI_TEST_KILLS", "8"))
"""At random instants; 30 in long runs."""
WORDS = ("drip", "drip", "ask", "ask", "inner")
MODES = ("enqueue", "enqueue", "enqueue", "collect", "interrupt", "rollback", "steer")


class Witness:
    """What clients were told and had seen, over all lives of the server."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "navi.db"
        self.accepted: dict[str, tuple[int, str]] = {}
        self.shown: dict[tuple[str, int], str] = {}
        self.answered: set[str] = set()

    def listen(self, process: Process) -> None:
        """Take what a process had told before it died; what was seen twice must have been the same."""
        for message in process.said:
            if "accepted" in message:
                answer = (message["seq"], message["run_id"])
                assert self.accepted.setdefault(message["accepted"], answer) == answer
            if "answered" in message:
                self.answered.add(message["interrupt"])
            if "seen" in message:
                key = (message["seen"], json.loads(message["frame"])["seq"])
                assert self.shown.setdefault(key, message["frame"]) == message["frame"]

    def head(self, sid: str) -> int:
        return max((seq for session, seq in self.shown if session == sid), default=0)

    def log(self) -> dict[tuple[str, int], str]:
        rows = perform(self.path, "SELECT session_id, seq, frame FROM events ORDER BY session_id, seq")
        return {(sid, seq): frame for sid, seq, frame in rows}

    def check(self, *, over: bool) -> None:
        """What every client knows is still true. ``over``: nothing waits or runs any more."""
        log = self.log()
        for key, frame in self.shown.items():
            assert log.get(key) == frame
        envelopes = [json.loads(frame) for frame in log.values()]
        numbers: dict[str, list[int]] = {}
        for envelope in envelopes:
            numbers.setdefault(envelope["session_id"], []).append(envelope["seq"])
        assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())

        def runs(*kinds: str) -> Counter[str]:
            return Counter(e["run_id"] for e in envelopes if e["event"]["type"] in kinds)

        prompts = Counter(e["event"]["messageId"] for e in envelopes if e["event"].get("role") == "user")
        assert all(prompts[command_id] == 1 for command_id in self.accepted)
        assert all(count == 1 for count in prompts.values())
        self._check_pauses(envelopes, over=over)
        pauses = [e for e in envelopes if e["event"].get("outcome", {}).get("type") == "interrupt"]
        started, ended = runs("RUN_STARTED"), runs("RUN_FINISHED", "RUN_ERROR")
        paused = Counter(e["run_id"] for e in pauses)
        ended -= paused
        assert all(started[run_id] <= 1 + paused[run_id] for run_id in started)
        assert set(ended.values()) <= {1}
        assert set(ended) <= set(started)
        if over:
            steered = {v["command_id"] for v in _values(envelopes, "navi.queue") if v["action"] == "steered"}
            asked = {e["run_id"] for e in envelopes if e["event"].get("role") == "user"}
            merged = {e["run_id"] for e in envelopes if e["event"].get("messageId") in steered}
            assert set(started) == asked - merged
            assert set(ended) == set(started)
            assert all(started[run_id] == 1 + paused[run_id] for run_id in started)
            assert {run_id for _, run_id in self.accepted.values()} <= set(started) | merged
            opened = Counter(e["event"]["messageId"] for e in envelopes if e["event"]["type"] == "TEXT_MESSAGE_START")
            closed = Counter(e["event"]["messageId"] for e in envelopes if e["event"]["type"] == "TEXT_MESSAGE_END")
            assert opened == closed

    def _check_pauses(self, envelopes: list[dict[str, Any]], *, over: bool) -> None:
        """Every question is opened once and settled at most once; what was answered stays answered."""
        told = _values(envelopes, "navi.interrupt")
        opened = Counter(v["interrupt"]["id"] for v in told if v["action"] == "opened")
        settled = Counter(v["interrupt"]["id"] for v in told if v["action"] != "opened")
        assert set(opened.values()) <= {1}
        assert set(settled.values()) <= {1}
        assert set(settled) <= set(opened)
        assert {v["interrupt"]["id"] for v in told if v["action"] == "resolved"} >= self.answered
        if over:
            assert settled == opened

    def open_runs(self) -> list[tuple[Any, ...]]:
        return perform(self.path, "SELECT id, status, server_id FROM runs WHERE ended_at IS NULL")


def _values(envelopes: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [e["event"]["value"] for e in envelopes if e["event"].get("name") == name]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_killed_at_random_instants_loses_nothing_that_anybody_was_told(tmp_path: Path) -> None:
    dice = random.Random(20261123)
    witness = Witness(tmp_path)
    with Process(tmp_path) as first:
        first.ready()
        sids = [first.session() for _ in range(3)]
        first.leave()
    before: set[str] = set()
    for life in range(KILLS):
        with Process(tmp_path) as server:
            if life % 10 == 9:
                time.sleep(dice.uniform(0.1, 0.6))  # somewhere in its start
                server.kill()
                continue
            server.ready()
            # Before anybody is let in, what the dead had left open is closed.
            assert not before & {run_id for run_id, status, _ in witness.open_runs() if status != "queued"}
            for sid in sids:
                server.ask(do="follow", sid=sid, after=witness.head(sid))
            until = time.monotonic() + dice.uniform(0.0, 0.5)
            number = 0
            while time.monotonic() < until:
                server.ask(
                    do="prompt",
                    sid=dice.choice(sids),
                    text=f"{dice.choice(WORDS)} {dice.randint(1, 40)}",
                    command_id=f"c{life}-{number}",
                    mode=dice.choice(MODES),
                )
                if dice.random() < 0.3:
                    server.ask(do="answer_all", sid=dice.choice(sids))
                number += 1
                time.sleep(dice.uniform(0.0, 0.03))
            server.kill()
        witness.listen(server)
        witness.check(over=False)
        before = {run_id for run_id, status, _ in witness.open_runs() if status == "running"}
    with Process(tmp_path) as last:
        last.ready()
        deadline = time.monotonic() + 60
        while witness.open_runs() and time.monotonic() < deadline:
            for sid in sids:
                last.ask(do="answer_all", sid=sid)
            time.sleep(0.05)
        assert last.leave() == 0
    witness.listen(last)
    witness.check(over=True)
    assert len(witness.answered) > KILLS / 2
    assert len(witness.accepted) > KILLS
    assert len(witness.shown) > 10 * KILLS


def test_a_command_is_answered_the_same_by_the_next_server(tmp_path: Path) -> None:
    with Process(tmp_path) as one:
        one.ready()
        sid = one.session()
        first = one.prompt(sid, "drip 3", "c1")
        one.kill()
    with Process(tmp_path) as two:
        two.ready()
        again = two.prompt(sid, "drip 3", "c1")
        assert again == first
        two.ask(do="follow", sid=sid, after=0)
        two.until_end(sid, first["run_id"])
    log = [json.loads(frame) for frame in Witness(tmp_path).log().values()]
    assert sum(e["event"]["type"] == "RUN_STARTED" for e in log) == 1


# --- two at once


def test_two_servers_on_one_file_show_the_same_session_and_run_each_prompt_once(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        for server in (one, two):
            server.ask(do="follow", sid=sid, after=0)
        runs = []
        for number in range(10):
            server = (one, two)[number % 2]
            runs.append(server.prompt(sid, "drip 20", f"c{number}")["run_id"])
        for server in (one, two):
            for run_id in runs:
                server.until_end(sid, run_id)
        assert one.prompt(sid, "drip 1", "c9")["run_id"] == runs[9]  # sent to the other one before
        log = [frame for (session, _), frame in Witness(tmp_path).log().items() if session == sid]
        assert one.seen(sid) == two.seen(sid) == log
        envelopes = [json.loads(frame) for frame in log]
        started = Counter(e["run_id"] for e in envelopes if e["event"]["type"] == "RUN_STARTED")
        assert started == Counter(runs)
        assert [e["seq"] for e in envelopes] == list(range(1, len(log) + 1))
        assert {one.leave(), two.leave()} == {0}


def test_a_run_is_stopped_and_interrupted_through_the_other_server(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        for server in (one, two):
            server.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "drip 100000", "c1")["run_id"]
        one.until_seen(sid, lambda e: e["event"].get("delta", "").startswith("0 "))
        two.ask(do="stop", sid=sid)
        assert two.until(lambda m: "stopped" in m)["run_id"] == run_id
        assert two.until_end(sid, run_id)["event"]["outcome"] == {"type": "cancelled"}
        second = one.prompt(sid, "drip 100000", "c2")["run_id"]
        one.until_seen(sid, lambda e: e["run_id"] == second and "delta" in e["event"])
        third = two.prompt(sid, "drip 2", "c3", mode="interrupt")["run_id"]
        assert one.until_end(sid, second)["event"]["outcome"] == {"type": "cancelled"}
        assert one.until_end(sid, third)["event"]["outcome"] == {"type": "success"}


def test_the_run_of_a_killed_server_is_closed_by_the_other_and_what_waits_is_run(tmp_path: Path) -> None:
    with Process(tmp_path, lease=1.5) as one, Process(tmp_path, lease=1.5) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "drip 100000", "c1")["run_id"]
        waiting = one.prompt(sid, "drip 2", "c2")["run_id"]
        two.until_seen(sid, lambda e: e["event"].get("delta", "").startswith("0 "))
        one.kill()
        assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
        assert two.until_end(sid, waiting)["event"]["type"] == "RUN_FINISHED"


def test_a_run_that_asks_survives_a_kill_and_is_answered_through_the_next_server(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    with Process(tmp_path) as one:
        one.ready()
        sid = one.session()
        one.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "ask 3", "c1")["run_id"]
        question = one.question(sid, run_id)
        one.kill()
    witness.listen(one)
    assert [status for _, status, _ in witness.open_runs()] == ["waiting"]
    with Process(tmp_path) as two:
        two.ready()
        two.ask(do="follow", sid=sid, after=witness.head(sid))
        assert two.answer(sid, question, "a1")["run_id"] == run_id
        assert two.until_end(sid, run_id)["event"]["outcome"] == {"type": "success"}
        assert two.answer(sid, question, "a2")["code"] == "interrupt_not_found"
        assert two.leave() == 0
    witness.check(over=True)


def test_a_run_that_was_answered_goes_on_although_the_server_was_killed_right_then(tmp_path: Path) -> None:
    with Process(tmp_path) as one:
        one.ready()
        sid = one.session()
        one.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "ask 3", "c1")["run_id"]
        question = one.question(sid, run_id)
        one.kill()
    answered = "UPDATE interrupts SET status = 'resolved', payload = '{\"approved\":true}' WHERE id = ?"
    perform(tmp_path / "navi.db", answered, (question,))  # as if it had died between the answer and the start
    with Process(tmp_path) as two:
        two.ready()
        two.ask(do="follow", sid=sid, after=0)
        assert two.until_end(sid, run_id)["event"]["outcome"] == {"type": "success"}
        assert two.leave() == 0


def test_a_waiting_run_is_answered_through_either_of_two_servers(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        for server in (one, two):
            server.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "ask 3", "c1")["run_id"]
        question = two.question(sid, run_id)
        assert two.answer(sid, question, "a1")["run_id"] == run_id
        for server in (one, two):
            assert server.until_end(sid, run_id)["event"]["outcome"] == {"type": "success"}
        assert one.answer(sid, question, "a1") == two.answer(sid, question, "a1")
        assert {one.leave(), two.leave()} == {0}


def test_a_question_from_within_a_run_is_answered_through_the_other_server(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "inner 3", "c1")["run_id"]
        two.answer(sid, two.question(sid, run_id), "a1")
        two.until_seen(sid, lambda e: e["event"].get("delta", "").endswith("resolved"))
        assert two.until_end(sid, run_id)["event"]["outcome"] == {"type": "success"}


def test_a_question_from_within_a_run_is_withdrawn_when_its_server_is_killed(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "inner 3", "c1")["run_id"]
        question = two.question(sid, run_id)
        one.kill()
        assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
        assert two.answer(sid, question, "a1")["code"] == "interrupt_not_found"


def test_a_run_is_steered_and_a_waiting_one_stopped_through_the_other_server(tmp_path: Path) -> None:
    with Process(tmp_path) as one, Process(tmp_path) as two:
        one.ready()
        two.ready()
        sid = one.session()
        for server in (one, two):
            server.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "listen 3", "c1")["run_id"]
        one.until_seen(sid, lambda e: e["event"].get("delta", "").startswith("0 "))
        steered = two.prompt(sid, "turn left", "c2", mode="steer")["run_id"]
        two.until_seen(sid, lambda e: e["event"].get("value", {}).get("action") == "steered")
        assert one.until_end(sid, run_id)["event"]["outcome"] == {"type": "success"}
        waiting = one.prompt(sid, "ask 3", "c3")["run_id"]
        two.question(sid, waiting)
        two.ask(do="stop", sid=sid)
        assert one.until_end(sid, waiting)["event"]["outcome"] == {"type": "cancelled"}
        log = [json.loads(frame) for frame in Witness(tmp_path).log().values()]
        assert steered not in [e["run_id"] for e in log if e["event"]["type"] == "RUN_STARTED"]


@pytest.mark.parametrize("text", ["drip 100000", "silent"])
def test_a_server_that_slept_past_its_lease_writes_nothing_into_the_run_it_has_lost(tmp_path: Path, text: str) -> None:
    with Process(tmp_path, lease=1.5) as one, Process(tmp_path, lease=1.5) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, text, "c1")["run_id"]
        two.until_seen(sid, lambda e: e["event"].get("messageId") == f"m_{run_id}")
        put_to_sleep(one, tmp_path)
        assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
        second = two.prompt(sid, "drip 50", "c2")["run_id"]
        os.kill(one.pid, signal.SIGCONT)
        assert two.until_end(sid, second)["event"]["type"] == "RUN_FINISHED"
        # The one that slept is a server like any other afterwards.
        other = one.session()
        one.ask(do="follow", sid=other, after=0)
        one.until_end(other, one.prompt(other, "drip 2", "c3")["run_id"])
        assert one.leave() == 0
        log = [json.loads(frame) for (session, _), frame in Witness(tmp_path).log().items() if session == sid]
        mine = [e["event"]["type"] for e in log if e["run_id"] == run_id]
        assert mine[-1] == "RUN_ERROR"
        assert mine.count("RUN_ERROR") == 1
        assert "RUN_FINISHED" not in mine
