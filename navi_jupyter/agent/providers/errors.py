"""What can go wrong with a provider -> ``RunFailed`` with a stable code and a sentence that holds no secret.

Imports pydantic_ai: only modules that :mod:`.driver` loads may import this one (it is loaded at the first run).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
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
from .keys import redact

_LONGEST = 500
_REFUSED = ("content_filter", "content_policy", "safety", "blocked", "responsible_ai", "moderation")
"""In the code or type of a provider's refusal to deal with what was asked."""


def failed(error: Exception, model: str) -> RunFailed:
    """The failure as the session's reader gets it."""
    code, advice = _classify(error)
    detail = _detail(error)
    sentence = f"{model}: {advice}" if advice else f"{model} failed."
    # Redacted before it is cut, or a piece of a secret could be left at the end.
    return RunFailed(redact(f"{sentence} {detail}".strip())[:_LONGEST], run_code=code)


def _classify(error: Exception) -> tuple[str, str]:
    match error:
        case ModelAPIError() if _refuses_content(error):
            return "content_refused", "the provider refused to answer this. Say it in another way."
        case ContentFilterError():
            return "content_refused", "the provider refused to answer this. Say it in another way."
        case ModelAuthenticationError():
            return (
                "provider_auth",
                "the provider refused the key. Check it in the Jupyter server's environment.",
            )
        case ModelQuotaExceededError():
            return "provider_quota", "the account's quota or credit is used up."
        case ModelRateLimitError(retry_after=wait):
            return "provider_rate_limited", f"the provider asks for fewer requests. Try again {_later(wait)}."
        case ModelContextWindowExceededError():
            return (
                "context_too_long",
                "the conversation is too long for this model. Start a new session, or use one that reads more.",
            )
        case ModelNotFoundError():
            return (
                "model_unavailable",
                "the provider does not know this model. GET models lists some that it may.",
            )
        case ModelTimeoutError() | ModelRequestTimeout():
            return "provider_network", "the provider did not answer in time. Try again."
        case ModelConnectionError():
            return "provider_network", f"{_broken(error)}. Try again."
        case _:
            return _classify_rest(error)


def _classify_rest(error: Exception) -> tuple[str, str]:
    match error:
        case ModelUnavailableError(retry_after=wait):
            return "provider_overloaded", f"the provider has too much to do. Try again {_later(wait)}."
        case ModelServerError():
            return "provider_error", "the provider has trouble of its own. Try again in a moment."
        case OutputTokenLimitExceeded():
            return "provider_error", "the answer reached the most that the model writes at once. Ask for less."
        case ModelAPIError():
            return "provider_error", "the provider's answer was an error."
        case UnexpectedModelBehavior():
            return "provider_error", "the model's answer could not be used."
        case UserError() | ImportError():
            return "model_unavailable", "this model can not be used here."
        case _:
            return "provider_error", "the provider's answer was an error." if isinstance(error, AgentRunError) else ""


def _refuses_content(error: ModelAPIError) -> bool:
    """Whether the provider's own code says that it is about what was said, not how."""
    said = f"{error.provider_error_code or ''} {error.provider_error_type or ''}".lower()
    return any(word in said for word in _REFUSED)


def _later(wait: float | None) -> str:
    """When to try again, by the provider's word."""
    if not wait:
        return "in a moment"
    return f"in {wait:.0f} s" if wait < 120 else f"in {wait / 60:.0f} min"


def _broken(error: Exception) -> str:
    """What became of the connection, as far as its error says."""
    for cause in _causes(error):
        said = str(cause).lower()
        if isinstance(cause, ssl.SSLError) or "certificate" in said or "[ssl" in said:
            return "a secure connection to the provider could not be made"
        if isinstance(cause, socket.gaierror) or "name or service" in said or "name resolution" in said:
            return "the name of the provider's server is not known here"
        if isinstance(cause, ConnectionRefusedError) or "refused" in said or "all connection attempts" in said:
            return "nobody answers at the provider's address"
    return "the connection to the provider failed or broke off"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It, and what it came from; a few suffice."""
    current: BaseException | None = error
    for _ in range(12):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _detail(error: Exception) -> str:
    """The provider's own words, in short."""
    if isinstance(error, ModelConnectionError | ModelRequestTimeout):
        return ""
    if isinstance(error, ModelAPIError):
        said = _said(error.body)
        status = f"HTTP {error.status_code}" if isinstance(error, ModelHTTPError) else ""
        return f"({status}{': ' if status and said else ''}{said})" if status or said else f"({error.message})"
    return f"({type(error).__name__}: {' '.join(str(error).split())})"


def _said(body: object) -> str:
    """The message in a provider's error body: ``{"error":{"message"}}``, ``{"message"}``, or (Google) in a list."""
    while isinstance(body, dict | list) and body:
        body = body[0] if isinstance(body, list) else body.get("message") or body.get("error")
    return redact(" ".join(body.split()))[:300] if isinstance(body, str) else ""
