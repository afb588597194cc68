"""Whoever follows a session sees the same envelopes: whenever it joins, by whatever way, however often it is cut."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from contextlib import closing
from typing import Any

import psutil
import pytest

from tests.e2e.client import Envelope, Follower, Wire, call, ends, log_of, new_session, ok, prompt, sse, unpack
from tests.e2e.conftest import Start
from tests.e2e.logs import check_session_log
from tests.support.server import JupyterServer

CUTS = int(os.environ.get("NAVI_TEST_CUTS", "50"))
"""Of a connection, at random points; 200 in long runs."""

SMALL_RING = "--NaviExtension.replay_buffer_size=50"


class Events(threading.Thread):
    """Follows by server-sent events until a run ends; comes back with Last-Event-ID after ``cut_after`` events."""

    def __init__(self, server: JupyterServer, sid: str, run_id: str, *, after: int | None, cut_after: int = 0) -> None:
        super().__init__(daemon=True)
        self.seen: list[Envelope] = []
        self.prelude: list[Envelope] = []
        self.connects = 0
        self._server, self._sid, self._run_id = server, sid, run_id
        self._after, self._cut_after = after, cut_after
        self.start()

    def run(self) -> None:
        last: int | None = None
        while True:
            self.connects += 1
            with closing(sse(self._server, self._sid, after=self._after, last_event_id=last)) as events:
                for count, (event_id, envelope) in enumerate(events, 1):
                    last = event_id if event_id is not None else last
                    (self.prelude if envelope.get("snapshot") else self.seen).append(envelope)
                    if ends(envelope, self._run_id):
                        return
                    if count == self._cut_after:
                        break

    def all(self) -> list[Envelope]:
        self.join(60)
        assert not self.is_alive()
        return self.seen


def by_pages(server: JupyterServer, sid: str, run_id: str, *, limit: int) -> list[Envelope]:
    """Everything up to the end of a run, by long polls."""
    seen: list[Envelope] = []
    while not any(ends(envelope, run_id) for envelope in seen[-limit:]):
        after = seen[-1]["seq"] if seen else 0
        seen += ok(server, "GET", f"sessions/{sid}/events?after={after}&limit={limit}&wait=20")["events"]
    return seen


def answer_of(log: list[Envelope], run_id: str) -> str:
    """What the assistant said in a run."""
    own = [e["event"] for e in log if e["run_id"] == run_id]
    ours = {
        event["messageId"] for event in own if event["type"] == "TEXT_MESSAGE_START" and event["role"] == "assistant"
    }
    return "".join(e["delta"] for e in own if e["type"] == "TEXT_MESSAGE_CONTENT" and e["messageId"] in ours)


def test_followers_that_join_before_during_and_after_a_run_see_identical_envelopes(start: Start) -> None:
    server = start("server", SMALL_RING)
    sid = new_session(server)
    before = Follower(server, sid).connected()
    run_id = prompt(server, sid, "count to 200 every 10 ms")["run_id"]
    sse_before = Events(server, sid, run_id, after=0)
    sse_cut = Events(server, sid, run_id, after=0, cut_after=7)
    before.until(lambda envelope: "100" in envelope["event"].get("delta", ""))
    during = Follower(server, sid)
    stranger = Follower(server, sid, after=None)
    sse_stranger = Events(server, sid, run_id, after=None)
    paged = by_pages(server, sid, run_id, limit=20)
    for follower in (before, during, stranger):
        follower.until_end(run_id)
    after = Follower(server, sid)
    after.until_end(run_id)
    log = log_of(server, sid)
    assert not check_session_log(log)
    for seen in (before.seen, during.seen, after.seen, sse_before.all(), sse_cut.all(), paged):
        assert seen == log
    assert sse_cut.connects > 10
    sse_stranger.all()  # in a thread of its own: it may still have to read the last event
    for joined in (stranger, sse_stranger):
        check_prelude(joined.prelude, joined.seen, log, run_id)
    for follower in (before, during, stranger, after):
        follower.close()


def check_prelude(prelude: list[Envelope], tail: list[Envelope], log: list[Envelope], run_id: str) -> None:
    """The prelude says what the log said up to its head, re-opened; the tail goes on exactly there."""
    (head,) = {envelope["seq"] for envelope in prelude}
    assert tail == [envelope for envelope in log if envelope["seq"] > head]
    types = [envelope["event"]["type"] for envelope in prelude]
    assert types[:3] == ["MESSAGES_SNAPSHOT", "RUN_STARTED", "TEXT_MESSAGE_START"]
    said = [message["content"] for message in prelude[0]["event"]["messages"]]
    assert said == ["count to 200 every 10 ms"]
    assert prelude[1]["run_id"] == prelude[1]["event"]["runId"] == run_id
    assert answer_of(prelude + tail, run_id) == answer_of(log, run_id)


def test_a_follower_that_is_cut_at_random_points_sees_each_envelope_exactly_once(start: Start) -> None:
    server = start("server", SMALL_RING)
    sid = new_session(server)
    chance = random.Random(200)
    steady = Follower(server, sid).connected()
    first = prompt(server, sid, "count to 400 every 2 ms")["run_id"]
    steady.until_end(first)  # what is older than the ring comes from the store
    run_id = prompt(server, sid, "count to 1500 every 5 ms")["run_id"]
    seen: list[Envelope] = []
    cuts = 0
    while cuts < CUTS or not (seen and ends(seen[-1], run_id)):
        wire = Cut(server, sid, seen[-1]["seq"] if seen else 0, budget=chance.randrange(4000) if cuts < CUTS else 2**30)
        try:
            while not (seen and ends(seen[-1], run_id)):
                seen += unpack(wire.read())
        except ConnectionError:
            cuts += 1
        finally:
            wire.cut()
        if seen and ends(seen[-1], run_id) and cuts < CUTS:
            seen_all, seen = seen, []  # it was faster than the cuts: once more from the start
            assert seen_all == log_of(server, sid)
    steady.until_end(run_id)
    log = log_of(server, sid)
    assert seen == log
    assert steady.seen == log
    steady.close()


class Cut(Wire):
    """A socket that breaks after so many bytes, wherever in a frame that is."""

    def __init__(self, server: JupyterServer, sid: str, after: int, *, budget: int) -> None:
        self._budget = 2**30
        super().__init__(server, f"sessions/{sid}/ws?after={after}")
        self._budget = budget

    def _read_more(self) -> None:
        if self._budget <= 0:
            raise ConnectionError("cut")
        chunk = self.socket.recv(min(self._budget, 997))
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._budget -= len(chunk)
        self._buffer += chunk


def test_a_long_poll_answers_when_something_happens_and_not_before(start: Start) -> None:
    server = start()
    sid = new_session(server)
    prompt(server, sid, "what can you do?")
    began = time.monotonic()
    head = max((e["seq"] for e in by_pages(server, sid, _only_run(server, sid), limit=500)), default=0)
    empty = ok(server, "GET", f"sessions/{sid}/events?after={head}&wait=0.5")
    assert empty == {"events": [], "head_seq": head}
    answers: list[tuple[Any, float]] = []

    def poll() -> None:
        page = ok(server, "GET", f"sessions/{sid}/events?after={head}&wait=20")
        answers.append((page, time.monotonic()))

    poller = threading.Thread(target=poll)
    poller.start()
    while ok(server, "GET", "health")["followers"] < 1:  # the poll has arrived
        pass
    asked = time.monotonic()
    prompt(server, sid, "what can you do?")
    poller.join(30)
    page, at = answers[0]
    assert page["events"][0]["seq"] > head
    assert at - asked < 2
    assert asked - began < 30
    assert call(server, "GET", f"sessions/{sid}/events?after=0&wait=-1").status == 400


def _only_run(server: JupyterServer, sid: str) -> str:
    return str(ok(server, "GET", f"sessions/{sid}/runs")["runs"][0]["id"])


@pytest.mark.slow
def test_readers_that_stop_reading_disturb_nobody_and_lose_nothing(start: Start) -> None:
    server = start()
    sid = new_session(server)
    process = psutil.Process(server.pid)
    fast = Follower(server, sid).connected()
    slow = [Wire(server, f"sessions/{sid}/ws?after=0", receive_buffer=4096) for _ in range(5)]
    run_id = prompt(server, sid, "count to 100000 every 50 ms")["run_id"]
    before = process.memory_info().rss
    big = "x" * 900_000
    slowest = 0.0
    for number in range(12):  # queued behind the run, and withdrawn: twice 0.9 MB in the log and no work for the agent
        asked = time.monotonic()
        accepted = prompt(server, sid, f"{number} {big}", command_id=f"c{number}")
        fast.until_seq(accepted["seq"])
        slowest = max(slowest, time.monotonic() - asked)
        ok(server, "POST", f"sessions/{sid}/commands", {"type": "unqueue", "target": f"c{number}"})
    ok(server, "POST", f"sessions/{sid}/commands", {"type": "stop"})
    fast.until_end(run_id)
    grown = (process.memory_info().rss - before) / 2**20
    log = log_of_big(server, sid)
    assert fast.seen == log
    # 22 MB of log for five readers would be 108 MB if somebody kept it for them.
    print(f"\nmemory grew by {grown:.0f} MB; the slowest prompt of 0.9 MB took {slowest * 1000:.0f} ms")
    assert grown < 75
    for wire in slow:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)  # awake again
        seen: list[Envelope] = []
        while not (seen and ends(seen[-1], run_id)):
            seen += unpack(wire.read())
        assert seen == log
        wire.close()
    fast.close()


def log_of_big(server: JupyterServer, sid: str) -> list[Envelope]:
    """The log, in pages that are not too big."""
    seen: list[Envelope] = []
    while True:
        page = ok(server, "GET", f"sessions/{sid}/events?after={seen[-1]['seq'] if seen else 0}&limit=20")
        seen += page["events"]
        if not page["events"]:
            return seen
