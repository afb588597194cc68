"""Looks for revoked tokens, whatever the Hub, or a proxy in front of it, answers."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from navi_jupyter.server.hub_proxy import revocation

LOG = logging.getLogger("test")


class Stream:
    """An open stream, as far as it is looked at."""

    def __init__(self) -> None:
        self.open = True
        self.current_user = SimpleNamespace(username="alice")
        self.request = SimpleNamespace(headers={"Authorization": "token t"}, connection=self)

    def close(self) -> None:
        self.open = False

    def get_argument(self, _: str, default: str = "") -> str:
        return default

    def get_cookie(self, _: str, default: str = "") -> str:
        return default


ODD = {
    "an unknown status": b"HTTP/1.1 520 Odd\r\nContent-Length: 0\r\n\r\n",
    "a cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>",
    "nothing": b"",
}
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_answer_ends_no_connection_and_no_look(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oauth = pytest.importorskip("jupyterhub.services.auth").HubOAuth
    monkeypatch.setattr(revocation, "ASKED_WITHIN", 0.3)
    monkeypatch.setattr(revocation, "KNOWN_FOR", 0.05)
    answers = [ODD[odd]]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not answers[-1]:
            await asyncio.sleep(1.0)
        writer.write(answers[-1])
        writer.close()

    hub = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hub.sockets[0].getsockname()[1]}/hub/api"
    auth = oauth(api_url=url, api_token="s", oauth_client_id="service-navi", base_url="/services/navi/")
    stream = Stream()
    rooms: Any = SimpleNamespace(connections=lambda: [stream])
    looks = asyncio.create_task(revocation.close_revoked_forever(auth, rooms, LOG))
    try:
        await asyncio.sleep(1.0)
        assert not looks.done()
        assert stream.open
        answers.append(REFUSED)
        async with asyncio.timeout(5):
            while stream.open:  # noqa: ASYNC110 - polled, as the looks are
                await asyncio.sleep(0.02)
    finally:
        looks.cancel()
        hub.close()


async def test_many_sockets_of_one_login_are_one_question_to_the_hub() -> None:
    oauth = pytest.importorskip("jupyterhub.services.auth").HubOAuth
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(1)
        await asyncio.sleep(0.05)
        writer.write(REFUSED)
        writer.close()

    hub = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hub.sockets[0].getsockname()[1]}/hub/api"
    auth = oauth(api_url=url, api_token="s", oauth_client_id="service-navi", base_url="/services/navi/")
    streams: list[Any] = [Stream() for _ in range(30)]
    await revocation.close_revoked(auth, streams, LOG)
    hub.close()
    assert not any(each.open for each in streams)
    assert len(asked) == 1
