"""Starting, failing to start, stopping, and what is said meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp

from navi_jupyter.errors import NotReady, StoreError
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.lifecycle import Lifecycle
from navi_jupyter.server.metrics import LoopLag
from navi_jupyter.settings import Settings
from navi_jupyter.store.sqlite import connection, database_file
from navi_jupyter.store.sqlite.location import database_path
from tests.conftest import Api, extension_of

UNKNOWN = "sqlite:////dev/null/navi.db"


async def test_until_it_is_ready_every_route_says_so(
    jp_serverapp: ServerApp, jp_fetch: Any, jp_ws_fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start hook has not been called: pytest-jupyter never does."""
    monkeypatch.setattr("navi_jupyter.server.lifecycle.GRACE", 0.0)
    api = Api(jp_fetch, jp_ws_fetch)
    health = await api("GET", "health")
    assert (health.status, health.json["status"], health.json["code"]) == (503, "starting", "not_ready")
    lifecycle = extension_of(jp_serverapp).lifecycle
    assert lifecycle is not None
    with pytest.raises(NotReady):
        await lifecycle.ready(grace=0)


async def test_a_request_that_comes_early_waits_for_the_start(
    jp_serverapp: ServerApp, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    early = asyncio.create_task(Api(jp_fetch, jp_ws_fetch)("GET", "sessions"))
    await jp_serverapp.extension_manager.start_all_extensions()  # type: ignore[no-untyped-call]
    assert (await early).status == 200


async def test_after_the_stop_every_route_says_so(api: Api, navi: NaviExtension) -> None:
    await navi.stop_extension()
    answer = await api("GET", "sessions")
    assert (answer.status, answer.json["code"]) == (503, "not_ready")
    assert (await api("GET", "health")).json["status"] == "stopping"


class TestABrokenDatabase:
    """A database that cannot be used."""

    @pytest.fixture
    def navi_config(self, tmp_path: Path) -> dict[str, Any]:
        path = tmp_path / "navi.db"
        path.write_bytes(b"this is no database" * 100)
        path.with_name("navi.db.v1.bak").touch()  # it once was one of ours
        return {"database_url": f"sqlite:///{path}"}

    async def test_routes_say_why_and_the_server_goes_on(
        self, jp_serverapp: ServerApp, jp_fetch: Any, jp_ws_fetch: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await jp_serverapp.extension_manager.start_all_extensions()  # type: ignore[no-untyped-call]
        api = Api(jp_fetch, jp_ws_fetch)
        answer = await api("GET", "sessions")
        assert (answer.status, answer.json["code"]) == (503, "store_damaged")
        health = await api("GET", "health")
        assert (health.status, health.json["status"], health.json["code"]) == (503, "failed", "store_damaged")
        assert list(tmp_path.glob("*damaged*")), "it was set aside"
        assert "Traceback" not in caplog.text
        assert (await jp_fetch("api", "status")).code == 200


class TestAHeldDatabase:
    """A database that another program holds while the server starts."""

    @pytest.fixture
    def holder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
        monkeypatch.setattr(database_file, "BUSY_SECONDS", 0.1)
        monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 100)
        other = sqlite3.connect(tmp_path / "navi.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield other
        other.close()

    @pytest.fixture
    def navi_config(self, tmp_path: Path, holder: sqlite3.Connection) -> dict[str, Any]:
        return {"database_url": f"sqlite:///{tmp_path / 'navi.db'}"}

    async def test_the_start_waits_says_for_what_and_goes_on_when_it_is_free(
        self, jp_serverapp: ServerApp, jp_fetch: Any, jp_ws_fetch: Any, holder: sqlite3.Connection
    ) -> None:
        await jp_serverapp.extension_manager.start_all_extensions()  # type: ignore[no-untyped-call]
        api = Api(jp_fetch, jp_ws_fetch)
        answer = await api("GET", "sessions")
        assert (answer.status, answer.json["code"]) == (503, "not_ready")
        assert "held by another program" in answer.json["message"]
        health = await api("GET", "health")
        assert (health.status, health.json["status"], health.json["code"]) == (503, "starting", "store_busy")
        holder.execute("COMMIT")
        while (await api("GET", "health")).status == 503:
            assert extension_of(jp_serverapp).lifecycle.state != "failed"
        assert (await api("GET", "sessions")).status == 200


async def test_a_run_in_progress_counts_as_activity_and_waiting_recalls_only_if_so_configured(
    api: Api, navi: NaviExtension
) -> None:
    sid = await api.session()
    await api.ok("POST", "recalls", {"session_id": sid, "message": "m", "schedule": {"kind": "once", "in": "1h"}})
    assert navi.current_activity() is None
    run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
    seen = navi.current_activity()
    await api.until_run_ends(sid, run_id)
    assert seen in ({"runs": 1}, None)  # None when it was over already
    assert navi.current_activity() is None


class TestKeptAlive:
    """``keep_alive_for_recalls``."""

    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"keep_alive_for_recalls": True}

    async def test_waiting_recalls_count(self, api: Api, navi: NaviExtension) -> None:
        sid = await api.session()
        recall = {"session_id": sid, "message": "m", "schedule": {"kind": "once", "in": "1h"}}
        rid = (await api.ok("POST", "recalls", recall))["id"]
        assert navi.lifecycle is not None
        assert navi.lifecycle.services is not None
        await navi.lifecycle.services.recalls.scheduler.sweep()
        assert navi.current_activity() == {"recalls": 1}
        await api("DELETE", f"recalls/{rid}")
        await navi.lifecycle.services.recalls.scheduler.sweep()
        assert navi.current_activity() is None


async def test_looking_does_not_keep_a_server_alive_and_doing_does(api: Api, jp_serverapp: ServerApp) -> None:
    assert jp_serverapp.web_app is not None
    settings = jp_serverapp.web_app.settings
    settings.pop("api_last_activity", None)
    await api.ok("GET", "sessions")
    assert "api_last_activity" not in settings
    await api.session()
    assert "api_last_activity" in settings


# --- settings


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("default_model", "openai-chat:gpt", "openai-chat:gpt"),
        ("max_iterations", "7", 7),
        ("recall_busy_delay", "0.5", 0.5),
        ("keep_alive_for_recalls", "true", True),
        ("keep_alive_for_recalls", "0", False),
    ],
)
def test_a_trait_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(f"NAVI_{name.upper()}", text)
    assert getattr(NaviExtension(), name) == value
    settings = NaviExtension().read_settings()
    assert getattr(settings.limits if hasattr(settings.limits, name) else settings, name) == value


def test_a_trait_that_is_configured_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVI_MAX_ITERATIONS", "7")
    assert NaviExtension(max_iterations=9).max_iterations == 9


def test_a_wrong_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVI_MAX_ITERATIONS", "many")
    with pytest.raises(ValueError, match="NAVI_MAX_ITERATIONS"):
        _ = NaviExtension().max_iterations


def test_every_setting_is_a_trait_with_the_same_default() -> None:
    extension = NaviExtension()
    defaults = Settings(database_url=extension.read_settings().database_url)
    assert extension.read_settings() == defaults


def test_kernels_speak_as_the_hubs_user_under_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NaviExtension().read_settings().kernel_user == "local"
    monkeypatch.setenv("JUPYTERHUB_USER", "ann")
    assert NaviExtension().read_settings().kernel_user == "ann"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////home/ann/navi.db", "/home/ann/navi.db"),
        ("sqlite:////home/ann/na%20vi%3F.db", "/home/ann/na vi?.db"),
        ("sqlite:///navi.db", "navi.db"),
        ("/home/ann/navi.db", "/home/ann/navi.db"),
    ],
)
def test_where_the_database_is(url: str, path: str) -> None:
    assert database_path(url) == Path(path)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/db", "sqlite://", "sqlite://host/x"])
def test_another_database_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        database_path(url)
    assert "secret" not in refused.value.message


# --- small parts


async def test_the_lag_of_the_loop_is_seen() -> None:
    lag = LoopLag()
    lag.PERIOD = 0.0
    watch = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    time.sleep(0.02)  # noqa: ASYNC251 - somebody hogs the loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    watch.cancel()
    assert lag.milliseconds >= 15


async def test_stopping_what_never_started_does_nothing() -> None:
    lifecycle = Lifecycle(Settings(database_url=UNKNOWN), logging.getLogger("test"))
    await lifecycle.stop()


def test_loading_the_extension_imports_nothing_heavy() -> None:
    heavy = ("pydantic_ai", "pydantic", "aiosqlite", "structlog", "croniter", "navi_jupyter.model")
    code = (
        "import sys, jupyter_server.serverapp as _; before = set(sys.modules)\n"
        "import navi_jupyter.server.app\n"
        f"print(sorted(set({heavy!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_server_whose_connection_file_cannot_be_written_starts_and_writes_it_later(
    jp_serverapp: ServerApp, jp_fetch: Any, jp_ws_fetch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").touch()  # a file, where a folder should be
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "other"))
    monkeypatch.setattr("navi_jupyter.server.app.CONNECTION_FILE_EVERY", 0.05)
    await jp_serverapp.extension_manager.start_all_extensions()  # type: ignore[no-untyped-call]
    assert (await Api(jp_fetch, jp_ws_fetch)("GET", "sessions")).status == 200
    (tmp_path / "other").unlink()
    while not list(tmp_path.glob("other/navi-*.json")):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
