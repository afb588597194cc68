"""Every provider over its real streaming protocol: what is answered, what fails, what is tried again, and how often."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from pydantic_ai.exceptions import ContentFilterError, ModelAPIError, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from navi_jupyter.agent.providers.catalog import endpoints, provider_of
from navi_jupyter.agent.providers.errors import run_failure
from navi_jupyter.agent.providers.models import POLICY, RetryPolicy, build_model
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.errors import InvalidRequest, RunFailed
from tests.support.providers import KEY, Call, Reply, Serve

MODELS = (
    "openai-chat:gpt-6-luna",
    "openai-responses:gpt-6-luna",
    "anthropic:claude-haiku-5-5",
    "google:gemini-3.8-flash",
    "ollama:qwen3:8b",
    "lab:some-model",
)
FAST = RetryPolicy(first_wait=0.01)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


HELLO = [ModelRequest(parts=[UserPromptPart(content="hello")])]


async def said(model: Model, **settings: Any) -> ModelResponse:
    """One streamed request."""
    async with model, model.request_stream(list(HELLO), ModelSettings(**settings), ModelRequestParameters()) as stream:
        async for _ in stream:
            pass
        return stream.get()


async def answer(name: str, policy: RetryPolicy = FAST, **settings: Any) -> str:
    response = await said(await build_model(name, policy=policy), **settings)
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


async def failure(name: str, policy: RetryPolicy = FAST, **settings: Any) -> RunFailed:
    with pytest.raises(ModelAPIError) as caught:
        await answer(name, policy, **settings)
    return run_failure(caught.value, name)


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_text_and_usage_come_over_every_protocol(serve: Serve, model: str) -> None:
    async with serve(Reply("Hello ", "there.", usage=(120, 34))) as provider:
        response = await said(await build_model(model))
    assert "".join(part.content for part in response.parts if isinstance(part, TextPart)) == "Hello there."
    assert (response.usage.input_tokens, response.usage.output_tokens) == (120, 34)
    assert len(provider.requests) == 1


async def test_tool_calls_come_over_every_protocol(serve: Serve, model: str) -> None:
    async with serve(Reply(calls=(Call("look", {"at": "df"}),))):
        response = await said(await build_model(model))
    (call,) = [part for part in response.parts if isinstance(part, ToolCallPart)]
    assert (call.tool_name, call.args_as_dict()) == ("look", {"at": "df"})


async def test_every_provider_is_given_its_key(serve: Serve, model: str) -> None:
    async with serve() as provider:
        await answer(model)
    sent = json.dumps(provider.requests[0].headers)
    assert (KEY in sent) == (not model.startswith("ollama")), "ollama needs none, and is given nobody else's"


async def test_a_key_is_read_from_a_mounted_file_at_each_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    secret = tmp_path / "openai"
    async with serve() as provider:
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.delenv("OPENAI_BASE_URL")
        assert "OPENAI_API_KEY" in str(provider_of("openai-chat:x").missing())
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY_FILE", str(secret))
        for value in ("sk-first-key-0001", "sk-second-key-0002"):
            secret.write_text(value + "\n")
            assert provider_of("openai-chat:x").missing() is None
            await answer("openai-chat:x")
    sent = [request.headers["Authorization"] for request in provider.requests]
    assert sent == ["Bearer sk-first-key-0001", "Bearer sk-second-key-0002"]


async def test_an_endpoint_of_ones_own_is_named_in_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as provider:
        monkeypatch.setenv("NAVI_ENDPOINT_MY_LAB_URL", f"{provider.url}/v1")
        monkeypatch.setenv("NAVI_ENDPOINT_MY_LAB_API", "responses")
        monkeypatch.setenv("NAVI_ENDPOINT_MY_LAB_WINDOW", "9000")
        assert await answer("my-lab:some/model:8b") == "Hello."
        assert provider.requests[0].path == "responses"
        assert provider.requests[0].body["model"] == "some/model:8b"
        assert KEY not in json.dumps(provider.requests[0].headers), "OpenAI's key is not sent there"
        assert (await build_model("my-lab:x")).context_window == 9000


def test_what_is_no_endpoint_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "NAVI_ENDPOINT_A_URL": "ftp://x/v1",
        "NAVI_ENDPOINT_B_URL": "",
        "NAVI_ENDPOINT_OPENAI_CHAT_URL": "http://x/v1",
        "NAVI_ENDPOINT_OFFLINE_URL": "http://x/v1",
        "NAVI_ENDPOINT__URL": "http://x/v1",
        "NAVI_ENDPOINT_GOOD_1_URL": "http://x/v1",
    }
    assert list(endpoints(environ)) == ["good-1"]
    with pytest.raises(InvalidRequest, match="NAVI_ENDPOINT_<NAME>_URL"):
        provider_of("nobody:x")


# --- failures --------------------------------------------------------------------------------------------------------


def refusal(model: str, kind: str) -> Reply:
    """How the provider of ``model`` says it."""
    google = model.startswith("google")
    anthropic = model.startswith("anthropic")
    match kind:
        case "auth":
            return Reply(status=401, error={"message": f"Bad key {KEY}", "type": "authentication_error"})
        case "forbidden":
            return Reply(status=403, error={"message": "no", "type": "permission_error"})
        case "unknown":
            return Reply(status=404, error={"message": "no such model", "type": "not_found_error"})
        case "quota" if google:
            day = {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
            }
            return Reply(status=429, error={"message": "quota", "details": [day]})
        case "quota" if anthropic:
            return Reply(status=402, error={"message": "pay", "type": "billing_error"})
        case "quota":
            return Reply(status=429, error={"message": "pay", "code": "insufficient_quota"})
        case "long" if google:
            text = "The input token count (9) exceeds the maximum number of tokens allowed (8)."
            return Reply(status=400, error={"message": text})
        case "long" if anthropic:
            return Reply(status=400, error={"message": "prompt is too long: 9 > 8", "type": "invalid_request_error"})
        case "long":
            return Reply(status=400, error={"message": "too long", "code": "context_length_exceeded"})
        case "wrong":
            return Reply(status=400, error={"message": "temperature too high", "type": "invalid_request_error"})
        case "patience":
            return Reply(status=429, error={"message": "slow"}, headers={"retry-after": "90"})
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("auth", "provider_auth"),
        ("forbidden", "provider_auth"),
        ("unknown", "model_unavailable"),
        ("quota", "provider_quota"),
        ("long", "context_too_long"),
        ("wrong", "provider_error"),
        ("patience", "provider_rate_limited"),
    ],
)
async def test_what_cannot_be_helped_is_asked_once_and_told_with_its_code(
    serve: Serve, model: str, kind: str, code: str
) -> None:
    async with serve(refusal(model, kind)) as provider:
        told = await failure(model)
    assert told.run_code == code
    assert len(provider.requests) == 1
    assert KEY not in told.message
    assert model in told.message


async def test_a_long_wait_that_the_provider_asks_for_is_reported(serve: Serve, model: str) -> None:
    async with serve(refusal(model, "patience")):
        assert "Try again in 90 s" in (await failure(model)).message


async def test_a_refusal_to_answer_has_a_code_of_its_own(serve: Serve) -> None:
    error = {"message": "The response was filtered", "code": "content_filter", "type": "invalid_request_error"}
    async with serve(Reply(status=400, error=error)):
        assert (await failure(MODELS[0])).run_code == "content_refused"


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (MODELS[0], {"message": "busy", "type": "server_error", "code": "server_is_overloaded"}),
        (MODELS[1], {"message": "busy", "code": "server_is_overloaded"}),
        (MODELS[2], {"message": "Overloaded", "type": "overloaded_error"}),
        (MODELS[3], {"message": "The model is overloaded.", "code": 503, "status": "UNAVAILABLE"}),
    ],
)
async def test_an_error_in_the_middle_of_the_stream_is_reported_with_its_code_and_not_tried_again(
    serve: Serve, model: str, error: dict[str, Any]
) -> None:
    async with serve(Reply("Half", gives_up=error)) as provider:
        assert (await failure(model)).run_code == "provider_overloaded"
    assert len(provider.requests) == 1


def test_what_was_filtered_or_could_not_be_used_is_reported_plainly() -> None:
    assert run_failure(ContentFilterError("filtered"), "m").run_code == "content_refused"
    useless = run_failure(UnexpectedModelBehavior("no output"), "m")
    assert (useless.run_code, "could not be used" in useless.message) == ("provider_error", True)


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_what_may_pass_is_tried_again(serve: Serve, model: str, status: int) -> None:
    async with serve(Reply(status=status), Reply("Here.")) as provider:
        assert await answer(model) == "Here."
    assert len(provider.requests) == 2


async def test_a_connection_that_breaks_before_the_first_byte_is_tried_again(serve: Serve, model: str) -> None:
    async with serve(Reply(cut_first=True), Reply("Here.")) as provider:
        assert await answer(model) == "Here."
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=500), "provider_error"),
        (Reply(status=529, error={"message": "Overloaded", "type": "overloaded_error"}), "provider_overloaded"),
        (Reply(status=429), "provider_rate_limited"),
        (Reply(cut_first=True), "provider_network"),
    ],
    ids=["failing", "overloaded", "limited", "cut"],
)
async def test_it_is_tried_as_often_as_the_policy_allows_and_not_more(
    serve: Serve, model: str, reply: Reply, code: str
) -> None:
    async with serve(reply) as provider:
        assert (await failure(model)).run_code == code
    assert len(provider.requests) == FAST.tries


async def test_the_wait_that_the_provider_asks_for_is_kept(serve: Serve, model: str) -> None:
    patient = RetryPolicy(first_wait=0.001)
    async with serve(Reply(status=429, headers={"retry-after": "1"}), Reply("Here.")) as provider:
        began = time.monotonic()
        assert await answer(model, patient) == "Here."
    assert time.monotonic() - began >= 1
    assert len(provider.requests) == 2


async def test_google_names_how_long_to_wait_in_its_body(serve: Serve) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "77s"}
    async with serve(Reply(status=429, error={"message": "slow", "details": [info]})) as provider:
        assert "in 77 s" in (await failure("google:gemini-3.8-flash")).message
    assert len(provider.requests) == 1


async def test_nothing_is_tried_again_after_the_first_byte(serve: Serve, model: str) -> None:
    async with serve(Reply("Half an ", "answer", cut=True)) as provider:
        assert (await failure(model)).run_code == "provider_network"
    assert len(provider.requests) == 1


async def test_a_chunk_that_is_no_json_is_the_providers_error(serve: Serve, model: str) -> None:
    async with serve(Reply("Half", malformed=True)) as provider:
        told = await failure_of_any_kind(model)
    assert told.run_code == "provider_error"
    assert len(provider.requests) == 1


async def failure_of_any_kind(name: str) -> RunFailed:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the kind is what the assertion after it is about
        await answer(name)
    return run_failure(caught.value, name)


async def test_a_silent_provider_is_given_up_and_not_asked_again(serve: Serve, model: str) -> None:
    async with serve(Reply(hold_first=True)) as provider:
        told = await failure(model, timeout=0.3)
    assert told.run_code == "provider_network"
    assert "in time" in told.message
    assert len(provider.requests) == 1


async def test_a_wait_between_tries_ends_at_once_when_it_is_cancelled(serve: Serve, model: str) -> None:
    async with serve(Reply(status=429, headers={"retry-after": "25"})) as provider:
        task = asyncio.create_task(answer(model))
        await (await provider.request()).answered.wait()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert time.monotonic() - began < 1
    assert len(provider.requests) == 1


async def test_all_tries_together_keep_the_deadline(serve: Serve, model: str) -> None:
    from pydantic_ai import Agent

    async with serve(Reply(status=503)):
        began = time.monotonic()
        agent = Agent(await build_model(model, policy=RetryPolicy(first_wait=5.0)))
        with pytest.raises(ModelAPIError) as caught:
            async with agent.run_stream("hi", model_settings=ModelSettings(request_timeout=0.5)) as run:
                await run.get_output()
    assert time.monotonic() - began < 3
    assert run_failure(caught.value, model).run_code == "provider_network"


def test_waits_grow_are_spread_and_are_bounded() -> None:
    error = ModelHTTPError.for_category(None, status_code=408, model_name="m", body=None)
    waits = [POLICY.wait(error, tried, jitter=1.0) for tried in (1, 2, 3, 4)]
    assert waits == [0.5, 1.0, 2.0, None]
    assert POLICY.wait(error, 1, jitter=0.0) == 0.25
    assert RetryPolicy(tries=100).wait(error, 50, jitter=1.0) == POLICY.longest_wait


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1", "no server answers"),
        ("http://no-such-host.invalid/v1", "name of the provider's server is not known"),
    ],
)
async def test_a_network_failure_names_what_failed(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_URL", url)
    told = await failure("lab:x")
    assert told.run_code == "provider_network"
    assert says in told.message


async def test_a_server_that_speaks_no_tls_is_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_URL", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    assert "secure connection" in (await failure("lab:x")).message
    server.close()


# --- what there is ---------------------------------------------------------------------------------------------------


async def test_models_of_a_reachable_server_are_listed_and_asked_for_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as provider:
        monkeypatch.delenv("OPENAI_BASE_URL")
        backends = AgentRouter()
        listed = {one["name"]: one for one in await backends.list_models()}
        assert listed["ollama:qwen3:8b"]["usable"]
        assert listed["lab:llama4"]["usable"]
        assert listed["lab:llama4"]["provider"] == "lab (127.0.0.1)"
        await backends.list_models()
    asked = [headers.get("Authorization") for headers in provider.listed]
    assert sorted(map(str, asked)) == sorted(["None", f"Bearer {KEY}"]) or len(asked) == 1


async def test_a_server_that_lists_nothing_can_be_used_all_the_same(serve: Serve) -> None:
    async with serve() as provider:
        provider.models = None
        listed = {one["name"]: one for one in await AgentRouter().list_models("lab:mine")}
    assert listed["lab:mine"]["usable"]


async def test_a_server_that_does_not_answer_is_marked_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_MODELS", "a, b")
    began = time.monotonic()
    listed = {one["name"]: one for one in await AgentRouter().list_models()}
    assert time.monotonic() - began < 2
    assert not listed["lab:a"]["usable"]
    assert "does not answer" in listed["lab:b"]["reason"]
    silent.close()


def test_describing_the_models_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("NAVI_ENDPOINT_LAB_MODELS", "a")
    assert {one["name"] for one in AgentRouter().describe()} >= {"lab:a", "offline"}


# --- a conversation is valid everywhere ------------------------------------------------------------------------------


async def test_a_conversation_with_a_tool_goes_over_every_protocol(serve: Serve, model: str) -> None:
    messages = [
        *HELLO,
        ModelResponse(parts=[ToolCallPart(tool_name="look", args={"at": "df"}, tool_call_id="call_1")]),
        ModelRequest(parts=[ToolReturnPart(tool_name="look", content="3 rows", tool_call_id="call_1")]),
    ]
    async with serve(Reply("Three.")) as provider:
        built = await build_model(model)
        async with built, built.request_stream(messages, None, ModelRequestParameters()) as stream:
            async for _ in stream:
                pass
    assert "3 rows" in json.dumps(provider.requests[0].body)
