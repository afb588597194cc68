"""Models, built from their names, and the retries of requests to a provider.

A request that failed before the first byte of its answer is tried again when that can help: a rate limit that asks for
a short wait, an overloaded or failing provider, a connection that could not be made. After the first byte nothing is
tried again: the user has read it. The run's deadline (``request_timeout`` in the settings) bounds all tries together.

Imports pydantic_ai: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UserError,
)
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, infer_model
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers import Provider as ModelProvider
from pydantic_ai.providers import infer_provider, infer_provider_class
from pydantic_ai.settings import ModelSettings

from ...errors import RunFailed
from ...log_setup import get_logger
from .catalog import PROVIDERS, Endpoint, endpoints, first_key, key, provider_of
from .encoded_messages import EncodingModel, has_hook
from .errors import run_failure
from .http_clients import with_client
from .sse_coalescing import with_coalesced_streams
from .stored_settings import STORED

log = get_logger("agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a request is tried, and how long to wait between two tries."""

    tries: int = 4  # all in all; two where each takes a time-out
    first_wait: float = 0.5  # seconds before the second try, when the provider names none; then twice as long each time
    longest_wait: float = 8.0  # seconds, where the provider names none
    # Seconds; when a provider asks for a longer wait, the run fails and its error names the time.
    longest_asked: float = 30.0

    def wait(self, error: ModelAPIError, tried: int, *, jitter: float) -> float | None:
        """Seconds until the next try after ``tried`` ones; None when there is to be none.

        ``jitter`` (0 to 1) spreads the tries of many clients over half of the wait.
        """
        tries = min(2, self.tries) if isinstance(error, ModelTimeoutError) else self.tries
        if tried >= tries or not worth_retrying(error):
            return None
        if (asked := error.retry_after) is not None:
            return asked if asked <= self.longest_asked else None
        backoff = min(self.longest_wait, self.first_wait * 2.0 ** (tried - 1))
        return backoff * (0.5 + jitter / 2)


POLICY = RetryPolicy()


def worth_retrying(error: ModelAPIError) -> bool:
    """Whether the same request may succeed a moment later, and the provider has not begun to answer it."""
    if isinstance(error, ModelHTTPError) and error.provider_retry_hint is False:
        return False
    if isinstance(error, ModelTimeoutError):
        # In any other phase the provider has the request and may be at work on it: a second one would cost, too.
        return error.phase in ("connect", "pool")
    if isinstance(error, ModelConnectionError):
        return True
    if isinstance(error, ModelHTTPError) and error.status_code in (408, 409):
        return True
    return isinstance(error, ModelRateLimitError | ModelUnavailableError | ModelServerError)


class RetryingModel(WrapperModel):
    """A model whose requests are tried again by a policy."""

    def __init__(self, wrapped: Model, policy: RetryPolicy = POLICY) -> None:
        super().__init__(wrapped)
        self._policy = policy

    # ``request`` is not overridden: runs and summaries are streamed, always.

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """See ``Model.request_stream``. It is open once the first chunk is there: only until then it is tried again."""
        settings = self._without_retries(model_settings)
        async with AsyncExitStack() as stack:
            yield await self._with_retries(
                lambda: stack.enter_async_context(
                    self.wrapped.request_stream(messages, settings, model_request_parameters, run_context)
                )
            )

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        """See ``Model.__aexit__``. What is left of the model is freed at once, not by a full collection."""
        try:
            return await super().__aexit__(exc_type, exc_val, exc_tb)
        finally:
            _forget_resources(getattr(self.provider, "client", None))

    def _without_retries(self, settings: ModelSettings | None) -> ModelSettings:
        """The settings, with the retries of the provider's package off: three times three would be nine requests."""
        changed = ModelSettings() if settings is None else settings.copy()
        client = getattr(self.provider, "client", None)
        if "max_retries" not in self.wrapped.unsupported_settings and getattr(client, "max_retries", None) != 0:
            changed["max_retries"] = 0  # has pydantic-ai make a copy of the client for each request
        return changed

    async def _with_retries(self, attempt: Callable[[], Awaitable[StreamedResponse]]) -> StreamedResponse:
        tried = 0
        while True:
            try:
                return await attempt()
            except ModelAPIError as error:
                tried += 1
                wait = self._policy.wait(error, tried, jitter=random.random())  # noqa: S311
                if wait is None:
                    raise
                log.info(
                    "provider_retried",
                    model=self.model_name,
                    error=type(error).__name__,
                    status=error.status_code if isinstance(error, ModelHTTPError) else None,
                    tried=tried,
                    wait=round(wait, 3),
                )
            await asyncio.sleep(wait)


async def build_model(name: str, *, policy: RetryPolicy = POLICY) -> Model:
    """The model of a string ``provider:model``, with the keys as they are now. Raises RunFailed ``model_unavailable``.

    Built in a thread: a provider's package may take a second to import. Enter it (``async with``) so that its
    connections close with the run.
    """
    began = time.monotonic()
    try:
        built = with_known_schemas(with_coalesced_streams(await asyncio.to_thread(_build, name)))
        _turn_retries_off(getattr(built.provider, "client", None))
        model = EncodingModel(built) if has_hook(built) and _is_encoded(built) else built
    except Exception as error:
        # Providers raise their own kinds for a missing key or endpoint; all of them mean the same to the user.
        raise RunFailed(run_failure(error, name).message, run_code="model_unavailable") from error
    if (took := time.monotonic() - began) > 1.0:
        log.info("model_built", model=name, seconds=round(took, 2))
    return RetryingModel(model, policy)


def _turn_retries_off(client: object) -> None:
    if type(client).__module__.partition(".")[0] in _OUR_CLIENTS and isinstance(
        getattr(client, "max_retries", None), int
    ):
        vars(client)["max_retries"] = 0


def _forget_resources(client: object) -> None:
    """Have a client that is closed forget what it has made of itself: each has methods of the client, a cycle."""
    for name in list(getattr(client, "__dict__", ())):
        if isinstance(getattr(type(client), name, None), cached_property):
            delattr(client, name)


def prepare(name: str) -> None:
    """Import what this model needs, by building it. What is wrong with it is found out by the run that wants it."""
    with suppress(Exception):
        _build(name)


def _is_encoded(model: Model) -> bool:
    """Whether past messages are encoded ahead: for the protocols of which tests hold that the same is sent."""
    return any(one.__name__ in ("OpenAIChatModel", "AnthropicModel") for one in type(model).__mro__)


_SCHEMAS = 64  # lists of tools whose transformed schemas are kept
# By the kind of model and the tools' definitions, which are the same objects from run to run (``AgentToolset``): these,
# so that none of them can be another with the same id, and what came of them.
_schemas: OrderedDict[tuple[object, ...], tuple[Sequence[ToolDefinition], Sequence[ToolDefinition]]] = OrderedDict()


def with_known_schemas(model: Model) -> Model:
    """The model, which transforms the schemas of the same tools once: the work of each request, 10 to 20 ms.

    The hook is pydantic-ai's own, for subclasses; here it is one of the object, whatever its class.
    """
    transform, itself = type(model).customize_request_parameters, weakref.ref(model)  # the model has the function
    kind = (type(model), model.model_id, model.profile.get("json_schema_transformer"))

    def transformed(parameters: ModelRequestParameters) -> ModelRequestParameters:
        this: Any = itself()
        if parameters.output_tools or parameters.output_object or parameters.native_tools:
            return transform(this, parameters)  # what comes of these may depend on more than the tools
        place = (*kind, *map(id, parameters.function_tools))
        if (known := _schemas.get(place)) is None:
            found = transform(this, parameters)
            known = _schemas[place] = (tuple(parameters.function_tools), tuple(found.function_tools))
            while len(_schemas) > _SCHEMAS:
                _schemas.popitem(last=False)
        _schemas.move_to_end(place)
        return replace(parameters, function_tools=list(known[1]))

    model.customize_request_parameters = transformed  # type: ignore[method-assign,assignment]
    return model


def _build(name: str) -> Model:
    provider_of(name)  # raises a clear error for a string that is no model
    prefix, _, model = name.partition(":")
    if (own := endpoints().get(prefix)) is not None:
        return _endpoint_model(own, model)
    return infer_model(name, provider_factory=_provider)


def _endpoint_model(endpoint: Endpoint, model: str) -> Model:
    """A model of an endpoint. OpenAI's key is never sent there."""
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # 0.4 s: only where it is used
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    provider = with_client(
        lambda client: OpenAICompatibleProvider(
            endpoint.name,
            base_url=endpoint.url,
            api_key=key(endpoint.key_name),
            http_client=client,
            profile=None if endpoint.window is None else ModelProfile(context_window=endpoint.window),
        )
    )
    kind = OpenAIResponsesModel if endpoint.api == "responses" else OpenAIChatModel
    return kind(model, provider=provider)


def _provider(prefix: str) -> ModelProvider[Any]:
    """A provider with our key, which may be from a mounted file; without one, as pydantic-ai itself makes it."""
    names = PROVIDERS[prefix].keys
    secret = first_key(tuple(one for one in names if one.endswith(("_KEY", "_TOKEN"))) or _optional_key(prefix))
    given = {} if secret is None else {"api_key": secret}
    address = PROVIDERS[prefix].base_url
    if address is not None and (stored := STORED.values().get(address)) and not os.environ.get(address):
        given["base_url"] = stored  # one in the environment is read by pydantic-ai itself
    if PROVIDERS[prefix].module in _OUR_CLIENTS:
        kind: Any = infer_provider_class(prefix)
        return with_client(lambda client: kind(http_client=client, **given))
    if not given:
        return infer_provider(prefix)
    return infer_provider_class(prefix)(**given)  # those with a key take one


# The packages whose providers take an HTTP client of the kind that ours are.
_OUR_CLIENTS = ("openai", "anthropic")


def _optional_key(prefix: str) -> tuple[str, ...]:
    """The variable with the key that a server of the user's own may need."""
    return (f"{prefix.upper()}_API_KEY",) if prefix in ("ollama", "vllm", "litellm") else ()


_TEST_TIMEOUT = 30.0  # seconds
_TEST_TOKENS = 200  # that the answer may take: a reasoning model uses some before its first word


async def try_model(name: str) -> None:
    """Have the model answer a short request. Raises RunFailed with what to do."""
    model = await build_model(name, policy=RetryPolicy(tries=1))
    settings = ModelSettings(max_tokens=_TEST_TOKENS, timeout=_TEST_TIMEOUT, request_timeout=_TEST_TIMEOUT)
    request = ModelRequest.user_text_prompt("Answer with the word OK.")
    try:
        async with model, model_request_stream(model, [request], model_settings=settings) as stream:
            async for _ in stream:
                return  # it answers: more of it would only cost
    except (AgentRunError, UserError) as error:
        raise run_failure(error, name) from error
