"""Spans by OpenTelemetry's SDK, exported as the standard variables (``OTEL_…``) say.

Messages of errors are in no span, since they may quote content or a key; nor is anything recorded by itself: every
attribute is set here or by the callers of the port, and text is searched for secrets. pydantic-ai's own instrumentation
is not used: without content it still sends the descriptions and schemas of all tools, and the messages of errors.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ..errors import NaviError, RunFailed
from ..events import Event
from ..installation import DISTRIBUTION, install_command
from ..log_setup import get_logger
from ..ports.agent import AgentLoop, ToolContext, Turn, TurnResult
from ..ports.tracing import NO_TRACING, Attributes, SpanKind, TraceSpan, Tracing, tracing
from ..redaction import remember, scrub

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan

log = get_logger("telemetry")

CLOSE_WITHIN = 3.0  # seconds for what is not exported yet when the server stops
_GROUP = "opentelemetry_traces_exporter"
_PROVIDERS = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "grok": "x_ai",
}
"""Prefixes of model strings that the conventions' ``gen_ai.provider.name`` spells in another way."""


def provider_of(model: str) -> str:
    """The ``gen_ai.provider.name`` of a model string."""
    prefix = model.partition(":")[0]
    return _PROVIDERS.get(prefix, prefix)


def why_missing() -> str | None:
    """The command that installs what spans need; None when it is there. Imports nothing."""
    with suppress(ModuleNotFoundError):
        if find_spec("opentelemetry.sdk") is not None and _exporter() is not None:
            return None
    return install_command(f"{DISTRIBUTION}[otel]")


def settings_of(environ: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """What the standard variables choose, for reports: the exporter and the address. No headers, which have keys."""
    address = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return {
        "exporter": "none" if _is_disabled(environ) else environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp",
        "endpoint": scrub((address or "http://localhost:4318").partition("?")[0]),
    }


def open_tracing(*, content: bool, version: str) -> OpenTelemetryTracing | None:
    """Spans as the environment says; None where it says none, or something is missing (in the log). Takes half a second
    of imports: call it in a thread."""
    if _is_disabled(os.environ):
        return None
    if (command := why_missing()) is not None:
        log.warning("otel_not_available", fix=command)
        return None
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        for header in os.environ.get(name, "").split(","):
            remember(unquote(header.partition("=")[2]))
    try:
        return OpenTelemetryTracing(content=content, version=version)
    except Exception as error:  # noqa: BLE001 - a wrong variable must not keep Navi from starting
        log.warning("otel_not_available", error=scrub(f"{type(error).__name__}: {error}")[:300])
        return None


class OpenTelemetryTracing:
    """Implements :class:`navi_jupyter.ports.tracing.Tracing`. ``close`` once."""

    on = True

    def __init__(self, *, content: bool, version: str) -> None:
        # Late: an extra, of half a second, that only a server with spans needs.
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.content = content
        self._trace = trace
        self._nothing = Context()
        self._propagator = TraceContextTextMapPropagator()
        self._own: TracerProvider | None = None
        provider: Any = trace.get_tracer_provider()
        # One that this process has already (`opentelemetry-instrument jupyter lab`) says where all its spans go.
        if not isinstance(provider, TracerProvider):
            found = _exporter()
            if found is None:
                raise LookupError("there is no exporter")
            named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
                "OTEL_RESOURCE_ATTRIBUTES", ""
            )
            about = {"service.version": version} | ({} if named else {"service.name": "navi-jupyter"})
            # Closed by us: at the exit of the process it would wait for a collector that is away.
            provider = self._own = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(found.load()()))
        self._tracer = provider.get_tracer("navi_jupyter", version)

    def span(self, name: str, attributes: Attributes, *, kind: SpanKind = "internal") -> Any:
        """See the port."""
        return self._entered(name, attributes, kind, None)

    def first_span(self, name: str, attributes: Attributes, *, parent: str | None, kind: SpanKind = "internal") -> Any:
        """See the port."""
        header = {} if parent is None else {"traceparent": parent}
        return self._entered(name, attributes, kind, self._propagator.extract(header, self._nothing))

    @contextmanager
    def _entered(self, name: str, attributes: Attributes, kind: SpanKind, context: Any) -> Iterator[TraceSpan]:
        kinds = self._trace.SpanKind
        with self._tracer.start_as_current_span(
            scrub(name),
            context,
            {"internal": kinds.INTERNAL, "client": kinds.CLIENT, "producer": kinds.PRODUCER}[kind],
            _without_secrets(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as entered:
            span = _Span(entered)
            try:
                yield span
            except (asyncio.CancelledError, GeneratorExit):
                span.set({"navi.cancelled": True})
                raise
            except BaseException as error:
                span.fail(_kind_of(error))
                raise

    async def close(self) -> None:
        """Export what is left, for as long as that may take."""
        provider, self._own = self._own, None
        if provider is None:
            return
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(closed.set)

        # Not one of asyncio's threads: for these the process would wait at its exit, while a collector is away.
        threading.Thread(target=shut_down, name="navi-otel-close", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), CLOSE_WITHIN)


class _Span:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        about = self._span.get_span_context()
        if not about.is_valid:
            return None
        return f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_without_secrets(attributes))

    def fail(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode  # late: as above

        self._span.set_attribute("error.type", scrub(kind))
        self._span.set_status(StatusCode.ERROR)


class TracedLoop:
    """An agent loop whose runs are spans, with those of their requests and calls below. Implements ``AgentLoop``."""

    def __init__(self, loop: AgentLoop, spans: Tracing) -> None:
        self._loop = loop
        self._spans = spans

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """As the loop's. A run that pauses for an answer has one span before it and one after."""
        tracing.set(self._spans)  # of this task, which is the run's own
        session = turn.session
        about: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": provider_of(turn.model),
            "gen_ai.request.model": turn.model.partition(":")[2] or turn.model,
            "gen_ai.agent.name": session.profile,
            "gen_ai.conversation.id": session.id,
            "navi.run.id": turn.run_id,
            "navi.origin": turn.origin.kind.value,
            "navi.recall.id": turn.origin.recall_id,
            "navi.resumed": True if turn.resumed is not None else None,
        }
        with self._spans.first_span(f"invoke_agent {session.profile}", about, parent=turn.traceparent) as span:
            async with aclosing(self._loop.run(turn, context)) as items:  # type: ignore[type-var]
                async for item in items:
                    if isinstance(item, TurnResult):
                        _set_result(span, item)
                    yield item


def _set_result(span: TraceSpan, result: TurnResult) -> None:
    usage = result.usage
    span.set(
        {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "navi.requests": usage.requests,
            "navi.questions": len(result.asks) or None,
        }
    )
    if result.failure is not None:
        span.fail(result.failure.code)


def traced(loop: AgentLoop, spans: Tracing) -> AgentLoop:
    """The loop, with spans where there are any."""
    return TracedLoop(loop, spans) if spans.on else loop


def opened(*, switched_on: bool, content: bool, version: str) -> Tracing:
    """:func:`open_tracing`, or no spans."""
    return (open_tracing(content=content, version=version) if switched_on else None) or NO_TRACING


def _kind_of(error: BaseException) -> str:
    if isinstance(error, RunFailed):
        return error.run_code
    if isinstance(error, NaviError):
        return error.code
    status = getattr(error, "status_code", None)  # of a provider's answer
    return str(status) if isinstance(status, int) else type(error).__qualname__


def _without_secrets(attributes: Attributes) -> dict[str, Any]:
    return {
        name: scrub(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None
    }


def _is_disabled(environ: Mapping[str, str]) -> bool:
    return (
        environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )


def _exporter() -> EntryPoint | None:
    """The exporter that the variables name, among those that are installed."""
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if chosen == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        chosen = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    return next(iter(entry_points(group=_GROUP, name=chosen)), None)
