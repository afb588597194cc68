"""What the user says while a run goes on: the model reads it with its next request."""

from __future__ import annotations

import asyncio
import json

import pytest

from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools.base import tool
from navi_jupyter.model.runs import Effect
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench, agent_parts
from tests.support.providers import Call, Reply, Serve

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def talkative() -> tuple[Bench, list[str]]:
    """A bench with a tool during which the user says what is in the list."""
    to_say: list[str] = []

    async def work() -> str:
        """Work."""
        for text in to_say:
            bench.steering.say(text)
        to_say.clear()
        return "worked"

    bench = Bench(PydanticAIBackend(agent_parts(tool(work, Effect.READ))))
    return bench, to_say


async def test_a_steered_prompt_is_in_the_next_request_after_the_tools_results(serve: Serve, model: str) -> None:
    bench, to_say = talkative()
    to_say += ["use euros", "and round"]
    async with serve(Reply(calls=(Call("work", {}),)), Reply("In euros.")) as provider:
        outcome = await bench.run("sum it up", model=model)
    assert len(provider.requests) == 2
    sent = json.dumps([one for one in provider.requests[1].body["messages"] if one["role"] != "system"])
    order = ["sum it up", "worked", "use euros", "and round"]
    assert sorted(order, key=sent.index) == order
    assert not bench.steering.waiting
    assert outcome.text == "In euros."


async def test_a_prompt_that_comes_during_the_last_answer_makes_one_more_request(serve: Serve, model: str) -> None:
    bench, _ = talkative()
    reply = Reply("First.", hold_end=True)
    async with serve(reply, Reply("Second.")) as provider:
        task = asyncio.create_task(bench.run("go", model=model))
        await (await provider.request()).began.wait()
        bench.steering.say("one more thing")
        reply.release.set()
        outcome = await task
    assert len(provider.requests) == 2
    sent = json.dumps(provider.requests[1].body)
    assert sent.index("First.") < sent.index("one more thing")
    assert outcome.text == "First.Second."
    assert outcome.result is not None
    assert outcome.result.conversation.count(b"one more thing") == 1


async def test_one_that_waits_before_the_first_request_is_in_it(serve: Serve, model: str) -> None:
    bench, _ = talkative()
    bench.steering.say("in French")
    async with serve(Reply("Bonjour.")) as provider:
        await bench.run("hello", model=model)
    assert len(provider.requests) == 1
    assert "in French" in json.dumps(provider.requests[0].body)


async def test_one_that_the_limit_of_requests_kept_from_the_model_is_kept_for_the_next_run(serve: Serve) -> None:
    bench, to_say = talkative()
    to_say.append("use euros")
    async with serve(Reply(calls=(Call("work", {}),))) as provider:
        outcome = await bench.run("go", model=MODELS[0], limits=Limits(max_iterations=1, run_timeout=20))
    assert len(provider.requests) == 1
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.conversation.count(b"use euros") == 1


async def test_an_image_that_joins_reaches_the_model_and_one_it_cannot_read_is_named(serve: Serve) -> None:
    bench, _ = talkative()
    image = await bench.attachments.add(b"\x89PNG....", name="plot.png", media_type="image/png", owner="ada")
    bench.steering.say("look at this", image)
    async with serve(Reply("I see.")) as provider:
        await bench.run("hello", model=MODELS[0])
        bench.steering.say("look at this", image)
        await bench.run("hello", model="openai-chat:gpt-3.5-turbo")
    assert "image_url" in json.dumps(provider.requests[0].body)
    blind = json.dumps(provider.requests[1].body)
    assert "image_url" not in blind
    assert "cannot read images" in blind
