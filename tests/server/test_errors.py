"""What an unforeseen failure looks like: an id for its reader, one line in the log, and the server goes on."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.orchestrator.session_list.service import SessionListReader
from tests.conftest import Api

SECRET = "something unforeseen"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orchestrator with a bug."""

    async def bug(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(SessionListReader, "page", bug)
    monkeypatch.setattr(Orchestrator, "submit", bug)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Our lines about it that anybody sees."""
    return [r for r in caplog.records if "navi_internal_error" in r.getMessage() and r.levelno >= logging.INFO]


async def test_a_bug_behind_a_route_is_a_500_with_an_id_that_the_log_has(
    api: Api, broken: None, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await api("GET", "sessions")
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert SECRET not in answer.json["message"]
    (line,) = lines(caplog)
    found = re.search(r"id (\w+)\.", answer.json["message"])
    assert found is not None
    assert f"id={found.group(1)}" in line.getMessage()
    assert SECRET in line.getMessage()
    assert line.exc_info is None
    assert "\n" not in line.getMessage()


async def test_a_bug_behind_a_socket_rejects_the_command_and_the_socket_stays_open(
    api: Api, broken: None, caplog: pytest.LogCaptureFixture
) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        for command_id in ("a", "b"):
            rejected = (await socket.answer({"type": "stop", "command_id": command_id}))["rejected"]
            assert (rejected["code"], rejected["command_id"]) == ("internal_error", command_id)
    assert len(lines(caplog)) == 2
