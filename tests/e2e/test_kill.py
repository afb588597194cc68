"""Killed with -9 at any instant while it streams and fires: nothing acknowledged or seen is lost or doubled."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.client import Envelope, Follower, Wire, call, log_of, new_session, ok, pages, until
from tests.e2e.conftest import Start
from tests.e2e.logs import check_ledger, check_session_log, user_messages
from tests.support.server import JupyterServer

KILLS = int(os.environ.get("NAVI_TEST_KILLS", "6"))
"""At random instants; 30 in long runs."""
LONG, SHORT = "count to 200 every 20 ms", "count to 25 every 20 ms"
RECALLED = "count to 10 every 20 ms"


class Sender(threading.Thread):
    """Sends prompts without pause; each again and again, under the same id, until it has an answer."""

    def __init__(self, name: str, seed: int, send: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """Acceptances by command id."""
        self.refused: list[str] = []
        self.retries = 0
        self.over = threading.Event()
        self._send = send
        self._random = random.Random(seed)

    def run(self) -> None:
        count = 0
        while not self.over.is_set():
            count += 1
            command = {
                "type": "prompt",
                "command_id": f"{self.name}-{count}",
                "text": self._random.choice((LONG, SHORT)),
                "mode": self._random.choice(("enqueue", "interrupt")),
            }
            self._until_answered(command)
            self.over.wait(self._random.uniform(0.0, 0.4))

    def _until_answered(self, command: dict[str, Any]) -> None:
        while not self.over.is_set():
            try:
                accepted = self._send(command)
            except OSError:
                self.retries += 1
                time.sleep(0.02)
                continue
            if accepted is None:
                self.refused.append(command["command_id"])
            else:
                self.acknowledged[command["command_id"]] = accepted
            return


def http_sender(server: JupyterServer, sid: str) -> Sender:
    def send(command: dict[str, Any]) -> dict[str, Any] | None:
        answer = call(server, "POST", f"sessions/{sid}/commands", command)
        if answer.status == 503:
            raise ConnectionError("it starts")
        assert answer.status in (202, 429), answer
        return dict(answer.json) if answer.status == 202 else None

    return Sender("http", 1, send)


def socket_sender(server: JupyterServer, sid: str) -> Sender:
    wires: list[Wire] = []

    def send(command: dict[str, Any]) -> dict[str, Any] | None:
        try:
            if not wires:
                head = call(server, "GET", f"sessions/{sid}").json["head_seq"]
                wires.append(Wire(server, f"sessions/{sid}/ws?after={head}"))
            answer = wires[0].answer(command)
        except (OSError, KeyError):
            while wires:
                wires.pop().cut()
            raise ConnectionError from None
        if "rejected" in answer:
            assert answer["rejected"]["code"] in ("limit_reached", "not_ready"), answer
            if answer["rejected"]["code"] == "not_ready":
                raise ConnectionError
            return None
        return {name: value for name, value in answer["accepted"].items() if name != "type"}

    return Sender("socket", 2, send)


class OnceRecalls(threading.Thread):
    """Makes recalls that fire once, a moment later; remembers those that were accepted."""

    def __init__(self, server: JupyterServer, sid: str) -> None:
        super().__init__(name="once-recalls", daemon=True)
        self.accepted: list[str] = []
        self.over = threading.Event()
        self._server = server
        self._sid = sid
        self._random = random.Random(3)

    def run(self) -> None:
        while not self.over.wait(1.0):
            schedule = {"kind": "once", "in": f"{self._random.randint(200, 4000)}ms"}
            body = {"session_id": self._sid, "message": RECALLED, "schedule": schedule}
            with suppress(OSError):
                answer = call(self._server, "POST", "recalls", body)
                assert answer.status in (201, 503), answer
                if answer.status == 201:
                    self.accepted.append(answer.json["id"])


class Checker:
    """Compares what the server says after each start with what was promised and seen before."""

    def __init__(self, server: JupyterServer, followers: dict[str, Follower], senders: dict[str, Sender]) -> None:
        self._server = server
        self._followers = followers
        self._senders = senders
        self.interrupted: set[str] = set()

    def after_start(self, started: datetime) -> None:
        for sid, follower in self._followers.items():
            seen = list(follower.seen)
            sender = self._senders.get(sid)
            acknowledged = list(sender.acknowledged) if sender else []
            log = log_of(self._server, sid)
            self._in_progress(log, started)
            stored = {envelope["seq"]: envelope for envelope in log}
            lost = [envelope for envelope in seen if stored.get(envelope["seq"]) != envelope]
            assert not lost, f"{len(lost)} envelopes that a client had seen are not in the log; the first: {lost[0]}"
            prompts = user_messages(log)
            missing = [command for command in acknowledged if prompts[command] != 1]
            assert not missing, f"acknowledged, and not in the log once: {missing}"

    def _in_progress(self, log: list[Envelope], started: datetime) -> None:
        """What goes on must have been started by the server that runs now."""
        for run in check_session_log(log):
            begun = next(e["ts"] for e in log if e["run_id"] == run and e["event"]["type"] == "RUN_STARTED")
            assert datetime.fromisoformat(begun) >= started, f"{run} is open since {begun}; the server began {started}"
        self.interrupted |= {e["run_id"] for e in log if e["event"].get("code") == "interrupted"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_any_instant_it_loses_and_doubles_nothing(start: Start) -> None:
    server = start("server", "--NaviExtension.recall_busy_delay=0.3", "--NaviExtension.max_recalls_per_user=100000")
    chance = random.Random(20261123)
    by_http, by_socket, ticking, once = (new_session(server, title=title) for title in ("http", "ws", "every", "once"))
    recall = ok(server, "POST", "recalls", _every_second(ticking))
    followers = {sid: Follower(server, sid).connected() for sid in (by_http, by_socket, ticking, once)}
    senders = {by_http: http_sender(server, by_http), by_socket: socket_sender(server, by_socket)}
    once_recalls = OnceRecalls(server, once)
    checker = Checker(server, followers, senders)
    for thread in (*senders.values(), once_recalls):
        thread.start()
    begun, waited = time.monotonic(), 0.0
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 1.6))
        server.kill9()
        started, down = datetime.now(UTC), time.monotonic()
        server.start(args=("--NaviExtension.recall_busy_delay=0.3", "--NaviExtension.max_recalls_per_user=100000"))
        waited += time.monotonic() - down
        checker.after_start(started)
    for sender in senders.values():
        sender.over.set()
    once_recalls.over.set()
    for thread in (*senders.values(), once_recalls):
        thread.join(30)
        assert not thread.is_alive(), f"{thread.name} is stuck"
    _check_recalls(server, recall["id"], ticking, once, once_recalls.accepted)
    _check_answers(server, senders)
    _check_followers(server, followers)
    acknowledged = sum(len(sender.acknowledged) for sender in senders.values())
    print(
        f"\n{KILLS} kills in {time.monotonic() - begun:.0f} s ({waited:.0f} s of it starts);"
        f" {acknowledged} prompts acknowledged,"
        f" {sum(sender.retries for sender in senders.values())} retries, {len(checker.interrupted)} runs interrupted,"
        f" {len(once_recalls.accepted)} one-time recalls, {sum(len(f.seen) for f in followers.values())} envelopes seen"
    )
    assert checker.interrupted, "no kill hit a run"
    for follower in followers.values():
        follower.close()


def _every_second(sid: str) -> dict[str, Any]:
    return {"session_id": sid, "message": RECALLED, "schedule": {"kind": "every", "every": "1s"}}


def _check_recalls(server: JupyterServer, recurring: str, sid: str, once_sid: str, once: list[str]) -> None:
    recall = ok(server, "POST", f"recalls/{recurring}/pause")
    last = until(lambda: _settled_slots(server, recurring))
    assert datetime.now(UTC) - last < timedelta(seconds=PAUSE_SLACK), f"nothing is accounted for since {last}"
    check_ledger(recall, pages(server, f"recalls/{recurring}/firings", "firings"), log_of(server, sid), every=SECOND)
    until(lambda: all(ok(server, "GET", f"recalls/{rid}")["status"] not in ("pending", "running") for rid in once))
    log = log_of(server, once_sid)
    for rid in once:
        firings = pages(server, f"recalls/{rid}/firings", "firings")
        assert len(firings) == 1, firings
        check_ledger(ok(server, "GET", f"recalls/{rid}"), firings, log)
        assert firings[0]["run_id"] is not None, f"a one-time recall always runs: {firings}"


SECOND = timedelta(seconds=1)
PAUSE_SLACK = 15.0
"""Seconds that the last checks may take on a loaded machine."""


def _settled_slots(server: JupyterServer, recall_id: str) -> datetime | None:
    """The last slot in the ledger, once nothing of it is in between."""
    firings = pages(server, f"recalls/{recall_id}/firings", "firings")
    if any(firing["status"] in ("claimed", "running") for firing in firings):
        return None
    return max(datetime.fromisoformat(firing["slot"]) for firing in firings)


def _check_answers(server: JupyterServer, senders: dict[str, Sender]) -> None:
    """Whatever was acknowledged is answered the same when it is sent again; whatever was refused is not there."""
    for sid, sender in senders.items():
        assert len(sender.acknowledged) > KILLS, "it was too slow to mean anything"
        prompts = user_messages(log_of(server, sid))
        assert not [command for command in sender.refused if prompts[command]]
        for command, acceptance in list(sender.acknowledged.items())[-10:]:
            repeated = {"type": "prompt", "text": SHORT, "command_id": command}
            assert ok(server, "POST", f"sessions/{sid}/commands", repeated) == acceptance
        runs = {run["id"]: run for run in pages(server, f"sessions/{sid}/runs", "runs")}
        for acceptance in sender.acknowledged.values():
            assert runs[acceptance["run_id"]]["command_id"] == acceptance["command_id"]


def _check_followers(server: JupyterServer, followers: dict[str, Follower]) -> None:
    """A follower that was cut at each kill has the log, envelope by envelope."""
    for sid, follower in followers.items():
        log = log_of(server, sid)
        follower.until_seq(log[-1]["seq"])
        assert follower.seen[: len(log)] == log
        assert not follower.prelude, "it always had a cursor"
