"""The names of a session and of a recall that notebooks and programs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from navi_jupyter.kernel.ask import PendingPrompt
from navi_jupyter.kernel.client.client import Service
from navi_jupyter.kernel.display.listing import Listing
from navi_jupyter.kernel.errors import UsageError
from navi_jupyter.kernel.recalls import Recall
from navi_jupyter.kernel.reply import Reply
from navi_jupyter.kernel.session import Session

SESSION = "s_064f1a2b3c4d5e6f70810001"
PROMPT = "c_064f1a2b3c4d5e6f70810002"
QUESTION = "int_064f1a2b3c4d5e6f70810003"
RUN = "run_064f1a2b3c4d5e6f70810004"
STATE: dict[str, Any] = {
    "id": SESSION,
    "title": "Losses",
    "run": {"id": RUN},
    "usage": {"input_tokens": 7},
    "queue": [
        {"id": RUN, "command_id": PROMPT, "prompts": [{"command_id": PROMPT, "text": "second", "mode": "collect"}]},
        {"id": "run_2", "command_id": "mine"},
    ],
    "approvals": [{"id": QUESTION, "kind": "approval", "message": "Run this?", "tool": "run_code", "expires_at": None}],
}
RECALL: dict[str, Any] = {
    "id": "rec_064f1a2b3c4d5e6f70813f2a",
    "session_id": SESSION,
    "title": "tea",
    "message": "tea",
    "schedule": {"kind": "once", "at": "2026-11-24T09:00:00Z"},
    "policy": {"misfire": "fire"},
    "status": "pending",
    "next_at": "2026-11-24T09:00:00Z",
    "last_at": None,
    "fired": 0,
}
AWAY: dict[str, Any] = {
    "since": "2026-11-24T08:00:00Z",
    "runs": [
        {"at": "2026-11-24T09:00:00Z", "origin": {"kind": "user"}, "prompt": "sum", "answer": "3", "error": None}
        | {"status": "completed", "run_id": RUN}
    ],
    "not_run": [
        {"recall_id": RECALL["id"], "slot": "2026-11-24T08:30:00Z", "title": "tea", "status": "skipped"}
        | {"reason": "paused", "coalesced": 1}
    ],
}


class FakeService:
    """The server: a session with one open question and two waiting prompts."""

    client = None

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def call(self, _method: str, path: str, **_: Any) -> dict[str, Any]:
        if path.endswith("/away"):
            return AWAY
        return RECALL if path.startswith("recalls/") else STATE

    def pages(self, path: str, _name: str, **_: Any) -> list[dict[str, Any]]:
        return [RECALL, {**RECALL, "status": "fired"}] if path == "recalls" else []

    def command(self, session_id: str, command: dict[str, Any]) -> None:
        assert session_id == SESSION
        self.commands.append(command)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def session(service: FakeService) -> Session:
    return Session(cast("Service", service), SESSION)


def _answer(payload: Any) -> dict[str, Any]:
    return {"type": "answer", "interrupt_id": QUESTION, "status": "resolved", "payload": payload}


COMMANDS: list[tuple[Callable[[Session], Any], dict[str, Any]]] = [
    (lambda s: s.edit(command_id=PROMPT, text="new"), {"type": "edit", "target": PROMPT, "text": "new"}),
    (lambda s: s.edit(1, "new"), {"type": "edit", "target": PROMPT, "text": "new"}),
    (lambda s: s.unqueue(command_id=PROMPT), {"type": "unqueue", "target": PROMPT}),
    (lambda s: s.unqueue("second"), {"type": "unqueue", "target": PROMPT}),
    (lambda s: s.unqueue("mine"), {"type": "unqueue", "target": "mine"}),
    (lambda s: s.unqueue("gone"), {"type": "unqueue", "target": "gone"}),
    (lambda s: s.approve(interrupt_id=QUESTION), _answer({"approved": True})),
    (
        lambda s: s.approve(1, args={"x": 1}, always=True),
        _answer({"approved": True, "args": {"x": 1}, "always": "session"}),
    ),
    (lambda s: s.deny(interrupt_id=QUESTION), _answer({"approved": False})),
    (lambda s: s.deny(QUESTION, "no"), _answer({"approved": False, "message": "no"})),
    (lambda s: s.answer(interrupt_id=QUESTION, payload={"n": 3}), _answer({"n": 3})),
    (lambda s: s.decline(interrupt_id=QUESTION), {"type": "answer", "interrupt_id": QUESTION, "status": "cancelled"}),
    (lambda s: s.stop(run_id="run_x"), {"type": "stop", "run_id": "run_x"}),
]


@pytest.mark.parametrize(("do", "command"), COMMANDS)
def test_a_method_of_the_session_sends_one_command(
    service: FakeService, session: Session, do: Callable[[Session], Any], command: dict[str, Any]
) -> None:
    assert do(session) in (None, True)
    assert service.commands == [command]


def test_a_number_that_no_row_has_is_an_error(session: Session) -> None:
    with pytest.raises(UsageError, match="There is no question 2: the list has 1"):
        session.approve(2)


def test_stop_is_false_when_nothing_runs(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.stop() is True
    monkeypatch.setitem(STATE, "run", None)
    assert session.stop() is False


def test_the_queue_and_the_open_questions_are_lists(session: Session) -> None:
    assert session.queue == [
        {"command_id": PROMPT, "text": "second", "mode": "collect", "run_id": RUN},
        {"command_id": "mine", "text": "", "mode": "enqueue", "run_id": "run_2"},
    ]
    assert session.approvals == STATE["approvals"]
    assert isinstance(session.queue, Listing)
    assert isinstance(session.approvals, Listing)


def test_title_and_usage_are_read_from_the_state(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (session.title, session.usage) == ("Losses", {"input_tokens": 7})
    monkeypatch.setitem(STATE, "usage", None)
    assert session.usage == {}


def test_recalls_are_those_of_the_session(session: Session) -> None:
    assert [recall.id for recall in session.recalls()] == [RECALL["id"]]
    assert len(session.recalls(over=True)) == 2


def test_asking_makes_a_prompt_that_is_not_sent_yet(service: FakeService, session: Session) -> None:
    pending = session.asking("hello", mode="steer", model=None)
    assert isinstance(pending, PendingPrompt)
    assert isinstance(pending.reply(waited=False), Reply)
    assert service.commands == []
    with pytest.raises(UsageError):
        session.asking(" ")


def test_the_row_of_a_recall_is_its_line_in_a_table(service: FakeService) -> None:
    recall = Recall(cast("Service", service), RECALL)
    assert recall.row()[:4] == ["3f2a", "tea", "once", "pending"]
    assert recall.row()[-1] == "0"


def test_the_rows_of_away_have_the_keys_that_programs_read(session: Session) -> None:
    assert session.away("2026-01-01") == [
        {"at": "2026-11-24T08:30:00Z", "what": "tea", "status": "skipped", "told": "paused", "slots": 2},
        {"at": "2026-11-24T09:00:00Z", "what": "sum", "status": "completed", "told": "3", "run_id": RUN},
    ]
