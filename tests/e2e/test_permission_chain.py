"""Permissions along the chain in a whole server: profiles in files, a real kernel, runs that delegate and pause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .client import call, log_of, new_session, ok, until

Start = Callable[..., JupyterServer]
MODEL = "openai-chat:gpt-6-luna"
CODE = "from pathlib import Path; Path('ran.txt').write_text('it ran')"
CAREFUL = '[permissions]\nrun_code = "deny"\n'
AUTOMATION = '[permissions]\nrun_code = "allow"\nrun_cell = "allow"\nwrite_file = "allow"\n'
RUN = Reply(calls=(Call("run_code", {"code": CODE}, id="call_r"),), when="TASK")


def delegating(profile: str | None = "automation", mark: str = "go") -> Reply:
    """The run's own agent gives the task away."""
    arguments = {"task": "TASK"} | ({"profile": profile} if profile else {})
    return Reply(calls=(Call("delegate", arguments, id="call_d"),), when=mark)


def write_profiles(home: Path, **profiles: str) -> None:
    folder = home / "config" / "navi" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in profiles.items():
        (folder / f"{name}.toml").write_text(text)


def session_with_kernel(server: JupyterServer, profile: str, **more: Any) -> str:
    kernel = server.request("POST", "api/kernels", {"name": "python3", "path": ""})
    return new_session(server, profile=profile, kernel_id=kernel["id"], model=MODEL, **more)


def prompt(server: JupyterServer, sid: str, text: str = "go", **more: Any) -> str:
    return str(ok(server, "POST", f"sessions/{sid}/commands", {"type": "prompt", "text": text, **more})["run_id"])


def run_of(server: JupyterServer, sid: str, run_id: str, *statuses: str) -> dict[str, Any]:
    """The run once it has one of these statuses."""

    def look() -> Any:
        run = ok(server, "GET", f"sessions/{sid}/runs/{run_id}")
        return run if run["status"] in statuses else None

    return until(look)  # type: ignore[no-any-return]


def results(server: JupyterServer, sid: str) -> str:
    return json.dumps([e["event"] for e in log_of(server, sid) if e["event"]["type"] == "TOOL_CALL_RESULT"])


def ran(server: JupyterServer) -> bool:
    return any(server.root.rglob("ran.txt"))


async def test_no_code_runs_by_way_of_a_subagent_where_the_sessions_profile_denies_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(tmp_path / "server", careful=CAREFUL, automation=AUTOMATION)
    async with ScriptedProvider(delegating(), RUN, Reply("No."), Reply("Done.")) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def work() -> None:
            sid = session_with_kernel(server, "careful")
            run = run_of(server, sid, prompt(server, sid), "completed", "failed", "waiting")
            assert run["status"] == "completed", run
            assert not ran(server)
            assert "The profile 'careful' denies run_code" in json.loads(results(server, sid))[0]["content"]

        await asyncio.to_thread(work)


async def test_what_asks_in_the_session_asks_in_a_subagent_whose_profile_allows_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(tmp_path / "server", automation=AUTOMATION)
    script = (delegating(), RUN, Reply("Ran it."), Reply("Done."))
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def work() -> None:
            sid = session_with_kernel(server, "assistant")
            run_id = prompt(server, sid)
            (question,) = until(lambda: ok(server, "GET", f"sessions/{sid}")["approvals"])
            assert question["tool"] == "run_code"
            assert not ran(server)
            answer = {"type": "answer", "interrupt_id": question["id"], "status": "resolved"}
            answer |= {"payload": {"approved": True, "always": "session"}}
            assert call(server, "POST", f"sessions/{sid}/commands", answer).status == 202
            assert run_of(server, sid, run_id, "completed", "failed")["status"] == "completed"
            assert ran(server)
            assert ok(server, "GET", f"sessions/{sid}")["allowed_tools"] == ["run_code"]

        await asyncio.to_thread(work)


async def test_a_paused_run_keeps_the_stricter_of_the_profiles_that_its_session_has_had(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks under a careful profile; the session is given a free one, and more tools, before the answer comes."""
    careful = '[permissions]\nrun_code = "deny"\nwrite_file = "ask"\n'
    write_profiles(tmp_path / "server", careful=careful, automation=AUTOMATION)
    write = Call("write_file", {"path": "note.txt", "content": "x"}, id="call_w")
    run_code = Call("run_code", {"code": CODE}, id="call_r")
    async with ScriptedProvider(Reply(calls=(write,)), Reply(calls=(run_code,)), Reply("Done.")) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)

        def work() -> None:
            sid = session_with_kernel(server, "careful")
            run_id = prompt(server, sid)
            (question,) = until(lambda: ok(server, "GET", f"sessions/{sid}")["approvals"])
            ok(server, "PATCH", f"sessions/{sid}", {"profile": "automation", "allowed_tools": ["*"]})
            answer = {"type": "answer", "interrupt_id": question["id"], "status": "resolved"}
            ok(server, "POST", f"sessions/{sid}/commands", answer | {"payload": {"approved": True}})
            run = run_of(server, sid, run_id, "completed", "failed")
            assert run["status"] == "completed", run
            assert (server.root / "note.txt").exists()
            assert not ran(server)

        await asyncio.to_thread(work)


async def test_a_running_run_is_held_to_a_stricter_profile_from_its_next_call_on(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(tmp_path / "server", careful=CAREFUL, automation=AUTOMATION)
    first = Reply("Wait.", calls=(Call("run_code", {"code": CODE}, id="call_r"),), hold_end=True)
    async with ScriptedProvider(first, Reply("Done.")) as provider:
        provider.point(monkeypatch)
        server = await asyncio.to_thread(start)
        sid = await asyncio.to_thread(session_with_kernel, server, "automation")
        run_id = await asyncio.to_thread(prompt, server, sid)
        await (await provider.request()).began.wait()
        await asyncio.to_thread(ok, server, "PATCH", f"sessions/{sid}", {"profile": "careful"})
        first.release.set()
        run = await asyncio.to_thread(run_of, server, sid, run_id, "completed", "failed", "waiting")
        assert run["status"] == "completed", run
        assert not ran(server)
        assert "careful" in await asyncio.to_thread(results, server, sid)
