"""What the Hub answers the service's own token, about servers of users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from navi_jupyter.errors import HubRefused, ServerUnavailable
from navi_jupyter.hub.hub_api import HubApi, HubBusy, HubUnreachable, RunningServer
from navi_jupyter.model.user_servers import ServerKey
from tests.support.hub import Hub
from tests.support.server import free_port
from tests.support.spawns import QUICK

pytestmark = pytest.mark.timeout(400)  # a Hub starts with the first test


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """With quick servers, of which two may be starting at once."""
    limits = {"concurrent_spawn_limit": 2, "active_server_limit": 3, "allow_named_servers": True}
    # The range is no option of JupyterHub's, but a default of its own: 30 to 60 s.
    settings = {"slow_spawn_timeout": 1, "spawn_throttle_retry_range": (7, 8)}
    more = {"JupyterHub": QUICK["JupyterHub"] | limits | {"tornado_settings": settings}}
    with Hub(tmp_path_factory.mktemp("hub"), more=more).start() as started:
        yield started


@asynccontextmanager
async def api_of(hub: Hub, token: str | None = None) -> AsyncIterator[HubApi]:
    api = HubApi(hub.hub_api, token or hub.service_token)
    try:
        yield api
    finally:
        api.close()


def key_of(hub: Hub, name: str, server: str = "") -> ServerKey:
    return ServerKey(hub.user(name).name, server)


async def until_ready(api: HubApi, key: ServerKey) -> RunningServer:
    while True:
        found = await api.server(key)
        if found is not None and found.ready:
            return found
        await asyncio.sleep(0.1)


async def until_off(api: HubApi, key: ServerKey) -> None:
    deadline = time.monotonic() + 30
    while await api.server(key) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("server", ["", "gpu-2"])
async def test_a_server_is_started_seen_and_stopped(hub: Hub, server: str) -> None:
    key = key_of(hub, "ada@example.org", server)
    async with api_of(hub) as api:
        assert await api.server(key) is None
        assert await api.start(key) is True, "it was up within the time that the Hub waits"
        found = await api.server(key)
        assert found is not None
        assert (found.ready, found.pending) == (True, None)
        assert found.last_activity is not None
        with pytest.raises(ServerUnavailable, match="already running"):
            await api.start(key)
        await api.stop(key)
        await until_off(api, key)
        await api.start(key)
        again = await until_ready(api, key)
        assert again.started != found.started, "which distinguishes the two"
        await api.stop(key)


async def test_a_slow_start_is_pending_until_it_is_ready(hub: Hub) -> None:
    key = key_of(hub, "slow-ada")
    async with api_of(hub) as api:
        assert await api.start(key) is False
        found = await api.server(key)
        assert found is not None
        assert (found.ready, found.pending) == (False, "spawn")
        assert await api.start(key) is False, "to ask twice is no second start"
        assert (await until_ready(api, key)).started == found.started
        await api.stop(key)


async def test_why_a_start_has_failed_is_in_the_words_of_the_hub(hub: Hub) -> None:
    key = key_of(hub, "refuses-ada")
    async with api_of(hub) as api:
        with pytest.raises(ServerUnavailable) as raised:
            await api.start(key)
        assert not isinstance(raised.value, HubUnreachable)
        assert raised.value.code == "server_unavailable"
        assert await api.server(key) is None
        assert "Spawn failed" in (await api.reason(key) or "")


async def test_without_the_scope_and_for_unknown_users_the_hub_refuses(hub: Hub) -> None:
    key = key_of(hub, "bob")
    async with api_of(hub, hub.admin_token[::-1]) as powerless, api_of(hub) as api:
        for call in (powerless.start, powerless.stop, powerless.server):
            with pytest.raises(HubRefused, match="`servers`"):
                await call(key)
        for call in (api.start, api.stop, api.server):
            with pytest.raises(HubRefused, match="no user"):
                await call(ServerKey("unheard-of", ""))
    async with api_of(hub, "x" * 32) as stranger:
        with pytest.raises(HubRefused):
            await stranger.start(key)


async def test_the_hub_names_the_time_after_which_it_has_places_again(hub: Hub) -> None:
    keys = [key_of(hub, f"slow-{number}") for number in range(3)]
    async with api_of(hub) as api:
        await asyncio.gather(*(api.start(key) for key in keys[:2]))
        with pytest.raises(HubBusy) as raised:
            await api.start(keys[2])
        assert raised.value.retry_after == 7
        for key in keys[:2]:
            await until_ready(api, key)
            await api.stop(key)
            await until_off(api, key)


async def test_a_hub_with_all_the_servers_that_it_may_have_names_no_time(hub: Hub) -> None:
    keys = [key_of(hub, f"one-of-{number}") for number in range(4)]
    async with api_of(hub) as api:
        for key in keys[:3]:
            await api.start(key)
        with pytest.raises(HubBusy) as raised:
            await api.start(keys[3])
        assert raised.value.retry_after is None
        for key in keys[:3]:
            await api.stop(key)
            await until_off(api, key)


async def test_a_hub_that_is_away_or_is_none_is_unreachable(hub: Hub) -> None:
    key = ServerKey("ada", "")
    answers = {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi": "no JSON",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]": "no JSON",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}": "502",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\n<h1>": "500",
        b"": "cannot be asked",
        b"nonsense\r\n\r\n": "cannot be asked",
    }
    for content, words in answers.items():

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes = content) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(content)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", port := free_port()):
            api = HubApi(f"http://127.0.0.1:{port}/hub/api", "t")
            with pytest.raises(HubUnreachable, match=words):
                await api.server(key)
            with pytest.raises(HubUnreachable):
                await api.stop(key)
            api.close()
    away = HubApi(f"http://127.0.0.1:{free_port()}/hub/api", "t")
    with pytest.raises(HubUnreachable):
        await away.start(key)


async def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("navi_jupyter.hub.hub_api.ANSWER_WITHIN", 0.3)

    async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_server(hold, "127.0.0.1", port := free_port()):
        api = HubApi(f"http://127.0.0.1:{port}/hub/api", "t")
        began = time.monotonic()
        with pytest.raises(HubUnreachable, match="in time"):
            await api._request("GET", "users/x", within=0.3)
        assert time.monotonic() - began < 5
        api.close()
