"""Where spans are reported: of runs, requests to models, tool calls and firings. Off, nothing is imported for it.

What a span says follows OpenTelemetry's semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/). Not responsible for where spans go (``telemetry``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Literal, Protocol

AttributeValue = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, AttributeValue | None]
"""Those that are None are left out."""
SpanKind = Literal["internal", "client", "producer"]


class TraceSpan(Protocol):
    """Something that takes time, as a collector sees it."""

    @property
    def traceparent(self) -> str | None:
        """What makes another span its child, also in another process; None where there are no spans."""

    def set(self, attributes: Attributes) -> None:
        """Add to what it says. Text is searched for secrets."""

    def fail(self, kind: str) -> None:
        """It did not succeed. ``kind``: a stable word, never a message, which may have content."""


class Tracing(Protocol):
    """Makes spans. Implemented by ``telemetry``."""

    @property
    def on(self) -> bool:
        """Whether there are spans at all."""

    @property
    def content(self) -> bool:
        """Whether spans may say what people, models and tools write. Off unless the administrator switches it on."""

    def span(
        self, name: str, attributes: Attributes, *, kind: SpanKind = "internal"
    ) -> AbstractContextManager[TraceSpan]:
        """A child of the present span, and the present one while it is entered. An exception fails it."""

    async def close(self) -> None:
        """Report what is left, within a few seconds."""

    def first_span(
        self, name: str, attributes: Attributes, *, parent: str | None, kind: SpanKind = "internal"
    ) -> AbstractContextManager[TraceSpan]:
        """A child of the ``traceparent``, else the first of a trace: whatever the present span is."""


class _NoSpan:
    traceparent: str | None = None

    def set(self, attributes: Attributes) -> None: ...

    def fail(self, kind: str) -> None: ...


class NoTracing:
    """Makes no spans."""

    on = False
    content = False

    async def close(self) -> None:
        """There is nothing left."""

    def span(self, *_: object, **__: object) -> AbstractContextManager[TraceSpan]:
        """One that keeps nothing."""
        return _NONE

    first_span = span


_NONE: AbstractContextManager[TraceSpan] = nullcontext(_NoSpan())
NO_TRACING = NoTracing()

tracing: ContextVar[Tracing] = ContextVar("navi_tracing", default=NO_TRACING)
"""Where the run on whose behalf the present task works reports its spans."""
caller_trace: ContextVar[str | None] = ContextVar("navi_caller_trace", default=None)
"""The ``traceparent`` of the request that the present task answers."""
caller_server: ContextVar[str] = ContextVar("navi_caller_server", default="")
"""On a JupyterHub: the name of the user's server through which the present request comes; empty: the usual one."""
