"""Errors of model providers as ``RunFailed``: a stable code, and a message without secrets.

Imports pydantic_ai: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    IncompleteToolCall,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    OutputTokenLimitExceeded,
    UnexpectedModelBehavior,
    UserError,
)

from ...errors import RunFailed
from ...redaction import redact

_LONGEST = 500
# In the code or type of a provider's refusal to deal with what was asked.
_CONTENT_REFUSALS = ("content_filter", "content_policy", "safety", "blocked", "responsible_ai", "moderation")
# By class of error: the run's code, what happened and what to do. The first rule that fits counts, so a class stands
# before its bases.
_RULES: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], str, str]] = (
    (ContentFilterError, "content_refused", "the provider refused to answer this. Write it in another way."),
    (
        ModelAuthenticationError,
        "provider_auth",
        "the provider refused the key. Check it in the settings of the chat, or in the server's environment.",
    ),
    (
        ModelQuotaExceededError,
        "provider_quota",
        "the account's quota or credit is used up. Add credit at the provider, or switch to another model.",
    ),
    (ModelRateLimitError, "provider_rate_limited", "the provider asks for fewer requests. Try again {when}."),
    (
        ModelContextWindowExceededError,
        "context_too_long",
        "the conversation is too long for this model. Start a new session, or use a model that reads more.",
    ),
    (
        ModelNotFoundError,
        "model_unavailable",
        "the provider does not know this model. Choose another one in the session's settings.",
    ),
    ((ModelTimeoutError, ModelRequestTimeout), "provider_network", "the provider did not answer in time. Try again."),
    (ModelConnectionError, "provider_network", "{problem}. Check the address and the network, then try again."),
    (ModelUnavailableError, "provider_overloaded", "the provider is overloaded. Try again {when}."),
    (ModelServerError, "provider_error", "the provider has a problem of its own. Try again in a moment."),
    (
        (OutputTokenLimitExceeded, IncompleteToolCall),
        "answer_cut",
        "the model reached the most that it writes at once before its answer was of use. Ask for less, or for a part.",
    ),
    (ModelAPIError, "provider_error", "the provider answered with an error."),
    (
        UnexpectedModelBehavior,
        "provider_error",
        "the model's answer could not be used. Try again, or switch to another model.",
    ),
    ((UserError, ImportError), "model_unavailable", "this model cannot be used here."),
    (AgentRunError, "provider_error", "the provider answered with an error."),
    (Exception, "provider_error", ""),
)


def run_failure(error: Exception, model: str) -> RunFailed:
    """The failure of a run, with a stable code, and a message that says what happened and what to do."""
    # The provider's own code comes first: a refusal of the content has the class of any bad request.
    kind = ContentFilterError if isinstance(error, ModelAPIError) and _refuses_content(error) else type(error)
    code, advice = next((code, advice) for classes, code, advice in _RULES if issubclass(kind, classes))
    when, problem = _in_time(getattr(error, "retry_after", None)), _connection_problem(error)
    sentence = f"{model}: {advice.format(when=when, problem=problem)}" if advice else f"{model} failed."
    # Redacted before it is cut, or a piece of a secret could be left at the end.
    return RunFailed(redact(f"{sentence} {_detail(error)}".strip())[:_LONGEST], run_code=code)


def _refuses_content(error: ModelAPIError) -> bool:
    """Whether the provider's own code is about the content of the request, and not its form."""
    code = f"{error.provider_error_code or ''} {error.provider_error_type or ''}".lower()
    return any(word in code for word in _CONTENT_REFUSALS)


def _in_time(wait: float | None) -> str:
    """When to try again, where the provider names a time."""
    if not wait:
        return "in a moment"
    return f"in {wait:.0f} s" if wait < 120 else f"in {wait / 60:.0f} min"


def _connection_problem(error: Exception) -> str:
    """What happened to the connection, as far as the causes of its error show."""
    # By their texts, too: HTTP libraries wrap the system's errors, some without a cause.
    for cause in _causes(error):
        text = str(cause).lower()
        if isinstance(cause, ssl.SSLError) or "certificate" in text or "[ssl" in text:
            return "a secure connection to the provider could not be made"
        if isinstance(cause, socket.gaierror) or "name or service" in text or "name resolution" in text:
            return "the name of the provider's server is not known here"
        if isinstance(cause, ConnectionRefusedError) or "refused" in text or "all connection attempts" in text:
            return "no server answers at the provider's address"
    return "the connection to the provider failed or was lost"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes; twelve suffice, and a circle of causes ends."""
    current: BaseException | None = error
    for _ in range(12):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _detail(error: Exception) -> str:
    """The provider's own message, shortened."""
    if isinstance(error, ModelConnectionError | ModelRequestTimeout):
        return ""
    if isinstance(error, ModelAPIError):
        message = _message_in(error.body)
        status = f"HTTP {error.status_code}" if isinstance(error, ModelHTTPError) else ""
        return f"({status}{': ' if status and message else ''}{message})" if status or message else f"({error.message})"
    return f"({type(error).__name__}: {' '.join(str(error).split())})"


def _message_in(body: object) -> str:
    """The message in a provider's error body: ``{"error":{"message"}}``, ``{"message"}``, or (Google) in a list."""
    while isinstance(body, dict | list) and body:
        body = body[0] if isinstance(body, list) else body.get("message") or body.get("error")
    return redact(" ".join(body.split()))[:300] if isinstance(body, str) else ""
