"""The agent against a scripted provider, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from navi_jupyter.agent.run.backend import PydanticAIBackend
from tests.support.agent_world import Bench, agent_parts
from tests.support.providers import Reply, ScriptedProvider, Serve


@pytest.fixture
def bench() -> Bench:
    return Bench(PydanticAIBackend(agent_parts()))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    @asynccontextmanager
    async def serving(*script: Reply) -> AsyncIterator[ScriptedProvider]:
        async with ScriptedProvider(*script) as provider:
            provider.point(monkeypatch)
            yield provider

    return serving
