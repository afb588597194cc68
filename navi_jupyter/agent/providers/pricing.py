"""What tokens cost, in US dollars, by the list prices that are installed. Nothing is asked of the network.

Imports genai_prices (0.2 s, with pydantic_ai): only modules that :mod:`.driver` loads may import this one.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from genai_prices import Usage as Tokens
from genai_prices import calc_price
from pydantic_ai.usage import RequestUsage, RunUsage

_CATALOG = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "azure-responses": "azure",
    "google-cloud": "google",
    "xai": "x-ai",
    "bedrock": "aws",
    "moonshotai": "moonshotai",
}
"""Our provider prefixes where the price list has another name."""
_FREE = frozenset({"ollama", "vllm", "offline"})
"""Run on one's own machines: there is no list price, and nothing is to be charged to a budget."""


class Counted(Protocol):
    """Our own counts of tokens (``model.Usage``)."""

    @property
    def input_tokens(self) -> int: ...

    @property
    def output_tokens(self) -> int: ...


def cost_of(usage: RequestUsage | RunUsage | Counted, model_name: str, provider: str | None = None) -> float | None:
    """US dollars; None where the price is not known.

    What the provider or pydantic-ai has reckoned per request (``usage.cost``) comes first: it knows of tiers and caches
    that a sum over requests does not. ``model_name`` is a bare name with its ``provider``, or a whole model string.
    """
    reckoned = getattr(usage, "cost", None)
    if isinstance(reckoned, Decimal | float | int):
        return float(reckoned)
    prefix, _, name = (provider, "", model_name) if provider is not None else model_name.partition(":")
    if prefix in _FREE or not prefix or not name:
        return None
    tokens: RequestUsage | RunUsage | Tokens = (
        usage
        if isinstance(usage, RequestUsage | RunUsage)
        else Tokens(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    )
    try:
        price = calc_price(tokens, name, provider_id=_CATALOG.get(prefix, prefix))
    except (LookupError, ValueError):
        return None
    return float(price.total_price)
