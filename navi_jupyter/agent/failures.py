"""What can go wrong with a provider -> ``RunFailed`` with a stable code and a sentence that holds no secret.

Imports pydantic_ai: only :mod:`.driver` may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import os
import re

from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UserError,
)

from ..errors import RunFailed

_LONGEST = 500
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_SECRET_FORMS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|AIza|ghp|glpat)[-_]?[A-Za-z0-9_*.-]{8,}"
    r"|\bBearer\s+[^\s\"',;]{6,}|(?<=[?&])(?:api[-_]?key|key|token)=[^\s&\"']+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """``text`` without the values of this process's secrets and without what looks like one."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "…")
    return _SECRET_FORMS.sub("…", text)


def failed(error: Exception, model: str) -> RunFailed:
    """The failure as the session's reader gets it."""
    code, advice = _classify(error)
    detail = _detail(error)
    sentence = f"{model}: {advice}" if advice else f"{model} failed."
    return RunFailed(redact(f"{sentence} {detail}".strip())[:_LONGEST], run_code=code)


def _classify(error: Exception) -> tuple[str, str]:
    match error:
        case ModelAuthenticationError():
            return (
                "provider_auth",
                "the provider refused the key. Check it in the Jupyter server's environment.",
            )
        case ModelQuotaExceededError():
            return "provider_quota", "the account's quota or credit is used up."
        case ModelRateLimitError(retry_after=wait):
            later = f" in {wait:.0f} s" if wait else " in a moment"
            return "provider_rate_limited", f"the provider asks for fewer requests. Try again{later}."
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
            return "provider_network", "the connection to the provider failed or broke off. Try again."
        case UserError() | ImportError():
            return "model_unavailable", "this model can not be used here."
        case _:
            return "provider_error", "the provider's answer was an error." if isinstance(error, AgentRunError) else ""


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
    """The message in a provider's error body, whose usual forms are ``{"error":{"message"}}`` and ``{"message"}``."""
    while isinstance(body, dict):
        body = body.get("message") or body.get("error")
    return " ".join(body.split())[:300] if isinstance(body, str) else ""
