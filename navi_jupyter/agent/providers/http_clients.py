"""HTTP clients for the packages of providers: each run has its own, and all share what is costly to make.

A TLS context reads the system's certificates: 20 to 30 ms and 1 MB. Connections, cookies and keys are the client's and
the provider's, and end with the run; nothing of one user is seen by another's.

Imports pydantic_ai and httpx2: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from pydantic_ai.models import create_async_httpx2_client
from pydantic_ai.providers import Provider as ModelProvider

from .encoded_messages import insert_messages

# Those of the packages of OpenAI and Anthropic, which pydantic-ai takes for its own clients, too.
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)

_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}  # one: that of the certificates as they are now
_making = threading.Lock()  # models are built in threads


def tls_context() -> ssl.SSLContext:
    """The context of all connections to providers, made anew when the certificates on the machine are others."""
    paths = ssl.get_default_verify_paths()
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    seen = (*named, *(_changed(path) for path in (*named, paths.openssl_cafile, paths.openssl_capath)))
    with _making:
        if (known := _contexts.get(seen)) is None:
            known = httpx2.create_ssl_context()
            _contexts.clear()
            _contexts[seen] = known
        return known


def _changed(path: str | None) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns if path else None
    except OSError:
        return None


@cache
def _usual() -> httpx2.AsyncClient:
    """A client as pydantic-ai makes it: the model of ours. It is never used; its transport saves it a TLS context."""
    return create_async_httpx2_client(transport=httpx2.AsyncBaseTransport())


def new_client() -> httpx2.AsyncClient:
    """A client as a provider makes it for itself, with the shared TLS context."""
    usual = _usual()
    hooks = {kind: list(found) for kind, found in usual.event_hooks.items()}
    hooks.setdefault("request", []).append(insert_messages)
    return httpx2.AsyncClient(
        verify=tls_context(), timeout=usual.timeout, limits=_LIMITS, headers=usual.headers, event_hooks=hooks
    )


def with_client(make: Callable[[httpx2.AsyncClient], ModelProvider[Any]]) -> ModelProvider[Any]:
    """A provider of an OpenAI or Anthropic protocol, made with a client of ours, which it closes as it would its own.

    pydantic-ai has no public way to give a client away: with a version that does not have these attributes, it is
    closed when it is collected.
    """
    client = new_client()
    provider = make(client)
    provider._own_http_client = client  # noqa: SLF001
    provider._http_client_factory = new_client  # noqa: SLF001
    return provider
