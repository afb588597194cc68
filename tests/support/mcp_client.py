"""The official SDK's client of the MCP server at ``navi/mcp``, and requests to it that no client would send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jupyter_server.serverapp import ServerApp
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


def url_of(serverapp: ServerApp) -> str:
    """The address of the MCP server."""
    return f"http://127.0.0.1:{serverapp.port}{serverapp.base_url}navi/mcp"


@asynccontextmanager
async def client_of(url: str, bearer: str, *, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """A connected client."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {bearer}"}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, **options) as client,
    ):
        yield client


async def post(url: str, body: Any, *, bearer: str | None, **headers: str) -> HTTPResponse:
    """One request. ``body``: bytes as they are, else as JSON."""
    given = dict(HEADERS) | ({} if bearer is None else {"Authorization": f"Bearer {bearer}"})
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await AsyncHTTPClient().fetch(
        url, method="POST", headers=given, body=content, raise_error=False, request_timeout=60
    )


def answer_in(response: HTTPResponse) -> Any:
    """The message in an answer: JSON, or the last event of a stream."""
    text = response.body.decode()
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        text = [line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1]
    return json.loads(text)
