"""The models that servers at known addresses list: Ollama, vLLM, the user's own endpoints.

Servers are asked when models are listed, never at start. Each has a second to answer, and an answer is used again for a
minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from ...log_setup import get_logger
from .catalog import all_providers, endpoints, first_key, key

log = get_logger("agent")

_TIMEOUT = 1.0  # seconds that a server has to answer: the list is for a menu that somebody has just opened
_CACHE_TIME = 60.0  # seconds for which an answer is used again; that of a server which did not answer, too
_MAX_MODELS = 200
_MAX_BYTES = 4 * 1024 * 1024
_TORNADO_NO_ANSWER = 599  # Tornado's status for a connection that failed or took too long
_NO_ANSWER = "The server at its address does not answer. Start it, or correct its address."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerModels:
    """What one server answered."""

    models: tuple[str, ...] = ()
    problem: str | None = None  # why there is no answer; None when there is one


class ModelDiscovery:
    """Asks servers for their models. One per Jupyter server."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, ServerModels]] = {}  # by address, with the time of the answer

    async def models(self) -> Mapping[str, ServerModels]:
        """By the prefix of the model strings. Takes a second at most; never raises for a server that is away."""
        addresses = {
            name: url
            for name, provider in all_providers().items()
            if provider.base_url and (url := os.environ.get(provider.base_url, "").strip().rstrip("/"))
        }
        answers = await asyncio.gather(*(self._cached(name, url) for name, url in addresses.items()))
        return dict(zip(addresses, answers, strict=True))

    async def _cached(self, name: str, url: str) -> ServerModels:
        answered_at, answer = self._answers.get(url, (float("-inf"), ServerModels()))
        if time.monotonic() - answered_at < _CACHE_TIME:
            return answer
        answer = await _ask(url, _key_of(name))
        self._answers[url] = (time.monotonic(), answer)
        return answer


def _key_of(name: str) -> str | None:
    if (endpoint := endpoints().get(name)) is not None:
        return key(endpoint.key_name)
    return first_key((f"{name.split('-')[0].upper()}_API_KEY",))


async def _ask(url: str, secret: str | None) -> ServerModels:
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    # No redirects: the key would be sent along to another host.
    request = HTTPRequest(
        f"{url}/models", headers=headers, connect_timeout=_TIMEOUT, request_timeout=_TIMEOUT, follow_redirects=False
    )
    client = AsyncHTTPClient(force_instance=True, max_body_size=_MAX_BYTES)
    try:
        # Tornado's time-outs do not cover all of it: a name server that hangs, for example.
        async with asyncio.timeout(_TIMEOUT):
            answer = await client.fetch(request)
        return ServerModels(models=tuple(_names(answer.body)))
    except HTTPClientError as error:
        # Any status of the server's own means that it is there; not all servers list their models.
        return ServerModels(problem=_NO_ANSWER if error.code == _TORNADO_NO_ANSWER else None)
    except (OSError, ValueError, KeyError, TypeError) as error:  # TimeoutError is an OSError
        log.info("models_not_listed", error=type(error).__name__)
        return ServerModels(problem=_NO_ANSWER if isinstance(error, OSError) else None)
    finally:
        client.close()


def _names(body: bytes) -> Iterator[str]:
    for one in json.loads(body)["data"][:_MAX_MODELS]:
        if isinstance(one, dict) and isinstance(one.get("id"), str):
            yield one["id"][:150]
