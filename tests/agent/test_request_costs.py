"""What is made once for all runs: the TLS context of connections to providers, and the schemas of tools."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import certifi
import httpcore2
import pytest
from pydantic_ai import ToolDefinition
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

from navi_jupyter.agent.providers import encoded_messages, http_clients, models
from navi_jupyter.agent.providers.models import build_model
from navi_jupyter.agent.router import AgentRouter
from tests.support.agent_world import Bench
from tests.support.providers import Call, Reply, ScriptedProvider


async def test_runs_share_a_tls_context_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each has its own client, closed at its end; another certificate on the machine takes effect in the next run."""
    made: list[object] = []
    make = httpcore2.default_ssl_context

    def counted(**how: bool) -> object:
        made.append(context := make(**how))
        return context

    monkeypatch.setattr(httpcore2, "default_ssl_context", counted)
    monkeypatch.setattr(http_clients, "_contexts", {})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    clients = []
    for name in ("openai-chat:gpt-6-luna", "openai:gpt-6-luna", "anthropic:claude-opus-5-5"):
        model = await build_model(name)
        async with model:
            clients.append(client := model.provider._own_http_client)  # type: ignore[union-attr]
            assert not client.is_closed  # type: ignore[union-attr]
        assert client.is_closed  # type: ignore[union-attr]
    assert len(made) == 1
    assert len({id(client) for client in clients}) == len({id(client.cookies) for client in clients}) == 3  # type: ignore[union-attr]
    own = tmp_path / "own.pem"
    own.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    await build_model("openai:gpt-6-luna")
    assert len(made) == 2


async def test_the_schemas_of_the_same_tools_are_transformed_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every request has them as the first one had."""
    walked: list[object] = []
    walk = OpenAIJsonSchemaTransformer.walk

    def counted(transformer: OpenAIJsonSchemaTransformer) -> object:
        walked.append(transformer)
        return walk(transformer)

    monkeypatch.setattr(OpenAIJsonSchemaTransformer, "walk", counted)
    async with ScriptedProvider(Reply("Hello.")) as provider:
        provider.point(monkeypatch)
        bench = Bench(AgentRouter())
        await bench.run("Hi", model="openai-chat:gpt-6-luna")
        first, walked[:] = len(walked), []
        await bench.run("Hi", model="openai-chat:gpt-6-luna")
    assert first <= len(provider.requests[0].body["tools"])
    assert len(walked) <= 1, "one tool stands for all"
    assert provider.requests[0].body["tools"] == provider.requests[1].body["tools"]


async def test_the_packages_walk_the_tools_of_the_first_request_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In later ones one tool stands for all; the answer's calls are made, and a body of another form is not touched."""
    mapped: list[str] = []
    usual = OpenAIChatModel._map_tool_definition

    def counted(model: OpenAIChatModel, tool: ToolDefinition, settings: Any) -> Any:
        mapped.append(tool.name)
        return usual(model, tool, settings)

    monkeypatch.setattr(OpenAIChatModel, "_map_tool_definition", counted)
    script = [Reply("I look.", calls=(Call("list_recalls", {}, "now_1"),)), Reply("Noon."), Reply("Yes.")]
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        bench = Bench(AgentRouter())
        outcome = await bench.run("What is planned?", model="openai-chat:gpt-6-luna")
        assert (outcome.tools, outcome.text) == (["list_recalls"], "I look.Noon.")
        tools = provider.requests[0].body["tools"]
        assert mapped == [*(tool["function"]["name"] for tool in tools), encoded_messages._TOOLS]
        monkeypatch.setattr(encoded_messages._KnownTools, "of", lambda *_: None)
        await bench.run("Again?", model="openai-chat:gpt-6-luna")
    assert [request.body["tools"] for request in provider.requests] == [tools] * 3


@pytest.mark.parametrize("name", ["openai-chat:gpt-6-luna", "openai-responses:gpt-6-luna", "anthropic:claude-opus-5-5"])
async def test_the_model_and_the_client_of_a_run_are_freed_with_it_and_not_by_a_collection(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And no request makes a copy of the client, which would be one more cycle."""
    made: list[weakref.ref[object]] = []
    build = models._build

    def noted(wanted: str) -> Any:
        model: Any = build(wanted)
        made.extend(map(weakref.ref, (model, model.provider, model.provider.client, model.provider._own_http_client)))
        return model

    async with ScriptedProvider(
        Reply("I look.", calls=(Call("list_recalls", {}, "now_1"),)), Reply("Yes.")
    ) as provider:
        provider.point(monkeypatch)
        bench = Bench(AgentRouter())
        await bench.run("What is planned?", model=name)  # imports
        monkeypatch.setattr(models, "_build", noted)
        monkeypatch.setattr("openai.AsyncOpenAI.copy", None)
        monkeypatch.setattr("openai.AsyncOpenAI.with_options", None)
        monkeypatch.setattr("anthropic.AsyncAnthropic.copy", None)
        monkeypatch.setattr("anthropic.AsyncAnthropic.with_options", None)
        gc.collect()
        gc.disable()
        try:
            await bench.run("What is planned?", model=name)
            async with asyncio.timeout(20):
                while any(one() for one in made):  # noqa: ASYNC110 - what closes a connection has its last turns
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
    assert len(made) == 4
