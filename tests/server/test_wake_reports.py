"""What a user's server reports to ``navi hub --wake-only``, with a service that is away, and one that never answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.hub_proxy import wake_reports
from navi_jupyter.server.hub_proxy.wake_reports import WakeReports
from tests.conftest import Api


class Reported:
    """A service that takes reports, as long as its status is 204."""

    def __init__(self) -> None:
        self.status = 204
        self.bodies: list[dict[str, Any]] = []
        self.attempts = 0


class _Put(RequestHandler):
    def initialize(self, reported: Reported) -> None:
        self._reported = reported

    async def put(self) -> None:
        reported = self._reported
        reported.attempts += 1
        if reported.status == 0:  # it never answers
            await asyncio.sleep(60)
        assert self.request.headers["Authorization"] == "token of alice's server"
        self.set_status(reported.status)
        if reported.status == 204:
            reported.bodies.append(json.loads(self.request.body))


@asynccontextmanager
async def service(reported: Reported) -> AsyncIterator[str]:
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/services/navi/navi/api/wake", _Put, {"reported": reported})]))
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/services/navi/"
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _on_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "of alice's server")
    monkeypatch.setenv("JUPYTERHUB_SERVER_NAME", "second")
    monkeypatch.setattr(wake_reports, "LOOK_EVERY", 0.1)


@asynccontextmanager
async def reporting(url: str, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WakeReports]:
    monkeypatch.setenv("JUPYTERHUB_USER", "alice")
    reports = WakeReports(url, navi.log)
    assert navi.lifecycle is not None
    assert isinstance(navi.serverapp, ServerApp)
    reports.start(navi.serverapp, navi.lifecycle)
    try:
        yield reports
    finally:
        await reports.stop()


async def until(condition: Any, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def make_recall(api: Api, seconds: int = 3600) -> None:
    once = {"kind": "once", "in": f"{seconds}s"}
    await api.ok("POST", "recalls", {"session_id": await api.session(), "message": "hi", "schedule": once})


async def test_what_is_next_is_reported_when_it_changes_and_again_after_the_service_was_away(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = Reported()
    async with service(reported) as url, reporting(url, navi, monkeypatch):
        await until(lambda: reported.bodies)
        assert reported.bodies == [{"server": "second", "next_at": None, "busy": False, "in_use": False}]
        reported.status, reported.attempts = 503, 0
        await make_recall(api)
        await until(lambda: reported.attempts >= 2)
        reported.status = 204
        await until(lambda: len(reported.bodies) > 1)
        due = datetime.fromisoformat(reported.bodies[1]["next_at"]) - datetime.now(UTC)
        assert timedelta(seconds=3500) < due < timedelta(seconds=3600)
        await asyncio.sleep(0.5)
        assert len(reported.bodies) == 2, "nothing has changed"


async def test_a_server_at_work_reports_that_and_its_end(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = Reported()
    monkeypatch.setattr(wake_reports, "RENEW_EVERY", 0.3)
    async with service(reported) as url, reporting(url, navi, monkeypatch):
        sid = await api.session()
        await api.prompt(sid, "count slowly to 5000")
        await until(lambda: sum(body["busy"] for body in reported.bodies) >= 2)
        assert next(body for body in reported.bodies if body["busy"])["needed_for"] == 60
        await api.ok("POST", f"sessions/{sid}/commands", {"type": "stop"})
        await until(lambda: not reported.bodies[-1]["busy"])


async def test_what_was_made_last_is_reported_at_the_end(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = Reported()
    async with service(reported) as url:
        async with reporting(url, navi, monkeypatch):
            await until(lambda: reported.bodies)
            monkeypatch.setattr(wake_reports, "LOOK_EVERY", 1000.0)
            await asyncio.sleep(0.2)
            await make_recall(api)
        assert [body["next_at"] is None for body in reported.bodies] == [True, False]


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_the_end_of_a_server_waits_two_seconds_at_most(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    reported = Reported()
    async with service(reported) as url:
        async with reporting(url, navi, monkeypatch):
            await until(lambda: reported.bodies)
            reported.status, reported.attempts = status, 0
            await make_recall(api)
            await until(lambda: reported.attempts)
            began = time.monotonic()
        assert time.monotonic() - began < 2.5


async def test_a_server_reports_to_one_service_or_sends_everything_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_USER", "alice")
    both = NaviExtension(hub_service_url="http://hub/services/navi/", hub_wake_url="http://hub/services/navi/")
    with pytest.raises(ValueError, match="hub_service_url or hub_wake_url, not both"):
        both.initialize_settings()
    monkeypatch.delenv("JUPYTERHUB_USER")
    with pytest.raises(ValueError, match="for servers that a JupyterHub has started"):
        NaviExtension(hub_wake_url="http://hub/services/navi/").initialize_settings()
