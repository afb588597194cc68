"""Spans of requests to models, by OpenTelemetry's semantic conventions for generative AI.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model

from ...ports.tracing import Attributes, TraceSpan, tracing
from ...text import truncate_middle
from ..providers.past_messages import expanded

_MOST_CONTENT = 64 * 1024  # characters of the messages of a request, where spans have content at all


def request_span(model: Model, model_name: str) -> AbstractContextManager[TraceSpan]:
    """The span of one request, which is streamed; none outside of a run. ``model_name``: as the user wrote it."""
    spans = tracing.get()
    name = model_name.partition(":")[2] or model_name
    return spans.span(f"chat {name}", _about(model, name) if spans.on else {}, kind="client")


def _about(model: Model, name: str) -> Attributes:
    address = urlsplit(model.base_url or "")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": model.system,
        "gen_ai.request.model": name,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "text",
        "server.address": address.hostname,
        "server.port": address.port,
    }


def describe_response(span: TraceSpan, response: ModelResponse, messages: Sequence[ModelMessage]) -> None:
    """What the span says of the response; with content (``otel_content``) also what was written."""
    spans = tracing.get()
    if not spans.on:
        return
    used = response.usage
    span.set(
        {
            "gen_ai.response.model": response.model_name,
            "gen_ai.response.id": response.provider_response_id,
            "gen_ai.response.finish_reasons": [response.finish_reason] if response.finish_reason else None,
            "gen_ai.usage.input_tokens": used.input_tokens,
            "gen_ai.usage.output_tokens": used.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": used.cache_read_tokens or None,
            "gen_ai.usage.cache_creation.input_tokens": used.cache_write_tokens or None,
        }
    )
    if spans.content:
        sent = [message for message in expanded(messages) if message is not response]
        span.set({"gen_ai.input.messages": _written(sent), "gen_ai.output.messages": _written([response])})


def _written(messages: Sequence[ModelMessage]) -> str:
    """Messages in the conventions' JSON, without the bytes of images and files."""
    # Late: only a server whose administrator wants content in its spans needs it.
    from pydantic_ai.models.instrumented import InstrumentationSettings

    settings = InstrumentationSettings(include_content=True, include_binary_content=False)
    written: list[Any] = settings.messages_to_otel_messages(list(messages))
    return truncate_middle(json.dumps(written, ensure_ascii=False, default=str), _MOST_CONTENT)
