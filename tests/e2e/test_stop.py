"""Stop, while it streams: acknowledged at once, ended soon after, and the session goes on."""

from __future__ import annotations

import time
from statistics import median

import pytest

from tests.e2e.client import Follower, log_of, new_session, ok, prompt
from tests.e2e.conftest import Start
from tests.e2e.logs import check_session_log
from tests.support.server import JupyterServer

ROUNDS = 7


@pytest.mark.parametrize("way", ["http", "socket"])
def test_stop_is_acknowledged_in_100_ms_ends_in_a_second_and_the_next_prompt_is_answered(
    start: Start, way: str
) -> None:
    server = start()
    sid = new_session(server)
    follower = Follower(server, sid).connected()
    acknowledged, ended = [], []
    for _ in range(ROUNDS):
        run_id = prompt(server, sid, "count to 1000 every 20 ms")["run_id"]
        _until_ten(follower, run_id)
        asked = time.monotonic()
        accepted = stop(server, sid, follower, way)
        acknowledged.append(time.monotonic() - asked)
        assert accepted["run_id"] == run_id
        last = follower.until_end(run_id, patience=30)
        ended.append(follower.arrivals()[last["seq"]] - asked)
        assert last["event"]["outcome"] == {"type": "cancelled"}
        assert ok(server, "GET", f"sessions/{sid}/runs/{run_id}")["status"] == "stopped"
        following = prompt(server, sid, "what can you do?")["run_id"]
        assert follower.until_end(following)["event"]["outcome"] == {"type": "success"}
    log = log_of(server, sid)
    assert not check_session_log(log)
    partial = [message for message in ok(server, "GET", f"sessions/{sid}/messages")["messages"] if message["partial"]]
    assert len(partial) == ROUNDS
    assert all(message["content"].startswith("1 2 3 4 5 6 7 8 9 10") for message in partial)
    print(
        f"\n{way}: acknowledged in {median(acknowledged) * 1000:.0f} ms (max {max(acknowledged) * 1000:.0f}),"
        f" ended in {median(ended) * 1000:.0f} ms (max {max(ended) * 1000:.0f})"
    )
    # The median, because other programs may have the processor for a moment.
    assert median(acknowledged) < 0.1
    assert max(ended) < 1.0
    follower.close()


def _until_ten(follower: Follower, run_id: str) -> None:
    follower.until(lambda e: e["run_id"] == run_id and e["event"].get("delta", "").startswith("10"))


def stop(server: JupyterServer, sid: str, follower: Follower, way: str) -> dict[str, str]:
    """Ask it to stop; the acceptance."""
    if way == "http":
        return dict(ok(server, "POST", f"sessions/{sid}/commands", {"type": "stop"}))
    answer, _ = follower.answer({"type": "stop"})
    return dict(answer["accepted"])


def test_a_stop_when_nothing_runs_is_accepted_and_changes_nothing(start: Start) -> None:
    server = start()
    sid = new_session(server)
    accepted = ok(server, "POST", f"sessions/{sid}/commands", {"type": "stop", "command_id": "s1"})
    assert accepted["run_id"] is None
    assert ok(server, "POST", f"sessions/{sid}/commands", {"type": "stop", "command_id": "s1"}) == accepted
    run_id = prompt(server, sid, "what can you do?")["run_id"]
    follower = Follower(server, sid)
    assert follower.until_end(run_id)["event"]["outcome"] == {"type": "success"}
    follower.close()
