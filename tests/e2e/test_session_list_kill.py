"""The list of sessions across kill -9: titles are made later, what was deleted comes back, the search catches up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.providers import KEY, Reply, ScriptedProvider
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow


async def test_after_kill_9_there_are_titles_and_finds_and_a_way_back(tmp_path: Path) -> None:
    async with ScriptedProvider(Reply("The learning rate is too low.")) as provider:
        provider.title = Reply("never comes", hold_first=True)
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY}
        server = await asyncio.to_thread(JupyterServer(tmp_path, env=env).start)

        async def call(method: str, path: str, body: Any = None) -> Any:
            return await asyncio.to_thread(server.request, method, f"navi/api/{path}", body)

        async def until(path: str, holds: Any) -> Any:
            for _ in range(200):
                answer = await call("GET", path)
                if holds(answer):
                    return answer
                await asyncio.sleep(0.1)
            raise AssertionError(answer)

        try:
            sid = (await call("POST", "sessions", {"model": "openai-chat:scripted"}))["id"]
            gone = (await call("POST", "sessions", {"title": "Deleted by mistake"}))["id"]
            recall = {"session_id": gone, "message": "look", "schedule": {"kind": "every", "every": "1h"}}
            recall_id = (await call("POST", "recalls", recall))["id"]
            await call("DELETE", f"sessions/{gone}")
            await call("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "why is the loss flat?"})
            await provider.title_request()  # the run is over, its title is being written
            await asyncio.to_thread(server.kill9)
            await asyncio.to_thread(server.start)
            session = await until(f"sessions/{sid}", lambda answer: answer["title_source"] != "default")
            assert (session["title"], session["title_source"]) == ("why is the loss flat?", "words")
            await until("sessions?query=learning", lambda answer: [one["id"] for one in answer["sessions"]] == [sid])
            assert [one["id"] for one in (await call("GET", "sessions?show=deleted"))["sessions"]] == [gone]
            assert (await call("POST", f"sessions/{gone}/restore"))["title"] == "Deleted by mistake"
            assert (await call("GET", f"recalls/{recall_id}"))["status"] == "pending"
        finally:
            await asyncio.to_thread(server.stop)
