"""What tokens cost: by the installed list, or not at all."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest
from pydantic_ai.usage import RequestUsage

from navi_jupyter.agent.providers.catalog import PROVIDERS
from navi_jupyter.agent.providers.pricing import cost_of
from navi_jupyter.model.sessions import Usage

MILLION = Usage(input_tokens=1_000_000, output_tokens=100_000)


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-6-luna", "openai"),
        ("openai-chat:gpt-6-luna", None),
        ("openai-responses:gpt-6.1-sol", None),
        ("anthropic:claude-haiku-5-5", None),
        ("google:gemini-3.8-flash", None),
    ],
)
def test_a_listed_model_has_a_price_that_grows_with_its_tokens(name: str, provider: str | None) -> None:
    cost = cost_of(MILLION, name, provider)
    assert cost is not None
    assert 0 < cost < 100
    twice = cost_of(Usage(input_tokens=2_000_000, output_tokens=200_000), name, provider)
    assert twice is not None
    assert twice > cost


def test_all_suggested_models_have_a_price() -> None:
    names = [f"{prefix}:{model}" for prefix, one in PROVIDERS.items() for model in one.models]
    assert names
    assert not [name for name in names if cost_of(MILLION, name) is None]


@pytest.mark.parametrize(
    "name", ["ollama:qwen3:8b", "lab:gpt-6-luna", "openai-chat:nobody-knows-it", "offline", ":", ""]
)
def test_what_is_not_listed_has_no_price_rather_than_a_wrong_one(name: str) -> None:
    assert cost_of(MILLION, name) is None


def test_a_model_of_ones_own_server_costs_nothing_that_is_known() -> None:
    assert cost_of(MILLION, "qwen3:8b", "ollama") is None


def test_what_was_reckoned_for_the_request_comes_first() -> None:
    used = RequestUsage(input_tokens=10, output_tokens=10, cost=Decimal("1.25"))
    assert cost_of(used, "gpt-6-luna", "openai") == 1.25


def test_cached_tokens_are_cheaper() -> None:
    plain = cost_of(RequestUsage(input_tokens=1_000_000), "claude-haiku-5-5", "anthropic")
    cached = cost_of(RequestUsage(input_tokens=1_000_000, cache_read_tokens=900_000), "claude-haiku-5-5", "anthropic")
    assert plain is not None
    assert cached is not None
    assert cached < plain


def test_a_price_is_found_without_any_network() -> None:
    code = (
        "import socket\n"
        "def no(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "from navi_jupyter.agent.providers.pricing import cost_of\n"
        "from navi_jupyter.model.sessions import Usage\n"
        "print(cost_of(Usage(input_tokens=1000), 'openai-chat:gpt-6-luna') > 0)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "True"
