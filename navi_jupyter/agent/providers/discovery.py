"""Which models the servers at known addresses have: Ollama, vLLM, endpoints of one's own. Asked when somebody looks.

Never at start, never in the way: each server has a second to answer, and what it said is remembered for a while.
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
from .catalog import Provider, all_providers, endpoints
from .keys import first_key, key

log = get_logger("agent")

_PATIENCE = 1.0
"""Seconds that a server has to say what it has."""
_FRESH = 60.0
"""Seconds for which an answer is used again; that of a server which did not answer, too."""
_MOST = 200
_NO_ANSWER = 599
"""Tornado's code for a connection that failed or took too long."""
_SILENT = "The server at its address does not answer."
_LARGEST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server said."""

    models: tuple[str, ...] = ()
    problem: str | None = None
    """Why it said nothing; None when it did."""


class ServedModels:
    """Asks, and remembers. One per server process."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Served]] = {}
        """By address, when it was asked."""

    async def look(self) -> Mapping[str, Served]:
        """By the prefix of the model strings. Takes a second at most; never raises for a server that is away."""
        asked = {name: url for name, provider in all_providers().items() if (url := _address(provider))}
        answers = await asyncio.gather(*(self._of(name, url) for name, url in asked.items()))
        return dict(zip(asked, answers, strict=True))

    async def _of(self, name: str, url: str) -> Served:
        asked_at, served = self._known.get(url, (float("-inf"), Served()))
        if time.monotonic() - asked_at < _FRESH:
            return served
        served = await _ask(url, _key_of(name))
        self._known[url] = (time.monotonic(), served)
        return served


def _address(provider: Provider) -> str | None:
    url = os.environ.get(provider.base_url, "").strip() if provider.base_url else ""
    return url.rstrip("/") or None


def _key_of(name: str) -> str | None:
    own = endpoints().get(name)
    if own is not None:
        return key(own.key_name)
    variable = name.split("-")[0].upper()
    return first_key((f"{variable}_API_KEY",))


async def _ask(url: str, secret: str | None) -> Served:
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    request = HTTPRequest(
        f"{url}/models", headers=headers, connect_timeout=_PATIENCE, request_timeout=_PATIENCE, follow_redirects=False
    )
    client = AsyncHTTPClient(force_instance=True, max_body_size=_LARGEST)
    try:
        async with asyncio.timeout(_PATIENCE):
            answer = await client.fetch(request)
        return Served(models=tuple(_names(answer.body)))
    except HTTPClientError as error:
        # Any answer says that it is there; not all servers list their models.
        return Served(problem=_SILENT if error.code == _NO_ANSWER else None)
    except (OSError, ValueError, KeyError, TypeError) as error:  # TimeoutError is an OSError
        log.info("models_not_listed", error=type(error).__name__)
        return Served(problem=_SILENT if isinstance(error, OSError) else None)
    finally:
        client.close()


def _names(body: bytes) -> Iterator[str]:
    for one in json.loads(body)["data"][:_MOST]:
        if isinstance(one, dict) and isinstance(one.get("id"), str):
            yield one["id"][:150]
