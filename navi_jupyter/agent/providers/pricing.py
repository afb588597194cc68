"""Prices of tokens in US dollars, by the list prices that are installed: nothing is asked of the network.

Imports genai_prices (0.2 s, with pydantic_ai): only modules that the runner loads may import this one.
"""

from __future__ import annotations

from decimal import Decimal

from genai_prices import Usage as Tokens
from genai_prices import calc_price
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage, RunUsage

from ...model.sessions import Usage

# Our provider prefixes where the price list has another name. A test finds the prices of all suggested models, so a
# name that the list changes is noticed.
_CATALOG = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "azure-responses": "azure",
    "google-cloud": "google",
    "xai": "x-ai",
    "bedrock": "aws",
    "moonshotai": "moonshotai",
}
# These run on the user's own machines: there is no list price, and nothing is charged to a budget.
_FREE = frozenset({"ollama", "vllm", "offline"})


def usage_of(used: RequestUsage, model: Model) -> Usage:
    """One request's usage as runs count it, with its cost."""
    cost = cost_of(used, model.model_name, model.system)
    return Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens, requests=1, cost=cost)


def cost_of(usage: RequestUsage | RunUsage | Usage, model_name: str, provider: str | None = None) -> float | None:
    """US dollars; None where the price is not known.

    ``model_name`` is a bare name with its ``provider``, or a whole model string.
    """
    # The provider or pydantic-ai may have computed it per request, with tiers and caches that a sum does not show.
    computed = getattr(usage, "cost", None)
    if isinstance(computed, Decimal | float | int):
        return float(computed)
    prefix, _, name = (provider, "", model_name) if provider is not None else model_name.partition(":")
    if prefix in _FREE or not prefix or not name:
        return None
    tokens: RequestUsage | RunUsage | Tokens = (
        usage
        if isinstance(usage, RequestUsage | RunUsage)
        else Tokens(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    )
    # A model or provider that the list does not have is no error: its cost is not known, and budgets of money skip it.
    try:
        price = calc_price(tokens, name, provider_id=_CATALOG.get(prefix, prefix))
    except (LookupError, ValueError):
        return None
    return float(price.total_price)
