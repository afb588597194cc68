"""A real Jupyter server with the extension in it, started, for every test that asks for ``navi``.

pytest-jupyter runs ``async def`` tests by itself; it serves requests only when a test asks for ``jp_fetch`` or
``jp_ws_fetch`` (``api`` does), and it never calls the extensions' start hooks, so ``navi`` does.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import zmq
from jupyter_server.serverapp import ServerApp
from tornado.websocket import WebSocketClientConnection
from traitlets.config import Config

from navi_jupyter import redaction
from navi_jupyter.server.app import NaviExtension
from tests.support.needs import postgres_programs, s3rver
from tests.support.postgres import PrivatePostgres, started_for_all
from tests.support.s3 import PrivateS3

pytest_plugins = ["pytest_jupyter.jupyter_server"]

Envelope = dict[str, Any]
_SHARED = pytest.StashKey[PrivatePostgres | None]()


def pytest_configure(config: pytest.Config) -> None:
    """``NAVI_TEST_DATABASE=postgres`` has all tests that open a database use one PostgreSQL; its workers inherit it."""
    # Kernel managers of servers that have ended leave contexts of ZMQ behind. One that is collected before its own
    # sockets waits for them for ever, in the middle of any test, or after the last one: never restored.
    del zmq.Context.__del__
    if not hasattr(config, "workerinput"):
        config.stash[_SHARED] = started_for_all()


def pytest_unconfigure(config: pytest.Config) -> None:
    if (server := config.stash.get(_SHARED, None)) is not None:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PrivatePostgres]:
    """A PostgreSQL of this process' tests, which they do not stop."""
    server = PrivatePostgres(postgres_programs())
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PrivatePostgres) -> str:
    """A database in it."""
    return postgres_server.url()


@pytest.fixture
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL of this test, which may stop it; what it commits is on the disk."""
    server = PrivatePostgres(postgres_programs(), durable=True)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[PrivateS3]:
    """An S3 server of this process' tests, which they do not stop."""
    server = PrivateS3(s3rver())
    yield server
    server.remove()


@pytest.fixture
def s3(s3_server: PrivateS3, monkeypatch: pytest.MonkeyPatch) -> PrivateS3:
    """The same, with the environment of this process set for it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(autouse=True)
def _no_navi_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has set must not reach the tests; nor must one test's server reach the next."""
    for name in list(os.environ):
        if name.startswith(("NAVI_", "JUPYTERHUB_", "JPY_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _secrets_of_one_test() -> Iterator[None]:
    """An end of a text that may be the beginning of a secret is held back, and a process keeps its secrets: after the
    random tokens of a hundred servers of earlier tests, that would be nearly every letter."""
    before = set(redaction._remembered)
    yield
    redaction._remembered.intersection_update(before)
    redaction._known.forget()


@pytest.fixture
def navi_config() -> dict[str, Any]:
    """Traits of the extension; override it in a test module."""
    return {}


@pytest.fixture
def jp_server_config(navi_config: dict[str, Any]) -> Config:
    """The server has the extension."""
    return Config({"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}}, "NaviExtension": navi_config})


def extension_of(serverapp: ServerApp) -> NaviExtension:
    """The extension's instance in a server."""
    app = serverapp.extension_manager.extension_points["navi"].app
    assert isinstance(app, NaviExtension)
    return app


@pytest.fixture
def navi(jp_serverapp: ServerApp, jp_asyncio_loop: asyncio.AbstractEventLoop) -> NaviExtension:
    """The extension of ``jp_serverapp``, started and ready. pytest-jupyter's cleanup stops it."""
    extension = extension_of(jp_serverapp)

    async def start() -> None:
        await jp_serverapp.extension_manager.start_all_extensions()  # type: ignore[no-untyped-call]
        assert extension.lifecycle is not None
        await extension.lifecycle.ready(grace=30)

    jp_asyncio_loop.run_until_complete(start())
    return extension


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Socket:
    """A session's WebSocket, as a client sees it."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self._over = False

    async def send(self, command: Any) -> None:
        """Bytes as a binary frame, text as it is, anything else as JSON."""
        if isinstance(command, bytes):
            await self._connection.write_message(command, binary=True)
        else:
            await self._connection.write_message(command if isinstance(command, str) else json.dumps(command))

    async def read(self) -> Any:
        """The next frame, decoded; None once the socket is closed."""
        if self._over:
            return None
        frame = await asyncio.wait_for(self._connection.read_message(), 20)
        self._over = frame is None
        return None if frame is None else json.loads(frame)

    async def envelopes(self) -> list[Envelope]:
        """The envelopes of the next frame; none in an ``accepted`` or ``rejected``."""
        frame = await self.read()
        assert frame is not None, "the socket was closed"
        if "batch" in frame:
            return list(frame["batch"])
        return [frame] if "seq" in frame else []

    async def until_run_ends(self, run_id: str) -> list[Envelope]:
        """All envelopes up to the end of a run."""
        seen: list[Envelope] = []
        while not any(ends(envelope, run_id) for envelope in seen):
            seen += await self.envelopes()
        return seen

    async def answer(self, command: Any) -> dict[str, Any]:
        """Send a command and return its ``accepted`` or ``rejected``; events before it are dropped."""
        await self.send(command)
        while True:
            frame = await self.read()
            assert frame is not None, "the socket was closed"
            if "accepted" in frame or "rejected" in frame:
                return dict(frame)

    async def close_code(self) -> int | None:
        """The server's close code, once it has closed."""
        while await self.read() is not None:
            pass
        return self._connection.close_code

    async def close(self) -> None:
        """Close, and wait for the other side."""
        self._connection.close()
        while await self.read() is not None:
            pass


class Api:
    """The extension's HTTP and WebSocket, as a client sees them."""

    def __init__(
        self, fetch: Callable[..., Awaitable[Any]], ws_fetch: Callable[..., Awaitable[WebSocketClientConnection]]
    ) -> None:
        self._fetch = fetch
        self._ws_fetch = ws_fetch

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        **query: Any,
    ) -> Answer:
        """One request under ``navi/api/``. ``raw`` is sent as it is; ``body`` as JSON."""
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        given = dict(headers or {})
        if content is not None:
            given.setdefault("Content-Type", "application/json")
        response = await self._fetch(
            "navi/api",
            path,
            method=method,
            headers=given,
            params={name: str(value) for name, value in query.items()},
            body=content,
            allow_nonstandard_methods=True,
            raise_error=False,
            follow_redirects=False,
        )
        return Answer(response.code, dict(response.headers), response.body or b"")

    async def ok(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The decoded answer of a request that must succeed."""
        answer = await self(method, path, body, **query)
        assert answer.status < 300, (answer.status, answer.body)
        return answer.json if answer.body else None

    async def session(self, **fields: Any) -> str:
        """A new session's id. It has a title: a new one would be given one after its first run, in an event."""
        return str((await self.ok("POST", "sessions", {"title": "a test", **fields}))["id"])

    async def prompt(self, session_id: str, text: str, **fields: Any) -> Any:
        """Send a prompt; its acceptance."""
        return await self.ok("POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": text, **fields})

    @asynccontextmanager
    async def socket(
        self, session_id: str, *, headers: dict[str, str] | None = None, **query: Any
    ) -> AsyncIterator[Socket]:
        """The session's WebSocket."""
        path = f"navi/api/sessions/{session_id}/ws"
        given = {name: str(value) for name, value in query.items()}
        socket = Socket(await self._ws_fetch(path, headers=headers, params=given, max_message_size=2**28))
        try:
            yield socket
        finally:
            await socket.close()

    @asynccontextmanager
    async def page(self, *, headers: dict[str, str] | None = None, **unsaved: bool) -> AsyncIterator[Socket]:
        """The socket of a page that shows the notebooks of these names, and whether each has unsaved changes."""
        socket = Socket(await self._ws_fetch("navi/api/notebooks/ws", headers=headers))
        await socket.send(
            {"notebooks": [{"path": f"{name}.ipynb", "unsaved": is_so} for name, is_so in unsaved.items()]}
        )
        try:
            yield socket
        finally:
            await socket.close()

    async def until_run_ends(self, session_id: str, run_id: str) -> list[Envelope]:
        """All envelopes of the session up to the end of a run."""
        seen: list[Envelope] = []
        while True:
            after = seen[-1]["seq"] if seen else 0
            page = await self.ok("GET", f"sessions/{session_id}/events", after=after, wait=20, limit=1000)
            assert page["events"], "the run did not end in time"
            seen += page["events"]
            if any(ends(envelope, run_id) for envelope in page["events"]):
                return seen


def ends(envelope: Envelope, run_id: str) -> bool:
    """Whether it is the last event of the run."""
    return envelope["run_id"] == run_id and envelope["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")


@pytest.fixture
def api(navi: NaviExtension, jp_fetch: Any, jp_ws_fetch: Any) -> Api:
    """A client that has the server's token."""
    return Api(jp_fetch, jp_ws_fetch)
