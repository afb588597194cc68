"""What a run keeps in memory while it goes on."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest

from navi_jupyter.ports.agent import PastTurn
from navi_jupyter.store import prompts
from tests.conftest import Api
from tests.support.providers import Reply, ScriptedProvider


async def test_a_run_has_no_stored_turn_any_more_while_its_answer_comes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts._KnownTurns, "_MOST", 0)
    monkeypatch.setattr(prompts._KnownTurns, "_MOST_OF_ONE", 0)
    last = Reply("The fourth.", hold_first=True)
    async with ScriptedProvider(*(Reply(f"Answer {number}.") for number in range(3)), last) as provider:
        provider.point(monkeypatch)
        sid = (await api.ok("POST", "sessions", {"model": "openai-chat:scripted", "title": "Mine"}))["id"]
        earlier = set()
        for _ in range(3):
            run_id = (await api.prompt(sid, "go"))["run_id"]
            earlier.add(run_id)
            await api.until_run_ends(sid, run_id)
        run_id = (await api.prompt(sid, "go"))["run_id"]
        async with asyncio.timeout(20):
            while len(provider.requests) < 4:  # noqa: ASYNC110 - bounded; the provider has no event for a request
                await asyncio.sleep(0.01)
        assert "Answer 2." in json.dumps(provider.requests[-1].body)
        held = {one.run_id for one in gc.get_objects() if isinstance(one, PastTurn)}
        last.release.set()
        await api.until_run_ends(sid, run_id)
    assert not held & earlier
