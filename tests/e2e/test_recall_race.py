"""Two users' programs that do everything one can do with recalls at once, over REST, while these fall due each second.

``NAVI_RACE`` is for how many seconds (default 4). Afterwards the ledger, the log, and what was answered must agree.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import call, log_of, new_session, ok, pages, until
from tests.e2e.conftest import Start
from tests.e2e.test_recall_kill import Database, _at_rest, _check
from tests.support.server import JupyterServer

SECONDS = float(os.environ.get("NAVI_RACE", "4"))
SEED = int(os.environ.get("NAVI_SEED", "20261123"))
MOST = 40
"""Recalls that are not over; above it no more are made."""
SESSIONS = 5
MAY_ANSWER = {200, 201, 204, 400, 404, 409}


@dataclass
class Race:
    """What both do, and what they were answered."""

    server: JupyterServer
    sessions: list[str]
    known: list[str] = field(default_factory=list)
    open: int = 0
    fired: list[tuple[str, str]] = field(default_factory=list)
    """(recall, key) of each "run now" that was accepted."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def go(self, number: int) -> None:
        """One client."""
        dice = random.Random(SEED + number)
        ends = time.monotonic() + SECONDS
        moves = (self.make, self.edit, self.edit, self.switch, self.switch, self.fire, self.fire, self.clone,
                 self.cancel, self.all_of_them, self.carry, self.look)  # fmt: skip
        while time.monotonic() < ends:
            dice.choice(moves)(dice)

    def send(self, what: str, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        answer = call(self.server, method, path, body, headers={"Idempotency-Key": key} if key else None)
        with self.lock:
            self.answers[what, answer.status] += 1
        assert answer.status in MAY_ANSWER, (what, answer.status, answer.body[:500])
        return answer.json if answer.body and answer.status < 300 else None

    def schedule(self, dice: random.Random) -> dict[str, Any]:
        return dice.choice(
            (
                {"kind": "every", "every": "1s"},
                {"kind": "every", "every": "2s"},
                {"kind": "once", "in": f"{dice.randint(1, 2500)}ms"},
                {"kind": "cron", "expr": "* * * * * *"},
            )
        )

    def policy(self, dice: random.Random) -> dict[str, Any]:
        return dice.choice(
            (
                {},
                {"misfire": "all"},
                {"busy": "queue"},
                {"busy": "skip"},
                {"max_fires": 3},
                {"until": (datetime.now(UTC) + timedelta(seconds=3)).isoformat()},
            )
        )

    def make(self, dice: random.Random) -> None:
        if self.open < MOST:
            body = {"session_id": dice.choice(self.sessions), "message": "count to 2 every 1 ms"}
            made = self.send("make", "POST", "recalls", body | {"schedule": self.schedule(dice), "policy": {}})
            self.learn([made] if made else [])

    def learn(self, recalls: list[Any]) -> None:
        with self.lock:
            self.known += [recall["id"] for recall in recalls]

    def one(self, dice: random.Random) -> str:
        """Two that are much used, and the others."""
        return dice.choice(self.known[:2] if dice.random() < 0.3 else self.known)

    def edit(self, dice: random.Random) -> None:
        change = dice.choice(
            (
                {"message": f"count to {dice.randint(1, 3)}"},
                {"schedule": self.schedule(dice)},
                {"policy": self.policy(dice)},
                {"schedule": self.schedule(dice), "policy": self.policy(dice), "title": "new"},
            )
        )
        self.send("edit", "PATCH", f"recalls/{self.one(dice)}", change)

    def switch(self, dice: random.Random) -> None:
        what = dice.choice(("pause", "resume"))
        self.send(what, "POST", f"recalls/{self.one(dice)}/{what}", {})

    def fire(self, dice: random.Random) -> None:
        recall, key = self.one(dice), f"k{dice.randint(1, 6)}"
        if self.send("fire", "POST", f"recalls/{recall}/fire", key=key):
            with self.lock:
                self.fired.append((recall, key))

    def clone(self, dice: random.Random) -> None:
        if self.open < MOST:
            copy = self.send("clone", "POST", f"recalls/{self.one(dice)}/clone", {"policy": self.policy(dice)})
            self.learn([copy] if copy else [])

    def cancel(self, dice: random.Random) -> None:
        if dice.random() < 0.5:
            self.send("cancel", "DELETE", f"recalls/{self.one(dice)}")

    def all_of_them(self, dice: random.Random) -> None:
        if dice.random() < 0.5:
            self.send("pause all", "POST", "recalls/pause")
        self.send("resume all", "POST", f"recalls/resume?session_id={dice.choice(self.sessions)}")
        self.send("resume all", "POST", "recalls/resume")

    def carry(self, dice: random.Random) -> None:
        """Out and in again."""
        session = dice.choice(self.sessions)
        text = call(self.server, "GET", f"recalls/export?session_id={session}").body.decode()
        if self.open < MOST and "[[recall]]" in text:
            there = dice.choice(self.sessions)
            taken = self.send("import", "POST", f"recalls/import?session_id={there}", {"toml": text})
            self.learn(taken["recalls"] if taken else [])

    def look(self, _: random.Random) -> None:
        self.open = int(call(self.server, "GET", "health").json["recalls"])


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_whatever_two_programs_do_at_once_the_ledger_the_log_and_the_answers_agree(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "race.db"
    limits = ("--NaviExtension.max_recalls_per_user=100000", "--NaviExtension.recall_busy_delay=0.2")
    server = start("one", *limits, env={"NAVI_DATABASE_URL": f"sqlite:///{path}"})
    database = Database(path)
    race = Race(server, [new_session(server) for _ in range(SESSIONS)])
    for number in range(4):
        race.make(random.Random(number))
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(race.go, number) for number in range(2)]:
            done.result()
    ok(server, "POST", "recalls/pause")
    until(lambda: _at_rest(database))
    until(lambda: _manual_done(database))
    _check(database, [], datetime.now(UTC))
    _check_recalls(server, database, race)
    said = {what: sum(n for (name, _), n in race.answers.items() if name == what) for what, _ in race.answers}
    rows = Counter(status for (status,) in database.rows("SELECT status FROM firings"))
    print(f"\n{sum(race.answers.values())} requests {said}; {len(race.known)} recalls, rows {dict(rows)}")
    assert rows["succeeded"] > 10, "it was a race with recalls that run"


def _manual_done(database: Database) -> bool:
    """What was to run now runs also while its recall is paused."""
    return not database.one("SELECT count(*) FROM firings WHERE kind = 'manual' AND ended_at IS NULL")


def _check_recalls(server: JupyterServer, database: Database, race: Race) -> None:
    recalls = {recall["id"]: recall for recall in pages(server, "recalls", "recalls")}
    assert set(race.known) <= set(recalls)
    double = database.rows("SELECT recall_id, slot FROM firings WHERE kind = 'auto' GROUP BY 1, 2 HAVING count(*) > 1")
    assert not double
    manual = database.rows("SELECT recall_id, key FROM firings WHERE kind = 'manual'")
    assert sorted(manual) == sorted(set(race.fired)), "each key has fired once, and what was accepted has fired"
    started = Counter(recall for (recall,) in database.rows("SELECT recall_id FROM firings WHERE run_id IS NOT NULL"))
    assert {recall: content["fired"] for recall, content in recalls.items() if content["fired"]} == started
    held = "SELECT r.id FROM recalls r JOIN firings f ON f.recall_id = r.id WHERE f.ended_at IS NULL"
    over = database.rows(f"{held} AND r.status NOT IN ('paused', 'pending', 'running')")
    assert not over, "one that is over has a firing that is not"
    early = database.rows("SELECT id FROM firings WHERE started_at < slot AND kind = 'auto'")
    assert not early
    _check_words(server, race, recalls)


def _check_words(server: JupyterServer, race: Race, recalls: dict[str, Any]) -> None:
    """What each session was told last of each recall is how that is; and of what users did to it, it was told."""
    last: dict[str, str] = {}
    said: Counter[tuple[str, str]] = Counter()
    for sid in race.sessions:
        for envelope in log_of(server, sid):
            event = envelope["event"]
            if event.get("name") == "navi.recall":
                value = event["value"]
                last[value["recall"]["id"]] = value["status"]
                said[value["recall"]["id"], value["action"]] += 1
    assert last == {recall: content["status"] for recall, content in recalls.items()}
    for recall, content in recalls.items():
        assert said[recall, "created"] == 1
        if content["status"] in ("paused", "cancelled"):
            assert said[recall, content["status"]], f"{recall} is {content['status']}, and nobody was told"
