"""A recall computes in a real kernel with every browser closed, if it was allowed to; else the ledger says why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from navi_jupyter.kernel.client.client import Service
from navi_jupyter.kernel.client.connection import find_server
from navi_jupyter.kernel.session import Session
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .client import log_of, new_session, ok, pages, until

Start = Callable[..., JupyterServer]
MODEL = "openai-chat:gpt-6.1-sol"
CODE = "print('the answer is', 6 * 7)"
SCRIPT = (Reply(calls=(Call("run_code", {"code": CODE}, id="c1"),)), Reply("It is 42."))


def notebook_session(server: JupyterServer, profile: str = "assistant") -> str:
    nbformat.write(nbformat.v4.new_notebook(), server.root / "work.ipynb")
    return new_session(server, notebook_path="work.ipynb", model=MODEL, profile=profile)


def made(server: JupyterServer, sid: str, **more: Any) -> str:
    body = {"session_id": sid, "message": "compute it", "schedule": {"kind": "once", "in": "100ms"}, **more}
    return str(ok(server, "POST", "recalls", body)["id"])


def outcome(server: JupyterServer, recall: str) -> tuple[str, str | None]:
    """How its newest firing ended, once it has: without a view of its session."""

    def last() -> Any:
        found = pages(server, f"recalls/{recall}/firings", "firings")
        return found[0] if found and found[0]["ended_at"] else None

    firing = until(last)
    return firing["status"], firing["reason"]


async def test_a_recall_with_leave_runs_code_with_every_browser_closed_and_keeps_its_output(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*SCRIPT) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def work() -> list[Any]:
            sid = notebook_session(server)
            assert outcome(server, made(server, sid, allow=["run_code"])) == ("succeeded", None)
            return log_of(server, sid)

        log = await asyncio.to_thread(work)
        bodies = json.dumps([request.body for request in provider.requests])
    assert "the answer is 42" in bodies, "the model read what its code gave"
    outputs = [e["event"] for e in log if e["event"].get("activityType") == "navi.output"]
    assert "the answer is 42" in json.dumps(outputs)
    assert "It is 42." in "".join(e["event"].get("delta", "") for e in log)
    assert not [e for e in log if e["event"].get("name") == "navi.interrupt"]


@pytest.mark.parametrize("profile", ["assistant", "watcher"])
async def test_without_leave_the_ledger_says_what_it_needed_and_it_is_run_again_with_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The assistant would ask, the watcher's profile denies what would."""
    first = (Reply(calls=(Call("run_code", {"code": CODE}, id="c0"),)),)
    denied = (Reply("I could not."),) if profile == "watcher" else ()
    async with ScriptedProvider(*first, *denied, *SCRIPT) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def work() -> None:
            sid = notebook_session(server, profile)
            recall = made(server, sid)
            needed = "needed approval: run_code"
            assert outcome(server, recall) == ("failed", needed)
            (run,) = ok(server, "GET", f"sessions/{sid}/runs")["runs"]
            assert (run["status"], run["error"]["code"], run["error"]["message"]) == (
                "failed",
                "needed_approval",
                needed,
            )
            away = ok(server, "GET", f"sessions/{sid}/away")
            assert [(one["status"], one["reason"]) for one in away["runs"]] == [("failed", needed)]
            (row,) = Session(Service(find_server(server.url, server.token)), sid).away()
            assert (row["status"], row["told"]) == ("failed", needed)
            again = ok(server, "POST", f"recalls/{recall}/fire", {"allow": ["run_code"]})
            assert again["allow"] == ["run_code"]
            until(lambda: len(pages(server, f"recalls/{recall}/firings", "firings")) == 2)
            assert outcome(server, recall) == ("succeeded", None)
            assert ok(server, "GET", f"recalls/{recall}")["status"] == "fired"
            assert "the answer is 42" in json.dumps(log_of(server, sid))

        await asyncio.to_thread(work)


async def test_an_administrators_ceiling_wins_over_the_leave(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (Reply(calls=(Call("run_code", {"code": CODE}, id="c0"),)),)
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def give() -> tuple[str, str]:
            sid = notebook_session(server)
            recall = made(server, sid, allow=["run_code"], schedule={"kind": "once", "in": "1h"})
            server.stop()
            server.start(args=("--NaviExtension.tool_ceiling=run_code=ask",))
            return sid, recall

        sid, recall = await asyncio.to_thread(give)

        def work() -> None:
            ok(server, "POST", f"recalls/{recall}/fire", {})
            assert outcome(server, recall) == ("failed", "needed approval: run_code")
            answer = ok(server, "GET", f"recalls/{recall}")
            assert answer["allow"] == ["run_code"]
            with pytest.raises(AssertionError, match="administrator"):
                made(server, sid, allow=["run_code"])

        await asyncio.to_thread(work)
